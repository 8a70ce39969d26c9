"""How the kernels of cuda_kernels/ are launched: template names, vector widths, grids and blocks. No GPU in it."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends.window import Window

Grid = tuple[int, int, int]

FOLDER = Path(__file__).with_name("cuda_kernels")
SHARED = ("common", "functions")
OPTIONS = ("-std=c++17",)
TYPES: dict[np.dtype[Any], str] = {np.dtype(np.float16): "__half", np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
ACTIVATIONS: dict[str | None, str] = {          # by their names in functions.cu
    None: "NONE", "relu": "RELU", "sigmoid": "SIGMOID", "tanh": "TANH", "scaled_tanh": "SCALED_TANH"}
INDEX_TYPES: dict[np.dtype[Any], str] = {np.dtype(np.uint8): "unsigned char", np.dtype(np.int32): "int"}

THREADS = 256                           # in a block: eight warps, enough to keep a multiprocessor busy
MAX_BLOCK_Z = 64                        # limits of the hardware
MAX_GRID = (2**31 - 1, 65535)
ACCESS = 16                             # bytes that one instruction loads or stores at most

# The argument `Window w` of the kernels, passed by value: the fields of the struct in common.cu, in its order.
WINDOW = np.dtype([(name, np.int32) for name in (
    "H", "W", "OH", "OW", "N", "KH", "KW", "stride_h", "stride_w", "top", "left", "dilation_h", "dilation_w")])


def source(family: str) -> str:
    """The text that is compiled for a family of kernels: what all share, then its own file."""
    return "\n".join((FOLDER / f"{name}.cu").read_text(encoding="utf-8") for name in (*SHARED, family))


def types_and_widths() -> list[tuple[str, int]]:
    """Name and vector width of every instantiation over the element types: ("__half", 1) .. ("double", 2)."""
    return [(name, width) for dtype, name in TYPES.items() for width in widths(dtype)]


def widths(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Elements that one access can move: 1, 2, 4 .. as far as 16 bytes reach."""
    return tuple(2**k for k in range((ACCESS // dtype.itemsize).bit_length()))


def vector_width(n: int, accesses: Sequence[tuple[int, int]]) -> int:
    """The largest width that divides n and suits each (address, itemsize); the first of them says how far 16 bytes reach.

    An access of several elements must lie at a multiple of its own size, and rows of n elements keep to that if width
    divides n.
    """
    width = ACCESS // accesses[0][1]
    while n % width or any(address % min(ACCESS, width * itemsize) for address, itemsize in accesses):
        width //= 2
    return width


def window_struct(x_shape: Sequence[int], window: Window) -> np.ndarray:
    """The window and the sizes around it as the struct that kernels take. An OverflowError where 32 bits are too few."""
    _, H, W, N = x_shape
    top, _, left, _ = window.padding
    return np.array((H, W, *window.output_size(H, W), N, *window.kernel, *window.stride, top, left, *window.dilation),
                    WINDOW)


def row_launch(channels: int, rows: int, columns: int, vectors: int) -> tuple[Grid, Grid]:
    """(grid, block) for kernels that walk over channels, rows, columns and vectors of samples, as common.cu says.

    A block's threads are spread over vectors first, then columns, and where a row is short over several rows.
    """
    x = min(_power_of_two(vectors), THREADS)
    y = min(_power_of_two(columns), THREADS // x)
    z = min(_power_of_two(rows), THREADS // (x * y), MAX_BLOCK_Z)
    return (_blocks(rows, z, MAX_GRID[0]), _blocks(channels, 1, MAX_GRID[1]), 1), (x, y, z)


def flat_launch(threads: int) -> tuple[Grid, Grid]:
    """(grid, block) for kernels that walk over one long array."""
    return (_blocks(threads, THREADS, MAX_GRID[0]), 1, 1), (THREADS, 1, 1)


def _power_of_two(n: int) -> int:
    """The smallest power of two that is not below n."""
    return 1 << max(n - 1, 0).bit_length()


def _blocks(items: int, each: int, most: int) -> int:
    return min(max(-(-items // each), 1), most)
