"""What stands beside convolution, on compiled loops: one pass over memory where NumPy needs several.

All of it is for float32; what a kernel does not cover (other types, rarer activations, outputs that are not contiguous)
goes to NumpyBackend, first thing in each method.
"""

from __future__ import annotations

from math import inf, prod
from typing import Any

import numpy as np

from xpnet.backends.activations import SCALE, SLOPE, constants_of
from xpnet.backends.base import Array
from xpnet.backends.numba_base import FLOAT32, NumbaBase, writable
from xpnet.backends.numba_kernels import activation as activations
from xpnet.backends.numba_kernels import batches, curves, dropout, normalization, softmax
from xpnet.backends.numba_kernels.arrays import ready

FEW, LONG = 16, 1 << 17     # fewer channels than FEW of more elements than LONG are normalised part by part

FLOOR = {None: -inf, "relu": 0.0}                                       # f(z) = max(z, floor)
CURVE = {"relu": (0.0, 0.0, 0.0), "sigmoid": (1.0, 0.0, 1.0), "logistic": (1.0, 0.0, 1.0), "tanh": (1.0, 1.0, 1.0),
         "scaled_tanh": (SLOPE / SCALE, SCALE, SCALE)}                  # f' = a (b + y) (c - y), but for relu


def beta_of(activation: str | None, constants: tuple[float, ...]) -> float:
    """Swish's constant; the others have none, and SiLU is Swish with 1."""
    return constants_of("swish", constants)[0] if activation == "swish" else 1.0


def float32(*arrays: Array) -> bool:
    return all(a.dtype == FLOAT32 for a in arrays)


class NumbaElementwise(NumbaBase):
    """Activations, batch normalisation, softmax, dropout and batches."""

    # --- activations ----------------------------------------------------------------------------------------------

    def activate(self, z: Array, activation: str | None, constants: tuple[float, ...] = ()) -> Array:
        curve = curves.NUMBERS.get(activation)
        if z.dtype != FLOAT32 or activation != "relu" and curve is None:
            return super().activate(z, activation, constants)
        y = self.empty(z.shape, FLOAT32)
        if curve is None:
            activations.relu(self.crew(z.size), ready(z, (z.size,)), y.reshape(-1))
        else:
            curves.curve_forward(self.crew(8 * z.size), curve, ready(z, (z.size,)), y.reshape(-1), beta_of(activation, constants))
        return y

    def activation_backward(self, dy: Array, y: Array, activation: str | None, constants: tuple[float, ...] = (), *,
                            bias_grad: Array | None = None, accumulate: bool = False) -> Array:
        curve = None if activation in CURVE else curves.NUMBERS.get(activation)
        known = activation is None or activation in CURVE or curve is not None
        if not (known and float32(dy, y)) or bias_grad is not None and not writable(bias_grad):
            return super().activation_backward(dy, y, activation, constants, bias_grad=bias_grad, accumulate=accumulate)
        rows, size = dy.shape[0], prod(dy.shape[1:])
        grad = np.empty(0, FLOAT32) if bias_grad is None else bias_grad.reshape(rows)
        sums = np.empty((rows, -(-size // activations.PIECE)), FLOAT32)
        if activation is None:
            if bias_grad is not None:
                activations.row_sums(self.crew(dy.size), ready(dy, (rows, size)), sums, grad, accumulate)
            return dy
        dz = self.empty(dy.shape, FLOAT32)
        if curve is not None:
            curves.curve_backward(self.crew(8 * dy.size), curve, ready(dy, (rows, size)), ready(y, (rows, size)),
                                  dz.reshape(rows, size), beta_of(activation, constants), sums, grad, accumulate)
            return dz
        activations.activation_backward(self.crew(dy.size), ready(dy, (rows, size)), ready(y, (rows, size)),
                                        dz.reshape(rows, size), activation == "relu", CURVE[activation], sums, grad, accumulate)
        return dz

    # --- normalisation --------------------------------------------------------------------------------------------

    def batch_norm(self, x: Array, gamma: Array, beta: Array, eps: float, *, activation: str | None = None
                   ) -> tuple[Array, Array, Array]:
        if activation not in FLOOR or not float32(x, gamma, beta) or x.size == 0:
            return super().batch_norm(x, gamma, beta, eps, activation=activation)
        C = x.shape[0]
        n, crew = x.size // C, self.crew(x.size)
        mean, var = np.empty(C, FLOAT32), np.empty(C, FLOAT32)
        if C < FEW and n >= LONG:
            normalization.statistics_of_long_channels(crew, ready(x, (C, n)), mean, var)
            return self.batch_norm_inference(x, gamma, beta, mean, var, eps, activation=activation), mean, var
        y = self.empty(x.shape, FLOAT32)
        normalization.batch_norm(crew, ready(x, (C, n)), ready(gamma, (C,)), ready(beta, (C,)), eps, FLOOR[activation],
                                 mean, var, y.reshape(C, n))
        return y, mean, var

    def batch_norm_inference(self, x: Array, gamma: Array, beta: Array, mean: Array, var: Array, eps: float, *,
                             activation: str | None = None) -> Array:
        if activation not in FLOOR or not float32(x, gamma, beta, mean, var) or x.size == 0:
            return super().batch_norm_inference(x, gamma, beta, mean, var, eps, activation=activation)
        C = x.shape[0]
        n, vector = x.size // C, (C,)
        y = self.empty(x.shape, FLOAT32)
        normalization.batch_norm_inference(self.crew(x.size), ready(x, (C, n)), ready(gamma, vector), ready(beta, vector),
                                           ready(mean, vector), ready(var, vector), eps, FLOOR[activation], y.reshape(C, n))
        return y

    def batch_norm_backward(self, dy: Array, x: Array, y: Array, gamma: Array, mean: Array, var: Array, eps: float, *,
                            activation: str | None = None, gamma_grad: Array, beta_grad: Array,
                            accumulate: bool = False) -> Array:
        if (activation not in FLOOR or not float32(dy, x, y, gamma, mean, var) or not writable(gamma_grad, beta_grad)
                or x.size == 0):
            return super().batch_norm_backward(dy, x, y, gamma, mean, var, eps, activation=activation,
                                               gamma_grad=gamma_grad, beta_grad=beta_grad, accumulate=accumulate)
        C = x.shape[0]
        n, vector, crew, floor = x.size // C, (C,), self.crew(x.size), FLOOR[activation]
        dy2, x2 = ready(dy, (C, n)), ready(x, (C, n))
        y2 = x2 if activation is None else ready(y, (C, n))             # any array will do, and this one is in the cache
        gamma, mean, var = ready(gamma, vector), ready(mean, vector), ready(var, vector)
        dx = self.empty(x.shape, FLOAT32)
        rest = eps, floor, gamma_grad.reshape(vector), beta_grad.reshape(vector), accumulate, dx.reshape(C, n)
        if C < FEW and n >= LONG:
            sums = np.empty((C, -(-n // normalization.PART), 2))
            normalization.gradient_sums_of_parts(crew, dy2, x2, y2, mean, floor, sums)
            normalization.input_gradient_of_parts(crew, dy2, x2, y2, sums.sum(axis=1), gamma, mean, var, *rest)
        else:
            normalization.batch_norm_backward(crew, dy2, x2, y2, gamma, mean, var, *rest)
        return dx

    # --- softmax --------------------------------------------------------------------------------------------------

    def softmax(self, z: Array) -> Array:
        if z.dtype != FLOAT32 or z.size == 0:
            return super().softmax(z)
        K = z.shape[0]
        N = z.size // K
        y = self.empty(z.shape, FLOAT32)
        softmax.softmax(self.crew(8 * z.size), ready(z, (K, N)), y.reshape(K, N), np.empty(N, FLOAT32), np.empty(N, FLOAT32))
        return y

    def softmax_cross_entropy(self, z: Array, target: Array) -> tuple[Array, Array]:
        labels = target.ndim == 1 and target.dtype.kind in "iu"
        if z.dtype != FLOAT32 or z.size == 0 or not (labels or target.dtype == FLOAT32 and target.shape == z.shape):
            return super().softmax_cross_entropy(z, target)
        K, N = z.shape
        dz, top, total = self.empty((K, N), FLOAT32), np.empty(N, FLOAT32), np.empty(N, FLOAT32)
        crew, z2 = self.crew(8 * z.size), ready(z, (K, N))              # an exponential is worth some elements
        if labels:
            loss = softmax.cross_entropy_of_labels(crew, z2, ready(target.astype(np.int64, copy=False), (N,)), dz, top, total)
        else:
            weight, losses = np.empty(N, FLOAT32), np.empty(N, FLOAT32)
            loss = softmax.cross_entropy(crew, z2, ready(target, (K, N)), dz, top, total, weight, losses)
        return np.float32(loss), dz

    # --- dropout --------------------------------------------------------------------------------------------------

    def random_bits(self, n: int, key: tuple[int, int], counter: Array) -> Array:
        words = self.empty((-(-n // dropout.BITS), dropout.BITS // 2), np.uint64)
        dropout.random_words(self.crew(8 * n), np.array([*key, *counter], np.uint64), words)
        return words.reshape(-1).view(np.uint32)[:n]

    def dropout(self, x: Array, p: float, key: tuple[int, int], counter: Array) -> tuple[Array, Array]:
        if x.dtype != FLOAT32:
            return super().dropout(x, p, key, counter)
        y, keep = self.empty(x.shape, FLOAT32), self.empty(x.shape, bool)
        dropout.dropout(self.crew(8 * x.size), ready(x, (x.size,)), np.array([*key, *counter], np.uint64), round(p * 2.0**32),
                        1.0 / (1.0 - p), y.reshape(-1), keep.reshape(-1))
        return y, keep

    def dropout_dx(self, dy: Array, p: float, keep: Array) -> Array:
        if dy.dtype != FLOAT32 or keep.dtype != np.bool_:
            return super().dropout_dx(dy, p, keep)
        dx = self.empty(dy.shape, FLOAT32)
        dropout.dropout_backward(self.crew(dy.size), ready(dy, (dy.size,)), ready(keep, (dy.size,)), 1.0 / (1.0 - p),
                                 dx.reshape(-1))
        return dx

    # --- batches --------------------------------------------------------------------------------------------------

    def gather_batch(self, samples: Array, index: Array | None, dtype: Any) -> Array:
        fast = dtype == FLOAT32 and samples.dtype in (FLOAT32, np.uint8) and samples.flags.c_contiguous and samples.flags.aligned
        if fast and samples.size > 0:
            rows = np.arange(len(samples)) if index is None else index
            D, N = samples.size // len(samples), len(rows)
            out = self.empty((*samples.shape[1:], N), FLOAT32)
            if batches.gather(self.crew(out.size), ready(np.asarray(samples), (len(samples), D)),
                              ready(rows.astype(np.int64, copy=False), (N,)), out.reshape(D, N)):
                return out
        return super().gather_batch(samples, index, dtype)
