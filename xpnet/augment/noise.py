"""Augmentations that lose detail: noise, blur, and holes."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.augment.base import Array, Augmentation, Draws, expect_range, on_device

__all__ = ["CutOut", "GaussianBlur", "GaussianNoise"]


class GaussianNoise(Augmentation):
    """Add a normal random number to each element.

        y = x + std z

    The layer that adds noise inside a network is AdditiveNoise.

    Args:
        std: standard deviation, in the units of the images.
    """

    def __init__(self, std: float = 0.05) -> None:
        self.std = self.expect_number("std", std, 0)

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        z = draws.normal(math.prod(x.shape[:-1]), xp).reshape(x.shape)
        return x + (self.std * z).astype(x.dtype)


class GaussianBlur(Augmentation):
    """Smooth each image with a Gaussian, with probability p.

        y[i] = sum_k w[k] x[i + k],  w[k] = exp(-k^2 / (2 sigma^2)) / Z,  |k| <= 3 max sigma

    along the rows and along the columns; beyond the border the nearest pixel counts.

    Args:
        sigma: the standard deviation in pixels is uniform in low .. high.
        p: the probability.
    """

    def __init__(self, sigma: tuple[float, float] = (0.1, 2.0), *, p: float = 0.5) -> None:
        self.sigma = expect_range(self.who, "sigma", sigma, 1e-3)
        self.p = self.expect_number("p", p, 0, math.nextafter(1, 2))

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        u, chance = draws.uniform(2)
        sigma = self.sigma[0] + (self.sigma[1] - self.sigma[0]) * u
        radius = math.ceil(3 * self.sigma[1])
        weights = gaussian(sigma, radius)                               # (2 radius + 1, N)
        weights[:, chance >= self.p] = np.eye(2 * radius + 1)[:, radius:radius + 1]     # as it is
        weights = on_device(xp, weights, x)
        return smoothed(xp, smoothed(xp, x, weights, 1), weights, 2)


class CutOut(Augmentation):
    """Replace a square of each image.

    The centre of the square is uniform over the pixels, so that a part of it may be outside.

    Args:
        size: side of the square, in pixels.
        value: what it is filled with.

    DeVries and Taylor, "Improved regularization of convolutional neural networks with cutout",
    2017, section 3.
    """

    def __init__(self, size: int = 8, *, value: float = 0.0) -> None:
        self.size = self.expect_integer("size", size)
        self.value = self.expect_number("value", value)

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        u = draws.uniform(2)
        first = [np.floor(size * v).astype(np.int64) - self.size // 2
                 for size, v in zip(x.shape[1:3], u)]
        hole = box(xp, x, first, [np.full(len(draws), self.size)] * 2)
        return xp.where(hole, x.dtype.type(self.value), x)


def box(xp: Any, x: Array, first: list[np.ndarray], size: list[np.ndarray]) -> Array:
    """(H, W, N) bool: whether a pixel is in the box of its image, which begins at `first` and has
    `size`, each in (rows, columns)."""
    rows, columns = (xp.arange(length)[:, None] for length in x.shape[1:3])
    within = [(at >= xp.asarray(begin)) & (at < xp.asarray(begin + extent))
              for at, begin, extent in zip((rows, columns), first, size)]
    return within[0][:, None] & within[1][None]


def gaussian(sigma: np.ndarray, radius: int) -> np.ndarray:
    """(2 radius + 1, N): the weights of Gaussians, whose sums are 1."""
    k = np.arange(-radius, radius + 1)[:, None]
    weights = np.exp(-k**2 / (2 * sigma**2))
    return weights / weights.sum(axis=0)


def smoothed(xp: Any, x: Array, weights: Array, axis: int) -> Array:
    """The weighted sums of the neighbours along one axis; beyond the border the nearest one."""
    size, radius = x.shape[axis], len(weights) // 2
    y = xp.zeros_like(x)
    for k, weight in enumerate(weights):
        places = np.clip(np.arange(size) + k - radius, 0, size - 1)
        y += weight * xp.take(x, xp.asarray(places), axis=axis)
    return y
