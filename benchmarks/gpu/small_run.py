"""A few steps of small networks on a GPU, for compute-sanitizer: python -m benchmarks.gpu.small_run

Every array is allocated by the driver, so that an access beyond its end is detected. In CuPy's pool
it would reach the next array.
"""

from __future__ import annotations

import numpy as np

import xpnet as xn
from xpnet import models

BATCH, BATCHES = 4, 5


def networks(backend: xn.Backend) -> dict[str, xn.Network]:
    """Small networks that together use every layer with a kernel of its own."""
    mixed = xn.Sequential([
        xn.Conv2d(4, 3, padding="half"), xn.BatchNorm2d(activation="relu"), xn.AvgPool2d(2),
        xn.Dropout(0.3), xn.Conv2d(6, 3, stride=2, activation="sigmoid"), xn.Flatten(),
        xn.Linear(10),
    ], input_shape=(3, 13, 11), backend=backend)
    return {"numpy_cnn": models.numpy_cnn((1, 14, 14), backend=backend),
            "bilici": models.bilici((1, 12, 12), backend=backend),
            "lenet5": models.lenet5(backend=backend),
            "resnet18": models.resnet18((3, 16, 16), backend=backend), "mixed": mixed}


def train(backend: xn.Backend) -> dict[str, tuple[list[float], list[float]]]:
    """Train each network for two epochs and predict; returns the losses of eager and of captured
    steps."""
    losses: dict[str, tuple[list[float], list[float]]] = {}
    for name in networks(backend):
        eager, captured = (_losses(networks(backend)[name], capture) for capture in (False, True))
        losses[name] = eager, captured
        print(f"{name}: {eager}, captured {'the same' if captured == eager else captured}",
              flush=True)
    return losses


def _losses(net: xn.Network, capture: bool) -> list[float]:
    rng = np.random.default_rng(0)
    x = rng.random((BATCH * BATCHES + 1, *net.input.shape), np.float32)
    history = net.fit(x, rng.integers(0, 10, len(x)), loss="cross_entropy", optimizer=xn.Adam(1e-3),
                      epochs=2, batch_size=BATCH, verbose=False, capture=capture)
    net.predict(x)
    return history["loss"]


def main() -> None:
    backend = xn.get_backend("cupy")
    backend.xp.cuda.set_allocator(None)
    different = [name for name, (eager, captured) in train(backend).items() if eager != captured]
    if different:
        raise SystemExit("captured steps have other losses than eager ones: "
                         f"{', '.join(different)}")


if __name__ == "__main__":
    main()
