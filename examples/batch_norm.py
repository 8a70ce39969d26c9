"""Batch norm against none, and against dropout: how fast a convolutional network learns, and how
large its learning rate may be (Ioffe and Szegedy 2015, section 4.2).

    python examples/batch_norm.py [--data cifar10] [--samples 5000] [--epochs 12] [--seeds 3]
                                  [--output FOLDER] [--redraw] [--quick]

The four networks differ only in what follows their convolutions. What came out is in
docs/experiments.md.
"""

from comparing import draw_curves, figure, images, options, reached, results, save, span, trained

import xpnet as xn
from xpnet.viz.figure import colour

KINDS = {"neither": (False, 0.0), "batch norm": (True, 0.0), "dropout": (False, 0.5),
         "both": (True, 0.5)}
RATES = 0.003, 0.01, 0.03, 0.1, 0.3
GOAL = 0.5                              # steps are counted up to this accuracy
BATCH = 50


def network(shape, seed, normalised, dropped):
    """Three convolutions and one hidden layer, with batch norm before each ReLU, and dropout before
    both dense layers."""
    def relu(layer, norm):
        return [layer, norm(activation="relu")] if normalised else [layer, xn.ReLU()]

    layers = []
    for filters in (16, 32, 64):
        convolution = xn.Conv2d(filters, 3, padding="half", bias=not normalised, init="he_normal")
        layers += [*relu(convolution, xn.BatchNorm2d), xn.MaxPool2d(2)]
    dropout = (lambda: [xn.Dropout(dropped)]) if dropped else list
    layers += [xn.Flatten(), *dropout(),
               *relu(xn.Linear(64, bias=not normalised, init="he_normal"), xn.BatchNorm1d),
               *dropout(), xn.Linear(10)]
    return xn.Sequential(layers, input_shape=shape, seed=seed)


def measure(args):
    data = images(args)

    def run(seed, rate, normalised, dropped, **more):
        net = network(data[0].shape[1:], seed, normalised, dropped)
        return trained(net, args, data, optimizer=xn.SGD(rate, momentum=0.9), batch_size=BATCH,
                       **more)

    curves = {name: [run(seed, 0.01, *kind) for seed in range(args.seeds)]
              for name, kind in KINDS.items()}
    by_rate = {name: {str(rate): run(0, rate, *KINDS[name], may_diverge=True) for rate in RATES}
               for name in ("neither", "batch norm")}
    return {"curves": curves, "rates": {
        name: {rate: run and run["val_accuracy"][-1] for rate, run in runs.items()}
        for name, runs in by_rate.items()}}


def main() -> None:
    args = options(__doc__, data="cifar10", samples=5000, tested=2000, epochs=12, seeds=3)
    found = results("batch_norm", args, lambda: measure(args))
    steps = [epoch * -(-args.samples // BATCH) for epoch in range(1, args.epochs + 1)]
    for name, runs in found["curves"].items():
        accuracies = [run["val_accuracy"] for run in runs]
        print(f"{name:10} accuracy {span([curve[-1] for curve in accuracies])}, of trained images "
              f"{span([run['accuracy'][-1] for run in runs])}; steps to {GOAL:.0%}: "
              f"{reached(GOAL, steps, accuracies)}")
    for name, rates in found["rates"].items():
        print(f"{name:10} by learning rate: "
              + ", ".join(f"{rate}: diverged" if a is None else f"{rate}: {a:.1%}"
                          for rate, a in rates.items()))

    made, (left, right) = figure(2)
    draw_curves(left, {name: [run["val_accuracy"] for run in runs]
                       for name, runs in found["curves"].items()})
    left.set(xlabel="epoch", ylabel="accuracy, unseen images", title="learning rate 0.01")
    for number, (name, rates) in enumerate(found["rates"].items()):
        right.semilogx([float(rate) for rate in rates],
                       [float("nan") if a is None else a for a in rates.values()], "o-", label=name,
                       color=colour(number))
    right.set(xlabel="learning rate", ylabel="accuracy after training",
              title="one seed; no dot: diverged")
    right.legend()
    save(made, args, "batch_norm")


if __name__ == "__main__":
    main()
