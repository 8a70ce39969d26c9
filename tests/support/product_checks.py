"""Checks of matrix products and convolutions: like base.py in norm, over a grid of problems; and
mistakes they must notice."""

from __future__ import annotations

import dataclasses
import functools
import itertools
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
from kernel_setting import Mutant, Setting, base
from parity import distance, normal
from tiers import Number

from xpnet.backends import Window
from xpnet.backends.cupy import conv as cupy_conv
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import plans as cuda_plans
from xpnet.backends.cupy import product as cuda_product
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K, Math, Plan
from xpnet.backends.cupy.product import Operand

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
    """Convolutions are computed in this way, if it is possible for them: "image", columns are read
    from it; "columns", they are written, so many bytes at a time; "warpgroups"."""
    before, cupy_conv.AT_A_TIME = cupy_conv.AT_A_TIME, at_a_time
    backend._faster = (                         # type: ignore[method-assign]
        lambda method, ways, *about: way if way in ways else list(ways)[-1])
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
                    def told(math: Math, M: int, N: int, K: int, groups: int, gpu: Any) -> Plan:
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


# --- bank conflicts ------------------------------------------------------------------------------

def wavefronts(accesses: np.ndarray) -> Counter[tuple[int, int]]:
    """{(bytes per thread, wavefronts): number} of the accesses (32 threads, number, 2) of a warp.

    A wavefront moves at most 4 bytes from or to each of the 32 banks. Up to 4 bytes per thread, all
    threads of a warp take part in it, 16 threads for 8 bytes, 8 for 16 bytes. Those that access the
    same word share it.
    """
    found: Counter[tuple[int, int]] = Counter()
    sizes = accesses[0, :, 1]
    assert np.all(accesses[..., 1] == sizes)
    for size in set(sizes.tolist()):
        at = accesses[:, sizes == size, 0].T.reshape(-1, min(128 // size, 32))
        at = at - at.min(1, keepdims=True) // 128 * 128
        for pattern, number in zip(*np.unique(at, axis=0, return_counts=True)):
            found[size, of_threads(tuple(pattern.tolist()), size)] += int(number)
    return found


@functools.cache
def of_threads(first: tuple[int, ...], size: int) -> int:
    """The wavefronts of threads that access `size` bytes each from these bytes on, at once."""
    words = {byte // 4 + word for byte in first for word in range(max(size // 4, 1))}
    return max(Counter(word % 32 for word in words).values())


def library_of(backend: CupyBackend) -> Any:
    """The library of the products; it is built at their first launch."""
    one = backend.asarray(np.ones((1, 1), np.float32))
    backend.gemm(one, one)
    library, = (library for library in backend.xp.libraries
                if any(name.startswith("product<") for name in library.numbers))
    return library


def of_a_step(backend: CupyBackend, math: Math, tile: tuple[int, int],
              reading: tuple[str, str, bool]) -> Counter[tuple[int, int]]:
    """The `wavefronts` of a block in one step: what one more step along k adds."""
    (rows, columns), (order_a, order_b, image) = tile, reading
    dtype = {2: np.float16, 4: np.float32, 8: np.float64}[math.itemsize]
    found = []
    for steps in (4, 5):
        K, N, window = steps * math.tile_k, columns, None
        x: Any = numbers(Setting(backend, (1, 1, 1, 1), Window.make(1), dtype, normal, 0, False),
                         *((K, N) if order_b == ACROSS_K else (N, K)))
        if image:                   # 1 x 1 windows, so that taps are channels
            channels, samples = (K, N) if order_b == ACROSS_K else (N, K)
            x = x.reshape(channels, 1, 1, samples)
            window = cuda_launch.window_struct(x.shape, Window.make(1))
        a = backend.asarray(np.ones((rows, K) if order_a == ALONG_K else (K, rows), dtype))
        x, c = backend.asarray(x), backend.empty((rows, N), dtype)
        sizes = 1, rows, N, K
        result = cuda_product.Result(c, N, 0, None, None, False)
        product_library = library_of(backend)
        product_library.note_accesses(True)
        cuda_product._tiled(backend, math, cuda_plans.cut(tile, 1, steps), sizes,
                            Operand(a, order_a, a.shape[1]),
                            Operand(x, order_b, N if order_b == ACROSS_K else K, 0, window),
                            result)
        threads = [product_library.accesses(thread) for thread in range(1024)]
        product_library.note_accesses(False)
        total: Counter[tuple[int, int]] = Counter()
        for warp in range(0, 1024, 32):
            if len(threads[warp]):
                total += wavefronts(np.stack(threads[warp:warp + 32]))
        found.append(total)
    assert not found[0] - found[1]
    return found[1] - found[0]


def banks(backend: CupyBackend, words: list[str], number: Number) -> None:
    """In the main loop of a product, no access to shared memory waits for a bank, with two
    exceptions that are small."""
    for math in cuda_plans.MATHS:
        for tile, reading in itertools.product(math.tiles, cuda_plans.READINGS):
            name = cuda_plans.kernel_name(math, Plan(*tile, 1, 1), *reading)
            if not any(word in name for word in words):
                continue
            found, (_, order_b, image) = of_a_step(backend, math, tile, reading), reading
            late = {kind: number for kind, number in found.items() if kind[1] > 1}
            if math.name == "Fma<__half>" and order_b == ALONG_K:
                late.pop((8, 2), None)                  # a type for GPUs without matrix units
            if image and order_b == ALONG_K:
                # The position of the pixel that a thread copies, once in a step.
                threads = cuda_plans.threads(math, Plan(*tile, 1, 1))
                assert late.pop((16, 4 if math.name == "Half" else 2)) == threads // 8, name
            assert not late, f"{name}: {late}"


MUTANTS: dict[str, Mutant] = {
    "tiles are read before their copies arrived": ("product", "copies_wait<STAGES - 2>();",
                                                   "copies_wait<STAGES - 1>();", "gemm"),
    "tiles are overwritten while others read them": (
        "product", "step's are free\n        __syncthreads();",
        "step's are free\n        __syncwarp();", "gemm"),
    "two splits add the same step": ("product", "min(p.steps, (", "min(p.steps + (p.splits > 1), (",
                                     "gemm"),
    "the next tile is read from the same place": ("product", "? Tile::LINE : Tile::LINES * ld;",
                                                  "? 0 : Tile::LINES * ld;", "gemm"),
    "k past the end of the matrix is read": ("product", "? places : lines) -= Tile::ORDER",
                                             "? places : lines) -= 0 * Tile::ORDER", "gemm"),
    "a thread passes the address of another matrix": ("sums", "group = FIRST ? lane / 8 % 2 :",
                                                      "group = FIRST ? lane / 4 % 2 :", "gemm"),
    "matrices are given to the units in another order": (
        "sums", "[FIRST ? m / 2 : m % 2]", "[FIRST ? m % 2 : m / 2]", "gemm"),
    "lines are read in another order than they are put back": (
        "sums", "g / 4 * 16 + group % 4 * 4", "g / 4 * 16 + group % 4 * 4 % 16 * 0", "gemm"),
    "16 bytes of all lines are in the same banks": (
        "tiles", "PIECES = (LINE < BANKS ? LINE : BANKS) / WIDE", "PIECES = 1", "banks"),
    "an accumulated gradient is replaced": ("product", "T(p.accumulate ? Number(y.at[k]) + z : "
                                                       "z)", "T(z)", "conv2d"),
    "the bias of the first group for all": ("product", "p.has_bias ? group * p.M : 0", "0",
                                            "conv2d"),
    "filters are not turned": ("product", "taps + taps - 1 - tap", "taps + tap", "conv2d"),
    "positions are overwritten before they are used": ("product", "look_up(at / BATCH + 1)",
                                                       "look_up(at / BATCH + 2)", "conv2d"),
    "a quotient is too small": ("tiles", "__umulhi(2 * n, d.magic)",
                                "__umulhi(2 * n, d.magic - 1)", "conv2d"),
    "a tap's dilation is forgotten": ("tiles", "(int)(ci - c * w.KH) * w.dilation_h",
                                      "(int)(ci - c * w.KH)", "conv2d"),
    "padding is read": ("tiles", "(unsigned)y < (unsigned)w.H &&", "y < w.H &&", "conv2d"),
}
