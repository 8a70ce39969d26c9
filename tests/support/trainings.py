"""Small trainings that are saved and resumed, alike in every process that runs them, and all that
has to be equal at their end."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

import xpnet as xn

rng = np.random.default_rng(0)
X, Y = rng.standard_normal((23, 1, 6, 6)).astype(np.float32), rng.integers(0, 3, 23)
HELD = X[:7] + 1, Y[:7]
PIXELS = (40 * (X - X.min())).astype(np.uint8)


def a_network(backend: str = "numpy") -> xn.Sequential:
    return xn.Sequential([
        xn.Conv2d(3, 3, activation="relu"), xn.BatchNorm2d(), xn.Flatten(), xn.Dropout(0.4),
        xn.Linear(3),
    ], input_shape=(1, 6, 6), backend=backend, seed=4)


def options(**changes: Any) -> dict[str, Any]:
    """The arguments of fit, made anew as a new process would: 3 epochs of 6 batches."""
    return {"loss": "cross_entropy", "optimizer": xn.AdamW(0.01), "epochs": 3, "batch_size": 4,
            "validation": HELD, "verbose": False,
            "schedule": xn.ReduceOnPlateau(0.5, patience=0, monitor="val_loss"), **changes}


def bits(net: xn.Network, history: xn.History) -> tuple[Any, ...]:
    """All that has to be equal; the seconds of an epoch are not."""
    rows = [{name: repr(value) for name, value in row.items() if name != "seconds"}
            for row in history.rows]
    return (net.parameters.tobytes(), net.state.tobytes(), net.counters.tolist(), net.epochs, rows,
            [slot.tobytes() for slot in net.step.updater.slots])


# --- trainings with everything that a checkpoint has to keep -------------------------------------

def images() -> xn.data.Dataset:
    return xn.data.Dataset(PIXELS, Y, validation=xn.data.Dataset(PIXELS[:7], Y[:7]))


def of_images(*augment: xn.Augmentation) -> dict[str, Any]:
    return {"x": images(), "y": None, "validation": None, "augment": augment}


# Changed arguments of fit; "x", "y" and "backend" replace those of `run`.
TRAININGS: dict[str, Callable[[], dict[str, Any]]] = {
    "dropout, batch norm, plateau": dict,
    "augmentation": lambda: of_images(xn.RandomCrop(1), xn.RandomFlip(), xn.GaussianNoise()),
    "mix-up": lambda: of_images(xn.RandomFlip(), xn.MixUp()),
    "cut-mix, groups of batches": lambda: of_images(xn.CutMix()) | {"accumulate": 2},
    "early stopping": lambda: {"callbacks": [xn.EarlyStopping("val_loss", patience=1)],
                               "optimizer": xn.SGD(0.3), "epochs": 12},
    "averaged parameters, Rprop": lambda: {
        "callbacks": [xn.ExponentialMovingAverage(0.9), xn.GradientNorms()], "optimizer": "rprop"},
    "groups of batches": lambda: {"accumulate": 4, "validation": 0.3, "drop_last": True,
                                  "epochs": None, "steps": 22},
    "groups of batches, class weights": lambda: {"accumulate": 4, "class_weight": "balanced"},
    "Numba": lambda: {"backend": "numba"},
    "clipped Nadam, cosine": lambda: {"optimizer": xn.Regularized(xn.NAdam(), clip_norm=0.1),
                                      "schedule": "cosine"},
}


def run(name: str, folder: Path | None) -> str:
    """Run a training, or continue it, with a save after each batch, and with logs in the folder; a
    digest of its bits, and the number of epochs."""
    changes = {"epochs": 6, "callbacks": []} | TRAININGS[name]()
    x, y, net = changes.pop("x", X), changes.pop("y", Y), a_network(changes.pop("backend", "numpy"))
    if folder is not None:
        folder.mkdir(exist_ok=True)
        changes["callbacks"] += [xn.CSVLog(folder / "log.csv"), xn.TensorBoard(folder / "runs")]
        changes |= {"resume": folder,
                    "checkpoint": xn.Checkpoint(folder, steps=1, best="loss")}
    history = net.fit(x, y, **options(**changes))
    digest = hashlib.sha256(repr(bits(net, history)).encode()).hexdigest()
    return f"{digest} {len(history.rows)}"
