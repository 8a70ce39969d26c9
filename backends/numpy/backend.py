"""The CPU with NumPy."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backends import activations
from xpnet.backends.arguments import expect_choice
from xpnet.backends.base import Array, Backend
from xpnet.backends.cpu.memory import MemoryPool
from xpnet.backends.cpu.threads import Task, ThreadPool, thread_count
from xpnet.backends.numpy import (
    batches,
    conv,
    elementwise,
    normalization,
    optimizers,
    pool,
    product,
    recurrent,
    winograd,
)
from xpnet.backends.numpy.pieces import CHUNK, SERIAL, spans
from xpnet.backends.window import Window


class NumpyBackend(Backend):
    """NumPy on the CPU: tiles that fit the cache, a few threads, recycled memory.

    Softmax and dropout are not overridden: the reference implementations are fast enough.

    Args:
        winograd: the side of the largest tiles in 3x3 convolutions: 2 for F(2x2, 3x3) if that is
            faster, 0 for direct sums. With tiles, a NaN or an infinity also reaches outputs whose
            window does not contain it.
    """

    name = "numpy"
    winograd_tiles: tuple[int, ...] = (0, 2)

    gemm = product.gemm
    products = product.products
    conv2d = conv.conv2d
    conv2d_dx = conv.conv2d_dx
    conv2d_dW = conv.conv2d_dW
    max_pool2d = pool.max_pool2d
    max_pool2d_dx = pool.max_pool2d_dx
    avg_pool2d = pool.avg_pool2d
    avg_pool2d_dx = pool.avg_pool2d_dx
    activate = elementwise.activate
    add = elementwise.add
    activation_backward = elementwise.activation_backward
    batch_norm = normalization.batch_norm
    batch_norm_inference = normalization.batch_norm_inference
    batch_norm_backward = normalization.batch_norm_backward
    scan = recurrent.scan
    scan_backward = recurrent.scan_backward
    scan_product = recurrent.scan_product
    scan_product_backward = recurrent.scan_product_backward
    update = optimizers.update
    gather_batch = batches.gather_batch
    sums_by_token = batches.sums_by_token

    _scatter = conv.scatter
    _winograd = winograd.convolve
    _winograd_dW = winograd.filter_gradient

    def __init__(self, note: str = "", *, winograd: int = 2) -> None:
        super().__init__(note=note)
        self.winograd = expect_choice(type(self).__name__, "winograd", winograd,
                                      self.winograd_tiles)
        self.memory = MemoryPool()
        self.threads = ThreadPool(thread_count())
        self._zeros: dict[np.dtype, Array] = {}

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        return self.memory.empty(shape, dtype)

    def zeros(self, shape: tuple[int, ...], dtype: Any) -> Array:
        """Directly from the system, whose zero pages take no memory until they are written: some
        gradients are never used."""
        return np.zeros(shape, dtype)

    def contiguous(self, a: Array) -> Array:
        """`a` itself if it is C-contiguous, or a copy in recycled memory."""
        if a.flags.c_contiguous:
            return a
        copy = self.empty(a.shape, a.dtype)
        np.copyto(copy, a)
        return copy

    def _padded_zeros(self, x_shape: tuple[int, ...], window: Window, dtype: Any) -> Array:
        """In recycled memory, because all of it will be written."""
        C, H, W, N = x_shape
        top, bottom, left, right = window.padding
        padded = self.empty((C, top + H + bottom, left + W + right, N), dtype)
        padded.fill(0)
        return padded

    def _pad(self, x: Array, window: Window, value: float = 0.0) -> Array:
        if not window.padded:
            return self.contiguous(x)
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

    def run(self, task: Task, count: int, work: int) -> None:
        """task(0), ..., task(count - 1), in parallel if `work`, about the number of elements
        touched, is large enough."""
        if work < SERIAL:
            for index in range(count):
                task(index)
        else:
            self.threads.run(task, count)

    def over_rows(self, task: Callable[[slice], object], rows: int, row_size: int) -> None:
        """task(slice) over all rows of a (rows, row_size) array, in chunks."""
        # an even number: many machines have two cores
        chunks = spans(rows, max(1, min(rows, rows * row_size // (2 * CHUNK) * 2)))
        self.threads.run(lambda k: task(chunks[k]), len(chunks))

    def add_up(self, partial: Array) -> Array:
        """The sum of the partial sums (parts, ...), added in their order."""
        total = self.empty(partial.shape[1:], partial.dtype)
        rows, flat = (total.reshape(-1, total.shape[-1]),
                      partial.reshape(len(partial), -1, total.shape[-1]))
        self.over_rows(lambda chunk: np.add.reduce(flat[:, chunk], axis=0, out=rows[chunk]),
                       *rows.shape)
        return total

    def zero_row(self, n: int, dtype: np.dtype) -> Array:
        """n zeros, read-only."""
        row = self._zeros.get(dtype)
        if row is None or row.size < n:
            row = self._zeros[dtype] = np.zeros(n, dtype)
            row.flags.writeable = False
        return row[:n]

    def activate_in_place(self, z: Array, activation: str | None, constants: tuple[float, ...] = ()
                          ) -> None:
        """z = f(z), for arrays that a kernel has made itself."""
        if activation == "relu":
            # NumPy's fast loop for maximum needs two arrays; with the number 0 it takes 3 times as
            # long.
            np.maximum(z, self.zero_row(z.shape[-1], z.dtype), out=z)
        elif activation is not None:
            z[...] = activations.forward(np, z, activation, constants)
