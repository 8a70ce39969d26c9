"""Checks of matrix products and convolutions: like base.py in norm, over a grid of problems; and
mistakes they must notice."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from kernel_setting import Mutant, Setting, base
from parity import distance, normal

from xpnet.backends import Window
from xpnet.backends.cupy import conv as cupy_conv
from xpnet.backends.cupy import plans as cuda_plans
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.plans import Math, Plan

# ||a - b|| / ||b|| against float64: half rounds its result; everything is added in float.
TOLERANCE = {"Fma<__half>": 1e-3, "Fma<float>": 2e-6, "Fma<double>": 1e-14, "Half": 1e-3,
             "Tf32": 2e-6}


def operand(math: Math, a: np.ndarray) -> np.ndarray:
    """`a` in float64 as the product reads it: TF32 has ten bits of mantissa, ties away from 0."""
    if math.name == "Tf32":
        a = ((a.view(np.uint32) + np.uint32(0x1000)) & np.uint32(0xffffe000)).view(np.float32)
    return a.astype(np.float64)


def close(s: Setting, math: Math, result: Any, right: np.ndarray) -> None:
    error = distance(s.backend.to_numpy(result), right.astype(s.dtype))
    assert error <= TOLERANCE[math.name], f"{s} {math.name}: {error:.1e} away in norm"


def maths(s: Setting) -> Iterator[Math]:
    """Every arithmetic for the setting's type; the backend is told to use it."""
    for tf32 in ("never", "always") if s.dtype == np.float32 else ("never",):
        s.backend.tf32 = tf32
        for units in (False, True):
            s.backend.matrix_units = units
            if units and s.dtype != np.float64 and (s.dtype == np.float16 or tf32 == "always"):
                yield cuda_plans.MATRIX_UNITS[np.dtype(s.dtype)]
            elif not units and tf32 == "never":
                yield cuda_plans.SIMPLE[np.dtype(s.dtype)]
    s.backend.tf32, s.backend.matrix_units = "never", True


def numbers(s: Setting, *shape: int, seed: int = 0) -> np.ndarray:
    return normal(*shape, dtype=s.dtype, seed=seed)


def check_gemm(s: Setting) -> None:
    C, H, W, N = s.shape
    # some long enough to be split
    M, K, columns = 13 * C + H, 11 * W * (8 if C == 2 else 1), 9 * N + s.offset
    a, b, bias = numbers(s, M, K), numbers(s, K, columns, seed=1), numbers(s, M, seed=2)
    trans_a, trans_b = H % 2 == 0, W % 2 == 0
    operands = s.to_device(a.T.copy() if trans_a else a), s.to_device(b.T.copy() if trans_b else b)
    for math in maths(s):
        exact = operand(math, a) @ operand(math, b)
        result = s.backend.gemm(*operands, trans_a=trans_a, trans_b=trans_b, bias=s.to_device(bias),
                                activation="relu")
        close(s, math, result, np.maximum(exact + bias.astype(np.float64)[:, None], 0))
        before = numbers(s, M, columns, seed=3)
        out = s.to_device(before)
        assert s.backend.gemm(*operands, trans_a=trans_a, trans_b=trans_b, out=out,
                              accumulate=True) is out
        close(s, math, out, before.astype(np.float64) + exact)


def check_conv2d(s: Setting) -> None:
    C, _, _, N = s.shape
    groups = 2 if C == 4 and s.offset else 1         # not depthwise, which has kernels of its own
    F = groups * (1 + s.window.taps % 5 + 30 * (N % 2))
    OH, OW = s.window.output_size(*s.shape[1:3])
    x, W, bias = numbers(s, *s.shape), numbers(s, F, C // groups, *s.window.kernel,
                                               seed=1), numbers(s, F, seed=2)
    dy = numbers(s, F, OH, OW, N, seed=3)
    on = [s.to_device(a) for a in (x, W, bias, dy)]
    before = numbers(s, *W.shape, seed=4)
    ways = (cupy_conv.IMAGE, cupy_conv.COLUMNS) if s.backwards else (cupy_conv.IMAGE,)
    for math, way in ((math, way) for math in maths(s) for way in ways):
        wide = [operand(math, a) for a in (x, W, dy)]
        y = base.conv2d(wide[0], wide[1], s.window, groups=groups, bias=bias.astype(np.float64),
                        activation="tanh")
        dx = base.conv2d_dx(wide[2], wide[1], s.shape, s.window, groups=groups)
        dW = base.conv2d_dW(wide[0], wide[2], s.window, groups=groups)
        with columns_by(s.backend, way, 6000):
            close(s, math, s.backend.conv2d(on[0], on[1], s.window, groups=groups, bias=on[2],
                                            activation="tanh"), y)
            close(s, math, s.backend.conv2d_dx(on[3], on[1], s.shape, s.window, groups=groups), dx)
            out = s.to_device(before)
            s.backend.conv2d_dW(on[0], on[3], s.window, groups=groups, out=out, accumulate=True)
            close(s, math, out, before.astype(np.float64) + dW)


@contextmanager
def columns_by(backend: CupyBackend, way: str, at_a_time: int) -> Iterator[None]:
    """The columns of convolutions are read from the image, or written, so many bytes at a time."""
    before, cupy_conv.AT_A_TIME = cupy_conv.AT_A_TIME, at_a_time
    backend._faster = lambda *about: way        # type: ignore[method-assign]
    try:
        yield
    finally:
        cupy_conv.AT_A_TIME = before
        del backend._faster                     # type: ignore[method-assign]


GRIDS = {"gemm": check_gemm, "conv2d": check_conv2d}


def every_instantiation(backend: CupyBackend) -> None:
    """Each tile, split and whole, over each way of reading: the planner is told to take it."""
    window, planned = Window.make(3, padding=1), cuda_plans.plan
    try:
        for math in cuda_plans.MATHS:
            dtype = {2: np.float16, 4: np.float32, 8: np.float64}[math.itemsize]
            for tile in math.tiles:
                for splits in (1, 3):
                    def told(math: Math, M: int, N: int, K: int, groups: int) -> Plan:
                        used = tile if tile in math.tiles else math.tiles[0]    # noqa: B023
                        return cuda_plans.cut(used, splits, -(-K // math.tile_k))   # noqa: B023
                    cuda_plans.plan = told
                    s = Setting(backend, (3, 4, 5, 4), window, dtype, normal, 0, False)
                    # which of the operands is transposed
                    for dims in ((2, 3), (3, 2), (2, 2), (3, 3)):
                        check_gemm(dataclasses.replace(s, shape=(1, *dims, 4)))
                    check_conv2d(s)
    finally:
        cuda_plans.plan = planned


MUTANTS: dict[str, Mutant] = {
    "tiles are read before their copies arrived": ("product", "copies_wait<STAGES - 2>();",
                                                   "copies_wait<STAGES - 1>();", "gemm"),
    "tiles are overwritten while others read them": (
        "product", "step's are free\n        __syncthreads();",
        "step's are free\n        __syncwarp();", "gemm"),
    "two splits add the same step": ("product", "min(first + p.steps, (", "min(first + p.steps + "
                                                                          "(p.splits > 1), "
                                                                          "(", "gemm"),
    "matrix units read rows in another order": ("product", "8 * (q % 2), k + 4 * S * (q / "
                                                           "2)", "8 * (q / 2), k + 4 * S * (q % 2)",
                                                "gemm"),
    "an accumulated gradient is replaced": ("product", "T(p.accumulate ? Number(y.at[k]) + z : "
                                                       "z)", "T(z)", "conv2d"),
    "the bias of the first group for all": ("product", "p.has_bias ? group * p.M : 0", "0",
                                            "conv2d"),
    "filters are not turned": ("product", "taps + taps - 1 - tap", "taps + tap", "conv2d"),
    "a tap's dilation is forgotten": ("tiles", "(int)(ci % w.KH) * w.dilation_h",
                                      "(int)(ci % w.KH)", "conv2d"),
    "padding is read": ("tiles", "inside(a.y + b.y, w.H) &&", "a.y + b.y < w.H &&", "conv2d"),
}
