"""Convolution with the compiled kernels: which kernel is used, and how the work is divided.

A convolution and its input gradient are the same operation, sums over taps (see taps.py).
"""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import convolution, matrix
from xpnet.backends.numba.kernels.arrays import FLOAT32, ready
from xpnet.backends.numba.kernels.instructions import DOT_COLUMNS, DOT_ROWS, LANES, ROWS
from xpnet.backends.numba.kernels.matrix import IN_PLACE
from xpnet.backends.numba.kernels.micro import FROM_BIAS, FROM_Y, FROM_ZERO
from xpnet.backends.numba.pieces import pieces
from xpnet.backends.numba.taps import Image, Taps, gradient_taps, image_of, taps_of
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


LONG = 128              # outputs of a filter; below, both gradients are products with columns


def expect_fit(who: str, x: tuple[int, ...], W: tuple[int, ...], y: tuple[int, ...], window: Window,
               groups: int) -> None:
    """Raise ValueError unless these are the shapes of a convolution: otherwise a kernel would read
    or write outside an array."""
    F, (C, H, width, N) = W[0], x
    if (W[1:] != (C // groups, *window.kernel) or y != (F, *window.output_size(H, width), N)
        or C % groups or F % groups):
        raise ValueError(f"{who}: expected x (C, H, W, N), filters (F, C/groups, "
                         f"{window.kernel[0]}, {window.kernel[1]}), y (F, OH, OW, N). "
                         f"Received: x {x}, filters {W}, y {y}, groups={groups}.")


def conv2d(self: NumbaBackend, x: Array, W: Array, window: Window, *, groups: int = 1,
           bias: Array | None = None, activation: str | None = None) -> Array:
    if not _covers(self, x, W, bias):
        return NumpyBackend.conv2d(self, x, W, window, groups=groups, bias=bias,
                                   activation=activation)
    F, taps, relu = W.shape[0], taps_of(window), activation == "relu"
    OH, OW = window.output_size(*x.shape[1:3])
    expect_fit("conv2d", x.shape, W.shape, (F, OH, OW, x.shape[3]), window, groups)
    tile = self.winograd_tile(window, groups, x.shape[0], F, OH, OW, x.shape[3])
    if tile:
        y = self.winograd_conv2d(x, W, window, bias=bias, relu=relu, tile=tile)
    else:
        y = self.empty((F, OH, OW, x.shape[3]), FLOAT32)
        _slide(self, _view(self, x, taps, OH, OW), ready(W, (F, W.size // F)), taps, groups, bias,
               relu, y)
    return y if relu else self.activate(y, activation)


def conv2d_dx(self: NumbaBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *,
              groups: int = 1) -> Array:
    if not _covers(self, dy, W):
        return NumpyBackend.conv2d_dx(self, dy, W, x_shape, window, groups=groups)
    expect_fit("conv2d_dx", x_shape, W.shape, dy.shape, window, groups)
    F, C, (sh, sw), (_, height, width, N) = W.shape[0], W.shape[1], window.stride, x_shape
    OH, OW = dy.shape[1:3]
    if window.pointwise and groups == 1:
        return self.gemm(W.reshape(F, C), dy.reshape(F, -1), trans_a=True).reshape(x_shape)
    # Flipping the filters can take longer than the sums over them, and if dy is much smaller than
    # dx, most of the padded dy is zeros.
    if (groups == 1
        and (OH * OW * N < LONG or (window.stride == (1, 1) and 4 * OH * OW <= height * width))):
        return self.col2im(self.gemm(W.reshape(F, -1), dy.reshape(F, -1), trans_a=True), x_shape,
                           window)
    flipped = window.flipped
    tile = self.winograd_tile(flipped, groups, F, C, height, width, N) if flipped is not None else 0
    if flipped is not None and tile:
        return self.winograd_conv2d(dy, W, flipped, flipped=True, tile=tile)
    dx: Array = self.empty(x_shape, FLOAT32)
    W = ready(W, (F, C, window.taps))
    phases = [((p, q), *gradient_taps(window, (p, q))) for p in range(min(sh, height))
              for q in range(min(sw, width))]
    reach = Taps(rows=tuple({row for _, taps, _ in phases for row in taps.rows}),
                 columns=tuple({column for _, taps, _ in phases for column in taps.columns}))
    if not (reach.rows and reach.columns):  # every window contains padding only
        return self.zeros(x_shape, FLOAT32)
    view = _view(self, dy, reach, -(-height // sh), -(-width // sw))
    for phase, taps, numbers in phases:
        swapped = self.empty((groups * C, F // groups, len(numbers)), FLOAT32)
        convolution.swap_filters(self.threads_for(swapped.size), W, groups, numbers, swapped)
        _slide(self, view, swapped.reshape(groups * C, -1), taps, groups, None, False, dx, phase,
               window.stride)
    return dx


def conv2d_dW(self: NumbaBackend, x: Array, dy: Array, window: Window, *, groups: int = 1,
              out: Array | None = None, accumulate: bool = False) -> Array:
    if not _covers(self, x, dy):
        return NumpyBackend.conv2d_dW(self, x, dy, window, groups=groups, out=out,
                                      accumulate=accumulate)
    filters = (dy.shape[0], x.shape[0] // groups, *window.kernel) if out is None else out.shape
    expect_fit("conv2d_dW", x.shape, filters, dy.shape, window, groups)
    (F, OH, OW, N), C, taps = dy.shape, x.shape[0] // groups, taps_of(window)
    K = C * window.taps
    direct = self._is_direct(out, FLOAT32, x, dy)
    dW: Array = out if direct else self.empty((F, C, *window.kernel), FLOAT32)
    tile = self.winograd_tile(window, groups, C, F, OH, OW, N)
    if tile:
        self.winograd_dW(x, dy, window, dW, direct and accumulate, tile=tile)
        return dW if direct else self.store(dW, out, accumulate)
    rows, pixels, run = (OH, 1, OW * N) if taps.step[1] == 1 else (OH, OW, N)
    if _in_columns(self, taps, groups, F, OH, OW, N) or (groups == 1 and OH * OW * N < LONG):
        rows, pixels, run = 1, 1, OH * OW * N
        flat = x if window.pointwise else _columns(self, _view(self, x, taps, OH, OW), taps, OH, OW)
        if run < LONG:
            self.gemm(dy.reshape(F, run), flat.reshape(K, run), trans_b=True, out=dW.reshape(F, K),
                      accumulate=direct and accumulate)
            return dW if direct else self.store(dW, out, accumulate)
        flat, offsets, steps = ready(flat, (K * run,)), 4 * run * np.arange(K), (0, 0, 0)
    else:
        image, flat = _view(self, x, taps, OH, OW)
        offsets = image.offsets(C, taps)
        steps = 4 * C * image.channel, 4 * image.row * taps.step[0], 4 * image.column * taps.step[1]
    work = dy.size * K
    tap_tasks, filter_tasks = pieces(work // groups, -(-K // DOT_COLUMNS),
                                     -(-F // groups // DOT_ROWS))
    matrix.dots(self.threads_for(work // 16), flat, *steps, offsets, ready(dy, (F, dy.size // F)),
                groups, rows, pixels, run, flat, FROM_Y if direct and accumulate else FROM_ZERO,
                False, dW.reshape(F, K), filter_tasks, tap_tasks)
    return dW if direct else self.store(dW, out, accumulate)


def _covers(self: NumbaBackend, x: Array, W: Array, bias: Array | None = None) -> bool:
    return (x.dtype == W.dtype == FLOAT32 and x.size > 0 and W.size > 0
            and (bias is None or bias.dtype == FLOAT32))


def _in_columns(self: NumbaBackend, taps: Taps, groups: int, F: int, OH: int, OW: int,
                N: int) -> bool:
    """Whether to write the columns of im2col: for single taps, which share nothing, and if short
    runs leave so many lanes of their vectors empty that this costs more, in all F filters, than
    copying the elements."""
    if groups > 1 or len(taps.rows) * len(taps.columns) == 1:
        return groups == 1
    pixels, run = (1, OW * N) if taps.step[1] == 1 else (OW, N)
    empty = OH * pixels * -(-run // LANES) - -(-OH * OW * N // LANES)
    return empty * F > ROWS * OH * OW * N


def _view(self: NumbaBackend, x: Array, reach: Taps, OH: int, OW: int) -> tuple[Image, Array]:
    """The result of `image_of`, and the flat array that it describes."""
    image = image_of(x.shape, reach, OH, OW)
    if not image.copy:
        return image, ready(x, (x.size,))
    flat = self.empty((x.shape[0] * image.channel,), FLOAT32)
    convolution.pad(self.threads_for(flat.size), ready(x, x.shape), image.top, image.left, flat,
                    image.channel, image.height, image.width)
    return image, flat


def _columns(self: NumbaBackend, view: tuple[Image, Array], taps: Taps, OH: int, OW: int) -> Array:
    """im2col: (C * taps, OH*OW*N)."""
    (image, flat), N = view, view[0].column
    pixels, run = (1, OW * N) if taps.step[1] == 1 else (OW, N)
    offsets = image.offsets(flat.size // image.channel, taps)
    cols = self.empty((offsets.size, OH * OW * N), FLOAT32)
    convolution.columns_of(self.threads_for(cols.size), flat, image.row * taps.step[0],
                           image.column * taps.step[1], offsets // 4, OH, pixels, run, cols)
    return cols


def _slide(self: NumbaBackend, view: tuple[Image, Array], W: Array, taps: Taps, groups: int,
           bias: Array | None, relu: bool, y: Array, phase: tuple[int, int] = (0, 0),
           stride: tuple[int, int] = (1, 1)) -> None:
    """y[:, phase::stride] = f(W (groups*F, C*taps) x + bias), where y (groups*F, H, W, N) is
    contiguous."""
    image, flat = view
    (F, H, width, N), C = y.shape, flat.size // image.channel // groups
    OH, OW = -(-(H - phase[0]) // stride[0]), -(-(width - phase[1]) // stride[1])
    part = y[:, phase[0]::stride[0], phase[1]::stride[1]]
    if W.shape[1] == 0:                                             # no tap reads these elements
        part[...] = 0
        return
    if _in_columns(self, taps, groups, F, OH, OW, N):
        z = y if stride == (1, 1) else self.empty(part.shape, FLOAT32)
        self._multiply(W, False, _columns(self, view, taps, OH, OW), False, bias, z.reshape(F, -1),
                       relu, False)
        if z is not y:
            part[...] = z
        return
    pixels, run = (1, OW * N) if taps.step[1] == stride[1] == 1 else (OW, N)
    work = y.size * W.shape[1]
    row_tasks, filter_tasks = pieces(work, OH * pixels, -(-F // groups // ROWS))
    matrix.multiply(self.threads_for(work // 16), flat, IN_PLACE, 4 * C * image.channel,
                    4 * image.row * taps.step[0], 4 * image.column * taps.step[1],
                    image.offsets(C, taps), W.reshape(-1), 4 * W.shape[1], 4, groups,
                    flat if bias is None else ready(bias, (F,)), FROM_ZERO if bias is None
                    else FROM_BIAS, relu, y.reshape(-1), 4 * (phase[0] * width + phase[1]) * N,
                    4 * H * width * N, 4 * stride[0] * width * N, 4 * stride[1] * N, OH, pixels,
                    run, row_tasks, filter_tasks)
