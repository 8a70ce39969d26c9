"""ReLU, sums of two arrays, and the gradients of all activations, with the gradient of the bias in
the same pass."""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.jit import inline, kernel
from xpnet.backends.numba.kernels.sums import total

# elements of a row that are added up in float32; the sums of pieces are added in float64
PIECE = 4096


@inline
def add_up(sums, out, accumulate):
    """out (rows,) = or += the sums of the pieces of each row, in their order; sums (rows,
    pieces)."""
    for row in range(out.size):
        s = np.float64(out[row] if accumulate else 0)
        for piece in range(sums.shape[1]):
            s += sums[row, piece]
        out[row] = s


@kernel
def relu(z, y):
    """y = max(z, 0); z and y (n,)."""
    for piece in prange(-(-z.size // PIECE)):
        values, out = z[piece * PIECE:(piece + 1) * PIECE], y[piece * PIECE:(piece + 1) * PIECE]
        for i in range(out.size):
            out[i] = np.float32(0) if values[i] <= 0 else values[i]     # a NaN is not <= 0


@kernel
def add(a, b, y, is_relu):
    """y = a + b, or max(a + b, 0) for relu; a, b and y (n,)."""
    for piece in prange(-(-y.size // PIECE)):
        start = piece * PIECE
        u, v, out = a[start:start + PIECE], b[start:start + PIECE], y[start:start + PIECE]
        if is_relu:
            for i in range(out.size):
                s = u[i] + v[i]
                out[i] = np.float32(0) if s <= 0 else s
        else:
            for i in range(out.size):
                out[i] = u[i] + v[i]


@kernel
def activation_backward(dy, y, dz, is_relu, curve, sums, bias_grad, accumulate):
    """dz = dy f'(z) and bias_grad = its sums over rows; dy, y, dz (rows, size), sums (rows, pieces)
    is scratch.

    f' = 1 if y > 0 else 0 for relu, otherwise a (b + y) (c - y) with curve = (a, b, c).
    """
    a, b, c = np.float32(curve[0]), np.float32(curve[1]), np.float32(curve[2])
    pieces = sums.shape[1]
    for item in prange(sums.size):
        row, start = item // pieces, item % pieces * PIECE
        g, f, out = (dy[row, start:start + PIECE], y[row, start:start + PIECE],
                     dz[row, start:start + PIECE])
        if is_relu:
            for i in range(out.size):
                out[i] = g[i] * (np.float32(1) if f[i] > 0 else np.float32(0))
        else:
            for i in range(out.size):
                out[i] = g[i] * (a * (b + f[i]) * (c - f[i]))
        sums[row, item % pieces] = total(out)
    add_up(sums, bias_grad, accumulate)


@kernel
def row_sums(dz, sums, bias_grad, accumulate):
    """bias_grad = the sums of the rows of dz (rows, size); sums (rows, pieces) is scratch."""
    pieces = sums.shape[1]
    for item in prange(sums.size):
        row, start = item // pieces, item % pieces * PIECE
        sums[row, item % pieces] = total(dz[row, start:start + PIECE])
    add_up(sums, bias_grad, accumulate)
