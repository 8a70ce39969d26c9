"""Dropout."""

from __future__ import annotations

from xpnet.layer import PREDICT, Array, Layer, Shape


class Dropout(Layer):
    """Dropout: in training Y = X keep / (1 - p), each element kept with probability 1 - p; in prediction Y = X.

    X any shape. dX = dY keep / (1 - p). The mask follows from (seed, layer, step) alone and is the same on every
    backend. ValueError for p outside 0 <= p < 1. Srivastava et al. 2014, in its "inverted" form.
    """

    kind = "dropout"

    def __init__(self, p: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.p = self.expect_number("p", p, 0, below=1)

    def build(self, in_shape: Shape) -> Shape:
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return x
        y, keep = self.backend.dropout(x, self.p, (self.seed, self.index), self.counters)
        self.remember(mode, keep)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        keep, = self.recall()
        return self.backend.dropout_dx(dy, self.p, keep)
