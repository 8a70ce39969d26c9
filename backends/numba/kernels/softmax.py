"""Softmax over the first axis of z (K, N), and its cross entropy. A task is a block of columns."""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.exponential import exponential
from xpnet.backends.numba.kernels.jit import inline, kernel

COLUMNS = 64


@inline
def softmax_block(z, lo, hi, scale, y, top, total):
    """y = scale softmax(z) in the columns lo .. hi - 1, and for each column the largest z (top) and
    the sum of exp(z - top)."""
    largest, sums = top[lo:hi], total[lo:hi]
    for n in range(sums.size):
        largest[n], sums[n] = z[0, lo + n], 0
    for k in range(1, z.shape[0]):
        row = z[k, lo:hi]
        for n in range(sums.size):
            largest[n] = row[n] if row[n] > largest[n] else largest[n]
    for k in range(z.shape[0]):
        row, out = z[k, lo:hi], y[k, lo:hi]
        for n in range(sums.size):
            out[n] = exponential(row[n] - largest[n])
            sums[n] += out[n]
    for k in range(z.shape[0]):
        out = y[k, lo:hi]
        for n in range(sums.size):
            out[n] *= scale / sums[n]


@kernel
def softmax(z, y, top, total):
    """y = softmax(z); z and y (K, N), top and total (N,) are scratch."""
    N = z.shape[1]
    for block in prange(-(-N // COLUMNS)):
        softmax_block(z, block * COLUMNS, min(N, (block + 1) * COLUMNS), np.float32(1), y, top,
                      total)


@kernel
def cross_entropy_of_labels(z, labels, dz, top, total):
    """The mean of log(sum of e^z) - z[label], and dz = (softmax(z) - 1 at the label) / N. A label
    that is out of range adds 0.

    z and dz (K, N), labels (N,), top and total (N,) are scratch.
    """
    K, N = z.shape
    share = np.float32(1 / N)
    for block in prange(-(-N // COLUMNS)):
        lo, hi = block * COLUMNS, min(N, (block + 1) * COLUMNS)
        softmax_block(z, lo, hi, share, dz, top, total)
        for n in range(lo, hi):
            label = labels[n]
            if 0 <= label < K:
                # in this order, because log(total) may be tiny compared with top
                total[n] = np.log(total[n]) - (z[label, n] - top[n])
                dz[label, n] -= share
            else:
                total[n] = 0
                for k in range(K):
                    dz[k, n] = 0
    loss = 0.0
    for n in range(N):
        loss += total[n]
    return loss / N


@kernel
def cross_entropy(z, target, dz, top, total, weight, losses):
    """The mean of sum over k of t (log(sum of e^z) - z), and dz = (softmax(z) sum(t) - t) / N. 0
    times anything is 0.

    z, target t and dz (K, N); top, total, weight and losses (N,) are scratch.
    """
    K, N = z.shape
    share = np.float32(1 / N)
    for block in prange(-(-N // COLUMNS)):
        lo, hi = block * COLUMNS, min(N, (block + 1) * COLUMNS)
        softmax_block(z, lo, hi, share, dz, top, total)
        largest, logs, sums, terms = top[lo:hi], total[lo:hi], weight[lo:hi], losses[lo:hi]
        for n in range(logs.size):
            logs[n], sums[n], terms[n] = np.log(logs[n]), 0, 0
        for k in range(K):
            t, row = target[k, lo:hi], z[k, lo:hi]
            for n in range(logs.size):
                sums[n] += t[n]
                terms[n] += np.float32(0) if t[n] == 0 else t[n] * (logs[n] - (row[n] - largest[n]))
        for k in range(K):
            t, out = target[k, lo:hi], dz[k, lo:hi]
            for n in range(logs.size):
                out[n] = (np.float32(0) if sums[n] == 0 else out[n] * sums[n]) - t[n] * share
    loss = 0.0
    for n in range(N):
        loss += losses[n]
    return loss / N
