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
def correlate(x, x_first, x_group, x_line, x_pixel, offsets, depth, w, groups, bias, start, relu,
              y, y_first, y_channel, y_line, y_pixel, rows, pixels, run, row_tasks, filter_tasks):
    """y[f, oy, ox] = f(start + sum over k of w[f, k] x[oy, ox, k]) on runs of `run` elements; all steps in bytes.

    Run (oy, ox) of tap k stands at x_first + oy x_line + ox x_pixel + offsets[k], and x_group further in the next group; its
    result at y_first + f y_channel + oy y_line + ox y_pixel. w (groups * F, K). Taps are taken `depth` at a time, so that
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
                    source = x.ctypes.data + x_first + group * x_group + oy * x_line + ox * x_pixel
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
def correlate_dW(x, x_first, x_group, x_line, x_pixel, offsets, dy, groups, rows, pixels, run, accumulate, dW,
                 filter_tasks, tap_tasks):
    """dW (groups * F, K) of the same convolution, from dy (groups * F, rows, pixels, run): dots of runs of dy and x.

    Each task owns some of dW and adds up all positions for it, in an order that depends on shapes only.
    """
    K = offsets.size
    F = dy.shape[0] // groups
    filter_blocks = (F + DOT_ROWS - 1) // DOT_ROWS
    tap_blocks = (K + DOT_COLUMNS - 1) // DOT_COLUMNS
    columns = (K + tap_blocks - 1) // tap_blocks                        # equal blocks rather than a rest
    tap_blocks = (K + columns - 1) // columns
    vectors, tail = run // LANES, run % LANES
    lines = max(1, 1024 // run)                                         # lines of a strip that stays in the cache
    y_line, y_channel = 4 * pixels * run, 4 * rows * pixels * run
    for task in prange(groups * filter_tasks * tap_tasks):
        group, rest = task // (filter_tasks * tap_tasks), task % (filter_tasks * tap_tasks)
        i, j = rest // tap_tasks, rest % tap_tasks
        first_f, last_f = filter_blocks * i // filter_tasks * DOT_ROWS, filter_blocks * (i + 1) // filter_tasks * DOT_ROWS
        first_k, last_k = tap_blocks * j // tap_tasks * columns, min(K, tap_blocks * (j + 1) // tap_tasks * columns)
        sums = np.zeros((last_f - first_f, last_k - first_k), np.float32)
        g_offsets = np.empty(last_f - first_f, np.int64)
        for f in range(first_f, last_f):
            g_offsets[f - first_f] = min(f, F - 1) * y_channel          # filters that are not there count for nothing
        g, source = dy.ctypes.data + group * F * y_channel, x.ctypes.data + x_first + group * x_group
        # With several pixels a row of them is a set of lines; else the rows themselves are.
        sets, all_lines, g_set, g_step, x_set, x_step = (1, rows, 0, y_line, 0, x_line) if pixels == 1 else (
            rows, pixels, y_line, 4 * run, x_line, x_pixel)
        for s in range(sets):
            for line in range(0, all_lines, lines):
                for v in range(0, max(vectors, 1), 96):
                    part = min(96, vectors - v)
                    g_at = g + s * g_set + line * g_step + v * VECTOR_BYTES
                    x_at = source + s * x_set + line * x_step + v * VECTOR_BYTES
                    for f in range(0, last_f - first_f, DOT_ROWS):
                        for k in range(first_k, last_k, columns):
                            dot_block(min(columns, last_k - k), g_at, g_offsets.ctypes.data + 8 * f, g_step, x_at,
                                      offsets.ctypes.data + 8 * k, x_step, min(lines, all_lines - line), part,
                                      tail if v + part == vectors else 0,
                                      sums.ctypes.data + 4 * (f * (last_k - first_k) + k - first_k), 4 * (last_k - first_k))
        for f in range(first_f, min(last_f, F)):
            for k in range(first_k, last_k):
                dW[group * F + f, k] = sums[f - first_f, k - first_k] + (dW[group * F + f, k] if accumulate else np.float32(0))


@kernel
def columns_of(x, x_first, x_line, x_pixel, offsets, rows, pixels, run, cols):
    """im2col for short runs: cols (K, rows * pixels * run), row k all runs of tap k."""
    for k in prange(offsets.size):
        source, at = (x_first + offsets[k]) // 4, 0
        for oy in range(rows):
            for ox in range(pixels):
                start = source + (oy * x_line + ox * x_pixel) // 4
                for i in range(run):
                    cols[k, at + i] = x[start + i]
                at += run


@kernel
def swap_filters(W, groups, turned):
    """W (groups * F, C, T) to turned (groups * C, F, T): the filters as the gradient by the input needs them."""
    F, C, T = W.shape[0] // groups, W.shape[1], W.shape[2]
    for row in prange(groups * C):
        group, c = row // C, row % C
        for f in range(F):
            for t in range(T):
                turned[row, f, t] = W[group * F + f, c, t]
