"""The `xpnet` command: train, evaluate and show networks of the literature on images of digits, and
verify every layer."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xpnet import __version__
from xpnet.backends import BackendError, get_backend
from xpnet.checks import expect_choice, nearest, shown

# The age of the process counts from here if the system does not report when it started.
IMPORTED = time.perf_counter()


class Recipe(NamedTuple):
    """Default settings of `train`; they reach the accuracies that the README states."""

    epochs: int
    batch_size: int
    weight_decay: float     # few images need much of it


RECIPES = {"digits": Recipe(epochs=20, batch_size=32, weight_decay=1.0),
           "mnist": Recipe(epochs=3, batch_size=128, weight_decay=0.1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command and return its exit status; an error that users can correct is printed to
    stderr in one line, with status 2."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, TypeError, OSError, ImportError, BackendError) as error:
        print(f"xpnet: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xpnet", description=__doc__)
    parser.add_argument("--version", action="version", version=f"xpnet {__version__}")
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network and save it")
    _data_options(train)
    train.add_argument("--model", default="bilici",
                       help="a network of xpnet.models (default: bilici)")
    train.add_argument("--epochs", type=int,
                       help=f"passes over the training images {_defaults('epochs')}")
    train.add_argument("--batch-size", type=int,
                       help=f"images per training step {_defaults('batch_size')}")
    train.add_argument("--lr", type=float, default=4e-3,
                       help="largest learning rate of AdamW (default: 0.004)")
    train.add_argument("--weight-decay", type=float,
                       help=f"weight decay of AdamW {_defaults('weight_decay')}")
    train.add_argument("--until-accuracy", type=float, metavar="PERCENT",
                       help="stop after the first epoch with this accuracy on the test images; "
                            "exit status 1 if no epoch reaches it")
    train.add_argument("--schedule", default="one_cycle",
                       help='schedule of the learning rate: "one_cycle" (default), "constant", '
                            '"cosine", "step", ...')
    train.add_argument("--seed", type=int, default=0,
                       help="seed of initial values, order of the images and dropout (default: 0)")
    _backend_option(train)
    train.add_argument("--autotune", action="store_true",
                       help="on a GPU, time the alternative kernels for each shape and use the "
                            "fastest; this can change the last bits of the results, and the choice "
                            "is saved with the network")
    train.add_argument("--checkpoint", metavar="FOLDER",
                       help="save the training there after each epoch")
    train.add_argument("--resume", metavar="FOLDER",
                       help="continue the training that was saved there, to the same bits; without "
                            "one, begin, and save there")
    train.add_argument("--save", metavar="FILE",
                       help="where to save the network (default: DATA-MODEL.safetensors)")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser(
        "evaluate", help="print the loss and accuracy of a saved network on the test images")
    evaluate.add_argument("file", help="a network that `xpnet train` or net.save saved")
    _data_options(evaluate)
    _backend_option(evaluate)
    evaluate.set_defaults(run=_evaluate)

    summary = commands.add_parser("summary", help="print the table of a network's layers")
    summary.add_argument("network", help="a network of xpnet.models, or a file")
    summary.set_defaults(run=_summary)

    verify = commands.add_parser(
        "verify", help="check the gradient of every layer and loss, and the results of every "
                       "backend")
    verify.add_argument("--backend", action="append",
                        help="a backend to check; can be repeated (default: all)")
    verify.set_defaults(run=_verify)

    doctor = commands.add_parser(
        "doctor", help="show what this machine offers, what is missing, and what to do about it")
    doctor.add_argument("--json", action="store_true", help="print a list of JSON objects")
    doctor.set_defaults(run=_doctor)
    return parser


def _backend_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="auto",
                        help='array backend: "auto" (default), "numpy", "numba", "cupy" or '
                             '"cupy:DEVICE"')


def _defaults(name: str) -> str:
    values = ", ".join(f"{data} {getattr(recipe, name)}" for data, recipe in RECIPES.items())
    return f"(default: {values})"


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=sorted(RECIPES), default="digits",
                        help="the data set (default: digits)")
    parser.add_argument("--data-dir",
                        help="folder of MNIST's files (default: $XPNET_HOME, then the cache "
                             "folder, then a download)")


def _dataset(options: argparse.Namespace) -> Any:
    from xpnet.data import digits, mnist
    return mnist(options.data_dir) if options.data == "mnist" else digits()


def _model(name: str) -> Any:
    from xpnet.models import MODELS
    return MODELS[expect_choice("train", "--model", name, list(MODELS))]


def _train(options: argparse.Namespace) -> int:
    from xpnet.optim import AdamW
    build, percent = _model(options.model), options.until_accuracy
    if percent is not None and not 0 < percent <= 100:
        raise ValueError("--until-accuracy: expected a percentage above 0, 100 at most. Received: "
                         f"{percent}.")
    passed = {name: getattr(options, name) for name in Recipe._fields
              if getattr(options, name) is not None}
    recipe = RECIPES[options.data]._replace(**passed)
    path = Path(options.save or f"{options.data}-{options.model}.safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"--save: expected a file in a folder that exists. Received: {path}.")
    data = _dataset(options)
    x_train, y_train, x_test, y_test = data.arrays()
    backend = get_backend(options.backend, autotune=options.autotune)
    net = build(input_shape=data.shape, backend=backend, seed=options.seed)
    if percent is not None:
        print(f"training until {percent:g}% of the *test* images are classified correctly, as the "
              "author of numpy_cnn reported it; the test images choose the epoch, so this accuracy "
              "is no estimate for unseen images")
    started = time.perf_counter()
    history = net.fit(x_train, y_train, loss="cross_entropy", schedule=options.schedule,
                      optimizer=AdamW(options.lr, weight_decay=recipe.weight_decay),
                      epochs=recipe.epochs, batch_size=recipe.batch_size,
                      validation=None if percent is None else (x_test, y_test),
                      checkpoint=options.checkpoint, resume=options.resume,
                      until=None if percent is None else
                      lambda row: _reaches(row["val_accuracy"], percent))
    age = _process_age()
    print(f"trained in {time.perf_counter() - started:.1f} s")
    accuracy = history.rows[-1].get("val_accuracy", math.nan)
    if history.stopped:
        print(f"reached {100 * accuracy:.2f}% after {len(history.rows)} epochs, {age:.1f} s from "
              "the start of the process")
    elif percent is not None:
        print(f"{percent:g}% was not reached in {len(history.rows)} epochs")
    net.save(path)
    command = f"{sys.orig_argv[0]} -m xpnet"        # the interpreter as the user called it
    print(f"saved {path}\nnext, try:\n"
          f"  {command} summary {path}\n"
          f"  {command} train --data mnist --model numpy_cnn\n"
          f"  {command} train --help")
    if math.isnan(accuracy):    # fit had no test images, or was interrupted before it used them
        accuracy = net.evaluate(x_test, y_test)["accuracy"]
    print(f"test accuracy: {100 * accuracy:.2f}%")
    if history.interrupted:
        return 130
    return 1 if percent is not None and not history.stopped else 0


def _reaches(accuracy: float, percent: float) -> bool:
    """Whether 100 accuracy >= percent, up to rounding: 9,840 correct images of 10,000 are 98.4 %,
    which is not exact in binary."""
    return 100 * accuracy >= percent - 1e-9


def _process_age() -> float:
    """Seconds since the process started, including the start of Python and all imports.

    On Linux, the time since boot minus field 22 of /proc/self/stat, in clock ticks since boot (man
    proc_pid_stat); on other systems, the time since the import of this module.
    """
    try:
        # The program's name before ")" may contain spaces.
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.perf_counter() - IMPORTED


def _evaluate(options: argparse.Namespace) -> int:
    from xpnet.network import load
    net, data = load(options.file, backend=options.backend), _dataset(options)
    x_test, y_test = data.arrays()[2:]
    figures = net.evaluate(x_test, y_test, loss="cross_entropy")
    print(f"test loss: {figures['loss']:.4f}\ntest accuracy: {100 * figures['accuracy']:.2f}%")
    return 0


def _verify(options: argparse.Namespace) -> int:
    """Print a row for each item of the catalogue; exit status 1 if a check failed."""
    from xpnet.backends import available
    from xpnet.catalogue.verify import verify
    backends = {name: get_backend(name) for name in options.backend or available()}
    print("gradient: relative error of the gradients in float64, against finite differences\n"
          f"{', '.join(backends)}: relative error of the output and all gradients in float32, "
          "against the\n"
          "    reference implementation in float64; then the code that ran: the backend's own, or "
          "another\n"
          '    implementation that it falls back to ("array code": the item calls no method of a '
          'backend)\n')
    print(f"{'':24}{'gradient':>10}", *(f"  {name:22}" for name in backends), sep="")
    shown, rows = None, []
    for row in verify(backends):
        if row.family != shown:
            print(row.family)
            shown = row.family
        cells = [f"{'FAILED' if isinstance(row.gradient, str) else f'{row.gradient:.1e}':>10}"]
        for result in row.backends.values():
            cells.append("  " + ("FAILED" if isinstance(result, str) else
                                 f"{result.error:.1e} "
                                 f"{'+'.join(result.ran) or 'array code'}").ljust(22))
        print(f"  {row.name:22}", "".join(cells).rstrip(), sep="", flush=True)
        rows.append(row)
    failures = [failure for row in rows for failure in row.failures]
    print()
    for name, backend in backends.items():
        results = [row.backends[name] for row in rows]
        own = sum(not isinstance(result, str) and backend.name in result.ran for result in results)
        print(f"{name}: its own code ran in {own} of {len(rows)} items")
    print(f"{len(rows)} items, {len(failures)} failures", *failures, sep="\n")
    return 1 if failures else 0


def _doctor(options: argparse.Namespace) -> int:
    from xpnet.inspect.doctor import findings
    if options.json:
        import json
        print(json.dumps([vars(finding) for finding in findings()], indent=1))
        return 0
    for finding in findings():      # each as soon as it is there: the last ones are measured
        print(finding, flush=True)
    return 0


def _summary(options: argparse.Namespace) -> int:
    from xpnet.models import MODELS
    from xpnet.network import load
    name = options.network
    if name not in MODELS and not Path(name).exists():
        near = nearest(name, MODELS)
        raise ValueError(f"summary: expected a file, or one of {', '.join(MODELS)}"
                         + (f', perhaps "{near}"' if near else "")
                         + f". Received: {shown(name)}, which is neither.")
    net = MODELS[name](backend="numpy") if name in MODELS else load(name, backend="numpy")
    print(net.summary())
    return 0
