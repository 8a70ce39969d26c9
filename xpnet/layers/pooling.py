"""Max and average pooling: by windows, of whole feature maps, to a given size; max unpooling."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import cached_property

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair, pair
from xpnet.layer import PREDICT, Array, Layer, Shape

__all__ = [
    "AdaptiveAvgPool2d", "AdaptiveMaxPool2d", "AvgPool2d", "GlobalAvgPool2d", "GlobalMaxPool2d",
    "MaxPool2d", "MaxUnpool2d",
]

Span = tuple[int, int]      # from, to (not included)


class Pool2d(Layer):
    """Base class of pooling by windows; `stride` is `kernel_size` by default.

    Args:
        padding: as in Conv2d, but smaller than the window.
        ceil_mode: also count a last, partial window.

    Raises:
        ValueError: a window would contain nothing but padding.
    """

    kind = "pool"
    window: Window
    make_window: Callable[..., Window] = staticmethod(Window.make)      # another one for signals

    def __init__(self, kernel_size: Pair, stride: Pair | None, padding: Padding, dilation: Pair,
                 ceil_mode: bool, name: str | None) -> None:
        super().__init__(name=name)
        self.kernel_size, self.stride = kernel_size, stride
        self.padding, self.dilation = padding, dilation
        self.ceil_mode = self.expect_flag("ceil_mode", ceil_mode)
        self.window = self.make_window(kernel_size, kernel_size if stride is None else stride,
                                       padding, dilation, empty=False, who=self.who)

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

    X (C, H, W, N), Y (C, OH, OW, N). Of equal values the first wins; a NaN wins over everything;
    padding never wins. If windows overlap, an element can win in several of them, and its dX is the
    sum of their dY. Code that assigns dY instead of adding it keeps only the last one, which is
    right only if windows do not overlap. Arguments and errors are those of Pool2d.

    Ranzato et al. 2007.
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

    X (C, H, W, N), Y (C, OH, OW, N). Other arguments and errors are those of Pool2d.

    Args:
        count_include_pad: count the zeros of the padding as elements. What `ceil_mode` adds beyond
            the padding never counts.

    LeCun et al. 1989.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, count_include_pad: bool = True,
                 name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)
        self.count_include_pad = self.expect_flag("count_include_pad", count_include_pad)

    def build(self, in_shape: Shape) -> Shape:
        padding = self.window.padding
        out_shape = super().build(in_shape)
        self._given_padding = padding           # without what ceil_mode added
        self._map_size = in_shape[1:]
        return out_shape

    @cached_property
    def _factor(self) -> Array | None:
        """Factor for the mean over all taps, (OH, OW, 1): what ceil_mode added does not count."""
        if not self.count_include_pad:
            return None
        given = replace(self.window, padding=self._given_padding)
        factor = partial_factor(given, self.window, *self._map_size)
        if factor is None:
            return None
        return self.backend.asarray(factor, self.buffers.dtype)[:, :, None]

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
    """taps / number of elements that each window counts (OH, OW); None if ceil_mode added nothing.

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


class _GlobalPool2d(Layer):
    """Base class of pooling of whole feature maps: the window is the map."""

    kind = "pool"

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.window = Window((H, W))
        return (C,)


class GlobalAvgPool2d(_GlobalPool2d):
    """Mean of each feature map: Y[c] = mean over (h, w) of X[c] (Lin et al. 2013).

    X (C, H, W, N), Y (C, N); dX = dY / (H W).
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.mean(axis=(1, 2))  # (C, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        (C, H, W, N), = self.recall()
        dx = self.backend.empty((C, H, W, N), dy.dtype)
        dx[...] = (dy * (1.0 / (H * W)))[:, None, None, :]
        return dx


class GlobalMaxPool2d(_GlobalPool2d):
    """Largest element of each feature map: Y[c] = max over (h, w) of X[c]; its dY goes to the
    element that won (Oquab et al. 2015).

    X (C, H, W, N), Y (C, N). Of equal values the first wins; a NaN wins over everything.
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])  # (C, H*W, N)
        winner = self.backend.argmax(pixels, 1) if self.keeps(mode) else None
        self.remember(mode, winner, x.shape)
        return pixels.max(axis=1)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        argmax, x_shape = self.recall()
        return to_winner(self.xp, dy, argmax, x_shape)


def spans(size: int, count: int) -> list[Span]:
    """Window i goes from floor(i size / count) to ceil((i + 1) size / count); together they cover
    all."""
    return [(i * size // count, -(-(i + 1) * size // count)) for i in range(count)]


class _AdaptivePool2d(Layer):
    """Base class of pooling to a given size: the windows may overlap, and differ in size by one."""

    kind = "pool"
    make_pair: Callable[..., tuple[int, int]] = staticmethod(pair)      # another one for signals

    def __init__(self, output_size: Pair, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.output_size = output_size
        self._size = self.make_pair(output_size, "output_size", 1, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self._map_size = H, W
        self.expect_rows("an output", *self._size)
        OH, OW = self._size
        self.window = Window((_largest(H, OH), _largest(W, OW)),        # for the receptive field
                             (max(H // OH, 1), max(W // OW, 1)))
        return C, *self._size

    @cached_property
    def rows(self) -> list[Span]:
        return spans(self._map_size[0], self._size[0])

    @cached_property
    def columns(self) -> list[Span]:
        return spans(self._map_size[1], self._size[1])


def _largest(size: int, count: int) -> int:
    """Length of the longest window: max over i of ceil((i + 1) size / count) - floor(i size /
    count).

    With size = q count + r, a window has q elements, and more if r > 0: one more if r divides
    count, because windows then begin or end at each multiple of 1; else two more, because one
    window begins before such a multiple and ends after it.
    """
    q, r = divmod(size, count)
    return q + (0 if r == 0 else 1 if count % r == 0 else 2)


class AdaptiveAvgPool2d(_AdaptivePool2d):
    """Adaptive average pooling: Y[c, i, j] = mean of X[c] over rows i and columns j of a grid (He
    et al. 2015, section 2.2).

    X (C, H, W, N), Y (C, OH, OW, N). Row i of the grid goes from floor(i H / OH) to ceil((i + 1) H
    / OH), columns likewise: if OH does not divide H, windows overlap by one element. Each dX is the
    sum of dY / number of elements over the windows that contain it.

    Args:
        output_size: OH, or (OH, OW), 1 or larger.
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        y = self.backend.joined([x[:, top:bottom].mean(axis=1, keepdims=True)
                                 for top, bottom in self.rows], axis=1)         # (C, OH, W, N)
        return self.backend.joined([y[:, :, left:right].mean(axis=2, keepdims=True)
                                    for left, right in self.columns], axis=2)   # (C, OH, OW, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        (C, H, W, N), = self.recall()
        between = self.backend.zeros((C, len(self.rows), W, N), dy.dtype)
        for j, (start, stop) in enumerate(self.columns):
            between[:, :, start:stop] += dy[:, :, j, None] * (1.0 / (stop - start))
        dx = self.backend.zeros((C, H, W, N), dy.dtype)
        for i, (start, stop) in enumerate(self.rows):
            dx[:, start:stop] += between[:, i, None] * (1.0 / (stop - start))
        return dx


class AdaptiveMaxPool2d(_AdaptivePool2d):
    """Adaptive max pooling: Y[c, i, j] = max of X[c] over rows i and columns j of a grid (He et al.
    2015, section 2.2).

    X (C, H, W, N), Y (C, OH, OW, N); the grid is that of AdaptiveAvgPool2d. dY goes to the element
    that won, the first of equal ones; a NaN wins over everything. Several such layers, flattened
    and concatenated, are a spatial pyramid.

    Args:
        output_size: OH, or (OH, OW), 1 or larger.
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        shape = (x.shape[0], *self._size, x.shape[-1])
        y, argmax = self.backend.empty(shape, x.dtype), self.backend.empty(shape, "int64")
        for i, (top, bottom) in enumerate(self.rows):
            for j, (left, right) in enumerate(self.columns):
                window = x[:, top:bottom, left:right]
                window = window.reshape(x.shape[0], -1, x.shape[-1])    # (C, elements, N)
                y[:, i, j], argmax[:, i, j] = window.max(axis=1), self.backend.argmax(window, 1)
        self.remember(mode, argmax, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        argmax, x_shape = self.recall()
        dx = self.backend.zeros(x_shape, dy.dtype)
        for i, (top, bottom) in enumerate(self.rows):
            for j, (left, right) in enumerate(self.columns):
                window = dx[:, top:bottom, left:right]
                window += to_winner(self.xp, dy[:, i, j], argmax[:, i, j], window.shape)
        return dx


def to_winner(xp: Array, dy: Array, argmax: Array, shape: tuple[int, ...]) -> Array:
    """dy (C, N) at the largest element of a window of `shape` (C, h, w, N), read row by row; 0
    elsewhere."""
    C, h, w, N = shape
    won = xp.arange(h * w)[:, None] == argmax[:, None, :]  # (C, h*w, N)
    return xp.where(won, dy[:, None, :], dy.dtype.type(0)).reshape(shape)


class MaxUnpool2d(Pool2d):
    """Max unpooling: Y[position of the max of window o of Z] = X[o], and 0 elsewhere (Zeiler and
    Fergus 2014, section 2.1).

    A layer of two inputs, MaxUnpool2d(2)(x, z). X (C, OH, OW, N), Z and Y (C, H, W, N). z is the
    input of the pooling layer with the same arguments; the positions ("switches") are found in it
    again, so that only values go through the network. An element that is the largest of several
    windows gets the sum of their X (PyTorch keeps one of them). dX is dY at the positions; dZ = 0,
    because a small change of Z does not move them. For arrays without a network,
    functional.max_pool2d returns the positions, and max_pool2d_backward puts values there.
    Arguments are those of Pool2d.

    Raises:
        ValueError: X does not have the shape that pooling Z gives, or a window would contain
            nothing but padding.
    """

    kind = "unpool"

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def build(self, in_shape: Shape, pooled_shape: Shape) -> Shape:     # type: ignore[override]
        expected = super().build(pooled_shape)
        if in_shape != expected:
            raise ValueError(f"{self.who}: expected a first input of shape {expected}, which "
                             "pooling the second one gives. "
                             f"Received: {in_shape} and {pooled_shape}.")
        # the windows slide over Y; ceil(extent / stride) of them contain an element of Y
        over_y = self.over_y = self.window
        rows, columns = ((extent - 1) // s + 1
                         for extent, s in zip(over_y.extent, over_y.stride, strict=True))
        self.window, self.upsampling = Window((rows, columns)), over_y.stride
        return pooled_shape

    def forward(self, x: Array, z: Array, mode: str = PREDICT) -> Array:    # type: ignore[override]
        _, argmax = self.backend.max_pool2d(z, self.over_y)
        self.remember(mode, argmax, z.shape)
        return self.backend.max_pool2d_dx(x, argmax, z.shape, self.over_y)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, Array]:
        argmax, (C, H, W, N) = self.recall()
        seen = self.backend.im2col(dy, self.over_y).reshape(C, self.over_y.taps, *argmax.shape[1:])
        tap = self.xp.arange(self.over_y.taps, dtype=argmax.dtype)[:, None, None, None]
        dx = self.xp.where(argmax[:, None] == tap, seen, dy.dtype.type(0))  # (C, taps, OH, OW, N)
        return dx.sum(axis=1), self.backend.zeros((C, H, W, N), dy.dtype)
