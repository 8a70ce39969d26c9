"""Convolutions by the instructions of the Hopper architecture for warpgroups and boxes; the kernels
are in warpgroups.cu.

They take float32 with TF32, and images whose samples fill whole lines of 128 bytes.
"""

from __future__ import annotations

import ctypes
import sys
from functools import cache, lru_cache
from typing import TYPE_CHECKING, Any, NamedTuple, cast

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import plans
from xpnet.backends.cupy.launch import REMEMBERED, struct
from xpnet.backends.cupy.product import math_for
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend

CAPABILITY, COMPILER = 90, (13, 0)      # of the GPU; the oldest NVRTC that was tried
LANES = cuda_launch.constant("warpgroups", "LANES")      # samples in a line of a tile
TILE_K = 32                             # indices k in a step
FEWEST = 16                             # channels: with fewer, more than half of a tile is zeros
WORTH = 1 << 24                         # multiply-adds from which on the kernels are used
MOST_SPLITS = 64
BANDWIDTH = 4e6                         # bytes per microsecond

# The arguments of the kernels: the structs BoxMap, Spread and Filters.
BOX_MAP = np.dtype([("content", np.uint64, 16)])
SPREAD = np.dtype([("first", np.int64), ("stride_h", np.int32), ("stride_w", np.int32),
                   ("W", np.int32)], align=True)
FILTERS = np.dtype([(name, np.int32) for name in (
    "groups", "F", "C", "KH", "KW", "rows", "columns", "first_i", "first_j", "apart_i", "apart_j",
    "turned")])
FLOAT32, TFLOAT32, SWIZZLE_128, PROMOTE_128 = 7, 11, 3, 2   # constants of the driver


class Tile(NamedTuple):
    """Template arguments of a convolution, and the multiply-adds per microsecond of all
    multiprocessors of an H200 together, measured with large problems."""

    rows: int
    columns: int
    stages: int
    blocks: int         # on a multiprocessor
    rate: float

    def arguments(self) -> str:
        return f"<{self.rows}, {self.columns}, {TILE_K}, {self.stages}, {self.blocks}>"


class Gradient(NamedTuple):
    """Template arguments of a filter gradient; a tile has `rows` filters, and as its columns
    `pieces` boxes of BOX channels."""

    rows: int
    pieces: int
    stages: int
    blocks: int

    def arguments(self) -> str:
        return f"<{self.rows}, {self.pieces}, {self.stages}, {self.blocks}>"


CONVOLUTION = (Tile(128, 256, 4, 1, 150e6), Tile(128, 128, 6, 1, 137e6), Tile(64, 128, 4, 2, 95e6))
NARROW, BROAD = Gradient(64, 3, 3, 2), Gradient(128, 4, 4, 1)
BOX = cuda_launch.constant("warpgroups", "BOX")          # channels, in a filter gradient
RATE = 140e6                            # multiply-adds per microsecond of filter gradients


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {"warpgroups": (
        *(f"warpgroup_convolution{tile.arguments()}" for tile in CONVOLUTION),
        *(f"warpgroup_filter_gradient{tile.arguments()}" for tile in (NARROW, BROAD)),
        *(f"pack_filters<{rows}, {TILE_K}>" for rows in sorted({t.rows for t in CONVOLUTION})),
        "add_gradients")}


def usable(self: CupyBackend) -> bool:
    """Whether GPU and compiler have the instructions."""
    capability = int(self.xp.cuda.Device(self.device).compute_capability)
    return capability == CAPABILITY and self.xp.cuda.nvrtc.getVersion() >= COMPILER


def takes(self: CupyBackend, image: Array, W_shape: tuple[int, ...], x_shape: tuple[int, ...],
          window: Window, groups: int) -> bool:
    """Whether the kernels take the products of a convolution of x with filters (F, C/groups, KH,
    KW), of which x or dy is the image.

    The image has to begin at a multiple of 16 bytes. So a view that does not is computed by other
    kernels, whose results may have other bits.
    """
    F, C, N = W_shape[0] // groups, W_shape[1], x_shape[3]
    OH, OW = window.output_size(*x_shape[1:3])
    return (math_for(self, image.dtype, "convolution").name == "Tf32"
            and N % LANES == 0 and image.data.ptr % cuda_launch.ACCESS == 0
            and min(F, C) >= FEWEST and groups * F * C * window.taps * OH * OW * N >= WORTH
            # A box with channels of two groups would multiply those of the other one by zero.
            and (groups == 1 or (F % TILE_K == 0 and C % TILE_K == 0))
            and self._warpgroups)


def conv2d(self: CupyBackend, x: Array, W: Array, window: Window, groups: int, bias: Array | None,
           activation: str | None) -> Array:
    """y (F, OH, OW, N) = f(W columns(x) + bias)."""
    w = cuda_launch.window_struct(x.shape, window)
    F, C, KH, KW = W.shape
    y = self.empty((F, int(w["OH"]), int(w["OW"]), x.shape[3]), x.dtype)
    filters = (groups, F // groups, C, KH, KW, KH, KW, 0, 0, 1, 1, 0)
    _convolve(self, x, W, w, filters, y, (0, 1, 1, int(w["OW"])), bias, activation)
    return y


def conv2d_dx(self: CupyBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window,
              groups: int) -> Array:
    """dx (C, H, W, N): for each position (a, b) of a pixel in its cell of stride_h x stride_w
    pixels, a convolution of dy with those elements of the filters that the pixel meets.

    Row s u + a of x and row i of the filters meet in row (s u + a + top - i) / s of dy, if that is
    a whole number: for i = i0 + s i', i0 = (a + top) % s, it is u + (a + top) // s - i'.
    """
    (F, C, KH, KW), (_, H, width, N) = W.shape, x_shape
    (sh, sw), (top, _, left, _) = window.stride, window.padding
    if window.dilation != (1, 1):
        w = cuda_launch.gradient_struct(x_shape, dy.shape, window)
        dx = self.empty(x_shape, dy.dtype)
        _convolve(self, dy, W, w, (groups, F // groups, C, KH, KW, KH, KW, 0, 0, 1, 1, 1), dx,
                  (0, 1, 1, width))
        return dx
    whole = sh <= KH and sw <= KW                   # every pixel is in a window
    dx = self.empty(x_shape, dy.dtype) if whole else self.zeros(x_shape, dy.dtype)
    for a in range(min(sh, H)):
        for b in range(min(sw, width)):
            i, j = (a + top) % sh, (b + left) % sw
            rows, columns = len(range(i, KH, sh)), len(range(j, KW, sw))
            if rows * columns > 0:
                w = _phase(dy.shape, len(range(a, H, sh)), len(range(b, width, sw)), rows, columns,
                           rows - 1 - (a + top) // sh, columns - 1 - (b + left) // sw)
                filters = (groups, F // groups, C, KH, KW, rows, columns, i, j, sh, sw, 1)
                _convolve(self, dy, W, w, filters, dx, ((a * width + b) * N, sh, sw, width))
    return dx


@lru_cache(REMEMBERED)
def _phase(dy_shape: tuple[int, ...], OH: int, OW: int, KH: int, KW: int, top: int,
           left: int) -> np.void:
    _, H, W, N = dy_shape
    return struct(cuda_launch.WINDOW, (H, W, OH, OW, N, KH, KW, 1, 1, top, left, 1, 1))


def _convolve(self: CupyBackend, x: Array, W: Array, w: np.void, filters: tuple[int, ...], y: Array,
              spread: tuple[int, int, int, int], bias: Array | None = None,
              activation: str | None = None) -> None:
    """y = f(W columns(x) + bias), with the columns of the window w and the fields of the structs
    Filters and Spread."""
    groups, N = filters[0], x.shape[3]
    M, channels = y.shape[0] // groups, x.shape[0] // groups
    P = int(w["OH"]) * int(w["OW"]) * N
    tile = plan_convolution(M, P, groups)
    size = (-(-M // tile.rows) * tile.rows * -(-channels // TILE_K) * TILE_K
            * int(w["KH"]) * int(w["KW"]))          # of the packed filters of a group
    packed = self.empty((groups * size,), W.dtype)
    self._launch("warpgroups", f"pack_filters<{tile.rows}, {TILE_K}>",
                 cuda_launch.flat_launch(packed.size), W, packed, _struct(FILTERS, filters))
    line = y[0].size
    product = struct(plans.PRODUCT, (
        0, 0, line, size, 0, M * line, M, P, channels, 1, 0, 1, 1, 1, bias is not None,
        list(cuda_launch.ACTIVATIONS).index(activation), 0))
    shared = (4 * TILE_K * tile.stages * (tile.rows + tile.columns) + 16 * tile.stages
              + plans.PLACE * tile.columns // LANES)
    self._launch("warpgroups", f"warpgroup_convolution{tile.arguments()}",
                 ((-(-M // tile.rows) * -(-P // tile.columns), 1, groups),
                  (tile.columns + 128, 1, 1)),
                 packed, box_map(FLOAT32, x.data.ptr, x.shape, TILE_K, min(N & -N, tile.columns)),
                 y if bias is None else self._contiguous(bias), y, product, plans.image_struct(w),
                 _struct(SPREAD, spread), shared=shared)


def conv2d_dW(self: CupyBackend, x: Array, dy: Array, window: Window, groups: int, dW: Array,
              accumulate: bool) -> None:
    """dW (F, C, KH, KW) = dy columns(x)^T, or += if `accumulate`."""
    F, C, P = dy.shape[0] // groups, dW.shape[1], dy[0].size
    tile, plan = plan_gradient(F, C, window.taps, P, groups)
    tiles = -(-window.taps * -(-C // BOX) // tile.pieces)
    line = tiles * tile.pieces * BOX
    workspace = self.empty((plan.splits, groups, F, line), dW.dtype)
    product = struct(plans.PRODUCT, (C, 0, 0, 0, 0, 0, F, line, P, plan.splits, plan.steps, 1, 1, 1,
                                     0, 0, 0))
    threads = (tile.rows // 64 + 1) * 128
    self._launch("warpgroups", f"warpgroup_filter_gradient{tile.arguments()}",
                 ((-(-F // tile.rows) * tiles, plan.splits, groups), (threads, 1, 1)),
                 box_map(TFLOAT32, dy.data.ptr, dy.shape, tile.rows, LANES),
                 box_map(TFLOAT32, x.data.ptr, x.shape, BOX, LANES), workspace, product,
                 plans.image_struct(cuda_launch.window_struct(x.shape, window)),
                 shared=tile.stages * (4 * LANES * (tile.rows + tile.pieces * BOX) + 16))
    rows = groups * F
    self._launch("warpgroups", "add_gradients",
                 cuda_launch.flat_launch(rows * window.taps * -(-C // BOX) * BOX), workspace, dW,
                 np.int32(rows), np.int32(C), np.int32(window.taps), np.int32(line),
                 np.int32(plan.splits), np.bool_(accumulate))


@lru_cache(REMEMBERED)
def plan_convolution(M: int, P: int, groups: int) -> Tile:
    """The tile with the shortest time, if each wave of blocks takes the time of its tiles."""
    most = plans.GPUS[CAPABILITY].multiprocessors

    def time(tile: Tile) -> float:
        blocks = groups * -(-M // tile.rows) * -(-P // tile.columns)
        waves = -(-blocks // (most * tile.blocks))
        return waves * tile.blocks * tile.rows * tile.columns / tile.rate

    return min(CONVOLUTION, key=time)               # the first of equal ones


@lru_cache(REMEMBERED)
def plan_gradient(F: int, C: int, taps: int, P: int, groups: int) -> tuple[Gradient, plans.Plan]:
    """The tile, and the splits with the shortest time: that of all waves of blocks, and that of the
    sums, which each split writes to the workspace, and which are read once."""
    tile = NARROW if F % BROAD.rows in range(1, NARROW.rows + 1) and F < 2 * BROAD.rows else BROAD
    most, steps = plans.GPUS[CAPABILITY].multiprocessors, P // LANES
    tiles = groups * -(-F // tile.rows) * -(-taps * -(-C // BOX) // tile.pieces)
    size = tile.rows, tile.pieces * BOX

    def time(plan: plans.Plan) -> float:
        waves = -(-tiles * plan.splits // (most * tile.blocks))
        each = tile.blocks * plan.steps * LANES * size[0] * size[1] * most / RATE
        return waves * each + 8 * tiles * size[0] * size[1] * plan.splits / BANDWIDTH

    splits = range(1, min(MOST_SPLITS, max(steps // plans.SHORTEST, 1)) + 1)
    return tile, min((plans.cut(size, count, steps) for count in splits), key=time)


@lru_cache(REMEMBERED)
def _struct(dtype: Any, values: tuple[int, ...]) -> np.void:
    return struct(dtype, values)


@cache
def driver() -> Any:
    """The library of the driver."""
    return ctypes.CDLL("nvcuda.dll" if sys.platform == "win32" else "libcuda.so.1")


@lru_cache(REMEMBERED)
def box_map(kind: int, address: int, shape: tuple[int, ...], channels: int,
            samples: int) -> np.void:
    """The struct BoxMap of an image (C, H, W, N): as an array (LANES samples, C, N / LANES, W, H),
    innermost first, with boxes of `channels` channels and `samples` samples of a pixel. The kind
    TFLOAT32 rounds what is copied."""
    C, H, W, N = shape
    return encoded(kind, address, (LANES, C, N // LANES, W, H),
                   (4 * H * W * N, 4 * LANES, 4 * N, 4 * W * N),
                   (LANES, channels, samples // LANES, 1, 1))


def encoded(kind: int, address: int, sizes: tuple[int, ...], strides: tuple[int, ...],
            box: tuple[int, ...]) -> np.void:
    """The struct BoxMap of an array, made by the driver. `kind` is the type of its numbers;
    `strides` are in bytes, without the innermost one."""
    memory = ctypes.create_string_buffer(BOX_MAP.itemsize + 64)
    place = -(-ctypes.addressof(memory) // 64) * 64
    status = driver().cuTensorMapEncodeTiled(
        ctypes.c_void_p(place), kind, len(sizes), ctypes.c_void_p(address),
        (ctypes.c_uint64 * 5)(*sizes), (ctypes.c_uint64 * 4)(*strides), (ctypes.c_uint32 * 5)(*box),
        (ctypes.c_uint32 * 5)(1, 1, 1, 1, 1), 0, SWIZZLE_128, PROMOTE_128, 0)
    if status != 0:
        raise RuntimeError("cuTensorMapEncodeTiled: expected a map of an image of "
                           f"{sizes} in boxes of {box}. Received: error {status}.")
    return cast(np.void, np.frombuffer(ctypes.string_at(place, BOX_MAP.itemsize), BOX_MAP)[0])
