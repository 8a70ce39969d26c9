"""Pooling with NumPy, by chunks of channels: one pass over a strided view for each tap."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


def taps(padded: Array, window: Window, out_size: tuple[int, int]) -> Iterator[Array]:
    """For each tap, in order, the elements that it reads of a padded (C, HP, WP, N): views (C, OH,
    OW, N)."""
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            rows, columns = window.tap(i, j, out_size)
            yield padded[:, rows, columns]


def are_disjoint(window: Window) -> bool:
    """Whether no two windows share an element."""
    return all(extent <= stride
               for extent, stride in zip(window.extent, window.stride, strict=True))


def are_tiles(window: Window, H: int, W: int) -> bool:
    """Whether the windows tile an H x W feature map: each element is in exactly one window, and no
    tap is on padding.

    Windows with kernel = stride cover OH * KH rows, from row -top on. So OH * KH = H is not enough:
    with padding at the top the windows cover other rows than those of the map. Padding at the
    bottom is not reached then. The same holds for columns.
    """
    (KH, KW), (top, _, left, _) = window.kernel, window.padding
    OH, OW = window.output_size(H, W)
    side_by_side = window.kernel == window.extent == window.stride
    return side_by_side and top == left == 0 and (OH * KH, OW * KW) == (H, W)


def max_pool2d(self: NumpyBackend, x: Array, window: Window) -> tuple[Array, Array]:
    if x.dtype.kind != "f" or window.taps > 255 or x.size == 0:
        return Backend.max_pool2d(self, x, window)
    OH, OW = window.output_size(*x.shape[1:3])
    padded = self._pad(x, window, -np.inf)
    y = self.empty((x.shape[0], OH, OW, x.shape[3]), x.dtype)
    argmax = self.empty(y.shape, np.uint8)
    integer = np.dtype(f"i{x.dtype.itemsize}")

    def task(channels: slice) -> None:
        best, index = y[channels], argmax[channels]
        views = list(taps(padded[channels], window, (OH, OW)))
        np.copyto(best, views[0])
        for view in views[1:]:
            np.maximum(best, view, out=best)
        lowest = best.min()                                         # NaN if there is one
        has_minus_zero = padded[channels].view(integer).min() == np.iinfo(integer).min
        if np.isnan(lowest) or has_minus_zero or (window.padded and lowest == -np.inf):
            y[channels], argmax[channels] = Backend.max_pool2d(self, x[channels], window)
            return
        # The index of the first tap that equals the maximum is the number of taps before it. The
        # loop counts them from the last tap backwards.
        index.fill(0)
        differs = np.empty(best.shape, bool)
        for view in views[-2::-1]:
            np.not_equal(view, best, out=differs)
            index += 1
            index *= differs.view(np.uint8)

    self.over_rows(task, x.shape[0], padded.size // x.shape[0])
    return y, argmax


def max_pool2d_dx(self: NumpyBackend, dy: Array, argmax: Array, x_shape: tuple[int, ...],
                  window: Window) -> Array:
    if dy.dtype.kind != "f" or dy.size == 0:
        return Backend.max_pool2d_dx(self, dy, argmax, x_shape, window)
    C, H, W, N = x_shape
    OH, OW = dy.shape[1:3]
    top, _, left, _ = window.padding
    dy = np.ascontiguousarray(dy)
    dx = self.empty(x_shape, dy.dtype)
    integer = np.dtype(f"i{dy.dtype.itemsize}")
    disjoint, tiled = are_disjoint(window), are_tiles(window, H, W)

    def task(channels: slice) -> None:
        padded = (dx[channels] if tiled
                  else self._padded_zeros((len(dx[channels]), H, W, N), window, dy.dtype))
        mask = np.empty(dy[channels].shape, np.int8)
        g = (dy[channels] + dy.dtype.type(0)).view(integer)         # -0 becomes 0, as in a sum
        share = None if disjoint else self.empty(g.shape, dy.dtype)
        for k, view in enumerate(taps(padded, window, (OH, OW))):
            # dy where this tap is the maximum, else 0, by bits: -1 is all ones. np.where takes 10
            # times as long.
            np.negative(np.equal(argmax[channels], k).view(np.int8), out=mask)
            if share is None:
                np.bitwise_and(g, mask, out=view.view(integer))
            else:
                np.bitwise_and(g, mask, out=share.view(integer))
                view += share
        if not tiled:
            np.copyto(dx[channels], padded[:, top:top + H, left:left + W])

    self.over_rows(task, C, dx.size // C)
    return dx


def avg_pool2d(self: NumpyBackend, x: Array, window: Window, *, count_padding: bool = True
               ) -> Array:
    OH, OW = window.output_size(*x.shape[1:3])
    padded = self._pad(x, window)
    y = self.empty((x.shape[0], OH, OW, x.shape[3]), x.dtype)
    weight: Any = self._window_weight(x.shape, window, count_padding, x.dtype)

    def task(channels: slice) -> None:
        total = y[channels]
        first, *others = taps(padded[channels], window, (OH, OW))
        np.copyto(total, first)
        for view in others:
            total += view
        total *= weight

    self.over_rows(task, x.shape[0], padded.size // x.shape[0])
    return y


def avg_pool2d_dx(self: NumpyBackend, dy: Array, x_shape: tuple[int, ...], window: Window, *,
                  count_padding: bool = True) -> Array:
    C, H, W, N = x_shape
    top, _, left, _ = window.padding
    dx = self.empty(x_shape, dy.dtype)
    weight: Any = self._window_weight(x_shape, window, count_padding, dy.dtype)

    def task(channels: slice) -> None:
        share = dy[channels] * weight
        padded = self._padded_zeros((len(share), H, W, N), window, dy.dtype)
        for view in taps(padded, window, dy.shape[1:3]):
            view += share
        np.copyto(dx[channels], padded[:, top:top + H, left:left + W])

    self.over_rows(task, C, H * W * N)
    return dx
