"""A border around the maps, and taking one away."""

from __future__ import annotations

import numpy as np

from xpnet.backends.window import Padding, sides
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.gathered import RowsAndColumns, Sparse


class ConstantPad2d(Layer):
    """A border of one number: Y[c, y + top, x + left] = X[c, y, x], and value around it.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX is dY without its border.
    Padding is an int, a pair (rows, columns) or four ints (top, bottom, left, right). Dumoulin and
    Visin 2016, section 2.
    """

    kind = "pad"

    def __init__(self, padding: Padding, value: float = 0.0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.padding, self.sides = padding, sides(padding, "padding", self.who)
        self.value = self.expect_number("value", value)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        top, bottom, left, right = self.sides
        self.inner = slice(None), slice(top, top + H), slice(left, left + W)
        return C, top + H + bottom, left + W + right

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        y = self.backend.empty((*self.out_shape, x.shape[3]), x.dtype)
        y.fill(self.value)
        y[self.inner] = x
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.backend.asarray(dy[self.inner])


class ZeroPad2d(ConstantPad2d):
    """A border of zeros: Y[c, y + top, x + left] = X[c, y, x], and 0 around it; shapes and padding
    are ConstantPad2d's.

    Dumoulin and Visin 2016, section 2.
    """

    def __init__(self, padding: Padding, *, name: str | None = None) -> None:
        super().__init__(padding, name=name)


class _Repeated(RowsAndColumns):
    """A border that repeats rows and columns of the input."""

    kind = "pad"
    # rows that a border may have: as many as the input, less this number; None for any
    most: int | None = 0

    def __init__(self, padding: Padding, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.padding, self.sides = padding, sides(padding, "padding", self.who)

    def sizes(self, H: int, W: int) -> tuple[int, int]:
        top, bottom, left, right = self.sides
        if (self.most is not None
            and (max(top, bottom) > H - self.most or max(left, right) > W - self.most)):
            raise ValueError(f"{self.who}: expected padding of {H - self.most} rows and "
                             f"{W - self.most} columns at most. "
                             f"Received: padding={self.padding!r} for an input of {H}x{W}.")
        return top + H + bottom, left + W + right

    def matrices(self, H: int, W: int) -> tuple[Sparse, Sparse]:
        top, bottom, left, right = self.sides
        return (Sparse.taking(H, self.source(np.arange(-top, H + bottom), H)[:, None]),
                Sparse.taking(W, self.source(np.arange(-left, W + right), W)[:, None]))

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        """Which of `size` rows stands at each of these places; below 0 and from `size` on is the
        border."""
        raise NotImplementedError


class ReflectionPad2d(_Repeated):
    """A border that mirrors the image: Y[c, top - k] = X[c, k], Y[c, top + H - 1 + k] = X[c, H - 1
    - k], columns likewise.

    The edge itself is not repeated: abcd becomes cb abcd cb. X (C, H, W, N), Y (C, top + H +
    bottom, left + W + right, N); dX sums the dY of an element and of its mirror images. Padding as
    in ConstantPad2d. ValueError for a border that is not smaller than the input. Gonzalez and Woods
    2018, section 3.5.
    """

    most = 1

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        return (size - 1) - np.abs((size - 1) - np.abs(at))


class ReplicationPad2d(_Repeated):
    """A border that repeats the edge: Y[c, y + top, x + left] = X[c, y, x] with y and x moved to
    the nearest row and column.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX of an edge sums the dY of all
    its copies. Padding as in ConstantPad2d. Gonzalez and Woods 2018, section 3.5.
    """

    most = None

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        return np.clip(at, 0, size - 1)


class CircularPad2d(_Repeated):
    """A border that goes on at the other side: Y[c, y + top, x + left] = X[c, y mod H, x mod W],
    the image as a torus.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX sums the dY of an element and
    of its copies. With it a convolution is diagonal in the Fourier basis. Padding as in
    ConstantPad2d. ValueError for a border larger than the input. Gray 2006, section 3.1.
    """

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        return at % size


class Crop2d(Layer):
    """The maps without a border: Y[c, y, x] = X[c, y + top, x + left], the adjoint of a border of
    zeros.

    X (C, H, W, N), Y (C, H - top - bottom, W - left - right, N); dX is dY within a border of zeros.
    Cropping is an int, a pair (rows, columns) or four ints (top, bottom, left, right). ValueError
    where nothing would be left. Ronneberger et al. 2015, section 2.
    """

    kind = "crop"

    def __init__(self, cropping: Padding, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.cropping, self.sides = cropping, sides(cropping, "cropping", self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        top, bottom, left, right = self.sides
        OH, OW = H - top - bottom, W - left - right
        if min(OH, OW) < 1:
            raise ValueError(f"{self.who}: expected a cropping that leaves 1x1 at least. "
                             f"Received: cropping={self.cropping!r} of an input of {H}x{W}.")
        self.inner = slice(None), slice(top, top + OH), slice(left, left + OW)
        return C, OH, OW

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.backend.asarray(x[self.inner])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        dx = self.backend.zeros((*self.in_shapes[0], dy.shape[3]), dy.dtype)
        dx[self.inner] = dy
        return dx
