"""exp in arithmetic that compilers vectorise; the library's exp computes one number per call."""

from __future__ import annotations

from collections.abc import Sequence
from math import factorial
from typing import Any

import numpy as np
from llvmlite import ir
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

from xpnet.backends.numba.kernels.instructions import FLOAT
from xpnet.backends.numba.kernels.jit import inline

# exp of less is rounded to 0: it would be subnormal, and arithmetic on those is slow
LOWEST = np.float32(-87.336)
LOG2_E = np.float32(1.442695041)
# k times the first one is exact up to k = 2^15
LN_2_HIGH, LN_2_LOW = np.float32(0.693359375), np.float32(-2.12194440e-4)


@intrinsic
def power_of_two(typing, k):
    """2^k as a float32, k from -126 to 127, assembled from its bits."""
    def code(context, builder, signature, arguments):
        bits = builder.shl(builder.add(arguments[0], ir.Constant(ir.IntType(32), 127)),
                           ir.Constant(ir.IntType(32), 23))
        return builder.bitcast(bits, ir.FloatType())
    return types.float32(types.int32), code


def polynomial(coefficients: Sequence[float]) -> Any:
    """An intrinsic for c0 + x (c1 + x (c2 + ...)) of a float32, in multiply-adds, fused if the
    processor supports it."""
    @intrinsic
    def evaluate(typing, x):
        def code(context, builder, signature, arguments):
            kind = ir.FunctionType(FLOAT, [FLOAT] * 3)
            multiply_add = cgutils.get_or_insert_function(builder.module, kind, "llvm.fmuladd.f32")
            *rest, total = (ir.Constant(FLOAT, float(np.float32(c))) for c in coefficients)
            for c in reversed(rest):
                total = builder.call(multiply_add, [arguments[0], total, c])
            return total
        return types.float32(types.float32), code
    return evaluate


exp_series = polynomial([1 / factorial(k) for k in range(8)])


@inline
def exponential(x):
    """exp(x) for x <= 0, by x = k ln 2 + r with |r| <= ln 2 / 2: exp(x) = 2^k (1 + r + r^2 / 2! +
    ... + r^7 / 7!)."""
    k = np.int32((x if x > LOWEST else LOWEST) * LOG2_E - np.float32(0.5))
    r = (x - np.float32(k) * LN_2_HIGH) - np.float32(k) * LN_2_LOW
    return np.float32(0) if x < LOWEST else exp_series(r) * power_of_two(k)
