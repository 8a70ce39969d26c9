"""Layers that only change shapes."""

from __future__ import annotations

import math
from collections.abc import Sequence

from xpnet.checks import MOST_AXES, is_integer, items, wrong
from xpnet.layer import PREDICT, Array, Layer, Shape


class Flatten(Layer):
    """Every sample as one vector: X (C, H, W, N) -> Y (C*H*W, N), a view in (C, H, W) order; dX is
    the way back."""

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
    is the way back.

    One of the numbers in shape may be -1: it follows from the others. Reshape((8, 4, 4)) leads from
    features to maps, in front of a ConvTranspose2d. ValueError where the numbers of elements
    differ.
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
                             f"shape={tuple(self.shape)}. "
                             f"Received: input shape {in_shape}.")
        return wanted

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.reshape(*self.out_shape, x.shape[-1])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        return dy.reshape(x_shape)


class Permute(Layer):
    """The axes of a sample in another order: Y = X.transpose(axes), so that axis a of Y is axis
    axes[a] of X; dX is the way back.

    Permute((1, 2, 0)) makes (H, W, C) of (C, H, W). The batch stays last. ValueError for axes that
    are not 0, 1, ..., each once.
    """

    kind = "permute"

    def __init__(self, axes: Sequence[int], *, name: str | None = None) -> None:
        super().__init__(name=name)
        order = items(axes)
        if not order or len(order) > MOST_AXES or not all(is_integer(axis) for axis in order) \
                or sorted(order) != list(range(len(order))):
            raise wrong(self.who, "axes to be 0, 1, ... in some order, each once", "axes", axes)
        self.axes = [int(axis) for axis in order]

    def build(self, in_shape: Shape) -> Shape:
        if len(in_shape) != len(self.axes):
            raise ValueError(f"{self.who}: expected an input of {len(self.axes)} axes, as many as "
                             f"in axes={tuple(self.axes)}. "
                             f"Received: input shape {in_shape}.")
        return tuple(in_shape[axis] for axis in self.axes)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.backend.asarray(x.transpose(*self.axes, len(self.axes)))

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        back = [self.axes.index(axis) for axis in range(len(self.axes))]
        return self.backend.asarray(dy.transpose(*back, len(back)))


class ChannelShuffle(Layer):
    """Channels dealt out like cards: Y[c g + k] = X[k C/g + c] for g groups of C/g channels, so
    that each group meets all others.

    X (C, H, W, N), Y the same; dX is the way back. Between two convolutions with groups it lets
    every filter see a part of every group. ValueError for groups that do not divide the channels.
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
    def deal(x: Array, rows: int) -> Array:
        """Channels (rows, C/rows) -> (C/rows, rows)."""
        return (x.reshape(rows, len(x) // rows, *x.shape[1:]).transpose(1, 0, 2, 3, 4).reshape(
            x.shape))

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.deal(x, self.groups)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.deal(dy, len(dy) // self.groups)
