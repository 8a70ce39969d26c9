"""Convolution without im2col: blocks of filters slide over rows of an image that carries its padding.

With the batch as the last axis, output row oy of a convolution with stride 1 is one run of OW*N elements, and what tap
(c, i, j) adds to it is w[c, i, j] times the input's run that starts at x[c, oy + i, j]. So a convolution is a matrix
product whose second operand needs not exist: its row k = (c, i, j) is found at `offsets[k]` from the first tap's.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba_kernels.jit import kernel
from xpnet.backends.numba_kernels.matrix import multiply_rows, next_vectors
from xpnet.backends.numba_kernels.micro import DOT_COLUMNS, DOT_ROWS, FROM_Y, LANES, ROWS, VECTOR_BYTES, dot_block

STRIP = 1024            # positions that a block of dW takes at a time: its runs stay in the nearest cache
STRETCH = 96            # whole vectors of a run, likewise
REGION = 1 << 22        # multiply-adds that are worth a parallel region


@kernel
def pad(x, top, left, out, channel, height, width):
    """x (C, H, W, N) into rows of a (C, height, width, N) of zeros, `channel` elements from one channel to the next.

    out is flat. top and left are the place of x[:, 0, 0]; what does not fit, or has a negative place, is left out.
    """
    C, H, W, N = x.shape
    first, last = max(0, left), max(0, min(width, left + W))            # columns of out that x fills
    for c in prange(C):
        for row in range(height):
            line = out[c * channel + row * width * N:c * channel + (row + 1) * width * N]
            if row < top or row >= top + H or last <= first:
                line[:] = 0
            else:
                line[:first * N] = 0
                line[last * N:] = 0
                source = x[c, row - top].reshape(-1)[(first - left) * N:]
                for i in range((last - first) * N):
                    line[first * N + i] = source[i]


@kernel
def correlate(x, x_group, x_line, x_pixel, offsets, depth, w, groups, bias, start, relu,
              y, y_first, y_channel, y_line, y_pixel, rows, pixels, run, row_tasks, filter_tasks):
    """y[f, oy, ox] = f(start + sum over k of w[f, k] x[oy, ox, k]) on runs of `run` elements; all steps in bytes.

    Run (oy, ox) of tap k stands at oy x_line + ox x_pixel + offsets[k], and x_group further in the next group; its result at
    y_first + f y_channel + oy y_line + ox y_pixel. w (groups * F, K). Taps are taken `depth` at a time, so that
    their weights stay in the cache.
    """
    K = w.shape[1]
    F = w.shape[0] // groups
    blocks, all_vectors = (F + ROWS - 1) // ROWS, (run + LANES - 1) // LANES
    for task in prange(groups * row_tasks * filter_tasks):
        group, rest = task // (row_tasks * filter_tasks), task % (row_tasks * filter_tasks)
        i, j = rest // filter_tasks, rest % filter_tasks
        first_filter, last_filter = blocks * j // filter_tasks * ROWS, min(F, blocks * (j + 1) // filter_tasks * ROWS)
        w_group = w.ctypes.data + 4 * K * F * group
        first = 0
        while True:                                                     # once at least: without taps the start is stored
            taps = min(depth, K - first)
            begin, activate = start if first == 0 else FROM_Y, relu if first + taps == K else 0
            for oy in range(rows * i // row_tasks, rows * (i + 1) // row_tasks):
                for ox in range(pixels):
                    source = x.ctypes.data + group * x_group + oy * x_line + ox * x_pixel
                    target = y.ctypes.data + y_first + group * F * y_channel + oy * y_line + ox * y_pixel
                    at = 0
                    while at < all_vectors:
                        vectors = next_vectors(all_vectors - at)
                        tail = min(LANES, run - (at + vectors - 1) * LANES)
                        multiply_rows(source + at * VECTOR_BYTES, offsets.ctypes.data + 8 * first, taps, first_filter,
                                      last_filter, w_group + 4 * first, 4 * K, 4, target + at * VECTOR_BYTES, y_channel,
                                      bias.ctypes.data + 4 * group * F, begin, activate, vectors, tail)
                        at += vectors
            first += taps
            if first >= K:
                break


@kernel
def correlate_dW(x, x_group, x_line, x_pixel, offsets, dy, groups, rows, pixels, run, accumulate, dW, filter_tasks, tap_tasks):
    """dW (groups * F, K) of the same convolution, from dy (groups * F, rows, pixels, run): dots of runs of dy and x.

    Strip by strip of the positions, all tasks add what the strip says about their part of dW. So every sum runs over the
    positions in order, and what a strip needs stays in the cache.
    """
    K, F = offsets.size, dy.shape[0] // groups
    filter_blocks, tap_blocks = (F + DOT_ROWS - 1) // DOT_ROWS, (K + DOT_COLUMNS - 1) // DOT_COLUMNS
    columns = (K + tap_blocks - 1) // tap_blocks                        # equal blocks rather than a rest
    tap_blocks = (K + columns - 1) // columns
    vectors, tail = run // LANES, run % LANES
    # A line is a run, and lines of one set are equally far apart: rows with a single pixel, else the pixels of a row.
    sets, lines, set_y, line_y, set_x, line_x = (1, rows, 0, 4 * run, 0, x_line) if pixels == 1 else (
        rows, pixels, 4 * pixels * run, 4 * run, x_line, x_pixel)
    channel = 4 * rows * pixels * run
    g_offsets = np.minimum(np.arange(filter_blocks * DOT_ROWS), F - 1) * channel       # filters that are not there: the last
    sums = np.zeros((groups, filter_blocks * DOT_ROWS, K), np.float32)
    together = max(1, STRIP // run)
    strips = (lines + together - 1) // together
    strips_at_once = max(1, REGION // (groups * F * K * together * run))
    for s in range(sets):
        for first_strip in range(0, strips, strips_at_once):
            for task in prange(groups * filter_tasks * tap_tasks):
                group, rest = task // (filter_tasks * tap_tasks), task % (filter_tasks * tap_tasks)
                i, j = rest // tap_tasks, rest % tap_tasks
                g, source = dy.ctypes.data + group * F * channel + s * set_y, x.ctypes.data + group * x_group + s * set_x
                first_k, last_k = tap_blocks * j // tap_tasks * columns, min(K, tap_blocks * (j + 1) // tap_tasks * columns)
                for strip in range(first_strip, min(strips, first_strip + strips_at_once)):
                    line = strip * together
                    for v in range(0, max(vectors, 1), STRETCH):
                        part = min(STRETCH, vectors - v)
                        for f in range(filter_blocks * i // filter_tasks * DOT_ROWS,
                                       filter_blocks * (i + 1) // filter_tasks * DOT_ROWS, DOT_ROWS):
                            for k in range(first_k, last_k, columns):
                                dot_block(min(columns, last_k - k), g + line * line_y + v * VECTOR_BYTES,
                                          g_offsets.ctypes.data + 8 * f, line_y, source + line * line_x + v * VECTOR_BYTES,
                                          offsets.ctypes.data + 8 * k, line_x, min(together, lines - line), part,
                                          tail if v + part == vectors else 0,
                                          sums.ctypes.data + 4 * ((group * filter_blocks * DOT_ROWS + f) * K + k), 4 * K)
    for row in prange(groups * F):
        for k in range(K):
            dW[row, k] = sums[row // F, row % F, k] + (dW[row, k] if accumulate else np.float32(0))


@kernel
def columns_of(x, x_line, x_pixel, offsets, rows, pixels, run, cols):
    """im2col for short runs: cols (K, rows * pixels * run), row k all runs of tap k; steps in elements."""
    for k in prange(offsets.size):
        at = 0
        for oy in range(rows):
            for ox in range(pixels):
                start = offsets[k] + oy * x_line + ox * x_pixel
                for i in range(run):
                    cols[k, at + i] = x[start + i]
                at += run


@kernel
def swap_filters(W, groups, taps, turned):
    """W (groups * F, C, T) to turned (groups * C, F, len(taps)): the filters as the gradient by the input needs them."""
    F, C = W.shape[0] // groups, W.shape[1]
    for row in prange(groups * C):
        for f in range(F):
            for t in range(taps.size):
                turned[row, f, t] = W[row // C * F + f, row % C, taps[t]]
