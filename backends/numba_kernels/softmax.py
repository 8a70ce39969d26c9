"""Softmax over the first axis of z (K, N), and its cross entropy. A task is a block of columns.

exp is our own, from arithmetic that compilers turn into vectors; the library's is called number by number.
"""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import prange, types
from numba.extending import intrinsic

from xpnet.backends.numba_kernels.jit import inline, kernel

COLUMNS = 64
LOWEST = np.float32(-87)                # exp of less is 0: not worth the slow arithmetic on tiny numbers
LOG2_E, LN_2 = np.float32(1.442695041), np.float32(0.6931471806)
C2, C3, C4, C5, C6, C7 = (np.float32(1 / factorial) for factorial in (2, 6, 24, 120, 720, 5040))


@intrinsic
def power_of_two(typing, k):
    """2^k as a float32, k from -126 to 127, put together from its bits."""
    def code(context, builder, signature, arguments):
        bits = builder.shl(builder.add(arguments[0], ir.Constant(ir.IntType(32), 127)), ir.Constant(ir.IntType(32), 23))
        return builder.bitcast(bits, ir.FloatType())
    return types.float32(types.int32), code


@inline
def exponential(x):
    """exp(x) for x <= 0, by x = k ln 2 + r with |r| <= ln 2 / 2: exp(x) = 2^k (1 + r + r^2 / 2! + ... + r^7 / 7!)."""
    k = np.int32((x if x > LOWEST else LOWEST) * LOG2_E - np.float32(0.5))
    r = x - np.float32(k) * LN_2
    one = np.float32(1)
    series = one + r * (one + r * (C2 + r * (C3 + r * (C4 + r * (C5 + r * (C6 + r * C7))))))
    return np.float32(0) if x < LOWEST else series * power_of_two(k)


@inline
def exponentials(z, lo, hi, e, top, total):
    """e = exp(z - top), top the largest z and total the sum of e over k, for the columns lo .. hi - 1."""
    largest, sums = top[lo:hi], total[lo:hi]
    for n in range(hi - lo):
        largest[n], sums[n] = z[0, lo + n], 0
    for k in range(1, z.shape[0]):
        row = z[k, lo:hi]
        for n in range(hi - lo):
            largest[n] = row[n] if row[n] > largest[n] else largest[n]
    for k in range(z.shape[0]):
        row, out = z[k, lo:hi], e[k, lo:hi]
        for n in range(hi - lo):
            out[n] = exponential(row[n] - largest[n])
            sums[n] += out[n]


@kernel
def softmax(z, y, top, total):
    """y = softmax(z); z and y (K, N), top and total (N,) to work in."""
    K, N = z.shape
    for block in prange(-(-N // COLUMNS)):
        lo, hi = block * COLUMNS, min(N, (block + 1) * COLUMNS)
        exponentials(z, lo, hi, y, top, total)
        for k in range(K):
            out, sums = y[k, lo:hi], total[lo:hi]
            for n in range(hi - lo):
                out[n] /= sums[n]


@kernel
def cross_entropy_of_labels(z, labels, dz, top, total):
    """The mean of log(sum of e^z) - z[label], and dz = (softmax(z) - 1 at the label) / N. What is no label counts 0.

    z and dz (K, N), labels (N,), top and total (N,) to work in.
    """
    K, N = z.shape
    for block in prange(-(-N // COLUMNS)):
        lo, hi = block * COLUMNS, min(N, (block + 1) * COLUMNS)
        exponentials(z, lo, hi, dz, top, total)
        scale = np.empty(hi - lo, np.float32)
        for n in range(lo, hi):
            known = 0 <= labels[n] < K
            scale[n - lo] = np.float32(1 if known else 0) / (total[n] * np.float32(N))
            total[n] = np.log(total[n]) - (z[labels[n], n] - top[n]) if known else np.float32(0)
        for k in range(K):
            out = dz[k, lo:hi]
            for n in range(hi - lo):
                out[n] *= scale[n]
        for n in range(lo, hi):
            if 0 <= labels[n] < K:
                dz[labels[n], n] -= np.float32(1) / np.float32(N)
    loss = 0.0
    for n in range(N):
        loss += total[n]
    return loss / N


@kernel
def cross_entropy(z, target, dz, top, total):
    """The mean of sum over k of t (log(sum of e^z) - z), and dz = (softmax(z) sum(t) - t) / N.

    z, target t and dz (K, N), top and total (N,) to work in.
    """
    K, N = z.shape
    for block in prange(-(-N // COLUMNS)):
        lo, hi = block * COLUMNS, min(N, (block + 1) * COLUMNS)
        exponentials(z, lo, hi, dz, top, total)
        log_total, weight, sums = np.empty(hi - lo, np.float32), np.zeros(hi - lo, np.float32), np.zeros(hi - lo, np.float32)
        for n in range(hi - lo):
            log_total[n] = np.log(total[lo + n]) + top[lo + n]
        for k in range(K):
            t, row = target[k, lo:hi], z[k, lo:hi]
            for n in range(hi - lo):
                weight[n] += t[n]
                sums[n] += t[n] * (log_total[n] - row[n])
        for n in range(hi - lo):
            weight[n] /= total[lo + n]
            total[lo + n] = sums[n]
        for k in range(K):
            t, out = target[k, lo:hi], dz[k, lo:hi]
            for n in range(hi - lo):
                out[n] = (out[n] * weight[n] - t[n]) / np.float32(N)
    loss = 0.0
    for n in range(N):
        loss += total[n]
    return loss / N
