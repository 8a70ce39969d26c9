"""Augmentations of colours: brightness, contrast, saturation, hue, and images without colour."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.augment.base import Array, Augmentation, Draws, on_device

__all__ = ["ColorJitter", "RandomGrey"]

# The brightness of red, green and blue (ITU-R BT.601, section 2.5.1), and YIQ's axes of colour.
GREY = 0.299, 0.587, 0.114
YIQ = np.array([GREY, (0.596, -0.274, -0.322), (0.211, -0.523, 0.312)])


class ColorJitter(Augmentation):
    """Change brightness, contrast, saturation and hue of each image, in this order.

        brightness   y = b x                      b uniform in 1 - brightness .. 1 + brightness
        contrast     y = m + c (x - m)            m the mean grey value of the image
        saturation   y = g + s (x - g)            g the grey value of the pixel
        hue          y = R(h) x                   colours turned by h turns in the plane of YIQ

    c, s and h are uniform in the same way; h in -hue .. hue. Saturation and hue are for images of
    three channels; other images keep theirs. Values are not clipped.

    Args:
        amount: for those of the first three that are not given.
        brightness: from 0 to 1.
        contrast: from 0 to 1.
        saturation: from 0 to 1.
        hue: from 0 to 0.5, in turns.
    """

    def __init__(self, amount: float = 0.0, *, brightness: float | None = None,
                 contrast: float | None = None, saturation: float | None = None,
                 hue: float = 0.0) -> None:
        amount = self.expect_number("amount", amount, 0, math.nextafter(1, 2))
        self.brightness, self.contrast, self.saturation = (
            self.expect_number(name, amount if value is None else value, 0, math.nextafter(1, 2))
            for name, value in (("brightness", brightness), ("contrast", contrast),
                                ("saturation", saturation)))
        self.hue = self.expect_number("hue", hue, 0, math.nextafter(0.5, 1))

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        signs = 2 * draws.uniform(4) - 1                                # (4, N)
        b, c, s = (on_device(xp, 1 + most * sign, x)
                   for most, sign in zip((self.brightness, self.contrast, self.saturation), signs))
        x = b * x
        mean = in_order(in_order(grey(x))) / math.prod(x.shape[1:3])    # (N,)
        x = mean + c * (x - mean)
        if x.shape[0] == 3:
            g = grey(x)                                                 # (H, W, N)
            x = g + s * (x - g)
            if self.hue:
                x = self._turned(xp, x, 2 * np.pi * self.hue * signs[3])
        return x

    @staticmethod
    def _turned(xp: Any, x: Array, angle: np.ndarray) -> Array:
        """x with its colours turned in the plane of I and Q."""
        turn = np.zeros((len(angle), 3, 3))
        turn[:, 0, 0] = 1
        turn[:, 1, 1] = turn[:, 2, 2] = np.cos(angle)
        turn[:, 1, 2], turn[:, 2, 1] = -np.sin(angle), np.sin(angle)
        R = np.moveaxis(np.linalg.inv(YIQ) @ turn @ YIQ, 0, -1)         # (3, 3, N)
        R = on_device(xp, R, x)
        return xp.stack([in_order([R[row, channel] * x[channel] for channel in range(3)])
                         for row in range(3)])


class RandomGrey(Augmentation):
    """Remove the colours of each image, with probability p.

        y[c] = 0.299 x[0] + 0.587 x[1] + 0.114 x[2]

    Args:
        p: the probability.
    """

    def __init__(self, p: float = 0.1) -> None:
        self.p = self.expect_number("p", p, 0, math.nextafter(1, 2))

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        self.expect_channels(x)
        return xp.where(xp.asarray(draws.uniform(1)[0] < self.p), grey(x), x)


def grey(x: Array) -> Array:
    """(H, W, N): the brightness of images of three channels, else the mean of the channels."""
    shares = GREY if x.shape[0] == 3 else (1 / x.shape[0],) * x.shape[0]
    return in_order([x.dtype.type(share) * channel for share, channel in zip(shares, x)])


def in_order(parts: Any) -> Array:
    """The sum along the first axis, one after another: `sum` adds in an order that depends on the
    size of the batch."""
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
