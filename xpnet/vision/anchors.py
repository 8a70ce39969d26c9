"""Anchor boxes: a few sizes that stand for the sizes of all objects of a data set."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_integer, expect_seed, finite_array
from xpnet.losses.anchors import MOST_ANCHORS, size_iou

ROUNDS = 1000               # at most; k-means ends by itself when no size changes its cluster


def kmeans_anchors(sizes: Any, k: int = 5, *, seed: int = 0) -> np.ndarray:
    """Anchors (k, 2) for boxes of these sizes (N, 2), by k-means with the distance d = 1 - IoU
    (Redmon and Farhadi 2017, section 2).

    Sizes are (width, height), in any unit, and so are the anchors, sorted by area. IoU is that of
    two boxes with the same centre: a small error of a small box counts as much as a large error of
    a large one. A cluster's new anchor is the mean of its sizes. The first anchors are drawn with a
    probability that grows with the squared distance to those drawn before (Arthur and Vassilvitskii
    2007).

    Raises:
        ValueError: there are fewer than k different sizes.
    """
    who = "kmeans_anchors"
    sizes = _expect_sizes(who, "sizes", sizes)
    k, seed = expect_integer(who, "k", k, 1, MOST_ANCHORS), expect_seed(who, seed)
    if len(np.unique(sizes, axis=0)) < k:
        raise ValueError(f"{who}: expected at least k={k} different sizes. "
                         f"Received: {len(np.unique(sizes, axis=0))}.")
    rng = np.random.default_rng(seed)
    anchors = sizes[rng.integers(len(sizes))][None]
    while len(anchors) < k:
        far = np.maximum(1.0 - size_iou(sizes, anchors).max(axis=1), 1e-9) ** 2
        far[(sizes[:, None] == anchors).all(axis=2).any(axis=1)] = 0    # drawn before
        anchors = np.concatenate([anchors, sizes[rng.choice(len(sizes), p=far / far.sum())][None]])
    before = np.full(len(sizes), -1)
    for _ in range(ROUNDS):
        nearest = size_iou(sizes, anchors).argmax(axis=1)
        if (nearest == before).all():
            break
        before = nearest
        anchors = np.stack([sizes[nearest == c].mean(axis=0) if (nearest == c).any() else anchors[c]
                            for c in range(k)])
    return anchors[np.argsort(anchors.prod(axis=1), kind="stable")]


def anchor_iou(sizes: Any, anchors: Any) -> float:
    """How well anchors (k, 2) fit sizes (N, 2): the mean over the sizes of the IoU with the best
    anchor (Redmon and Farhadi 2017, table 1)."""
    sizes, anchors = (_expect_sizes("anchor_iou", name, a)
                      for name, a in (("sizes", sizes), ("anchors", anchors)))
    return float(size_iou(sizes, anchors).max(axis=1).mean())


def _expect_sizes(who: str, name: str, sizes: Any) -> np.ndarray:
    found = finite_array(sizes, f"{who}: {name}").astype(np.float64)
    if found.ndim != 2 or found.shape[1] != 2 or not len(found) or not (found > 0).all():
        raise ValueError(f"{who}: expected {name} (N, 2), widths and heights above 0. "
                         f"Received: shape {found.shape}"
                         + (f", from {found.min():g}." if found.size else "."))
    return found
