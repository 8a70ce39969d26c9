"""Whole fits on a GPU: samples that lie there against samples that travel, and captured steps
against eager ones: python -m benchmarks.gpu.fits"""

from __future__ import annotations

import time
from collections.abc import Sequence
from unittest import mock

import numpy as np

import xpnet as xn
from xpnet import models

# (network, shape of an image, batch size, batches of an epoch)
TRAVELLING = (("resnet18", (3, 32, 32), 512, 32), ("bilici", (1, 28, 28), 128, 469))
CAPTURED = (("lenet5", (1, 32, 32), 32, 100), ("resnet18", (3, 32, 32), 128, 100))
Cell = tuple[str, tuple[int, ...], int, int]


def samples(shape: tuple[int, ...], count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (count, *shape) of random bytes, and labels (count,)."""
    rng = np.random.default_rng(0)
    return rng.integers(0, 256, (count, *shape)).astype(np.uint8), rng.integers(0, 10, count)


def travelling(backend: xn.Backend, cells: Sequence[Cell] = TRAVELLING, epochs: int = 6) -> None:
    """Print the seconds of an epoch, with samples on the GPU and with samples on the host."""
    for name, shape, batch, batches in cells:
        x, y = samples(shape, batch * batches)
        for where, share in (("GPU", 1.0), ("host", 0.0)):
            with mock.patch("xpnet.backends.cupy.batches.SHARE", share):
                history = models.MODELS[name](shape, backend=backend).fit(
                    x, y, loss="cross_entropy", optimizer=xn.Adam(1e-3), epochs=epochs,
                    batch_size=batch, verbose=False)
            print(f"{name} {batch}, samples on the {where}: {min(history['seconds']):.3f} s an "
                  "epoch", flush=True)


def captured(backend: xn.Backend, cells: Sequence[Cell] = CAPTURED) -> bool:
    """Print the seconds of two epochs, captured and not; whether parameters and losses have the
    same bits."""
    same = True
    for name, shape, batch, batches in cells:
        x, y = samples(shape, batch * batches)
        found = []
        for capture in (True, False, True):
            net, start = models.MODELS[name](shape, backend=backend), time.perf_counter()
            history = net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-3), epochs=2,
                              batch_size=batch, verbose=False, capture=capture)
            found.append((backend.to_numpy(net.parameters).tobytes(), history["loss"]))
            print(f"{name} {batch}, {'captured' if capture else 'eager'}: "
                  f"{time.perf_counter() - start:.2f} s", flush=True)
        same = same and found[0] == found[1] == found[2]
    return same


def main() -> None:
    backend = xn.get_backend("cupy")
    travelling(backend)
    if not captured(backend):
        raise SystemExit("captured steps have other bits than eager ones")
    print("captured steps have the bits of eager ones")


if __name__ == "__main__":
    main()
