"""The rules of rules.py in one pass over memory. A kernel has the name of its rule.

A kernel takes (w, g, *slots, hyper, held, decayed). Bit s of `held` says whether slot s is used; if
not, w is passed for it. The buffers (n,) are processed chunk by chunk, and each chunk in two parts:
in the first all weights decay, in the second none.
"""

from __future__ import annotations

import numpy as np
from numba import prange

from xpnet.backends.numba.kernels.jit import inline, kernel

CHUNK = 1 << 14


@inline
def parts(chunk, n, decayed):
    """(start, stop, decays) of the two parts of a chunk, the one that decays first; either may be
    empty."""
    start, stop = chunk * CHUNK, min(n, (chunk + 1) * CHUNK)
    middle = min(max(start, decayed), stop)
    return (start, middle, np.float32(1)), (middle, stop, np.float32(0))


@inline
def single(hyper, i):
    return np.float32(hyper[i])


@inline
def complement(hyper, i):
    """1 - hyper[i], in double precision: in float32, 1 - 0.999 would have only four correct
    digits."""
    return np.float32(1 - hyper[i])


@inline
def larger(old, new):
    """The larger of two numbers, or a NaN."""
    return new if old < new or new != new else old


@inline
def sign(x):
    """-1, 0 or 1; NaN for a NaN."""
    return np.float32(1) if x > 0 else np.float32(-1) if x < 0 else x


@inline
def momentum_part(w, g, v, lr, mu, decay, momentum, ahead):
    for i in range(w.size):
        step = g[i] + decay * w[i]
        if momentum:
            v[i] = mu * v[i] + step
            step = step + mu * v[i] if ahead else v[i]
        w[i] -= lr * step


@kernel
def sgd(w, g, v, hyper, held, decayed):
    lr, mu, decay = single(hyper, 0), single(hyper, 1), single(hyper, 2)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            momentum_part(w[a:b], g[a:b], v[a:b], lr, mu, decays * decay, held == 1, False)


@kernel
def nesterov(w, g, v, hyper, held, decayed):
    lr, mu, decay = single(hyper, 0), single(hyper, 1), single(hyper, 2)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            momentum_part(w[a:b], g[a:b], v[a:b], lr, mu, decays * decay, True, True)


@inline
def adam_part(w, g, m, v, hyper, shrink, decay):
    """With sqrt(c2) taken out of the root: w -= lr sqrt(c2) / c1 * m / (sqrt(v) + eps sqrt(c2))."""
    root = np.sqrt(hyper[6])
    rate, eps = np.float32(hyper[0] * root / hyper[5]), np.float32(hyper[3] * root)
    b1, b2, new1, new2 = (single(hyper, 1), single(hyper, 2), complement(hyper, 1),
                          complement(hyper, 2))
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        w[i] = shrink * w[i] - rate * m[i] / (np.sqrt(v[i]) + eps)


@kernel
def adam(w, g, m, v, hyper, held, decayed):
    one, decay = np.float64(1), single(hyper, 4)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            adam_part(w[a:b], g[a:b], m[a:b], v[a:b], hyper, one, decays * decay)


@kernel
def adamw(w, g, m, v, hyper, held, decayed):
    shrinking, zero = np.float32(hyper[0] * hyper[4]), np.float32(0)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            adam_part(w[a:b], g[a:b], m[a:b], v[a:b], hyper, 1 - decays * shrinking, zero)


@inline
def amsgrad_part(w, g, m, v, top, rate, b1, b2, new1, new2, c2, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        top[i] = larger(top[i], v[i])
        w[i] -= rate * m[i] / (np.sqrt(top[i] / c2) + eps)


@kernel
def amsgrad(w, g, m, v, top, hyper, held, decayed):
    rate, eps, decay, c2 = (np.float32(hyper[0] / hyper[5]), single(hyper, 3), single(hyper, 4),
                            single(hyper, 6))
    b1, b2, new1, new2 = (single(hyper, 1), single(hyper, 2), complement(hyper, 1),
                          complement(hyper, 2))
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            amsgrad_part(w[a:b], g[a:b], m[a:b], v[a:b], top[a:b], rate, b1, b2, new1, new2, c2,
                         eps, decays * decay)


@inline
def nadam_part(w, g, m, v, now, ahead, b1, b2, new1, new2, c2, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new1 * slope
        v[i] = b2 * v[i] + new2 * slope * slope
        w[i] -= (now * slope + ahead * m[i]) / (np.sqrt(v[i] / c2) + eps)


@kernel
def nadam(w, g, m, v, hyper, held, decayed):
    now, ahead, eps, decay, c2 = (single(hyper, 0), single(hyper, 1), single(hyper, 4),
                                  single(hyper, 5), single(hyper, 6))
    b1, b2, new1, new2 = (single(hyper, 2), single(hyper, 3), complement(hyper, 2),
                          complement(hyper, 3))
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            nadam_part(w[a:b], g[a:b], m[a:b], v[a:b], now, ahead, b1, b2, new1, new2, c2, eps,
                       decays * decay)


@inline
def adamax_part(w, g, m, u, rate, b1, b2, new, eps, decay):
    for i in range(w.size):
        slope = g[i] + decay * w[i]
        m[i] = b1 * m[i] + new * slope
        u[i] = larger(b2 * u[i], abs(slope) + eps)
        w[i] -= rate * m[i] / u[i]


@kernel
def adamax(w, g, m, u, hyper, held, decayed):
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
def adagrad(w, g, s, hyper, held, decayed):
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
def adadelta(w, g, v, u, hyper, held, decayed):
    lr, rho, new, eps, decay = (single(hyper, 0), single(hyper, 1), complement(hyper, 1),
                                single(hyper, 2), single(hyper, 3))
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
def rmsprop(w, g, v, mean, velocity, hyper, held, decayed):
    lr, alpha, new, eps, decay = (single(hyper, 0), single(hyper, 1), complement(hyper, 1),
                                  single(hyper, 2), single(hyper, 3))
    mu = single(hyper, 4)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            rmsprop_part(w[a:b], g[a:b], v[a:b], mean[a:b], velocity[a:b], lr, alpha, new, eps,
                         decays * decay, mu, held & 2 != 0, held & 4 != 0)


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
def rprop(w, g, before, s, hyper, held, decayed):
    lr, less, more, least, most = (single(hyper, 0), single(hyper, 1), single(hyper, 2),
                                   single(hyper, 3), single(hyper, 4))
    decay = single(hyper, 5)
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            rprop_part(w[a:b], g[a:b], before[a:b], s[a:b], lr, less, more, least, most,
                       decays * decay)


@inline
def lion_part(w, g, m, lr, b1, b2, new1, new2, shrink):
    for i in range(w.size):
        c = b1 * m[i] + new1 * g[i]
        w[i] = shrink * w[i] - lr * sign(c)
        m[i] = b2 * m[i] + new2 * g[i]


@kernel
def lion(w, g, m, hyper, held, decayed):
    lr, b1, b2, new1, new2 = (single(hyper, 0), single(hyper, 1), single(hyper, 2),
                              complement(hyper, 1), complement(hyper, 2))
    shrinking = np.float32(hyper[0] * hyper[3])
    for chunk in prange(-(-w.size // CHUNK)):
        for a, b, decays in parts(chunk, w.size, decayed):
            lion_part(w[a:b], g[a:b], m[a:b], lr, b1, b2, new1, new2, 1 - decays * shrinking)
