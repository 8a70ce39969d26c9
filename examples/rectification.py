"""Rectification and local contrast normalisation, each on and off, with filters that are trained
and filters that stay random (Jarrett et al. 2009, table 1).

    python examples/rectification.py [--data cifar10] [--samples 5000] [--epochs 8] [--seeds 3]
                                     [--output FOLDER] [--redraw] [--quick]

All eight networks have two stages of convolution, tanh, gain, then what is compared, and average
pooling. What came out is in docs/experiments.md.
"""

from comparing import draw_dots, figure, images, options, results, save, span, trained

import xpnet as xn

KINDS = {"neither": (False, False), "rectification": (True, False),
         "normalisation": (False, True), "both": (True, True)}


def stage(filters, kernel_size, window, rectified, normalised):
    """Jarrett's F_CSG, then R_abs, N and P_A, in the names of the paper."""
    layers = [xn.Conv2d(filters, kernel_size, padding="half", activation="tanh"), xn.Gain()]
    if rectified:
        layers.append(xn.Abs())
    if normalised:
        layers.append(xn.ContrastNorm2d(window))
    return [*layers, xn.AvgPool2d(4)]


def network(shape, seed, rectified, normalised, learned):
    layers = [*stage(16, 7, 9, rectified, normalised), *stage(32, 5, 5, rectified, normalised)]
    for layer in layers:
        layer.trainable = learned
    return xn.Sequential([*layers, xn.Flatten(), xn.Linear(10)], input_shape=shape, seed=seed)


def measure(args):
    data = images(args)
    return {filters: {name: [trained(network(data[0].shape[1:], seed, *kind, filters == "trained"),
                                     args, data, optimizer=xn.Adam(3e-3), batch_size=50,
                                     schedule="cosine")
                             for seed in range(args.seeds)]
                      for name, kind in KINDS.items()}
            for filters in ("trained", "random")}


def main() -> None:
    args = options(__doc__, data="cifar10", samples=5000, tested=2000, epochs=8, seeds=3)
    found = results("rectification", args, lambda: measure(args))
    made, panels = figure(2, 2.6)
    for axes, (filters, kinds) in zip(panels, found.items()):
        final = {name: [run["val_accuracy"][-1] for run in runs] for name, runs in kinds.items()}
        for name, accuracies in final.items():
            print(f"{filters} filters, {name:14} accuracy {span(accuracies)}")
        draw_dots(axes, final)
        axes.set(xlabel="accuracy, unseen images", title=f"{filters} filters")
    save(made, args, "rectification")


if __name__ == "__main__":
    main()
