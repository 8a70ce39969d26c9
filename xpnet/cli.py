"""The `xpnet` command: train, evaluate and show the networks of the literature on real pictures."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

from xpnet.backends import BackendError


class Recipe(NamedTuple):
    """What `train` does unless told: enough for the accuracies that the README states."""

    epochs: int
    batch_size: int
    weight_decay: float     # few pictures need much


RECIPES = {"digits": Recipe(epochs=20, batch_size=32, weight_decay=1.0),
           "mnist": Recipe(epochs=3, batch_size=128, weight_decay=0.1)}


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command; returns the exit status. Errors that users can mend are one line on stderr, and status 2."""
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
    train.add_argument("--model", default="bilici", help="a network of xpnet.models (default: bilici)")
    train.add_argument("--epochs", type=int, help=f"passes over the training pictures {_defaults('epochs')}")
    train.add_argument("--batch-size", type=int, help=f"pictures per step {_defaults('batch_size')}")
    train.add_argument("--lr", type=float, default=4e-3, help="AdamW's peak learning rate (default: 0.004)")
    train.add_argument("--weight-decay", type=float, help=f"AdamW's weight decay {_defaults('weight_decay')}")
    train.add_argument("--schedule", default="one_cycle", help='"one_cycle" (default) or "constant"')
    train.add_argument("--seed", type=int, default=0, help="seed of initial values, order and dropout (default: 0)")
    _backend_option(train)
    train.add_argument("--save", metavar="FILE", help="where the network goes (default: DATA-MODEL.safetensors)")
    train.set_defaults(run=_train)

    evaluate = commands.add_parser("evaluate", help="loss and accuracy of a saved network on the test pictures")
    evaluate.add_argument("file", help="a network that `xpnet train` or net.save wrote")
    _data_options(evaluate)
    _backend_option(evaluate)
    evaluate.set_defaults(run=_evaluate)

    summary = commands.add_parser("summary", help="the table of a network's layers")
    summary.add_argument("network", help="a network of xpnet.models, or a file")
    summary.set_defaults(run=_summary)
    return parser


def _backend_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--backend", default="auto", help='array backend: "auto" (default), "numpy", "cupy" or "cupy:DEVICE"')


def _defaults(name: str) -> str:
    return f"(default: {', '.join(f'{data} {getattr(recipe, name)}' for data, recipe in RECIPES.items())})"


def _data_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--data", choices=sorted(RECIPES), default="digits", help="the pictures (default: digits)")
    parser.add_argument("--data-dir", help="where MNIST's files lie (default: $XPNET_HOME, the cache folder, a download)")


def _dataset(options: argparse.Namespace) -> Any:
    from xpnet.data import digits, mnist
    return mnist(options.data_dir) if options.data == "mnist" else digits()


def _model(name: str) -> Any:
    from xpnet.models import MODELS
    if name not in MODELS:
        raise ValueError(f"--model: expected one of {', '.join(MODELS)}. Received: {name}.")
    return MODELS[name]


def _train(options: argparse.Namespace) -> int:
    from xpnet.optim import AdamW
    build = _model(options.model)
    told = {name: getattr(options, name) for name in Recipe._fields if getattr(options, name) is not None}
    recipe = RECIPES[options.data]._replace(**told)
    path = Path(options.save or f"{options.data}-{options.model}.safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"--save: expected a file in a folder that exists. Received: {path}.")
    data = _dataset(options)
    net = build(input_shape=data.x_train.shape[1:], backend=options.backend, seed=options.seed)
    started = time.perf_counter()
    history = net.fit(data.x_train, data.y_train, loss="cross_entropy", schedule=options.schedule,
                      optimizer=AdamW(options.lr, weight_decay=recipe.weight_decay),
                      epochs=recipe.epochs, batch_size=recipe.batch_size)
    print(f"trained in {time.perf_counter() - started:.1f} s")
    net.save(path)
    command = f"{sys.orig_argv[0]} -m xpnet"        # the interpreter as the user called it
    print(f"saved {path}\nnext, try:\n"
          f"  {command} summary {path}\n"
          f"  {command} train --data mnist --model numpy_cnn\n"
          f"  {command} train --help")
    figures = net.evaluate(data.x_test, data.y_test)
    print(f"test accuracy: {100 * figures['accuracy']:.2f}%")
    return 130 if history.interrupted else 0


def _evaluate(options: argparse.Namespace) -> int:
    from xpnet.io import load
    net, data = load(options.file, backend=options.backend), _dataset(options)
    figures = net.evaluate(data.x_test, data.y_test, loss="cross_entropy")
    print(f"test loss: {figures['loss']:.4f}\ntest accuracy: {100 * figures['accuracy']:.2f}%")
    return 0


def _summary(options: argparse.Namespace) -> int:
    from xpnet.io import load
    from xpnet.models import MODELS
    net = MODELS[options.network](backend="numpy") if options.network in MODELS else load(options.network, backend="numpy")
    net.summary()
    return 0
