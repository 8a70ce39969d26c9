"""The two kinds of products: `multiply` runs along rows of vectors, `dots` sums along them.

A matrix product and a convolution are one operation here. In y[f] = sum over k of w[f, k] x[k] the
x[k] are runs of memory: rows of a matrix, or, with the batch as the last axis, rows of an image.
Output row oy of a convolution with stride 1 is one run of OW*N elements, and tap k = (c, i, j) adds
w[f, k] times the run that starts at x[c, oy + i, j]. That run is row k of im2col; it need not be
written, because it is at `offsets[k]` in x.

    multiply    y[f, p] = sum over k of w[f, k] x[k, p]
    dots        d[f, k] = sum over p of g[f, p] x[k, p]

`multiply` computes convolutions, input gradients and products; `dots` computes filter gradients and
products with few columns. Both are divided into tasks by shape only, and each sum is computed by
one task, in one order.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.instructions import (
    DOT_COLUMNS,
    DOT_ROWS,
    LANES,
    ROWS,
    VECTOR_BYTES,
    VECTORS,
)
from xpnet.backends.numba.kernels.jit import inline, kernel
from xpnet.backends.numba.kernels.micro import FROM_BIAS, FROM_Y, dot_block, multiply_block
from xpnet.backends.numba.kernels.tiles import transpose_block

PANEL = VECTORS * LANES         # elements of a run that one multiply_block makes
DEPTH = 576                     # values of k whose weights remain in the cache for all runs
NEAR = 1 << 16  # elements of x that remain in the cache for all blocks of filters
STRIP = 1024  # positions that a block of dots processes at a time: they fit the first-level cache
STRETCH = 96                    # whole vectors of a run at a time, for the same reason
REGION = 1 << 22                # multiply-adds of a parallel region at least
IN_PLACE, COPIED, TRANSPOSED = 0, 1, 2      # how a panel of x is read


@inline
def next_rows(left):
    """How many of the `left` rows to process next: one of micro.ROW_BLOCKS."""
    if left >= ROWS:
        return ROWS
    return 4 if left >= 4 else 2 if left >= 2 else 1


@inline
def next_columns(left):
    """How many of the `left` columns to process next: one of micro.COLUMN_BLOCKS."""
    if left >= DOT_COLUMNS:
        return DOT_COLUMNS
    return DOT_COLUMNS // 2 if left >= DOT_COLUMNS // 2 else 1


@inline
def multiply_rows(x, offsets, K, first, last, w, w_row, w_step, y, y_row, bias,  # noqa: N803
                  start, relu, vectors, tail):
    """y[f] = f(start + sum over k of w[f, k] x[k]) for first <= f < last and a panel of `vectors`;
    see multiply_block."""
    f = first
    while f < last:
        rows = next_rows(last - f)
        multiply_block(rows, vectors, tail, x, offsets, K, w + f * w_row, w_row, w_step,
                       y + f * y_row, y_row, bias + 4 * f, start, relu)
        f += rows


@inline
def panel_of(number, panels, all_vectors):
    """The first vector of a run's panel, and its number of vectors: VECTORS, but two and two
    instead of three and one."""
    first, rest = number * VECTORS, all_vectors - (panels - 1) * VECTORS
    if VECTORS == 3 and rest == 1 and number >= panels - 2 and panels > 1:
        return first - (number + 1 == panels), 2
    return first, VECTORS if number + 1 < panels else rest


@inline
def copy_panel(x, mode, at, offsets, first, depth, K, column, width, panel):
    """Copy x[first .. first + depth], `width` elements each, to rows of PANEL elements; see
    multiply."""
    if mode == COPIED:
        for k in range(depth):
            row, source = (panel[k * PANEL:k * PANEL + width],
                           x[at + offsets[first + k] // 4:])
            for n in range(row.size):
                row[n] = source[n]
        return
    squares, deep = width // LANES * LANES, depth // LANES * LANES      # in whole blocks
    start = x.ctypes.data + 4 * (column * K + first)
    for n in range(0, squares, LANES):
        for k in range(0, deep, LANES):
            transpose_block(start + 4 * (n * K + k), 4 * K,
                            panel.ctypes.data + 4 * (k * PANEL + n), 4 * PANEL)
    for k in range(depth):
        done = squares if k < deep else 0
        row, source = panel[k * PANEL + done:k * PANEL + width], x[(column + done) * K + first + k:]
        for n in range(row.size):
            row[n] = source[n * K]


@kernel
def multiply(x, mode, x_group, x_line, x_pixel, offsets, w, w_row, w_step, groups, bias, start,
             relu, y, y_first, y_channel, y_line, y_pixel, lines, pixels, run, panel_tasks,
             filter_tasks):
    """y[f] = f(start + sum over k of w[f, k] x[k]) on lines x pixels runs of `run` elements; steps
    in bytes.

    Run (line, pixel) of x[k] is at x_group * group + line x_line + pixel x_pixel + offsets[k], that
    of y[f] at y_first + f y_channel + line y_line + pixel y_pixel; x and y are flat. w (groups * F,
    K). The start is 0, bias or y itself. `mode` copies each panel of x before it is read: COPIED if
    the x[k] share cache sets, TRANSPOSED if x is (run, K).
    """
    K, F = offsets.size, y.size * 4 // max(1, y_channel) // groups
    blocks, all_vectors = (F + ROWS - 1) // ROWS, (run + LANES - 1) // LANES
    panels = (all_vectors + VECTORS - 1) // VECTORS
    for task in prange(groups * panel_tasks * filter_tasks):
        group, rest = task // (panel_tasks * filter_tasks), task % (panel_tasks * filter_tasks)
        i, j = rest // filter_tasks, rest % filter_tasks
        first_filter, last_filter = (blocks * j // filter_tasks * ROWS,
                                     min(F, blocks * (j + 1) // filter_tasks * ROWS))
        # panels that a block of filters is multiplied with in turn
        together = max(1, min(16, NEAR // (min(K, DEPTH) * PANEL)))
        scratch = np.empty((together, 1 if mode == IN_PLACE else min(K, DEPTH) * PANEL), np.float32)
        scratch_offsets = np.arange(min(K, DEPTH)) * (4 * PANEL)
        # for each panel: x, y, vectors, lanes of the last one
        table = np.empty((together, 4), np.int64)
        begin, end = (lines * pixels * panels * i // panel_tasks,
                      lines * pixels * panels * (i + 1) // panel_tasks)
        for first in range(0, K, DEPTH):
            depth = min(DEPTH, K - first)
            row_offsets = (offsets.ctypes.data + 8 * first if mode == IN_PLACE
                           else scratch_offsets.ctypes.data)
            line, pixel, number = (begin // (pixels * panels), begin // panels % pixels,
                                   begin % panels)
            for done in range(begin, end, together):
                some = min(together, end - done)
                for p in range(some):
                    at, vectors = panel_of(number, panels, all_vectors)
                    width = min(vectors * LANES, run - at * LANES)
                    source = group * x_group + line * x_line + pixel * x_pixel + at * VECTOR_BYTES
                    table[p, 0] = x.ctypes.data + source
                    table[p, 1] = (y.ctypes.data + y_first + group * F * y_channel + line * y_line
                                    + pixel * y_pixel + at * VECTOR_BYTES)
                    table[p, 2], table[p, 3] = vectors, width - (vectors - 1) * LANES
                    if mode != IN_PLACE:
                        copy_panel(x, mode, source // 4, offsets, first, depth, K, at * LANES,
                                   width, scratch[p])
                        table[p, 0] = scratch.ctypes.data + 4 * p * scratch.shape[1]
                    number += 1  # advance to the next panel, pixel, line
                    if number == panels:
                        number, pixel = 0, pixel + 1
                        if pixel == pixels:
                            pixel, line = 0, line + 1
                f = first_filter
                while f < last_filter:
                    rows = next_rows(last_filter - f)
                    for p in range(some):
                        multiply_block(rows, table[p, 2], table[p, 3], table[p, 0], row_offsets,
                                       depth, w.ctypes.data + (group * F + f) * w_row + first
                                       * w_step, w_row, w_step, table[p, 1] + f * y_channel,
                                       y_channel, bias.ctypes.data + 4 * (group * F + f),
                                       start if first == 0 else FROM_Y, relu if first + depth == K
                                       else 0)
                    f += rows


@kernel
def dots(x, x_group, x_line, x_pixel, offsets, g, groups, lines, pixels, run, bias, start, relu, d,
         filter_tasks, tap_tasks):
    """d (groups * F, K) = f(start + sum over all positions of g[f] x[k]), g (groups * F, lines,
    pixels, run), x as above.

    The positions are processed in strips; in each strip, every task adds to its part of d. So every
    sum runs over the positions in order, and the data of a strip remain in the cache.
    """
    K, F = offsets.size, d.shape[0] // groups
    filter_blocks, tap_blocks = (F + DOT_ROWS - 1) // DOT_ROWS, (K + DOT_COLUMNS - 1) // DOT_COLUMNS
    vectors, tail = run // LANES, run % LANES
    # Runs at equal distances are the rows of a set: all lines if a line has a single pixel, else
    # the pixels of a line.
    sets, rows, set_g, row_g, set_x, row_x = (1, lines, 0, 4 * run, 0, x_line) if pixels == 1 else (
        lines, pixels, 4 * pixels * run, 4 * run, x_line, x_pixel)
    channel = 4 * lines * pixels * run
    # the last filter instead of those beyond F
    g_offsets = np.minimum(np.arange(filter_blocks * DOT_ROWS), F - 1) * channel
    sums = np.zeros((groups, filter_blocks * DOT_ROWS, K), np.float32)
    together = max(1, STRIP // run)
    strips = (rows + together - 1) // together
    strips_at_once = max(1, REGION // (groups * F * K * together * run))
    for s in range(sets):
        for first_strip in range(0, strips, strips_at_once):
            for task in prange(groups * filter_tasks * tap_tasks):
                group, rest = task // (filter_tasks * tap_tasks), task % (filter_tasks * tap_tasks)
                i, j = rest // tap_tasks, rest % tap_tasks
                first_f, last_f = (filter_blocks * i // filter_tasks,
                                   filter_blocks * (i + 1) // filter_tasks)
                first_k = tap_blocks * j // tap_tasks * DOT_COLUMNS
                last_k = min(K, tap_blocks * (j + 1) // tap_tasks * DOT_COLUMNS)
                for strip in range(first_strip, min(strips, first_strip + strips_at_once)):
                    row = strip * together
                    for v in range(0, max(vectors, 1), STRETCH):
                        part = min(STRETCH, vectors - v)
                        g_at = (g.ctypes.data + group * F * channel + s * set_g + row * row_g
                                + v * VECTOR_BYTES)
                        x_at = (x.ctypes.data + group * x_group + s * set_x + row * row_x
                                + v * VECTOR_BYTES)
                        for f in range(first_f * DOT_ROWS, last_f * DOT_ROWS, DOT_ROWS):
                            k = first_k
                            while k < last_k:
                                columns = next_columns(last_k - k)
                                dot_block(columns, g_at, g_offsets.ctypes.data + 8 * f, row_g,
                                          x_at, offsets.ctypes.data + 8 * k, row_x,
                                          min(together, rows - row), part,
                                          tail if v + part == vectors else 0,
                                          sums.ctypes.data + 4
                                          * ((group * filter_blocks * DOT_ROWS + f) * K + k), 4 * K)
                                k += columns
    for f in prange(groups * F):
        for k in range(K):
            z = sums[f // F, f % F, k]
            if start == FROM_BIAS:
                z += bias[f]
            elif start == FROM_Y:
                z += d[f, k]
            d[f, k] = np.float32(0) if relu and z < 0 else z
