"""Losses for numbers: functions of the error e = y - t, and the cosine distance of vectors.

With reduction="mean" the sum over all elements is divided by their number, with "batchmean" by the
batch size N; with "sum" it is not divided. "none" gives the losses of all elements, without a sum.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.base import weighed
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss

LEAST_LENGTH = 1e-8     # lower bound of a vector's length, as in PyTorch


class MeanSquaredError(Loss):
    """Mean squared error: L = mean over all elements of (y - t)^2, dy = 2 (y - t) / number of
    elements."""

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        error = y - target
        return error * error, 2.0 * error, y.size


class HalfSquaredError(Loss):
    """Half squared error: L = mean over the batch of 1/2 sum over the outputs of (y - t)^2, dy = (y
    - t) / N.

    Args:
        reduction: "batchmean" by default.

    Rumelhart et al. 1986.
    """

    def __init__(self, *, reduction: str = "batchmean") -> None:
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
    """Mean absolute error: L = mean over all elements of |y - t|, dy = sign(y - t) / number of
    elements (Boscovich 1757).

    sign(0) = 0.
    """

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        return abs(error), xp.sign(error)


class Huber(ErrorLoss):
    """Huber's loss: L = mean over all elements of c (e - c / 2), e = y - t, c = e clipped to -delta
    and delta (Huber 1964).

    This is e^2 / 2 for |e| <= delta, and delta (|e| - delta / 2) beyond; dy = c / number of
    elements.

    Args:
        delta: above 0.
    """

    def __init__(self, delta: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.delta = self.expect_positive("delta", delta)

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        cut = xp.clip(error, -self.delta, self.delta)
        return cut * (error - 0.5 * cut), cut


class SmoothL1(ErrorLoss):
    """Smooth L1 loss: L = mean over all elements of c (e - c / 2) / beta, e = y - t, c = e clipped
    to -beta and beta.

    This is e^2 / (2 beta) for |e| < beta, and |e| - beta / 2 beyond: Huber's loss divided by its
    delta. dy = c / beta / number of elements.

    Args:
        beta: above 0; the limit at 0 is MeanAbsoluteError.

    Girshick 2015, eq. 3, with beta = 1.
    """

    def __init__(self, beta: float = 1.0, *, reduction: str = "mean") -> None:
        super().__init__(reduction=reduction)
        self.beta = self.expect_positive("beta", beta)

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        slope = xp.clip(error * (1.0 / self.beta), -1.0, 1.0)
        return slope * (error - 0.5 * self.beta * slope), slope


class LogCosh(ErrorLoss):
    """Logarithm of the hyperbolic cosine: L = mean over all elements of log cosh(y - t), dy =
    tanh(y - t) / number of elements.

    About e^2 / 2 for small errors and |e| - log 2 for large ones.

    Green 1990.
    """

    def of(self, xp: Any, error: Array) -> tuple[Array, Array]:
        size = abs(error)
        half = xp.sinh(0.5 * xp.minimum(size, 1.0))
        near = xp.log1p(2.0 * half * half)      # cosh e = 1 + 2 sinh^2(e / 2) keeps all digits
        far = size + xp.log1p(xp.exp(-2.0 * size)) - math.log(2.0)      # cosh e would overflow
        return xp.where(size < 1.0, near, far), xp.tanh(error)


class PoissonLikelihood(Loss):
    """Poisson regression: L = mean over all elements of exp(y) - t y, dy = (exp(y) - t) / number of
    elements.

    For counts t: y is the logarithm of the rate, and L the negative log-likelihood of the Poisson
    distribution without log t!, which does not depend on y. Targets have y's shape and are 0 or
    larger.

    Args:
        log_input: False for y that is the rate itself, 0 or larger: L is the mean of y - t log(y +
            eps), and dy = (1 - t / (y + eps)) / number of elements.
        full: add log t! by Stirling's formula, t log t - t + log(2 pi t) / 2, where t > 1.
        eps: above 0.

    Nelder and Wedderburn 1972.
    """

    def __init__(self, *, log_input: bool = True, full: bool = False, eps: float = 1e-8,
                 reduction: str = "mean") -> None:
        self.log_input = self.expect_flag("log_input", log_input)
        self.full = self.expect_flag("full", full)
        self.eps = self.expect_positive("eps", eps)
        self.reduction = self.expect_reduction(reduction)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        target = super().targets(target, out_shape, dtype)
        if target.size and target.min() < 0:
            raise ValueError(f"{self.who}: expected targets that are counts, 0 or larger. "
                             f"Received: {target.min():g} among them.")
        return target

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp = backend.xp
        if self.log_input:
            rate = xp.exp(y)
            f, slope = rate - weighed(xp, target, y), rate - target
        else:
            shifted = y + self.eps
            f, slope = y - target * xp.log(shifted), 1.0 - target / shifted
        if self.full:
            t = xp.maximum(target, 1)
            f = f + xp.where(target > 1, t * xp.log(t) - t + 0.5 * xp.log(2.0 * math.pi * t),
                             y.dtype.type(0))
        return f, slope, y.size


class GaussianLikelihood(Loss):
    """Gaussian regression: L = mean over all targets of ((m - t)^2 / v + log v) / 2, the network's
    output being m and log v.

    y (2 D, ..., N): the first D are the means m, the last D the logarithms s of the variances v =
    exp(s); targets (N, D, ...). dm = (m - t) / v and ds = (1 - (m - t)^2 / v) / 2, divided by the
    number of targets.

    Args:
        log_variance: False if the last D are the variances themselves, which count as at least eps
            and have a gradient of 0 below it; dv = (1 - (m - t)^2 / v) / (2 v).
        full: add log(2 pi) / 2.
        eps: above 0.
        reduction: as for the other losses, with the targets in place of the outputs.

    Nix and Weigend 1994.
    """

    def __init__(self, *, log_variance: bool = True, full: bool = False, eps: float = 1e-6,
                 reduction: str = "mean") -> None:
        self.log_variance = self.expect_flag("log_variance", log_variance)
        self.full = self.expect_flag("full", full)
        self.eps = self.expect_positive("eps", eps)
        self.reduction = self.expect_reduction(reduction)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        if out_shape[0] % 2:
            raise ValueError(f"{self.who}: expected an even number of outputs, a mean and a "
                             f"variance for each target. Received: output shape {out_shape}.")
        return super().targets(target, (out_shape[0] // 2, *out_shape[1:]), dtype)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        xp, D = backend.xp, len(y) // 2
        error, spread = y[:D] - target, y[D:]
        variance = xp.maximum(spread, self.eps)
        log_v, precision = ((spread, xp.exp(-spread)) if self.log_variance
                            else (xp.log(variance), 1.0 / variance))
        share = error * error * precision
        slope = 0.5 * (1.0 - share)
        if not self.log_variance:
            slope = xp.where(spread >= self.eps, slope * precision, y.dtype.type(0))
        f = 0.5 * (share + log_v) + (0.5 * math.log(2.0 * math.pi) if self.full else 0.0)
        return f, backend.joined([error * precision, slope], axis=0), target.size


class CosineDistance(Loss):
    """Cosine distance: L = mean over samples of 1 - cos(y, t), cos(y, t) = y . t / (|y| |t|)
    (Salton et al. 1975).

    y (D, N) or (D, H, W, N), targets of the same shape: vectors along the first axis, of which only
    the direction counts; each position of a feature map is a sample. dy = (cos(y, t) y / |y| - t /
    |t|) / (|y| number of samples). Lengths count as at least 1e-8.

    Args:
        reduction: "sum" does not divide.
    """

    def __init__(self, *, reduction: str = "mean") -> None:
        self.reduction = self.expect_reduction(reduction, batch=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        cosine, dy = cosine_of(backend.xp, y, target)[:2]
        return 1.0 - cosine, -dy, y[0].size


def cosine_of(xp: Any, a: Array, b: Array) -> tuple[Array, Array, Array]:
    """cos(a, b) along the first axis, and its gradients with respect to a and b."""
    length_a, length_b = (xp.maximum(xp.sqrt((v * v).sum(axis=0)), LEAST_LENGTH) for v in (a, b))
    unit_a, unit_b = a / length_a, b / length_b
    cosine = (unit_a * unit_b).sum(axis=0)
    return cosine, (unit_b - cosine * unit_a) / length_a, (unit_a - cosine * unit_b) / length_b
