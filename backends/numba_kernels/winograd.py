"""Winograd's minimal filtering, F(2x2, 3x3) and F(4x4, 3x3), with the transforms next to the products that need them.

For a tile d of the input, (m + 2) x (m + 2), and a filter g, 3 x 3, an m x m tile of the output is (Lavin and Gray 2016,
section 4)

    y = A^T [ (G g G^T) * (B^T d B) ] A             forward, and the gradient by the input
    dg = G^T [ (A dy A^T) * (B^T d B) ] G           its adjoint, the gradient by the filters

Summed over channels, each of the (m + 2)^2 positions of a tile becomes a matrix product of its own. A vector holds the
same element of one tile for LANES samples; `tile` is m, 2 or 4.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba_kernels.jit import inline, kernel
from xpnet.backends.numba_kernels.matrix import multiply_rows, panel_of
from xpnet.backends.numba_kernels.micro import (
    FROM_ZERO,
    LANES,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    tile_transform,
)

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

PLACE, MASKED, BOX = 0, 1, 2            # columns of a table of tiles; the box takes five


@inline
def locate(first, tiles, across, size, step, top, left, H, W, N):
    """Where the vectors first .. first + len(tiles) stand in a channel (H, W, N): place in bytes, masked, and the box.

    Vectors are numbered by tile, `across` in a row, and by sample; a tile of `size` elements starts every `step`.
    """
    parts = (N + LANES - 1) // LANES
    for v in range(len(tiles)):
        tile, n = (first + v) // parts, (first + v) % parts * LANES
        row, column = tile // across * step - top, tile % across * step - left
        tiles[v, PLACE] = 4 * ((row * W + column) * N + n)
        tiles[v, BOX], tiles[v, BOX + 1] = max(0, -row), min(size, H - row)
        tiles[v, BOX + 2], tiles[v, BOX + 3] = max(0, -column), min(size, W - column)
        tiles[v, BOX + 4] = min(LANES, N - n)
        whole = row >= 0 and column >= 0 and row + size <= H and column + size <= W and n + LANES <= N
        tiles[v, MASKED] = 0 if whole else 1


@inline
def aligned(scratch):
    """The first address in it where a vector does not cross lines of the cache; it has LANES elements to spare."""
    return (scratch.ctypes.data + VECTOR_BYTES - 1) // VECTOR_BYTES * VECTOR_BYTES


@kernel
def transform_filters(tile, W, turned, U):
    """U[k] = (G g G^T)[k], U (positions, F, C), of W (F, C, 9); `turned`: filters turned round and U (positions, C, F)."""
    positions, rows, columns = U.shape
    step = 4 * rows * columns
    for row in prange(rows):
        taps = np.empty((9, LANES), np.float32)
        box = np.array([0, tile + 2, 0, tile + 2, LANES])
        for first in range(0, columns, LANES):
            count = min(LANES, columns - first)
            box[4] = count
            if turned:
                for i in range(count):
                    for t in range(9):
                        taps[8 - t, i] = W[first + i, row, t]
            else:
                for i in range(count):
                    for t in range(9):
                        taps[t, i] = W[row, first + i, t]
            transform_filter(tile, 1 if count < LANES else 0, 0, box.ctypes.data, taps.ctypes.data, 3 * VECTOR_BYTES,
                             VECTOR_BYTES, U.ctypes.data + 4 * (row * columns + first), (tile + 2) * step, step)


@kernel
def convolve(tile, x, U, bias, start, relu, top, left, y, strip, strip_tasks, filter_tasks):
    """y (F, OH, OW, N) = f(start + A^T [U V] A), V = B^T x B, x (C, H, W, N); strip by strip of so many vectors at most.

    The bias goes where the sums of position (1, 1) start: A^T spreads that element over the whole tile.
    """
    C, H, W, N = x.shape
    F, OH, OW = y.shape[0], y.shape[1], y.shape[2]
    size = tile + 2
    positions, across = size * size, (OW + tile - 1) // tile
    vectors = (OH + tile - 1) // tile * across * ((N + LANES - 1) // LANES)
    strips, blocks = (vectors + strip - 1) // strip, (F + ROWS - 1) // ROWS
    row = strip * VECTOR_BYTES
    v_step, m_step = C * row + VECTOR_BYTES, ROWS * row + VECTOR_BYTES  # positions should not share places in the cache
    for task in prange(strip_tasks * filter_tasks):
        i, j = task // filter_tasks, task % filter_tasks
        first_filter, last_filter = blocks * j // filter_tasks * ROWS, min(F, blocks * (j + 1) // filter_tasks * ROWS)
        v_scratch = np.empty(positions * v_step // 4 + LANES, np.float32)
        m_scratch = np.empty(positions * m_step // 4 + LANES, np.float32)
        V, M = aligned(v_scratch), aligned(m_scratch)
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
                                    x.ctypes.data + 4 * c * H * W * N + inputs[v, PLACE], 4 * W * N, 4 * N,
                                    V + c * row + v * VECTOR_BYTES, size * v_step, v_step)
            for f in range(first_filter, last_filter, ROWS):
                end = min(f + ROWS, last_filter)
                for k in range(positions):
                    for p in range(panels):
                        at, some = panel_of(p, panels, count)
                        multiply_rows(V + k * v_step + at * VECTOR_BYTES, offsets.ctypes.data, C, f, end,
                                      U.ctypes.data + 4 * k * F * C, 4 * C, 4, M + k * m_step + at * VECTOR_BYTES - f * row, row,
                                      bias.ctypes.data, start if k == size + 1 else FROM_ZERO, 0, some, LANES)
                for g in range(f, end):
                    for v in range(count):
                        transform_output(tile, outputs[v, MASKED], relu, outputs[v, BOX:].ctypes.data,
                                         M + (g - f) * row + v * VECTOR_BYTES, size * m_step, m_step,
                                         y.ctypes.data + 4 * g * OH * OW * N + outputs[v, PLACE], 4 * OW * N, 4 * N)
