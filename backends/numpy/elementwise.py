"""Activations with NumPy: chunk by chunk of whole channels, in threads."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends import activations
from xpnet.backends.base import Array

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend

BLOCK = 128             # columns that are added before their sums are


def activate(self: NumpyBackend, z: Array, activation: str | None, constants: tuple[float, ...] = ()
             ) -> Array:
    if activation is None:
        return z
    y = self.empty(z.shape, z.dtype)

    def task(rows: slice) -> None:
        np.copyto(y[rows], z[rows])
        self.activate_in_place(y[rows], activation, constants)

    self.over_rows(task, z.shape[0], prod(z.shape[1:]))
    return y


def add(self: NumpyBackend, a: Array, b: Array, activation: str | None = None) -> Array:
    y = self.empty(a.shape, a.dtype)

    def task(rows: slice) -> None:
        np.add(a[rows], b[rows], out=y[rows])
        self.activate_in_place(y[rows], activation)     # while it is in the cache

    self.over_rows(task, a.shape[0], prod(a.shape[1:]))
    return y


def _sums_of_columns(m: Array) -> Array:
    """The sum of each row of m (rows, size) whose columns are contiguous. In blocks of columns,
    because NumPy adds one column after the other, which is less exact the more there are."""
    return np.add.reduce([np.add.reduce(m[:, start:start + BLOCK], axis=1)
                          for start in range(0, m.shape[1], BLOCK)], axis=0)


def activation_backward(self: NumpyBackend, dy: Array, y: Array, activation: str | None,
                        constants: tuple[float, ...] = (), *, bias_grad: Array | None = None,
                        accumulate: bool = False) -> Array:
    if (activation is None and bias_grad is not None and dy.ndim == 2 and dy.size
            and not dy.flags.c_contiguous and dy.T.flags.c_contiguous):
        self.store(_sums_of_columns(dy), bias_grad, accumulate)
        return dy
    rows, size = dy.shape[0], prod(dy.shape[1:])
    dy2, y2 = (np.ascontiguousarray(a).reshape(rows, size) for a in (dy, y))
    dz = dy2 if activation is None else self.empty((rows, size), dy.dtype)
    db = None if bias_grad is None else np.empty(rows, dy.dtype)

    def task(chunk: slice) -> None:
        if activation is not None:
            np.multiply(dy2[chunk], activations.derivative(np, y2[chunk], activation, constants),
                        out=dz[chunk])
        if db is not None:
            np.add.reduce(dz[chunk], axis=1, out=db[chunk])

    if activation is not None or bias_grad is not None:
        self.over_rows(task, rows, size)
    if bias_grad is not None:
        self.store(db, bias_grad, accumulate)
    return dy if activation is None else dz.reshape(dy.shape)
