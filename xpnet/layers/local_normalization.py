"""Normalisation without parameters: over neighbouring channels, over a window, by a norm."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xpnet.backends import Window
from xpnet.checks import MOST_AXES
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.lengths import CAUSAL

__all__ = [
    "ContrastNorm2d", "DivisiveNorm2d", "L1Norm", "L2Norm", "LocalResponseNorm", "LpNormalize",
    "SubtractiveNorm2d",
]


class LocalResponseNorm(Layer):
    """Local response normalisation: Y = X / (k + alpha / size * sum over size neighbouring channels
    of X^2)^beta.

    X and Y (C, ..., N). The neighbours of channel c are c - size // 2 to c + (size - 1) // 2; those
    that do not exist count as 0.
    With b the sum in parentheses: dX[c] = dY[c] b[c]^-beta - 2 alpha beta / size X[c] (sum of dY X
    b^(-beta - 1) over the channels whose neighbour c is).

    With size=None the sum goes over all C channels for each of them, and is divided by C.
    Brightness normalisation X / (kappa + lambda sum of X^2)^mu is LocalResponseNorm(None, k=kappa,
    alpha=C * lambda, beta=mu). With size = C the first channel would have (C + 1) // 2 neighbours
    only.

    Krizhevsky et al. 2012, section 3.3, do not divide alpha by the size: their k=2, n=5, alpha=1e-4
    is LocalResponseNorm(5, k=2, alpha=5e-4) here. For an even size PyTorch takes one channel more
    before c, as here, and ONNX one more after it.

    Args:
        size: number of neighbours; None for all channels.
        k: above 0, so that nothing divides by 0.
    """

    kind = "lrn"

    def __init__(self, size: int | None = 5, *, alpha: float = 1e-4, beta: float = 0.75,
                 k: float = 1.0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.size = None if size is None else self.expect_integer("size", size)
        self.alpha = self.expect_number("alpha", alpha, 0)
        self.beta = self.expect_number("beta", beta, 0)
        self.k = self.expect_positive("k", k)
        # The channels are the rows of an image (1, C, 1, rest * N) of one column; everything else
        # counts as samples.
        self._neighbours = None if self.size is None else Window(
            (self.size, 1), padding=(self.size // 2, (self.size - 1) // 2, 0, 0))

    def build(self, in_shape: Shape) -> Shape:
        return in_shape

    def _mean(self, x: Array) -> Array:
        """The mean over the neighbours of each channel; over all channels (1, ..., N)."""
        if self._neighbours is None:
            return x.mean(axis=0, keepdims=True)
        return self.backend.avg_pool2d(self._as_rows(x), self._neighbours).reshape(x.shape)

    def _mean_dx(self, dm: Array) -> Array:
        """The adjoint of the mean. For all channels dm (C, ..., N) is that of each channel's mean.
        """
        if self._neighbours is None:
            return dm.mean(axis=0, keepdims=True)
        rows = self._as_rows(dm)
        return self.backend.avg_pool2d_dx(rows, rows.shape, self._neighbours).reshape(dm.shape)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        b = self.k + self.alpha * self._mean(x * x)
        scale = b ** -self.beta
        self.remember(mode, x, b, scale)
        return x * scale

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, b, scale = self.recall()
        if not self.needs_dx:
            return None
        shared = self._mean_dx(dy * x * scale / b)
        return dy * scale - (2 * self.alpha * self.beta) * x * shared

    @staticmethod
    def _as_rows(x: Array) -> Array:
        return x.reshape(1, x.shape[0], 1, -1)


class _LocalNorm2d(Layer):
    """Base class of local normalisation: M, the weighted mean over all channels in the window
    around each position, and its adjoint.

    (M X)[h, w] = 1 / (C n[h, w]) * sum over c, i, j of g[i, j] X[c, h + i, w + j], g a Gaussian
    that sums to 1, and n[h, w] the part of g that is inside the image there: at the border the
    weights are scaled to sum to 1 again.
    """

    kind = "localnorm"
    window: Window

    def __init__(self, kernel_size: int, sigma: float | None, name: str | None) -> None:
        super().__init__(name=name)
        self.kernel_size = self.expect_integer("kernel_size", kernel_size)
        if self.kernel_size % 2 == 0:
            raise ValueError(f"{self.who}: expected an odd kernel_size, so that a window has a "
                             f"centre. Received: kernel_size={kernel_size}.")
        self.sigma = None if sigma is None else self.expect_positive("sigma", sigma)
        self.window = Window.make(self.kernel_size, padding="half", who=self.who)

    def build(self, in_shape: Shape) -> Shape:
        self.expect_axes(in_shape, "channels, height, width")
        return in_shape

    def _bell(self) -> np.ndarray:
        """g along one axis, (K,)."""
        distance = np.arange(self.kernel_size) - self.kernel_size // 2
        g = np.exp(-0.5 * (distance / (self.sigma or self.kernel_size / 4)) ** 2)
        return g / g.sum()

    @cached_property
    def _g(self) -> Array:
        g = self._bell()
        return self.backend.asarray(np.outer(g, g)[None, None], self.buffers.dtype)  # (1, 1, K, K)

    @cached_property
    def _share(self) -> Array:
        """1 / (C n), (H, W, 1)."""
        C, H, W = self.in_shapes[0]
        rows, columns = (inside @ self._bell() for inside in self.window.inside(H, W))
        share = 1 / (C * np.outer(rows, columns))
        return self.backend.asarray(share[:, :, None], self.buffers.dtype)

    def _mean(self, x: Array) -> Array:
        """M X (1, H, W, N)."""
        return self.backend.conv2d(x.sum(axis=0, keepdims=True), self._g, self.window) * self._share

    def _mean_dx(self, dm: Array) -> Array:
        """The adjoint of M, the same for each channel: (1, H, W, N) for dm (1, H, W, N)."""
        return self.backend.conv2d_dx(dm * self._share, self._g, dm.shape, self.window)

    def _subtract(self, x: Array) -> Array:
        """X - M X.

        M leaves a constant as it is, so the mean of each sample is subtracted first: rounding
        errors are then those of the differences in an image, and not of its brightness.
        """
        mean = x.mean(axis=(0, 1, 2), keepdims=True, dtype="float64").astype(x.dtype)
        # a NaN stays in the windows that contain it
        x = x - self.xp.where(self.xp.isfinite(mean), mean, x.dtype.type(0))
        return x - self._mean(x)

    def _subtract_dx(self, dy: Array) -> Array:
        return dy - self._mean_dx(dy.sum(axis=0, keepdims=True))

    def _divide(self, x: Array, floor: float) -> tuple[Array, tuple[Array, ...]]:
        """X / max(least, sigma), and what its gradient needs."""
        sigma = self.xp.sqrt(self._mean(x * x))  # (1, H, W, N)
        mean = sigma.mean(axis=(1, 2), keepdims=True)  # (1, 1, 1, N)
        least = self.xp.maximum(mean, floor)
        divisor = self.xp.maximum(least, sigma)
        y = x / divisor
        return y, (x, y, divisor, sigma, sigma > least, mean > floor)

    def _divide_dx(self, dy: Array, kept: tuple[Array, ...]) -> Array:
        x, y, divisor, sigma, is_sigma, is_mean = kept
        ddivisor = -(dy * y).sum(axis=0, keepdims=True) / divisor  # (1, H, W, N)
        dmean = (ddivisor * ~is_sigma).sum(axis=(1, 2), keepdims=True) * is_mean  # (1, 1, 1, N)
        dsigma = ddivisor * is_sigma + dmean * (1.0 / (sigma.shape[1] * sigma.shape[2]))
        # sigma is 0 only where all X around it are 0
        dsquares = 0.5 * dsigma / (sigma + (sigma == 0))
        return dy / divisor + 2 * x * self._mean_dx(dsquares)


class SubtractiveNorm2d(_LocalNorm2d):
    """Subtractive normalisation: Y = X - M X, M the Gaussian mean over all channels and the window
    around each position.

    X and Y (C, H, W, N). dX = dY - M^T (sum of dY over the channels). At the border only elements
    inside the image count, with weights that sum to 1 again. A lecture prints M without
    normalisation, as a plain sum over channels and window: a constant X would then not become 0.

    Args:
        kernel_size: rows and columns of the window, odd.
        sigma: standard deviation of the Gaussian; by default a quarter of kernel_size (the source
            gives none).

    Jarrett et al. 2009, section 2.
    """

    def __init__(self, kernel_size: int = 9, *, sigma: float | None = None, name: str | None = None
                 ) -> None:
        super().__init__(kernel_size, sigma, name)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self._subtract(x)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        self.recall()
        return self._subtract_dx(dy) if self.needs_dx else None


class DivisiveNorm2d(_LocalNorm2d):
    """Divisive normalisation: Y = X / max(c, sigma), sigma = sqrt(M X^2), c the mean of sigma over
    the image.

    X and Y (C, H, W, N), sigma (H, W, N), c (N,). M is the mean of SubtractiveNorm2d, which
    describes the other arguments.
    With d the divisor, D = -(sum of dY Y over the channels) / d, and D' = D where sigma > c, plus
    for each image the mean of the D elsewhere: dX = dY / d + 2 X M^T (D' / 2 sigma).

    Args:
        floor: lower bound of c, above 0, which the source lacks: it keeps the rounding errors of a
            flat image from being amplified.

    Jarrett et al. 2009, section 2.
    """

    def __init__(self, kernel_size: int = 9, *, sigma: float | None = None, floor: float = 1e-4,
                 name: str | None = None
                 ) -> None:
        super().__init__(kernel_size, sigma, name)
        self.floor = self.expect_positive("floor", floor)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        y, kept = self._divide(x, self.floor)
        self.remember(mode, *kept)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        kept = self.recall()
        return self._divide_dx(dy, kept) if self.needs_dx else None


class ContrastNorm2d(DivisiveNorm2d):
    """Local contrast normalisation: V = X - M X, Y = V / max(c, sigma) with sigma = sqrt(M V^2), c
    = mean of sigma.

    SubtractiveNorm2d and then DivisiveNorm2d, with the same window and their arguments.

    Jarrett et al. 2009, section 2.
    """

    @property
    def seen_window(self) -> Window:
        """Two windows, one after the other."""
        return Window.make(2 * self.kernel_size - 1, padding="half", who=self.who)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        return super().forward(self._subtract(x), mode)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        dv = super().backward(dy)
        return None if dv is None else self._subtract_dx(dv)


def norm(xp: Array, x: Array, p: float, axis: int) -> Array:
    """(sum |x|^p)^(1/p) along an axis, which stays with size 1.

    x is divided by the largest |x| first, so that no power overflows.
    """
    largest = abs(x).max(axis=axis, keepdims=True)
    scale = xp.where((largest > 0) & (largest < xp.inf), largest, x.dtype.type(1))
    return scale * (abs(x / scale) ** p).sum(axis=axis, keepdims=True) ** (1.0 / p)


def norm_slope(xp: Array, x: Array, length: Array, p: float) -> Array:
    """The derivative of `length`, the p-norm of x: sign(x) (|x| / length)^(p - 1); 0 where the
    length is 0."""
    share = abs(x) / xp.where(length == 0, x.dtype.type(1), length)
    return xp.sign(x) * share ** (p - 1.0)


class LpNormalize(Layer):
    """Division by the norm along an axis: Y = X / max(||X||_p, eps), ||X||_p = (sum |X|^p)^(1/p)
    (Horn and Johnson 1985).

    X and Y of any shape. dX = (dY - S sum of dY Y) / ||X||_p with S = sign(X) (|X| / ||X||_p)^(p -
    1), which is Y itself for p = 2. Below eps dX = dY / eps, except that dX = 0 where all of X are
    0: a blank sample has no direction, and 1 / eps would be 1e12.

    Args:
        p: 1 or larger.
        axis: an axis of a sample, 0 for the channels or features, or None for all of them.
        eps: 1e-30 or larger.

    Raises:
        ValueError: a sample does not have this axis.
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
        self.steps = CAUSAL if self.axis is not None and self._along == 0 else None
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
        slope = norm_slope(self.xp, v, length, self.p) * (length > self.eps)    # eps has none
        dx = g - slope * (g * y).sum(axis=self._along, keepdims=True)
        dx /= self.xp.maximum(length, self.eps)
        return dx.reshape(dy.shape)


class L1Norm(LpNormalize):
    """Division by the sum of the absolute values along an axis: Y = X / max(sum of |X|, eps) (Horn
    and Johnson 1985).

    LpNormalize with p = 1: shapes, gradient and errors are described there. NumPyNet's L1Norm_layer
    has dX = dY - sign(Y), which is not the gradient: the divisor is missing, and dY in the second
    term.
    """

    def __init__(self, *, axis: int | None = 0, eps: float = 1e-12, name: str | None = None
                 ) -> None:
        super().__init__(1, axis=axis, eps=eps, name=name)


class L2Norm(LpNormalize):
    """Division by the Euclidean length along an axis: Y = X / max(sqrt(sum of X^2), eps) (Liu et
    al. 2015).

    LpNormalize with p = 2: shapes, gradient and errors are described there. NumPyNet's L2Norm_layer
    has dX = dY + (1 - Y) / ||X||, which is not the gradient: it does not divide dY, and does not
    subtract the part of dY along Y.
    """

    def __init__(self, *, axis: int | None = 0, eps: float = 1e-12, name: str | None = None
                 ) -> None:
        super().__init__(2, axis=axis, eps=eps, name=name)
