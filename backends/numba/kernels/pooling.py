"""Max and average pooling and their gradients, row by row of the result.

(C, H, W, N) is the matrix (C*H, W*N) here. `sizes` is (H, W, OH, OW, N, KH, KW, stride, stride,
dilation, dilation, top padding, left padding). Column j of a window is inside the input for the
outputs spans[j, 0] .. spans[j, 1] - 1 of a row.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.jit import inline, kernel


@inline
def beats(value, best):
    """Whether `value` replaces `best`: if it is larger, or a NaN and `best` is not."""
    return (best == best) & (not value <= best)


@kernel
def max_pool(x, first, spans, sizes, plain, y, argmax):
    """x (C*H, W*N) -> y, argmax (C*OH, OW*N): see Backend.max_pool2d. first (OH, OW) is the first
    tap of each window that is inside the input.

    `plain`: 2x2 windows, none of which reaches into padding.
    """
    H, W, OH, OW, N, KH, KW, sh, sw, dh, dw, top, left = sizes
    for row in prange(y.shape[0]):
        oy, best, index = row % OH, y[row], argmax[row]
        at = row // OH * H + oy * sh - top  # the window's first row in x
        if plain:
            upper, lower = x[at], x[at + dh]
            for ox in range(OW):
                a, b = ox * sw * N, (ox * sw + dw) * N
                x0, x1, x2, x3 = upper[a:a + N], upper[b:b + N], lower[a:a + N], lower[b:b + N]
                out, tap = best[ox * N:(ox + 1) * N], index[ox * N:(ox + 1) * N]
                for n in range(N):
                    value, k = x0[n], np.uint8(0)
                    if beats(x1[n], value):
                        value, k = x1[n], np.uint8(1)
                    if beats(x2[n], value):
                        value, k = x2[n], np.uint8(2)
                    if beats(x3[n], value):
                        value, k = x3[n], np.uint8(3)
                    out[n], tap[n] = value, k
            continue
        for ox in range(OW):
            for n in range(ox * N, (ox + 1) * N):
                best[n], index[n] = -np.inf, first[oy, ox]
        for i in range(KH):
            if 0 <= oy * sh - top + i * dh < H:
                for j in range(KW):
                    lo, hi = spans[j, 0], spans[j, 1]
                    runs, length = (1, (hi - lo) * N) if sw == 1 else (hi - lo, N)
                    for run in range(lo, lo + runs):
                        a, b = run * N, (run * sw + j * dw - left) * N
                        values, out, tap = (x[at + i * dh, b:b + length], best[a:a + length],
                                            index[a:a + length])
                        for n in range(length):
                            wins = beats(values[n], out[n])
                            out[n] = values[n] if wins else out[n]
                            tap[n] = np.uint8(i * KW + j) if wins else tap[n]


@kernel
def max_pool_dx(dy, argmax, spans, sizes, dx):
    """dy, argmax (C*OH, OW*N) -> dx (C*H, W*N): each element is the sum, in tap order, of dy of the
    windows whose maximum it is."""
    H, W, OH, OW, N, KH, KW, sh, sw, dh, dw, top, left = sizes
    for row in prange(dx.shape[0]):
        total = dx[row]
        for n in range(total.size):
            total[n] = 0
        for i in range(KH):
            at = row % H + top - i * dh  # the stride times the output row that reads this one
            if 0 <= at < OH * sh and at % sh == 0:
                source = row // H * OH + at // sh
                for j in range(KW):
                    lo, hi = spans[j, 0], spans[j, 1]
                    runs, length = (1, (hi - lo) * N) if sw == 1 else (hi - lo, N)
                    for run in range(lo, lo + runs):
                        a, b = run * N, (run * sw + j * dw - left) * N
                        g, tap, out = (dy[source, a:a + length], argmax[source, a:a + length],
                                       total[b:b + length])
                        for n in range(length):
                            out[n] += g[n] if tap[n] == np.uint8(i * KW + j) else np.float32(0)


@kernel
def avg_pool(x, weight, spans, sizes, y):
    """x (C*H, W*N) -> y (C*OH, OW*N): the sum of each window's elements times its weight (OH,
    OW)."""
    H, W, OH, OW, N, KH, KW, sh, sw, dh, dw, top, left = sizes
    for row in prange(y.shape[0]):
        oy, total = row % OH, y[row]
        for n in range(total.size):
            total[n] = 0
        for i in range(KH):
            at = oy * sh - top + i * dh
            if 0 <= at < H:
                for j in range(KW):
                    lo, hi = spans[j, 0], spans[j, 1]
                    runs, length = (1, (hi - lo) * N) if sw == 1 else (hi - lo, N)
                    for run in range(lo, lo + runs):
                        a, b = run * N, (run * sw + j * dw - left) * N
                        values, out = x[row // OH * H + at, b:b + length], total[a:a + length]
                        for n in range(length):
                            out[n] += values[n]
        for ox in range(OW):
            for n in range(ox * N, (ox + 1) * N):
                total[n] *= weight[oy, ox]


@kernel
def avg_pool_dx(dy, weight, spans, sizes, dx):
    """dy (C*OH, OW*N) -> dx (C*H, W*N): each element is the sum of its shares of the windows that
    contain it."""
    H, W, OH, OW, N, KH, KW, sh, sw, dh, dw, top, left = sizes
    for row in prange(dx.shape[0]):
        total = dx[row]
        for n in range(total.size):
            total[n] = 0
        for i in range(KH):
            at = row % H + top - i * dh                                 # as in max_pool_dx
            if 0 <= at < OH * sh and at % sh == 0:
                oy = at // sh
                for j in range(KW):
                    for ox in range(spans[j, 0], spans[j, 1]):
                        b, share = (ox * sw + j * dw - left) * N, weight[oy, ox]
                        g, out = dy[row // H * OH + oy, ox * N:(ox + 1) * N], total[b:b + N]
                        for n in range(N):
                            out[n] += g[n] * share
