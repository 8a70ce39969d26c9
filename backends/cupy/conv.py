"""Convolution on an NVIDIA GPU."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import depthwise, plans, warpgroups
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K, LARGEST_GRID
from xpnet.backends.cupy.product import (
    LARGEST,
    Operand,
    flipped_filters,
    math_for,
    multiplies,
)
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


# The second operand of a product is read from x itself, or from columns in memory; or the kernels
# of warpgroups.py compute the convolution.
IMAGE, COLUMNS, WARPGROUPS = "image", "columns", "warpgroups"
Ways = dict[str, Callable[[], Array]]
AT_A_TIME = 24 << 20        # bytes of columns that are still in the L2 cache when they are read


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {
        "im2col": tuple(f"{kernel}<{name}, {width}>" for kernel in ("im2col", "col2im")
                        for name, width in cuda_launch.types_and_widths()),
    }


def im2col(self: CupyBackend, x: Array, window: Window) -> Array:
    if window.pointwise or x.dtype not in cuda_launch.TYPES:
        return Backend.im2col(self, x, window)
    C, H, W, N = x.shape
    OH, OW = window.output_size(H, W)
    cols = self.empty((C * window.taps, OH * OW * N), x.dtype)
    _im2col(self, self._contiguous(x), window, 0, OH, cols)
    return cols


def _im2col(self: CupyBackend, x: Array, window: Window, oy: int, rows: int, cols: Array) -> None:
    """The columns of output rows oy .. oy + rows - 1 -> cols (C*KH*KW, rows*OW*N)."""
    C, _, _, N = x.shape
    w = cuda_launch.window_struct(x.shape, window, OH=rows,     # row 0 is row oy of the output
                                  top=window.padding[0] - oy * window.stride[0])
    V = self._width(N, x, cols)
    # from the edge of the padding to the last tap of the last window
    lines, columns = ((size - 1) * stride + (kernel - 1) * dilation + 1 for size, stride, kernel,
                      dilation in zip((rows, int(w["OW"])), window.stride, window.kernel,
                                      window.dilation, strict=True))
    self._launch("im2col", f"im2col<{cuda_launch.TYPES[x.dtype]}, {V}>",
                 cuda_launch.row_launch(C, lines, columns, N // V), x, cols, np.int32(C), w,
                 np.int32(lines), np.int32(columns))


def col2im(self: CupyBackend, cols: Array, x_shape: tuple[int, ...], window: Window) -> Array:
    if window.pointwise or cols.dtype not in cuda_launch.TYPES:
        return Backend.col2im(self, cols, x_shape, window)
    x = self.empty(x_shape, cols.dtype)
    _col2im(self, self._contiguous(cols), window, x)
    return x


def _col2im(self: CupyBackend, cols: Array, window: Window, x: Array) -> None:
    C, H, W, N = x.shape
    V = self._width(N, cols, x)
    self._launch("im2col", f"col2im<{cuda_launch.TYPES[x.dtype]}, {V}>",
                 cuda_launch.row_launch(C, H, W, N // V),
                 cols, x, np.int32(C), cuda_launch.window_struct(x.shape, window))


def conv2d(self: CupyBackend, x: Array, W: Array, window: Window, *, groups: int = 1,
           bias: Array | None = None, activation: str | None = None) -> Array:
    if activation not in cuda_launch.ACTIVATIONS:
        return self.activate(self.conv2d(x, W, window, groups=groups, bias=bias), activation)
    if not _convolves(self, x, W, window, groups, bias):
        return Backend.conv2d(self, x, W, window, groups=groups, bias=bias, activation=activation)
    x, W = self._contiguous(x), self._contiguous(W)
    if depthwise.is_depthwise(x.shape[0], W.shape[0], groups):
        return depthwise.conv2d(self, x, W, window, bias, activation)
    w = cuda_launch.window_struct(x.shape, window)
    ways: Ways = {}
    if _by_warpgroups(self, x, W.shape, x.shape, window, groups,
                      finished=bias is None and activation is None):
        ways[WARPGROUPS] = lambda: warpgroups.conv2d(self, x, W, window, groups, bias, activation)
    ways |= {IMAGE: lambda: _convolve(self, x, W, w, window.pointwise, groups, bias, activation),
             COLUMNS: lambda: _by_columns(self, x, W, window, groups, bias, activation)}
    return _either(self, "conv2d", ways, x.shape, W.shape[0], window, groups, x.dtype)


def _convolve(self: CupyBackend, x: Array, W: Array, w: np.void, pointwise: bool, groups: int,
              bias: Array | None = None, activation: str | None = None) -> Array:
    """y (F, OH, OW, N) = W cols, columns (K, P) read from x through the window w, or x itself if
    each window is one element."""
    F, N, OH, OW = W.shape[0], x.shape[3], int(w["OH"]), int(w["OW"])
    P, K = OH * OW * N, W[0].size
    y = self.empty((F, OH, OW, N), x.dtype)
    self._product(math_for(self, x.dtype, "convolution"), (groups, F // groups, P, K),
                  Operand(W, ALONG_K, K, F // groups * K),
                  Operand(x, ACROSS_K, P, x.size // groups, None if pointwise else w),
                  y, P, group=F // groups * P, bias=bias, activation=activation)
    return y


def _by_columns(self: CupyBackend, x: Array, W: Array, window: Window, groups: int,
                bias: Array | None, activation: str | None) -> Array:
    """The same with columns in memory, for some rows of the output at a time."""
    F, K = W.shape[0], W[0].size
    y = self.empty((F, *window.output_size(*x.shape[1:3]), x.shape[3]), x.dtype)
    P = y[0].size
    for first, cols in _columns(self, x, window):
        part = cols.shape[1]
        self._product(math_for(self, x.dtype, "convolution"), (groups, F // groups, part, K),
                      Operand(W, ALONG_K, K, F // groups * K),
                      Operand(cols, ACROSS_K, part, K * part),
                      y.reshape(-1)[first:], P, group=F // groups * P, bias=bias,
                      activation=activation)
    return y


def _columns(self: CupyBackend, x: Array, window: Window) -> Iterator[tuple[int, Array]]:
    """(index of the first column, columns (C*KH*KW, ..)) of parts that fit into the L2 cache. All
    parts use the same memory."""
    OH, OW = window.output_size(*x.shape[1:3])
    K, row = x.shape[0] * window.taps, OW * x.shape[3]
    rows = min(max(AT_A_TIME // (K * row * x.itemsize), 1), OH)
    memory = self.empty((K * rows * row,), x.dtype)
    for oy in range(0, OH, rows):
        count = min(rows, OH - oy)
        cols = memory[:K * count * row].reshape(K, count * row)
        _im2col(self, x, window, oy, count, cols)
        yield oy * row, cols


def conv2d_dx(self: CupyBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *,
              groups: int = 1) -> Array:
    if not _convolves(self, dy, W, window, groups):
        return Backend.conv2d_dx(self, dy, W, x_shape, window, groups=groups)
    dy, W = self._contiguous(dy), self._contiguous(W)
    if depthwise.is_depthwise(x_shape[0], W.shape[0], groups):
        return depthwise.conv2d_dx(self, dy, W, x_shape, window)
    ways: Ways = {}
    if (_by_warpgroups(self, dy, W.shape, x_shape, window, groups)
            and (1, 1) in (window.stride, window.dilation)):
        ways[WARPGROUPS] = lambda: warpgroups.conv2d_dx(self, dy, W, x_shape, window, groups)
    if window.pointwise:
        ways[IMAGE] = lambda: _dx_of_points(self, dy, W, x_shape, groups)
    elif window.stride == (1, 1):
        w = cuda_launch.gradient_struct(x_shape, dy.shape, window)
        ways[IMAGE] = lambda: _convolve(self, dy, flipped_filters(self, W, groups), w, False,
                                        groups)
    if not window.pointwise:
        ways[COLUMNS] = lambda: _dx_by_columns(self, dy, W, x_shape, window, groups)
    return _either(self, "conv2d_dx", ways, x_shape, W.shape[0], window, groups, dy.dtype)


def _dx_of_points(self: CupyBackend, dy: Array, W: Array, x_shape: tuple[int, ...],
                  groups: int) -> Array:
    """dx (C, P) = W^T dy, for windows of one element each."""
    (F, per_group), P = W.shape[:2], dy[0].size
    dx = self.empty(x_shape, dy.dtype)
    self._product(math_for(self, dy.dtype, "convolution"), (groups, per_group, P, F // groups),
                  Operand(W, ACROSS_K, per_group, F // groups * per_group),
                  Operand(dy, ACROSS_K, P, F // groups * P), dx, P, group=per_group * P)
    return dx


def _dx_by_columns(self: CupyBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window,
                   groups: int) -> Array:
    """dx = col2im(W^T dy), for some channels at a time: whole groups, or a part of the only
    group."""
    (F, per_group), C, taps = W.shape[:2], x_shape[0], window.taps
    P, K, filters = dy[0].size, per_group * taps, F // groups
    dx = self.empty(x_shape, dy.dtype)
    most = max(AT_A_TIME // (taps * P * dy.itemsize), 1)  # channels at a time
    count = min(most, C) if groups == 1 else min(max(most // per_group, 1) * per_group, C)
    cols = self.empty((count * taps, P), dy.dtype)
    for c in range(0, C, count):
        channels = min(count, C - c)
        parts = max(channels // per_group, 1)                                               # groups
        group, M = c // per_group, channels // parts * taps
        self._product(math_for(self, dy.dtype, "convolution"), (parts, M, P, filters),
                      Operand(W.reshape(-1)[group * filters * K + c % per_group * taps:], ACROSS_K,
                              K, filters * K),
                      Operand(dy.reshape(-1)[group * filters * P:], ACROSS_K, P, filters * P), cols,
                      P, group=M * P)
        _col2im(self, cols, window, dx[c:c + channels])
    return dx


def conv2d_dW(self: CupyBackend, x: Array, dy: Array, window: Window, *, groups: int = 1,
              out: Array | None = None, accumulate: bool = False) -> Array:
    if not _convolves(self, x, dy, window, groups):
        return Backend.conv2d_dW(self, x, dy, window, groups=groups, out=out, accumulate=accumulate)
    x, dy = self._contiguous(x), self._contiguous(dy)
    shape = dy.shape[0], x.shape[0] // groups, *window.kernel
    direct = self._is_direct(out, x.dtype, x, dy)
    if depthwise.is_depthwise(x.shape[0], shape[0], groups):
        dW = out if out is not None and direct else self.empty(shape, x.dtype)
        depthwise.conv2d_dW(self, x, dy, window, dW, accumulate and direct)
        return dW if direct else self.store(dW, out, accumulate)

    def fresh(way: str) -> Array:
        return _dW(self, way, x, dy, window, groups, self.empty(shape, x.dtype), False)

    possible = [IMAGE, COLUMNS]
    if (_by_warpgroups(self, x, shape, x.shape, window, groups)
            and dy.data.ptr % cuda_launch.ACCESS == 0):
        possible.insert(0, WARPGROUPS)
    way = self._faster("conv2d_dW", {name: partial(fresh, name) for name in possible}, x.shape,
                       shape[0], window, groups, x.dtype)
    return (_dW(self, way, x, dy, window, groups, out, accumulate) if direct
            else self.store(fresh(way), out, accumulate))


def _dW(self: CupyBackend, way: str, x: Array, dy: Array, window: Window, groups: int, dW: Array,
        accumulate: bool) -> Array:
    """dW (F, K) = dy (F, P) cols^T, with all columns read from x, or as a sum over the parts of
    `_columns`."""
    if way == WARPGROUPS:
        warpgroups.conv2d_dW(self, x, dy, window, groups, dW, accumulate)
        return dW
    F, P, K = dy.shape[0], dy[0].size, dW[0].size
    w = None if way == COLUMNS or window.pointwise else cuda_launch.window_struct(x.shape, window)
    for first, source in _columns(self, x, window) if way == COLUMNS else [(0, x)]:
        part = source.shape[1] if way == COLUMNS else P
        self._product(math_for(self, x.dtype, "convolution"), (groups, F // groups, K, part),
                      Operand(dy.reshape(-1)[first:], ALONG_K, P, F // groups * P),
                      Operand(source, ALONG_K, part, source.size // groups, w),
                      dW, K, group=F // groups * K, accumulate=accumulate or first > 0)
    return dW


def _either(self: CupyBackend, method: str, ways: Ways, *about: Any) -> Array:
    return ways[self._faster(method, ways, *about)]()


def faster(self: CupyBackend, method: str, ways: Ways, x_shape: tuple[int, ...], F: int,
           window: Window, groups: int, dtype: Any) -> str:
    """The alternative for this shape; by default the first one."""
    usual = next(iter(ways))
    if window.pointwise or len(ways) == 1:          # pointwise: there are no columns to write
        return usual
    key = (f"{method} {math_for(self, dtype, 'convolution').name} {'x'.join(map(str, x_shape))} "
           f"F{F} k{window.kernel} "
           f"s{window.stride} p{window.padding} d{window.dilation} g{groups}").replace(", ", ",")
    way = self._way(key, usual, lambda: ways, lambda way: ways[way]())
    return way if isinstance(way, str) and way in ways else usual


def _by_warpgroups(self: CupyBackend, image: Array, W_shape: tuple[int, ...],
                   x_shape: tuple[int, ...], window: Window, groups: int, *,
                   finished: bool = True) -> bool:
    """Whether warpgroups.py computes a product of the convolution whose image, x or dy, is `image`;
    plain matrix products for cuBLAS are left to it."""
    if not warpgroups.takes(self, image, W_shape, x_shape, window, groups):
        return False
    P = x_shape[1] * x_shape[2] * x_shape[3]
    return not (window.pointwise
                and plans.by_library(W_shape[0] // groups, P, W_shape[1], groups, finished)
                and self._cublas_now() is not None)


def _convolves(self: CupyBackend, a: Array, b: Array, window: Window, groups: int,
               bias: Array | None = None) -> bool:
    """Whether there is a kernel for the convolution: see `multiplies`; and the numbers of groups
    and pixels are not too large for a launch."""
    return (multiplies(self, a, b, bias) and min(a.size, b.size) > 0 and groups <= LARGEST_GRID
            and max(a.size // a.shape[0], b.size // b.shape[0]) * window.taps <= LARGEST)
