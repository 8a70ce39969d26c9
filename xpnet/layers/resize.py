"""Layers that change height and width: borders, cropping, interpolation."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair, pair, shown_size, sides
from xpnet.checks import LARGEST, shown, wrong
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.gathered import RowsAndColumns, Sparse

__all__ = [
    "CircularPad2d", "ConstantPad2d", "Crop2d", "ReflectionPad2d", "ReplicationPad2d", "Upsample2d",
    "ZeroPad2d",
]

CUBIC = -0.75       # slope of the cubic kernel at 1, as in PyTorch and ONNX; Keys has -1/2


class ConstantPad2d(Layer):
    """A border of one number: Y[c, y + top, x + left] = X[c, y, x], and value around it.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX is dY without its border.

    Args:
        padding: an int, a pair (rows, columns) or four ints (top, bottom, left, right).

    Dumoulin and Visin 2016, section 2.
    """

    kind = "pad"
    make_sides: Callable[..., tuple[int, int, int, int]] = staticmethod(sides)  # others for signals

    def __init__(self, padding: Padding, value: float = 0.0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.padding, self.sides = padding, self.make_sides(padding, "padding", self.who)
        self.value = self.expect_number("value", value)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        top, bottom, left, right = self.sides
        self.inner = slice(None), slice(top, top + H), slice(left, left + W)
        return C, top + H + bottom, left + W + right

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        C, H, W, N = x.shape
        top, bottom, left, right = self.sides
        y = self.backend.empty((C, top + H + bottom, left + W + right, N), x.dtype)
        y.fill(self.value)
        y[self.inner] = x
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.backend.asarray(dy[self.inner])


class ZeroPad2d(ConstantPad2d):
    """A border of zeros: Y[c, y + top, x + left] = X[c, y, x], and 0 around it.

    ConstantPad2d with the value 0: shapes, gradient and padding are described there.

    Dumoulin and Visin 2016, section 2.
    """

    def __init__(self, padding: Padding, *, name: str | None = None) -> None:
        super().__init__(padding, name=name)


class _Repeated(RowsAndColumns):
    """Base class of borders that repeat rows and columns of the input."""

    kind = "pad"
    # a border has at most this number of rows less than the input; None for no limit
    less: int | None = 0
    in_steps = False            # others for signals, as make_sides
    make_sides: Callable[..., tuple[int, int, int, int]] = staticmethod(sides)

    def __init__(self, padding: Padding, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.padding, self.sides = padding, self.make_sides(padding, "padding", self.who)

    def sizes(self, H: int, W: int) -> tuple[int, int]:
        top, bottom, left, right = self.sides
        if (self.less is not None
                and (max(top, bottom) > H - self.less or max(left, right) > W - self.less)):
            most = (shown_size(1, W - self.less, True) if self.in_steps else
                    f"{H - self.less} rows and {W - self.less} columns")
            raise ValueError(f"{self.who}: expected padding of at most {most}. Received: "
                             f"padding={self.padding!r} for an input of "
                             f"{shown_size(H, W, self.in_steps)}.")
        return top + H + bottom, left + W + right

    def matrices(self, H: int, W: int) -> tuple[Sparse, Sparse]:
        top, bottom, left, right = self.sides
        return (Sparse.taking(H, self.source(np.arange(-top, H + bottom), H)[:, None]),
                Sparse.taking(W, self.source(np.arange(-left, W + right), W)[:, None]))

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        """The row of X that is repeated at each position; below 0 and from `size` on is the border.
        """
        raise NotImplementedError


class ReflectionPad2d(_Repeated):
    """A border that mirrors the image: Y[c, top - k] = X[c, k], Y[c, top + H - 1 + k] = X[c, H - 1
    - k], columns likewise.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX sums the dY of an element and
    of its mirror images. The edge itself is not repeated: abcd becomes cb abcd cb. Padding as in
    ConstantPad2d.

    Raises:
        ValueError: the border is not smaller than the input.

    Gonzalez and Woods 2018, section 3.5.
    """

    less = 1

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        return (size - 1) - np.abs((size - 1) - np.abs(at))


class ReplicationPad2d(_Repeated):
    """A border that repeats the edge: Y[c, y + top, x + left] = X[c, y, x] with y and x moved to
    the nearest row and column.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX of an edge sums the dY of all
    its copies. Padding as in ConstantPad2d.

    Gonzalez and Woods 2018, section 3.5.
    """

    less = None

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        return np.clip(at, 0, size - 1)


class CircularPad2d(_Repeated):
    """A border that continues at the opposite side: Y[c, y + top, x + left] = X[c, y mod H, x mod
    W], the image as a torus.

    X (C, H, W, N), Y (C, top + H + bottom, left + W + right, N); dX sums the dY of an element and
    of its copies. With such a border a convolution is diagonal in the Fourier basis. Padding as in
    ConstantPad2d.

    Raises:
        ValueError: the border is larger than the input.

    Gray 2006, section 3.1.
    """

    def source(self, at: np.ndarray, size: int) -> np.ndarray:
        return at % size


class Crop2d(Layer):
    """Feature maps without a border: Y[c, y, x] = X[c, y + top, x + left], the adjoint of a border
    of zeros.

    X (C, H, W, N), Y (C, H - top - bottom, W - left - right, N); dX is dY within a border of zeros.

    Args:
        cropping: an int, a pair (rows, columns) or four ints (top, bottom, left, right).

    Raises:
        ValueError: nothing would be left.

    Ronneberger et al. 2015, section 2.
    """

    kind = "crop"
    in_steps = False            # others for signals, as make_sides
    make_sides: Callable[..., tuple[int, int, int, int]] = staticmethod(sides)

    def __init__(self, cropping: Padding, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.cropping, self.sides = cropping, self.make_sides(cropping, "cropping", self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        top, bottom, left, right = self.sides
        OH, OW = H - top - bottom, W - left - right
        if min(OH, OW) < 1:
            raise ValueError(f"{self.who}: expected a cropping that leaves at least "
                             f"{shown_size(1, 1, self.in_steps)}. Received: cropping="
                             f"{self.cropping!r} of an input of {shown_size(H, W, self.in_steps)}.")
        self.inner = slice(None), slice(top, top + OH), slice(left, left + OW)
        return C, OH, OW

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return self.backend.asarray(x[self.inner])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        dx = self.backend.zeros(x_shape, dy.dtype)
        dx[self.inner] = dy
        return dx


class Upsample2d(RowsAndColumns):
    """Interpolated feature maps: Y[c, y, x] = sum over i, j of k(v - i) k(u - j) X[c, i, j], where
    (v, u) is the position of (y, x) in X.

    X (C, H, W, N), Y (C, floor(H s), floor(W s), N) for a scale factor s, or Y (C, OH, OW, N) for a
    given size, with s = OH / H and OW / W. Rows and columns are separate: Y = A X B^T, dX = A^T dY
    B. A pixel is a small square. The square of (y, x) has its centre at v = (y + 1/2) / s - 1/2
    ("half-pixel"). With align_corners the centres of the corners stay where they are, v = y (H - 1)
    / (OH - 1). A scale below 1 takes samples; it does not average.

    Args:
        scale_factor: s > 0, or a pair (rows, columns).
        mode: "nearest": the element X[floor(y / s), floor(x / s)]; "nearest-exact": the element
            whose square contains (v, u); "bilinear": k(t) = max(0, 1 - |t|), the edge repeated
            outside; "bicubic": k(t) = (a + 2)|t|^3 - (a + 3)|t|^2 + 1 up to 1 and a |t|^3 - 5a
            |t|^2 + 8a |t| - 4a up to 2, with a = -3/4 as in PyTorch and ONNX (Keys 1981 shows that
            a = -1/2 approximates best).
        align_corners: only for "bilinear" and "bicubic".
        size: OH, or (OH, OW), instead of a scale factor.

    Raises:
        ValueError: not exactly one of scale_factor and size is given.
    """

    kind = "upsample"
    # rows and columns that an output element reads, by mode
    reads: Mapping[str, int] = {"nearest": 1, "nearest-exact": 1, "bilinear": 2, "bicubic": 4}
    # others for signals
    in_steps = False
    make_window: Callable[..., Window] = staticmethod(Window.make)
    make_pair: Callable[..., tuple[int, int]] = staticmethod(pair)

    def __init__(self, scale_factor: float | tuple[float, float] | None = None,
                 mode: str = "nearest", align_corners: bool = False, *, size: Pair | None = None,
                 name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        if (scale_factor is None) == (size is None):
            raise ValueError(f"{self.who}: expected either scale_factor or size. "
                             f"Received: scale_factor={shown(scale_factor)}, size={shown(size)}.")
        self.size = size
        self._size = None if size is None else self.make_pair(size, "size", 1, self.who)
        self.upsampling = (1.0, 1.0) if scale_factor is None else self.scales(scale_factor)
        reads = self.reads[self.expect_choice("mode", mode, self.reads)]
        if self.expect_flag("align_corners", align_corners) and reads == 1:
            smooth = " or ".join(f'"{name}"' for name, count in self.reads.items() if count > 1)
            raise ValueError(f"{self.who}: expected mode {smooth} with align_corners. "
                             f"Received: mode={mode!r}, align_corners=True.")
        self.scale_factor = (None if scale_factor is None
                             else self.upsampling if isinstance(scale_factor, tuple | list)
                             else self.upsampling[-1])
        self.mode, self.align_corners = mode, align_corners
        self.window = self.make_window(reads)

    def scales(self, scale_factor: Any) -> tuple[float, float]:
        """The factors of rows and of columns."""
        scales = tuple(scale_factor) if isinstance(scale_factor, tuple | list) else (
            scale_factor,) * 2
        if len(scales) != 2:
            raise wrong(self.who, "scale_factor to be a number or a pair (rows, columns)",
                        "scale_factor", scale_factor)
        rows, columns = (self.expect_number("scale_factor", s, 1e-6) for s in scales)
        return rows, columns

    def sizes(self, H: int, W: int) -> tuple[int, int]:
        if self._size is not None:
            self.upsampling = self._size[0] / H, self._size[1] / W
            return self._size
        rows, columns = H * self.upsampling[0], W * self.upsampling[1]
        if min(rows, columns) < 1:
            raise ValueError(f"{self.who}: expected an output of at least "
                             f"{shown_size(1, 1, self.in_steps)}. Received: an input of "
                             f"{shown_size(H, W, self.in_steps)} with "
                             f"scale_factor={self.scale_factor!r}.")
        return int(min(rows, LARGEST)), int(min(columns, LARGEST))

    def matrices(self, H: int, W: int) -> tuple[Sparse, Sparse]:
        OH, OW = self.sizes(H, W)
        return self._matrix(H, OH, self.upsampling[0]), self._matrix(W, OW, self.upsampling[1])

    def _matrix(self, size: int, out: int, scale: float) -> Sparse:
        """Weights (out, size) of each element in each output along one axis."""
        def position(y: np.ndarray) -> np.ndarray:
            # for a given size, scale = out / size may be rounded
            return y / scale if self._size is None else y * size / out

        y = np.arange(out)
        if self.reads[self.mode] == 1:
            inside = 0.5 if self.mode == "nearest-exact" else 0.0
            taken = np.minimum(position(y + inside).astype(int), size - 1)
            return Sparse.taking(size, taken[:, None])
        at = y * ((size - 1) / max(out - 1, 1)) if self.align_corners else position(y + 0.5) - 0.5
        below = np.floor(at).astype(int)
        cubic = self.reads[self.mode] == 4
        near = range(-1, 3) if cubic else range(2)
        kernel = _cubic if cubic else lambda t: np.maximum(0, 1 - np.abs(t))
        taken = np.stack([np.clip(below + k, 0, size - 1) for k in near], axis=1)
        return Sparse.taking(size, taken, np.stack([kernel(at - below - k) for k in near], axis=1))


def _cubic(t: np.ndarray) -> np.ndarray:
    a, t = CUBIC, np.abs(t)
    inner, outer = (a + 2) * t**3 - (a + 3) * t**2 + 1, a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a
    return np.where(t <= 1, inner, np.where(t < 2, outer, 0))
