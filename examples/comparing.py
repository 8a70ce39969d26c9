"""What the experiments of docs/experiments.md share: their options, images, trainings with several
seeds, the file of their results, and curves with a band for the seeds.

A program calls `options`, then `results`, which trains or, with --redraw, reads what an earlier run
measured. The figure is drawn with matplotlib, the digits are scikit-learn's:
pip install "xpnet[data,viz]".
"""

import argparse
import io
import json
import sys
import warnings
from pathlib import Path

import numpy as np
from PIL import Image

import xpnet as xn
from xpnet.viz.figure import colour, new_figure

QUICK = {"data": "digits", "epochs": 1, "samples": 100, "tested": 50, "seeds": 2}


def options(description, *, data, epochs, samples, tested, seeds):
    """The options of an experiment, with these as their defaults."""
    parser = argparse.ArgumentParser(description=description,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", choices=("cifar10", "mnist", "digits"), default=data,
                        help=f"the images (default: {data})")
    parser.add_argument("--data-dir", help="folder of the files of CIFAR-10 or MNIST (default: "
                        "$XPNET_HOME, then the cache folder, then a download)")
    parser.add_argument("--epochs", type=positive, default=epochs,
                        help=f"passes over the images (default: {epochs})")
    parser.add_argument("--samples", type=positive, default=samples,
                        help=f"number of training images (default: {samples})")
    parser.add_argument("--tested", type=positive, default=tested,
                        help=f"number of unseen images (default: {tested})")
    parser.add_argument("--seeds", type=positive, default=seeds,
                        help=f"trainings of each network (default: {seeds})")
    parser.add_argument("--output", type=Path, default=Path("."),
                        help="folder of the figure and of the results (default: this one)")
    parser.add_argument("--redraw", action="store_true",
                        help="train nothing: draw the results that are in the folder")
    parser.add_argument("--quick", action="store_true",
                        help="to see that it runs: one epoch of 100 digits")
    found = parser.parse_args()
    if found.quick:
        vars(found).update(QUICK)
    return found


def positive(text):
    """The number of an option."""
    if not text.isdecimal() or int(text) == 0:
        raise argparse.ArgumentTypeError(f"expected a whole number, 1 or larger. Received: {text}.")
    return int(text)


def images(args, side=32):
    """x, y, unseen x, unseen y: images (N, C, side, side), of which each channel has mean 0 and
    standard deviation 1."""
    data = (xn.data.digits() if args.data == "digits" else
            getattr(xn.data, args.data)(args.data_dir))
    x, y = data[:args.samples]
    unseen, truth = data.test[:args.tested]
    x, unseen = (np.asarray(part, np.float32) for part in (x, unseen))
    mean, std = x.mean(axis=(0, 2, 3), keepdims=True), x.std(axis=(0, 2, 3), keepdims=True)
    return fitted((x - mean) / std, side), y, fitted((unseen - mean) / std, side), truth


def fitted(x, side):
    """Images with `side` rows and columns: digits are enlarged by a whole factor, MNIST's get a
    border."""
    factor = side // x.shape[-1]
    x = x.repeat(factor, axis=2).repeat(factor, axis=3)
    before = (side - x.shape[-1]) // 2
    border = before, side - x.shape[-1] - before
    return np.pad(x, ((0, 0), (0, 0), border, border), mode="edge")


def trained(net, args, images, may_diverge=False, **settings):
    """The columns of a training's history, as lists. If the training diverged, None with
    `may_diverge`, else the program ends."""
    x, y, unseen, truth = images
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "fit: parameters or running statistics became NaN")
        history = net.fit(x, y, loss="cross_entropy", epochs=args.epochs,
                          validation=(unseen, truth), verbose=False, **settings)
    check_ended(net, history, may_diverge)
    return None if history.diverged else {name: list(map(float, history[name]))
                                          for name in history if name != "seconds"}


def check_ended(net, history, may_diverge=False):
    """End the program after Ctrl-C, which `fit` takes as the end of one training, and if the
    training diverged: the figure would compare something else."""
    if history.interrupted:
        raise KeyboardInterrupt
    if history.diverged and not may_diverge:
        raise SystemExit(f"{Path(sys.argv[0]).stem}: expected all trainings to converge. Received: "
                         f"one with seed {net.seed} that diverged in epoch "
                         f"{history.divergence.epoch}. A smaller learning rate may help.")


def results(name, args, measure):
    """Return what `measure()` returns, and write it to FOLDER/name.json. With --redraw, return what
    that file has, and set `args` to the settings of its run."""
    file = args.output / f"{name}.json"
    if not args.redraw:
        used = {key: getattr(args, key) for key in QUICK}
        args.output.mkdir(parents=True, exist_ok=True)
        file.write_text(json.dumps({"settings": used, "results": rounded(measure())}))
    try:
        found = json.loads(file.read_text())
        vars(args).update(found["settings"])
        return found["results"]
    except (OSError, ValueError, TypeError, KeyError) as error:
        raise SystemExit(f"{name}: expected {file}, which a run without --redraw writes. "
                         f"Received: {type(error).__name__}.") from error


def rounded(value):
    """The same lists and dicts, their floats with five digits."""
    if isinstance(value, dict):
        return {key: rounded(item) for key, item in value.items()}
    if isinstance(value, list):
        return [rounded(item) for item in value]
    return float(f"{value:.5g}") if isinstance(value, float) else value


def span(values, form=".1%"):
    """The mean of the seeds, and in brackets the smallest and the largest value."""
    return f"{np.mean(values):{form}} ({min(values):{form}} to {max(values):{form}})"


def reached(goal, steps, curves):
    """For each curve, the first of the steps at which it reaches the goal, or "never"."""
    return ", ".join(next((f"{step:,}" for step, value in zip(steps, curve) if value >= goal),
                          "never") for curve in curves)


def figure(panels, height=3.4):
    """A figure, and axes side by side."""
    made = new_figure("experiment", 4.6 * panels, height)
    return made, made.subplots(1, panels, squeeze=False)[0]


def save(made, args, name):
    """Write the figure to FOLDER/name.png, as a small file of at most 256 colours."""
    pixels = io.BytesIO()
    made.savefig(pixels, dpi=80)
    Image.open(pixels).convert("RGB").quantize().save(args.output / f"{name}.png", optimize=True)


def draw_curves(axes, runs, x=None):
    """A line for each name: the mean of the seeds, and a band from the smallest to the largest.

    `runs` has a list of curves, one for each seed, for each name.
    """
    for number, (name, curves) in enumerate(runs.items()):
        curves = np.array(curves)                               # (seeds, points)
        at = np.arange(1, curves.shape[1] + 1) if x is None else x
        axes.plot(at, curves.mean(axis=0), color=colour(number), label=name)
        axes.fill_between(at, curves.min(axis=0), curves.max(axis=0), color=colour(number),
                          alpha=0.2, linewidth=0)
    axes.legend(fontsize=8)


def draw_dots(axes, runs):
    """A row for each name: a dot for each seed, and a line at their mean."""
    for row, values in enumerate(runs.values()):
        if not values:                          # all of them diverged
            continue
        axes.plot(values, [row] * len(values), "o", color=colour(row), alpha=0.6)
        axes.plot([np.mean(values)] * 2, [row - 0.3, row + 0.3], color=colour(row))
    axes.set_yticks(range(len(runs)), list(runs))
    axes.invert_yaxis()
