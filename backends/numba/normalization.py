"""Batch normalisation as compiled loops for float32."""

from __future__ import annotations

from math import inf
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import normalization
from xpnet.backends.numba.kernels.arrays import FLOAT32, float32, ready, writable
from xpnet.backends.numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


# fewer channels than FEW of more elements than LONG are normalised part by part
FEW, LONG = 16, 1 << 17

FLOOR = {None: -inf, "relu": 0.0}                                       # f(z) = max(z, floor)


def batch_norm(self: NumbaBackend, x: Array, gamma: Array, beta: Array, eps: float, *,
               activation: str | None = None
               ) -> tuple[Array, Array, Array]:
    if activation not in FLOOR or not float32(x, gamma, beta) or x.size == 0:
        return NumpyBackend.batch_norm(self, x, gamma, beta, eps, activation=activation)
    C = x.shape[0]
    n, threads = x.size // C, self.threads_for(x.size)
    mean, var = np.empty(C, FLOAT32), np.empty(C, FLOAT32)
    if C < FEW and n >= LONG:
        normalization.statistics_of_long_channels(threads, ready(x, (C, n)), mean, var)
        return self.batch_norm_inference(x, gamma, beta, mean, var, eps,
                                         activation=activation), mean, var
    y = self.empty(x.shape, FLOAT32)
    normalization.batch_norm(threads, ready(x, (C, n)), ready(gamma, (C,)), ready(beta, (C,)), eps,
                             FLOOR[activation], mean, var, y.reshape(C, n))
    return y, mean, var


def batch_norm_inference(self: NumbaBackend, x: Array, gamma: Array, beta: Array, mean: Array,
                         var: Array, eps: float, *, activation: str | None = None) -> Array:
    if activation not in FLOOR or not float32(x, gamma, beta, mean, var) or x.size == 0:
        return NumpyBackend.batch_norm_inference(self, x, gamma, beta, mean, var, eps,
                                                 activation=activation)
    C = x.shape[0]
    n, vector = x.size // C, (C,)
    y = self.empty(x.shape, FLOAT32)
    normalization.batch_norm_inference(
        self.threads_for(x.size), ready(x, (C, n)), ready(gamma, vector), ready(beta, vector),
        ready(mean, vector), ready(var, vector), eps, FLOOR[activation], y.reshape(C, n))
    return y


def batch_norm_backward(self: NumbaBackend, dy: Array, x: Array, y: Array, gamma: Array,
                        mean: Array, var: Array, eps: float, *,
                        activation: str | None = None, gamma_grad: Array, beta_grad: Array,
                        accumulate: bool = False) -> Array:
    if (activation not in FLOOR or not float32(dy, x, y, gamma, mean, var)
        or not writable(gamma_grad, beta_grad) or x.size == 0):
        return NumpyBackend.batch_norm_backward(self, dy, x, y, gamma, mean, var, eps,
                                                activation=activation, gamma_grad=gamma_grad,
                                                beta_grad=beta_grad, accumulate=accumulate)
    C = x.shape[0]
    n, vector, threads, floor = x.size // C, (C,), self.threads_for(x.size), FLOOR[activation]
    dy2, x2 = ready(dy, (C, n)), ready(x, (C, n))
    # without an activation any array may be passed, and x is in the cache
    y2 = x2 if activation is None else ready(y, (C, n))
    gamma, mean, var = ready(gamma, vector), ready(mean, vector), ready(var, vector)
    dx = self.empty(x.shape, FLOAT32)
    rest = (eps, floor, gamma_grad.reshape(vector), beta_grad.reshape(vector), accumulate,
            dx.reshape(C, n))
    if C < FEW and n >= LONG:
        sums = np.empty((C, -(-n // normalization.PART), 2))
        normalization.gradient_sums_of_parts(threads, dy2, x2, y2, mean, floor, sums)
        normalization.input_gradient_of_parts(threads, dy2, x2, y2, sums.sum(axis=1), gamma, mean,
                                              var, *rest)
    else:
        normalization.batch_norm_backward(threads, dy2, x2, y2, gamma, mean, var, *rest)
    return dx
