"""Optimizer updates in one pass over memory, on flat buffers (n,) of which the first `decayed` elements decay."""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba_kernels.jit import inline, kernel

CHUNK = 1 << 14


@inline
def sgd_part(w, g, v, lr, mu, decay, momentum, nesterov):
    """sgd on a part of the buffers in which everything decays."""
    for i in range(w.size):
        step = g[i] + decay * w[i]
        if momentum:
            v[i] = mu * v[i] + step
            step = step + mu * v[i] if nesterov else v[i]
        w[i] -= lr * step


@inline
def adam_part(w, g, m, v, rate, b1, b2, new1, new2, eps, shrink, decay):
    """adam on a part of the buffers in which everything decays."""
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        w[i] = shrink * w[i] - rate * m[i] / (np.sqrt(v[i]) + eps)


@kernel
def sgd(w, g, v, hyper, momentum, nesterov, decayed):
    """Backend.sgd; without momentum v is not looked at."""
    lr, mu, decay = np.float32(hyper[0]), np.float32(hyper[1]), np.float32(hyper[2])
    n = w.size
    for chunk in prange(-(-n // CHUNK)):
        start, stop = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        middle = min(max(start, decayed), stop)
        sgd_part(w[start:middle], g[start:middle], v[start:middle], lr, mu, decay, momentum, nesterov)
        sgd_part(w[middle:stop], g[middle:stop], v[middle:stop], lr, mu, np.float32(0), momentum, nesterov)


@kernel
def adam(w, g, m, v, hyper, decoupled, decayed):
    """Backend.adam, with sqrt(c2) taken out of the root: w -= lr sqrt(c2) / c1 * m / (sqrt(v) + eps sqrt(c2))."""
    lr, b1, b2, eps, decay, c1, c2 = hyper[0], hyper[1], hyper[2], hyper[3], hyper[4], hyper[5], hyper[6]
    n, root = w.size, np.sqrt(c2)
    rate, floor = np.float32(lr * root / c1), np.float32(eps * root)
    old1, old2, new1, new2 = np.float32(b1), np.float32(b2), np.float32(1 - b1), np.float32(1 - b2)
    shrink, added = (np.float32(1 - lr * decay), np.float32(0)) if decoupled else (np.float32(1), np.float32(decay))
    for chunk in prange(-(-n // CHUNK)):
        start, stop = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
        middle = min(max(start, decayed), stop)
        adam_part(w[start:middle], g[start:middle], m[start:middle], v[start:middle], rate, old1, old2, new1, new2, floor,
                  shrink, added)
        adam_part(w[middle:stop], g[middle:stop], m[middle:stop], v[middle:stop], rate, old1, old2, new1, new2, floor,
                  np.float32(1), np.float32(0))
