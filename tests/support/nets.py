"""Small networks and problems that several tests train, and a check that nothing changed."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

import xpnet as xn
from xpnet.catalogue import FAMILIES, Item


def blobs(samples: int = 120, classes: int = 3, features: int = 2,
          seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """Points around one centre for each class, far from those of the others: x (samples, features),
    y (samples,)."""
    rng = np.random.default_rng(seed)
    y = np.arange(samples) % classes
    angle = 2 * np.pi * y / classes
    x = rng.normal(0, 0.4, (samples, features))
    x[:, 0] += 3 * np.cos(angle)
    x[:, 1] += 3 * np.sin(angle)
    return x.astype(np.float32), y


def small(backend: Any = "numpy", seed: int = 0, dtype: Any = "float32", classes: int = 3
          ) -> xn.Sequential:
    """Two dense layers with dropout between them, on 2 features."""
    return xn.Sequential([xn.Linear(16, activation="relu"), xn.Dropout(0.1), xn.Linear(classes)],
                         input_shape=(2,), backend=backend, seed=seed, dtype=dtype)


def pictures(samples: int = 6, shape: tuple[int, ...] = (1, 8, 8), classes: int = 10, seed: int = 0
             ) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    return rng.random((samples, *shape), np.float32), rng.integers(0, classes, samples)


LAYERS = [item for items in FAMILIES.values() for item in items if item.make
          and isinstance(item.make(), xn.Layer)]


def around(item: Item, seed: int = 0) -> xn.Network:
    """A network with three input features whose last layer is the catalogue's example, on inputs of
    the shapes that it needs."""
    x, layer = xn.Input((3,)), item.make()
    values = [xn.Reshape(shape)(xn.Linear(math.prod(shape))(x)) for shape in item.shapes]
    if isinstance(layer, xn.Embedding):
        values = [xn.Step()(value) for value in values]         # 0 or 1, which are tokens
    return xn.Network(x, layer(*values), backend="numpy", seed=seed)


def branches(backend: Any = "numpy", dtype: Any = "float64", seed: int = 0) -> xn.Network:
    """A graph with a residual sum, a value that three layers read, a concatenation and batch
    norm."""
    x = xn.Input((2, 6, 6))
    h = xn.Conv2d(4, 3, padding=1, activation="tanh", name="stem")(x)
    a = xn.BatchNorm2d(activation="sigmoid", name="norm")(
        xn.Conv2d(4, 3, padding="half", bias=False, name="left")(h))
    s = xn.Add(name="sum")(a, h)  # h: the first of three readers is `left`
    c = xn.Concat(name="both")(xn.AvgPool2d(2, name="mean")(s), xn.MaxPool2d(2, name="max")(h))
    y = xn.Linear(5, name="out")(xn.Flatten(name="flat")(c))
    return xn.Network(x, y, backend=backend, dtype=dtype, seed=seed)


def padded(samples: list[np.ndarray], padding: float = 0.0, steps: int = 6) -> np.ndarray:
    """Samples (..., T_i) as one array (N, ..., steps)."""
    out = np.full((len(samples), *samples[0].shape[:-1], steps), padding, samples[0].dtype)
    for row, a in zip(out, samples, strict=True):
        row[..., :a.shape[-1]] = a
    return out


def values(net: xn.Network) -> dict[str, np.ndarray]:
    """Copies of everything that training changes, on the host."""
    arrays = {"parameters": net.parameters, "state": net.state, "counters": net.counters}
    return ({name: np.array(net.backend.to_numpy(a)) for name, a in arrays.items()}
            | {"epochs": np.array(net.epochs)})


def same(a: dict[str, np.ndarray], b: dict[str, np.ndarray]) -> bool:
    """Whether two results of `values` are equal in every bit."""
    return a.keys() == b.keys() and all(
        a[k].dtype == b[k].dtype and a[k].tobytes() == b[k].tobytes() for k in a)


@contextmanager
def untouched(net: xn.Network) -> Iterator[None]:
    """Fails if the block changed a bit of the network's parameters or state."""
    before = values(net)
    yield
    assert same(values(net), before)
