"""Pooling in plain array code, tap by tap."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend


def max_pool2d(self: Backend, x: Array, window: Window) -> tuple[Array, Array]:
    """The largest element of each window and its index, x (C, H, W, N) -> both (C, OH, OW, N).

    The index is i * KW + j inside the window, uint8 up to 255 taps, else int32. The first of
    equal values wins, a NaN wins over everything, padding never wins.
    """
    C, H, W, N = x.shape
    OH, OW = window.output_size(H, W)
    KH, KW = window.kernel
    xp = self.xp
    padded = self._pad(x, window, -np.inf)
    y = self.empty((C, OH, OW, N), x.dtype)
    y.fill(-np.inf)
    # the first tap that is not on padding
    first_row, first_column = (inside.argmax(axis=1) for inside in window.inside(H, W))
    # (OH, OW)
    first = (first_row[:, None] * KW + first_column).astype(self.argmax_dtype(window))
    argmax = self.empty(y.shape, first.dtype)
    argmax[...] = self.asarray(first)[:, :, None]
    for i in range(KH):
        for j in range(KW):
            rows, columns = window.tap(i, j, (OH, OW))
            candidate = padded[:, rows, columns]
            wins = (candidate > y) | (xp.isnan(candidate) & ~xp.isnan(y))
            y[...] = xp.where(wins, candidate, y)
            argmax[...] = xp.where(wins, argmax.dtype.type(i * KW + j), argmax)
    return y, argmax


def max_pool2d_dx(self: Backend, dy: Array, argmax: Array, x_shape: tuple[int, ...],
                  window: Window) -> Array:
    """The input gradient of max_pool2d: each dy goes to the element that won, in tap order.

    dy, argmax (C, OH, OW, N) -> (C, H, W, N).
    """
    OH, OW = dy.shape[1:3]
    KH, KW = window.kernel
    padded = self._padded_zeros(x_shape, window, dy.dtype)
    for i in range(KH):
        for j in range(KW):
            rows, columns = window.tap(i, j, (OH, OW))
            padded[:, rows, columns] += self.xp.where(
                argmax == i * KW + j, dy, dy.dtype.type(0))
    return self._crop(padded, x_shape, window)


def avg_pool2d(self: Backend, x: Array, window: Window, *, count_padding: bool = True) -> Array:
    """The mean of each window, x (C, H, W, N) -> (C, OH, OW, N).

    Without count_padding it is the mean of the elements inside x.
    """
    OH, OW = window.output_size(*x.shape[1:3])
    padded = self._pad(x, window)
    y = self.zeros((x.shape[0], OH, OW, x.shape[3]), x.dtype)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            rows, columns = window.tap(i, j, (OH, OW))
            y += padded[:, rows, columns]
    y *= self._window_weight(x.shape, window, count_padding, x.dtype)
    return y


def avg_pool2d_dx(self: Backend, dy: Array, x_shape: tuple[int, ...], window: Window, *,
                  count_padding: bool = True) -> Array:
    """The input gradient of avg_pool2d: the elements of a window share its dy equally.

    dy (C, OH, OW, N) -> (C, H, W, N).
    """
    OH, OW = dy.shape[1:3]
    share = dy * self._window_weight(x_shape, window, count_padding, dy.dtype)
    padded = self._padded_zeros(x_shape, window, dy.dtype)
    for i in range(window.kernel[0]):
        for j in range(window.kernel[1]):
            rows, columns = window.tap(i, j, (OH, OW))
            padded[:, rows, columns] += share
    return self._crop(padded, x_shape, window)


def window_weight(self: Backend, x_shape: tuple[int, ...], window: Window, count_padding: bool,
                  dtype: Any) -> Array:
    """1 / number of elements that a mean counts: a Python float, or (OH, OW, 1)."""
    if count_padding:
        return 1.0 / window.taps
    rows, columns = (inside.sum(axis=1) for inside in window.inside(*x_shape[1:3]))
    return self.asarray(1.0 / np.outer(rows, columns), dtype)[:, :, None]
