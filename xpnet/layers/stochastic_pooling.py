"""Pooling that draws an element of each window."""

from __future__ import annotations

from xpnet.backends.window import Padding, Pair
from xpnet.layer import PREDICT, Array
from xpnet.layers.pooling import Pool2d


class StochasticPool2d(Pool2d):
    """Stochastic pooling: in training Y = X[k], drawn with p[k] = A[k] / sum of A, A = max(X, 0);
    in prediction sum of p A.

    X (C, H, W, N), Y (C, OH, OW, N): each window draws one of its elements, large ones more often;
    the paper has a ReLU before it, so that A = X. Y = 0 where no element is above 0; padding is
    never drawn, and a NaN shows. dX is dY at the element that was drawn.
    The draws follow from (seed, layer, step) alone and are the same on every backend: element i of
    Y, in C order, is that k at which the sum of A up to k exceeds u sum of A for the first time, u
    the upper 24 bits of random word i. A prediction is for a network that was trained so and has no
    gradient of its own. ValueError where a window would see nothing but padding. Zeiler and Fergus
    2013.
    """

    def __init__(self, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                 dilation: Pair = 1, ceil_mode: bool = False, name: str | None = None) -> None:
        super().__init__(kernel_size, stride, padding, dilation, ceil_mode, name)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        C, OH, OW = self.out_shape
        # (C, KH*KW, OH, OW, N)
        seen = self.backend.im2col(x, self.window).reshape(C, self.window.taps, OH, OW, -1)
        weights = self.xp.maximum(seen, 0)
        if mode == PREDICT:
            total = weights.sum(axis=1, keepdims=True)
            return (weights * (weights / self.xp.where(total == 0, x.dtype.type(1), total))).sum(
                axis=1)
        drawn, total = self._draw(weights)
        self.remember(mode, drawn, x.shape)
        y = self._at(drawn, weights).sum(axis=1)
        return self.xp.where(self.xp.isnan(total), total, y)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        drawn, x_shape = self.recall()
        return self.backend.col2im(self._at(drawn, dy[:, None]).reshape(-1, dy[0].size), x_shape,
                                   self.window)

    def _draw(self, weights: Array) -> tuple[Array, Array]:
        """Which tap each window draws, `taps` where all weights are 0, and the sum of the weights:
        (C, OH, OW, N).

        Sums go tap by tap, so that they are the same on every backend.
        """
        total = self.backend.zeros((weights.shape[0], *weights.shape[2:]), weights.dtype)
        for tap in range(self.window.taps):
            total += weights[:, tap]
        bits = self.backend.random_bits(total.size, (self.seed, self.index),
                                        self.counters).reshape(total.shape)
        limit = (bits >> 8).astype(weights.dtype) * 2.0 ** -24 * total  # below the total
        drawn, so_far = (self.backend.zeros(total.shape, "int32"),
                         self.backend.zeros(total.shape, weights.dtype))
        for tap in range(self.window.taps):
            so_far += weights[:, tap]
            drawn += so_far <= limit
        return drawn, total

    def _at(self, drawn: Array, values: Array) -> Array:
        """`values` at the tap that was drawn, 0 at all others: (C, KH*KW, OH, OW, N)."""
        taps = self.xp.arange(self.window.taps, dtype="int32")[:, None, None, None]
        return self.xp.where(drawn[:, None] == taps, values, values.dtype.type(0))
