"""Matrix products: panels of columns that stay in the cache, and blocks of rows that stay in registers."""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba_kernels.jit import inline, kernel
from xpnet.backends.numba_kernels.micro import (
    DOT_COLUMNS,
    DOT_ROWS,
    FROM_BIAS,
    FROM_Y,
    FROM_ZERO,
    LANES,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
    dot_block,
    multiply_block,
)

PANEL = VECTORS * LANES         # columns that one multiply_block makes
DEPTH = 1024                    # rows of a panel that are used before the next ones, so that they stay in the cache


@inline
def next_vectors(left):
    """How many of the `left` vectors to do next: as many as fit, but two and two rather than three and one."""
    if left == VECTORS + 1 and VECTORS > 2:
        return VECTORS - 1
    return min(left, VECTORS)


@inline
def next_rows(left):
    """How many of the `left` rows to do next: one of ROW_BLOCKS."""
    if left >= ROWS:
        return ROWS
    return 4 if left >= 4 else 2 if left >= 2 else 1


@inline
def multiply_rows(x, offsets, K, first_row, last_row, w, w_row, w_step, y, y_row, bias, start, relu, vectors, tail):  # noqa: N803
    """y[f] = f(start + sum over k of w[f, k] x[k]) for a range of rows and a panel of `vectors`; see multiply_block."""
    f = first_row
    while f < last_row:
        rows = next_rows(last_row - f)
        multiply_block(rows, vectors, tail, x, offsets, K, w + f * w_row, w_row, w_step, y + f * y_row, y_row, bias + 4 * f,
                       start, relu)
        f += rows


@inline
def pack_panel(b, trans_b, first, depth, column, width, panel):
    """Rows first .. first + depth of the columns column .. column + width of op(b), to (depth, PANEL)."""
    if trans_b:
        for n in range(width):
            for k in range(depth):
                panel[k, n] = b[column + n, first + k]
    else:
        for k in range(depth):
            for n in range(width):
                panel[k, n] = b[first + k, column + n]


@kernel
def multiply(a, trans_a, b, trans_b, pack, bias, start, relu, y, row_tasks, column_tasks):
    """y (M, N) = f(start + op(a) op(b)), start = 0, bias (M,) or y itself; cut into row_tasks x column_tasks.

    `pack` copies each panel of b first: for a transposed b, and where rows of b lie so that they share places in the cache.
    """
    M, N = y.shape
    K = a.shape[0] if trans_a else a.shape[1]
    a_row, a_step = (4, 4 * M) if trans_a else (4 * K, 4)
    row_blocks, all_vectors = (M + ROWS - 1) // ROWS, (N + LANES - 1) // LANES
    for task in prange(row_tasks * column_tasks):
        i, j = task // column_tasks, task % column_tasks
        first_row, last_row = row_blocks * i // row_tasks * ROWS, min(M, row_blocks * (i + 1) // row_tasks * ROWS)
        at, end = all_vectors * j // column_tasks, all_vectors * (j + 1) // column_tasks
        depth = min(K, DEPTH)
        offsets = np.arange(depth) * (4 * PANEL if pack else 4 * N)
        panel = np.empty((depth if pack else 1, PANEL), np.float32)
        while at < end:
            vectors = next_vectors(end - at)
            column = at * LANES
            width = min(N - column, vectors * LANES)
            tail = width - (vectors - 1) * LANES
            first = 0
            while True:                                                 # once at least: the sums' start must be stored
                depth = min(DEPTH, K - first)
                if pack:
                    pack_panel(b, trans_b, first, depth, column, width, panel)
                    x = panel.ctypes.data
                else:
                    x = b.ctypes.data + 4 * (first * N + column)
                multiply_rows(x, offsets.ctypes.data, depth, first_row, last_row, a.ctypes.data + first * a_step, a_row, a_step,
                              y.ctypes.data + 4 * column, 4 * N, bias.ctypes.data, start if first == 0 else FROM_Y,
                              relu if first + depth == K else 0, vectors, tail)
                first += depth
                if first >= K:
                    break
            at += vectors


@kernel
def multiply_few(a, b, bias, start, relu, y, tasks):
    """y (M, N) = f(start + a b^T) for few columns: dot products along the rows of a (M, K) and b (N, K)."""
    M, K = a.shape
    N = b.shape[0]
    blocks = (M + DOT_ROWS - 1) // DOT_ROWS
    for task in prange(tasks):
        sums = np.empty((DOT_ROWS, DOT_COLUMNS), np.float32)
        g_offsets, x_offsets = np.empty(DOT_ROWS, np.int64), np.empty(DOT_COLUMNS, np.int64)
        for block in range(blocks * task // tasks, blocks * (task + 1) // tasks):
            m = block * DOT_ROWS
            for i in range(DOT_ROWS):
                g_offsets[i] = min(m + i, M - 1) * 4 * K                # rows that are not there count for nothing
            for n in range(0, N, DOT_COLUMNS):
                columns = min(DOT_COLUMNS, N - n)
                for j in range(columns):
                    x_offsets[j] = (n + j) * 4 * K
                sums[:] = 0
                dot_block(columns, a.ctypes.data, g_offsets.ctypes.data, 0, b.ctypes.data, x_offsets.ctypes.data, 0, 1,
                          K // LANES, K % LANES, sums.ctypes.data, 4 * DOT_COLUMNS)
                for i in range(min(DOT_ROWS, M - m)):
                    for j in range(columns):
                        z = sums[i, j]
                        if start == FROM_BIAS:
                            z += bias[m + i]
                        elif start == FROM_Y:
                            z += y[m + i, n + j]
                        y[m + i, n + j] = np.float32(0) if relu and z < 0 else z


__all__ = ["FROM_BIAS", "FROM_Y", "FROM_ZERO", "LANES", "PANEL", "VECTOR_BYTES", "multiply", "multiply_few", "multiply_rows",
           "next_vectors"]
