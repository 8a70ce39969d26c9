"""The other parts of convolutions besides products: padding, columns for short runs, flipped
filters."""

from __future__ import annotations

from numba import prange

from xpnet.backends.numba.kernels.jit import kernel

# channels that are swapped together: reads are contiguous, and so are writes
BLOCK = 16


@kernel
def pad(x, top, left, out, channel, height, width):
    """Copy x (C, H, W, N) into zeros (C, height, width, N), where channels are `channel` elements
    apart.

    out is flat. x[:, 0, 0] is copied to row `top` and column `left`; elements that would be outside
    are left out.
    """
    C, H, W, N = x.shape
    first, last = max(0, left), max(0, min(width, left + W))  # columns of out that x fills
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
def columns_of(x, x_line, x_pixel, offsets, rows, pixels, run, cols):
    """im2col for short runs: cols (K, rows * pixels * run), where row k has all runs of tap k.
    Steps are in elements."""
    for k in prange(offsets.size):
        at = 0
        for oy in range(rows):
            for ox in range(pixels):
                start = offsets[k] + oy * x_line + ox * x_pixel
                for i in range(run):
                    cols[k, at + i] = x[start + i]
                at += run


@kernel
def swap_filters(W, groups, taps, swapped):
    """W (groups * F, C, T) to swapped (groups * C, F, len(taps)): the filters as the input gradient
    needs them."""
    F, C = W.shape[0] // groups, W.shape[1]
    blocks = (C + BLOCK - 1) // BLOCK
    for task in prange(groups * blocks):
        group, first = task // blocks, task % blocks * BLOCK
        for f in range(F):
            for c in range(first, min(C, first + BLOCK)):
                for t in range(taps.size):
                    swapped[group * C + c, f, t] = W[group * F + f, c, taps[t]]
