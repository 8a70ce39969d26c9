"""Augmentations that move pixels: crops, flips, rotation, scale, shift, elastic distortion."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.augment.base import Array, Augmentation, Draws, expect_range
from xpnet.augment.noise import gaussian, smoothed

__all__ = ["Elastic", "RandomAffine", "RandomCrop", "RandomFlip", "RandomRotation", "RandomScale",
           "RandomShift"]

BORDERS = "zeros", "edge", "reflect"    # what is outside of an image


class RandomCrop(Augmentation):
    """Move each image by up to `padding` whole pixels along both axes.

        y[c, i, j, n] = x[c, i + a[n], j + b[n], n],  a and b uniform in -padding .. padding

    Args:
        padding: the largest distance, in pixels.
        border: what is outside: "zeros", the nearest pixel ("edge"), or the image mirrored at its
            outermost pixels ("reflect").

    He, Zhang, Ren, Sun, "Deep residual learning for image recognition", 2016, section 4.2.
    """

    def __init__(self, padding: int = 4, *, border: str = "zeros") -> None:
        self.padding = self.expect_integer("padding", padding, 0)
        self.border = self.expect_choice("border", border, BORDERS)

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        down, right = np.floor(draws.uniform(2) * (2 * self.padding + 1)) - self.padding
        H, W = x.shape[1:3]
        rows, columns = (xp.asarray((np.arange(size)[:, None] + move).astype(np.int64))
                         for size, move in ((H, down), (W, right)))     # (H, N) and (W, N)
        return pixels(xp, x, rows[:, None], columns[None], self.border)


class RandomFlip(Augmentation):
    """Mirror each image, from left to right, from top to bottom, or both, each with probability p.

        y[c, i, j, n] = x[c, i, W - 1 - j, n]

    Args:
        horizontal: whether left and right are exchanged.
        vertical: whether top and bottom are exchanged.
        p: the probability.
    """

    def __init__(self, horizontal: bool = True, vertical: bool = False, *, p: float = 0.5) -> None:
        self.horizontal = self.expect_flag("horizontal", horizontal)
        self.vertical = self.expect_flag("vertical", vertical)
        self.p = self.expect_number("p", p, 0, math.nextafter(1, 2))

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        across, along = draws.uniform(2) < self.p
        if self.horizontal:
            x = xp.where(xp.asarray(across), x[:, :, ::-1], x)
        if self.vertical:
            x = xp.where(xp.asarray(along), x[:, ::-1], x)
        return x


class RandomAffine(Augmentation):
    """Rotate, scale, shear and shift each image about its centre, with linear interpolation.

        y[c, p, n] = x[c, A[n]^-1 (p - centre - t[n]) + centre, n],
        A = s [[cos a, -sin a], [sin a, cos a]] [[1, tan b], [0, 1]]

    for pixels p = (row, column).

    Args:
        degrees: the rotation a is uniform in -degrees .. degrees.
        scale: the factor s is uniform in low .. high.
        shift: the shift t is uniform in -shift .. shift times the height, and the width.
        shear: the shear b is uniform in -shear .. shear degrees, below 90.
        border: what is outside, see RandomCrop.
    """

    def __init__(self, degrees: float = 0.0, *, scale: tuple[float, float] = (1.0, 1.0),
                 shift: float = 0.0, shear: float = 0.0, border: str = "zeros") -> None:
        self.degrees = self.expect_number("degrees", degrees, 0)
        self.scale = expect_range(self.who, "scale", scale, 1e-3)
        self.shift = self.expect_number("shift", shift, 0)
        self.shear = self.expect_number("shear", shear, 0, 90)
        self.border = self.expect_choice("border", border, BORDERS)

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        u = draws.uniform(5)                                            # (5, N)
        turn, shear = (np.deg2rad(most * (2 * v - 1)) for most, v in ((self.degrees, u[0]),
                                                                      (self.shear, u[1])))
        s = self.scale[0] + (self.scale[1] - self.scale[0]) * u[2]
        H, W = x.shape[1:3]
        down, right = self.shift * H * (2 * u[3] - 1), self.shift * W * (2 * u[4] - 1)
        # A^-1 = [[1, -tan b], [0, 1]] [[cos a, sin a], [-sin a, cos a]] / s
        cos, sin, tan = np.cos(turn) / s, np.sin(turn) / s, np.tan(shear)
        inverse = (cos + tan * sin, sin - tan * cos, -sin, cos)
        a, b, c, d, down, right = (xp.asarray(v) for v in (*inverse, down, right))
        rows = xp.arange(H)[:, None, None] - (H - 1) / 2 - down         # (H, 1, N)
        columns = xp.arange(W)[None, :, None] - (W - 1) / 2 - right     # (1, W, N)
        return between_pixels(xp, x, a * rows + b * columns + (H - 1) / 2,
                              c * rows + d * columns + (W - 1) / 2, self.border)


class RandomRotation(RandomAffine):
    """Rotate each image about its centre by an angle that is uniform in -degrees .. degrees.

    Args:
        degrees: the largest angle.
        border: what is outside, see RandomCrop.
    """

    def __init__(self, degrees: float, *, border: str = "zeros") -> None:
        super().__init__(degrees, border=border)


class RandomScale(RandomAffine):
    """Enlarge or shrink each image about its centre, by a factor that is uniform in low .. high.

    Args:
        low: the smallest factor.
        high: the largest factor.
        border: what is outside, see RandomCrop.
    """

    def __init__(self, low: float, high: float, *, border: str = "zeros") -> None:
        super().__init__(scale=(low, high), border=border)


class RandomShift(RandomAffine):
    """Move each image by a fraction of its height and its width, uniform in -shift .. shift.

    Args:
        shift: the largest fraction.
        border: what is outside, see RandomCrop.
    """

    def __init__(self, shift: float, *, border: str = "zeros") -> None:
        super().__init__(shift=shift, border=border)


class Elastic(Augmentation):
    """Elastic distortion: each pixel is moved by a smooth random field.

        y[c, p, n] = x[c, p + alpha (G_sigma * u)[p, n], n]

    with linear interpolation. u has two numbers for each pixel, for rows and columns, uniform in
    -1 .. 1; G_sigma * smooths them with a Gaussian.

    Args:
        alpha: strength of the distortion, in pixels.
        sigma: standard deviation of the Gaussian, in pixels.
        border: what is outside, see RandomCrop.

    Simard, Steinkraus, Platt, "Best practices for convolutional neural networks applied to visual
    document analysis", 2003, section 2.
    """

    def __init__(self, alpha: float = 34.0, sigma: float = 4.0, *, border: str = "zeros") -> None:
        self.alpha = self.expect_number("alpha", alpha, 0)
        self.sigma = self.expect_positive("sigma", sigma)
        self.border = self.expect_choice("border", border, BORDERS)

    def change(self, xp: Any, x: Array, draws: Draws) -> Array:
        _, H, W, N = x.shape
        u = 2 * draws.uniform(2 * H * W, xp).reshape(2, H, W, N) - 1
        radius = math.ceil(3 * self.sigma)
        weights = xp.asarray(gaussian(np.full(N, self.sigma), radius))
        down, right = self.alpha * smoothed(xp, smoothed(xp, u, weights, 1), weights, 2)
        return between_pixels(xp, x, xp.arange(H)[:, None, None] + down,
                              xp.arange(W)[None, :, None] + right, self.border)


def pixels(xp: Any, x: Array, rows: Array, columns: Array, border: str) -> Array:
    """y[c, i, j, n] = x[c, rows[i, j, n], columns[i, j, n], n]; rows and columns are whole numbers
    that broadcast to (H', W', N)."""
    C, H, W, N = x.shape
    there = (rows >= 0) & (rows < H) & (columns >= 0) & (columns < W)
    where = (_inside(xp, rows, H, border) * W + _inside(xp, columns, W, border)) * N + xp.arange(N)
    y = xp.take(x.reshape(C, H * W * N), where, axis=1)
    return y * there if border == "zeros" else y


def between_pixels(xp: Any, x: Array, rows: Array, columns: Array, border: str) -> Array:
    """The same for real numbers: a mean of the four pixels around, with linear weights."""
    top, left = xp.floor(rows), xp.floor(columns)
    down, right = (rows - top).astype(x.dtype), (columns - left).astype(x.dtype)
    i, j = top.astype(xp.int64), left.astype(xp.int64)
    upper = (1 - right) * pixels(xp, x, i, j, border) + right * pixels(xp, x, i, j + 1, border)
    lower = ((1 - right) * pixels(xp, x, i + 1, j, border)
             + right * pixels(xp, x, i + 1, j + 1, border))
    return (1 - down) * upper + down * lower


def _inside(xp: Any, places: Array, size: int, border: str) -> Array:
    """Places on an axis of `size` pixels, for places that may be outside."""
    if border == "reflect" and size > 1:        # ... 2 1 0 1 2 ... size-2 size-1 size-2 ...
        period = 2 * (size - 1)
        places = places % period
        return xp.minimum(places, period - places)
    return xp.clip(places, 0, size - 1)
