"""Losses for landmarks: points of an object that are looked for in an image, such as joints.

The targets are the points of each sample, (N, M, 3): x and y as fractions of the image's width and
height, and a mark that is 0 for a point whose place is not known. These are left out of all sums.
xpnet.vision.landmark_targets makes them of pixels.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import finite_array
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, or_one


class PointLoss(Loss):
    """Base class: targets are points and their marks."""

    of_places = False

    def points(self, target: Any, count: int, dtype: np.dtype) -> np.ndarray:
        """The targets (N, M, 3), checked, with 0 for the places that are not known."""
        found = finite_array(target, f"{self.who}: targets", dtype)
        if found.ndim != 3 or found.shape[1:] != (count, 3):
            raise ValueError(f"{self.who}: expected targets of shape (N, {count}, 3): x, y and a "
                             f"mark of {count} points, as vision.landmark_targets makes them. "
                             f"Received: shape {found.shape}.")
        marks = found[..., 2]
        if found.size and marks.min() < 0:
            raise ValueError(f"{self.who}: expected marks of 0 for points that are not known, and "
                             f"larger ones for others. Received: {marks.min():g} among them.")
        known = marks > 0
        out = np.zeros(found.shape, dtype)
        out[..., :2], out[..., 2] = np.where(known[..., None], found[..., :2], 0), known
        return out


class Landmarks(PointLoss):
    """Error of landmarks: L = mean over the coordinates of known points of (y - t)^2, dy = 2 (y -
    t) / their number (Toshev and Szegedy 2014).

    y (2 M, N) are x1, y1, ..., xM, yM as fractions of the image, from a Linear(2 * M) or from
    SoftArgmax2d. Targets are points (N, M, 3): x, y, and 0 if the place is not known. dy is 0
    there. If no point is known, L is 0.

    Args:
        kind: "squared", or "absolute" for |y - t| and dy = sign(y - t) / their number.
        reduction: "sum" does not divide.
    """

    def __init__(self, kind: str = "squared", *, reduction: str = "mean") -> None:
        self.kind = self.expect_choice("kind", kind, ("squared", "absolute"))
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        """(N, 2, 2 M): the coordinates, and 1 for those that are known."""
        if len(out_shape) != 1 or out_shape[0] % 2:
            raise ValueError(f"{self.who}: expected a network with 2 M outputs, x and y of each "
                             f"point. Received: output shape {out_shape}.")
        points = self.points(target, out_shape[0] // 2, dtype)
        known = np.broadcast_to(points[..., 2:], points[..., :2].shape)
        return np.stack([a.reshape(len(a), -1) for a in (points[..., :2], known)], axis=1)

    def divisors(self, target: np.ndarray, out_shape: Shape) -> np.ndarray | None:
        return target[:, 1].sum(axis=1, dtype=np.float64)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        error = target[1] * (y - target[0])
        n = or_one(target[1].sum())
        if self.kind == "absolute":
            return abs(error), backend.xp.sign(error), n
        return error * error, 2.0 * error, n


class HeatMaps(PointLoss):
    """Error of heat maps: L = mean over the maps of known points and their positions of (y - t)^2,
    t = exp(-d^2 / (2 sigma^2)) (Tompson et al. 2014).

    y (M, H, W, N) has a map for each point; d is the distance of a position from the point, in
    positions of the map. Position (i, j) is at the fractions (j + 1/2) / W and (i + 1/2) / H of the
    image. dy = 2 (y - t) / number of these positions. Targets are points (N, M, 3): x, y, and 0 if
    the place is not known; the map of such a point does not count. If no point is known, L is 0.

    Args:
        sigma: width of the bell, in positions of the map.
        reduction: "sum" does not divide.
    """

    def __init__(self, sigma: float = 1.0, *, reduction: str = "mean") -> None:
        self.sigma = self.expect_positive("sigma", sigma)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        if len(out_shape) != 3:
            raise ValueError(f"{self.who}: expected a network whose output is (points, height, "
                             f"width). Received: output shape {out_shape}.")
        return self.points(target, out_shape[0], dtype)

    def divisors(self, target: np.ndarray, out_shape: Shape) -> np.ndarray | None:
        return target[..., 2].sum(axis=1, dtype=np.float64) * (out_shape[1] * out_shape[2])

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        known = target[:, 2]                                                    # (M, N)
        error = known[:, None, None] * (y - bells(backend.xp, target, y.shape[1:3], self.sigma))
        n = or_one(known.sum() * (y.shape[1] * y.shape[2]))
        return error * error, 2.0 * error, n


def bells(xp: Any, points: Array, size: tuple[int, int], sigma: float) -> Array:
    """A bell (M, H, W, N) around each of the points (M, 3, N), whose x and y are fractions."""
    H, W = size

    def factor(length: int, place: Array) -> Array:
        """exp(-d^2 / (2 sigma^2)) along one axis, (M, length, N)."""
        d = xp.arange(length).astype(place.dtype).reshape(-1, 1) + 0.5 - length * place[:, None]
        return xp.exp(d * d * (-0.5 / sigma**2))

    return factor(W, points[:, 0])[:, None] * factor(H, points[:, 1])[:, :, None]
