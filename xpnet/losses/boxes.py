"""How much two boxes overlap, with gradients, and the loss of it.

Boxes are arrays (4, ...) of corners: x1, y1, x2, y2, with x to the right and y downwards.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss, or_one

KINDS = "iou", "giou", "diou", "ciou"


class BoxIoU(Loss):
    """Overlap of boxes: L = mean over boxes of 1 - IoU, IoU = area of the intersection / area of
    the union (Yu et al. 2016).

    y (4, N) or (4, H, W, N) are corners x1, y1, x2, y2, and targets have the same shape. With I and
    U the areas of intersection and union of the boxes a and b, C the smallest box around both, c
    its diagonal, and d the distance of the centres:

        "iou"   IoU  = I / U
        "giou"  GIoU = IoU - (C - U) / C            also has a gradient where the boxes are apart
        "diou"  DIoU = IoU - d^2 / c^2              pulls the centres together
        "ciou"  CIoU = DIoU - alpha v               also compares the proportions

    v = 4 / pi^2 (arctan(w_b / h_b) - arctan(w_a / h_a))^2, alpha = v / (1 - IoU + v), which counts
    as a constant in the gradient. With ' for the derivative with respect to a coordinate of a:
    IoU' = (I' - IoU U') / U, GIoU' = IoU' + U' / C - U C' / C^2. If an edge of a is also an edge of
    b, the derivative is the mean of those on both sides. A box with x2 < x1 or y2 < y1 counts as
    empty. If the union is empty, IoU is 0.

    Args:
        kind: "iou", "giou", "diou" or "ciou".
        reduction: "sum" does not divide.

    GIoU: Rezatofighi et al. 2019. DIoU and CIoU: Zheng et al. 2020. Yu et al. take -log IoU.
    """

    def __init__(self, kind: str = "giou", *, reduction: str = "mean") -> None:
        self.kind = self.expect_choice("kind", kind, KINDS)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        if out_shape[0] != 4:
            raise ValueError(f"{self.who}: expected four outputs, x1, y1, x2, y2. Received: output "
                             f"shape {out_shape}.")
        return super().targets(target, out_shape, dtype)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        value, slopes = overlap(backend.xp, y, target, self.kind)
        dy = backend.joined([-slope[None] for slope in slopes], axis=0)
        return 1.0 - value, dy, y[0].size


class _Axis:
    """Intervals from low to high of two boxes along one axis, and derivatives with respect to the
    low and the high end of the first."""

    def __init__(self, xp: Any, low: Array, high: Array, goal_low: Array, goal_high: Array) -> None:
        self.size, self.goal = xp.maximum(high - low, 0), xp.maximum(goal_high - goal_low, 0)
        self.inner = xp.maximum(xp.minimum(high, goal_high) - xp.maximum(low, goal_low), 0)
        self.outer = xp.maximum(high, goal_high) - xp.minimum(low, goal_low)
        self.gap = 0.5 * (low + high - goal_low - goal_high)
        one = (high > low).astype(self.size.dtype)
        self.d_size = -one, one
        meets = one * (self.inner > 0)
        self.d_inner = -meets * _above(low, goal_low), meets * _above(goal_high, high)
        self.d_outer = -one * _above(goal_low, low), one * _above(high, goal_high)


def _above(a: Array, b: Array) -> Array:
    """1 where a > b, 0 where a < b, and 1/2 where they are equal: the mean of the derivatives on
    both sides, so that the gradient of a box that fits exactly is 0."""
    return 0.5 * ((a > b).astype(a.dtype) + (a >= b).astype(a.dtype))


def overlap(xp: Any, a: Array, b: Array, kind: str = "iou") -> tuple[Array, list[Array]]:
    """IoU of boxes a and b (4, ...), or one of its relatives, and its derivatives with respect to
    x1, y1, x2, y2 of a; see BoxIoU."""
    x, y = _Axis(xp, a[0], a[2], b[0], b[2]), _Axis(xp, a[1], a[3], b[1], b[3])

    def product(of_x: Any, other_y: Array, of_y: Any, other_x: Array) -> list[Array]:
        """Derivatives of a product of something of x and something of y."""
        return [of_x[0] * other_y, of_y[0] * other_x, of_x[1] * other_y, of_y[1] * other_x]

    inter, area = x.inner * y.inner, x.size * y.size
    union = area + x.goal * y.goal - inter
    d_inter = product(x.d_inner, y.inner, y.d_inner, x.inner)
    d_union = [da - di for da, di in zip(product(x.d_size, y.size, y.d_size, x.size), d_inter)]
    below = or_one(union)
    iou = inter / below
    slopes = [(di - iou * du) / below for di, du in zip(d_inter, d_union)]
    if kind == "giou":
        around = x.outer * y.outer
        d_around = product(x.d_outer, y.outer, y.d_outer, x.outer)
        below = or_one(around)
        slopes = [s + (du - union / below * dc) / below
                  for s, du, dc in zip(slopes, d_union, d_around)]
        return iou - (around - union) / below, slopes
    if kind == "iou":
        return iou, slopes
    diagonal = or_one(x.outer * x.outer + y.outer * y.outer)                # c^2
    far = (x.gap * x.gap + y.gap * y.gap) / diagonal                        # d^2 / c^2
    d_far = [(axis.gap - 2.0 * far * axis.outer * axis.d_outer[end]) / diagonal
             for end in (0, 1) for axis in (x, y)]
    value, slopes = iou - far, [s - df for s, df in zip(slopes, d_far)]
    if kind == "diou":
        return value, slopes
    turn = xp.arctan2(x.goal, y.goal) - xp.arctan2(x.size, y.size)
    v = 4.0 / math.pi**2 * turn * turn
    alpha = v / or_one(1.0 - iou + v)
    # dv / dw = -8 / pi^2 turn h / (w^2 + h^2), dv / dh = 8 / pi^2 turn w / (w^2 + h^2)
    common = 8.0 / math.pi**2 * alpha * turn / or_one(x.size * x.size + y.size * y.size)
    d_v = product([-common * d for d in x.d_size], y.size, [common * d for d in y.d_size], x.size)
    return value - alpha * v, [s - dv for s, dv in zip(slopes, d_v)]


def corners(cx: Array, cy: Array, w: Array, h: Array) -> tuple[Array, ...]:
    """x1, y1, x2, y2 of boxes that are given by centre and size."""
    return cx - 0.5 * w, cy - 0.5 * h, cx + 0.5 * w, cy + 0.5 * h


def iou_of(xp: Any, a: Any, b: Any) -> Array:
    """IoU alone, without derivatives; a and b are x1, y1, x2, y2."""
    inter = (xp.maximum(xp.minimum(a[2], b[2]) - xp.maximum(a[0], b[0]), 0)
             * xp.maximum(xp.minimum(a[3], b[3]) - xp.maximum(a[1], b[1]), 0))
    areas = [xp.maximum(box[2] - box[0], 0) * xp.maximum(box[3] - box[1], 0) for box in (a, b)]
    return inter / or_one(areas[0] + areas[1] - inter)
