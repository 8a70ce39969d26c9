"""What the parts of the NumPy backend share: recycled memory, threads, tasks cut by shape, and matrix products.

Every cut, every number of partial sums and the order in which they are added follow from shapes alone and never from
the number of threads, so that the same call gives the same bits on one core and on sixteen.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backends import activations
from xpnet.backends.base import Array, Backend
from xpnet.backends.memory import MemoryPool
from xpnet.backends.threads import Task, ThreadPool, single_threaded_blas, thread_count
from xpnet.backends.window import Window

SERIAL = 1 << 17        # elements; below, waking a thread (some 40 us) costs more than it does
CHUNK = 1 << 18         # elements of a chunk: with smaller ones, threads wait for each other's turn in the interpreter

# OpenBLAS for AVX-512 multiplies in place, without packing its operands first, where a product has at most so many
# multiply-adds and, with a transposed second operand, its result so many elements. That is 3 to 4 times as fast where
# a factor is thin (8 x 200 x 512 on one Zen 4 core: 105 instead of 28 GFLOP/s, transposed 96 instead of 21). Its
# kernels for AVX2 always pack, and lose mostly a tenth or less by the smaller products.
IN_PLACE = 1_000_000
IN_PLACE_RESULT = 1_200


def spans(total: int, parts: int) -> list[slice]:
    """range(total) in `parts` nearly equal slices."""
    return [slice(total * k // parts, total * (k + 1) // parts) for k in range(parts)]


def partial_sums(tiles: int, size: int) -> list[slice]:
    """Which tiles to add up in each of several partial sums of `size` elements: 8 sums, fewer where they are large."""
    return spans(tiles, min(tiles, 8, max(2, (1 << 22) // size)))


def product(a: Array, b: Array, out: Array) -> None:
    """out = a b, for a thin b in blocks of rows that are multiplied in place: 2 times as fast at a batch of 4 to 8."""
    (M, K), N = a.shape, b.shape[1]
    rows = IN_PLACE // max(1, K * N)
    if K == 1:                                                          # dW of a batch of one, which matmul is slow at
        np.multiply(a, b, out=out)
        return
    if N < 4 or not 8 <= rows < M or b.strides[0] < b.strides[1]:
        np.matmul(a, b, out=out)
        return
    blocks = M // rows * rows
    np.matmul(a[:blocks].reshape(-1, rows, K), b, out=out[:blocks].reshape(-1, rows, N))
    if blocks < M:
        np.matmul(a[blocks:], b, out=out[blocks:])


class NumpyBase(Backend):
    """Memory, threads and matrix products."""

    name = "numpy"

    def __init__(self, note: str = "") -> None:
        super().__init__(note=note)
        self.memory = MemoryPool()
        self.threads = ThreadPool(thread_count())
        self._zeros: dict[np.dtype, Array] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.memory.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Straight from the system, whose zeros take no memory before they are written: gradients that nobody asks for."""
        return np.zeros(shape, dtype)

    def _padded_zeros(self, x_shape: tuple[int, ...], window: Window, dtype: Any) -> Array:
        """In recycled memory, because all of it will be written."""
        C, H, W, N = x_shape
        top, bottom, left, right = window.padding
        padded = self.empty((C, top + H + bottom, left + W + right, N), dtype)
        padded.fill(0)
        return padded

    def run(self, task: Task, count: int, work: int) -> None:
        """task(0), ..., task(count - 1), in parallel where `work`, about the elements touched, is worth it."""
        if work < SERIAL:
            for index in range(count):
                task(index)
        else:
            self.threads.run(task, count)

    def over_rows(self, task: Callable[[slice], object], rows: int, row_size: int) -> None:
        """task(slice) over all rows of a (rows, row_size) array, in chunks."""
        chunks = spans(rows, max(1, min(rows, rows * row_size // (2 * CHUNK) * 2)))            # two by two: often two cores
        self.threads.run(lambda k: task(chunks[k]), len(chunks))

    def add_up(self, partial: Array) -> Array:
        """The partial sums (parts, ...) added in their order."""
        total = self.empty(partial.shape[1:], partial.dtype)
        rows, flat = total.reshape(-1, total.shape[-1]), partial.reshape(len(partial), -1, total.shape[-1])
        self.over_rows(lambda chunk: np.add.reduce(flat[:, chunk], axis=0, out=rows[chunk]), *rows.shape)
        return total

    def zero_row(self, n: int, dtype: np.dtype) -> Array:
        """n zeros, to be read only."""
        row = self._zeros.get(dtype)
        if row is None or row.size < n:
            row = self._zeros[dtype] = np.zeros(n, dtype)
            row.flags.writeable = False
        return row[:n]

    def activate_in_place(self, z: Array, activation: str | None, constants: tuple[float, ...] = ()) -> None:
        """z = f(z), for memory of our own."""
        if activation == "relu":
            # NumPy's fast loop for maximum wants two arrays; with the number 0 it takes 3 times as long.
            np.maximum(z, self.zero_row(z.shape[-1], z.dtype), out=z)
        elif activation is not None:
            z[...] = activations.forward(np, z, activation, constants)

    # --- matrices -------------------------------------------------------------------------------------------------

    def gemm(self, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False, bias: Array | None = None,
             activation: str | None = None, out: Array | None = None, accumulate: bool = False) -> Array:
        a = a.T if trans_a else a                                                               # (M, K)
        b = b.T if trans_b else b                                                               # (K, N)
        M, N = a.shape[0], b.shape[1]
        work = M * N * a.shape[1] // 16
        dtype = np.promote_types(a.dtype, b.dtype)
        # Straight into `out`, unless something that is still to be read may lie there.
        direct = (out is not None and not accumulate and out.dtype == dtype and out.flags.c_contiguous
                  and not any(np.may_share_memory(out, read) for read in (a, b, bias) if read is not None))
        y: Array = out if direct else self.empty((M, N), dtype)
        along_rows = M >= N
        most = min(max(M, N) // 16, 2 * max(1, work >> 21), 16) if work >= 2 * SERIAL else 1
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

    # --- padding --------------------------------------------------------------------------------------------------

    def _pad(self, x: Array, window: Window, value: float = 0.0) -> Array:
        if not window.padded:
            return np.ascontiguousarray(x)
        C, H, W, N = x.shape
        top, bottom, left, right = window.padding
        padded = self.empty((C, top + H + bottom, left + W + right, N), x.dtype)

        def task(channels: slice) -> None:
            p = padded[channels]
            p[:, :top] = p[:, top + H:] = value
            p[:, top:top + H, :left] = p[:, top:top + H, left + W:] = value
            p[:, top:top + H, left:left + W] = x[channels]

        self.over_rows(task, C, padded.size // C)
        return padded
