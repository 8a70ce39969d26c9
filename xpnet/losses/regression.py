"""Losses for numbers: the error e = y - t, weighed in one way or another.

With reduction="mean" the sum over all elements is divided by their number, with "batch" by the batch's size N, with "sum"
by nothing. "none" gives the losses of all elements, without a sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.base import weighed
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss


class MeanSquaredError(Loss):
    """Mean squared error: L = mean over all elements of (y - t)^2, dy = 2 (y - t) / number of elements.

    reduction="batch" is the mean over the batch of the sum over the outputs, "sum" the sum over all elements.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        error = y - target
        return error * error, 2.0 * error, y.size


class HalfSquaredError(Loss):
    """Half squared error: L = mean over the batch of 1/2 sum over the outputs of (y - t)^2, dy = (y - t) / N.

    LeCun et al. 1989. reduction="mean" is the mean over all elements, "sum" the sum over them.
    """

    def __init__(self, *, reduction: str = "batch") -> None:
        self.reduction = self.expect_reduction(reduction)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        error = y - target
        return 0.5 * error * error, error, y.size


class ErrorLoss(Loss):
    """Base class: L = mean over all elements of f(y - t); a subclass writes f and f'."""

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction)

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        """f and f' of the error, elementwise."""
        raise NotImplementedError(f"{self.who}: expected a method of(xp, error).")

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        return *self.of(backend.xp, y - target), y.size


class MeanAbsoluteError(ErrorLoss):
    """Mean absolute error: L = mean over all elements of |y - t|, dy = sign(y - t) / number of elements (Boscovich 1757).

    sign(0) = 0. reduction="batch" is the mean over the batch of the sum over the outputs, "sum" the sum over all elements.
    """

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        return abs(error), xp.sign(error)


class Huber(ErrorLoss):
    """Huber's loss: L = mean over all elements of c (e - c / 2), e = y - t, c = e cut off at -delta and delta (Huber 1964).

    That is e^2 / 2 for |e| <= delta, and delta (|e| - delta / 2) beyond; dy = c / number of elements. `delta` is above 0.
    """

    def __init__(self, delta: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.delta = self.expect_positive("delta", delta)

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        cut = xp.clip(error, -self.delta, self.delta)
        return cut * (error - 0.5 * cut), cut


class SmoothL1(ErrorLoss):
    """Smooth L1 loss: L = mean over all elements of c (e - c / 2) / beta, e = y - t, c = e cut off at -beta and beta.

    That is e^2 / (2 beta) for |e| < beta, and |e| - beta / 2 beyond, Huber's loss divided by its delta; dy = c / beta / number
    of elements. Girshick 2015, eq. 3, with beta = 1. `beta` is above 0: MeanAbsoluteError is what it comes to at 0.
    """

    def __init__(self, beta: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = self.expect_positive("beta", beta)

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        slope = xp.clip(error * (1.0 / self.beta), -1.0, 1.0)
        return slope * (error - 0.5 * self.beta * slope), slope


class LogCosh(ErrorLoss):
    """Logarithm of the hyperbolic cosine: L = mean over all elements of log cosh(y - t), dy = tanh(y - t) / number of elements.

    About e^2 / 2 for small errors and |e| - log 2 for large ones. Green 1990.
    """

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        size = abs(error)
        half = xp.sinh(0.5 * xp.minimum(size, 1.0))
        near = xp.log1p(2.0 * half * half)                              # cosh e = 1 + 2 sinh^2(e / 2): no digits are lost
        far = size + xp.log1p(xp.exp(-2.0 * size)) - math.log(2.0)      # cosh e itself would overflow
        return xp.where(size < 1.0, near, far), xp.tanh(error)


class PoissonLikelihood(Loss):
    """Poisson regression: L = mean over all elements of exp(y) - t y, dy = (exp(y) - t) / number of elements.

    Nelder and Wedderburn 1972. For counts t: y is the logarithm of the rate that they are drawn with, and L the negative
    log-likelihood of the Poisson distribution without log t!, which y does not change. Targets have y's shape and are 0 or
    larger. reduction="batch" is the mean over the batch of the sum over the outputs, "sum" the sum over all elements.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = super().targets(target, out_shape, dtype)
        if target.size and target.min() < 0:
            raise ValueError(f"{self.who}: expected targets that are counts, 0 or larger. Received: {target.min():g} among them.")
        return target

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        rate = backend.xp.exp(y)
        return rate - weighed(backend.xp, target, y), rate - target, y.size
