"""Losses between distributions."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, one_hot
from xpnet.losses.classification import ClassLoss
from xpnet.losses.margin import expect_signs

LEAST = 1e-7        # of a probability, where something is divided by it


class KullbackLeibler(ClassLoss):
    """Kullback-Leibler divergence: L = mean over N of sum over k of t[k] (log t[k] - y[k])
    (Kullback and Leibler 1951).

    y (K, N) or (K, H, W, N) are logarithms of probabilities, as LogSoftmax gives them; targets are
    distributions of that shape, or labels (N,) or (N, H, W), 0 log 0 = 0; each place of a map
    counts as a sample. dy = -t / N. It is NegativeLogLikelihood less the entropy of the targets, so
    that 0 is the least. The mean is what PyTorch calls "batchmean"; its "mean" also divides by K.
    reduction="sum" does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, zero = backend.xp, y.dtype.type(0)
        if target.ndim < y.ndim:
            target = one_hot(backend, target, len(y)).astype(y.dtype)
        there = target > 0
        # log 0 elsewhere is no matter
        gap = xp.log(xp.where(there, target, y.dtype.type(1))) - xp.where(there, y, zero)
        return (target * gap).sum(axis=0), -target, y[0].size


class Hellinger(ClassLoss):
    """Squared Hellinger distance: L = mean over N of 1/2 sum over k of (sqrt(y[k]) - sqrt(t[k]))^2
    (Hellinger 1909).

    y (K, N) or (K, H, W, N) are probabilities, as Softmax gives them; targets are distributions
    like y, or labels (N,) or (N, H, W); each place of a map counts as a sample. L lies between 0
    and 1. dy = 1/2 (1 - sqrt(t / y)) / N, which is 1/2 / N where t = 0, also at y = 0. Where y = 0
    < t it would be infinite: in the derivative y counts as 1e-7 at least, and y below 0 counts as 0
    in L. The distance itself, the square root of this, has no derivative at y = t. reduction="sum"
    does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp = backend.xp
        if target.ndim < y.ndim:
            target = one_hot(backend, target, len(y)).astype(y.dtype)
        difference = xp.sqrt(xp.maximum(y, 0)) - xp.sqrt(target)
        f = 0.5 * (difference * difference).sum(axis=0)
        return f, 0.5 - 0.5 * xp.sqrt(target / xp.maximum(y, LEAST)), y[0].size


class WassersteinCritic(Loss):
    """Loss of a Wasserstein critic: L = mean over all elements of t y, t = -1 for real and 1 for
    generated samples.

    dy = t / number of elements, whatever y is. Arjovsky et al. 2017, algorithm 1, whose critic
    ascends the mean of real minus the mean of generated scores: with as many of one as of the
    other, L is half of that with its sign turned. y is unbounded: no sigmoid. Targets have y's
    shape. reduction="sum" does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        return expect_signs(self.who, super().targets(target, out_shape, dtype))

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        return target * y, target, y.size
