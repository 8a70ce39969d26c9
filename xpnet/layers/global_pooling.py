"""Pooling of whole maps."""

from __future__ import annotations

from xpnet.backends import Window
from xpnet.layer import PREDICT, TRAIN, Array, Layer, Shape
from xpnet.layers.adaptive_pooling import to_winner


class _GlobalPool2d(Layer):
    """What pooling of whole maps shares: its window is the map."""

    kind = "pool"

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.window = Window((H, W))
        return (C,)


class GlobalAvgPool2d(_GlobalPool2d):
    """Mean of each map: Y[c] = mean over (h, w) of X[c]. X (C, H, W, N), Y (C, N); dX = dY / (H W)
    (Lin et al. 2013)."""

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.mean(axis=(1, 2))  # (C, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        (C, H, W, N), = self.recall()
        dx = self.backend.empty((C, H, W, N), dy.dtype)
        dx[...] = (dy * (1.0 / (H * W)))[:, None, None, :]
        return dx


class GlobalMaxPool2d(_GlobalPool2d):
    """Largest element of each map: Y[c] = max over (h, w) of X[c]; its dY goes to the element that
    won (Oquab et al. 2015).

    X (C, H, W, N), Y (C, N). Of equal values the first wins, a NaN wins over everything.
    """

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        pixels = x.reshape(x.shape[0], -1, x.shape[-1])  # (C, H*W, N)
        self.remember(mode, pixels.argmax(axis=1) if mode == TRAIN else None, x.shape)
        return pixels.max(axis=1)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        argmax, x_shape = self.recall()
        return to_winner(self.xp, dy, argmax, x_shape)
