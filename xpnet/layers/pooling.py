"""Pooling: the largest or the mean of each window."""

from __future__ import annotations

from dataclasses import replace
from functools import cached_property

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair
from xpnet.layer import PREDICT, Array, Layer, Shape


class Pool2d(Layer):
    """Base class of pooling by windows: what they share, a window (stride = kernel_size unless
    told) and the output shape."""

    kind = "pool"
    window: Window

    def __init__(self, kernel_size: Pair, stride: Pair | None, padding: Padding, dilation: Pair,
                 ceil_mode: bool, name: str | None) -> None:
        super().__init__(name=name)
        self.kernel_size, self.stride, self.padding, self.dilation = (kernel_size, stride, padding,
                                                                      dilation)
        self.ceil_mode = self.expect_flag("ceil_mode", ceil_mode)
        self.window = Window.make(kernel_size, kernel_size if stride is None else stride, padding,
                                  dilation, empty=False, who=self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.window.output_size(H, W, who=self.who)
        if self.ceil_mode:
            self.window = self.window.ceil(H, W)
        self.window.check_no_empty_window(H, W, who=self.who)
        return C, *self.window.output_size(H, W)


class MaxPool2d(Pool2d):
    """Largest element of each window: Y = max over the window of X; its dY goes back to the element
    that won.

    Where windows overlap, an element can win in several of them: its dX is the sum of their dY.
    Code that assigns dY instead of adding it keeps the last one only, which is right for windows
    that do not overlap. X (C, H, W, N), Y (C, OH, OW, N). Of equal values the first wins; a NaN
    wins over everything; padding never wins. `ceil_mode` lets a last, partial window count too.
    ValueError where a window would see nothing but padding. Ranzato et al. 2007.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        y, argmax = self.backend.max_pool2d(x, self.window)
        self.remember(mode, argmax, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        argmax, x_shape = self.recall()
        return self.backend.max_pool2d_dx(dy, argmax, x_shape, self.window)


class AvgPool2d(Pool2d):
    """Mean of each window: Y = sum over the window of X / number of its elements; dY is shared
    equally.

    X (C, H, W, N), Y (C, OH, OW, N). The padding's zeros count as elements, but not what
    `ceil_mode` adds beyond it; `count_include_pad=False` divides by the elements inside X only.
    ValueError where a window would see nothing but padding. LeCun et al. 1989.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, count_include_pad: bool = True,
                 name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)
        self.count_include_pad = self.expect_flag("count_include_pad", count_include_pad)

    def build(self, in_shape: Shape) -> Shape:
        padding = self.window.padding
        out_shape = super().build(in_shape)
        self._asked_for = padding               # without what ceil_mode added
        return out_shape

    @cached_property
    def _factor(self) -> Array | None:
        """What the mean over all taps is multiplied by, (OH, OW, 1): the elements that ceil_mode
        added do not count."""
        if not self.count_include_pad:
            return None
        given = replace(self.window, padding=self._asked_for)
        factor = partial_factor(given, self.window, *self.in_shapes[0][1:])
        return (None if factor is None
                else self.backend.asarray(factor, self.buffers.dtype)[:, :, None])

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        y = self.backend.avg_pool2d(x, self.window, count_padding=self.count_include_pad)
        return y if self._factor is None else y * self._factor

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        dy = dy if self._factor is None else dy * self._factor
        return self.backend.avg_pool2d_dx(dy, x_shape, self.window,
                                          count_padding=self.count_include_pad)


def partial_factor(given: Window, grown: Window, H: int, W: int) -> np.ndarray | None:
    """taps / number of elements that each window counts (OH, OW), where ceil_mode has grown the
    padding; None without.

    Zeros of the given padding are elements; what ceil_mode added beyond them is not.
    """
    if given.padding == grown.padding:
        return None
    top, bottom, left, right = given.padding
    added = (0, grown.padding[1] - bottom, 0, grown.padding[3] - right)
    framed = replace(grown, padding=added)  # slides over the input with its padding
    rows, columns = (inside.sum(axis=1)
                     for inside in framed.inside(H + top + bottom, W + left + right))
    return grown.taps / np.outer(rows, columns)
