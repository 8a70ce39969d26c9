"""Pooling on an NVIDIA GPU."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {
        "max_pool": tuple(f"{kernel}<{name}, {index}, {width}>"
                          for kernel in ("max_pool", "max_pool_dx", "max_pool_dx_of_cells")
                          for name, width in cuda_launch.types_and_widths()
                          for index in cuda_launch.INDEX_TYPES.values()),
        "avg_pool": tuple(f"{kernel}<{name}, {width}>"
                          for kernel in ("avg_pool", "avg_pool_dx", "avg_pool_dx_of_cells")
                          for name, width in cuda_launch.types_and_widths()),
    }


def max_pool2d(self: CupyBackend, x: Array, window: Window) -> tuple[Array, Array]:
    if x.dtype not in cuda_launch.TYPES:
        return Backend.max_pool2d(self, x, window)
    C, H, W, N = x.shape
    OH, OW = window.output_size(H, W)
    x = self._contiguous(x)
    y = self.empty((C, OH, OW, N), x.dtype)
    argmax = self.empty(y.shape, self.argmax_dtype(window))
    V = self._width(N, x, y, argmax)
    types = f"{cuda_launch.TYPES[x.dtype]}, {cuda_launch.INDEX_TYPES[argmax.dtype]}"
    self._launch("max_pool", f"max_pool<{types}, {V}>", cuda_launch.row_launch(C, OH, OW, N // V),
                 x, y, argmax, np.int32(C), cuda_launch.window_struct(x.shape, window))
    return y, argmax


def max_pool2d_dx(self: CupyBackend, dy: Array, argmax: Array, x_shape: tuple[int, ...],
                  window: Window) -> Array:
    if dy.dtype not in cuda_launch.TYPES:
        return Backend.max_pool2d_dx(self, dy, argmax, x_shape, window)
    C, _, _, N = x_shape
    dy, argmax = self._contiguous(dy), self._contiguous(argmax)
    dx = self.empty(x_shape, dy.dtype)
    V = self._width(N, dy, dx, argmax)
    kind, launch = cuda_launch.pool_dx_launch(x_shape, window, V)
    types = f"{cuda_launch.TYPES[dy.dtype]}, {cuda_launch.INDEX_TYPES[argmax.dtype]}"
    self._launch("max_pool", f"max_pool_dx{kind}<{types}, {V}>", launch,
                 dy, argmax, dx, np.int32(C), cuda_launch.window_struct(x_shape, window))
    return dx


def avg_pool2d(self: CupyBackend, x: Array, window: Window, *, count_padding: bool = True) -> Array:
    if x.dtype not in cuda_launch.TYPES:
        return Backend.avg_pool2d(self, x, window, count_padding=count_padding)
    C, H, W, N = x.shape
    OH, OW = window.output_size(H, W)
    x = self._contiguous(x)
    y = self.empty((C, OH, OW, N), x.dtype)
    V = self._width(N, x, y)
    self._launch("avg_pool", f"avg_pool<{cuda_launch.TYPES[x.dtype]}, {V}>",
                 cuda_launch.row_launch(C, OH, OW, N // V),
                 x, y, _weight(window, count_padding), np.int32(C),
                 cuda_launch.window_struct(x.shape, window))
    return y


def avg_pool2d_dx(self: CupyBackend, dy: Array, x_shape: tuple[int, ...], window: Window, *,
                  count_padding: bool = True) -> Array:
    if dy.dtype not in cuda_launch.TYPES:
        return Backend.avg_pool2d_dx(self, dy, x_shape, window, count_padding=count_padding)
    C, _, _, N = x_shape
    dy = self._contiguous(dy)
    dx = self.empty(x_shape, dy.dtype)
    V = self._width(N, dy, dx)
    kind, launch = cuda_launch.pool_dx_launch(x_shape, window, V)
    self._launch("avg_pool", f"avg_pool_dx{kind}<{cuda_launch.TYPES[dy.dtype]}, {V}>", launch,
                 dy, dx, _weight(window, count_padding), np.int32(C),
                 cuda_launch.window_struct(x_shape, window))
    return dx


def _weight(window: Window, count_padding: bool) -> np.float64:
    """1 / number of taps, or 0 if each window divides by the number of its taps on the input."""
    return np.float64(1.0 / window.taps if count_padding else 0.0)
