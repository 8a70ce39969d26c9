"""Losses for numbers: the error y - t, weighed in one way or another."""

from __future__ import annotations

from xpnet.backends import Backend
from xpnet.layer import Array
from xpnet.losses.base import Loss


class MeanSquaredError(Loss):
    """Mean squared error: L = mean over all elements of (y - t)^2, dy = 2 (y - t) / number of elements."""

    def __call__(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array]:
        error = y - target
        return (error * error).sum() / y.size, error * (2.0 / y.size)


class HalfSquaredError(Loss):
    """Half squared error: L = mean over the batch of 1/2 sum over the outputs of (y - t)^2, dy = (y - t) / N.

    LeCun et al. 1989.
    """

    def __call__(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array]:
        N = y.shape[-1]
        error = y - target
        return (error * error).sum() / (2 * N), error * (1.0 / N)
