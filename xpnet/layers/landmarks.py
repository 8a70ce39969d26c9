"""From heat maps to the places of landmarks."""

from __future__ import annotations

from functools import cached_property

import numpy as np

from xpnet.layer import PREDICT, Array, Layer, Shape

__all__ = ["SoftArgmax2d"]


class SoftArgmax2d(Layer):
    """Soft argmax: x[m] = sum over i, j of p[m, i, j] (j + 1/2) / W, y[m] = sum of p[m, i, j] (i +
    1/2) / H, p = softmax of beta X[m] over all positions (Levine et al. 2016).

    X (M, H, W, N) -> (2 M, N): x1, y1, ..., xM, yM as fractions of the width and the height. Each
    map gives one place, which is not bound to whole positions, and the argmax as beta grows; unlike
    the argmax it has a gradient: with dx and dy the gradients with respect to x and y,
    dX[i, j] = beta p[i, j] (dx ((j + 1/2) / W - x) + dy ((i + 1/2) / H - y)).

    Args:
        beta: above 0.

    Also called spatial softmax, and by Nibali et al. 2018 DSNT.
    """

    kind = "soft_argmax"

    def __init__(self, beta: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.beta = self.expect_positive("beta", beta)

    def build(self, in_shape: Shape) -> Shape:
        maps, height, width = self.expect_axes(in_shape, "maps, height, width")
        self.expect_rows("an input", height, width)
        return (2 * maps,)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        xp, (M, _, _, N) = self.xp, x.shape
        z = self.beta * x
        e = xp.exp(z - z.max(axis=(1, 2), keepdims=True))
        p = e / e.sum(axis=(1, 2), keepdims=True)                       # (M, H, W, N)
        y = self.backend.empty((M, 2, N), x.dtype)
        y[:, 0] = (p.sum(axis=1) * self._columns).sum(axis=1)
        y[:, 1] = (p.sum(axis=2) * self._rows).sum(axis=1)
        self.remember(mode, p, y)
        return y.reshape(2 * M, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        p, y = self.recall()
        g = self.beta * dy.reshape(y.shape)                             # (M, 2, N)
        across = g[:, :1] * (self._columns - y[:, :1])                  # (M, W, N)
        down = g[:, 1:] * (self._rows - y[:, 1:])                       # (M, H, N)
        return p * (across[:, None] + down[:, :, None])

    @cached_property
    def _columns(self) -> Array:
        """(j + 1/2) / W, (W, 1)."""
        return self._places(self.in_shapes[0][2])

    @cached_property
    def _rows(self) -> Array:
        """(i + 1/2) / H, (H, 1)."""
        return self._places(self.in_shapes[0][1])

    def _places(self, length: int) -> Array:
        places = (np.arange(length) + 0.5) / length
        return self.backend.asarray(places[:, None], self.buffers.dtype)
