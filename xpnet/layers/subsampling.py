"""Other ways to make feature maps smaller: trained, skipping, p-norm, Gaussian, stochastic."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair, pair
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.activations import Activated
from xpnet.layers.local_normalization import norm, norm_slope
from xpnet.layers.pooling import Pool2d

__all__ = ["GaussianPool2d", "LpPool2d", "SkipSampling2d", "StochasticPool2d", "Subsampling2d"]


class Subsampling2d(Activated):
    """Trainable subsampling: Y[c] = f(a[c] sum over the window of X[c] + b[c]), one coefficient and
    one bias per feature map.

    X (C, H, W, N), a and b (C,), Y (C, OH, OW, N); the stride is kernel_size. With S the sum of the
    window and dZ = dY f'(Z): da = sum of dZ S, db = sum of dZ, dS = a dZ.

    Args:
        init: name of an initializer of a; by default the one that fits the activation.

    LeCun et al. 1998, section II.B (layers S2 and S4).
    """

    kind = "pool"
    window: Window

    def __init__(self, kernel_size: Pair, *, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.kernel_size, self.init = kernel_size, init
        self.window = Window.make(kernel_size, kernel_size, who=self.who)
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        taps = self.window.taps
        self.a = self.parameter("a", (C,), self.initializer, fan_in=taps, fan_out=taps, decay=True)
        self.b = self.parameter("b", (C,), zeros)
        return C, *self.window.output_size(H, W, who=self.who)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        s = self.backend.avg_pool2d(x, self.window)
        s *= self.window.taps  # (C, OH, OW, N)
        z = s * self.a.data[:, None, None, None] + self.b.data[:, None, None, None]
        y, kept = self.activated(z)
        self.remember(mode, s, kept, x.shape)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        s, kept, x_shape = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=self.b.grad,
                                              accumulate=accumulate)
        self.backend.store((dz * s).sum(axis=(1, 2, 3)), self.a.grad, accumulate)  # (C,)
        ds = dz * (self.a.data * self.window.taps)[:, None, None, None]
        return self.backend.avg_pool2d_dx(ds, x_shape, self.window)


class SkipSampling2d(Layer):
    """Subsampling by skipping: Y[c, i, j] = X[c, offset + i stride, offset + j stride]; dX is dY at
    these elements, 0 elsewhere (LeCun et al. 1989).

    X (C, H, W, N), Y (C, ceil((H - offset) / stride), ceil((W - offset) / stride), N), a view of X.
    After a convolution it gives what the convolution would give with this stride, for stride^2
    times the work. The skipping factors of Ciresan et al. 2011 count the elements that are left out
    in between: stride - 1.

    Args:
        stride: an int or a pair (rows, columns).
        offset: the first row and column that are taken; an int or a pair.

    Raises:
        ValueError: the offset is not smaller than the stride, or not smaller than the input.
    """

    kind = "pool"

    def __init__(self, stride: Pair, *, offset: Pair = 0, name: str | None = None) -> None:
        super().__init__(name=name)
        self.stride, self.offset = stride, offset
        strides, self._offsets = (pair(stride, "stride", 1, self.who),
                                  pair(offset, "offset", 0, self.who))
        if any(o >= s for o, s in zip(self._offsets, strides, strict=True)):
            raise ValueError(f"{self.who}: expected an offset smaller than the stride, {stride}. "
                             f"Received: offset={offset!r}.")
        self.window = Window((1, 1), strides)
        self._taken = tuple(slice(o, None, s) for o, s in zip(self._offsets, strides, strict=True))

    def build(self, in_shape: Shape) -> Shape:
        C, *sizes = self.expect_axes(in_shape, "channels, height, width")
        if any(size <= o for size, o in zip(sizes, self._offsets, strict=True)):
            raise ValueError(f"{self.who}: expected an input larger than the offset, "
                             f"{self.offset}. Received: input shape {in_shape}.")
        H, W = (len(range(*taken.indices(size)))
                for taken, size in zip(self._taken, sizes, strict=True))
        return C, H, W

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x[:, self._taken[0], self._taken[1]]

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        dx = self.backend.zeros(x_shape, dy.dtype)
        dx[:, self._taken[0], self._taken[1]] = dy
        return dx


class LpPool2d(Pool2d):
    """Lp pooling: Y = (sum over the window of |X|^p)^(1/p), with `mean` the mean instead of the sum
    (Sermanet et al. 2012).

    X (C, H, W, N), Y (C, OH, OW, N).
    dX = dY sign(X) (|X| / Y)^(p - 1); where Y = 0, which has no derivative, dX = 0. p = 1 is the
    sum of |X|, p = 2 the Euclidean norm. With `mean`, Y goes from the mean of |X| at p = 1 to its
    maximum at large p (Gulcehre et al. 2014). Powers are taken of quotients below 1, so large
    values do not overflow. PyTorch's LPPool2d has X^p instead of |X|^p, and is negative or NaN for
    odd p if the sum is negative; ONNX has |X|^p. Other arguments and errors are those of Pool2d.

    Args:
        p: 1 or larger.
        mean: divide the sum by the number of taps; zeros of the padding count.
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
        seen = self.backend.im2col(x, self.window)
        seen = seen.reshape(C, self.window.taps, OH, OW, -1)                # (C, KH*KW, OH, OW, N)
        length = norm(self.xp, seen, self.p, axis=1)
        self.remember(mode, seen, length, x.shape)
        return length[:, 0] * self._factor

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        seen, length, x_shape = self.recall()
        dseen = norm_slope(self.xp, seen, length, self.p) * (dy * self._factor)[:, None]
        return self.backend.col2im(dseen.reshape(-1, dseen[0, 0].size), x_shape, self.window)


class GaussianPool2d(Pool2d):
    """Gaussian pooling: Y = sum of g X over the window, g ~ exp(-distance^2 / (2 sigma^2)) with the
    sum 1.

    X (C, H, W, N), Y (C, OH, OW, N). The distance is that from the centre of the window, in
    elements of X; an even window has its centre between elements. Every feature map is convolved
    with the same fixed filter, and dX is the transposed convolution of dY with it. Other arguments
    and errors are those of Pool2d.

    Args:
        sigma: standard deviation, above 0.
        count_include_pad: weigh the zeros of the padding like elements. False: divide by the
            weights of the elements inside X, so that their sum is 1.

    Goodfellow et al. 2016, section 9.3, name it as a kind of pooling; Burt and Adelson 1983 halve
    images with a similar kernel.
    """

    def __init__(self, kernel_size: Pair, sigma: float, *, stride: Pair | None = None,
                 padding: Padding = 0, ceil_mode: bool = False, count_include_pad: bool = True,
                 name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, 1, ceil_mode, name)
        self.sigma = self.expect_positive("sigma", sigma)
        self.count_include_pad = self.expect_flag("count_include_pad", count_include_pad)

    def _bell(self, size: int) -> np.ndarray:
        """g along one axis, (size,)."""
        squares = (np.arange(size) - (size - 1) / 2) ** 2
        # the smallest square is subtracted, so that not all weights are 0 for a small sigma
        weights = np.exp((squares.min() - squares) / (2 * self.sigma ** 2))
        return weights / weights.sum()

    @cached_property
    def _filters(self) -> Array:
        """The same filter for each feature map, (C, 1, KH, KW)."""
        rows, columns = (self._bell(size) for size in self.window.kernel)
        filters = np.repeat(np.outer(rows, columns)[None, None], self.in_shapes[0][0], axis=0)
        return self.backend.asarray(filters, self.buffers.dtype)

    @cached_property
    def _factor(self) -> Array | None:
        """1 / the sum of the weights that are inside X, (OH, OW, 1)."""
        if self.count_include_pad:
            return None
        inside = self.window.inside(*self.in_shapes[0][1:])                     # (OH, KH), (OW, KW)
        rows, columns = (mask @ self._bell(size)
                         for mask, size in zip(inside, self.window.kernel, strict=True))
        return self.backend.asarray(1.0 / np.outer(rows, columns), self.buffers.dtype)[:, :, None]

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        y = self.backend.conv2d(x, self._filters, self.window, groups=x.shape[0])
        return y if self._factor is None else y * self._factor

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        dy = dy if self._factor is None else dy * self._factor
        return self.backend.conv2d_dx(dy, self._filters, x_shape, self.window, groups=x_shape[0])


class StochasticPool2d(Pool2d):
    """Stochastic pooling: in training Y = X[k], drawn with p[k] = A[k] / sum of A, A = max(X, 0);
    in prediction sum of p A.

    X (C, H, W, N), Y (C, OH, OW, N). Each window draws one of its elements, large ones more often.
    The paper has a ReLU before it, so that A = X. If no element is above 0, Y = 0. Padding is never
    drawn; a NaN in a window makes Y NaN. dX is dY at the drawn element, and in a prediction
    dX = dY (2 A - Y) / sum of A where X > 0. Arguments and errors are those of Pool2d.

    The draws depend only on (seed, layer, step) and are the same on every backend: element i of Y,
    in C order, takes the first k at which the sum of A up to k exceeds u times the sum of A, where
    u is made of the upper 24 bits of random word i.

    Zeiler and Fergus 2013.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        C, OH, OW = self.out_shape
        seen = self.backend.im2col(x, self.window)
        seen = seen.reshape(C, self.window.taps, OH, OW, -1)                # (C, KH*KW, OH, OW, N)
        weights = self.xp.maximum(seen, 0)
        if mode == PREDICT:
            total = weights.sum(axis=1, keepdims=True)
            total = self.xp.where(total == 0, x.dtype.type(1), total)       # (C, 1, OH, OW, N)
            y = (weights * (weights / total)).sum(axis=1)
            self.remember(mode, x.shape, weights, total, y)
            return y
        drawn, total = self._draw(weights)
        self.remember(mode, x.shape, drawn)
        y = self._at(drawn, weights).sum(axis=1)
        return self.xp.where(self.xp.isnan(total), total, y)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, *kept = self.recall()
        if len(kept) == 1:
            dseen = self._at(kept[0], dy[:, None])                          # (C, KH*KW, OH, OW, N)
        else:           # of a prediction: dY/dA[k] = (2 A[k] - Y) / sum of A
            weights, total, y = kept
            slope = (2.0 * weights - y[:, None]) / total
            dseen = self.xp.where(weights > 0, slope * dy[:, None], dy.dtype.type(0))
        return self.backend.col2im(dseen.reshape(-1, dy[0].size), x_shape, self.window)

    def _draw(self, weights: Array) -> tuple[Array, Array]:
        """The tap that each window draws, `taps` if all weights are 0, and the sum of the weights:
        (C, OH, OW, N).

        Sums go tap by tap, so that they are the same on every backend.
        """
        total = self.backend.zeros((weights.shape[0], *weights.shape[2:]), weights.dtype)
        for tap in range(self.window.taps):
            total += weights[:, tap]
        bits = self.backend.random_bits(total.size, (self.seed, self.index), self.counters)
        u = (bits.reshape(total.shape) >> 8).astype(weights.dtype) * 2.0 ** -24
        limit = u * total                                                   # below the total
        drawn = self.backend.zeros(total.shape, "int32")
        so_far = self.backend.zeros(total.shape, weights.dtype)
        for tap in range(self.window.taps):
            so_far += weights[:, tap]
            drawn += so_far <= limit
        return drawn, total

    def _at(self, drawn: Array, values: Array) -> Array:
        """`values` at the tap that was drawn, 0 at all others: (C, KH*KW, OH, OW, N)."""
        taps = self.xp.arange(self.window.taps, dtype="int32")[:, None, None, None]
        return self.xp.where(drawn[:, None] == taps, values, values.dtype.type(0))
