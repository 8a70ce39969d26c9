"""Trains small networks that use every Numba kernel, and writes a hash of all their values.

    python tests/support/every_kernel.py FILE [forwards|backwards] [NETWORK ..]

FILE gets {network: hash} in JSON; `backwards` trains the networks in the opposite order. Fails if
a kernel was not used, except if some networks are named.
"""

from __future__ import annotations

import hashlib
import importlib
import json
import pkgutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from nets import pictures, values

import xpnet as xn
from xpnet.backends.numba import kernels
from xpnet.backends.numba.backend import NumbaBackend
from xpnet.backends.numba.kernels.jit import Kernel

STEPS = 2

OPTIMIZERS: dict[str, Callable[[], xn.Optimizer]] = {
    "sgd": lambda: xn.SGD(0.1), "nesterov": lambda: xn.SGD(0.1, momentum=0.9, nesterov=True),
    "adam": lambda: xn.Adam(1e-2), "adamw": lambda: xn.AdamW(1e-2),
    "amsgrad": lambda: xn.AMSGrad(1e-2), "nadam": lambda: xn.NAdam(1e-2),
    "adamax": lambda: xn.Adamax(1e-2), "adagrad": lambda: xn.Adagrad(1e-2),
    "adadelta": lambda: xn.Adadelta(),
    "rmsprop": lambda: xn.RMSprop(1e-2, momentum=0.9, centered=True),
    "rprop": lambda: xn.Rprop(1e-2), "lion": lambda: xn.Lion(1e-3)}
CURVES: dict[str, Callable[[], xn.Layer]] = {
    "hard_swish": xn.HardSwish, "silu": xn.SiLU, "swish": xn.Swish, "gelu": xn.GELU,
    "gelu_tanh": lambda: xn.GELU("tanh"), "mish": xn.Mish}


class Residual(xn.Layer):
    """Y = max(X + X, 0), dX = 2 dY where Y > 0."""

    def build(self, in_shape):
        return in_shape

    def forward(self, x, mode=xn.PREDICT):
        y = self.backend.add(x, x, "relu")
        self.remember(mode, y)
        return y

    def backward(self, dy, accumulate=False):
        y, = self.recall()
        dz = self.backend.activation_backward(dy, y, "relu")
        return self.backend.add(dz, dz)


class Backwards(xn.Layer):
    """The samples of a batch in the opposite order."""

    def build(self, in_shape):
        return in_shape

    def forward(self, x, mode=xn.PREDICT):
        return self.backend.take_columns(x, np.arange(x.shape[1])[::-1])

    def backward(self, dy, accumulate=False):
        N = dy.shape[1]
        return self.backend.put_columns(dy, np.arange(N)[::-1], N)


def convolutions() -> list[xn.Layer]:
    """Products with and without columns, Winograd, padding, pooling, batch norm, dropout."""
    return [xn.Conv2d(32, 3, padding=1, activation="relu"), xn.BatchNorm2d(),
            xn.Conv2d(32, 3, padding=1, activation="tanh"), xn.BatchNorm2d(activation="relu"),
            xn.MaxPool2d(2), xn.Conv2d(16, 3, stride=2, padding=1, bias=False),
            xn.BatchNorm2d(activation="sigmoid"), xn.AvgPool2d(2), xn.Dropout(0.2),
            xn.Flatten(), xn.Linear(10)]


def dense(*between: xn.Layer) -> list[xn.Layer]:
    return [xn.Flatten(), xn.Linear(37), *between, xn.Linear(10)]


def shares(labels: np.ndarray) -> np.ndarray:
    return (0.9 * np.eye(10) + 0.01)[labels]


# name: layers, input shape, batch, optimizer, whether the targets are class probabilities
NETWORKS: dict[str, tuple[list[xn.Layer], tuple[int, ...], int, xn.Optimizer, bool]] = {
    "convolutions": (convolutions(), (3, 16, 16), 16, xn.Adam(1e-2), False),
    "long channels": ([xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(8), *dense()], (1, 64, 64),
                      33, xn.SGD(0.1), False),
    "random words": (dense(xn.GaussianDropout(0.3)), (1, 6, 6), 21, xn.SGD(0.1), False),
    "shares": (dense(xn.Sigmoid(), xn.Softmax()), (1, 6, 6), 21, xn.SGD(0.1), True),
    **{name: (dense(make()), (2, 16, 19), 21, xn.SGD(0.1), False) for name, make in CURVES.items()},
    **{f"{name} fused": (dense(xn.Linear(300, activation=name)), (1, 6, 6), 21, xn.SGD(0.1), False)
       for name in ("relu", "sigmoid", "tanh", "scaled_tanh")},
    **{name: ([xn.Reshape((2, 18)), make(40, return_sequences=True), *dense()], (1, 6, 6), 21,
              xn.SGD(0.1), False)
       for name, make in (("lstm", xn.LSTM), ("gru", xn.GRU), ("simple", xn.SimpleRNN))},
    "sums": (dense(Residual()), (1, 6, 6), 21, xn.SGD(0.1), False),
    "columns": (dense(Backwards()), (1, 6, 6), 21, xn.SGD(0.1), False),
    "relu alone": (dense(xn.ReLU()), (1, 6, 6), 21, xn.SGD(0.1), False),
    **{name: (dense(xn.BatchNorm1d()), (1, 6, 6), 21, make(), False)
       for name, make in OPTIMIZERS.items()},
}


def trained(name: str) -> str:
    """The hash of a network's parameters after a few steps, and of its predictions."""
    layers, shape, batch, optimizer, soft = NETWORKS[name]
    net = xn.Sequential(layers, input_shape=shape, backend=NumbaBackend(), seed=3)
    x, labels = pictures(batch, shape, 10)
    net.fit(x, shares(labels) if soft else labels, loss="cross_entropy", optimizer=optimizer,
            epochs=STEPS, batch_size=batch, verbose=False)
    arrays = values(net) | {"prediction": net.predict(x)}
    return hashlib.sha256(b"".join(arrays[key].tobytes() for key in sorted(arrays))).hexdigest()


def all_kernels() -> set[str]:
    modules = [importlib.import_module(f"{kernels.__name__}.{module.name}")
               for module in pkgutil.iter_modules(kernels.__path__)]
    return {value.compiled.__name__ for module in modules for value in vars(module).values()
            if isinstance(value, Kernel)}


def main(file: str, order: str = "forwards", *networks: str) -> None:
    used, start = set(), Kernel.__call__

    def watching(kernel: Kernel, threads: int, *args: Any) -> Any:
        used.add(kernel.compiled.__name__)
        return start(kernel, threads, *args)

    Kernel.__call__ = watching          # type: ignore[method-assign]
    names = sorted(networks or NETWORKS, reverse=order == "backwards")
    hashes = {name: trained(name) for name in names}
    assert networks or used == all_kernels(), f"not used: {all_kernels() - used}"
    Path(file).write_text(json.dumps(hashes))


if __name__ == "__main__":
    main(*sys.argv[1:])
