"""Boxes around objects: how they are written, and how much they overlap.

Boxes are arrays (N, 4). x goes to the right and y downwards, and a pixel is a square of side 1: the
image covers x from 0 to its width and y from 0 to its height. Sizes of images are (height, width).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_choice, finite_array, is_number, items, wrong
from xpnet.losses.boxes import KINDS, overlap

FORMATS = "xyxy", "xywh", "cxcywh", "rel_xyxy", "rel_xywh", "rel_cxcywh"


def convert_boxes(boxes: Any, source: str, target: str, size: Any = None) -> np.ndarray:
    """Boxes (N, 4) in another format.

        "xyxy"      x1, y1, x2, y2                  two corners, in pixels; Pascal VOC
        "xywh"      x1, y1, width, height           in pixels; COCO
        "cxcywh"    centre x, centre y, width, height
        "rel_..."   the same as fractions of the image's width and height; rel_cxcywh is Darknet's

    Args:
        source: the format of `boxes`.
        target: the format of the result.
        size: (height, width) of the image; needed between pixels and fractions.
    """
    who = "convert_boxes"
    boxes = expect_boxes(who, "boxes", boxes)
    source, target = (expect_choice(who, name, value, FORMATS)
                      for name, value in (("source", source), ("target", target)))
    relative = [name.startswith("rel_") for name in (source, target)]
    source, target = source.removeprefix("rel_"), target.removeprefix("rel_")
    a, b = boxes[:, :2], boxes[:, 2:]
    low, high = {"xyxy": (a, b), "xywh": (a, a + b), "cxcywh": (a - b / 2, a + b / 2)}[source]
    first, second = {"xyxy": (low, high), "xywh": (low, high - low),
                     "cxcywh": ((low + high) / 2, high - low)}[target]
    if source == target:                                        # without rounding
        first, second = a, b
    out = np.concatenate([first, second], axis=1)
    if relative[0] == relative[1]:
        return out
    height, width = expect_size(who, size)
    sides = np.array([width, height, width, height], np.float64)
    return out * sides if relative[0] else out / sides


def clip_boxes(boxes: Any, size: Any) -> np.ndarray:
    """Boxes (N, 4) xyxy, cut off at the edges of an image of `size` (height, width)."""
    boxes = expect_boxes("clip_boxes", "boxes", boxes)
    height, width = expect_size("clip_boxes", size)
    return np.clip(boxes, 0.0, np.array([width, height, width, height], np.float64))


def box_area(boxes: Any) -> np.ndarray:
    """Areas (N,) of boxes (N, 4) xyxy; 0 if x2 < x1 or y2 < y1."""
    boxes = expect_boxes("box_area", "boxes", boxes)
    return np.maximum(boxes[:, 2:] - boxes[:, :2], 0).prod(axis=1)


def box_iou(a: Any, b: Any, *, kind: str = "iou") -> np.ndarray:
    """Overlaps (A, B) of each box of a (A, 4) with each box of b (B, 4), xyxy: IoU = area of the
    intersection / area of the union.

    Args:
        kind: "iou", or one of its relatives "giou", "diou" and "ciou", whose formulas and sources
            are those of xpnet.BoxIoU.
    """
    who = "box_iou"
    a, b = expect_boxes(who, "a", a), expect_boxes(who, "b", b)
    kind = expect_choice(who, "kind", kind, KINDS)
    return overlap(np, a.T[:, :, None], b.T[:, None, :], kind)[0]


# --- checks ---------------------------------------------------------------------------------------

def expect_boxes(who: str, name: str, boxes: Any) -> np.ndarray:
    """Boxes (N, 4) as float64; an empty list is no box."""
    found = finite_array(boxes, f"{who}: {name}")
    if found.shape == (0,):
        found = found.reshape(0, 4)
    if found.ndim != 2 or found.shape[1] != 4:
        raise ValueError(f"{who}: expected {name} of shape (N, 4). Received: shape {found.shape}.")
    return found.astype(np.float64)


def expect_per_box(who: str, name: str, values: Any, count: int) -> np.ndarray:
    """A finite number for each box, (N,)."""
    found = finite_array(values, f"{who}: {name}")
    if found.shape != (count,):
        raise ValueError(f"{who}: expected {name} of shape ({count},), one for each box. "
                         f"Received: shape {found.shape}.")
    return found


def expect_labels(who: str, name: str, values: Any, count: int) -> np.ndarray:
    """A class number for each box, (N,) int64."""
    found = expect_per_box(who, name, values, count)
    labels = found.astype(np.int64)
    if (labels != found).any() or (labels < 0).any():
        raise ValueError(f"{who}: expected {name} to be class numbers, 0 or larger. "
                         f"Received: {found.min():g} to {found.max():g}.")
    return labels


def expect_size(who: str, size: Any) -> tuple[float, float]:
    """(height, width) of an image."""
    sides = items(size)
    if not sides or len(sides) != 2 or not all(is_number(side) and side > 0 for side in sides):
        raise wrong(who, "size to be (height, width), numbers above 0", "size", size)
    return float(sides[0]), float(sides[1])
