"""Landmarks of objects, such as the joints of a figure: targets, places, and how far they are off.

Points are arrays (N, M, 2) of x and y in pixels, or (N, M, 3) with a mark: 0 for a point whose
place is not known, 1 or larger for others. In COCO's marks 1 is a hidden point and 2 a visible one.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import (
    expect_integer,
    expect_number,
    expect_positive,
    finite_array,
    is_number,
    items,
    wrong,
)
from xpnet.losses.landmarks import HeatMaps, bells
from xpnet.vision.boxes import expect_size

MOST_POSITIONS = 2**14


def landmark_targets(points: Any, size: Any) -> np.ndarray:
    """Points in pixels as the targets of `Landmarks` and `HeatMaps`: (N, M, 3), x and y as
    fractions of images of `size` (height, width), and a mark of 0 or 1."""
    places, known = _points("landmark_targets", "points", points)
    height, width = expect_size("landmark_targets", size)
    return np.concatenate([places / (width, height), known[..., None]], axis=2)


def landmark_points(y: Any, size: Any) -> np.ndarray:
    """The places (N, M, 2) in pixels that a network predicts, for images of `size` (height, width).

    y (N, 2 M) are fractions x1, y1, ..., as SoftArgmax2d gives them. y (N, M, H, W) are heat maps,
    of which the middle of the largest position counts, the first of equal ones.
    """
    who = "landmark_points"
    y, (height, width) = finite_array(y, f"{who}: y"), expect_size(who, size)
    if y.ndim == 4 and y.size:
        N, M, H, W = y.shape
        best = y.reshape(N, M, H * W).argmax(axis=2)
        return np.stack([(best % W + 0.5) / W * width, (best // W + 0.5) / H * height], axis=2)
    if y.ndim != 2 or y.shape[1] % 2 or not y.shape[1]:
        raise ValueError(f"{who}: expected y of shape (N, 2 M) or (N, M, H, W). "
                         f"Received: shape {y.shape}.")
    return y.reshape(len(y), -1, 2).astype(np.float64) * (width, height)


def heatmaps(targets: Any, size: Any, *, sigma: float = 1.0) -> np.ndarray:
    """The maps (N, M, H, W) that HeatMaps compares with, of `size` (H, W): exp(-d^2 / (2 sigma^2)),
    d the distance from the point in positions of the map; 0 for points that are not known.

    Args:
        targets: (N, M, 3) of `landmark_targets`.
    """
    who = "heatmaps"
    targets = finite_array(targets, f"{who}: targets")
    sides = items(size)
    if not sides or len(sides) != 2:
        raise wrong(who, "size to be (height, width) of the maps", "size", size)
    H, W = (expect_integer(who, "size", side, 1, MOST_POSITIONS) for side in sides)
    sigma = expect_positive(who, "sigma", sigma)
    if targets.ndim != 3 or targets.shape[2] != 3:
        raise ValueError(f"{who}: expected targets of shape (N, M, 3). "
                         f"Received: shape {targets.shape}.")
    loss = HeatMaps(sigma)
    points = np.moveaxis(loss.points(targets, targets.shape[1], np.dtype(np.float64)), 0, -1)
    return np.moveaxis(bells(np, points, (H, W), sigma) * points[:, 2][:, None, None], -1, 0)


def normalized_mean_error(y: Any, target: Any, length: Any) -> float:
    """Normalised mean error of landmarks: NME = mean over the known points of |y - t| / length
    (Sagonas et al. 2013).

    y (N, M, 2) and target (N, M, 2) or (N, M, 3) in pixels. NaN if no point is known.

    Args:
        length: what distances are compared with, a number or (N,), for example the distance between
            the eyes.
    """
    distance, known = _distances("normalized_mean_error", y, target, length)
    return float(distance[known].mean()) if known.any() else np.nan


def pck(y: Any, target: Any, length: Any, *, threshold: float = 0.2) -> float:
    """Percentage of correct keypoints: PCK = number of known points with |y - t| <= threshold *
    length / number of known points (Yang and Ramanan 2013).

    y (N, M, 2) and target (N, M, 2) or (N, M, 3) in pixels. From 0 to 1; NaN if no point is known.

    Args:
        length: a number or (N,), for example the larger side of the object's box.
        threshold: a fraction of it.
    """
    threshold = expect_number("pck", "threshold", threshold, 0)
    distance, known = _distances("pck", y, target, length)
    return float((distance[known] <= threshold).mean()) if known.any() else np.nan


def _points(who: str, name: str, points: Any) -> tuple[np.ndarray, np.ndarray]:
    """Places (N, M, 2), and which are known (N, M)."""
    found = finite_array(points, f"{who}: {name}")
    if found.ndim != 3 or found.shape[2] not in (2, 3):
        raise ValueError(f"{who}: expected {name} of shape (N, M, 2), or (N, M, 3) with marks. "
                         f"Received: shape {found.shape}.")
    known = found[..., 2] > 0 if found.shape[2] == 3 else np.ones(found.shape[:2], bool)
    return found[..., :2].astype(np.float64), known


def _distances(who: str, y: Any, target: Any, length: Any) -> tuple[np.ndarray, np.ndarray]:
    """|y - t| / length (N, M), and which points are known."""
    places, _ = _points(who, "y", y)
    right, known = _points(who, "target", target)
    if places.shape != right.shape:
        raise ValueError(f"{who}: expected as many points in y as in target. Received: shapes "
                         f"{places.shape} and {right.shape}.")
    lengths = ([length] * len(places) if is_number(length) else items(length)) or []
    if len(lengths) != len(places) or not all(is_number(one) and one > 0 for one in lengths):
        raise wrong(who, "length to be a number above 0, or one for each sample", "length", length)
    gap = np.sqrt(((places - right) ** 2).sum(axis=2))
    return gap / np.array(lengths, np.float64)[:, None], known
