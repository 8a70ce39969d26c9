"""Convolution with NumPy alone: columns tile by tile, then matrix products that BLAS does without packing.

For an output row oy, stride 1 and no dilation the columns are the kernel's rows of the input, each with KW shifts:

    rows[iy, c, j] = x[c, iy, j:j+OW]       cols of oy = rows[oy:oy+KH] as a (KH*C*KW, OW*N) matrix

so neighbouring output rows share all but one of their rows, and only KW copies of x are made instead of KH*KW. The
filters are brought into the same order, (F, KH, C, KW). One call of matmul then multiplies them with a stack of
overlapping matrices.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numpy_base import NumpyBase, spans
from xpnet.backends.threads import single_threaded_blas
from xpnet.backends.window import Window

TILE = 1 << 18              # elements of a tile's columns: small enough for the second cache, large enough for a thread
SMALL_PRODUCT = 1_000_000   # multiply-adds up to which OpenBLAS (AVX-512) multiplies in place instead of packing first:
SMALL_RESULT = 1_200        # ... and elements of the result, where the second factor is transposed


@dataclass(frozen=True)
class Tile:
    """Output rows [top, top + rows) and, within a row of OW*N elements, [left, right)."""

    top: int
    rows: int
    left: int
    right: int


@dataclass(frozen=True)
class Plan:
    """How the columns of a convolution are cut into tiles; it follows from shapes alone."""

    shared: bool                # the layout above; else (C*KH*KW, rows*OW*N), every tap copied
    tiles: tuple[Tile, ...]


@lru_cache(maxsize=1024)
def make_plan(C: int, F: int, window: Window, OH: int, OW: int, N: int, product: int) -> Plan:
    """Tiles for one group of C channels and F filters; `product` limits the columns of one matrix product."""
    KH, KW = window.kernel
    sh, sw = window.stride
    L = OW * N
    shared = window.dilation[0] == 1 and KH > sh and L >= 64 and OH * L >= 2 * F
    unit = N if sw > 1 else 1                                           # where a row may be cut
    width = min(L, max(product // 16 * 16, 64))
    parts = -(-L // width)
    width = min(L, -(-L // (parts * unit)) * unit)
    if unit == 1 and width < L:
        width = -(-width // 16) * 16
    if shared:
        rows = (TILE // (C * KW * width) - KH) // sh + 1
    else:
        rows = min(TILE // (C * KH * KW * width), product // width) if width == L else 1
    rows = max(1, min(rows, OH))
    rows = -(-OH // -(-OH // rows))
    return Plan(shared, tuple(Tile(top, min(rows, OH - top), left, min(left + width, L))
                              for top in range(0, OH, rows) for left in range(0, L, width)))


class _Columns:
    """Makes the columns of tiles of a padded x (C, HP, WP, N), channels [first, first + C)."""

    def __init__(self, backend: NumpyBase, x: Array, window: Window, shared: bool, OW: int) -> None:
        self.backend, self.x, self.window, self.shared, self.OW = backend, x, window, shared, OW

    def make(self, tile: Tile, first: int, C: int) -> Array:
        """(rows, K, n): one matrix for each output row of the tile, or a single one (1, K, rows*n)."""
        (KH, KW), (sh, sw), (dh, dw) = self.window.kernel, self.window.stride, self.window.dilation
        item, (_, H, W, N) = self.x.itemsize, self.x.shape
        xC, xH, xW = H * W * N * item, W * N * item, N * item       # x.strides says nothing about an axis of length 1
        n = tile.right - tile.left
        # With stride 1 a row of x is one run of elements that may be cut anywhere, else only between pixels.
        across, steps = ((n, 1), (item, item)) if sw == 1 else ((n // N, N), (sw * xW, item))
        start = first * xC + tile.top * sh * xH + tile.left // N * sw * xW + tile.left % N * item
        if self.shared:
            high = (tile.rows - 1) * sh + KH
            shape, strides = (high, C, KW, *across), (xH, xC, dw * xW, *steps)
        else:
            shape, strides = (C, KH, KW, tile.rows, *across), (xC, dh * xH, dw * xW, sh * xH, *steps)
        cols = self.backend.empty(shape, self.x.dtype)
        np.copyto(cols, np.ndarray(shape, self.x.dtype, self.x, start, strides))                # all taps in one go
        if not self.shared:
            return cols.reshape(1, C * KH * KW, tile.rows * n)
        block = C * KW * n * item
        return np.ndarray((tile.rows, KH * C * KW, n), cols.dtype, cols, 0, (sh * block, n * item, item))


class NumpyConvolution(NumpyBase):
    """Convolution and its two gradients."""

    def conv2d(self, x: Array, W: Array, window: Window, *, groups: int = 1, bias: Array | None = None,
               activation: str | None = None) -> Array:
        F, C = W.shape[:2]
        OH, OW = window.output_size(*x.shape[1:3])
        N = x.shape[3]
        if window.pointwise and groups == 1:
            y = self.gemm(W.reshape(F, C), x.reshape(C, -1), bias=bias, activation=activation)
            return y.reshape(F, OH, OW, N)
        y = self.empty((F, OH, OW, N), np.promote_types(x.dtype, W.dtype))
        self._correlate(self._pad(x, window), W, y, window, groups, bias, activation)
        return y

    def _correlate(self, x: Array, W: Array, y: Array, window: Window, groups: int, bias: Array | None,
                   activation: str | None) -> None:
        """y = f(W * x + bias) for an x that is padded already."""
        F, C, KH, KW = W.shape
        F //= groups
        OH, OW, N = y.shape[1:]
        K = C * KH * KW
        limit = SMALL_PRODUCT // (F * K)
        plan = make_plan(C, F, window, OH, OW, N, limit if limit >= 128 else 512)
        W = W.transpose(0, 2, 1, 3) if plan.shared else W
        W = W.reshape(groups, F, K)
        columns = _Columns(self, x, window, plan.shared, OW)
        y3 = y.reshape(groups * F, OH, OW * N)
        tiles = plan.tiles

        def task(k: int) -> None:
            group, k = divmod(k, len(tiles))
            tile = tiles[k]
            cols = columns.make(tile, group * C, C)
            out = y3[group * F:(group + 1) * F, tile.top:tile.top + tile.rows, tile.left:tile.right]
            out = out.transpose(1, 0, 2) if plan.shared else out.reshape(1, F, -1)
            np.matmul(W[group], cols, out=out)
            if bias is not None:
                out += bias[group * F:(group + 1) * F, None]
            self.activate_in_place(out, activation)

        with single_threaded_blas():
            self.run(task, groups * len(tiles), y.size * K // 16)

    def conv2d_dx(self, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *, groups: int = 1) -> Array:
        F, C, KH, KW = W.shape
        if window.pointwise and groups == 1:
            return self.gemm(W.reshape(F, C), dy.reshape(F, -1), trans_a=True).reshape(x_shape)
        top, bottom, left, right = window.padding
        high, wide = (extent - 1 for extent in window.extent)
        if window.stride != (1, 1) or min(high - top, high - bottom, wide - left, wide - right) < 0:
            return super().conv2d_dx(dy, W, x_shape, window, groups=groups)
        # With stride 1 the gradient is a convolution itself: of dy, padded the other way, with the filters turned round.
        turned = Window(window.kernel, (1, 1), (high - top, high - bottom, wide - left, wide - right), window.dilation)
        dx = self.empty(x_shape, np.promote_types(dy.dtype, W.dtype))
        W = W.reshape(groups, F // groups, C, KH, KW)[..., ::-1, ::-1].swapaxes(1, 2)           # (G, C/G, F/G, KH, KW)
        self._correlate(self._pad(dy, turned), W.reshape(groups * C, F // groups, KH, KW), dx, turned, groups, None, None)
        return dx

    def conv2d_dW(self, x: Array, dy: Array, window: Window, *, groups: int = 1, out: Array | None = None,
                  accumulate: bool = False) -> Array:
        F, OH, OW, N = dy.shape
        C, (KH, KW) = x.shape[0] // groups, window.kernel
        F //= groups
        K = C * KH * KW
        dtype = np.promote_types(x.dtype, dy.dtype)
        # Divide K, so that each product has a small result.
        parts = next((parts for parts in range(1, K + 1) if K % parts == 0 and F * (K // parts) <= SMALL_RESULT), K)
        if K // parts < 8:
            parts = 1
        plan = make_plan(C, F, window, OH, OW, N, max(512, SMALL_PRODUCT // (F * (K // parts))) if parts > 1 or F * K <= SMALL_RESULT else 1024)
        tiles = plan.tiles
        sums = spans(len(tiles), min(len(tiles), 8))
        partial = self.empty((groups, len(sums), parts, F, K // parts), dtype)
        dy3 = np.ascontiguousarray(dy).reshape(groups * F, OH, OW * N)
        columns = _Columns(self, self._pad(x, window), window, plan.shared, OW)

        def task(k: int) -> None:
            group, k = divmod(k, len(sums))
            total = partial[group, k]
            for tile in tiles[sums[k]]:
                cols = columns.make(tile, group * C, C)
                t, _, n = cols.shape
                g = dy3[group * F:(group + 1) * F, tile.top:tile.top + tile.rows, tile.left:tile.right]
                g = g.transpose(1, 0, 2) if plan.shared else g.reshape(1, F, -1)
                cols = cols.reshape(t, parts, K // parts, n).transpose(0, 1, 3, 2)
                dW = np.matmul(g[:, None], cols)                      # (t, parts, F, K/parts)
                if tile is tiles[sums[k]][0]:
                    np.add.reduce(dW, axis=0, out=total)
                else:
                    total += np.add.reduce(dW, axis=0)

        with single_threaded_blas():
            self.run(task, groups * len(sums), dy.size * K // 16)
        dW = np.add.reduce(partial, axis=1).transpose(0, 2, 1, 3)       # (G, F/G, parts, K/parts)
        if plan.shared:
            dW = dW.reshape(groups * F, KH, C, KW).transpose(0, 2, 1, 3)
        return self.store(np.ascontiguousarray(dW.reshape(groups * F, C, KH, KW)), out, accumulate)
