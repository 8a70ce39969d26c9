"""Layers that only move elements: other shapes, other orders of axes and channels."""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence

from xpnet.backends import Window
from xpnet.checks import MOST_AXES, expect_integer, is_integer, items, shown, wrong
from xpnet.layer import MOST_ELEMENTS, PREDICT, Array, Layer, Shape
from xpnet.layers.softmax import OverAxis
from xpnet.node import Node

__all__ = [
    "ChannelShuffle", "Flatten", "Permute", "PixelShuffle", "PixelUnshuffle", "Reshape", "Slice",
]


class Flatten(Layer):
    """Every sample as one vector: X (C, H, W, N) -> Y (C*H*W, N), a view in (C, H, W) order; dX is
    dY in X's shape."""

    kind = "flatten"

    def build(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.reshape(-1, x.shape[-1])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        return dy.reshape(x_shape)


class Reshape(Layer):
    """Another shape for the same elements: X (..., N) -> Y (*shape, N) in C order, as Flatten; dX
    is dY in X's shape.

    Reshape((8, 4, 4)) turns features into feature maps, for a ConvTranspose2d.

    Args:
        shape: shape of one sample; one of the numbers may be -1 and then follows from the others.

    Raises:
        ValueError: the numbers of elements differ.
    """

    kind = "reshape"

    def __init__(self, shape: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        sizes = items(shape)
        if (not sizes or len(sizes) > MOST_AXES
                or not all(is_integer(n, -1) and n != 0 for n in sizes) or sizes.count(-1) > 1):
            raise wrong(self.who, "shape to be ints, 1 or larger, of which one may be -1", "shape",
                        shape)
        self.shape = [int(n) for n in sizes]

    def build(self, in_shape: Shape) -> Shape:
        known = math.prod(n for n in self.shape if n != -1)
        wanted = tuple(math.prod(in_shape) // known if n == -1 else n for n in self.shape)
        if math.prod(wanted) != math.prod(in_shape):
            raise ValueError(f"{self.who}: expected an input with as many elements as "
                             f"shape={tuple(self.shape)}. Received: input shape {in_shape}.")
        return wanted

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.reshape(*self.out_shape, x.shape[-1])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        return dy.reshape(x_shape)


class Permute(Layer):
    """The axes of a sample in another order: Y = X.transpose(axes), so that axis a of Y is axis
    axes[a] of X; dX is dY in X's order.

    Permute((1, 2, 0)) turns (C, H, W) into (H, W, C). The batch axis stays last.

    Args:
        axes: 0, 1, ... in some order, each once.

    Raises:
        ValueError: a sample does not have this number of axes.
    """

    kind = "permute"

    def __init__(self, axes: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        order = items(axes)
        if (not order or len(order) > MOST_AXES or not all(is_integer(axis) for axis in order)
                or sorted(order) != list(range(len(order)))):
            raise wrong(self.who, "axes to be 0, 1, ... in some order, each once", "axes", axes)
        self.axes = [int(axis) for axis in order]

    def build(self, in_shape: Shape) -> Shape:
        if len(in_shape) != len(self.axes):
            raise ValueError(f"{self.who}: expected an input of {len(self.axes)} axes, as many as "
                             f"in axes={tuple(self.axes)}. Received: input shape {in_shape}.")
        return tuple(in_shape[axis] for axis in self.axes)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.backend.asarray(x.transpose(*self.axes, len(self.axes)))

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        back = [self.axes.index(axis) for axis in range(len(self.axes))]
        return self.backend.asarray(dy.transpose(*back, len(back)))


class Slice(OverAxis):
    """A part of the input along an axis of a sample: Y = X[start:stop]; dX is dY there, and 0
    elsewhere.

    Slice(0, 3) takes the first three channels, Slice(-1, axis=1) the last row, or the last step of
    a sequence. `split` makes all parts of a value.

    Args:
        start: index of the first element; a negative one counts from the end.
        stop: index after the last element; a negative one counts from the end, and None is the end.
        axis: an axis of one sample, 0 for the channels or features.

    Raises:
        ValueError: the axis does not have these elements.
    """

    kind = "slice"

    def __init__(self, start: int, stop: int | None = None, *, axis: int = 0,
                 name: str | None = None) -> None:
        super().__init__(name=name)
        self.start = self.expect_integer("start", start, -MOST_ELEMENTS, MOST_ELEMENTS)
        self.stop = (None if stop is None
                     else self.expect_integer("stop", stop, -MOST_ELEMENTS, MOST_ELEMENTS))
        self.axis = self.expect_integer("axis", axis, 0)

    def build(self, in_shape: Shape) -> Shape:
        super().build(in_shape)
        size = in_shape[self.axis]
        first, after = (index + size if index < 0 else index
                        for index in (self.start, size if self.stop is None else self.stop))
        if not 0 <= first < after <= size:
            raise ValueError(f"{self.who}: expected a part of the {size} elements of axis "
                             f"{self.axis}. Received: start={self.start}, stop={self.stop}.")
        self._part = (slice(None),) * self.axis + (slice(first, after),)
        return (*in_shape[:self.axis], after - first, *in_shape[self.axis + 1:])

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.backend.asarray(x[self._part])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        dx = self.backend.zeros((*self.in_shapes[0], dy.shape[-1]), dy.dtype)
        dx[self._part] = dy
        return dx


def split(value: Node, parts: int | Sequence[int], axis: int = 0) -> list[Node]:
    """All parts of a value of a graph: [value[:n1], value[n1:n1 + n2], ...], one Slice for each.

    `Concat(axis)` joins them again.

    Args:
        value: an Input or the output of a layer.
        parts: the number of parts of one size; or their sizes n1, n2, ...
        axis: an axis of one sample, 0 for the channels or features.

    Raises:
        TypeError: `value` is no value of a graph.
        ValueError: the axis does not have this many elements, or cannot be divided into this many
            parts.
    """
    if not isinstance(value, Node):
        raise TypeError("split: expected a value of a graph, from Input(...) or a layer. Received: "
                        f"{type(value).__name__}.")
    if expect_integer("split", "axis", axis, 0) >= len(value.shape):
        raise ValueError(f"split: expected a value with an axis {axis}. Received: shape "
                         f"{value.shape}.")
    size, given = value.shape[axis], items(parts)
    if given is None and size % (count := expect_integer("split", "parts", parts)) == 0:
        given = [size // count] * count
    if (not given or not all(is_integer(n, 1) for n in given) or sum(given) != size):
        raise ValueError(f"split: expected parts to divide the {size} elements of axis {axis}: a "
                         f"number of equal parts, or their sizes. Received: parts={shown(parts)}.")
    stops = itertools.accumulate(given)
    return [Slice(int(stop - n), int(stop), axis=axis)(value)
            for n, stop in zip(given, stops, strict=True)]


class ChannelShuffle(Layer):
    """Channels interleaved between groups: Y[c g + k] = X[k C/g + c] for g groups of C/g channels.

    X and Y (C, H, W, N); dX is dY in X's order. Between two convolutions with groups it lets every
    filter read a part of every group.

    Args:
        groups: g.

    Raises:
        ValueError: groups does not divide the channels.

    Zhang et al. 2018, section 3.1.
    """

    kind = "shuffle"

    def __init__(self, groups: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.groups = self.expect_integer("groups", groups)

    def build(self, in_shape: Shape) -> Shape:
        C, _, _ = self.expect_axes(in_shape, "channels, height, width")
        if C % self.groups:
            raise ValueError(f"{self.who}: expected groups={self.groups} to divide the channels. "
                             f"Received: {C} channels.")
        return in_shape

    @staticmethod
    def interleave(x: Array, rows: int) -> Array:
        """Channels (rows, C/rows) -> (C/rows, rows)."""
        blocks = x.reshape(rows, len(x) // rows, *x.shape[1:])
        return blocks.transpose(1, 0, 2, 3, 4).reshape(x.shape)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.interleave(x, self.groups)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.interleave(dy, len(dy) // self.groups)


class _Blocks(Layer):
    """Base class: blocks of r x r pixels and r^2 channels, either of which becomes the other."""

    kind = "shuffle"

    r: int                              # rows and columns of a block

    def __init__(self, order: str, name: str | None) -> None:
        super().__init__(name=name)
        self.order = self.expect_choice("order", order, ("CRD", "DCR"))

    def to_pixels(self, x: Array) -> Array:
        """(C r^2, H, W, N) -> (C, H r, W r, N)."""
        D, H, W, N = x.shape
        r, C = self.r, D // self.r**2
        if self.order == "CRD":
            x = x.reshape(C, r, r, H, W, N).transpose(0, 3, 1, 4, 2, 5)  # (C, H, r, W, r, N)
        else:
            x = x.reshape(r, r, C, H, W, N).transpose(2, 3, 0, 4, 1, 5)
        return x.reshape(C, H * r, W * r, N)

    def to_channels(self, x: Array) -> Array:
        """(C, H r, W r, N) -> (C r^2, H, W, N)."""
        C, H, W, N = x.shape
        r = self.r
        x = x.reshape(C, H // r, r, W // r, r, N)
        x = x.transpose(0, 2, 4, 1, 3, 5) if self.order == "CRD" else x.transpose(2, 4, 0, 1, 3, 5)
        return x.reshape(C * r * r, H // r, W // r, N)


class PixelShuffle(_Blocks):
    """Depth to space: Y[c, h r + i, w r + j] = X[c r^2 + i r + j, h, w], so that channels become
    blocks of r x r pixels.

    X (C r^2, H, W, N), Y (C, H r, W r, N); dX is dY in X's order.

    Args:
        upscale_factor: r.
        order: "CRD", as above, or "DCR": X[(i r + j) C + c, h, w]. A layer that is learned before
            it can adapt to either.

    Raises:
        ValueError: r^2 does not divide the channels.

    Shi et al. 2016, eq. 4, which has the order DCR.
    """

    def __init__(self, upscale_factor: int, order: str = "CRD", *, name: str | None = None) -> None:
        super().__init__(order, name)
        self.r = self.upscale_factor = self.expect_integer("upscale_factor", upscale_factor)

    def build(self, in_shape: Shape) -> Shape:
        D, H, W = self.expect_axes(in_shape, "channels, height, width")
        if D % self.r**2:
            raise ValueError(f"{self.who}: expected a number of channels that upscale_factor^2 = "
                             f"{self.r**2} divides. Received: input shape {in_shape}.")
        self.upsampling = self.r, self.r
        return D // self.r**2, H * self.r, W * self.r

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.to_pixels(x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.to_channels(dy)


class PixelUnshuffle(_Blocks):
    """Space to depth: Y[c r^2 + i r + j, h, w] = X[c, h r + i, w r + j], so that blocks of r x r
    pixels become channels.

    X (C, H r, W r, N), Y (C r^2, H, W, N); dX is dY in X's order. It is the inverse of
    PixelShuffle.

    Args:
        downscale_factor: r.
        order: "CRD", as above, or "DCR": Y[(i r + j) C + c, h, w].

    Raises:
        ValueError: r does not divide height and width.

    Shi et al. 2016.
    """

    def __init__(self, downscale_factor: int, order: str = "CRD", *, name: str | None = None
                 ) -> None:
        super().__init__(order, name)
        self.r = self.downscale_factor = self.expect_integer("downscale_factor", downscale_factor)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        if H % self.r or W % self.r:
            raise ValueError(f"{self.who}: expected a height and a width that downscale_factor = "
                             f"{self.r} divides. Received: input shape {in_shape}.")
        self.window = Window((self.r, self.r), (self.r, self.r))
        return C * self.r**2, H // self.r, W // self.r

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.to_channels(x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.to_pixels(dy)
