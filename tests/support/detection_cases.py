"""The YOLO losses as plain loops over cells and boxes, from the papers' formulas.

`rows` are the objects of each sample, (N, M, 5): class or -1, x, y, w, h. A loop returns the loss
of each term, summed over the samples, and the IoUs that it used as targets. These can be passed to
the next call, because they count as constants in the gradient.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

Terms = dict[str, float]


def iou(a: tuple[float, ...], b: tuple[float, ...]) -> float:
    """IoU of boxes (cx, cy, w, h)."""
    sides = [max(0.0, min(a[k] + a[k + 2] / 2, b[k] + b[k + 2] / 2)
                 - max(a[k] - a[k + 2] / 2, b[k] - b[k + 2] / 2)) for k in (0, 1)]
    inter = sides[0] * sides[1]
    return inter / (a[2] * a[3] + b[2] * b[3] - inter)


def sigmoid(z: float) -> float:
    return 1 / (1 + math.exp(-z))


def objects_of(rows: np.ndarray, n: int, S_h: int, S_w: int) -> list[Any]:
    """(class, box, cell's row and column) of each object of a sample."""
    return [(int(k), (x, y, w, h), min(int(y * S_h), S_h - 1), min(int(x * S_w), S_w - 1))
            for k, x, y, w, h in rows[n].tolist() if k >= 0]


def yolo1(y: np.ndarray, rows: np.ndarray, B: int, K: int, coord: float = 5.0, noobj: float = 0.5,
          rescore: bool = True, fixed: Any = None) -> tuple[Terms, dict[Any, float]]:
    D, S_h, S_w, N = y.shape
    assert D == 5 * B + K
    total = dict.fromkeys(("centre", "size", "object", "no_object", "class"), 0.0)
    used = {}
    for n in range(N):
        objects = objects_of(rows, n, S_h, S_w)
        for i in range(S_h):
            for j in range(S_w):
                v = y[:, i, j, n].tolist()
                here = [(k, box) for k, box, row, column in objects if (row, column) == (i, j)]
                chosen = None
                if here:
                    label, box = here[0]
                    boxes = [((v[5 * b] + j) / S_w, (v[5 * b + 1] + i) / S_h, v[5 * b + 2] ** 2,
                              v[5 * b + 3] ** 2) for b in range(B)]
                    overlaps = [iou(one, box) for one in boxes]
                    near = [one or -math.dist(a, box) for one, a in zip(overlaps, boxes)]
                    chosen = max(range(B), key=near.__getitem__)
                    if fixed is not None:
                        chosen, overlap = fixed[n, i, j]
                    else:
                        overlap = overlaps[chosen]
                    used[n, i, j] = chosen, overlap
                    x, y_, root_w, root_h, c = v[5 * chosen:5 * chosen + 5]
                    total["centre"] += coord * ((x - (box[0] * S_w - j)) ** 2
                                                + (y_ - (box[1] * S_h - i)) ** 2)
                    total["size"] += coord * ((root_w - math.sqrt(box[2])) ** 2
                                              + (root_h - math.sqrt(box[3])) ** 2)
                    total["object"] += (c - (overlap if rescore else 1)) ** 2
                    total["class"] += sum((v[5 * B + k] - (k == label)) ** 2 for k in range(K))
                total["no_object"] += noobj * sum(v[5 * b + 4] ** 2 for b in range(B)
                                                  if b != chosen)
    return total, used


def anchored(version: int, y: np.ndarray, rows: np.ndarray, anchors: list[tuple[float, float]],
             K: int, mask: list[int] | None = None, factors: tuple[float, ...] = (1, 1, 1, 1),
             threshold: float = 0.5, rescore: bool = True, fixed: Any = None,
             scale_xy: float = 1.0) -> tuple[Terms, dict[Any, Any]]:
    """YOLOv2 and YOLOv3. factors: lambda_coord, lambda_obj, lambda_noobj, lambda_class."""
    mask = [*range(len(anchors))] if mask is None else mask
    coord, obj, noobj, of_class = factors
    D, S_h, S_w, N = y.shape
    assert D == len(mask) * (5 + K)
    total = dict.fromkeys(("centre", "size", "object", "no_object", "class"), 0.0)
    used: dict[Any, Any] = {}

    def cost(z: float, t: float) -> float:
        if version == 2:
            return (sigmoid(z) - t) ** 2 / 2
        return -t * math.log(sigmoid(z)) - (1 - t) * math.log(1 - sigmoid(z))

    def place(z: float) -> float:
        """In its cell; with YOLOv4's factor also a little beyond the edges."""
        return scale_xy * sigmoid(z) - (scale_xy - 1) / 2

    def centre(z: float, x: float) -> float:
        """The cost whose derivative is place(z) - x."""
        return scale_xy * cost(z, (x + (scale_xy - 1) / 2) / scale_xy)

    for n in range(N):
        objects = objects_of(rows, n, S_h, S_w)
        owner: dict[Any, Any] = {}
        for label, box, i, j in objects:
            best = max(range(len(anchors)),
                       key=lambda k: iou((0, 0, *anchors[k]), (0, 0, *box[2:])))   # noqa: B023
            if best in mask:
                owner.setdefault((best, i, j), (label, box))
        for b, number in enumerate(mask):
            p_w, p_h = anchors[number]
            for i in range(S_h):
                for j in range(S_w):
                    v = y[b * (5 + K):(b + 1) * (5 + K), i, j, n].tolist()
                    mine = ((place(v[0]) + j) / S_w, (place(v[1]) + i) / S_h,
                            p_w * math.exp(v[2]), p_h * math.exp(v[3]))
                    if (number, i, j) not in owner:
                        near = max((iou(mine, box) for _, box, _, _ in objects), default=0.0)
                        near = near if fixed is None else fixed[n, b, i, j]
                        used[n, b, i, j] = near
                        if near <= threshold:
                            total["no_object"] += noobj * cost(v[4], 0)
                        continue
                    label, box = owner[number, i, j]
                    overlap = iou(mine, box) if fixed is None else fixed[n, b, i, j]
                    used[n, b, i, j] = overlap
                    small = coord * (2 - box[2] * box[3])
                    total["centre"] += small * (centre(v[0], box[0] * S_w - j)
                                                + centre(v[1], box[1] * S_h - i))
                    total["size"] += small / 2 * ((v[2] - math.log(box[2] / p_w)) ** 2
                                                  + (v[3] - math.log(box[3] / p_h)) ** 2)
                    total["object"] += obj * cost(v[4], overlap if version == 2 and rescore else 1)
                    if version == 2:
                        total["class"] -= of_class * math.log(
                            math.exp(v[5 + label]) / sum(map(math.exp, v[5:])))
                    else:
                        total["class"] += of_class * sum(cost(v[5 + k], float(k == label))
                                                         for k in range(K))
    return total, used
