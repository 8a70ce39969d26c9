"""The `xpnet` command: train, evaluate and show the networks of the literature on real pictures;
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

from xpnet.backends import BackendError, get_backend
from xpnet.checks import expect_choice, nearest, shown

# where the system does not tell when the process started, its age counts from here
IMPORTED = time.perf_counter()


class Recipe(NamedTuple):
    """What `train` does unless told: enough for the accuracies that the README states."""

    epochs: int
    batch_size: int
    weight_decay: float     # few pictures need much


RECIPES = {"digits": Recipe(epochs=20, batch_size=32, weight_decay=1.0),
           "mnist": Recipe(epochs=3, batch_size=128, weight_decay=0.1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors that users can mend are one line on stderr,
    and status 2."""
    options = _parser().parse_args(arguments)
    try:
        return options.run(options)
    except (ValueError, TypeError, OSError, ImportError, BackendError) as error:
        print(f"xpnet: {error}", file=sys.stderr)
        return 2


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="xpnet", description=__doc__)
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")

    train = commands.add_parser("train", help="train a network and save it")
    _data_options(train)
    train.add_argument("--model", default="bilici", help="a network of xpnet.models (default: "
                                                         "bilici)")
    train.add_argument("--epochs", type=int, help="passes over the training pictures "
                                                  f"{_defaults('epochs')}")
    train.add_argument("--batch-size", type=int, help="pictures per step "
                                                      f"{_defaults('batch_size')}")
    train.add_argument("--lr", type=float, default=4e-3, help="AdamW's peak learning rate "
                                                              "(default: 0.004)")
    train.add_argument("--weight-decay", type=float, help="AdamW's weight decay "
                                                          f"{_defaults('weight_decay')}")
    train.add_argument("--until-accuracy", type=float, metavar="PERCENT",
                       help="stop once an epoch ends with this accuracy on the test pictures; exit "
                            "status 1 if none does")
    train.add_argument("--schedule", default="one_cycle", help='"one_cycle" (default), "constant", '
                                                               '"cosine", "step", ...')
    train.add_argument("--seed", type=int, default=0, help="seed of initial values, order and "
                                                           "dropout (default: 0)")
    _backend_option(train)
    train.add_argument("--autotune", action="store_true",
                       help="let a GPU measure which of its kernels is the fastest for each shape: "
                            "other bits, kept in the file")
    train.add_argument("--save", metavar="FILE", help="where the network goes (default: "
                                                      "DATA-MODEL.safetensors)")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="loss and accuracy of a saved network on the "
                                                    "test pictures")
    evaluate.add_argument("file", help="a network that `xpnet train` or net.save wrote")
    _data_options(evaluate)
    _backend_option(evaluate)
    evaluate.set_defaults(run=_evaluate)

    summary = commands.add_parser("summary", help="the table of a network's layers")
    summary.add_argument("network", help="a network of xpnet.models, or a file")
    summary.set_defaults(run=_summary)

    verify = commands.add_parser("verify", help="check the gradient of every layer and loss, and "
                                                "what every backend computes")
    verify.add_argument("--backend", action="append", help="a backend to check, more than once for "
                                                           "several (default: all)")
    verify.set_defaults(run=_verify)
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
                        help="the pictures (default: digits)")
    parser.add_argument("--data-dir", help="where MNIST's files lie (default: $XPNET_HOME, the "
                                           "cache folder, a download)")


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
    told = ({name: getattr(options, name) for name in Recipe._fields
             if getattr(options, name) is not None})
    recipe = RECIPES[options.data]._replace(**told)
    path = Path(options.save or f"{options.data}-{options.model}.safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"--save: expected a file in a folder that exists. Received: {path}.")
    data = _dataset(options)
    backend = get_backend(options.backend, autotune=options.autotune)
    net = build(input_shape=data.x_train.shape[1:], backend=backend, seed=options.seed)
    validation, until = None, None
    if percent is not None:
        print(f"training until {percent:g}% of the *test* pictures are right, as the author of "
              "numpy_cnn reported it: "
              "chosen by these pictures, the figure is no estimate for unseen ones")
        validation, until = (data.x_test,
                             data.y_test), lambda row: _reaches(row["val_accuracy"], percent)
    started = time.perf_counter()
    history = net.fit(data.x_train, data.y_train, loss="cross_entropy", schedule=options.schedule,
                      optimizer=AdamW(options.lr, weight_decay=recipe.weight_decay),
                      epochs=recipe.epochs, batch_size=recipe.batch_size, validation=validation,
                      until=until)
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
    if math.isnan(accuracy):  # fit did not look at the test pictures, or Ctrl-C came before it did
        accuracy = net.evaluate(data.x_test, data.y_test)["accuracy"]
    print(f"test accuracy: {100 * accuracy:.2f}%")
    if history.interrupted:
        return 130
    return 1 if percent is not None and not history.stopped else 0


def _reaches(accuracy: float, percent: float) -> bool:
    """Whether 100 accuracy >= percent, but for rounding: 98.4 % of 10,000 pictures are 9,840, and
    98.4 is no binary number."""
    return 100 * accuracy >= percent - 1e-9


def _process_age() -> float:
    """Seconds since the process started, with the start of Python and all imports, as far as the
    system tells.

    On Linux the time since boot less the 22nd field of /proc/self/stat, in ticks since boot (man
    proc_pid_stat); elsewhere from the import of this module.
    """
    try:
        # the name before ")" may hold spaces
        fields = Path("/proc/self/stat").read_text().rpartition(")")[2].split()
        return time.clock_gettime(time.CLOCK_BOOTTIME) - int(fields[19]) / os.sysconf("SC_CLK_TCK")
    except (OSError, AttributeError):
        return time.perf_counter() - IMPORTED


def _evaluate(options: argparse.Namespace) -> int:
    from xpnet.network import load
    net, data = load(options.file, backend=options.backend), _dataset(options)
    figures = net.evaluate(data.x_test, data.y_test, loss="cross_entropy")
    print(f"test loss: {figures['loss']:.4f}\ntest accuracy: {100 * figures['accuracy']:.2f}%")
    return 0


def _verify(options: argparse.Namespace) -> int:
    """One row for each item of the catalogue; exit status 1 where a check failed."""
    from xpnet.backends import available
    from xpnet.catalogue.verify import verify
    backends = {name: get_backend(name) for name in options.backend or available()}
    print("gradient: relative error in float64, against finite differences\n"
          f"{', '.join(backends)}: relative error of the output and all gradients in float32, "
          "against the\n"
          "    plain implementation in float64, and which implementations ran: the backend's own, "
          "or\n"
          '    another one that it falls back to ("array code": the item needs no method of a '
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
        print(f"{name}: code of its own ran in {own} of {len(rows)} items")
    print(f"{len(rows)} items, {len(failures)} failures", *failures, sep="\n")
    return 1 if failures else 0


def _summary(options: argparse.Namespace) -> int:
    from xpnet.models import MODELS
    from xpnet.network import load
    name = options.network
    if name not in MODELS and not Path(name).exists():
        near = nearest(name, MODELS)
        raise ValueError(f"summary: expected a file, or one of {', '.join(MODELS)}"
                         + (f', perhaps "{near}"' if near else "")
                         + f". Received: {shown(name)}, where there is no file.")
    net = MODELS[name](backend="numpy") if name in MODELS else load(name, backend="numpy")
    net.summary()
    return 0
