"""Dropout against ensembles of bagged networks (Srivastava et al. 2014; Breiman 1996): what one
network with dropout gains, and what several networks gain that are trained separately.

    python examples/bagging.py [--data mnist] [--samples 1000] [--epochs 30] [--seeds 3]
                               [--output FOLDER] [--redraw] [--quick]

All networks have two hidden layers of 256 units. Bagged ones learn from samples that are drawn with
replacement; the others of an ensemble from all samples, and differ only in their seeds. What came
out is in docs/experiments.md.
"""

import numpy as np
from comparing import check_ended, draw_curves, figure, images, options, results, save, span

import xpnet as xn
from xpnet.viz.figure import colour

MOST = 8                                # networks of an ensemble
MASKS = 50                              # of dropout, in a mean over masks


def network(shape, seed, dropped=False):
    """Two hidden layers; with dropout of the input and of both of them, as in the paper."""
    layers = [xn.Flatten()] + dropped * [xn.Dropout(0.2)]
    for _ in range(2):
        layers += [xn.Linear(256, activation="relu")] + dropped * [xn.Dropout(0.5)]
    return xn.Sequential([*layers, xn.Linear(10)], input_shape=shape, seed=seed)


def measure(args):
    x, y, unseen, truth = images(args, side=28)
    shape, settings = x.shape[1:], {"loss": "cross_entropy", "optimizer": "adam",
                                    "epochs": args.epochs}

    def accuracies(nets):
        """Of the ensembles of the first 1, 2, ... networks."""
        p = np.cumsum([net.predict_proba(unseen) for net in nets], axis=0)     # (n, N, 10)
        return (p.argmax(axis=2) == truth).mean(axis=1).tolist()

    def run(seed):
        first = 1000 * seed
        bagged = xn.Ensemble.bagged(lambda s: network(shape, s), MOST, x, y, seed=first, **settings)
        for net in bagged.nets:
            check_ended(net, net.history)
        others = [network(shape, first + k) for k in range(MOST)]
        dropout = network(shape, first, dropped=True)
        for net in (*others, dropout):
            check_ended(net, net.fit(x, y, verbose=False, **settings))
        mean, _ = dropout.predict_samples(unseen, MASKS)
        return {"bagged": accuracies(bagged.nets), "same samples": accuracies(others),
                "dropout": accuracies([dropout])[0],
                "masks": float((mean.argmax(axis=1) == truth).mean())}
    return [run(seed) for seed in range(args.seeds)]


def main() -> None:
    args = options(__doc__, data="mnist", samples=1000, tested=5000, epochs=30, seeds=3)
    found = results("bagging", args, lambda: measure(args))
    single = {"dropout, one pass": [run["dropout"] for run in found],
              f"dropout, mean over {MASKS} masks": [run["masks"] for run in found]}
    ensembles = {name: [run[name] for run in found] for name in ("bagged", "same samples")}
    for name, runs in ensembles.items():
        for count in (1, MOST):
            print(f"{count:2} networks, {name:12} accuracy "
                  f"{span([run[count - 1] for run in runs], '.2%')}")
    made, (axes,) = figure(1)
    draw_curves(axes, ensembles)
    for number, (name, accuracies) in enumerate(single.items(), len(ensembles)):
        print(f"{name}: accuracy {span(accuracies, '.2%')}")
        axes.axhline(np.mean(accuracies), color=colour(number), label=name, linestyle="--")
        axes.axhspan(min(accuracies), max(accuracies), color=colour(number), alpha=0.15)
    axes.set(xlabel="networks in the ensemble", ylabel="accuracy, unseen images")
    axes.legend(fontsize=8)
    save(made, args, "bagging")


if __name__ == "__main__":
    main()
