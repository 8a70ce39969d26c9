"""Batch normalisation: one task for each channel; after the first pass the channel is in the cache.

If there are few and long channels, the tasks are parts of channels, and their sums are added up
between the passes. x is (C, n) here. `floor` is 0 for ReLU, y = max(z, 0), and minus infinity
without an activation.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.jit import inline, kernel
from xpnet.backends.numba.kernels.sums import gradient_totals, squares_about, total_about

PIECE = 4096        # elements that are added up in float32; the sums of pieces are added in float64
PART = 1 << 16      # elements of a part of a channel


@inline
def row_sum(x):
    """Sum of x (n,). Each piece is added up relative to its first element: the sum of a constant
    row is exactly n times its value."""
    s = 0.0
    for start in range(0, x.size, PIECE):
        piece = x[start:start + PIECE]
        first = piece[0] if abs(piece[0]) < np.float32(np.inf) else np.float32(0)
        s += np.float64(first) * piece.size + total_about(piece, first)
    return s


@inline
def row_squares(x, mean):
    """Sum of (x - mean)^2, x (n,)."""
    s = 0.0
    for start in range(0, x.size, PIECE):
        s += squares_about(x[start:start + PIECE], mean)
    return s


@inline
def add_in_order(sums):
    """Sum of a few float64 (n,)."""
    s = 0.0
    for value in sums:
        s += value
    return s


@inline
def normalise(x, gamma, beta, mean, var, eps, floor, y):
    """y = max(gamma (x - mean) / sqrt(var + eps) + beta, floor); x and y (n,)."""
    scale, least = np.float32(gamma / np.sqrt(np.float64(var) + eps)), np.float32(floor)
    for i in range(y.size):
        value = (x[i] - mean) * scale + beta
        y[i] = least if value < least else value                        # a NaN is not smaller


@inline
def gradient_sums(dy, x, y, mean, floor):
    """Sums of dz and of dz (x - mean), dz = dy where y > floor; dy, x, y (n,)."""
    sum_dz, sum_dzx = 0.0, 0.0
    for start in range(0, x.size, PIECE):
        stop = start + PIECE
        s, t = gradient_totals(dy[start:stop], x[start:stop], y[start:stop], mean, floor)
        sum_dz += s
        sum_dzx += t
    return sum_dz, sum_dzx


@inline
def input_gradient(dy, x, y, sum_dz, sum_dzx, n, gamma, mean, var, eps, floor, dx):
    """dx = gamma / std (dz - (sum_dz + (x - mean) sum_dzx / std^2) / n); dy, x, y, dx (part of
    n,)."""
    variance, least = np.float64(var) + eps, np.float32(floor)
    scale = np.float32(gamma / np.sqrt(variance))
    shift, slope = np.float32(sum_dz / n), np.float32(sum_dzx / (n * variance))
    for i in range(dx.size):
        dz = dy[i] * (np.float32(1) if y[i] > least else np.float32(0))
        dx[i] = scale * (dz - shift - (x[i] - mean) * slope)


@inline
def store_gradients(c, sum_dz, sum_dzx, var, eps, gamma_grad, beta_grad, accumulate):
    """gamma_grad[c] = sum of dz (x - mean) / std and beta_grad[c] = sum of dz, or += these."""
    dgamma = sum_dzx / np.sqrt(np.float64(var) + eps)
    gamma_grad[c] = dgamma + (gamma_grad[c] if accumulate else 0)
    beta_grad[c] = sum_dz + (beta_grad[c] if accumulate else 0)


@kernel
def batch_norm(x, gamma, beta, eps, floor, mean, var, y):
    """Backend.batch_norm of x (C, n)."""
    C, n = x.shape
    for c in prange(C):
        mean[c] = row_sum(x[c]) / n
        var[c] = row_squares(x[c], mean[c]) / n
        normalise(x[c], gamma[c], beta[c], mean[c], var[c], eps, floor, y[c])


@kernel
def batch_norm_inference(x, gamma, beta, mean, var, eps, floor, y):
    """Backend.batch_norm_inference of x (C, n)."""
    C, n = x.shape
    parts = -(-n // PART)
    for item in prange(C * parts):
        c, start = item // parts, item % parts * PART
        normalise(x[c, start:start + PART], gamma[c], beta[c], mean[c], var[c], eps, floor,
                  y[c, start:start + PART])


@kernel
def batch_norm_backward(dy, x, y, gamma, mean, var, eps, floor, gamma_grad, beta_grad, accumulate,
                        dx):
    """Backend.batch_norm_backward of dy, x, y (C, n)."""
    C, n = x.shape
    for c in prange(C):
        s, t = gradient_sums(dy[c], x[c], y[c], mean[c], floor)
        store_gradients(c, s, t, var[c], eps, gamma_grad, beta_grad, accumulate)
        input_gradient(dy[c], x[c], y[c], s, t, n, gamma[c], mean[c], var[c], eps, floor, dx[c])


@kernel
def statistics_of_long_channels(x, mean, var):
    """mean and var (C,) of x (C, n)."""
    C, n = x.shape
    parts = -(-n // PART)
    sums = np.empty((C, parts))
    for item in prange(C * parts):
        c, part = item // parts, item % parts
        sums[c, part] = row_sum(x[c, part * PART:(part + 1) * PART])
    for c in range(C):
        mean[c] = add_in_order(sums[c]) / n
    for item in prange(C * parts):
        c, part = item // parts, item % parts
        sums[c, part] = row_squares(x[c, part * PART:(part + 1) * PART], mean[c])
    for c in range(C):
        var[c] = add_in_order(sums[c]) / n


@kernel
def gradient_sums_of_parts(dy, x, y, mean, floor, sums):
    """gradient_sums of each part of dy, x, y (C, n) -> sums (C, parts, 2)."""
    parts = sums.shape[1]
    for item in prange(sums.shape[0] * parts):
        c, part = item // parts, item % parts
        start, stop = part * PART, (part + 1) * PART
        s, t = gradient_sums(dy[c, start:stop], x[c, start:stop], y[c, start:stop], mean[c], floor)
        sums[c, part, 0], sums[c, part, 1] = s, t


@kernel
def input_gradient_of_parts(dy, x, y, sums, gamma, mean, var, eps, floor, gamma_grad, beta_grad,
                            accumulate, dx):
    """The rest of batch_norm_backward; sums (C, 2) are those of whole channels."""
    C, n = x.shape
    for c in range(C):
        store_gradients(c, sums[c, 0], sums[c, 1], var[c], eps, gamma_grad, beta_grad, accumulate)
    parts = -(-n // PART)
    for item in prange(C * parts):
        c, start, stop = item // parts, item % parts * PART, (item % parts + 1) * PART
        input_gradient(dy[c, start:stop], x[c, start:stop], y[c, start:stop], sums[c, 0],
                       sums[c, 1], n, gamma[c], mean[c],
                       var[c], eps, floor, dx[c, start:stop])
