"""How a matrix product is distributed over a GPU: tiles, splits, shared memory. Needs no GPU.

A plan follows from the shape and the architecture alone; tuning.py says when another one is used.
Another plan gives other bits, because it adds the terms of the sums in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

import numpy as np

from xpnet.backends.cupy.launch import REMEMBERED, WINDOW, constant, struct

# Orders of operands as in tiles.cu, and their combinations that are used: (order of A, order of B,
# whether B is an image).
ALONG_K, ACROSS_K = "ALONG_K", "ACROSS_K"
READINGS = ((ALONG_K, ACROSS_K, False), (ALONG_K, ALONG_K, False), (ACROSS_K, ACROSS_K, False),
            (ACROSS_K, ALONG_K, False), (ALONG_K, ACROSS_K, True), (ALONG_K, ALONG_K, True))

# The argument `Product p` of the kernels: the fields of the struct in product.cu, in its order.
PRODUCT = np.dtype([(name, np.int64) for name in ("lda", "ldb", "ldc", "a_group", "b_group",
                                                  "c_group")]
                   + [(name, np.int32) for name in ("M", "N", "K", "splits", "steps", "wide_a",
                                                    "wide_b", "wide_c", "has_bias", "activation",
                                                    "accumulate")], align=True)

# The argument `Image image`: the window, and a Divisor for N, OW, KH and KW.
DIVISORS = ("N", "OW", "KH", "KW")
DIVISOR = np.dtype([("magic", np.uint32), ("shift", np.int32)])
IMAGE = np.dtype([("window", WINDOW), *((f"by_{name}", DIVISOR) for name in DIVISORS)])

SHORTEST = 8                # steps along k: splits are not shorter
LARGEST_GRID = 65535        # blocks along y and z
PLACE = 16                  # bytes of the struct Place in tiles.cu
BATCH = constant("product", "BATCH")         # positions that are computed together

# The one entry of a table that is not a plan: cuBLAS, for products of plain matrices.
CUBLAS = "cublas"
# From this number of multiply-adds, with all sides at least as long, the library multiplies.
LIBRARY_FROM, LIBRARY_SIDE = 1 << 28, 128
# And only from this depth, if a bias or an activation follows: that takes another pass over C,
# which our kernel does not need.
LIBRARY_DEPTH = 2048


@dataclass(frozen=True)
class Math:
    """The arithmetic of a product: the constants of the struct of that name in product.cu."""

    name: str
    itemsize: int
    tile_k: int
    stages: int
    tiles: tuple[tuple[int, int], ...]      # (rows, columns) that it is compiled for

    @property
    def units(self) -> bool:
        """Whether it uses the matrix units."""
        return not self.name.startswith("Fma")


SIMPLE = {dtype: Math(f"Fma<{name}>", dtype.itemsize, 16, 2, tiles) for dtype, name, tiles in (
    (np.dtype(np.float16), "__half", ((64, 64),)),
    (np.dtype(np.float32), "float", ((64, 64), (128, 128))),
    (np.dtype(np.float64), "double", ((64, 64),)))}
MATRIX_UNITS = {np.dtype(np.float16): Math("Half", 2, 32, 3, ((64, 64), (128, 128), (64, 256))),
                np.dtype(np.float32): Math("Tf32", 4, 16, 3, ((32, 128), (64, 64), (128, 128),
                                                              (64, 256), (128, 256)))}
MATHS = (*SIMPLE.values(), *MATRIX_UNITS.values())


@dataclass(frozen=True)
class Plan:
    """The tile of C that a block computes, the number of blocks that share the steps along k, and
    the number of steps of each of them, of tile_k elements."""

    rows: int
    columns: int
    splits: int
    steps: int

    @property
    def way(self) -> list[int]:
        """The entry of a table."""
        return [self.rows, self.columns, self.splits]

    def grid(self, M: int, N: int, groups: int) -> tuple[int, int, int]:
        return _tiles(M, N, self.rows, self.columns), self.splits, groups


@dataclass(frozen=True)
class Gpu:
    """What plans depend on: multiprocessors of the GPU, KiB of shared memory in each of them."""

    multiprocessors: int
    shared: int


# By compute capability, not from the device: all GPUs of an architecture get the same plans, and
# with them the same bits, whether they are whole or a part, and whatever their model.
GPUS = {80: Gpu(108, 164), 86: Gpu(84, 100), 87: Gpu(16, 164), 89: Gpu(128, 100),
        90: Gpu(132, 228), 100: Gpu(148, 228), 120: Gpu(170, 100)}


def gpu(capability: int) -> Gpu:
    """The GPU that plans are made for; an unknown one is like the last known one before it."""
    return GPUS[max((known for known in GPUS if known <= capability), default=80)]


@lru_cache(REMEMBERED)
def plan(math: Math, M: int, N: int, K: int, groups: int, gpu: Gpu = GPUS[90]) -> Plan:
    """The tile with the least work for the busiest multiprocessor, and splits if there are too few
    tiles."""
    steps = -(-K // math.tile_k)

    def split(tile: tuple[int, int]) -> Plan:
        """If there are fewer tiles than multiprocessors, as many splits as run at once."""
        blocks = groups * _tiles(M, N, *tile)
        splits = (1 if blocks >= gpu.multiprocessors
                  else min(gpu.multiprocessors * resident(math, tile, gpu) // blocks,
                           steps // SHORTEST))
        return cut(tile, splits, steps)

    def work(plan: Plan) -> float:
        tile, blocks = (plan.rows, plan.columns), groups * plan.splits * _tiles(
            M, N, plan.rows, plan.columns)
        each = resident(math, tile, gpu)                # blocks of a multiprocessor in a full wave
        waves, rest = divmod(blocks, each * gpu.multiprocessors)
        return ((waves * each + -(-rest // gpu.multiprocessors))
                * plan.steps * plan.rows * plan.columns * cost(*tile))

    return min(map(split, math.tiles), key=work)                  # the first of equal ones


def cost(rows: int, columns: int) -> float:
    """Elements that move from or to shared memory for a multiply-add: each is copied once for the
    tile, and read once for each square that a warp computes."""
    return 1 / rows + 1 / columns + 2 / (64 if _large(rows, columns) else 32)


# {(matrix units, large tile): threads / 128 for which a multiprocessor has registers}
BLOCKS_OF_128 = {(True, True): 2, (True, False): 4, (False, True): 4, (False, False): 4}


def resident(math: Math, tile: tuple[int, int], gpu: Gpu) -> int:
    """Blocks of a convolution that a multiprocessor holds at once, by its registers and its shared
    memory, of which each block needs 1 KiB more than it gets."""
    plan = Plan(*tile, 1, 1)
    by_registers = BLOCKS_OF_128[math.units, _large(*tile)] * 128 // threads(math, plan)
    shared = shared_bytes(math, plan, ALONG_K, ACROSS_K, True) + 1024
    return min(by_registers, (gpu.shared << 10) // shared)


def by_library(M: int, N: int, K: int, groups: int, finished: bool) -> bool:
    """Whether cuBLAS multiplies plain matrices of this size, if it is there. `finished`: no bias
    and no activation follow."""
    return (groups * M * N * K >= LIBRARY_FROM and min(M, N, K) >= LIBRARY_SIDE
            and (finished or K >= LIBRARY_DEPTH))


def planned(math: Math, way: Any, K: int) -> Plan | None:
    """The plan for an entry of a table; None if the entry is not a plan."""
    if not (isinstance(way, list) and len(way) == 3 and tuple(way[:2]) in math.tiles
            and way[2] in range(1, LARGEST_GRID)):
        return None
    return cut((way[0], way[1]), way[2], -(-K // math.tile_k))


def other_plans(math: Math, K: int) -> list[list[int]]:
    """The plans to measure: every tile, with splits of at least four steps."""
    steps = -(-K // math.tile_k)
    splits = [s for s in (1, 2, 4, 8, 16, 32, 64, 128) if s == 1 or steps // s >= 4]
    return [[*tile, s] for tile in math.tiles for s in splits]


def cut(tile: tuple[int, int], splits: int, steps: int) -> Plan:
    """The plan with at most `splits` splits, none of them empty."""
    each = -(-steps // max(splits, 1))
    return Plan(*tile, -(-steps // each), each)


def _tiles(M: int, N: int, rows: int, columns: int) -> int:
    return -(-M // rows) * -(-N // columns)


def _large(rows: int, columns: int) -> bool:
    """Whether a tile has the large number of elements per thread; LARGE in product.cu."""
    return rows * columns >= 128 * 128


def threads(math: Math, plan: Plan) -> int:
    """Threads of a block, THREADS in product.cu: for the matrix units one warp per 64 x 64 (large
    tile) or 32 x 32 elements of the tile."""
    return (plan.rows * plan.columns // ((128 if math.units else 64)
                                         if _large(plan.rows, plan.columns) else 32))


def shared_bytes(math: Math, plan: Plan, a: str, b: str, image: bool) -> int:
    """Bytes of shared memory of a block, divided as in product.cu: the tiles, and for an image the
    `Place` structs; afterwards the same memory holds the sums, one slice after another."""
    tiles = math.stages * (plan.rows + plan.columns) * math.tile_k * math.itemsize
    places = 2 * BATCH + (plan.columns if b == ALONG_K else 0) if image else 0
    return max(tiles + PLACE * places, _slice_bytes(math, plan, a, b))


def _slice_bytes(math: Math, plan: Plan, a: str, b: str) -> int:
    """SLICE_ROWS, SLICE_COLUMNS and STRIDE of the structs in sums.cu."""
    rows, columns, padding = 64, plan.columns, 0
    if math.units:
        swapped = math.itemsize == 4 and b == ACROSS_K and a == ALONG_K
        rows, columns = 64 if _large(plan.rows, plan.columns) else 32, min(plan.columns, 128)
        padding = 4 if swapped else 8
    return rows * (columns + padding) * max(math.itemsize, 4)


@cache
def divisor(d: int) -> tuple[int, int]:
    """(magic, shift) of the Divisor for 1 <= d < 2^31.

    With m = magic = ceil(2^(31 + s) / d), the smallest s = shift with 2^s >= d, and
    e = m d - 2^(31 + s) < d <= 2^s:

        n m / 2^(31 + s) = n / d + n e / (d 2^(31 + s)),    n e < 2^31 2^s    for n < 2^31

    so the error is less than 1 / d, and floor(n m / 2^(31 + s)) = floor(n / d). As 2^(s - 1) < d,
    m < 2^32. The kernel takes the upper half of the product of 2 n and m, and shifts it by s.
    """
    shift = (d - 1).bit_length()
    return -(-(1 << 31 + shift) // d), shift


@lru_cache(REMEMBERED)
def image_struct(window: np.void) -> np.void:
    """The struct Image for a struct Window."""
    return struct(IMAGE, (window.item(), *(divisor(int(window[name])) for name in DIVISORS)))


def kernel_name(math: Math, plan: Plan, a: str, b: str, image: bool) -> str:
    return f"product<{math.name}, {plan.rows}, {plan.columns}, {a}, {b}, {str(image).lower()}>"


def kernel_names() -> tuple[str, ...]:
    """Every product that can be launched."""
    return tuple(kernel_name(math, Plan(*tile, 1, 1), *reading) for math in MATHS
                 for tile in math.tiles for reading in READINGS)
