"""Losses with a margin, and losses with targets -1 and 1.

A hinge loss is 0 if the right answer leads by the margin. At the kinks the derivative is 0, as in
PyTorch.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import finite_array
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, batch_of, one_hot
from xpnet.losses.classification import ClassLoss, check_labels


def to_the_power(v: Array, power: int) -> tuple[Array, Array]:
    """v^p and its derivative for v = max(u, 0), p = 1 or 2."""
    return (v, (v > 0).astype(v.dtype)) if power == 1 else (v * v, 2.0 * v)


class Hinge(Loss):
    """Hinge loss: L = mean over all elements of max(0, margin - t y)^power, t = -1 or 1 (Cortes and
    Vapnik 1995).

    y of any shape, targets of the same shape. dy = -power t max(0, margin - t y)^(power - 1) where
    the maximum is above 0, divided by the number of elements.

    Args:
        power: 1 or 2.
        reduction: "batchmean" is the mean over the batch of the sum over the outputs, "sum" the sum
            over all elements.
    """

    def __init__(self, margin: float = 1.0, *, power: int = 1, reduction: str = "mean") -> None:
        self.margin = self.expect_positive("margin", margin)
        self.power = self.expect_choice("power", power, (1, 2))
        self.reduction = self.expect_reduction(reduction)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        return expect_signs(self.who, super().targets(target, out_shape, dtype))

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        f, slope = to_the_power(backend.xp.maximum(self.margin - target * y, 0), self.power)
        return f, -target * slope, y.size


class MultiClassHinge(ClassLoss):
    """Base class of the hinge losses of K classes: y (K, N) or (K, H, W, N), targets are labels
    (N,) or (N, H, W)."""

    def __init__(self, margin: float = 1.0, *, power: int = 1, reduction: str = "mean") -> None:
        self.margin = self.expect_positive("margin", margin)
        self.power = self.expect_choice("power", power, (1, 2))
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = finite_array(target, f"{self.who}: targets")
        if target.ndim != len(out_shape) or target.shape[1:] != out_shape[1:]:
            raise ValueError(f"{self.who}: expected labels of shape {batch_of(out_shape[1:])}. "
                             f"Received: shape {target.shape}.")
        return check_labels(self, target, out_shape[0])

    def score(self, xp: Any, y: Array, right: Array) -> Array:
        """The score of the right class, (1, ..., N)."""
        return xp.where(right, y, y.dtype.type(0)).sum(axis=0, keepdims=True)


class CrammerSingerHinge(MultiClassHinge):
    """Hinge loss of the strongest rival: L = mean over N of max(0, margin - y[label] + largest
    other y)^power.

    y (K, N) or (K, H, W, N) are scores of at least two classes, targets are labels; each position
    of a feature map counts as a sample. dy is power max(...)^(power - 1) / N at the first of the
    largest others and minus that at the label, 0 if the label leads by the margin.

    Args:
        power: 1 or 2.
        reduction: "sum" does not divide.

    Crammer and Singer 2001.
    """

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp = backend.xp
        right = one_hot(backend, target, len(y))  # (K, ..., N)
        others = xp.where(right, y.dtype.type(-np.inf), y)
        rival = one_hot(backend, backend.argmax(others, 0), len(y))
        largest = others.max(axis=0, keepdims=True)
        ahead = xp.maximum(self.margin - self.score(xp, y, right) + largest, 0)
        f, slope = to_the_power(ahead, self.power)
        return f[0], (rival.astype(y.dtype) - right.astype(y.dtype)) * slope, y[0].size


class WestonWatkinsHinge(MultiClassHinge):
    """Hinge loss of all rivals: L = mean over N of 1/K sum over k != label of max(0, margin -
    y[label] + y[k])^power.

    y (K, N) or (K, H, W, N), targets are labels; each position of a feature map counts as a sample.
    dy[k] = power max(...)^(power - 1) / (K N), and at the label minus the sum of these.

    Args:
        power: 1 or 2.
        reduction: "sum" divides by K only.

    Weston and Watkins 1999, with a margin of 2 and without 1/K, which is PyTorch's.
    """

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, share = backend.xp, 1.0 / len(y)
        right = one_hot(backend, target, len(y))  # (K, ..., N)
        ahead = xp.where(right, y.dtype.type(0),
                         xp.maximum(self.margin - self.score(xp, y, right) + y, 0))
        f, slope = to_the_power(ahead, self.power)
        dy = slope - right.astype(y.dtype) * slope.sum(axis=0, keepdims=True)
        return f.sum(axis=0) * share, dy * share, y[0].size


class MultiLabelMargin(Loss):
    """Margin loss of many labels: L = mean over N of 1/K sum over i present, j absent of max(0,
    margin - y[i] + y[j]).

    y (K, N) or (K, H, W, N) are scores of at least two classes; targets of y's shape are 1 where a
    label is present and 0 where it is not. Each position of a feature map counts as a sample. dy[i]
    is minus the number of pairs above 0 in which i is present, dy[j] the number of those in which j
    is absent, divided by K N. All K^2 pairs are computed, K^2 numbers for each sample.

    Args:
        reduction: "sum" divides by K only.

    Elisseeff and Weston 2001, who divide by the number of pairs.
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        self.margin = self.expect_positive("margin", margin)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = super().targets(target, out_shape, dtype)
        wrong = target[(target != 0) & (target != 1)]
        if wrong.size:
            raise ValueError(f"{self.who}: expected targets 0 or 1. "
                             f"Received: {wrong.flat[0]:g} among them.")
        return target

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, present, share = backend.xp, target > 0, 1.0 / len(y)
        pair = present[:, None] & ~present[None]  # (i, j, ..., N)
        ahead = xp.where(pair, xp.maximum(self.margin - y[:, None] + y[None], 0), y.dtype.type(0))
        counted = (ahead > 0).astype(y.dtype)
        return (ahead.sum(axis=(0, 1)) * share, (counted.sum(axis=0) - counted.sum(axis=1)) * share,
                y[0].size)


def expect_signs(who: str, target: np.ndarray) -> np.ndarray:
    """Targets that are -1 or 1. Raises ValueError for others."""
    wrong = target[abs(target) != 1]
    if wrong.size:
        raise ValueError(f"{who}: expected targets -1 or 1. "
                         f"Received: {wrong.flat[0]:g} among them.")
    return target


class WassersteinCritic(Loss):
    """Loss of a Wasserstein critic: L = mean over all elements of t y, t = -1 for real and 1 for
    generated samples.

    dy = t / number of elements, whatever y is. y is unbounded: no sigmoid. Targets have y's shape.
    The critic of the source ascends the mean of the real minus the mean of the generated scores;
    with equal numbers of both, L is minus half of that.

    Args:
        reduction: "sum" does not divide.

    Arjovsky et al. 2017, algorithm 1.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        return expect_signs(self.who, super().targets(target, out_shape, dtype))

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        return target * y, target, y.size


class HingeEmbedding(Loss):
    """Hinge embedding loss: L = mean over all elements of y where t = 1, max(0, margin - y) where t
    = -1.

    y of any shape are distances, 0 or larger; t = 1 is a pair that belongs together, t = -1 one
    that does not. dy = 1 where t = 1, -1 where t = -1 and y < margin, divided by the number of
    elements.

    Args:
        reduction: "batchmean" is the mean over the batch of the sum over the outputs, "sum" the sum
            over all elements.

    Mobahi et al. 2009.
    """

    def __init__(self, margin: float = 1.0, *, reduction: str = "mean") -> None:
        self.margin = self.expect_positive("margin", margin)
        self.reduction = self.expect_reduction(reduction)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        return expect_signs(self.who, super().targets(target, out_shape, dtype))

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, together = backend.xp, target > 0
        far = xp.maximum(self.margin - y, 0)
        dy = xp.where(together, y.dtype.type(1), -(far > 0).astype(y.dtype))
        return xp.where(together, y, far), dy, y.size
