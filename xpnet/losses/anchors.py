"""Losses of detectors with anchor boxes: YOLOv2 and YOLOv3.

A cell has a box for each anchor, a common width and height. The network predicts how the box
differs from it: with an anchor (p_w, p_h) and the column j and the row i of the cell,

    x = (s(t_x) + j) / S_w,  y = (s(t_y) + i) / S_h,  w = p_w exp(t_w),  h = p_h exp(t_h)

all as fractions of the image, s(z) = 1 / (1 + exp(-z)) (Redmon and Farhadi 2017, section 2). An
object belongs to the cell that contains its centre, and there to the anchor whose size has the
largest IoU with it, both put at the same place. This does not depend on what is predicted.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import is_number, items, rows_of, wrong
from xpnet.layer import Array
from xpnet.losses.binary import of_logits, sigmoid_parts
from xpnet.losses.boxes import corners, iou_of
from xpnet.losses.detection import DetectionLoss, Predictions, cells_of, in_image

LARGEST = 12.0              # t_w and t_h of a box count as 12 at most: 160,000 times the anchor
DENSE = 6                   # numbers for each anchor of a cell: class, x, y, t_w, t_h, 2 - w h
MOST_ANCHORS = 2**10


class AnchorLoss(DetectionLoss):
    """Base class of the losses with anchors: L = mean over samples of lambda_coord (centre + size)
    + lambda_obj object + lambda_noobj no_object + lambda_class class."""

    anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    lambda_coord: float
    lambda_obj: float
    lambda_noobj: float
    lambda_class: float
    threshold: float
    scale_xy: float = 1.0       # a in the equations of YOLOv3

    def set_anchors(self, anchors: Any, mask: Any) -> None:
        """Set `anchors` as pairs, and `mask`, the numbers of those that this output has."""
        pairs = [items(pair) for pair in rows_of(anchors) or items(anchors) or ()]
        if (not 0 < len(pairs) <= MOST_ANCHORS
                or not all(pair is not None and len(pair) == 2
                           and all(is_number(side) and side > 0 for side in pair)
                           for pair in pairs)):
            raise wrong(self.who, "anchors to be pairs (width, height) above 0, fractions of the "
                        "image", "anchors", anchors)
        self.anchors = tuple((float(w), float(h)) for w, h in pairs)        # type: ignore[misc]
        numbers = [*range(len(pairs))] if mask is None else items(mask)
        if (not numbers or not all(type(k) is int and 0 <= k < len(pairs) for k in numbers)
                or len(set(numbers)) < len(numbers)):
            raise wrong(self.who, f"mask to be different numbers from 0 to {len(pairs) - 1}",
                        "mask", mask)
        self.mask = tuple(numbers)

    def set_factors(self, coord: Any, obj: Any, noobj: Any, of_class: Any, threshold: Any) -> None:
        self.lambda_coord = self.expect_number("lambda_coord", coord, 0)
        self.lambda_obj = self.expect_number("lambda_obj", obj, 0)
        self.lambda_noobj = self.expect_number("lambda_noobj", noobj, 0)
        self.lambda_class = self.expect_number("lambda_class", of_class, 0)
        self.threshold = self.expect_number("threshold", threshold, 0)

    @property
    def boxes(self) -> int:
        """B, the boxes of a cell."""
        return len(self.mask)

    @property
    def channels(self) -> int:
        return self.boxes * (5 + self.K)

    def encoded(self, rows: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """(N, 6 B S_h S_w + 4 M): for each anchor of each cell the class or -1, x, y, t_w, t_h and
        2 - w h; then the corners of all objects, 0 for none."""
        anchors = np.array(self.anchors)
        t = np.zeros((len(rows), self.boxes, DENSE, *grid))
        t[:, :, 0] = -1
        for n, m, i, j, x, y in cells_of(rows, grid):
            label, size = rows[n, m, 0], rows[n, m, 3:]
            best = best_anchor(anchors, size)
            if best not in self.mask:
                continue
            place = n, self.mask.index(best), slice(None), i, j
            if t[place][0] < 0:                             # the first of several objects counts
                t[place] = label, x, y, *np.log(size / anchors[best]), 2.0 - size[0] * size[1]
        there = rows[..., 0] >= 0
        ends = np.stack(corners(*(rows[..., k] for k in range(1, 5))), axis=1) * there[:, None]
        return np.concatenate([t.reshape(len(t), -1), ends.transpose(0, 2, 1).reshape(len(t), -1)],
                              axis=1)                       # (N, 6 B S_h S_w + 4 M)

    # --- the terms, which a subclass writes -------------------------------------------------------

    def centre(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """The cost of a centre that is off, and its derivative with respect to z."""
        raise NotImplementedError

    def confidence(self, xp: Any, z: Array, t: Any) -> tuple[Array, Array]:
        """The cost of a confidence s(z) that should be t, and its derivative with respect to z."""
        raise NotImplementedError

    def of_classes(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        """The costs of the classes (B, K or 1, ...), and the derivative with respect to z
        (B, K, ...)."""
        raise NotImplementedError

    def probabilities(self, xp: Any, z: Array) -> Array:
        """The probabilities of the classes (B, K, ...)."""
        raise NotImplementedError

    def goal(self, xp: Any, iou: Array) -> Array:
        """What the confidence of an object's box should be."""
        raise NotImplementedError

    # ----------------------------------------------------------------------------------------------

    def cell_parts(self, backend: Backend, y: Array, target: Array
                   ) -> tuple[dict[str, Array], Array]:
        xp, B, (S_h, S_w, N) = backend.xp, self.boxes, y.shape[1:]
        z = y.reshape(B, 5 + self.K, S_h, S_w, N)
        dense = B * DENSE * S_h * S_w
        t = target[:dense].reshape(B, DENSE, S_h, S_w, N)
        objects = target[dense:].reshape(-1, 4, N)                          # (M, 4, N)
        here, scale = (t[:, 0] >= 0).astype(y.dtype), t[:, 5]               # (B, S_h, S_w, N)
        # The IoU of each box with its own object, and with the nearest of all objects.
        boxes = self._corners(xp, z)
        own = iou_of(xp, boxes, self._sized(xp, *in_image(xp, t[:, 1], t[:, 2]), t[:, 3], t[:, 4]))
        most = xp.zeros_like(own)
        for m in range(len(objects)):
            most = xp.maximum(most, iou_of(xp, boxes, objects[m]))
        empty = (1.0 - here) * (most <= self.threshold)
        known = (xp.arange(self.K).reshape(-1, 1, 1, 1) == t[:, :1]).astype(y.dtype)

        weight = self.lambda_coord * (here * scale)[:, None]
        costs, slopes = {}, []
        f, slope = self.centre(xp, z[:, :2], t[:, 1:3])
        costs["centre"] = weight * f
        slopes.append(weight * slope)
        off = z[:, 2:4] - t[:, 3:5]
        costs["size"] = weight * (0.5 * off * off)
        slopes.append(weight * off)
        f, slope = self.confidence(xp, z[:, 4], self.goal(xp, own))
        g, other = self.confidence(xp, z[:, 4], xp.zeros_like(own))
        yes, no = self.lambda_obj * here, self.lambda_noobj * empty
        costs["object"], costs["no_object"] = yes * f, no * g
        slopes.append((yes * slope + no * other)[:, None])
        f, slope = self.of_classes(xp, z[:, 5:], known)
        there = self.lambda_class * here[:, None]
        costs["class"] = there * f
        slopes.append(there * slope)
        dy = backend.joined(slopes, axis=1).reshape(y.shape)
        return {name: cost.reshape(-1, S_h, S_w, N).sum(axis=0)
                for name, cost in costs.items()}, dy

    def predictions(self, xp: Any, y: Array) -> Predictions:
        z = y.reshape(self.boxes, 5 + self.K, *y.shape[1:])
        classes = self.probabilities(xp, z[:, 5:])
        return Predictions(xp.stack(self._corners(xp, z)), sigmoid_parts(xp, z[:, 4])[0],
                           xp.swapaxes(classes, 0, 1))

    def _corners(self, xp: Any, z: Array) -> tuple[Array, ...]:
        """The corners of the predicted boxes, each (B, S_h, S_w, N)."""
        a = self.scale_xy
        x, y = (a * sigmoid_parts(xp, z[:, k])[0] - 0.5 * (a - 1.0) for k in (0, 1))
        return self._sized(xp, *in_image(xp, x, y), z[:, 2], z[:, 3])

    def _sized(self, xp: Any, cx: Array, cy: Array, t_w: Array, t_h: Array) -> tuple[Array, ...]:
        w, h = (xp.exp(xp.minimum(t, LARGEST) + self._log_sides(xp, side, t))
                for side, t in enumerate((t_w, t_h)))
        return corners(cx, cy, w, h)

    def _log_sides(self, xp: Any, side: int, like: Array) -> Array:
        """The logarithms of the anchors' widths (side 0) or heights, (B, 1, 1, 1)."""
        found = xp.zeros((self.boxes, 1, 1, 1), like.dtype)
        for b, k in enumerate(self.mask):   # not as an array, which a captured step may not copy
            found[b] = math.log(self.anchors[k][side])
        return found


def best_anchor(anchors: np.ndarray, size: np.ndarray) -> int:
    """The number of the anchor (K, 2) whose size is most like `size`, the first of equal ones."""
    return int(size_iou(anchors, size[None])[:, 0].argmax())


def size_iou(a: np.ndarray, b: np.ndarray) -> np.ndarray:
    """IoU (A, B) of boxes with sizes a (A, 2) and b (B, 2) and the same centre."""
    inter = np.minimum(a[:, None], b[None]).prod(axis=-1)
    return inter / (a.prod(axis=-1)[:, None] + b.prod(axis=-1)[None] - inter)


class YOLOv2(AnchorLoss):
    """The loss of YOLOv2: L = mean over samples of lambda_coord (centre + size) + lambda_obj object
    + lambda_noobj no_object + lambda_class class, with anchors.

    y (B (5 + K), S_h, S_w, N): for each of the B anchors of a cell t_x, t_y, t_w, t_h, t_o, and K
    logits of classes; s(t_o) is the confidence. r = 1 for the box that an object belongs to, e = 1
    for a box that belongs to no object and has an IoU of at most `threshold` with every object. The
    sums over all boxes, with the target's values t':

        centre     r (2 - w' h') / 2 ((s(t_x) - x')^2 + (s(t_y) - y')^2)
        size       r (2 - w' h') / 2 ((t_w - t_w')^2 + (t_h - t_h')^2)
        object     r / 2 (s(t_o) - IoU)^2
        no_object  e / 2 s(t_o)^2
        class      -r log softmax(z)[class]

    The factor 2 - w' h' makes small boxes count more. The IoU counts as a constant in the gradient.
    The paper does not write the loss; these are the terms of Darknet, which also draws the boxes to
    the anchors in the first 12,800 images: that is left out.

    Args:
        anchors: pairs (width, height), as fractions of the image; xpnet.vision.kmeans_anchors finds
            them.
        classes: K, or the names of the classes.
        lambda_coord: factor of centre and size.
        lambda_obj: factor of object.
        lambda_noobj: factor of no_object.
        lambda_class: factor of class.
        threshold: a box without an object does not count in no_object if its IoU with some object
            is larger.
        rescore: False for the target 1 of s(t_o) in place of the IoU.
        reduction: "sum" does not divide by N.

    Redmon and Farhadi 2017.
    """

    def __init__(self, anchors: Any, classes: int | Sequence[str], *, lambda_coord: float = 1.0,
                 lambda_obj: float = 5.0, lambda_noobj: float = 1.0, lambda_class: float = 1.0,
                 threshold: float = 0.6, rescore: bool = True, reduction: str = "mean") -> None:
        self.set_classes(classes)
        self.set_anchors(anchors, None)
        self.set_factors(lambda_coord, lambda_obj, lambda_noobj, lambda_class, threshold)
        self.rescore = self.expect_flag("rescore", rescore)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def centre(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        return self.confidence(xp, z, t)

    def confidence(self, xp: Any, z: Array, t: Any) -> tuple[Array, Array]:
        s, other, *_ = sigmoid_parts(xp, z)
        off = s - t
        return 0.5 * off * off, off * s * other

    def of_classes(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        shifted = z - z.max(axis=1, keepdims=True)
        e = xp.exp(shifted)
        total = e.sum(axis=1, keepdims=True)
        f = (t * (xp.log(total) - shifted)).sum(axis=1, keepdims=True)
        return f, e / total - t

    def probabilities(self, xp: Any, z: Array) -> Array:
        e = xp.exp(z - z.max(axis=1, keepdims=True))
        return e / e.sum(axis=1, keepdims=True)

    def goal(self, xp: Any, iou: Array) -> Array:
        return iou if self.rescore else xp.ones_like(iou)


class YOLOv3(AnchorLoss):
    """The loss of YOLOv3: L = mean over samples of lambda_coord (centre + size) + lambda_obj object
    + lambda_noobj no_object + lambda_class class, with logistic scores.

    y (B (5 + K), S_h, S_w, N): for each of the B anchors of a cell t_x, t_y, t_w, t_h, t_o, and K
    logits, one for each class by itself: an object may have several classes in other data sets. r =
    1 for the box that an object belongs to, e = 1 for a box that belongs to no object and has an
    IoU of at most `threshold` with every object. With b(z, t) = -t log s(z) - (1 - t) log(1 -
    s(z)), the sums over all boxes are

        centre     r (2 - w' h') a (b(t_x, x'') + b(t_y, y''))
        size       r (2 - w' h') / 2 ((t_w - t_w')^2 + (t_h - t_h')^2)
        object     r b(t_o, 1)
        no_object  e b(t_o, 0)
        class      r sum over k of b(z[k], 1 for the class, else 0)

    so that dy is the prediction minus the target in each, as the paper says. A network with several
    outputs has a loss for each: all of them know all anchors, and an object belongs to the output
    that has its anchor.

    A centre on the edge of its cell needs t_x = +-infinity. With a = `scale_xy` above 1, as in
    YOLOv4, x = (a s(t_x) - (a - 1) / 2 + j) / S_w reaches beyond the edges, and so does y. With
    x'' = (x' + (a - 1) / 2) / a the derivative a (s(t_x) - x'') is still the predicted position in
    the cell minus the target x'. If a = 1, x'' = x'.

    Args:
        anchors: pairs (width, height), as fractions of the image, of all outputs;
            xpnet.vision.kmeans_anchors finds them.
        classes: K, or the names of the classes.
        mask: the numbers of the anchors that this output has; by default all.
        scale_xy: a, 1 or larger; `scale_x_y` of Darknet.
        lambda_coord: factor of centre and size.
        lambda_obj: factor of object.
        lambda_noobj: factor of no_object.
        lambda_class: factor of class.
        threshold: a box without an object does not count in no_object if its IoU with some object
            is larger.
        reduction: "sum" does not divide by N.

    Redmon and Farhadi 2018, section 2. `scale_xy`: Bochkovskiy et al. 2020, section 4.3.
    """

    def __init__(self, anchors: Any, classes: int | Sequence[str], *, mask: Any = None,
                 scale_xy: float = 1.0, lambda_coord: float = 1.0, lambda_obj: float = 1.0,
                 lambda_noobj: float = 1.0, lambda_class: float = 1.0, threshold: float = 0.5,
                 reduction: str = "mean") -> None:
        self.set_classes(classes)
        self.set_anchors(anchors, mask)
        self.scale_xy = self.expect_number("scale_xy", scale_xy, 1)
        self.set_factors(lambda_coord, lambda_obj, lambda_noobj, lambda_class, threshold)
        self.reduction = self.expect_reduction(reduction, batch=False)

    def centre(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        a = self.scale_xy
        t = (t + 0.5 * (a - 1.0)) * (1.0 / a)
        f, slope = of_logits(xp, z, t, 1.0 - t)
        return a * f, a * slope

    def confidence(self, xp: Any, z: Array, t: Any) -> tuple[Array, Array]:
        return of_logits(xp, z, t, 1.0 - t)

    def of_classes(self, xp: Any, z: Array, t: Array) -> tuple[Array, Array]:
        return of_logits(xp, z, t, 1.0 - t)

    def probabilities(self, xp: Any, z: Array) -> Array:
        return sigmoid_parts(xp, z)[0]

    def goal(self, xp: Any, iou: Array) -> Array:
        return xp.ones_like(iou)
