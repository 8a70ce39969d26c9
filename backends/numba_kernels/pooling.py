"""Max pooling and its gradient, row by row of the result. A feature map (C, H, W, N) is the matrix (C*H, W*N) here.

`geometry` is (C, H, W, OH, OW, N, KH, KW, stride, stride, dilation, dilation, padding at the top, at the left).
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba_kernels.jit import inline, kernel


@inline
def beats(value, best):
    """A larger value wins, and a NaN over everything but a NaN."""
    return (best == best) & (not value <= best)


@inline
def first_inside(at, dilation, taps, size):
    """The first tap that falls on the input, where tap k reads element at + k * dilation of `size`; 0 if none does."""
    k = max(0, -(at // dilation))
    return k if k < taps and at + k * dilation < size else 0


@inline
def outputs(shift, stride, size, out_size):
    """Outputs lo .. hi - 1 are those that read inside the input, where output o reads element o * stride + shift."""
    lo = max(0, -(shift // stride))
    hi = min(out_size, (size - 1 - shift) // stride + 1)
    return lo, hi


@kernel
def max_pool(x, y, argmax, geometry):
    """x (C*H, W*N) -> y, argmax (C*OH, OW*N): see Backend.max_pool2d."""
    C, H, W, OH, OW, N, KH, KW, sh, sw, dh, dw, top, left = geometry
    usual = KH == KW == 2 and top == left == 0 and (OH - 1) * sh + dh < H and (OW - 1) * sw + dw < W
    for row in prange(C * OH):
        c, oy = row // OH, row % OH
        at = oy * sh - top
        if usual:                                                       # 2x2 without padding: once over everything
            upper, lower = x[c * H + at], x[c * H + at + dh]
            for ox in range(OW):
                best, index = y[row, ox * N:(ox + 1) * N], argmax[row, ox * N:(ox + 1) * N]
                a, b = ox * sw * N, (ox * sw + dw) * N
                x0, x1, x2, x3 = upper[a:a + N], upper[b:b + N], lower[a:a + N], lower[b:b + N]
                for n in range(N):
                    value, k = x0[n], np.uint8(0)
                    wins = beats(x1[n], value)
                    value, k = (x1[n] if wins else value), (np.uint8(1) if wins else k)
                    wins = beats(x2[n], value)
                    value, k = (x2[n] if wins else value), (np.uint8(2) if wins else k)
                    wins = beats(x3[n], value)
                    value, k = (x3[n] if wins else value), (np.uint8(3) if wins else k)
                    best[n], index[n] = value, k
            continue
        first_row = first_inside(at, dh, KH, H) * KW
        for ox in range(OW):
            first = np.uint8(first_row + first_inside(ox * sw - left, dw, KW, W))
            for n in range(ox * N, (ox + 1) * N):
                y[row, n], argmax[row, n] = -np.inf, first
        for i in range(KH):
            iy = at + i * dh
            if 0 <= iy < H:
                for j in range(KW):
                    lo, hi = outputs(j * dw - left, sw, W, OW)
                    runs, length = (1, (hi - lo) * N) if sw == 1 else (hi - lo, N)
                    k = np.uint8(i * KW + j)
                    for run in range(runs):
                        a, b = (lo + run) * N, ((lo + run) * sw + j * dw - left) * N
                        best, index = y[row, a:a + length], argmax[row, a:a + length]
                        values = x[c * H + iy, b:b + length]
                        for n in range(length):
                            wins = beats(values[n], best[n])
                            best[n] = values[n] if wins else best[n]
                            index[n] = k if wins else index[n]


@kernel
def max_pool_backward(dy, argmax, dx, geometry):
    """dy, argmax (C*OH, OW*N) -> dx (C*H, W*N): every element adds up, in tap order, what it won."""
    C, H, W, OH, OW, N, KH, KW, sh, sw, dh, dw, top, left = geometry
    for row in prange(C * H):
        c, iy = row // H, row % H
        total = dx[row]
        for n in range(W * N):
            total[n] = 0
        for i in range(KH):
            oy = (iy + top - i * dh) // sh
            if 0 <= oy < OH and oy * sh == iy + top - i * dh:
                for j in range(KW):
                    lo, hi = outputs(j * dw - left, sw, W, OW)
                    runs, length = (1, (hi - lo) * N) if sw == 1 else (hi - lo, N)
                    k = np.uint8(i * KW + j)
                    for run in range(runs):
                        a, b = (lo + run) * N, ((lo + run) * sw + j * dw - left) * N
                        g, winner = dy[c * OH + oy, a:a + length], argmax[c * OH + oy, a:a + length]
                        share = total[b:b + length]
                        for n in range(length):
                            share[n] += g[n] if winner[n] == k else np.float32(0)
