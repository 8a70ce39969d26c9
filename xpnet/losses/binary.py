"""Losses for yes or no: each output by itself, with targets from 0 to 1."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.activations import fraction
from xpnet.backends.base import weighed
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, column

LEAST_LOG = -100.0      # lower bound of logarithms of probabilities, as in PyTorch
LEAST_VARIANCE = 1e-12  # y (1 - y) where it is 0


class BinaryLoss(Loss):
    """Base class of the losses with targets from 0 to 1, or `ignore_index`."""

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = super().targets(target, out_shape, dtype)
        known = target if self.ignore_index is None else target[target != self.ignore_index]
        if known.size and not (known.min() >= 0 and known.max() <= 1):
            mark = "" if self.ignore_index is None else f", or {self.ignore_index} to be ignored"
            raise ValueError(f"{self.who}: expected targets from 0 to 1{mark}. "
                             f"Received: targets from {known.min():g} to {known.max():g}.")
        return target


class BinaryCrossEntropy(BinaryLoss):
    """Sigmoid and binary cross entropy in one: L = mean over all elements of -t log s(z) - (1 - t)
    log(1 - s(z)) (Cox 1958).

    z of any shape are logits, s(z) = 1 / (1 + exp(-z)), and dz = (s(z) - t) / number of elements;
    stable for all z. Targets have z's shape and are between 0 and 1.

    Args:
        from_logits: False for probabilities y, with dy = (y - t) / (y (1 - y)) / number of
            elements. Logarithms are at least -100, and y (1 - y) counts as 1e-12 where it is 0, so
            that both are finite at 0 and 1. If the last layer is a Sigmoid, the loss is computed
            from the input of that layer, which still has digits where y is rounded to 1.
        reduction: "batchmean" is the mean over the batch of the sum over the outputs, "sum" the sum
            over all elements.
    """

    takes_logits = "sigmoid"

    def __init__(self, *, from_logits: bool = True, reduction: str = "mean") -> None:
        self.from_logits = self.expect_choice("from_logits", from_logits, (True, False))
        self.reduction = self.expect_reduction(reduction)
        self.takes_logits = "sigmoid" if from_logits else ""
        self.of_logits = None if from_logits else BinaryCrossEntropy(reduction=reduction)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        f, slope = (of_logits(backend.xp, y, target, 1.0 - target) if self.from_logits
                    else of_probabilities(backend.xp, y, target))
        return f, slope, y.size


class MultiLabelCrossEntropy(BinaryLoss):
    """Cross entropy of many labels at once: L = mean over known targets of -w (p t log s(z) + (1 -
    t) log(1 - s(z))) (Nam et al. 2014).

    z (K, ..., N) are logits, s(z) = 1 / (1 + exp(-z)), and dz = w ((1 - t) s(z) - p t (1 - s(z))) /
    number of known targets. Each of the K labels is present or not, independently of the others.
    Targets have z's shape and are between 0 and 1. If all targets are ignored, L is 0.

    Args:
        weight: w, a number for each label. Weights are not part of the divisor.
        pos_weight: p, a number for each label.
        ignore_index: marks unknown targets, e.g. -1, which are left out of the sum and of the
            divisor (Durand et al. 2019).
        reduction: "sum" does not divide.
    """

    takes_logits = "sigmoid"

    def __init__(self, *, weight: Any = None, pos_weight: Any = None,
                 ignore_index: int | None = None, reduction: str = "mean") -> None:
        self.weight = self.expect_weights("weight", weight)
        self.pos_weight = self.expect_weights("pos_weight", pos_weight)
        self.ignore_index = self.expect_label("ignore_index", ignore_index)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        self.check_weights("weight", self.weight, out_shape)
        self.check_weights("pos_weight", self.pos_weight, out_shape)
        return super().targets(target, out_shape, dtype)

    def divisors(self, target: np.ndarray, out_shape: Shape) -> np.ndarray | None:
        if self.ignore_index is None:
            return None
        return target != self.ignore_index

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        known: Any = (1.0 if self.ignore_index is None
                      else (target != self.ignore_index).astype(y.dtype))
        w = column(backend, self.weight, y) * known
        f, slope = of_logits(backend.xp, y, w * column(backend, self.pos_weight, y) * target,
                             w * (1.0 - target))
        return f, slope, y.size if self.ignore_index is None else known


class FocalCrossEntropy(BinaryLoss):
    """Focal loss: L = mean over all elements of -a t (1 - s)^g log s - (1 - a) (1 - t) s^g log(1 -
    s), s = 1 / (1 + exp(-z)).

    Binary cross entropy in which outputs that are already right count little. z of any shape are
    logits; targets are between 0 and 1.
    dz = a t (1 - s)^g (g s log s - (1 - s)) - (1 - a) (1 - t) s^g (g (1 - s) log(1 - s) - s),
    divided by the number of elements.

    Args:
        alpha: a, from 0 to 1.
        gamma: g, above 0.
        reduction: as for BinaryCrossEntropy.

    Lin et al. 2017, eq. 5.
    """

    takes_logits = "sigmoid"

    def __init__(self, alpha: float = 0.25, gamma: float = 2.0, *, reduction: str = "mean"
                 ) -> None:
        self.alpha = self.expect_share("alpha", alpha)
        self.gamma = self.expect_positive("gamma", gamma)
        self.reduction = self.expect_reduction(reduction)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp = backend.xp
        s, other, cost_yes, cost_no = sigmoid_parts(xp, y)
        f_yes, slope_yes = self.focused(xp, s, other, cost_yes)
        f_no, slope_no = self.focused(xp, other, s, cost_no)
        yes, no = self.alpha * target, (1.0 - self.alpha) * (1.0 - target)
        return (weighed(xp, yes, f_yes) + weighed(xp, no, f_no), no * slope_no - yes * slope_yes,
                y.size)

    def focused(self, xp: Any, s: Array, other: Array, cost: Array) -> tuple[Array, Array]:
        """-(1 - s)^g log s and minus its derivative, (1 - s)^g (1 - s - g s log s).

        Arguments are s, 1 - s and -log s; 0 log 0 = 0.
        """
        far = xp.power(other, self.gamma)
        return weighed(xp, far, cost), far * (other + self.gamma * weighed(xp, s, cost))


def of_logits(xp: Any, z: Array, yes: Array, no: Array) -> tuple[Array, Array]:
    """-yes log s(z) - no log(1 - s(z)) and its derivative, no s(z) - yes (1 - s(z)).

    0 times anything is 0.
    """
    s, other, cost_yes, cost_no = sigmoid_parts(xp, z)
    f = weighed(xp, yes, cost_yes) + weighed(xp, no, cost_no)
    return f, weighed(xp, no, s) - weighed(xp, yes, other)


def sigmoid_parts(xp: Any, z: Array) -> tuple[Array, Array, Array, Array]:
    """s(z), 1 - s(z), -log s(z), -log(1 - s(z)), all with full precision.

    With t = exp(-|z|), which cannot overflow: s(z) is 1 or t, divided by 1 + t, and -log s(z) =
    max(-z, 0) + log(1 + t).
    """
    a, b = fraction(xp, z)                                  # 1 and t if z >= 0, else t and 1
    log = xp.log1p(xp.minimum(a, b))
    return a / (a + b), b / (a + b), xp.maximum(-z, 0) + log, xp.maximum(z, 0) + log


def of_probabilities(xp: Any, y: Array, t: Array) -> tuple[Array, Array]:
    """-t log y - (1 - t) log(1 - y) and its derivative (y - t) / (y (1 - y))."""
    def log(p: Array) -> Array:
        return xp.maximum(xp.log(xp.where(p <= 0, least, p)), LEAST_LOG)

    info = np.finfo(y.dtype)
    least, normal = y.dtype.type(info.smallest_subnormal), y.dtype.type(info.smallest_normal)
    variance = y * (1.0 - y)
    variance = xp.where(variance > 0, xp.maximum(variance, normal), LEAST_VARIANCE)
    return -t * log(y) - (1.0 - t) * log(1.0 - y), (y - t) / variance
