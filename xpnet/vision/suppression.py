"""Non-maximum suppression: of several boxes around the same object, only the best one is kept."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_choice, expect_number, expect_positive
from xpnet.losses.boxes import iou_of
from xpnet.vision.boxes import expect_boxes, expect_labels, expect_per_box


def nms(boxes: Any, scores: Any, labels: Any = None, *, iou_threshold: float = 0.5) -> np.ndarray:
    """Non-maximum suppression: the numbers of the boxes that are kept, that of the largest score
    first (Felzenszwalb et al. 2010, section 7).

    The box with the largest score is kept, and all boxes whose IoU with it is above the threshold
    are dropped. The same is done with those that are left. Of equal scores the first box wins.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,).
        labels: class numbers (N,): only boxes of the same class suppress each other. Without labels
            all do.
        iou_threshold: from 0 to 1.
    """
    boxes, scores, groups = _checked("nms", boxes, scores, labels)
    limit = expect_number("nms", "iou_threshold", iou_threshold, 0)
    order = np.argsort(-scores, kind="stable")
    kept = []
    while order.size:
        best, order = order[0], order[1:]
        kept.append(best)
        drops = iou_of(np, boxes[best], boxes[order].T) > limit
        order = order[~(drops & (groups[order] == groups[best]))]
    return np.array(kept, np.int64)


def soft_nms(boxes: Any, scores: Any, labels: Any = None, *, method: str = "gaussian",
             iou_threshold: float = 0.3, sigma: float = 0.5, score_threshold: float = 1e-3
             ) -> tuple[np.ndarray, np.ndarray]:
    """Soft-NMS: the scores of overlapping boxes shrink by a factor, s = s (1 - IoU) or s =
    s exp(-IoU^2 / sigma), and no box is dropped at once (Bodla et al. 2017, section 3).

    The box with the largest score is taken, and the scores of all others shrink by how much they
    overlap with it; then the largest of those that are left is taken. Returns the numbers of the
    boxes in this order, and their new scores.

    Args:
        boxes: (N, 4) xyxy.
        scores: (N,), 0 or larger.
        labels: class numbers (N,): only boxes of the same class change each other's scores.
        method: "linear" for the factor 1 - IoU, for boxes with an IoU of at least `iou_threshold`;
            "gaussian" for exp(-IoU^2 / sigma), for all boxes.
        iou_threshold: for "linear".
        sigma: for "gaussian".
        score_threshold: boxes with a score below it are left out at the end.
    """
    who = "soft_nms"
    boxes, scores, groups = _checked(who, boxes, scores, labels)
    if (scores < 0).any():          # a factor below 1 would make them larger
        raise ValueError(f"{who}: expected scores of 0 or larger. Received: {scores.min():g}.")
    method = expect_choice(who, "method", method, ("linear", "gaussian"))
    limit = expect_number(who, "iou_threshold", iou_threshold, 0)
    sigma, least = (expect_positive(who, "sigma", sigma),
                    expect_number(who, "score_threshold", score_threshold))
    scores, left = scores.astype(np.float64), np.arange(len(scores))
    taken = []
    while left.size:
        best = left[scores[left].argmax()]
        if scores[best] < least:
            break
        taken.append(best)
        left = left[left != best]
        iou = iou_of(np, boxes[best], boxes[left].T) * (groups[left] == groups[best])
        scores[left] *= (np.exp(-iou * iou / sigma) if method == "gaussian"
                         else np.where(iou >= limit, 1.0 - iou, 1.0))
    order = np.array(taken, np.int64)
    return order, scores[order]


def _checked(who: str, boxes: Any, scores: Any, labels: Any
             ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Boxes, scores, and a group for each box: boxes of the same group suppress each other."""
    boxes = expect_boxes(who, "boxes", boxes)
    scores = expect_per_box(who, "scores", scores, len(boxes))
    return boxes, scores, (np.zeros(len(boxes), np.int64) if labels is None
                           else expect_labels(who, "labels", labels, len(boxes)))
