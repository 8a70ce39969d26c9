"""Matrix products with the compiled kernels: which kernel is used, and how the work is divided."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import matrix
from xpnet.backends.numba.kernels.arrays import FLOAT32, ready
from xpnet.backends.numba.kernels.instructions import DOT_COLUMNS, DOT_ROWS, ROWS
from xpnet.backends.numba.kernels.matrix import COPIED, IN_PLACE, PANEL, TRANSPOSED
from xpnet.backends.numba.kernels.micro import FROM_BIAS, FROM_Y, FROM_ZERO
from xpnet.backends.numba.pieces import pieces
from xpnet.backends.numba.taps import WAY
from xpnet.backends.numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


FEW = 10                # columns of a product; below, vectors run along its rows


def gemm(self: NumbaBackend, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False,
         bias: Array | None = None, activation: str | None = None, out: Array | None = None,
         accumulate: bool = False) -> Array:
    plain = bias is None and activation is None
    if (not (a.dtype == b.dtype == FLOAT32) or a.size == 0 or b.size == 0
        or (bias is not None and bias.dtype != FLOAT32)):
        return NumpyBackend.gemm(self, a, b, trans_a=trans_a, trans_b=trans_b, bias=bias,
                                 activation=activation, out=out, accumulate=accumulate)
    M, N = a.shape[trans_a is True], b.shape[trans_b is not True]
    if (a.shape[trans_a is not True] != b.shape[trans_b is True]
        or (out is not None and out.shape != (M, N))):
        raise ValueError("gemm: expected op(a) (M, K), op(b) (K, N), out (M, N). Received: a "
                         f"{a.shape}, b {b.shape}, trans_a={trans_a}, trans_b={trans_b}, out "
                         f"{None if out is None else out.shape}.")
    direct = self._is_direct(out, FLOAT32, a, b, bias) and (plain or not accumulate)
    y: Array = out if direct else self.empty((M, N), FLOAT32)
    relu = activation == "relu"
    a, trans_a = in_memory(a, trans_a)
    b, trans_b = in_memory(b, trans_b)
    self._multiply(ready(a, a.shape), trans_a, ready(b, b.shape), trans_b, bias, y, relu,
                   direct and accumulate)
    if activation is not None and not relu:
        y = self.activate(y, activation)
        direct = False
    return y if direct else self.store(y, out, accumulate)


def in_memory(m: Array, transposed: bool) -> tuple[Array, bool]:
    """The same op(m) from an array in C order, if m is a transposed view of one."""
    is_view = m.T.flags.c_contiguous and not m.flags.c_contiguous
    return (m.T, not transposed) if is_view else (m, transposed)


def multiply(self: NumbaBackend, a: Array, trans_a: bool, b: Array, trans_b: bool,
             bias: Array | None, y: Array, relu: bool, accumulate: bool) -> None:
    """y (M, N) = f(op(a) op(b) + bias), or y += op(a) op(b)."""
    M, N = y.shape
    K = a.shape[0] if trans_a else a.shape[1]
    work, start = (M * N * K // 16, FROM_Y if accumulate else FROM_ZERO if bias is None
                   else FROM_BIAS)
    flat, start_bias = y.reshape(-1), y.reshape(-1) if bias is None else ready(bias, (M,))
    if not trans_a and (N < FEW or (trans_b and M <= 2 * ROWS)):
        b = b if trans_b or N == 1 else np.ascontiguousarray(b.T)                           # (N, K)
        row_tasks, column_tasks = pieces(M * N * K, -(-M // DOT_ROWS), -(-N // DOT_COLUMNS))
        matrix.dots(self.threads_for(work), b.reshape(-1), 0, 0, 0, rows_of(N, K), a, 1, 1, 1, K,
                    start_bias, start, relu, y, row_tasks, column_tasks)
    elif N < FEW and N < M and bias is None and not relu and not accumulate:
        transposed = self.empty((N, M), FLOAT32)  # y^T = b^T a: vectors along the rows of a
        self._multiply(b, not trans_b, a, False, None, transposed, False, False)
        y[...] = transposed.T
    else:
        panel_tasks, row_tasks = pieces(M * N * K, -(-N // PANEL), -(-M // ROWS))
        mode = TRANSPOSED if trans_b else COPIED if 4 * N >= WAY and M > 2 * ROWS else IN_PLACE
        w_row, w_step = (4, 4 * M) if trans_a else (4 * K, 4)
        matrix.multiply(self.threads_for(work), b.reshape(-1), mode, 0, 0, 0, rows_of(K, N),
                        a.reshape(-1), w_row, w_step, 1, start_bias, start, relu, flat, 0, 4 * N,
                        0, 0, 1, 1, N, panel_tasks, row_tasks)


@lru_cache(maxsize=256)
def rows_of(count: int, length: int) -> np.ndarray:
    """The byte offsets of the rows of a matrix."""
    return 4 * length * np.arange(count)
