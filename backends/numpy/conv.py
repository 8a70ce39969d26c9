"""Convolution with NumPy: columns tile by tile, and products that BLAS can compute without packing.

If the rows are not dilated, the columns of output row oy are KH of the rows that one strided copy
makes:

    rows[iy, c, j] = x[c, iy, j:j+OW]           (HP, C, KW, OW*N), one copy of x for each j
    cols(oy) = rows[oy*sh : oy*sh+KH]           (KH*C*KW, OW*N), contiguous

So neighbouring output rows share their columns, and x is copied KW times instead of KH*KW times.
`matmul` multiplies the filters, in the order (F, KH, C, KW), with a stack of such overlapping
matrices in one call.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cpu.threads import single_threaded_blas
from xpnet.backends.numpy.pieces import partial_sums, spans
from xpnet.backends.numpy.product import IN_PLACE, IN_PLACE_RESULT, product
from xpnet.backends.numpy.winograd import winograd_pays
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


# elements of a tile's columns: they remain in the cache between the copy and the product
TILE = 1 << 19
TILE_WORK = 1 << 22     # multiply-adds of a tile at least, if more tiles are made for threads


@dataclass(frozen=True)
class Tile:
    """The part of the output that one matrix product computes: groups of channels, output rows, and
    part of a row of OW*N elements."""

    groups: slice
    rows: slice
    part: slice


@dataclass(frozen=True)
class Plan:
    """How a convolution is divided into tiles. It depends on shapes only, and so do the bits of
    every result."""

    # whether output rows share columns, as above; else every tap is copied, (C*KH*KW, rows*OW*N)
    shared: bool
    tiles: tuple[Tile, ...]


@lru_cache(maxsize=1024)
def make_plan(window: Window, groups: int, C: int, F: int, OH: int, OW: int, N: int,
              wanted: int) -> Plan:
    """Tiles for C channels and F filters in each group; a product should have at most `wanted`
    columns."""
    (KH, KW), (sh, sw), L = window.kernel, window.stride, OW * N
    # Reordering the filters costs as much as copying F columns, and a product needs many columns.
    shared = window.dilation[0] == 1 and KH > sh and L >= 64 and OH * L >= 2 * F
    # With stride 1 a row is one run of elements that can be cut anywhere, here into whole vectors;
    # with other strides it is cut between pixels.
    unit = N if sw > 1 else 16 if L >= 16 else L
    parts = -(-L // max(wanted // unit * unit, unit))
    width = min(L, -(-L // (parts * unit)) * unit)
    # elements of the columns for a row, of the input if shared, else of the output
    column = C * KW * width if shared else C * KH * KW * width
    if shared:
        rows = (TILE // column - KH) // sh + 1
    else:
        rows = min(wanted // width, TILE // column) if width == L else 1
    work = groups * F * C * KH * KW * OH * L
    at_least = min(8, work // TILE_WORK) // parts  # rows of tiles at least, for threads
    rows = max(1, min(rows, OH // max(1, at_least)), 64 // width if width == L else 1)
    size = ((rows - 1) * sh + KH if shared else rows) * column
    return Plan(shared, tuple(Tile(g, r, slice(left, min(left + width, L)))
                              for g in spans(groups, -(-groups // max(1, TILE // size)))
                              for r in spans(OH, -(-OH // min(rows, OH)))
                              for left in range(0, L, width)))


class _Columns:
    """Makes the columns of tiles of x (groups*C, HP, WP, N), which is padded and contiguous."""

    def __init__(self, backend: NumpyBackend, x: Array, window: Window, groups: int,
                 plan: Plan) -> None:
        self.backend, self.x, self.window, self.groups = backend, x, window, groups
        self.shared = plan.shared

    def make(self, tile: Tile) -> Array:
        """(groups, rows, KH*C*KW, n), a matrix for each output row; not shared: (groups, 1,
        C*KH*KW, rows*n)."""
        (KH, KW), (sh, sw), (dh, dw) = self.window.kernel, self.window.stride, self.window.dilation
        x, item, (_, H, W, N) = self.x, self.x.itemsize, self.x.shape
        C = x.shape[0] // self.groups
        # x.strides is arbitrary for an axis of length 1
        xC, xH, xW = H * W * N * item, W * N * item, N * item
        G, t, n = (s.stop - s.start for s in (tile.groups, tile.rows, tile.part))
        pixel, sample = divmod(tile.part.start, N)
        start = (tile.groups.start * C * xC + tile.rows.start * sh * xH + pixel * sw * xW
                 + sample * item)
        run, run_strides = ((n,), (item,)) if sw == 1 else ((n // N, N), (sw * xW, item))
        if self.shared:
            shape = (G, (t - 1) * sh + KH, C, KW, *run)
            strides = (C * xC, xH, xC, dw * xW, *run_strides)
        else:
            shape = (G, C, KH, KW, t, *run)
            strides = (C * xC, xC, dh * xH, dw * xW, sh * xH, *run_strides)
        cols = self.backend.empty(shape, x.dtype)
        np.copyto(cols, np.ndarray(shape, x.dtype, x, start, strides))  # all taps in one call
        if not self.shared:
            return cols.reshape(G, 1, C * KH * KW, t * n)
        row = C * KW * n * item
        return np.ndarray((G, t, KH * C * KW, n), x.dtype, cols, 0,
                          (cols.strides[0], sh * row, n * item, item))


def conv2d(self: NumpyBackend, x: Array, W: Array, window: Window, *, groups: int = 1,
           bias: Array | None = None, activation: str | None = None) -> Array:
    F, C = W.shape[:2]
    OH, OW = window.output_size(*x.shape[1:3])
    N = x.shape[3]
    if window.pointwise and groups == 1 or x.size == 0:
        return Backend.conv2d(self, x, W, window, groups=groups, bias=bias, activation=activation)
    if self.winograd and winograd_pays(window, groups, C, F, OH, OW, N, x.dtype, W.dtype):
        return self._winograd(x, W, window, bias=bias, activation=activation)
    return _correlate(self, x, W.reshape(groups, F // groups, *W.shape[1:]), window, bias,
                      activation)


def conv2d_dx(self: NumpyBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *,
              groups: int = 1) -> Array:
    (F, C, KH, KW), (_, H, width, N) = W.shape, x_shape
    if window.pointwise and groups == 1:
        return self.gemm(W.reshape(F, C), dy.reshape(F, -1), trans_a=True).reshape(x_shape)
    if dy.size == 0:
        return Backend.conv2d_dx(self, dy, W, x_shape, window, groups=groups)
    flipped = window.flipped
    if flipped is None:
        return self._scatter(dy, W, x_shape, window, groups)
    if self.winograd and winograd_pays(flipped, groups, F, C, H, width, N, dy.dtype, W.dtype):
        return self._winograd(dy, W, flipped, flipped=True)
    # (G, C, F/G, KH, KW)
    W = W.reshape(groups, F // groups, C, KH, KW)[..., ::-1, ::-1].swapaxes(1, 2)
    return _correlate(self, dy, W, flipped)


def _correlate(self: NumpyBackend, x: Array, W: Array, window: Window, bias: Array | None = None,
               activation: str | None = None
               ) -> Array:
    """f(conv(x, W) + bias) with W (groups, F, C, KH, KW), F filters on C channels in each group."""
    groups, F, C, KH, KW = W.shape
    OH, OW = window.output_size(*x.shape[1:3])
    N, K = x.shape[3], C * KH * KW
    in_place = IN_PLACE // (F * K)
    plan = make_plan(window, groups, C, F, OH, OW, N, in_place if in_place >= 128 else 512)
    W = self.contiguous(W.swapaxes(2, 3) if plan.shared else W).reshape(groups, 1, F, K)
    columns = _Columns(self, self._pad(x, window), window, groups, plan)
    if len(plan.tiles) == groups == 1 and not plan.shared:  # threads share the filters instead
        cols = columns.make(plan.tiles[0])[0, 0]
        return self.gemm(W[0, 0], cols, bias=bias, activation=activation).reshape(F, OH, OW, N)
    y = self.empty((groups, F, OH, OW * N), np.promote_types(x.dtype, W.dtype))
    b = None if bias is None else bias.reshape(groups, 1, F, 1)

    def task(k: int) -> None:
        tile = plan.tiles[k]
        block = _rows_first(y[tile.groups, :, tile.rows, tile.part], plan)
        np.matmul(W[tile.groups], columns.make(tile), out=block)
        if b is not None:
            block += b[tile.groups]
        self.activate_in_place(block, activation)

    with single_threaded_blas():
        self.run(task, len(plan.tiles), y.size * K // 16)
    return y.reshape(groups * F, OH, OW, N)


def scatter(self: NumpyBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window,
            groups: int) -> Array:
    """The input gradient, dcols = W^T dy and dx = col2im(dcols), by blocks of channels and
    strips of rows."""
    (F, C, KH, KW), (OH, OW), (_, H, width, N) = W.shape, dy.shape[1:3], x_shape
    F, L = F // groups, OW * N
    top, bottom, left, right = window.padding
    dy = self.contiguous(dy).reshape(groups, F, OH, L)
    W = W.reshape(groups, F, C, KH * KW)
    dx = self.empty((groups, C, H, width, N), np.promote_types(dy.dtype, W.dtype))
    blocks = [(g, c) for g in range(groups) for c in spans(C, min(C, 8))]
    strips = spans(OH, min(OH, -(-C // 8 * KH * KW * OH * L // TILE)))

    def task(k: int) -> None:
        group, channels = blocks[k]
        W_block = W[group, :, channels].reshape(F, -1).T  # (c*KH*KW, F)
        padded = self._padded_zeros((channels.stop - channels.start, H, width, N), window, dx.dtype)
        for rows in strips:
            t = rows.stop - rows.start
            dcols = self.empty((W_block.shape[0], t * L), dx.dtype)
            product(W_block, dy[group, :, rows].reshape(F, t * L), dcols)
            dcols = dcols.reshape(-1, KH, KW, t, OW, N)
            for i in range(KH):
                for j in range(KW):
                    along, across = window.tap(i, j, (t, OW))
                    first = rows.start * window.stride[0]
                    padded[:, along.start + first:along.stop + first:along.step,
                           across] += dcols[:, i, j]
        np.copyto(dx[group, channels], padded[:, top:top + H, left:left + width])

    with single_threaded_blas():
        self.run(task, len(blocks), dy.size * C * KH * KW // 16)
    return dx.reshape(x_shape)


def conv2d_dW(self: NumpyBackend, x: Array, dy: Array, window: Window, *, groups: int = 1,
              out: Array | None = None, accumulate: bool = False) -> Array:
    if dy.size == 0:
        return Backend.conv2d_dW(self, x, dy, window, groups=groups, out=out, accumulate=accumulate)
    (F, OH, OW, N), C, (KH, KW) = dy.shape, x.shape[0] // groups, window.kernel
    if self.winograd and winograd_pays(window, groups, C, F, OH, OW, N, x.dtype, dy.dtype):
        return self.store(self._winograd_dW(x, dy, window), out, accumulate)
    F, K = F // groups, C * KH * KW
    # Split the columns, so that each product has a small result, unless the slices would be too
    # thin.
    pieces = next(p for p in range(1, K + 1) if K % p == 0 and F * (K // p) <= IN_PLACE_RESULT
                  or p == K)
    pieces = pieces if pieces == 1 or K // pieces >= 8 else 1
    plan = make_plan(window, groups, C, F, OH, OW, N, max(512, IN_PLACE // (F * (K // pieces))))
    jobs = partial_sums(len(plan.tiles), groups * F * K)
    columns = _Columns(self, self._pad(x, window), window, groups, plan)
    dy = self.contiguous(dy).reshape(groups, F, OH, OW * N)
    partial = self.empty((len(jobs), groups, pieces, F, K // pieces),
                         np.promote_types(x.dtype, dy.dtype))

    def task(k: int) -> None:
        partial[k] = 0
        for tile in plan.tiles[jobs[k]]:
            cols = columns.make(tile)  # (G, t, K, n)
            G, t, _, n = cols.shape
            cols = cols.reshape(G, t, pieces, K // pieces, n).swapaxes(3, 4)
            g = _rows_first(dy[tile.groups, :, tile.rows, tile.part], plan)  # (G, t, F, n)
            dW = self.empty((G, t, pieces, F, K // pieces), partial.dtype)
            np.matmul(g[:, :, None], cols, out=dW)
            partial[k, tile.groups] += dW[:, 0] if t == 1 else np.add.reduce(
                dW, axis=1, out=self.empty(partial[k, tile.groups].shape, dW.dtype))

    with single_threaded_blas():
        self.run(task, len(jobs), dy.size * K // 16)
    dW = self.contiguous(self.add_up(partial).swapaxes(1, 2))       # (G, F, pieces, K/pieces)
    if plan.shared:
        dW = self.contiguous(dW.reshape(groups * F, KH, C, KW).swapaxes(1, 2))
    return self.store(dW.reshape(groups * F, C, KH, KW), out, accumulate)


def _rows_first(y: Array, plan: Plan) -> Array:
    """A tile of y, (groups, F, rows, n), in the shape of the products: (groups, rows, F, n), or
    (groups, 1, F, rows*n)."""
    return y.swapaxes(1, 2) if plan.shared else y.reshape(y.shape[0], 1, y.shape[1], -1)
