"""exp of our own, from arithmetic that compilers turn into vectors; the library's is called number by number."""

from __future__ import annotations

import numpy as np
from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from xpnet.backends.numba_kernels.jit import inline

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
