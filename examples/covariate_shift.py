"""Internal covariate shift: how the inputs of a sigmoid change while the layers below learn,
with and without batch norm (Ioffe and Szegedy 2015, section 4.1 and figure 1).

    python examples/covariate_shift.py [--data mnist] [--samples 60000] [--epochs 5] [--seeds 3]
                                       [--output FOLDER] [--redraw] [--quick]

As in the paper, the network has three hidden layers of 100 sigmoids, small random weights, and
batches of 60; the paper trains for 50,000 steps. The curves are the 15th, 50th and 85th percentile
of the inputs of the last sigmoid, in 500 unseen images. What came out is in docs/experiments.md.
"""

import numpy as np
from comparing import (
    check_ended,
    draw_curves,
    figure,
    images,
    options,
    reached,
    results,
    save,
    span,
)

import xpnet as xn
from xpnet.viz.figure import colour

KINDS = {"without": False, "batch norm": True}
EVERY = 50                              # steps between two records
GOAL = 0.85                             # steps are counted up to this accuracy
UNIT = 0                                # the unit that is drawn, of 100


class Watch(xn.Callback):
    """Record percentiles of the last sigmoid's inputs, and the accuracy."""

    def __init__(self, unseen, truth):
        self.unseen, self.truth = unseen, truth
        self.steps, self.accuracies, self.percentiles = [], [], []

    def on_batch_end(self, run):
        if run.steps % EVERY == 1:
            z = run.net.output_of("last", self.unseen[:500])                    # (N, 100)
            norm = run.net.layers[-3]
            if isinstance(norm, xn.BatchNorm1d):        # with their own statistics, as in training
                gamma, beta = (run.net.backend.to_numpy(p.data) for p in (norm.gamma, norm.beta))
                z = gamma * (z - z.mean(axis=0)) / z.std(axis=0) + beta
            self.percentiles.append(np.percentile(z, (15, 50, 85), axis=0))     # (3, 100)
            self.accuracies.append(run.net.evaluate(self.unseen, self.truth)["accuracy"])
            self.steps.append(run.steps)


def network(shape, seed, normalised):
    layers = [xn.Flatten()]
    for name in (None, None, "last"):
        if normalised:
            layers += [xn.Linear(100, bias=False, name=name), xn.BatchNorm1d(), xn.Sigmoid()]
        else:
            layers += [xn.Linear(100, name=name), xn.Sigmoid()]
    net = xn.Sequential([*layers, xn.Linear(10)], input_shape=shape, seed=seed)
    rng = np.random.default_rng(seed)
    for layer in net.layers:
        if isinstance(layer, xn.Linear):        # the paper: small Gaussian numbers
            layer.W.data[...] = net.xp.asarray(rng.normal(0, 0.1, layer.W.shape))
    return net


def measure(args):
    x, y, unseen, truth = images(args, side=28)

    def run(seed, normalised):
        net, watch = network(x.shape[1:], seed, normalised), Watch(unseen, truth)
        check_ended(net, net.fit(
            x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=60, epochs=args.epochs,
            callbacks=[watch], verbose=False))
        found = np.array(watch.percentiles)                                     # (T, 3, 100)
        return {"steps": watch.steps, "accuracy": watch.accuracies,
                "unit": found[:, :, UNIT].T.tolist(), "drift": drift(found)}
    return {name: [run(seed, kind) for seed in range(args.seeds)] for name, kind in KINDS.items()}


def drift(percentiles):
    """How much the median moves: its standard deviation over the records, divided by the mean
    distance from the 15th to the 85th percentile; of the 100 units, the median."""
    low, middle, high = percentiles.transpose(1, 0, 2)                          # (T, 100)
    return float(np.median(middle.std(axis=0) / (high - low).mean(axis=0)))


def main() -> None:
    args = options(__doc__, data="mnist", samples=60000, tested=1000, epochs=5, seeds=3)
    found = results("covariate_shift", args, lambda: measure(args))
    made, (left, *others) = figure(3, 3)
    draw_curves(left, {name: [run["accuracy"] for run in runs] for name, runs in found.items()},
                found["without"][0]["steps"])
    left.set(xlabel="step", ylabel="accuracy, unseen images")
    for number, (axes, (name, runs)) in enumerate(zip(others, found.items())):
        accuracies = [run["accuracy"] for run in runs]
        print(f"{name:10} accuracy {span([curve[-1] for curve in accuracies])}, "
              f"steps to {GOAL:.0%}: {reached(GOAL, runs[0]['steps'], accuracies)}")
        print(f"{name:10} the median of an input moves by "
              f"{span([run['drift'] for run in runs], '.3f')} of its spread")
        low, middle, high = runs[0]["unit"]
        axes.plot(runs[0]["steps"], middle, color=colour(number))
        axes.fill_between(runs[0]["steps"], low, high, alpha=0.25, color=colour(number))
        axes.set(xlabel="step", ylabel=f"inputs of sigmoid {UNIT} of the last layer", title=name)
    others[1].sharey(others[0])
    save(made, args, "covariate_shift")


if __name__ == "__main__":
    main()
