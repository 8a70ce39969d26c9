"""Softmax and its logarithm."""

from __future__ import annotations

from xpnet.backends.base import weighed
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.lengths import CAUSAL

__all__ = ["LogSoftmax", "Softmax"]


class OverAxis(Layer):
    """Base class: a function along one axis of a sample, 0 for the channels or features."""

    axis: int

    def build(self, in_shape: Shape) -> Shape:
        if self.axis >= len(in_shape):
            raise ValueError(f"{self.who}: expected samples that have an axis {self.axis}. "
                             f"Received: input shape {in_shape}.")
        self.steps = CAUSAL if self.axis == 0 else None
        return in_shape


class Softmax(OverAxis):
    """Softmax along an axis: Y[k] = exp(X[k] / T) / sum over j of exp(X[j] / T), dX = Y (dY - sum
    over k of dY Y) / T.

    X and Y (K, ..., N). As the last layer, before the cross entropy loss, Softmax() is fused with
    the loss; with another axis or temperature it cannot be the last layer before this loss.

    Args:
        axis: an axis of one sample.
        temperature: T > 0.

    Bridle 1990; the temperature: Hinton et al. 2015.
    """

    kind = "softmax"

    def __init__(self, axis: int = 0, temperature: float = 1.0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axis = self.expect_integer("axis", axis, 0)
        self.temperature = self.expect_positive("temperature", temperature)

    @property
    def of_logits(self) -> bool:
        """Whether this is the softmax that is part of the cross entropy loss."""
        return self.axis == 0 and self.temperature == 1

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        z = x if self.temperature == 1 else x / self.temperature
        if self.axis == 0:
            y = self.backend.softmax(z)
        else:
            e = self.xp.exp(z - z.max(axis=self.axis, keepdims=True))
            y = e / e.sum(axis=self.axis, keepdims=True)
        self.remember(mode, y)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        y, = self.recall()
        dz = (self.backend.softmax_dx(dy, y) if self.axis == 0
              else y * (dy - (dy * y).sum(axis=self.axis, keepdims=True)))
        return dz if self.temperature == 1 else dz / self.temperature


class LogSoftmax(OverAxis):
    """Logarithm of softmax along an axis: Y[k] = X[k] - log(sum over j of exp(X[j])), dX = dY -
    exp(Y) sum over k of dY.

    X and Y (K, ..., N). The largest X[j] is subtracted first, so that nothing overflows.

    Args:
        axis: an axis of one sample.

    Goodfellow et al. 2016, section 4.1.
    """

    kind = "log_softmax"

    def __init__(self, axis: int = 0, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.axis = self.expect_integer("axis", axis, 0)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        z = x - x.max(axis=self.axis, keepdims=True)
        y = z - self.xp.log(self.xp.exp(z).sum(axis=self.axis, keepdims=True))
        self.remember(mode, y)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        y, = self.recall()
        total = dy.sum(axis=self.axis, keepdims=True)
        return dy - weighed(self.xp, total, self.xp.exp(y))     # 0 for a sample whose dy is 0
