"""Losses for segmentation that measure how two regions overlap, whatever their size.

y (K, H, W, N), or y (K, T, N) of signals, are probabilities of K classes, the output of Softmax or
Sigmoid. Targets are labels (N, H, W), or masks from 0 to 1 like y; for K = 1, where labels would
say nothing, masks (N, H, W) or (N, 1, H, W). Those of signals have T in the place of H, W.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import finite_array
from xpnet.layer import Array, Shape
from xpnet.losses.base import batch_of, one_hot
from xpnet.losses.binary import BinaryLoss
from xpnet.losses.classification import check_labels


class OverlapLoss(BinaryLoss):
    """Base class: L = mean over samples and classes of 1 - (a + smooth) / (b + smooth), a and b
    sums over the positions of a feature map.

    Args:
        smooth: above 0; a class that is nowhere and is found nowhere then costs nothing.
        ignore_index: marks positions that are left out of all sums.
        reduction: "sum" does not divide by the number of samples and classes.
    """

    of_places = False

    def __init__(self, *, smooth: float = 1.0, ignore_index: int | None = None,
                 reduction: str = "mean"
                 ) -> None:
        self.smooth = self.expect_positive("smooth", smooth)
        self.ignore_index = self.expect_label("ignore_index", ignore_index)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        if len(out_shape) not in (2, 3):
            raise ValueError(f"{self.who}: expected a network whose output is (classes, height, "
                             f"width) or (classes, steps). Received: output shape {out_shape}.")
        target = finite_array(target, f"{self.who}: targets", dtype)
        if out_shape[0] == 1 or target.ndim != len(out_shape):
            return super().targets(target, out_shape, dtype)
        if target.shape[1:] != out_shape[1:]:
            raise ValueError(f"{self.who}: expected labels of shape {batch_of(out_shape[1:])}. "
                             f"Received: shape {target.shape}.")
        return check_labels(self, target, out_shape[0])

    def overlap(self, y: Array, t: Array) -> tuple[Array, Array, Array, Array]:
        """Terms of a and b, elementwise, and their derivatives with respect to y."""
        raise NotImplementedError(f"{self.who}: expected a method overlap(y, t).")

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, zero = backend.xp, y.dtype.type(0)
        known = None if self.ignore_index is None else target != self.ignore_index
        t = target if target.ndim == y.ndim else one_hot(backend, target, len(y)).astype(y.dtype)
        if known is not None:
            y, t = xp.where(known, y, zero), xp.where(known, t, zero)
        a, b, da, db = self.overlap(y, t)
        positions = tuple(range(1, y.ndim - 1))
        above, below = (term.sum(axis=positions, keepdims=True) + self.smooth for term in (a, b))
        share = above / below
        dy = (share * db - da) / below
        f = 1.0 - share.reshape(len(y), -1)                                 # (K, N)
        return f, dy if known is None else xp.where(known, dy, zero), f.size


class Dice(OverlapLoss):
    """Dice loss: L = mean over samples and classes of 1 - (2 sum y t + smooth) / (sum y^2 + sum t^2
    + smooth) (Milletari et al. 2016).

    The sums are over the positions of a feature map. With D = (2 sum y t + smooth) / B and B the
    denominator, dy = (2 y D - 2 t) / (B N K), or (D - 2 t) / (B N K) if squared=False. Other
    arguments are those of OverlapLoss.

    Args:
        squared: False leaves out the squares in the denominator, as Dice 1945 does for sets, for
            which they change nothing.

    The source has squares in the denominator and no smoothing.
    """

    def __init__(self, *, squared: bool = True, smooth: float = 1.0,
                 ignore_index: int | None = None, reduction: str = "mean") -> None:
        super().__init__(smooth=smooth, ignore_index=ignore_index, reduction=reduction)
        self.squared = self.expect_choice("squared", squared, (True, False))

    def overlap(self, y: Array, t: Array) -> tuple[Array, Array, Array, Array]:
        if self.squared:
            return 2.0 * y * t, y * y + t * t, 2.0 * t, 2.0 * y
        return 2.0 * y * t, y + t, 2.0 * t, y.dtype.type(1)


class Jaccard(OverlapLoss):
    """Intersection over union: L = mean over samples and classes of 1 - (sum y t + smooth) / (sum
    of (y + t - y t) + smooth) (Rahman and Wang 2016).

    The sums are over the positions of a feature map. With J the fraction and U its denominator, dy
    = (J (1 - t) - t) / (U N K). Arguments are those of OverlapLoss.

    The source has no smoothing. For sets: Jaccard 1901.
    """

    def overlap(self, y: Array, t: Array) -> tuple[Array, Array, Array, Array]:
        both = y * t
        return both, y + t - both, t, 1.0 - t


class Tversky(OverlapLoss):
    """Tversky loss: L = mean over samples and classes of 1 - (i + smooth) / (i + alpha p + beta m +
    smooth), i = sum of y t (Salehi et al. 2017).

    p = sum of y (1 - t), m = sum of (1 - y) t; the sums are over the positions of a feature map.
    With T the fraction and B its denominator, dy = (T (t + alpha (1 - t) - beta t) - t) / (B N K).
    With alpha = beta = 1/2 it is Dice without squares, with alpha = beta = 1 Jaccard. Other
    arguments are those of OverlapLoss.

    Args:
        alpha: weight of false positives, above 0.
        beta: weight of false negatives, above 0.

    Salehi et al. use alpha = 0.3 and beta = 0.7 if missing something is worse. Tversky 1977.
    """

    def __init__(self, alpha: float = 0.5, beta: float = 0.5, *, smooth: float = 1.0,
                 ignore_index: int | None = None, reduction: str = "mean") -> None:
        super().__init__(smooth=smooth, ignore_index=ignore_index, reduction=reduction)
        self.alpha = self.expect_positive("alpha", alpha)
        self.beta = self.expect_positive("beta", beta)

    def overlap(self, y: Array, t: Array) -> tuple[Array, Array, Array, Array]:
        both = y * t
        return (both, both + self.alpha * (y - both) + self.beta * (t - both), t,
                t + self.alpha * (1.0 - t) - self.beta * t)
