"""Matrix products with NumPy, cut so that BLAS can multiply in place."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.cpu.threads import single_threaded_blas
from xpnet.backends.numpy.pieces import SERIAL, spans

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


# OpenBLAS for AVX-512 multiplies in place, without packing its operands first, if a product has at
# most IN_PLACE multiply-adds and, with a transposed second operand, a result of at most
# IN_PLACE_RESULT elements. That is 3 to 4 times as fast if a factor is thin (8 x 200 x 512 on one
# Zen 4 core: 105 instead of 28 GFLOP/s, transposed 96 instead of 21). Its kernels for AVX2 always
# pack; with the smaller products they are usually at most a tenth slower.
IN_PLACE = 1_000_000
IN_PLACE_RESULT = 1_200
# BLAS packs the second operand again for each block of rows. If it has LONG rows, as in a gradient
# with respect to weights that many steps share, blocks of ROWS rows or more are worth it (512 x
# 3200 x 128 on one Zen 4 core: 5.2 ms in blocks of 128 rows, 7.2 ms in blocks of 43). Two
# blocks are allowed in any case, for two threads.
LONG, ROWS = 1024, 128


def product(a: Array, b: Array, out: Array) -> None:
    """out = a b. A thin b is multiplied with blocks of rows in place: 2 times as fast at a batch
    size of 4 to 8."""
    (M, K), N = a.shape, b.shape[1]
    rows = IN_PLACE // max(1, K * N)
    if K == 1:  # dW of a batch of one: matmul is slow
        np.multiply(a, b, out=out)
        return
    if N < 4 or not 8 <= rows < M or b.strides[0] < b.strides[1]:
        np.matmul(a, b, out=out)
        return
    blocks = M // rows * rows
    np.matmul(a[:blocks].reshape(-1, rows, K), b, out=out[:blocks].reshape(-1, rows, N))
    if blocks < M:
        np.matmul(a[blocks:], b, out=out[blocks:])


def gemm(self: NumpyBackend, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False,
         bias: Array | None = None, activation: str | None = None, out: Array | None = None,
         accumulate: bool = False) -> Array:
    a = a.T if trans_a else a                                                               # (M, K)
    b = b.T if trans_b else b                                                               # (K, N)
    M, N = a.shape[0], b.shape[1]
    work = M * N * a.shape[1] // 16
    dtype = np.promote_types(a.dtype, b.dtype)
    direct = not accumulate and self._is_direct(out, dtype, a, b, bias)
    y: Array = out if direct else self.empty((M, N), dtype)
    along_rows = M >= N
    most = min(max(M, N) // 16, 2 * max(1, work >> 21), 16) if work >= 2 * SERIAL else 1
    if along_rows and a.shape[1] >= LONG:
        most = min(most, max(2, M // ROWS))
    parts = spans(max(M, N), max(1, most))

    def task(k: int) -> None:
        rows, columns = (parts[k], slice(None)) if along_rows else (slice(None), parts[k])
        block = y[rows, columns]
        product(a[rows], b[:, columns], block)
        if bias is not None:
            block += bias[rows, None]
        self.activate_in_place(block, activation)

    with single_threaded_blas():
        self.run(task, len(parts), work)
    return y if direct else self.store(y, out, accumulate)


def products(self: NumpyBackend, a: Array, b: Array, *, trans_a: bool = False,
             trans_b: bool = False) -> Array:
    a = a.transpose(0, 2, 1) if trans_a else a                                          # (G, M, K)
    b = b.transpose(0, 2, 1) if trans_b else b                                          # (G, K, N)
    (G, M, K), N = a.shape, b.shape[2]
    y = self.empty((G, M, N), np.promote_types(a.dtype, b.dtype))
    work = y.size * K // 16
    parts = spans(G, max(1, min(G, 16, work // SERIAL)))

    def task(k: int) -> None:
        np.matmul(a[parts[k]], b[parts[k]], out=y[parts[k]])

    with single_threaded_blas():
        self.run(task, len(parts), work)
    return y
