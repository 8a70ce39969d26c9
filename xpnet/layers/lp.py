"""Norms of vectors in layers: pooling by the p-norm of each window, and division by the norm along
an axis."""

from __future__ import annotations

from xpnet.backends.window import Padding, Pair
from xpnet.checks import MOST_AXES
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.pooling import Pool2d


def norm(xp: Array, x: Array, p: float, axis: int) -> Array:
    """(sum |x|^p)^(1/p) along an axis, which stays with size 1: divided by the largest |x| first,
    so that no power overflows."""
    largest = abs(x).max(axis=axis, keepdims=True)
    scale = xp.where((largest > 0) & (largest < xp.inf), largest, x.dtype.type(1))
    return scale * (abs(x / scale) ** p).sum(axis=axis, keepdims=True) ** (1.0 / p)


def norm_slope(xp: Array, x: Array, length: Array, p: float) -> Array:
    """The derivative of `length`, the p-norm of x: sign(x) (|x| / length)^(p - 1); 0 where the
    length is 0."""
    share = abs(x) / xp.where(length == 0, x.dtype.type(1), length)
    return xp.sign(x) * share ** (p - 1.0)


class LpPool2d(Pool2d):
    """Lp pooling: Y = (sum over the window of |X|^p)^(1/p), with `mean` the mean instead of the sum
    (Sermanet et al. 2012).

    X (C, H, W, N), Y (C, OH, OW, N). p = 1 is the sum of |X|, p = 2 the Euclidean norm; with `mean`
    Y goes from the mean of |X| at p = 1 to its maximum at large p (Gulcehre et al. 2014). Padding
    is 0, and with `mean` counts as elements. dX = dY sign(X) (|X| / Y)^(p - 1), and 0 where Y = 0,
    which has no derivative there. Powers are of quotients below 1, so that large values do not
    overflow. PyTorch's LPPool2d leaves out | |, and is negative or NaN for odd p where the sum is
    negative; ONNX has it. ValueError for p below 1, and where a window would see nothing but
    padding.
    """

    def __init__(self, kernel_size: Pair, p: float = 2, *, stride: Pair | None = None,
                 padding: Padding = 0, dilation: Pair = 1, ceil_mode: bool = False,
                 mean: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)
        self.p, self.mean = self.expect_number("p", p, 1), self.expect_flag("mean", mean)

    def build(self, in_shape: Shape) -> Shape:
        out_shape = super().build(in_shape)
        self._factor = self.window.taps ** (-1.0 / self.p) if self.mean else 1.0
        return out_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        C, OH, OW = self.out_shape
        # (C, KH*KW, OH, OW, N)
        seen = self.backend.im2col(x, self.window).reshape(C, self.window.taps, OH, OW, -1)
        length = norm(self.xp, seen, self.p, axis=1)
        self.remember(mode, seen, length, x.shape)
        return length[:, 0] * self._factor

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        seen, length, x_shape = self.recall()
        dseen = norm_slope(self.xp, seen, length, self.p) * (dy * self._factor)[:, None]
        return self.backend.col2im(dseen.reshape(-1, dseen[0, 0].size), x_shape, self.window)


class LpNormalize(Layer):
    """Division by the norm along an axis: Y = X / max(||X||_p, eps), ||X||_p = (sum |X|^p)^(1/p)
    (Horn and Johnson 1985).

    X of any shape, Y the same; `axis` is one of a sample's, 0 for the channels or features, or None
    for all of them. dX = (dY - S sum of dY Y) / ||X||_p with S = sign(X) (|X| / ||X||_p)^(p - 1),
    which is Y itself for p = 2; below eps dX = dY / eps, but 0 where all of X are 0: a blank sample
    has no direction, and 1 / eps would be 1e12. ValueError for p below 1, an eps below 1e-30, and
    an axis that a sample has not.
    """

    kind = "norm"

    def __init__(self, p: float = 2, *, axis: int | None = 0, eps: float = 1e-12,
                 name: str | None = None) -> None:
        super().__init__(name=name)
        self.p = self.expect_number("p", p, 1)
        self.axis = (None if axis is None
                     else self.expect_integer("axis", axis, -MOST_AXES, MOST_AXES))
        self.eps = self.expect_number("eps", eps, 1e-30)

    def build(self, in_shape: Shape) -> Shape:
        axis = 0 if self.axis is None else self.expect_integer("axis", self.axis, -len(in_shape))
        if axis >= len(in_shape):
            raise ValueError(f"{self.who}: expected an axis of a sample of shape {in_shape}. "
                             f"Received: axis={self.axis}.")
        self._along = axis % len(in_shape)
        return in_shape

    def _vectors(self, x: Array) -> Array:
        """x with its vectors along the axis `_along`."""
        return x.reshape(-1, x.shape[-1]) if self.axis is None else x

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        v = self._vectors(x)
        length = norm(self.xp, v, self.p, self._along)
        y = v / self.xp.maximum(length, self.eps)
        self.remember(mode, v, y, length)
        return y.reshape(x.shape)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        v, y, length = self.recall()
        g = self._vectors(dy) * (length != 0)
        # a constant divisor has none
        slope = norm_slope(self.xp, v, length, self.p) * (length > self.eps)
        dx = (g - slope * (g * y).sum(axis=self._along, keepdims=True)) / self.xp.maximum(
            length, self.eps)
        return dx.reshape(dy.shape)


class L1Norm(LpNormalize):
    """Division by the sum of the absolute values along an axis: Y = X / max(sum of |X|, eps) (Horn
    and Johnson 1985).

    LpNormalize with p = 1: shapes, gradient and errors stand there. NumPyNet's L1Norm_layer has dX
    = dY - sign(Y), which is no gradient: it leaves out the divisor, and dY in the second term.
    """

    def __init__(self, *, axis: int | None = 0, eps: float = 1e-12, name: str | None = None
                 ) -> None:
        super().__init__(1, axis=axis, eps=eps, name=name)


class L2Norm(LpNormalize):
    """Division by the Euclidean length along an axis: Y = X / max(sqrt(sum of X^2), eps) (Liu et
    al. 2015).

    LpNormalize with p = 2: shapes, gradient and errors stand there. NumPyNet's L2Norm_layer has dX
    = dY + (1 - Y) / ||X||, which is no gradient: it does not divide dY, and takes no part of it off
    along Y.
    """

    def __init__(self, *, axis: int | None = 0, eps: float = 1e-12, name: str | None = None
                 ) -> None:
        super().__init__(2, axis=axis, eps=eps, name=name)
