"""Optimizer updates in one pass over memory, on flat buffers (n,) of which the first `decayed` elements decay.

Each kernel goes through the buffers chunk by chunk, and through each chunk in two parts: one in which everything decays,
one in which nothing does.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba_kernels.jit import inline, kernel

CHUNK = 1 << 14


@inline
def parts(chunk, n, decayed):
    """(start, stop, decays) of the two parts of a chunk, the one that decays first; either may be empty."""
    start, stop = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
    middle = min(max(start, decayed), stop)
    return (start, middle, np.float32(1)), (middle, stop, np.float32(0))


@inline
def single(hyper, i):
    return np.float32(hyper[i])


@inline
def complement(hyper, i):
    """1 - hyper[i], in double precision: in float32 it would keep only four digits of 1 - 0.999."""
    return np.float32(1 - hyper[i])


@inline
def larger(old, new):
    """The larger of two numbers, or a NaN."""
    return new if old < new or new != new else old


@inline
def sign(x):
    """-1, 0 or 1; a NaN stays one."""
    return np.float32(1) if x > 0 else np.float32(-1) if x < 0 else x


@inline
def sgd_part(w, g, v, lr, mu, decay, momentum, nesterov):
    for i in range(w.size):
        step = g[i] + decay * w[i]
        if momentum:
            v[i] = mu * v[i] + step
            step = step + mu * v[i] if nesterov else v[i]
        w[i] -= lr * step


@kernel
def sgd(w, g, v, hyper, decayed, momentum, nesterov):
    """Backend.sgd; without momentum v is not looked at."""
    lr, mu, decay = single(hyper, 0), single(hyper, 1), single(hyper, 2)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            sgd_part(w[a:b], g[a:b], v[a:b], lr, mu, decays * decay, momentum, nesterov)


@inline
def adam_part(w, g, m, v, rate, b1, b2, new1, new2, eps, shrink, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        w[i] = shrink * w[i] - rate * m[i] / (np.sqrt(v[i]) + eps)


@kernel
def adam(w, g, m, v, hyper, decayed, decoupled):
    """Backend.adam, with sqrt(c2) taken out of the root: w -= lr sqrt(c2) / c1 * m / (sqrt(v) + eps sqrt(c2))."""
    lr, eps, decay, c1, c2 = hyper[0], hyper[3], hyper[4], hyper[5], hyper[6]
    root = np.sqrt(c2)
    rate, floor = np.float32(lr * root / c1), np.float32(eps * root)
    b1, b2, new1, new2 = single(hyper, 1), single(hyper, 2), complement(hyper, 1), complement(hyper, 2)
    shrinking, added = np.float32(lr * decay if decoupled else 0), np.float32(0 if decoupled else decay)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            adam_part(w[a:b], g[a:b], m[a:b], v[a:b], rate, b1, b2, new1, new2, floor, 1 - decays * shrinking, decays * added)


@inline
def amsgrad_part(w, g, m, v, top, rate, b1, b2, new1, new2, c2, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        top[i] = larger(top[i], v[i])
        w[i] -= rate * m[i] / (np.sqrt(top[i] / c2) + eps)


@kernel
def amsgrad(w, g, m, v, top, hyper, decayed):
    """Backend.amsgrad."""
    rate, eps, decay, c2 = np.float32(hyper[0] / hyper[5]), single(hyper, 3), single(hyper, 4), single(hyper, 6)
    b1, b2, new1, new2 = single(hyper, 1), single(hyper, 2), complement(hyper, 1), complement(hyper, 2)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            amsgrad_part(w[a:b], g[a:b], m[a:b], v[a:b], top[a:b], rate, b1, b2, new1, new2, c2, eps, decays * decay)


@inline
def nadam_part(w, g, m, v, now, ahead, b1, b2, new1, new2, c2, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        w[i] -= (now * slope + ahead * m[i]) / (np.sqrt(v[i] / c2) + eps)


@kernel
def nadam(w, g, m, v, hyper, decayed):
    """Backend.nadam."""
    now, ahead, eps, decay, c2 = single(hyper, 0), single(hyper, 1), single(hyper, 4), single(hyper, 5), single(hyper, 6)
    b1, b2, new1, new2 = single(hyper, 2), single(hyper, 3), complement(hyper, 2), complement(hyper, 3)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            nadam_part(w[a:b], g[a:b], m[a:b], v[a:b], now, ahead, b1, b2, new1, new2, c2, eps, decays * decay)


@inline
def adamax_part(w, g, m, u, rate, b1, b2, new, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new * slope
        u[i] = larger(b2 * u[i], abs(slope) + eps)
        w[i] -= rate * m[i] / u[i]


@kernel
def adamax(w, g, m, u, hyper, decayed):
    """Backend.adamax."""
    rate, eps, decay = np.float32(hyper[0] / hyper[5]), single(hyper, 3), single(hyper, 4)
    b1, b2, new = single(hyper, 1), single(hyper, 2), complement(hyper, 1)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            adamax_part(w[a:b], g[a:b], m[a:b], u[a:b], rate, b1, b2, new, eps, decays * decay)


@inline
def adagrad_part(w, g, s, lr, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        s[i] += slope * slope
        w[i] -= lr * slope / (np.sqrt(s[i]) + eps)


@kernel
def adagrad(w, g, s, hyper, decayed):
    """Backend.adagrad."""
    lr, eps, decay = single(hyper, 0), single(hyper, 1), single(hyper, 2)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            adagrad_part(w[a:b], g[a:b], s[a:b], lr, eps, decays * decay)


@inline
def adadelta_part(w, g, v, u, lr, rho, new, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        v[i] = rho * v[i] + new * slope * slope
        step = np.sqrt(u[i] + eps) / np.sqrt(v[i] + eps) * slope
        u[i] = rho * u[i] + new * step * step
        w[i] -= lr * step


@kernel
def adadelta(w, g, v, u, hyper, decayed):
    """Backend.adadelta."""
    lr, rho, new, eps, decay = single(hyper, 0), single(hyper, 1), complement(hyper, 1), single(hyper, 2), single(hyper, 3)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            adadelta_part(w[a:b], g[a:b], v[a:b], u[a:b], lr, rho, new, eps, decays * decay)


@inline
def rmsprop_part(w, g, v, mean, velocity, lr, alpha, new, eps, decay, mu, centered, momentum):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        v[i] = alpha * v[i] + new * slope * slope
        spread = v[i]
        if centered:
            mean[i] = alpha * mean[i] + new * slope
            spread -= mean[i] * mean[i]
            spread = np.float32(0) if spread < 0 else spread
        step = slope / (np.sqrt(spread) + eps)
        if momentum:
            velocity[i] = mu * velocity[i] + step
            step = velocity[i]
        w[i] -= lr * step


@kernel
def rmsprop(w, g, v, mean, velocity, hyper, decayed, centered, momentum):
    """Backend.rmsprop; a mean or a velocity that is not asked for is not looked at."""
    lr, alpha, new, eps, decay = single(hyper, 0), single(hyper, 1), complement(hyper, 1), single(hyper, 2), single(hyper, 3)
    mu = single(hyper, 4)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            rmsprop_part(w[a:b], g[a:b], v[a:b], mean[a:b], velocity[a:b], lr, alpha, new, eps, decays * decay, mu, centered,
                         momentum)


@inline
def rprop_part(w, g, before, s, lr, less, more, least, most, decay):
    zero, one = np.float32(0), np.float32(1)
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        same = slope * before[i]
        factor = more if same > zero else less if same < zero else one
        s[i] = min(max((lr if s[i] == zero else s[i]) * factor, least), most)
        before[i] = zero if same < zero else slope
        w[i] -= sign(before[i]) * s[i]


@kernel
def rprop(w, g, before, s, hyper, decayed):
    """Backend.rprop."""
    lr, less, more, least, most = single(hyper, 0), single(hyper, 1), single(hyper, 2), single(hyper, 3), single(hyper, 4)
    decay = single(hyper, 5)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            rprop_part(w[a:b], g[a:b], before[a:b], s[a:b], lr, less, more, least, most, decays * decay)


@inline
def lion_part(w, g, m, lr, b1, b2, new1, new2, shrink):
    for i in range(w.size):
        c = b1 * m[i] + new1 * g[i]
        w[i] = shrink * w[i] - lr * sign(c)
        m[i] = b2 * m[i] + new2 * g[i]


@kernel
def lion(w, g, m, hyper, decayed):
    """Backend.lion."""
    lr, b1, b2, new1, new2 = single(hyper, 0), single(hyper, 1), single(hyper, 2), complement(hyper, 1), complement(hyper, 2)
    shrinking = np.float32(hyper[0] * hyper[3])
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            lion_part(w[a:b], g[a:b], m[a:b], lr, b1, b2, new1, new2, 1 - decays * shrinking)
