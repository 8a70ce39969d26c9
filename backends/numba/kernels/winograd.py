"""Winograd's minimal filtering, F(2x2, 3x3) and F(4x4, 3x3), with the transforms next to the
products.

For a tile d of the input, (m + 2) x (m + 2), and a filter g, 3 x 3, an m x m tile of the output is
(Lavin and Gray 2016, section 4)

    y = A^T [ (G g G^T) * (B^T d B) ] A             convolution, input gradient
    dg = G^T [ (A dy A^T) * (B^T d B) ] G           its adjoint, the filter gradient

Summed over channels, each of the (m + 2)^2 positions of a tile is a separate matrix product. A
vector holds the same element of one tile for LANES samples; `tile` is m, 2 or 4.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.instructions import LANES, ROWS, VECTOR_BYTES, VECTORS
from xpnet.backends.numba.kernels.jit import inline, kernel
from xpnet.backends.numba.kernels.matrix import multiply_rows, panel_of
from xpnet.backends.numba.kernels.micro import FROM_Y, FROM_ZERO
from xpnet.backends.numba.kernels.tiles import tile_transform, transpose_block

BT = {2: ((1, 0, -1, 0), (0, 1, 1, 0), (0, -1, 1, 0), (0, 1, 0, -1)),
      4: ((4, 0, -5, 0, 1, 0), (0, -4, -4, 1, 1, 0), (0, 4, -4, -1, 1, 0),
          (0, -2, -1, 2, 1, 0), (0, 2, -1, -2, 1, 0), (0, 4, 0, -5, 0, 1))}
G = {2: ((1, 0, 0), (1 / 2, 1 / 2, 1 / 2), (1 / 2, -1 / 2, 1 / 2), (0, 0, 1)),
     4: ((1 / 4, 0, 0), (-1 / 6, -1 / 6, -1 / 6), (-1 / 6, 1 / 6, -1 / 6),
         (1 / 24, 1 / 12, 1 / 6), (1 / 24, -1 / 12, 1 / 6), (0, 0, 1))}
AT = {2: ((1, 1, 1, 0), (0, 1, -1, -1)),
      4: ((1, 1, 1, 1, 1, 0), (0, 1, -1, 2, -2, 0), (0, 1, 1, 4, 4, 0), (0, 1, -1, 8, -8, 1))}
A, GT = ({m: tuple(zip(*matrix)) for m, matrix in matrices.items()} for matrices in (AT, G))

transform_input = tile_transform("input", BT, "source")
transform_output = tile_transform("output", AT, "target", (False, True))
transform_gradient = tile_transform("gradient", A, "source")
transform_filter = tile_transform("filter", G, "target")
transform_sums = tile_transform("sums", GT, "target")

PLACE, MASKED, BOX = 0, 1, 2            # columns of a table of tiles; the box has five


@inline
def locate(first, tiles, across, size, step, top, left, H, W, N):
    """The positions of the vectors first .. first + len(tiles) in a channel (H, W, N): offset in
    bytes, masked, and the box.

    Vectors are numbered by tile, `across` in a row, and by sample; a tile of `size` elements starts
    every `step`.
    """
    parts = (N + LANES - 1) // LANES
    for v in range(len(tiles)):
        tile, n = (first + v) // parts, (first + v) % parts * LANES
        row, column = tile // across * step - top, tile % across * step - left
        tiles[v, PLACE] = 4 * ((row * W + column) * N + n)
        tiles[v, BOX], tiles[v, BOX + 1] = max(0, -row), min(size, H - row)
        tiles[v, BOX + 2], tiles[v, BOX + 3] = max(0, -column), min(size, W - column)
        tiles[v, BOX + 4] = min(LANES, N - n)
        whole = (row >= 0 and column >= 0 and row + size <= H and column + size <= W
                 and n + LANES <= N)
        tiles[v, MASKED] = 0 if whole else 1


@inline
def aligned(size):
    """A scratch array of `size` floats whose vectors do not cross cache lines.

    Numba frees an array after the last use of its name: take the address where it is needed, and do
    not store it.
    """
    scratch = np.empty(size + LANES, np.float32)
    skip = -scratch.ctypes.data % VECTOR_BYTES // 4
    return scratch[skip:skip + size]


@kernel
def transform_filters(tile, W, flipped, U):
    """U[k] = (G g G^T)[k], U (positions, F, C), of W (F, C, 9). If `flipped`, the filters are
    flipped and U is (positions, C, F)."""
    positions, rows, columns = U.shape
    step = 4 * rows * columns
    for row in prange(rows):
        taps = np.empty((9, LANES), np.float32)
        box = np.array([0, tile + 2, 0, tile + 2, LANES])
        for first in range(0, columns, LANES):
            count = min(LANES, columns - first)
            box[4] = count
            if flipped:
                for i in range(count):
                    for t in range(9):
                        taps[8 - t, i] = W[first + i, row, t]
            else:
                for i in range(count):
                    for t in range(9):
                        taps[t, i] = W[row, first + i, t]
            transform_filter(tile, 1 if count < LANES else 0, 0, box.ctypes.data, taps.ctypes.data,
                             3 * VECTOR_BYTES, VECTOR_BYTES,
                             U.ctypes.data + 4 * (row * columns + first), (tile + 2) * step, step)


@kernel
def convolve(tile, x, U, bias, start, relu, top, left, y, strip, strip_tasks, filter_tasks):
    """y (F, OH, OW, N) = f(start + A^T [U V] A), V = B^T x B, x (C, H, W, N), in strips of at most
    `strip` vectors.

    The bias is the start of the sums at position (1, 1): A^T spreads that element over the whole
    tile.
    """
    C, H, W, N = x.shape
    F, OH, OW = y.shape[0], y.shape[1], y.shape[2]
    size = tile + 2
    positions, across = size * size, (OW + tile - 1) // tile
    vectors = (OH + tile - 1) // tile * across * ((N + LANES - 1) // LANES)
    strips, blocks = (vectors + strip - 1) // strip, (F + ROWS - 1) // ROWS
    row = strip * VECTOR_BYTES
    # positions should not share cache sets
    v_step, m_step = C * row + VECTOR_BYTES, ROWS * row + VECTOR_BYTES
    for task in prange(strip_tasks * filter_tasks):
        i, j = task // filter_tasks, task % filter_tasks
        first_filter, last_filter = (blocks * j // filter_tasks * ROWS,
                                     min(F, blocks * (j + 1) // filter_tasks * ROWS))
        V, M = aligned(positions * v_step // 4), aligned(positions * m_step // 4)
        offsets = np.arange(C) * row
        inputs, outputs = np.empty((strip, BOX + 5), np.int64), np.empty((strip, BOX + 5), np.int64)
        for s in range(strips * i // strip_tasks, strips * (i + 1) // strip_tasks):
            first = vectors * s // strips
            count = vectors * (s + 1) // strips - first
            panels = (count + VECTORS - 1) // VECTORS
            locate(first, inputs[:count], across, size, tile, top, left, H, W, N)
            locate(first, outputs[:count], across, tile, tile, 0, 0, OH, OW, N)
            for c in range(C):
                for v in range(count):
                    transform_input(tile, inputs[v, MASKED], 0, inputs[v, BOX:].ctypes.data,
                                    x.ctypes.data + 4 * c * H * W * N + inputs[v, PLACE], 4 * W * N,
                                    4 * N, V.ctypes.data + c * row + v * VECTOR_BYTES,
                                    size * v_step, v_step)
            for f in range(first_filter, last_filter, ROWS):
                end = min(f + ROWS, last_filter)
                for k in range(positions):
                    for p in range(panels):
                        at, some = panel_of(p, panels, count)
                        multiply_rows(V.ctypes.data + k * v_step + at * VECTOR_BYTES,
                                      offsets.ctypes.data, C, f, end,
                                      U.ctypes.data + 4 * k * F * C, 4 * C, 4,
                                      M.ctypes.data + k * m_step + at * VECTOR_BYTES - f * row, row,
                                      bias.ctypes.data, start if k == size + 1 else FROM_ZERO, 0,
                                      some, LANES)
                for g in range(f, end):
                    for v in range(count):
                        transform_output(tile, outputs[v, MASKED], relu,
                                         outputs[v, BOX:].ctypes.data,
                                         M.ctypes.data + (g - f) * row + v * VECTOR_BYTES,
                                         size * m_step, m_step, y.ctypes.data + 4 * g * OH * OW * N
                                         + outputs[v, PLACE], 4 * OW * N, 4 * N)


@kernel
def correlate_filters(tile, x, dy, top, left, V, D, sums, chain, dU, vector_tasks, filter_tasks):
    """dU (positions, F, C or more) = sum over tiles and samples of (A dy A^T) (B^T x B)^T, block by
    block of vectors.

    V (positions, elements of a block, C or more) and D (positions, F or more, elements or more)
    hold a block: first, tasks transform channels and filters; then others add the block to their
    part of dU. V is transposed so that channels are along vectors, as the products need it. `sums`,
    like dU, runs over `chain` blocks before it is added to dU.
    """
    C, H, W, N = x.shape
    F, OH, OW = dy.shape[0], dy.shape[1], dy.shape[2]
    size = tile + 2
    positions, elements, columns = V.shape
    block, across = elements // LANES, (OW + tile - 1) // tile
    vectors = (OH + tile - 1) // tile * across * ((N + LANES - 1) // LANES)
    v_step, d_row, d_step = 4 * elements * columns, 4 * D.shape[2], 4 * D.shape[1] * D.shape[2]
    groups, blocks = (C + LANES - 1) // LANES, (F + ROWS - 1) // ROWS
    panels = (groups + VECTORS - 1) // VECTORS
    s_step = (LANES + 1) * VECTOR_BYTES  # positions should not share cache sets
    for k in prange(positions):
        dU[k] = 0
    for first in range(0, vectors, block):
        count = min(block, vectors - first)
        for task in prange(groups * vector_tasks):
            group, part = task // vector_tasks, task % vector_tasks
            tiles = np.empty((count, BOX + 5), np.int64)
            S = aligned(positions * s_step // 4)
            S[:] = 0  # for channels beyond C
            locate(first, tiles, across, size, tile, top, left, H, W, N)
            for v in range(count * part // vector_tasks, count * (part + 1) // vector_tasks):
                for c in range(group * LANES, min(C, group * LANES + LANES)):
                    transform_input(tile, tiles[v, MASKED], 0, tiles[v, BOX:].ctypes.data,
                                    x.ctypes.data + 4 * c * H * W * N + tiles[v, PLACE], 4 * W * N,
                                    4 * N, S.ctypes.data + c % LANES * VECTOR_BYTES, size * s_step,
                                    s_step)
                for k in range(positions):
                    transpose_block(S.ctypes.data + k * s_step, VECTOR_BYTES,
                                    V.ctypes.data + k * v_step + 4 * columns * v * LANES + group
                                    * VECTOR_BYTES, 4 * columns)
            locate(first, tiles, across, tile, tile, 0, 0, OH, OW, N)
            for f in range(F * group // groups, F * (group + 1) // groups):
                for v in range(count * part // vector_tasks, count * (part + 1) // vector_tasks):
                    transform_gradient(tile, tiles[v, MASKED], 0, tiles[v, BOX:].ctypes.data,
                                       dy.ctypes.data + 4 * f * OH * OW * N + tiles[v, PLACE],
                                       4 * OW * N, 4 * N,
                                       D.ctypes.data + f * d_row + v * VECTOR_BYTES, size * d_step,
                                       d_step)
        begins, ends = (first // block % chain == 0, (first // block + 1) % chain == 0
                        or first + block >= vectors)
        for task in prange(positions * filter_tasks):
            k, j = task // filter_tasks, task % filter_tasks
            first_filter, last_filter = (blocks * j // filter_tasks * ROWS,
                                         min(F, blocks * (j + 1) // filter_tasks * ROWS))
            offsets = np.arange(count * LANES) * (4 * columns)
            for p in range(panels):
                at, some = panel_of(p, panels, groups)
                multiply_rows(V.ctypes.data + k * v_step + at * VECTOR_BYTES, offsets.ctypes.data,
                              count * LANES, first_filter, last_filter, D.ctypes.data + k * d_step,
                              d_row, 4, sums.ctypes.data + 4 * k * F * columns + at * VECTOR_BYTES,
                              4 * columns, sums.ctypes.data, FROM_ZERO if begins else FROM_Y, 0,
                              some, LANES)
            if ends:
                for f in range(first_filter, last_filter):
                    for c in range(C):
                        dU[k, f, c] += sums[k, f, c]


@kernel
def finish_filters(tile, dU, accumulate, dW):
    """dW (F, C, 9) = G^T dU G, or dW += it."""
    F, C = dW.shape[0], dW.shape[1]
    row = 4 * dU.shape[2]
    for f in prange(F):
        taps = np.empty((9, LANES), np.float32)
        for first in range(0, C, LANES):
            transform_sums(tile, 0, 0, 0, dU.ctypes.data + f * row + 4 * first,
                           (tile + 2) * F * row, F * row, taps.ctypes.data, 3 * VECTOR_BYTES,
                           VECTOR_BYTES)
            for i in range(min(LANES, C - first)):
                for t in range(9):
                    before = dW[f, first + i, t] if accumulate else np.float32(0)
                    dW[f, first + i, t] = taps[t, i] + before
