"""Layers that only change shapes."""

from __future__ import annotations

import math

from xpnet.layer import PREDICT, Array, Layer, Shape


class Flatten(Layer):
    """Every sample as one vector: X (C, H, W, N) -> Y (C*H*W, N), a view in (C, H, W) order; dX is the way back."""

    kind = "flatten"

    def build(self, in_shape: Shape) -> Shape:
        return (math.prod(in_shape),)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x.shape)
        return x.reshape(-1, x.shape[-1])

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_shape, = self.recall()
        return dy.reshape(x_shape)
