"""Depthwise convolution on an NVIDIA GPU: convolutions in which each filter reads one channel."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.rows import accesses, add_parts
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


STRIP = cuda_launch.constant("depthwise", "STRIP")       # output rows of a thread
# rows and columns of a tile of taps
TILE = cuda_launch.constant("depthwise", "HIGH"), cuda_launch.constant("taps", "AHEAD")
MOST_FILTERS = 4        # of a channel: with more, the tiles of a product have enough rows


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    types = cuda_launch.types_and_extreme_widths()
    return {"depthwise": (*(f"depthwise<{name}, {width}, {function}>" for name, width in types
                            for function in cuda_launch.ACTIVATIONS.values()),
                          *(f"{kernel}<{name}, {width}>" for name, width in types
                            for kernel in ("depthwise_dx", "depthwise_dW")))}


def is_depthwise(C: int, F: int, groups: int) -> bool:
    """Whether these kernels compute a convolution of C channels with F filters: each filter reads
    one of several channels, and few filters read the same one."""
    return 1 < groups == C and F <= MOST_FILTERS * C


def conv2d(self: CupyBackend, x: Array, W: Array, window: Window, bias: Array | None,
           activation: str | None) -> Array:
    """y (F, OH, OW, N); x and W are contiguous, and the activation is one of ACTIVATIONS."""
    F, C = W.shape[0], x.shape[0]
    y = self.empty((F, *window.output_size(*x.shape[1:3]), x.shape[3]), x.dtype)
    _convolve(self, x, W, y, cuda_launch.window_struct(x.shape, window), F // C, 1, False, bias,
              activation)
    return y


def _convolve(self: CupyBackend, x: Array, W: Array, y: Array, w: np.void, per: int, terms: int,
              flipped: bool, bias: Array | None = None, activation: str | None = None) -> None:
    """Each channel of y = the sum of `terms` maps of x with their filters; `per` channels of y read
    the same map."""
    channels, OH, OW, N = y.shape
    types, V = _types(N, x, y)
    self._launch("depthwise", f"depthwise<{types}, {cuda_launch.ACTIVATIONS[activation]}>",
                 cuda_launch.row_launch(channels, -(-OH // STRIP), OW, N // V),
                 # A kernel gets an address for each array, also for one that it does not read.
                 x, W, W if bias is None else self._contiguous(bias), y, np.int32(channels),
                 np.int32(per), np.int32(terms), np.bool_(flipped), np.bool_(bias is not None), w)


def conv2d_dx(self: CupyBackend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window
              ) -> Array:
    """dx (C, H, W, N); dy and W are contiguous."""
    C, H, width, N = x_shape
    per = W.shape[0] // C
    dx = self.empty(x_shape, dy.dtype)
    if window.stride == (1, 1):
        w = cuda_launch.gradient_struct(x_shape, dy.shape, window)
        _convolve(self, dy, W, dx, w, 1, per, True)
        return dx
    types, V = _types(N, dy, dx)
    self._launch("depthwise", f"depthwise_dx<{types}>",
                 cuda_launch.row_launch(C, H, width, N // V), dy, W, dx, np.int32(C), np.int32(per),
                 cuda_launch.window_struct(x_shape, window))
    return dx


def conv2d_dW(self: CupyBackend, x: Array, dy: Array, window: Window, dW: Array, accumulate: bool
              ) -> Array:
    """dW (F, 1, KH, KW) = or += the filter gradient; all arrays are contiguous."""
    (F, OH, OW, N), (KH, KW) = dy.shape, window.kernel
    types, V = _types(N, x, dy)
    length = -(-OH // max(cuda_launch.BLOCKS // F, 1))      # rows of a piece
    pieces, tiles = -(-OH // length), -(-KH // TILE[0]) * -(-KW // TILE[1])
    parts = self.empty((dW.size, pieces), np.promote_types(x.dtype, np.float32))
    (_, _, channels), (across, columns, _) = cuda_launch.row_launch(F, 1, OW, N // V)
    self._launch("depthwise", f"depthwise_dW<{types}>",
                 ((min(pieces * tiles, cuda_launch.MAX_GRID[0]), 1, channels),
                  (across, columns, 1)),
                 x, dy, parts, np.int32(F), np.int32(F // x.shape[0]), np.int32(pieces),
                 np.int32(length), cuda_launch.window_struct(x.shape, window))
    add_parts(self, parts, dW, accumulate)
    return dW


def _types(N: int, *arrays: Array) -> tuple[str, int]:
    """(type and width, width) of the kernel for arrays whose last axis is N."""
    V = cuda_launch.extreme_width(N, accesses(arrays))
    return f"{cuda_launch.TYPES[arrays[0].dtype]}, {V}", V
