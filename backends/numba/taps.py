"""The taps of a convolution, and the image that they read.

A convolution and its input gradient are the same operation: outputs that are sums over taps, where
a tap is a position in the input relative to the output's. At stride 1 the gradient's taps are those
of the flipped window. At stride s the gradient consists of s x s convolutions, one for each
distance of an element from the stride's grid.
"""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import numpy as np

from xpnet.backends.window import Window

WAY = 4096              # bytes: addresses that differ by a multiple of it share a cache set


class Taps(NamedTuple):
    """Output (oy, ox) reads the input at (oy * step + row, ox * step + column) for all these rows
    and columns."""

    rows: tuple[int, ...]
    columns: tuple[int, ...]
    step: tuple[int, int] = (1, 1)


class Image(NamedTuple):
    """How the input is read: directly, or from a copy with a border of zeros (see
    convolution.pad)."""

    copy: bool
    top: int                # the input's first row and column in the copy
    left: int
    height: int             # of the copy
    width: int
    channel: int            # distances between channels, rows and columns of the image, in elements
    row: int
    column: int

    def offsets(self, C: int, taps: Taps) -> np.ndarray:
        """Byte offsets of the elements that the taps (c, row, column) read, relative to the
        output's position, int64."""
        return _offsets(self, C, taps)


@lru_cache(maxsize=1024)
def taps_of(window: Window) -> Taps:
    """The convolution's taps."""
    starts = -window.padding[0], -window.padding[2]
    rows, columns = (tuple(start + k * d for k in range(size))
                     for start, size, d in zip(starts, window.kernel, window.dilation))
    return Taps(rows, columns, window.stride)


@lru_cache(maxsize=1024)
def gradient_taps(window: Window, phase: tuple[int, int]) -> tuple[Taps, np.ndarray]:
    """The taps in dy of dx at (stride * a + phase), and the indices i * KW + j of their elements in
    a filter.

    dx[iy] = sum over i of w[i] dy[oy] with oy * stride = iy + padding - i * dilation, for those i
    for which this is divisible by the stride.
    """
    axes = []
    for size, stride, before, dilation, p in zip(window.kernel, window.stride, window.padding[::2],
                                                 window.dilation, phase):
        numbers = [k for k in range(size) if (p + before - k * dilation) % stride == 0]
        axes.append((tuple((p + before - k * dilation) // stride for k in numbers),
                     np.array(numbers, np.int64)))
    (rows, i), (columns, j) = axes
    return Taps(rows, columns), (i[:, None] * window.kernel[1] + j).reshape(-1)


@lru_cache(maxsize=1024)
def image_of(shape: tuple[int, ...], reach: Taps, OH: int, OW: int) -> Image:
    """The Image of an input of this shape, read by OH x OW outputs with taps from the smallest to
    the largest of `reach`."""
    C, H, W, N = shape
    (sh, sw), rows, columns = reach.step, reach.rows, reach.columns
    top, left = -min(rows), -min(columns)
    height, width = (OH - 1) * sh + max(rows) + top + 1, (OW - 1) * sw + max(columns) + left + 1
    inside = top <= 0 and left <= 0 and height - top <= H and width - left <= W
    # Channels should not share cache sets, unless there are only a few of them.
    if inside and (C <= 8 or 4 * H * W * N % WAY or len(rows) * len(columns) == 1):
        return Image(False, 0, 0, H, W, H * W * N, W * N, N)
    channel = height * width * N
    if 4 * channel >= WAY:
        channel += -channel % (WAY // 4) + 272
    return Image(True, top, left, height, width, channel, width * N, N)


@lru_cache(maxsize=1024)
def _offsets(image: Image, C: int, taps: Taps) -> np.ndarray:
    rows, columns = (np.array(taps.rows, np.int64) + image.top,
                     np.array(taps.columns, np.int64) + image.left)
    return 4 * (np.arange(C)[:, None, None] * image.channel + rows[:, None] * image.row
                + columns * image.column).reshape(-1)
