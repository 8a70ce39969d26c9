"""Small trainings that several ranks share, alike in every process, and what has to be equal at
their end. `mpiexec -n 2 python shared_trainings.py all FOLDER` runs them in processes."""

from __future__ import annotations

import hashlib
import json
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import trainings
from trainings import X, Y, bits

import xpnet as xn
from xpnet.parallel import DataParallel

rng = np.random.default_rng(1)
SIGNALS = rng.standard_normal((23, 3, 5)).astype(np.float32)
RAGGED = [a[:, :1 + n % 5] for n, a in enumerate(SIGNALS)]


def two_outputs() -> xn.Network:
    x = xn.Input((1, 6, 6))
    h = xn.Linear(6, activation="tanh")(xn.Flatten()(x))
    return xn.Network(x, {"class": xn.Linear(3)(h), "mean": xn.Linear(1)(h)}, backend="numpy")


def recurrent() -> xn.Sequential:
    return xn.Sequential([xn.LSTM(4), xn.Linear(3)], input_shape=(3, 5), backend="numpy")


def of_lengths() -> xn.Sequential:
    return xn.Sequential([xn.GRU(4, return_sequences=True), xn.Linear(3)], input_shape=(3, 5),
                         lengths=True, backend="numpy")


def plain() -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(3, 3, activation="relu"), xn.Flatten(), xn.Linear(3)],
                         input_shape=(1, 6, 6), backend="numpy")


def normalised() -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(3, 3), xn.BatchNorm2d(momentum=None, activation="relu"),
                          xn.Flatten(), xn.Linear(3)], input_shape=(1, 6, 6), backend="numpy")


def frozen() -> xn.Network:
    net = trainings.a_network()
    net.layers[0].trainable = False
    return net


def numba() -> xn.Network:
    return trainings.a_network("numba")


# A network, and changed arguments of fit. Batches have 6 samples, the last one 5.
CASES: dict[str, tuple[Callable[[], xn.Network], Callable[[], dict[str, Any]]]] = {
    "dropout, batch norm": (trainings.a_network, dict),
    "momentum, batch norm with a mean": (normalised, lambda: {"optimizer": xn.SGD(0.1, 0.9)}),
    "LSTM": (recurrent, lambda: {"x": SIGNALS, "validation": 0.3}),
    "sequences of different lengths": (of_lengths, lambda: {
        "x": RAGGED, "y": [Y[n:n + 1].repeat(a.shape[1]) for n, a in enumerate(RAGGED)],
        "validation": (RAGGED[:7], [Y[n:n + 1].repeat(a.shape[1])
                                    for n, a in enumerate(RAGGED[:7])])}),
    "two outputs": (two_outputs, lambda: {
        "y": {"class": Y, "mean": X.mean((1, 2, 3))[:, None]}, "validation": None,
        "loss": {"class": "cross_entropy", "mean": "mean_squared_error"},
        "loss_weights": {"class": 1.0, "mean": 0.5}, "schedule": "cosine",
        "optimizer": xn.Regularized(xn.NAdam(), clip_norm=0.1)}),
    "groups of batches, class weights": (trainings.a_network, lambda: {
        "accumulate": 3, "class_weight": "balanced"}),
    "augmentation": (trainings.a_network, lambda: trainings.of_images(
        xn.RandomCrop(1), xn.RandomFlip())),
    "mix-up, few samples in the last batch": (trainings.a_network, lambda: trainings.of_images(
        xn.MixUp()) | {"batch_size": 7}),
    "a frozen layer, early stopping": (frozen, lambda: {
        "callbacks": [xn.EarlyStopping("val_loss", patience=1)], "optimizer": xn.SGD(0.3)}),
    "unknown labels": (plain, lambda: {
        "y": np.where(np.arange(23) % 3, Y, -1), "loss": xn.CrossEntropy(ignore_index=-1),
        "validation": None, "schedule": "constant"}),
    "batch norm over the whole batch": (trainings.a_network, lambda: {"sync": True}),
    "Numba": (numba, dict),
}


def train(name: str, parallel: Any, **changes: Any) -> str:
    """A digest of the bits of a training, and its last loss."""
    make, options = CASES[name]
    changes = {"batch_size": 6, **options(), **changes}
    x, y, net = changes.pop("x", X), changes.pop("y", Y), make()
    if changes.pop("sync", False):
        parallel = DataParallel(getattr(parallel, "communicator", parallel), sync=True)
    history = net.fit(x, y, **trainings.options(**changes), parallel=parallel)
    digest = hashlib.sha256(repr(bits(net, history)).encode()).hexdigest()
    return f"{digest} {history.rows[-1]['loss']:.6g}"


def in_float32(parallel: Any) -> list[float]:
    """The parameters after 50 steps."""
    net = xn.Sequential([xn.Flatten(), xn.Linear(16, activation="tanh"), xn.Linear(3)],
                        input_shape=(1, 6, 6), backend="numpy")
    net.fit(X, Y, loss="cross_entropy", optimizer=xn.SGD(0.1, 0.9), steps=50, batch_size=8,
            verbose=False, parallel=parallel)
    return net.parameters.tolist()      # type: ignore[no-any-return]


class Slow(xn.Callback):
    """Batches that take some time, so that a process can be killed between them."""

    def __init__(self, seconds: float) -> None:
        self.seconds = seconds

    def on_batch_end(self, run: xn.Run) -> None:
        time.sleep(self.seconds)


class Fails(xn.Callback):
    """An error in one rank."""

    def on_batch_end(self, run: xn.Run) -> None:
        if run.parallel.rank == 1 and run.steps == 3:
            raise OSError("the samples are gone")


def resumed(parallel: Any, folder: Path, seconds: float) -> str:
    """A training that continues from what is in the folder."""
    return train("dropout, batch norm", parallel, epochs=6, callbacks=[Slow(seconds)],
                 checkpoint=xn.Checkpoint(folder, steps=1), resume=folder)


FORKS = "os.fork", "os.forkpty", "os.posix_spawn", "os.system", "subprocess.Popen"


def _main(what: str, folder: Path, *more: str) -> None:
    parallel = DataParallel()
    forks: list[str] = []               # MPI libraries do not support processes that fork
    sys.addaudithook(lambda event, _: forks.append(event) if event in FORKS else None)
    new = folder / f"new{parallel.rank}"
    new.write_text(str(os.getpid()), encoding="utf-8")
    new.replace(folder / f"pid{parallel.rank}")         # it is there with its content, or not
    if what == "all":
        found: Any = {name: train(name, parallel) for name in CASES}
        found["in pieces"] = train("LSTM", DataParallel(pieces=3))
        found["plain"] = in_float32(DataParallel(deterministic=False))
        found["forks"] = forks
    elif what == "fails":
        found = train("LSTM", parallel, callbacks=[Fails()])
    else:
        found = resumed(parallel, folder / "checkpoints", float(more[0]))
    every = parallel.communicator.gather_objects(found)
    if parallel.leads:
        (folder / "found.json").write_text(json.dumps(every), encoding="utf-8")


if __name__ == "__main__":
    _main(sys.argv[1], Path(sys.argv[2]), *sys.argv[3:])
