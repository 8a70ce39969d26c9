"""How the kernels in kernels/ are launched: template names, vector widths, grids, blocks. Needs no
GPU."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from functools import cache, lru_cache
from pathlib import Path
from typing import Any, cast

import numpy as np

from xpnet.backends.activations import FUSED
from xpnet.backends.window import Window

Grid = tuple[int, int, int]

FOLDER = Path(__file__).with_name("kernels")
SHARED = ("common", "functions", "rows")
# files that only some families need
NEEDED = {"product": ("ptx", "tiles", "sums"), "im2col": ("taps",), "max_pool": ("taps",),
          "avg_pool": ("taps",), "depthwise": ("taps",),
          "activation": ("curves",), "warpgroups": ("ptx", "tiles", "sums", "product")}
OPTIONS = ("-std=c++17",)
# Families whose instructions exist in one architecture only. NVRTC takes the more special one of
# two architectures, and CuPy names that of the GPU.
ARCHITECTURES = {"warpgroups": "sm_90a"}
TYPES: dict[np.dtype[Any], str] = {np.dtype(np.float16): "__half", np.dtype(np.float32): "float",
                                   np.dtype(np.float64): "double"}
# {activation: its name in functions.cu}
ACTIVATIONS: dict[str | None, str] = {None: "NONE", **{name: name.upper() for name in FUSED}}
INDEX_TYPES: dict[np.dtype[Any], str] = {np.dtype(np.uint8): "unsigned char",
                                         np.dtype(np.int32): "int"}

THREADS = 256  # in a block: eight warps, enough to keep a multiprocessor busy
REMEMBERED = 4096  # results of each function below that layers ask for again in every step
MAX_BLOCK_Z = 64                        # limits of the hardware
MAX_GRID = (2**31 - 1, 65535)           # in x, and in y and z
ACCESS = 16                             # bytes that one instruction loads or stores at most

# The argument `Window w` of the kernels, passed by value: the fields of the struct in common.cu, in
# its order.
WINDOW = np.dtype([(name, np.int32) for name in (
    "H", "W", "OH", "OW", "N", "KH", "KW", "stride_h", "stride_w", "top", "left", "dilation_h",
    "dilation_w")])

# The argument `Pieces p` of the kernels that sum over rows, likewise: see rows.cu.
PIECES = (np.dtype([("size", np.int64), ("length", np.int64), ("rows", np.int32),
                    ("per_row", np.int32)]))
TURN = 4                                # most vectors that a thread loads at once
ENOUGH = 2**17                          # threads that occupy the largest GPUs
KEPT = 16                               # vectors of 16 bytes that softmax keeps in registers
NEIGHBOURS = 4                          # threads that read 64 neighbouring bytes of a class
BLOCKS = 2048  # rows are cut into pieces for this number: a few per multiprocessor of large GPUs
MANY = 2**17  # blocks of at least one turn, a hundred times as many as a large GPU runs at once


def source(family: str) -> str:
    """The text that is compiled for a family of kernels: the shared files, then its own."""
    return "\n".join(_enums(name) + (FOLDER / f"{name}.cu").read_text(encoding="utf-8")
                     for name in (*SHARED, *NEEDED.get(family, ()), family))


def options(family: str) -> tuple[str, ...]:
    """The options with which a family of kernels is compiled."""
    architecture = ARCHITECTURES.get(family)
    return (*OPTIONS, f"-arch={architecture}") if architecture else OPTIONS


def _enums(name: str) -> str:
    """The numbers of the activations in C++, put before the file that needs them."""
    if name == "functions":
        return f"enum Activation {{ {', '.join(ACTIVATIONS.values())} }};\n"
    if name == "curves":
        return f"enum Curve {{ {', '.join(curve.upper() for curve in curves())} }};\n"
    return ""


@cache
def curves() -> tuple[str, ...]:
    """The activations that have a `case` in curves.cu, in its order; an index is the number of the
    activation."""
    text = (FOLDER / "curves.cu").read_text(encoding="utf-8")
    return tuple(name.lower() for name in dict.fromkeys(re.findall(r"\bcase (\w+):", text)))


def constant(file: str, name: str) -> int:
    """The number that a file of kernels gives this name, for code here that needs the same one."""
    text = (FOLDER / f"{file}.cu").read_text(encoding="utf-8")
    number, = re.findall(rf"^(?:#define {name} +|.*constexpr int {name} = )(\d+)", text,
                         re.MULTILINE)
    return int(number)


def types_and_widths() -> list[tuple[str, int]]:
    """Name and vector width of every instantiation over the element types: ("__half", 1) ..
    ("double", 2)."""
    return [(name, width) for dtype, name in TYPES.items() for width in widths(dtype)]


def widths(dtype: np.dtype[Any]) -> tuple[int, ...]:
    """Numbers of elements that one access can move: 1, 2, 4 .. up to 16 bytes."""
    return tuple(2**k for k in range((ACCESS // dtype.itemsize).bit_length()))


def types_and_extreme_widths() -> list[tuple[str, int]]:
    """Like types_and_widths, but only 1 and the largest: for kernels with many other template
    arguments."""
    return [(name, width) for dtype, name in TYPES.items() for width in (1, widths(dtype)[-1])]


def extreme_width(n: int, accesses: Sequence[tuple[int, int]]) -> int:
    """vector_width, or 1 if it is not the largest one of the type."""
    width = vector_width(n, accesses)
    return width if width == ACCESS // accesses[0][1] else 1


def vector_width(n: int, accesses: Sequence[tuple[int, int]]) -> int:
    """The largest width that divides n and suits each (address, itemsize). It is at most 16 bytes
    of the first.

    The address of an access must be a multiple of its size. That holds in all rows of n elements if
    width divides n.
    """
    width = ACCESS // accesses[0][1]
    while (n % width or any(address % min(ACCESS, width * itemsize)
                            for address, itemsize in accesses)):
        width //= 2
    return width


@lru_cache(REMEMBERED)
def window_struct(x_shape: tuple[int, ...], window: Window, **changes: int) -> np.void:
    """The struct Window of the kernels: window and sizes, with some fields changed. Raises
    OverflowError if a number needs more than 32 bits."""
    _, H, W, N = x_shape
    top, _, left, _ = window.padding
    values = dict(zip(WINDOW.names or (), (H, W, *window.output_size(H, W), N, *window.kernel,
                                           *window.stride, top, left, *window.dilation),
                      strict=True))
    return struct(WINDOW, (values | changes).values())


@lru_cache(REMEMBERED)
def gradient_struct(x_shape: tuple[int, ...], dy_shape: tuple[int, ...], window: Window
                    ) -> np.void:
    """The window of the convolution of dy with flipped filters that gives dx, at stride 1. Its
    padding may be negative."""
    top, _, left, _ = window.gradient_padding
    return window_struct(x_shape, window, top=top, left=left, H=dy_shape[1], W=dy_shape[2],
                         OH=x_shape[1], OW=x_shape[2])


def struct(dtype: np.dtype[Any], values: Iterable[Any]) -> np.void:
    """A struct that is passed to a kernel by value. A NumPy scalar, because CuPy takes 10 to 40
    times as long for an array."""
    a = np.array(tuple(values), dtype)
    a.flags.writeable = False           # the functions below return the same object again
    return cast(np.void, a[()])


@lru_cache(REMEMBERED)
def row_launch(channels: int, rows: int, columns: int, vectors: int) -> tuple[Grid, Grid]:
    """(grid, block) for kernels that loop over channels, rows, columns and vectors of samples, as
    described in common.cu.

    The threads of a block are spread over vectors first, then over columns, and over several rows
    if a row is short. Long rows are cut until there are about MANY blocks. Each block is then
    short, so little of the GPU's time is lost while the last blocks finish.
    """
    x = min(power_of_two(vectors), THREADS)
    y = min(power_of_two(columns), THREADS // x)
    z = min(power_of_two(rows), THREADS // (x * y), MAX_BLOCK_Z)
    turns, others = -(-columns // y), -(-rows // z) * channels
    return ((_blocks(turns, max(turns * others // MANY, 1), MAX_GRID[0]),
             _blocks(rows, z, MAX_GRID[1]), _blocks(channels, 1, MAX_GRID[1])), (x, y, z))


@lru_cache(REMEMBERED)
def pool_dx_launch(x_shape: tuple[int, ...], window: Window,
                   width: int) -> tuple[str, tuple[Grid, Grid]]:
    """(end of the kernel's name, (grid, block)) for the gradient of pooling: a thread for each
    element of x, or for each cell (taps.cu)."""
    C, H, W, N = x_shape
    if window.dilation != (1, 1) or any(s < k for s, k in zip(window.stride, window.kernel)):
        return "", row_launch(C, H, W, N // width)
    top, _, left, _ = window.padding
    return "_of_cells", row_launch(C, (H - 1 + top) // window.stride[0] + 1,
                                   (W - 1 + left) // window.stride[1] + 1, N // width)


@lru_cache(REMEMBERED)
def row_pieces(rows: int, size: int, width: int) -> tuple[tuple[Grid, Grid], np.void]:
    """((grid, block), struct Pieces) for kernels that read `rows` rows of `size` elements, `width`
    at a time.

    A piece is a number of full turns of the threads along a row, except the last piece of each row.
    Results depend only on the pieces, not on the launch, and the pieces only on the shape.
    """
    vectors = size // width
    x = min(power_of_two(vectors), THREADS)
    while x > 1 and vectors <= x * TURN // 2 and rows * x > BLOCKS * THREADS:
        x //= 2  # there are enough blocks, and their threads have too little work
    y = min(power_of_two(rows), THREADS // x)
    turns = -(-vectors // (x * TURN))
    wanted = max(BLOCKS * y // max(rows, 1), 1)  # pieces of a row
    length = max(-(-turns // wanted), 1) * x * TURN * width
    per_row = max(-(-size // length), 1)
    launch = (_blocks(per_row, 1, MAX_GRID[0]), _blocks(rows, y, MAX_GRID[1]), 1), (x, y, 1)
    return launch, struct(PIECES, (size, length, rows, per_row))


@lru_cache(REMEMBERED)
def softmax_launch(classes: int, samples: int, widest: int
                   ) -> tuple[int, int, tuple[Grid, Grid]]:
    """(width, kept, (grid, block)) for kernels whose threads take `width` samples each, and share
    the classes among them. A thread keeps up to `kept` classes in registers; with 0, it loads its
    classes several times.

    Wide accesses are faster only if there are more than enough threads; threads that keep classes
    load up to KEPT vectors at once, so a quarter of the threads is enough. If there are few
    samples, a block takes fewer of them, as long as there are classes for its other threads, so
    that every multiprocessor gets a block.
    """
    y = power_of_two(-(-classes // KEPT))
    if widest > 1 and y * NEIGHBOURS <= THREADS and samples // widest * y >= ENOUGH // 4:
        x = THREADS // y
        return widest, KEPT, ((_blocks(samples // widest, x, MAX_GRID[0]), 1, 1), (x, y, 1))
    if samples // widest >= ENOUGH:
        return widest, 0, ((_blocks(samples // widest, THREADS, MAX_GRID[0]), 1, 1),
                           (THREADS, 1, 1))
    x = min(power_of_two(samples), 32, THREADS)
    while x > 1 and samples < x * BLOCKS // 8 and classes > TURN * (THREADS // x):
        x //= 2
    y = min(power_of_two(-(-classes // TURN)), THREADS // x)
    return 1, 0, ((_blocks(samples, x, MAX_GRID[0]), 1, 1), (x, y, 1))


@lru_cache(REMEMBERED)
def flat_launch(threads: int) -> tuple[Grid, Grid]:
    """(grid, block) for kernels that loop over one long array."""
    return (_blocks(threads, THREADS, MAX_GRID[0]), 1, 1), (THREADS, 1, 1)


@lru_cache(REMEMBERED)
def matrix_launch(rows: int, columns: int, terms: int) -> tuple[Grid, Grid]:
    """(grid, block) for kernels that add up `terms` terms for each element of a matrix, with up to
    eight threads per element."""
    together = min(power_of_two(terms), 8, THREADS)
    across = THREADS // together
    return (_blocks(columns, across, MAX_GRID[0]), _blocks(rows, 1, MAX_GRID[1]),
            1), (across, together, 1)


def power_of_two(n: int) -> int:
    """The smallest power of two that is at least n."""
    return 1 << max(n - 1, 0).bit_length()


def _blocks(items: int, each: int, most: int) -> int:
    return min(max(-(-items // each), 1), most)
