"""How a matrix product is distributed over a GPU: tiles, splits, shared memory. Needs no GPU.

A plan follows from the shape alone; tuning.py says when another one is used. Another plan gives
other bits, because it adds the sums of a split product in another order.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

# Orders of operands as in tiles.cu, and the ways of reading them that occur: (A, B, is B an
# image?).
ALONG_K, ACROSS_K = "ALONG_K", "ACROSS_K"
READINGS = ((ALONG_K, ACROSS_K, False), (ALONG_K, ALONG_K, False), (ACROSS_K, ACROSS_K, False),
            (ACROSS_K, ALONG_K, False), (ALONG_K, ACROSS_K, True), (ALONG_K, ALONG_K, True))

# The argument `Product p` of the kernels: the fields of the struct in product.cu, in its order.
PRODUCT = np.dtype([(name, np.int64) for name in ("lda", "ldb", "ldc", "a_group", "b_group",
                                                  "c_group")]
                   + [(name, np.int32) for name in ("M", "N", "K", "splits", "steps", "wide_a",
                                                    "wide_b", "wide_c", "has_bias", "activation",
                                                    "accumulate")], align=True)

# of the GPU that plans are made for, whatever GPU it is: the same bits on all of them
MULTIPROCESSORS = 132
SHORTEST = 8                # steps along k; a walk is not split into shorter ones
# of a multiply-add in a small tile, against a large one, which loads half as much for each
SMALL_COST = 2
LARGEST_GRID = 65535        # blocks along y and z
PLACE = 16                  # bytes of a Place in tiles.cu

# the way, as a table has it, that is no plan: the library's, for products of plain matrices
CUBLAS = "cublas"


@dataclass(frozen=True)
class Math:
    """In what a product is computed; the constants of the struct of that name in product.cu."""

    name: str
    itemsize: int
    tile_k: int
    stages: int
    tiles: tuple[tuple[int, int], ...]      # (rows, columns) that it is compiled for

    @property
    def units(self) -> bool:
        """Whether the matrix units do it."""
        return not self.name.startswith("Fma")


SIMPLE = {dtype: Math(f"Fma<{name}>", dtype.itemsize, 16, 2, tiles) for dtype, name, tiles in (
    (np.dtype(np.float16), "__half", ((64, 64),)),
    (np.dtype(np.float32), "float", ((64, 64), (128, 128))),
    (np.dtype(np.float64), "double", ((64, 64),)))}
MATRIX_UNITS = {np.dtype(np.float16): Math("Half", 2, 32, 3, ((64, 64), (128, 128), (64, 256))),
                np.dtype(np.float32): Math("Tf32", 4, 16, 3,
                                           ((32, 128), (64, 64), (128, 128), (64, 256)))}
MATHS = (*SIMPLE.values(), *MATRIX_UNITS.values())


@dataclass(frozen=True)
class Plan:
    """A tile of C for each block, and how many blocks share the walk along k, `steps` of tile_k
    elements each."""

    rows: int
    columns: int
    splits: int
    steps: int

    @property
    def way(self) -> list[int]:
        """As a table has it."""
        return [self.rows, self.columns, self.splits]

    def grid(self, M: int, N: int, groups: int) -> tuple[int, int, int]:
        return _tiles(M, N, self.rows, self.columns), self.splits, groups


def plan(math: Math, M: int, N: int, K: int, groups: int) -> Plan:
    """The tiles that leave the least to do for the busiest multiprocessor; where they are too few,
    splits."""
    steps = -(-K // math.tile_k)

    def blocks(tile: tuple[int, int]) -> int:
        return groups * _tiles(M, N, *tile)

    def work(tile: tuple[int, int]) -> float:
        busy = min(blocks(tile) * max(steps // SHORTEST, 1) / MULTIPROCESSORS, 1)
        return blocks(tile) * tile[0] * tile[1] * (1 if _large(*tile) else SMALL_COST) / busy

    tile = min(math.tiles, key=work)                              # of equal ones the first
    splits = (1 if blocks(tile) >= MULTIPROCESSORS else min(-(-2 * MULTIPROCESSORS // blocks(tile)),
                                                            steps // SHORTEST))
    return cut(tile, splits, steps)


def planned(math: Math, way: Any, K: int) -> Plan | None:
    """The plan that a table's entry means; None where it means none."""
    if not (isinstance(way, list) and len(way) == 3 and tuple(way[:2]) in math.tiles
            and way[2] in range(1, LARGEST_GRID)):
        return None
    return cut((way[0], way[1]), way[2], -(-K // math.tile_k))


def other_plans(math: Math, K: int) -> list[list[int]]:
    """What is worth a measurement: every tile, with splits that leave each block a few steps."""
    steps = -(-K // math.tile_k)
    splits = [s for s in (1, 2, 4, 8, 16, 32, 64, 128) if s == 1 or steps // s >= 4]
    return [[*tile, s] for tile in math.tiles for s in splits]


def cut(tile: tuple[int, int], splits: int, steps: int) -> Plan:
    """The plan with about that many splits, none of them empty."""
    each = -(-steps // max(splits, 1))
    return Plan(*tile, -(-steps // each), each)


def _tiles(M: int, N: int, rows: int, columns: int) -> int:
    return -(-M // rows) * -(-N // columns)


def _large(rows: int, columns: int) -> bool:
    """Whether a thread takes more elements of such a tile; LARGE in product.cu."""
    return rows * columns >= 128 * 128


def threads(math: Math, plan: Plan) -> int:
    """Threads of a block, THREADS in product.cu: of matrix units a warp for 64 x 64 or 32 x 32
    elements of the tile."""
    return (plan.rows * plan.columns // ((128 if math.units else 64)
                                         if _large(plan.rows, plan.columns) else 32))


def shared_bytes(math: Math, plan: Plan, a: str, b: str, image: bool) -> int:
    """Shared memory of a block, as product.cu divides it: tiles in flight, and for an image the
    places it is read at; in the end the sums."""
    def tile(rows: int, order: str) -> int:
        along, lines = (math.tile_k, rows) if order == ALONG_K else (rows, math.tile_k)
        return lines * (along + (16 // math.itemsize if order == ALONG_K else 8)) * math.itemsize
    places = plan.columns + math.stages * math.tile_k if image else 0
    sums = plan.rows * (plan.columns + (8 if math.units else 0)) * max(math.itemsize, 4)
    return max(math.stages * (tile(plan.rows, a) + tile(plan.columns, b)) + PLACE * places, sums)


def kernel_name(math: Math, plan: Plan, a: str, b: str, image: bool) -> str:
    return f"product<{math.name}, {plan.rows}, {plan.columns}, {a}, {b}, {str(image).lower()}>"


def kernel_names() -> tuple[str, ...]:
    """Every product that can be launched."""
    return tuple(kernel_name(math, Plan(*tile, 1, 1), *reading) for math in MATHS
                 for tile in math.tiles for reading in READINGS)
