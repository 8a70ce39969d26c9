"""An emulated GPU for tests of training, and the networks that they train on it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from fake_cupy import FakeCupy, installed
from fake_streams import Gpus, Stream
from nets import same

import xpnet as xn
from xpnet.backends.cupy.backend import CupyBackend

LATE: dict[str, Callable[[Stream], bool]] = {"at once": lambda stream: False,
                                             "late": lambda stream: True}


@contextmanager
def pretended(folder: Path, late: Callable[[Stream], bool] = LATE["at once"], memory: int = 1 << 34
              ) -> Iterator[tuple[CupyBackend, Gpus]]:
    """The backend of an emulated GPU with this much memory. The streams in `late` run only when
    something waits for them."""
    with installed(FakeCupy(folder, late=late, memory=memory)) as cupy:
        yield CupyBackend(tf32="never"), cupy.gpus


def network(backend: Any, seed: int = 3, **settings: Any) -> xn.Sequential:
    """A network with layers that count steps or keep statistics: dropout and batch norm."""
    return xn.Sequential([
        xn.Conv2d(3, 3, padding="half"), xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2),
        xn.Flatten(), xn.Dropout(0.3),
        xn.Linear(4),
    ], input_shape=(1, 4, 4), backend=backend, seed=seed, **settings)


def samples(count: int = 40, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (count, 1, 4, 4) of bytes, and labels from 0 to 3 that follow from them."""
    rng = np.random.default_rng(seed)
    x = rng.integers(0, 256, (count, 1, 4, 4)).astype(np.uint8)
    return x, x.reshape(count, 4, 4).astype(int).sum(axis=2).argmax(axis=1)


def learned(net: xn.Network) -> dict[str, np.ndarray]:
    """Copies of everything that training changes, on the host, with the optimizer's slots."""
    step = net.step
    arrays = {"parameters": net.parameters, "state": net.state, "counters": net.counters}
    slots = [] if step is None else step.updater.slots
    arrays |= {f"slot {k}": slot for k, slot in enumerate(slots)}
    return {name: net.backend.to_numpy(a).copy() for name, a in arrays.items()}


def check_captured(folder: Path, make: Callable[[Any], xn.Network], x: np.ndarray,
                   target: np.ndarray, loss: xn.Loss) -> None:
    """Captured steps have the same bits as steps that are not captured. A copy from the host during
    capture would be a warning."""
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            net = make(backend)
            history = net.fit(x, target, loss=loss, optimizer=xn.Adam(1e-2), epochs=3, batch_size=8,
                              verbose=False, capture=capture)
            results.append((learned(net), history["loss"]))
            assert gpus.graphs == capture
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]
    assert len(set(results[0][1])) == 3


# --- losses that cannot be captured ---------------------------------------------------------------

class FromTheHost(xn.CrossEntropy):
    """Copies an array from the host in each call."""

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        weight = backend.asarray(np.array([0.5, 0.5], np.float32)).sum()
        loss, dy = super().__call__(backend, y, target)
        return loss * weight, dy * weight


class ByCublas(xn.CrossEntropy):
    """Multiplies with CuPy's operator."""

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        loss, dy = super().__call__(backend, y, target)
        return loss, backend.xp.matmul(backend.xp.eye(4, dtype=dy.dtype), dy)


class Waiting(xn.CrossEntropy):
    """Waits for the GPU."""

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        backend.xp.cuda.get_current_stream().synchronize()
        return super().__call__(backend, y, target)


class Looking(xn.CrossEntropy):
    """Reads a number from the GPU."""

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        loss, dy = super().__call__(backend, y, target)
        return loss, dy * float(np.isfinite(backend.to_numpy(loss)))
