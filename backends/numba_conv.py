"""Convolution and matrix products on the compiled kernels: which kernel does it, and how it is cut.

A convolution and its gradient by the input are the same operation, sums over taps (see numba_taps.py), and a product of
matrices is the simplest case of it.
"""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba_base import FLOAT32, TASKS
from xpnet.backends.numba_kernels import convolution, matrix
from xpnet.backends.numba_kernels.arrays import ready
from xpnet.backends.numba_kernels.matrix import COPIED, IN_PLACE, PANEL, TURNED
from xpnet.backends.numba_kernels.micro import (
    DOT_COLUMNS,
    DOT_ROWS,
    FROM_BIAS,
    FROM_Y,
    FROM_ZERO,
    LANES,
    ROWS,
)
from xpnet.backends.numba_taps import (
    WAY,
    Image,
    Taps,
    gradient_padding,
    gradient_taps,
    image_of,
    taps_of,
)
from xpnet.backends.numba_winograd import NumbaWinograd
from xpnet.backends.window import Window

SMALL = 1 << 16         # multiply-adds; below, one piece
FEW = 10                # columns of a product; below, vectors run along its rows
LONG = 128              # outputs of a filter; below, both gradients are products with columns


def pieces(work: int, *blocks: int) -> list[int]:
    """Into how many pieces to cut each axis of so many blocks, for about TASKS pieces: as many as it takes, in order."""
    left, cuts = TASKS if work >= SMALL else 1, []
    for count in blocks:
        cuts.append(max(1, min(count, left)))
        left = -(-left // cuts[-1])
    return cuts


def expect_fit(who: str, x: tuple[int, ...], W: tuple[int, ...], y: tuple[int, ...], window: Window, groups: int) -> None:
    """An error where these are not the shapes of a convolution: a kernel would read or write beside an array."""
    F, (C, H, width, N) = W[0], x
    if W[1:] != (C // groups, *window.kernel) or y != (F, *window.output_size(H, width), N) or C % groups or F % groups:
        raise ValueError(f"{who}: expected x (C, H, W, N), filters (F, C/groups, {window.kernel[0]}, {window.kernel[1]}), "
                         f"y (F, OH, OW, N). Received: x {x}, filters {W}, y {y}, groups={groups}.")


class NumbaConvolution(NumbaWinograd):
    """Matrix products, convolution and its gradients in float32."""

    # --- matrices -------------------------------------------------------------------------------------------------

    def gemm(self, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False, bias: Array | None = None,
             activation: str | None = None, out: Array | None = None, accumulate: bool = False) -> Array:
        plain = bias is None and activation is None
        if not (a.dtype == b.dtype == FLOAT32) or a.size == 0 or b.size == 0 or (bias is not None and bias.dtype != FLOAT32):
            return super().gemm(a, b, trans_a=trans_a, trans_b=trans_b, bias=bias, activation=activation, out=out,
                                accumulate=accumulate)
        M, N = a.shape[trans_a is True], b.shape[trans_b is not True]
        if a.shape[trans_a is not True] != b.shape[trans_b is True] or (out is not None and out.shape != (M, N)):
            raise ValueError(f"gemm: expected op(a) (M, K), op(b) (K, N), out (M, N). Received: a {a.shape}, b {b.shape}, "
                             f"trans_a={trans_a}, trans_b={trans_b}, out {None if out is None else out.shape}.")
        # Straight into `out`, unless something that is still to be read may lie there.
        direct = (out is not None and out.dtype == FLOAT32 and out.flags.carray and (plain or not accumulate)
                  and not any(np.may_share_memory(out, read) for read in (a, b, bias) if read is not None))
        y: Array = out if direct else self.empty((M, N), FLOAT32)
        relu = activation == "relu"
        self._multiply(ready(a, a.shape), trans_a, ready(b, b.shape), trans_b, bias, y, relu, direct and accumulate)
        if activation is not None and not relu:
            y = self.activate(y, activation)
            direct = False
        return y if direct else self.store(y, out, accumulate)

    def _multiply(self, a: Array, trans_a: bool, b: Array, trans_b: bool, bias: Array | None, y: Array, relu: bool,
                  accumulate: bool) -> None:
        """y (M, N) = f(op(a) op(b) + bias), or y += op(a) op(b)."""
        M, N = y.shape
        K = a.shape[0] if trans_a else a.shape[1]
        work, start = M * N * K // 16, FROM_Y if accumulate else FROM_ZERO if bias is None else FROM_BIAS
        flat, start_bias = y.reshape(-1), y.reshape(-1) if bias is None else ready(bias, (M,))
        if not trans_a and (N < FEW or (trans_b and M <= 2 * ROWS)):
            b = b if trans_b or N == 1 else np.ascontiguousarray(b.T)                           # (N, K)
            row_tasks, column_tasks = pieces(M * N * K, -(-M // DOT_ROWS), -(-N // DOT_COLUMNS))
            matrix.dots(self.crew(work), b.reshape(-1), 0, 0, 0, _rows(N, K), a, 1, 1, 1, K, start_bias, start, relu, y,
                        row_tasks, column_tasks)
        elif N < FEW and N < M and bias is None and not relu and not accumulate:
            turned = self.empty((N, M), FLOAT32)                        # y^T = b^T a: vectors along the rows of a
            self._multiply(b, not trans_b, a, False, None, turned, False, False)
            y[...] = turned.T
        else:
            panel_tasks, row_tasks = pieces(M * N * K, -(-N // PANEL), -(-M // ROWS))
            mode = TURNED if trans_b else COPIED if 4 * N >= WAY and M > 2 * ROWS else IN_PLACE
            w_row, w_step = (4, 4 * M) if trans_a else (4 * K, 4)
            matrix.multiply(self.crew(work), b.reshape(-1), mode, 0, 0, 0, _rows(K, N), a.reshape(-1), w_row, w_step, 1,
                            start_bias, start, relu, flat, 0, 4 * N, 0, 0, 1, 1, N, panel_tasks, row_tasks)

    # --- convolution ----------------------------------------------------------------------------------------------

    def conv2d(self, x: Array, W: Array, window: Window, *, groups: int = 1, bias: Array | None = None,
               activation: str | None = None) -> Array:
        if not self._covers(x, W, bias):
            return super().conv2d(x, W, window, groups=groups, bias=bias, activation=activation)
        F, taps, relu = W.shape[0], taps_of(window), activation == "relu"
        OH, OW = window.output_size(*x.shape[1:3])
        expect_fit("conv2d", x.shape, W.shape, (F, OH, OW, x.shape[3]), window, groups)
        tile = self.winograd_tile(window, groups, x.shape[0], F, OH, OW, x.shape[3])
        if tile:
            y = self.winograd_conv2d(x, W, window, bias=bias, relu=relu, tile=tile)
        else:
            y = self.empty((F, OH, OW, x.shape[3]), FLOAT32)
            self._slide(self._view(x, taps, OH, OW), ready(W, (F, W.size // F)), taps, groups, bias, relu, y)
        return y if relu else self.activate(y, activation)

    def conv2d_dx(self, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *, groups: int = 1) -> Array:
        if not self._covers(dy, W):
            return super().conv2d_dx(dy, W, x_shape, window, groups=groups)
        expect_fit("conv2d_dx", x_shape, W.shape, dy.shape, window, groups)
        F, C, (sh, sw), (_, height, width, N) = W.shape[0], W.shape[1], window.stride, x_shape
        OH, OW = dy.shape[1:3]
        if window.pointwise and groups == 1:
            return self.gemm(W.reshape(F, C), dy.reshape(F, -1), trans_a=True).reshape(x_shape)
        # Turning the filters can take longer than using them, and a few outputs between much padding are mostly zeros.
        if groups == 1 and (OH * OW * N < LONG or (window.stride == (1, 1) and 4 * OH * OW <= height * width)):
            return self.col2im(self.gemm(W.reshape(F, -1), dy.reshape(F, -1), trans_a=True), x_shape, window)
        turned = Window(window.kernel, window.stride, gradient_padding(window), window.dilation)
        if min(turned.padding) >= 0:
            tile = self.winograd_tile(turned, groups, F, C, height, width, dy.shape[3])
            if tile:
                return self.winograd_conv2d(dy, W, turned, turned=True, tile=tile)
        dx: Array = self.empty(x_shape, FLOAT32)
        W = ready(W, (F, C, window.taps))
        phases = [((p, q), *gradient_taps(window, (p, q))) for p in range(min(sh, height)) for q in range(min(sw, width))]
        reach = Taps(rows=tuple({row for _, taps, _ in phases for row in taps.rows}),
                     columns=tuple({column for _, taps, _ in phases for column in taps.columns}))
        if not (reach.rows and reach.columns):                          # no window reads anything but padding
            return self.zeros(x_shape, FLOAT32)
        view = self._view(dy, reach, -(-height // sh), -(-width // sw))
        for phase, taps, numbers in phases:
            swapped = self.empty((groups * C, F // groups, len(numbers)), FLOAT32)
            convolution.swap_filters(self.crew(swapped.size), W, groups, numbers, swapped)
            self._slide(view, swapped.reshape(groups * C, -1), taps, groups, None, False, dx, phase, window.stride)
        return dx

    def conv2d_dW(self, x: Array, dy: Array, window: Window, *, groups: int = 1, out: Array | None = None,
                  accumulate: bool = False) -> Array:
        if not self._covers(x, dy):
            return super().conv2d_dW(x, dy, window, groups=groups, out=out, accumulate=accumulate)
        filters = (dy.shape[0], x.shape[0] // groups, *window.kernel) if out is None else out.shape
        expect_fit("conv2d_dW", x.shape, filters, dy.shape, window, groups)
        (F, OH, OW, N), C, taps = dy.shape, x.shape[0] // groups, taps_of(window)
        K = C * window.taps
        direct = (out is not None and out.dtype == FLOAT32 and out.flags.carray
                  and not np.may_share_memory(out, x) and not np.may_share_memory(out, dy))
        dW: Array = out if direct else self.empty((F, C, *window.kernel), FLOAT32)
        tile = self.winograd_tile(window, groups, C, F, OH, OW, N)
        if tile:
            self.winograd_dW(x, dy, window, dW, direct and accumulate, tile=tile)
            return dW if direct else self.store(dW, out, accumulate)
        rows, pixels, run = (OH, 1, OW * N) if taps.step[1] == 1 else (OH, OW, N)
        if self._in_columns(taps, groups, F, OH, OW, N) or (groups == 1 and OH * OW * N < LONG):
            rows, pixels, run = 1, 1, OH * OW * N
            flat = x if window.pointwise else self._columns(self._view(x, taps, OH, OW), taps, OH, OW)
            if run < LONG:
                self.gemm(dy.reshape(F, run), flat.reshape(K, run), trans_b=True, out=dW.reshape(F, K),
                          accumulate=direct and accumulate)
                return dW if direct else self.store(dW, out, accumulate)
            flat, offsets, steps = ready(flat, (K * run,)), 4 * run * np.arange(K), (0, 0, 0)
        else:
            image, flat = self._view(x, taps, OH, OW)
            offsets = image.offsets(C, taps)
            steps = 4 * C * image.channel, 4 * image.row * taps.step[0], 4 * image.column * taps.step[1]
        work = dy.size * K
        tap_tasks, filter_tasks = pieces(work // groups, -(-K // DOT_COLUMNS), -(-F // groups // DOT_ROWS))
        matrix.dots(self.crew(work // 16), flat, *steps, offsets, ready(dy, (F, dy.size // F)), groups, rows, pixels, run, flat,
                    FROM_Y if direct and accumulate else FROM_ZERO, False, dW.reshape(F, K), filter_tasks, tap_tasks)
        return dW if direct else self.store(dW, out, accumulate)

    def _covers(self, x: Array, W: Array, bias: Array | None = None) -> bool:
        return x.dtype == W.dtype == FLOAT32 and x.size > 0 and W.size > 0 and (bias is None or bias.dtype == FLOAT32)

    def _in_columns(self, taps: Taps, groups: int, F: int, OH: int, OW: int, N: int) -> bool:
        """Whether to write im2col's columns after all: for single taps, of which nothing is shared, and where the vectors that
        short runs leave empty cost more, in all F filters, than copying the elements."""
        if groups > 1 or len(taps.rows) * len(taps.columns) == 1:
            return groups == 1
        pixels, run = (1, OW * N) if taps.step[1] == 1 else (OW, N)
        empty = OH * pixels * -(-run // LANES) - -(-OH * OW * N // LANES)
        return empty * F > ROWS * OH * OW * N

    def _view(self, x: Array, reach: Taps, OH: int, OW: int) -> tuple[Image, Array]:
        """What `image_of` says, and the flat array that it speaks of."""
        image = image_of(x.shape, reach, OH, OW)
        if not image.copy:
            return image, ready(x, (x.size,))
        flat = self.empty((x.shape[0] * image.channel,), FLOAT32)
        convolution.pad(self.crew(flat.size), ready(x, x.shape), image.top, image.left, flat, image.channel, image.height,
                        image.width)
        return image, flat

    def _columns(self, view: tuple[Image, Array], taps: Taps, OH: int, OW: int) -> Array:
        """im2col: (C * taps, OH*OW*N)."""
        (image, flat), N = view, view[0].column
        pixels, run = (1, OW * N) if taps.step[1] == 1 else (OW, N)
        offsets = image.offsets(flat.size // image.channel, taps)
        cols = self.empty((offsets.size, OH * OW * N), FLOAT32)
        convolution.columns_of(self.crew(cols.size), flat, image.row * taps.step[0], image.column * taps.step[1], offsets // 4,
                               OH, pixels, run, cols)
        return cols

    def _slide(self, view: tuple[Image, Array], W: Array, taps: Taps, groups: int, bias: Array | None, relu: bool, y: Array,
               phase: tuple[int, int] = (0, 0), stride: tuple[int, int] = (1, 1)) -> None:
        """y[:, phase::stride] = f(W (groups*F, C*taps) x + bias), where y (groups*F, H, W, N) is contiguous."""
        image, flat = view
        (F, H, width, N), C = y.shape, flat.size // image.channel // groups
        OH, OW = -(-(H - phase[0]) // stride[0]), -(-(width - phase[1]) // stride[1])
        part = y[:, phase[0]::stride[0], phase[1]::stride[1]]
        if W.shape[1] == 0:                                             # no tap reaches these places
            part[...] = 0
            return
        if self._in_columns(taps, groups, F, OH, OW, N):
            z = y if stride == (1, 1) else self.empty(part.shape, FLOAT32)
            self._multiply(W, False, self._columns(view, taps, OH, OW), False, bias, z.reshape(F, -1), relu, False)
            if z is not y:
                part[...] = z
            return
        pixels, run = (1, OW * N) if taps.step[1] == stride[1] == 1 else (OW, N)
        work = y.size * W.shape[1]
        row_tasks, filter_tasks = pieces(work, OH * pixels, -(-F // groups // ROWS))
        matrix.multiply(self.crew(work // 16), flat, IN_PLACE, 4 * C * image.channel, 4 * image.row * taps.step[0],
                        4 * image.column * taps.step[1], image.offsets(C, taps), W.reshape(-1), 4 * W.shape[1], 4, groups,
                        flat if bias is None else ready(bias, (F,)), FROM_ZERO if bias is None else FROM_BIAS, relu,
                        y.reshape(-1), 4 * (phase[0] * width + phase[1]) * N, 4 * H * width * N, 4 * stride[0] * width * N,
                        4 * stride[1] * N, OH, pixels, run, row_tasks, filter_tasks)


@lru_cache(maxsize=256)
def _rows(count: int, length: int) -> np.ndarray:
    """Where the rows of a matrix begin, in bytes."""
    return 4 * length * np.arange(count)
