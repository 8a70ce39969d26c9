"""The logistic function, and activations that multiply z by a function between 0 and 1.

One pass forward and one backward; NumPy needs about twelve. z is (n,) here. `which` is tested
outside of the loops, so that each loop is vectorised. The formulas are those of activations.py, in
its order. f(NaN) is NaN, and at an infinity the result is the limit.
"""

from __future__ import annotations

from math import pi, sqrt

import numpy as np
from numba import prange

from xpnet.backends.erf import CENTRE, END, P_SINGLE
from xpnet.backends.numba.kernels.activation import PIECE, add_up
from xpnet.backends.numba.kernels.exponential import exponential, polynomial
from xpnet.backends.numba.kernels.jit import inline, kernel
from xpnet.backends.numba.kernels.sums import total

NAMES = ("hard_swish", "silu", "swish", "gelu", "gelu_tanh", "mish")
NUMBERS: dict[str | None, int] = {name: number for number, name in enumerate(NAMES)}
HARD_SWISH, GELU, GELU_TANH, MISH = (NUMBERS[name]
                                     for name in ("hard_swish", "gelu", "gelu_tanh", "mish"))
# activations whose derivative follows from the output
NUMBERS |= dict.fromkeys(("sigmoid", "logistic"), SIGMOID := len(NAMES))

ZERO, HALF, ONE, TWO, THREE = (np.float32(number) for number in (0, 0.5, 1, 2, 3))
SIXTH = np.float32(1 / 6)
# beyond FAR one factor is 0 and the other one could be infinite
FAR, LOW = np.float32(1e4), np.float32(-1e30)
ROOT_HALF, DENSITY = np.float32(sqrt(0.5)), np.float32(1 / sqrt(2 * pi))
MIDDLE, LAST = np.float32(CENTRE), np.float32(END)
tail_series = polynomial(P_SINGLE)
BEND, CUBE, SQUARE = np.float32(2 * sqrt(2 / pi)), np.float32(0.044715), np.float32(0.134145)


@inline
def between(z, low, high):
    return low if z < low else high if z > high else z


@inline
def logistic(u):
    """(1 / (1 + exp(-u)), its derivative)."""
    t = exponential(-abs(u))
    r = ONE / (ONE + t)
    return (t if u < ZERO else ONE) * r, t * r * r


@inline
def normal(z):
    """(the probability that a standard normal variable is below z, its density at z); see
    erf.py."""
    a = abs(z) * ROOT_HALF
    a = LAST if a > LAST else a
    t = (a - MIDDLE) / (a + MIDDLE)
    e = exponential(-a * a)
    tail = HALF * e * tail_series(t) / (ONE + TWO * a)
    return tail if z < ZERO else ONE - tail, e * DENSITY


@inline
def bend(z):
    """(u, u') of the tanh form of GELU, which is z logistic(u)."""
    z = between(z, -FAR, FAR)
    return BEND * (z + CUBE * z * z * z), BEND * (ONE + SQUARE * z * z)


@inline
def mish_weight(z):
    """(tanh(log(1 + exp(z))), its derivative), rational in t = exp(-|z|)."""
    t = exponential(-abs(z))
    above = t * (t + TWO) if z < ZERO else ONE + TWO * t
    below = above + (TWO if z < ZERO else TWO * t * t)
    return above / below, TWO * TWO * t * (ONE + t) * (ONE if z < ZERO else t) / (below * below)


@kernel
def curve_forward(which, z, y, beta):
    """y = f(z)."""
    beta = np.float32(beta)
    for piece in prange(-(-z.size // PIECE)):
        values, out = z[piece * PIECE:(piece + 1) * PIECE], y[piece * PIECE:(piece + 1) * PIECE]
        if which == SIGMOID:
            for i in range(out.size):
                out[i] = logistic(values[i])[0]
        elif which == HARD_SWISH:
            for i in range(out.size):
                v = -THREE if values[i] < -THREE else values[i]
                out[i] = v * between((v + THREE) * SIXTH, ZERO, ONE)
        elif which == GELU:
            for i in range(out.size):
                out[i] = (LOW if values[i] < LOW else values[i]) * normal(values[i])[0]
        elif which == GELU_TANH:
            for i in range(out.size):
                out[i] = (LOW if values[i] < LOW else values[i]) * logistic(bend(values[i])[0])[0]
        elif which == MISH:
            for i in range(out.size):
                out[i] = (LOW if values[i] < LOW else values[i]) * mish_weight(values[i])[0]
        else:
            for i in range(out.size):
                near = between(values[i], LOW, -LOW)
                u = beta * near
                out[i] = (near if u < ZERO else values[i]) * logistic(u)[0]


@kernel
def curve_backward(which, dy, z, dz, beta, sums, bias_grad, accumulate):
    """dz = dy f'(z) and bias_grad = its sums over rows; dy, z, dz (rows, size), sums (rows, pieces)
    is scratch."""
    beta = np.float32(beta)
    pieces = sums.shape[1]
    for item in prange(sums.size):
        row, start = item // pieces, item % pieces * PIECE
        g, values, out = (dy[row, start:start + PIECE], z[row, start:start + PIECE],
                          dz[row, start:start + PIECE])
        if which == HARD_SWISH:
            for i in range(out.size):
                v = values[i]
                out[i] = ZERO if v <= -THREE else ONE if v >= THREE else (v + v + THREE) * SIXTH
        elif which == GELU:
            for i in range(out.size):
                below, density = normal(values[i])
                out[i] = below + between(values[i], -FAR, FAR) * density
        elif which == GELU_TANH:
            for i in range(out.size):
                u, du = bend(values[i])
                s, ds = logistic(u)
                out[i] = s + between(values[i], -FAR, FAR) * du * ds
        elif which == MISH:
            for i in range(out.size):
                w, dw = mish_weight(values[i])
                out[i] = w + between(values[i], -FAR, FAR) * dw
        else:
            for i in range(out.size):
                u = between(beta * between(values[i], LOW, -LOW), -FAR, FAR)
                s, ds = logistic(u)
                out[i] = s + u * ds
        for i in range(out.size):
            out[i] *= g[i]
        sums[row, item % pieces] = total(out)
    add_up(sums, bias_grad, accumulate)
