"""Losses of vectors and distances that one network output gives. Those of pairs and triplets are in
xpnet.functional."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss
from xpnet.losses.margin import expect_signs

LEAST_LENGTH = 1e-8     # of a vector whose direction is asked for, as in PyTorch


class CosineDistance(Loss):
    """Cosine distance: L = mean over samples of 1 - cos(y, t), cos(y, t) = y . t / (|y| |t|)
    (Salton et al. 1975).

    y (D, N) or (D, H, W, N), targets of the same shape: vectors along the first axis, of which only
    the direction counts; each place of a map is a sample. dy = (cos(y, t) y / |y| - t / |t|) / (|y|
    number of samples). Lengths count as 1e-8 at least. reduction="sum" does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        cosine, dy = cosine_of(backend.xp, y, target)[:2]
        return 1.0 - cosine, -dy, y[0].size


class HingeEmbedding(Loss):
    """Hinge embedding loss: L = mean over all elements of y where t = 1, max(0, margin - y) where t
    = -1.

    y of any shape are distances, 0 or larger; t = 1 is a pair that belongs together, t = -1 one
    that does not. dy = 1 where t = 1, -1 where t = -1 and y < margin, divided by the number of
    elements. reduction="batch" is the mean over the batch of the sum over the outputs, "sum" the
    sum over all elements. Mobahi et al. 2009.
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        self.margin = self.expect_positive("margin", margin)
        self.reduction = self.expect_reduction(reduction)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        return expect_signs(self.who, super().targets(target, out_shape, dtype))

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, together = backend.xp, target > 0
        far = xp.maximum(self.margin - y, 0)
        return xp.where(together, y, far), xp.where(together, y.dtype.type(1),
                                                    -(far > 0).astype(y.dtype)), y.size


def cosine_of(xp: Any, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """cos(a, b) along the first axis, and its gradients with respect to a and b."""
    length_a, length_b = (xp.maximum(xp.sqrt((v * v).sum(axis=0)), LEAST_LENGTH) for v in (a, b))
    unit_a, unit_b = a / length_a, b / length_b
    cosine = (unit_a * unit_b).sum(axis=0)
    return cosine, (unit_b - cosine * unit_a) / length_a, (unit_a - cosine * unit_b) / length_b
