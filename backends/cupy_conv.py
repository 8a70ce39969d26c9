"""Convolution on an NVIDIA GPU."""

from __future__ import annotations

import numpy as np

from xpnet.backends import cuda_launch
from xpnet.backends.base import Array
from xpnet.backends.cupy_base import CupyBase
from xpnet.backends.window import Window


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched from here, by family: the names that the compiler is asked for."""
    return {
        "im2col": tuple(f"{kernel}<{name}, {width}>" for kernel in ("im2col", "col2im")
                        for name, width in cuda_launch.types_and_widths()),
    }


class CupyConvolution(CupyBase):
    """Convolution on an NVIDIA GPU."""

    def im2col(self, x: Array, window: Window) -> Array:
        if window.pointwise or x.dtype not in cuda_launch.TYPES:
            return super().im2col(x, window)
        C, H, W, N = x.shape
        OH, OW = window.output_size(H, W)
        x = self._contiguous(x)
        cols = self.empty((C * window.taps, OH * OW * N), x.dtype)
        V = self._width(N, x, cols)
        self._launch("im2col", f"im2col<{cuda_launch.TYPES[x.dtype]}, {V}>",
                     cuda_launch.row_launch(C, window.taps * OH, OW, N // V),
                     x, cols, np.int32(C), cuda_launch.window_struct(x.shape, window))
        return cols

    def col2im(self, cols: Array, x_shape: tuple[int, ...], window: Window) -> Array:
        if window.pointwise or cols.dtype not in cuda_launch.TYPES:
            return super().col2im(cols, x_shape, window)
        C, H, W, N = x_shape
        cols = self._contiguous(cols)
        x = self.empty(x_shape, cols.dtype)
        V = self._width(N, cols, x)
        self._launch("im2col", f"col2im<{cuda_launch.TYPES[x.dtype]}, {V}>", cuda_launch.row_launch(C, H, W, N // V),
                     cols, x, np.int32(C), cuda_launch.window_struct(x_shape, window))
        return x
