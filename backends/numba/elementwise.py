"""Activations, softmax and dropout as compiled loops for float32: one pass over memory."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.activations import SCALE, SLOPE, constants_of
from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import activation as activations
from xpnet.backends.numba.kernels import curves
from xpnet.backends.numba.kernels import dropout as dropout_kernels
from xpnet.backends.numba.kernels import softmax as softmax_kernels
from xpnet.backends.numba.kernels.arrays import FLOAT32, float32, ready, writable
from xpnet.backends.numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


CURVE = {"relu": (0.0, 0.0, 0.0), "sigmoid": (1.0, 0.0, 1.0), "logistic": (1.0, 0.0, 1.0),
         "tanh": (1.0, 1.0, 1.0),
         "scaled_tanh": (SLOPE / SCALE, SCALE, SCALE)}  # f' = a (b + y) (c - y), except for relu


def beta_of(activation: str | None, constants: tuple[float, ...]) -> float:
    """The constant of Swish; SiLU is Swish with 1. The others have no constant."""
    return constants_of("swish", constants)[0] if activation == "swish" else 1.0


def activate(self: NumbaBackend, z: Array, activation: str | None, constants: tuple[float, ...] = ()
             ) -> Array:
    curve = curves.NUMBERS.get(activation)
    if z.dtype != FLOAT32 or activation != "relu" and curve is None:
        return NumpyBackend.activate(self, z, activation, constants)
    y = self.empty(z.shape, FLOAT32)
    if curve is None:
        activations.relu(self.threads_for(z.size), ready(z, (z.size,)), y.reshape(-1))
    else:
        curves.curve_forward(self.threads_for(8 * z.size), curve, ready(z, (z.size,)),
                             y.reshape(-1), beta_of(activation, constants))
    return y


def add(self: NumbaBackend, a: Array, b: Array, activation: str | None = None) -> Array:
    if not float32(a, b):
        return NumpyBackend.add(self, a, b, activation)
    if activation not in (None, "relu"):
        return self.activate(self.add(a, b), activation)
    y = self.empty(a.shape, FLOAT32)
    activations.add(self.threads_for(a.size), ready(a, (a.size,)), ready(b, (a.size,)),
                    y.reshape(-1), activation == "relu")
    return y


def activation_backward(self: NumbaBackend, dy: Array, y: Array, activation: str | None,
                        constants: tuple[float, ...] = (), *, bias_grad: Array | None = None,
                        accumulate: bool = False) -> Array:
    curve = None if activation in CURVE else curves.NUMBERS.get(activation)
    known = activation is None or activation in CURVE or curve is not None
    if not (known and float32(dy, y)) or bias_grad is not None and not writable(bias_grad):
        return NumpyBackend.activation_backward(self, dy, y, activation, constants,
                                                bias_grad=bias_grad, accumulate=accumulate)
    rows, size = dy.shape[0], prod(dy.shape[1:])
    grad = np.empty(0, FLOAT32) if bias_grad is None else bias_grad.reshape(rows)
    sums = np.empty((rows, -(-size // activations.PIECE)), FLOAT32)
    if activation is None:
        if bias_grad is not None:
            activations.row_sums(self.threads_for(dy.size), ready(dy, (rows, size)), sums, grad,
                                 accumulate)
        return dy
    dz = self.empty(dy.shape, FLOAT32)
    if curve is not None:
        curves.curve_backward(self.threads_for(8 * dy.size), curve, ready(dy, (rows, size)),
                              ready(y, (rows, size)), dz.reshape(rows, size),
                              beta_of(activation, constants), sums, grad, accumulate)
        return dz
    activations.activation_backward(self.threads_for(dy.size), ready(dy, (rows, size)),
                                    ready(y, (rows, size)), dz.reshape(rows, size),
                                    activation == "relu", CURVE[activation], sums, grad, accumulate)
    return dz


def softmax(self: NumbaBackend, z: Array) -> Array:
    if z.dtype != FLOAT32 or z.size == 0:
        return NumpyBackend.softmax(self, z)
    K = z.shape[0]
    N = z.size // K
    y = self.empty(z.shape, FLOAT32)
    softmax_kernels.softmax(self.threads_for(8 * z.size), ready(z, (K, N)), y.reshape(K, N),
                            np.empty(N, FLOAT32), np.empty(N, FLOAT32))
    return y


def softmax_cross_entropy(self: NumbaBackend, z: Array, target: Array) -> tuple[Array, Array]:
    labels = target.ndim == 1 and target.dtype.kind in "iu"
    if (z.dtype != FLOAT32 or z.size == 0
        or not (labels or target.dtype == FLOAT32 and target.shape == z.shape)):
        return NumpyBackend.softmax_cross_entropy(self, z, target)
    K, N = z.shape
    dz, top, total = self.empty((K, N), FLOAT32), np.empty(N, FLOAT32), np.empty(N, FLOAT32)
    # An exponential costs as much as several elements.
    threads, z2 = self.threads_for(8 * z.size), ready(z, (K, N))
    if labels:
        loss = softmax_kernels.cross_entropy_of_labels(
            threads, z2, ready(target.astype(np.int64, copy=False), (N,)), dz, top, total)
    else:
        weight, losses = np.empty(N, FLOAT32), np.empty(N, FLOAT32)
        loss = softmax_kernels.cross_entropy(threads, z2, ready(target, (K, N)), dz, top, total,
                                             weight, losses)
    return np.float32(loss), dz


def random_bits(self: NumbaBackend, n: int, key: tuple[int, int], counter: Array) -> Array:
    words = self.empty((-(-n // dropout_kernels.BITS), dropout_kernels.BITS // 2), np.uint64)
    dropout_kernels.random_words(
        self.threads_for(8 * n), np.array([*key, *counter], np.uint64), words)
    return words.reshape(-1).view(np.uint32)[:n]


def dropout(self: NumbaBackend, x: Array, p: float, key: tuple[int, int],
            counter: Array) -> tuple[Array, Array]:
    if x.dtype != FLOAT32:
        return NumpyBackend.dropout(self, x, p, key, counter)
    y, keep = self.empty(x.shape, FLOAT32), self.empty(x.shape, bool)
    dropout_kernels.dropout(self.threads_for(8 * x.size), ready(x, (x.size,)),
                            np.array([*key, *counter], np.uint64), round(p * 2.0**32),
                    1.0 / (1.0 - p), y.reshape(-1), keep.reshape(-1))
    return y, keep


def dropout_dx(self: NumbaBackend, dy: Array, p: float, keep: Array) -> Array:
    if dy.dtype != FLOAT32 or keep.dtype != np.bool_:
        return NumpyBackend.dropout_dx(self, dy, p, keep)
    dx = self.empty(dy.shape, FLOAT32)
    dropout_kernels.dropout_dx(self.threads_for(dy.size), ready(dy, (dy.size,)),
                                     ready(keep, (dy.size,)), 1.0 / (1.0 - p),
                             dx.reshape(-1))
    return dx
