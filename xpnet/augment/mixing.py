"""Augmentations that mix two samples and their targets."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.augment.base import Array, Augmentation, Draws, on_device
from xpnet.augment.noise import box

__all__ = ["CutMix", "MixUp"]

# Which of the random numbers of a sample are used for what; number 0 chooses the partner.
CENTRE, PAIRS = 1, 4


class Mixing(Augmentation):
    """Base class of augmentations that mix each sample with another one, its partner.

    The partner is a random sample of the data set, so that it depends neither on the batch nor on
    its size. Targets are mixed in the same shares: labels become probabilities.
    """

    def __init__(self, alpha: float) -> None:
        self.alpha = self.expect_number("alpha", alpha, 1e-3, math.nextafter(1, 2))

    @staticmethod
    def partners(draws: Draws, size: int) -> np.ndarray:
        """(N,): the numbers of the partners in a data set of `size` samples."""
        return np.floor(draws.uniform(1)[0] * size).astype(np.int64)

    def mix(self, xp: Any, x: Array, other: Array, draws: Draws) -> tuple[Array, np.ndarray]:
        """The mixed samples, and the share (N,) of x in each."""
        raise NotImplementedError(f"{self.who}: expected a method mix(xp, x, other, draws).")

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        raise TypeError(f"{self.who}: expected to be used by fit, which reads the second sample. "
                        "Received: images alone.")

    def share(self, draws: Draws) -> np.ndarray:
        """(N,): numbers from a Beta(alpha, alpha) distribution, alpha <= 1.

        u^(1/alpha) / (u^(1/alpha) + v^(1/alpha)) of the first pair (u, v) for which the sum is at
        most 1 (Johnk 1964), computed from logarithms.
        """
        share = np.full(len(draws), np.nan)
        pairs = 8
        while np.isnan(share).any():        # half of all pairs or more are accepted
            logs = np.log(draws.uniform(2 * pairs, start=PAIRS)) / self.alpha
            first, second = logs[::2], logs[1::2]                       # (pairs, N)
            both = np.logaddexp(first, second)
            for number in range(pairs):
                found = (both[number] <= 0) & np.isnan(share)
                share[found] = np.exp(first[number] - both[number])[found]
            pairs *= 2                      # numbers that were drawn before stay the same
        return share


class MixUp(Mixing):
    """Weighted means of two samples and of their targets.

        y = s x + (1 - s) x',  t = s t + (1 - s) t',  s ~ Beta(alpha, alpha)

    Args:
        alpha: from 0.001 to 1; small values mix little.

    Zhang, Cisse, Dauphin, Lopez-Paz, "mixup: beyond empirical risk minimization", 2018, eq. 1.
    """

    def __init__(self, alpha: float = 0.2) -> None:
        super().__init__(alpha)

    def mix(self, xp: Any, x: Array, other: Array, draws: Draws) -> tuple[Array, np.ndarray]:
        share = self.share(draws)
        s = on_device(xp, share, x)
        return s * x + (1 - s) * other, share


class CutMix(Mixing):
    """A box of each image comes from another image, and targets are mixed by the area.

        t = s t + (1 - s) t',  s the share of the pixels that are left

    The box has the proportions of the image and about the area 1 - s, s ~ Beta(alpha, alpha); its
    centre is uniform over the pixels, and what is outside of the image is cut off.

    Args:
        alpha: from 0.001 to 1.

    Yun, Han, Oh, Chun, Choe, Yoo, "CutMix: regularization strategy to train strong classifiers with
    localizable features", 2019, section 3.1.
    """

    def __init__(self, alpha: float = 1.0) -> None:
        super().__init__(alpha)

    def mix(self, xp: Any, x: Array, other: Array, draws: Draws) -> tuple[Array, np.ndarray]:
        side = np.sqrt(1 - self.share(draws))
        centre = draws.uniform(2, start=CENTRE)
        first, size = [], []
        for length, at in zip(x.shape[1:3], centre):
            extent = np.floor(length * side).astype(np.int64)
            begin = np.floor(length * at).astype(np.int64) - extent // 2
            end = np.minimum(begin + extent, length)
            begin = np.maximum(begin, 0)
            first.append(begin)
            size.append(end - begin)
        area = size[0] * size[1] / math.prod(x.shape[1:3])
        return xp.where(box(xp, x, first, size), other, x), 1 - area
