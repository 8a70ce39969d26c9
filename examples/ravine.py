"""Gradient descent, momentum and Adam on a ravine: two weights whose loss is 100 times steeper in
one direction than across it.

    python examples/ravine.py [--steps 200] [--rates 40] [--output FOLDER]

A Linear layer of two weights learns from two features of which one is ten times as large as the
other; its half squared error is then a bowl, 1/2 (100 u^2 + v^2). Once the weights are u and v,
once both features are turned by 45 degrees, so that the ravine lies across the axes of the weights.
The learning rate of each optimizer is the best of 40. The figure shows u to the right and v upwards
in both cases. What came out is in docs/experiments.md.
"""

import argparse
from pathlib import Path

import numpy as np

import xpnet as xn
from xpnet.viz.figure import colour, new_figure

OPTIMIZERS = {"gradient descent": xn.SGD, "momentum 0.9": lambda lr: xn.SGD(lr, momentum=0.9),
              "Adam": xn.Adam}
FASTEST = 3.0                                   # learning rate
START = np.array([1.0, 9.0])                    # u, v
GOAL = 1e-3                                     # of the loss at the start
ANGLES = {"along the axes": 0.0, "across the axes": np.pi / 4}


def bowl(u, v):
    return (100 * u ** 2 + v ** 2) / 2


def samples(angle):
    """Four samples (N, 2) with targets 0, whose half squared error is the bowl, and the matrix that
    turns (u, v) into weights."""
    turn = np.array([[np.cos(angle), -np.sin(angle)], [np.sin(angle), np.cos(angle)]])
    corners = np.array([[10, 1], [10, -1], [-10, 1], [-10, -1]])
    return corners @ turn.T, turn


def path(optimizer, angle, steps):
    """The weights (u, v) before each step, (steps + 1, 2), and the losses there. It ends where the
    loss explodes."""
    x, turn = samples(angle)
    net = xn.Sequential([xn.Linear(1, bias=False)], input_shape=(2,), dtype="float64",
                        backend="numpy")
    net.layers[0].W.data[...] = turn @ START
    step = xn.TrainStep(net, xn.HalfSquaredError(), optimizer)
    batch, targets = net.batch_last(x), np.zeros((1, len(x)))
    places, losses = [START], [bowl(*START)]
    while len(places) <= steps and losses[-1] < 1e3 * losses[0]:
        step(batch, targets)
        places.append(turn.T @ net.layers[0].W.data[0])
        losses.append(bowl(*places[-1]))
    return np.array(places), np.array(losses)


def steps_to_goal(losses):
    """The first step from which on the loss stays below the goal; None if there is no such step."""
    below = losses < GOAL * losses[0]
    return len(below) - int(below[::-1].argmin()) if below[-1] else None


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=200,
                        help="steps of each optimizer (default: 200)")
    parser.add_argument("--output", type=Path, default=Path("."),
                        help="folder of the figure (default: this one)")
    parser.add_argument("--rates", type=int, default=40,
                        help="learning rates of each optimizer, of which the best is drawn "
                             "(default: 40)")
    args = parser.parse_args()
    rates = np.geomspace(1e-3, FASTEST, args.rates)
    args.output.mkdir(parents=True, exist_ok=True)
    made = new_figure("ravine", 9.2, 5)
    u, v = np.meshgrid(np.linspace(-1.6, 1.6, 100), np.linspace(-3, 10, 100))
    for row, (title, angle) in zip(made.subplots(2, 3), ANGLES.items()):
        for number, (axes, (name, make)) in enumerate(zip(row, OPTIMIZERS.items())):
            runs = {rate: path(make(float(rate)), angle, args.steps) for rate in rates}
            need = {rate: steps_to_goal(losses) or np.inf for rate, (_, losses) in runs.items()}
            best = min(rates, key=lambda rate: (need[rate], runs[rate][1][-1]))
            places, losses = runs[best]
            print(f"{title}, {name:16} learning rate {best:.3f}: {need[best]} steps, loss at the "
                  f"end {losses[-1]:.1e}")
            axes.contour(u, v, bowl(u, v), levels=np.geomspace(0.1, 100, 7),
                         colors="0.8", linewidths=0.8)
            axes.plot(*places.T, ".-", color=colour(number), linewidth=1, markersize=3)
            axes.plot(0, 0, "k+")
            axes.set(xlim=(-1.6, 1.6), ylim=(-3, 10))
            axes.set_title(f"{name}, lr {best:.3f}: {need[best]} steps", fontsize=9)
        row[0].set_ylabel(title)
    made.savefig(args.output / "ravine.png", dpi=80)


if __name__ == "__main__":
    main()
