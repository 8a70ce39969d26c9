"""What the kernels of recurrent layers are made of: parts of a step, and products with them.

Samples do not depend on each other, so a task takes a block of them through all steps. Arrays of
all steps are (rows, P): step t has the columns starts[t] .. starts[t + 1], the first ones of the
samples. A task copies its part of a step to short arrays, computes there, where everything stays in
the cache, and copies the results back. In a short array row r of a block of `width` samples begins
at r * width. The sums of a product run in one order, whatever the block is.
"""

from __future__ import annotations

import numpy as np

from xpnet.backends.numba.kernels.jit import inline
from xpnet.backends.numba.kernels.matrix import multiply_rows, next_columns
from xpnet.backends.numba.kernels.micro import (
    DOT_ROWS,
    FROM_Y,
    FROM_ZERO,
    LANES,
    VECTORS,
    copy_rows,
    dot_block,
)

BLOCK = LANES * max(1, min(VECTORS, 16 // LANES))       # samples of a task
FEW = 8                     # samples; below, vectors run along the rows of U


@inline
def part_of_step(t, starts, first, samples):
    """(column, width): where the block of samples from `first` on is in step t."""
    return (starts[t] + first,
            min(first + BLOCK, samples, starts[t + 1] - starts[t]) - first)


@inline
def fetch(source, column, width, rows):
    """The short array `rows` from source[:, column:column + width]."""
    (R, P), vectors = source.shape, (width + LANES - 1) // LANES
    copy_rows(vectors, width - (vectors - 1) * LANES, source.ctypes.data + 4 * column, 4 * P,
              rows.ctypes.data, 4 * width, R)


@inline
def bring_back(rows, target, column, width):
    """target[:, column:column + width] from the short array `rows`."""
    (R, P), vectors = target.shape, (width + LANES - 1) // LANES
    copy_rows(vectors, width - (vectors - 1) * LANES, rows.ctypes.data, 4 * width,
              target.ctypes.data + 4 * column, 4 * P, R)


@inline
def tables(u):
    """Scratch arrays for add_product: byte offsets of the rows of u (G, H), the last one instead of
    those beyond G; those of the rows of `turned`; `turned` (FEW H,); those of the rows of h."""
    G, H = u.shape
    return (np.minimum(np.arange(G + DOT_ROWS), G - 1) * (4 * H), np.arange(FEW) * (4 * H),
            np.empty(FEW * H, np.float32), np.empty(H, np.int64))


@inline
def add_product(u, h, width, z, scratch):
    """z += u h, for u (G, H), h (H, width), z (G, width) with DOT_ROWS more rows, tables(u)."""
    (G, H), (rows, columns, turned, table) = u.shape, scratch
    if width < FEW:                     # h is transposed, so that vectors run along the rows of u
        for n in range(width):
            row, column = turned[n * H:(n + 1) * H], h[n:]
            for k in range(row.size):
                row[k] = column[k * width]
        for f in range(0, G, DOT_ROWS):
            n = 0
            while n < width:
                some = next_columns(width - n)
                dot_block(some, u.ctypes.data, rows.ctypes.data + 8 * f, 0, turned.ctypes.data,
                          columns.ctypes.data + 8 * n, 0, 1, H // LANES, H % LANES,
                          z.ctypes.data + 4 * (f * width + n), 4 * width)
                n += some
    else:
        vectors = (width + LANES - 1) // LANES
        for k in range(H):
            table[k] = 4 * width * k
        multiply_rows(h.ctypes.data, table.ctypes.data, H, 0, G, u.ctypes.data, 4 * H, 4,
                      z.ctypes.data, 4 * width, u.ctypes.data, FROM_Y, 0, vectors,
                      width - (vectors - 1) * LANES)


@inline
def transposed_product(u, dz, width, dh, table):
    """dh = u^T dz, for u (G, H), dz (G, width), dh (H, width); `table` (G,) is scratch."""
    (G, H), vectors = u.shape, (width + LANES - 1) // LANES
    for k in range(G):
        table[k] = 4 * width * k
    multiply_rows(dz.ctypes.data, table.ctypes.data, G, 0, H, u.ctypes.data, 4, 4 * H,
                  dh.ctypes.data, 4 * width, u.ctypes.data, FROM_ZERO, 0, vectors,
                  width - (vectors - 1) * LANES)
