"""Convolution on an NVIDIA GPU."""

from __future__ import annotations

import numpy as np

from xpnet.backends import cuda_launch
from xpnet.backends.base import Array
from xpnet.backends.cuda_plans import ACROSS_K, ALONG_K
from xpnet.backends.cupy_product import LARGEST, CupyProducts, Operand
from xpnet.backends.window import Window

COLUMNS = 24 << 20      # bytes of columns that are written at a time: they shall still be in the L2 cache when they are read


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched from here, by family: the names that the compiler is asked for."""
    return {
        "im2col": tuple(f"{kernel}<{name}, {width}>" for kernel in ("im2col", "col2im")
                        for name, width in cuda_launch.types_and_widths()),
    }


class CupyConvolution(CupyProducts):
    """Convolution as a matrix product whose columns are read from the image itself, or written out in parts.

    The gradient by the input is for stride 1 a convolution too, of dy by filters turned around; for larger strides it is
    gathered from columns.
    """

    # --- columns --------------------------------------------------------------------------------------------------

    def im2col(self, x: Array, window: Window) -> Array:
        if window.pointwise or x.dtype not in cuda_launch.TYPES:
            return super().im2col(x, window)
        C, H, W, N = x.shape
        OH, OW = window.output_size(H, W)
        cols = self.empty((C * window.taps, OH * OW * N), x.dtype)
        self._im2col(self._contiguous(x), window, 0, OH, cols)
        return cols

    def _im2col(self, x: Array, window: Window, oy: int, rows: int, cols: Array) -> None:
        """The columns of output rows oy .. oy + rows - 1 -> cols (C*KH*KW, rows*OW*N)."""
        C, _, _, N = x.shape
        w = cuda_launch.window_struct(x.shape, window)
        w["top"] -= oy * window.stride[0]                   # as if the output began at row oy
        w["OH"] = rows
        V = self._width(N, x, cols)
        self._launch("im2col", f"im2col<{cuda_launch.TYPES[x.dtype]}, {V}>",
                     cuda_launch.row_launch(C, window.taps * rows, int(w["OW"]), N // V), x, cols, np.int32(C), w)

    def col2im(self, cols: Array, x_shape: tuple[int, ...], window: Window) -> Array:
        if window.pointwise or cols.dtype not in cuda_launch.TYPES:
            return super().col2im(cols, x_shape, window)
        x = self.empty(x_shape, cols.dtype)
        self._col2im(self._contiguous(cols), window, x)
        return x

    def _col2im(self, cols: Array, window: Window, x: Array) -> None:
        C, H, W, N = x.shape
        V = self._width(N, cols, x)
        self._launch("im2col", f"col2im<{cuda_launch.TYPES[x.dtype]}, {V}>", cuda_launch.row_launch(C, H, W, N // V),
                     cols, x, np.int32(C), cuda_launch.window_struct(x.shape, window))

    # --- convolution ----------------------------------------------------------------------------------------------

    def conv2d(self, x: Array, W: Array, window: Window, *, groups: int = 1, bias: Array | None = None,
               activation: str | None = None) -> Array:
        if not self._convolves(x, W, window, bias):
            return super().conv2d(x, W, window, groups=groups, bias=bias, activation=activation)
        OH, OW = window.output_size(*x.shape[1:3])
        w = cuda_launch.window_struct(x.shape, window)
        return self._convolve(x, W, w, (OH, OW), window.pointwise, groups, bias, activation)

    def _convolve(self, x: Array, W: Array, w: np.ndarray, size: tuple[int, int], pointwise: bool, groups: int,
                  bias: Array | None = None, activation: str | None = None) -> Array:
        """y (F, OH, OW, N) = W cols, columns (K, P) read from x through the window w, or x itself where windows are points."""
        x, W = self._contiguous(x), self._contiguous(W)
        F, N = W.shape[0], x.shape[3]
        P, K = size[0] * size[1] * N, W[0].size
        y = self.empty((F, *size, N), x.dtype)
        self._product(self._math(x.dtype, "convolution"), (groups, F // groups, P, K),
                      Operand(W, ALONG_K, K, F // groups * K),
                      Operand(x, ACROSS_K, P, x.size // groups, None if pointwise else w),
                      y, P, group=F // groups * P, bias=bias, activation=activation)
        return y

    def conv2d_dx(self, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *, groups: int = 1) -> Array:
        if not self._convolves(dy, W, window):
            return super().conv2d_dx(dy, W, x_shape, window, groups=groups)
        dy, W = self._contiguous(dy), self._contiguous(W)
        if window.stride != (1, 1):
            return self._dx_by_columns(dy, W, x_shape, window, groups)
        if window.pointwise:
            dx = self.empty(x_shape, dy.dtype)
            (F, per_group), P = W.shape[:2], dy[0].size
            self._product(self._math(dy.dtype, "convolution"), (groups, per_group, P, F // groups),
                          Operand(W, ACROSS_K, per_group, F // groups * per_group),
                          Operand(dy, ACROSS_K, P, F // groups * P), dx, P, group=per_group * P)                # W^T dy
            return dx
        # x[c, iy, ix] was read by the tap (i, j) of output (iy + top - i dilation, ..): walked backwards, that is a
        # convolution of dy whose first tap lies (KH - 1) dilation - top above.
        (KH, KW), (top, _, left, _) = window.kernel, window.padding
        w = cuda_launch.window_struct(x_shape, window)
        w["top"], w["left"] = (KH - 1) * window.dilation[0] - top, (KW - 1) * window.dilation[1] - left
        for name in ("H", "W"):
            w[name], w["O" + name] = w["O" + name].copy(), w[name].copy()
        return self._convolve(dy, self._turned(W, groups), w, (x_shape[1], x_shape[2]), window.pointwise, groups)

    def _dx_by_columns(self, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, groups: int) -> Array:
        """dx = col2im(W^T dy), for some channels at a time: whole groups of them, or parts of a single group."""
        (F, per_group), C = W.shape[:2], x_shape[0]
        P = dy.size // F
        K, taps = per_group * window.taps, window.taps
        dx = self.empty(x_shape, dy.dtype)
        most = max(COLUMNS // (taps * P * dy.itemsize), 1)                                      # channels at a time
        count = min(most, C) if groups == 1 else max(most // per_group, 1) * per_group
        cols = self.empty((min(count, C) * taps, P), dy.dtype)
        for c in range(0, C, count):
            channels = min(count, C - c)
            parts = max(channels // per_group, 1)                                               # groups
            M = channels // parts * taps
            first = c // per_group                                                              # group
            start = c % per_group * taps
            self._product(self._math(dy.dtype, "convolution"), (parts, M, P, F // groups),
                          Operand(W.reshape(-1)[first * (F // groups) * K + start:], ACROSS_K, K, F // groups * K),
                          Operand(dy.reshape(-1)[first * (F // groups) * P:], ACROSS_K, P, F // groups * P),
                          cols, P, group=M * P)
            self._col2im(cols, window, dx[c:c + channels])
        return dx

    def conv2d_dW(self, x: Array, dy: Array, window: Window, *, groups: int = 1, out: Array | None = None,
                  accumulate: bool = False) -> Array:
        if not self._convolves(x, dy, window):
            return super().conv2d_dW(x, dy, window, groups=groups, out=out, accumulate=accumulate)
        x, dy = self._contiguous(x), self._contiguous(dy)
        F, C = dy.shape[0], x.shape[0]
        P, K = dy.size // F, C // groups * window.taps
        direct = out is not None and out.dtype == x.dtype and out.flags.c_contiguous
        dW = out if out is not None and direct else self.empty((F, C // groups, *window.kernel), x.dtype)
        w = None if window.pointwise else cuda_launch.window_struct(x.shape, window)
        self._product(self._math(x.dtype, "convolution"), (groups, F // groups, K, P),
                      Operand(dy, ALONG_K, P, F // groups * P),
                      Operand(x, ALONG_K, P, x.size // groups, w),
                      dW, K, group=F // groups * K, accumulate=accumulate and direct)
        return dW if direct else self.store(dW, out, accumulate)

    def _convolves(self, a: Array, b: Array, window: Window, bias: Array | None = None) -> bool:
        """Whether the convolution has a kernel: see _multiplies, and no more pixels than 32 bits can count."""
        return (self._multiplies(a, b, bias) and min(a.size, b.size) > 0
                and max(a.size // a.shape[0], b.size // b.shape[0]) * window.taps <= LARGEST)
