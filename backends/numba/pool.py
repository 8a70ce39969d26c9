"""Pooling as compiled loops: float32 windows with up to 255 taps; NumpyBackend computes the
others."""

from __future__ import annotations

from functools import lru_cache
from typing import TYPE_CHECKING, NamedTuple

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import pooling
from xpnet.backends.numba.kernels.arrays import FLOAT32, ready
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


class WindowTables(NamedTuple):
    """The arguments that describe a window to the kernels; see kernels/pooling.py."""

    sizes: tuple[int, ...]
    spans: np.ndarray       # (KW, 2)
    first: np.ndarray       # (OH, OW)
    plain: bool
    # (OH, OW), 1 / number of elements of each window, padding included
    mean: np.ndarray
    mean_inside: np.ndarray


@lru_cache(maxsize=256)
def window_tables(window: Window, H: int, W: int, N: int) -> WindowTables:
    """The WindowTables of a window on feature maps (C, H, W, N)."""
    OH, OW = window.output_size(H, W)
    rows, columns = window.inside(H, W)                                 # (OH, KH), (OW, KW)
    lo, inside = columns.argmax(axis=0), np.outer(rows.sum(axis=1), columns.sum(axis=1))
    first = rows.argmax(axis=1)[:, None] * window.kernel[1] + columns.argmax(axis=1)
    return WindowTables((H, W, OH, OW, N, *window.kernel, *window.stride, *window.dilation,
                   window.padding[0], window.padding[2]),
                  np.stack([lo, lo + columns.sum(axis=0)], axis=1).astype(np.int64),
                  first.astype(np.uint8),
                  bool(window.kernel == (2, 2) and rows.all() and columns.all()),
                  np.full((OH, OW), 1 / window.taps, FLOAT32),
                  (1 / np.maximum(inside, 1)).astype(FLOAT32))


def max_pool2d(self: NumbaBackend, x: Array, window: Window) -> tuple[Array, Array]:
    if x.dtype != FLOAT32 or window.taps > 255 or x.size == 0:
        return NumpyBackend.max_pool2d(self, x, window)
    C, H, W, N = x.shape
    at = window_tables(window, H, W, N)
    OH, OW = at.first.shape
    y, argmax = self.empty((C, OH, OW, N), FLOAT32), self.empty((C, OH, OW, N), np.uint8)
    pooling.max_pool(self.threads_for(x.size), ready(x, (C * H, W * N)), at.first, at.spans,
                     at.sizes, at.plain, y.reshape(C * OH, OW * N), argmax.reshape(C * OH, OW * N))
    return y, argmax


def max_pool2d_dx(self: NumbaBackend, dy: Array, argmax: Array, x_shape: tuple[int, ...],
                  window: Window) -> Array:
    if dy.dtype != FLOAT32 or argmax.dtype != np.uint8 or dy.size == 0:
        return NumpyBackend.max_pool2d_dx(self, dy, argmax, x_shape, window)
    C, H, W, N = x_shape
    at, dx = window_tables(window, H, W, N), self.empty((C, H, W, N), FLOAT32)
    OH, OW = at.first.shape
    pooling.max_pool_dx(self.threads_for(dx.size), ready(dy, (C * OH, OW * N)),
                              ready(argmax, (C * OH, OW * N)), at.spans, at.sizes,
                              dx.reshape(C * H, W * N))
    return dx


def avg_pool2d(self: NumbaBackend, x: Array, window: Window, *, count_padding: bool = True
               ) -> Array:
    if x.dtype != FLOAT32 or x.size == 0:
        return NumpyBackend.avg_pool2d(self, x, window, count_padding=count_padding)
    C, H, W, N = x.shape
    at = window_tables(window, H, W, N)
    OH, OW = at.first.shape
    y = self.empty((C, OH, OW, N), FLOAT32)
    pooling.avg_pool(self.threads_for(x.size), ready(x, (C * H, W * N)), at.mean if count_padding
                     else at.mean_inside, at.spans, at.sizes, y.reshape(C * OH, OW * N))
    return y


def avg_pool2d_dx(self: NumbaBackend, dy: Array, x_shape: tuple[int, ...], window: Window, *,
                  count_padding: bool = True) -> Array:
    if dy.dtype != FLOAT32 or dy.size == 0:
        return NumpyBackend.avg_pool2d_dx(self, dy, x_shape, window, count_padding=count_padding)
    C, H, W, N = x_shape
    at, dx = window_tables(window, H, W, N), self.empty((C, H, W, N), FLOAT32)
    OH, OW = at.first.shape
    pooling.avg_pool_dx(self.threads_for(dx.size), ready(dy, (C * OH, OW * N)),
                        at.mean if count_padding else at.mean_inside, at.spans, at.sizes,
                        dx.reshape(C * H, W * N))
    return dx
