"""`xpnet train`: train a network and save it."""

from __future__ import annotations

import argparse
import math
import os
import sys
import time
from contextlib import nullcontext, redirect_stdout
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from xpnet.backends import Backend, get_backend
from xpnet.cli import networks, sources
from xpnet.parallel import (
    Communicator,
    DataParallel,
    MPICommunicator,
    NCCLCommunicator,
    launched,
)

if TYPE_CHECKING:
    from xpnet.data import Dataset
    from xpnet.network import Network
    from xpnet.training import Callback, History

WHO = "train"
# The age of the process counts from here if the system does not report when it started.
IMPORTED = time.perf_counter()


class Recipe(NamedTuple):
    """Default settings."""

    epochs: int
    batch_size: int
    weight_decay: float     # few images need much of it


# Those of digits and MNIST reach the accuracies that the README states.
RECIPES = {"digits": Recipe(epochs=20, batch_size=32, weight_decay=1.0),
           "mnist": Recipe(epochs=3, batch_size=128, weight_decay=0.1)}
OTHERS = Recipe(epochs=10, batch_size=128, weight_decay=0.1)
FEW = 10_000            # other data with fewer images are trained as digits are


def run(options: argparse.Namespace) -> int:
    """Train; as one of several processes if mpiexec started them, of which rank 0 prints and writes
    files."""
    parallel = None if not launched() else DataParallel(
        _communicator(options), shards=options.shards, sync=options.sync)
    if parallel is None or parallel.leads:
        return _run(options, parallel)
    with open(os.devnull, "w") as nowhere, redirect_stdout(nowhere):
        return _run(options, parallel)


def _run(options: argparse.Namespace, parallel: DataParallel | None) -> int:
    from xpnet.cli.augmentations import augmentations
    from xpnet.optim import AdamW
    percent = options.until_accuracy
    if percent is not None and not 0 < percent <= 100:
        raise ValueError("--until-accuracy: expected a percentage above 0, 100 at most. Received: "
                         f"{percent}.")
    function = networks.builder(WHO, options.model)
    path, callbacks = _path(options), _logs(options)
    changes = augmentations(WHO, options.augment)
    with nullcontext() if parallel is None else parallel.in_turn():
        data = _data(options)
    recipe = _recipe(options, len(data))
    net = networks.build(WHO, options.model, function, input_shape=data.shape,
                         classes=len(data.classes or ()), seed=options.seed,
                         backend=_backend(options, parallel))
    judge = None        # the images whose accuracy ends the training
    if percent is not None:
        parts = sources.parts(data)
        if not parts:
            raise ValueError(f"{WHO}: expected images for validation, because of --until-accuracy. "
                             f"Received: {data!r}.")
        name, judge = next(iter(parts.items()))
        if name == "test":
            print(f"training until {percent:g}% of the *test* images are classified correctly, as "
                  "the author of numpy_cnn reported it; the test images choose the epoch, so this "
                  "accuracy is no estimate for unseen images")
    started = time.perf_counter()
    history = net.fit(data, schedule=options.schedule, augment=changes,
                      optimizer=AdamW(options.lr, weight_decay=recipe.weight_decay),
                      epochs=recipe.epochs, batch_size=recipe.batch_size, validation=judge,
                      class_weight=options.class_weight, callbacks=callbacks,
                      checkpoint=options.checkpoint, resume=options.resume, parallel=parallel,
                      until=None if percent is None else
                      lambda row: reaches(row["val_accuracy"], percent))
    age = process_age()
    print(f"trained in {time.perf_counter() - started:.1f} s")
    _report_goal(history, percent, age)
    if parallel is None or parallel.leads:
        net.save(path)
    print(f"saved {path}\nnext, try:\n{_suggestions(options, path)}")
    _report(net, data, judge or data.validation, history, parallel)
    if history.interrupted:
        return 130
    missed = percent is not None and not history.stopped
    return 1 if missed or history.diverged else 0


def _communicator(options: argparse.Namespace) -> Communicator:
    """By NCCL if the processes are to use GPUs, without a number: each takes one."""
    if options.backend == "cupy" or options.backend == "auto" and get_backend().captures:
        if options.autotune:
            raise ValueError("--autotune: expected one process. Received: several with GPUs, which "
                             "exchange by NCCL.")
        return NCCLCommunicator()
    return MPICommunicator()


def _backend(options: argparse.Namespace, parallel: DataParallel | None) -> Backend:
    gpu = None if parallel is None else parallel.communicator.backend
    return gpu or get_backend(options.backend, autotune=options.autotune)


def _recipe(options: argparse.Namespace, images: int) -> Recipe:
    """The settings that were passed, and the default ones for the rest."""
    recipe = RECIPES.get(options.data, RECIPES["digits"] if images < FEW else OTHERS)
    return recipe._replace(**{name: getattr(options, name) for name in Recipe._fields
                              if getattr(options, name) is not None})


def _data(options: argparse.Namespace) -> Dataset:
    """The data set. One without a validation and a test part gets a part for validation."""
    data = sources.dataset(WHO, options)
    if options.validation is None and not sources.parts(data):
        data = data.split(sources.HELD_OUT, options.seed or 0)
    if options.data not in RECIPES:
        print(data)
    return data


def _path(options: argparse.Namespace) -> Path:
    """Where the network is saved. Raises ValueError now, not after the training, if it cannot
    be."""
    from xpnet.io import formats
    model = Path(options.model).name.removesuffix(".py")
    path = Path(options.save or f"{sources.name_of(options)}-{model}.safetensors")
    if not path.parent.is_dir():
        raise ValueError(f"--save: expected a file in a folder that exists. Received: {path}.")
    if formats.of_name(path) is not None:
        raise ValueError("--save: expected a name that ends with .safetensors. Received: "
                         f"{path}, whose suffix means {formats.of_name(path)}.")
    return path


def _logs(options: argparse.Namespace) -> list[Callback]:
    """What writes the figures of each epoch to files."""
    from xpnet.training import CSVLog, JSONLog, TensorBoard
    found: list[Callback] = []
    if options.log is not None:
        kinds = {".csv": CSVLog, ".jsonl": JSONLog}
        kind = kinds.get(Path(options.log).suffix)
        if kind is None:
            raise ValueError(f"--log: expected a file .csv or .jsonl. Received: {options.log}.")
        found.append(kind(options.log))
    if options.tensorboard is not None:
        found.append(TensorBoard(options.tensorboard))
    return found


def _report(net: Network, data: Dataset, validated: Dataset | None, history: History,
            parallel: DataParallel | None) -> None:
    """Print the accuracy on the parts for validation and for testing."""
    known = history.rows[-1].get("val_accuracy", math.nan)      # NaN after Ctrl-C
    parts = sources.parts(data)
    if not parts:
        print("no accuracy: all images were used for training")
    for name, part in parts.items():
        accuracy = known if part is validated else math.nan
        if math.isnan(accuracy):
            accuracy = net.evaluate(part, parallel=parallel)["accuracy"]
        print(f"{name} accuracy: {100 * accuracy:.2f}%")


def _report_goal(history: History, percent: float | None, age: float) -> None:
    if history.stopped:
        print(f"reached {100 * history.rows[-1]['val_accuracy']:.2f}% after {len(history.rows)} "
              f"epochs, {age:.1f} s from the start of the process")
    elif percent is not None:
        print(f"{percent:g}% was not reached in {len(history.rows)} epochs")


def _suggestions(options: argparse.Namespace, path: Path) -> str:
    command = f"  {sys.orig_argv[0]} -m xpnet"          # the interpreter as the user called it
    own = f" --model {options.model}" if options.model.endswith(".py") else ""
    second = ("train --data mnist --model numpy_cnn" if options.data in RECIPES else
              f"evaluate {path}{own} --data {options.data}")
    return f"{command} summary {path}{own}\n{command} {second}\n{command} train --help"


def reaches(accuracy: float, percent: float) -> bool:
    """Whether 100 accuracy >= percent, up to rounding: 9,840 correct images of 10,000 are 98.4 %,
    which is not exact in binary."""
    return 100 * accuracy >= percent - 1e-9


def process_age() -> float:
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
