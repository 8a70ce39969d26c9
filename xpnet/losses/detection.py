"""Losses of networks that find objects on a grid: YOLO (Redmon et al. 2016), the first version.

The targets of all versions are the objects of each sample, rows of

    class number, x, y, w, h        centre and size as fractions of the image's width and height

as in Darknet's label files: (N, M, 5). A sample with fewer than M objects has rows with the class
-1 at the end; xpnet.vision.detection_targets makes them. The network's output (D, S_h, S_w) divides
the image into cells, which are numbered from the top left.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import expect_class_names, finite_array, is_integer
from xpnet.layer import Array, Shape
from xpnet.losses.base import Loss
from xpnet.losses.boxes import corners, iou_of

COLUMNS = 5                 # of a row: class, x, y, w, h
MOST_CLASSES = 2**16


class Predictions(NamedTuple):
    """What a network predicts, batch-last, for B boxes of each cell."""

    boxes: Array            # (4, B, S_h, S_w, N): x1, y1, x2, y2 as fractions of the image
    confidence: Array       # (B, S_h, S_w, N)
    classes: Array          # (K, B or 1, S_h, S_w, N), probabilities


class DetectionLoss(Loss):
    """Base class of the losses for objects on a grid: L = mean over samples of a sum of terms.

    A subclass has a constructor that calls `set_classes`, and writes `channels`, `encoded`,
    `cell_parts` and `predictions`.
    """

    of_places = False
    classes: Any
    K: int                  # number of classes

    def set_classes(self, classes: Any) -> None:
        """Set `classes`, a number or names, and K."""
        self.classes = (self.expect_integer("classes", classes, 1, MOST_CLASSES)
                        if is_integer(classes) else expect_class_names(self.who, classes))
        self.K = self.classes if isinstance(self.classes, int) else len(self.classes)

    @property
    def names(self) -> tuple[str, ...]:
        """The names of the classes; without names their numbers."""
        return (tuple(map(str, range(self.K))) if isinstance(self.classes, int)
                else tuple(self.classes))

    @property
    def channels(self) -> int:
        """D, the number of channels that the network's output must have."""
        raise NotImplementedError(f"{self.who}: expected a property channels.")

    def encoded(self, rows: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """The targets (N, ...) of rows (N, M, 5), for a grid of (S_h, S_w) cells."""
        raise NotImplementedError(f"{self.who}: expected a method encoded(rows, grid).")

    def cell_parts(self, backend: Backend, y: Array, target: Array
                   ) -> tuple[dict[str, Array], Array]:
        """The terms of the loss by name in each cell, (S_h, S_w, N), and the gradient of their sum.
        """
        raise NotImplementedError(f"{self.who}: expected a method cell_parts(backend, y, target).")

    def parts(self, backend: Backend, y: Array, target: Array) -> tuple[dict[str, Array], Array]:
        """The terms of the loss by name, each (N,), and the gradient of their sum."""
        found, dy = self.cell_parts(backend, y, target)
        return {name: term.sum(axis=(0, 1)) for name, term in found.items()}, dy

    def predictions(self, xp: Any, y: Array) -> Predictions:
        """The boxes that the output y (D, S_h, S_w, N) describes."""
        raise NotImplementedError(f"{self.who}: expected a method predictions(xp, y).")

    def expect_grid(self, out_shape: Shape) -> tuple[int, int]:
        """(S_h, S_w) of the network's output. Raises ValueError for another number of channels."""
        if len(out_shape) != 3 or out_shape[0] != self.channels:
            raise ValueError(f"{self.who}: expected a network whose output is ({self.channels}, "
                             f"rows, columns). Received: output shape {out_shape}.")
        return out_shape[1], out_shape[2]

    def targets(self, target: Any, out_shape: Shape, dtype: np.dtype) -> np.ndarray:
        grid = self.expect_grid(out_shape)
        rows = finite_array(target, f"{self.who}: targets")
        if rows.ndim != 3 or rows.shape[2] != COLUMNS:
            raise ValueError(f"{self.who}: expected targets of shape (N, M, 5): class, x, y, w, h "
                             f"of M objects. Received: shape {rows.shape}.")
        there = rows[rows[..., 0] >= 0]                                     # (objects, 5)
        labels, centres, sizes = rows[..., 0], there[:, 1:3], there[:, 3:]
        if labels.size and (labels.min() < -1 or labels.max() >= self.K
                            or (labels != np.floor(labels)).any()):
            raise ValueError(f"{self.who}: expected class numbers from 0 to {self.K - 1}, or -1 "
                             f"for no object. Received: numbers from {labels.min():g} to "
                             f"{labels.max():g}.")
        if len(there) and not (centres.min() >= 0 and centres.max() <= 1
                               and sizes.min() > 0 and sizes.max() <= 1):
            raise ValueError(f"{self.who}: expected centres from 0 to 1, and sizes above 0, 1 at "
                             "most, as fractions of the image. Received: centres from "
                             f"{centres.min():g} to {centres.max():g}, sizes from "
                             f"{sizes.min():g} to {sizes.max():g}.")
        return self.encoded(rows, grid).astype(dtype, copy=False)

    def terms(self, backend: Backend, y: Array, target: Array) -> tuple[Array, Array, Any]:
        found, dy = self.parts(backend, y, target)
        return sum(found.values()), dy, y.shape[-1]


class YOLOv1(DetectionLoss):
    """The loss of YOLO: L = mean over samples of lambda_coord (centre + size) + object +
    lambda_noobj no_object + class, five sums of squares (Redmon et al. 2016, eq. 3).

    y (5 B + K, S_h, S_w, N): for each of the B predictors of a cell x, y, the square roots of w and
    h, and the confidence C; then the probabilities p of the classes. x and y are the place of the
    centre in its cell, from 0 to 1, w and h fractions of the image. The cell that contains the
    centre of an object has to find it. Of its predictors, the one whose box has the largest IoU
    with the object is responsible: r = 1 for it, 0 for all others. o = 1 for the cells of objects.
    With targets t, the sums are over all cells, predictors and classes:

        centre     r ((x - t_x)^2 + (y - t_y)^2)
        size       r ((sqrt(w) - sqrt(t_w))^2 + (sqrt(h) - sqrt(t_h))^2)
        object     r (C - IoU)^2
        no_object  (1 - r) C^2
        class      o (p - t_p)^2

    The network predicts the roots, so that the same error of w costs more in a small box, and every
    term is quadratic: dy is 2 (y - t), times r and the factor lambda, / N. The IoU counts as a
    constant. If all boxes of a cell have IoU 0, the one with the smallest distance in
    (x, y, w, h), in fractions of the image, is responsible, as in Darknet. Of several objects in
    one cell the first counts.

    Args:
        classes: K, or the names of the classes.
        boxes: B, the predictors of a cell.
        lambda_coord: factor of centre and size.
        lambda_noobj: factor of no_object.
        rescore: False for the target 1 of C in place of the IoU.
        reduction: "sum" does not divide by N.
    """

    def __init__(self, classes: int | Sequence[str], boxes: int = 2, *, lambda_coord: float = 5.0,
                 lambda_noobj: float = 0.5, rescore: bool = True, reduction: str = "mean") -> None:
        self.set_classes(classes)
        self.boxes = self.expect_integer("boxes", boxes, 1, 2**10)
        self.lambda_coord = self.expect_number("lambda_coord", lambda_coord, 0)
        self.lambda_noobj = self.expect_number("lambda_noobj", lambda_noobj, 0)
        self.rescore = self.expect_flag("rescore", rescore)
        self.reduction = self.expect_reduction(reduction, batch=False)

    @property
    def channels(self) -> int:
        return 5 * self.boxes + self.K

    def encoded(self, rows: np.ndarray, grid: tuple[int, int]) -> np.ndarray:
        """(N, 5, S_h, S_w): the class or -1, x and y in the cell, the roots of w and h."""
        t = np.zeros((len(rows), 5, *grid))
        t[:, 0] = -1
        for n, m, i, j, x, y in cells_of(rows, grid):
            if t[n, 0, i, j] < 0:
                t[n, :, i, j] = rows[n, m, 0], x, y, *np.sqrt(rows[n, m, 3:])
        return t

    def _corners(self, xp: Any, x: Array, y: Array, root_w: Array, root_h: Array
                 ) -> tuple[Array, ...]:
        cx, cy = in_image(xp, x, y)
        return corners(cx, cy, root_w * root_w, root_h * root_h)

    def cell_parts(self, backend: Backend, y: Array, target: Array
                   ) -> tuple[dict[str, Array], Array]:
        xp, B, (S_h, S_w, N) = backend.xp, self.boxes, y.shape[1:]
        z, p = y[:5 * B].reshape(B, 5, S_h, S_w, N), y[5 * B:]
        here = (target[0] >= 0).astype(y.dtype)                             # o, (S_h, S_w, N)
        place, confidence = z[:, :4], z[:, 4]
        iou = iou_of(xp, self._corners(xp, *(place[:, k] for k in range(4))),
                     self._corners(xp, *target[1:]))                        # (B, S_h, S_w, N)
        far = ((z[:, 0] - target[1]) * (1.0 / S_w))**2 + ((z[:, 1] - target[2]) * (1.0 / S_h))**2
        far = far + (z[:, 2]**2 - target[3]**2)**2 + (z[:, 3]**2 - target[4]**2)**2
        r = here * best_of(xp, xp.where(iou > 0, iou, -far))                # (B, S_h, S_w, N)
        off = r[:, None] * (place - target[1:])                             # (B, 4, S_h, S_w, N)
        unsure = r * (confidence - (iou if self.rescore else 1.0))
        false = (1.0 - r) * confidence
        known = (xp.arange(self.K).reshape(-1, 1, 1, 1) == target[0]).astype(y.dtype)
        wrong = here * (p - known)                                          # (K, S_h, S_w, N)

        def sums(a: Array) -> Array:
            return (a * a).reshape(-1, S_h, S_w, N).sum(axis=0)

        found = {"centre": self.lambda_coord * sums(off[:, :2]),
                 "size": self.lambda_coord * sums(off[:, 2:]), "object": sums(unsure),
                 "no_object": self.lambda_noobj * sums(false), "class": sums(wrong)}
        dy = backend.empty(y.shape, y.dtype)
        dz = dy[:5 * B].reshape(z.shape)
        dz[:, :4] = (2.0 * self.lambda_coord) * off
        dz[:, 4] = 2.0 * unsure + (2.0 * self.lambda_noobj) * false
        dy[5 * B:] = 2.0 * wrong
        return found, dy

    def predictions(self, xp: Any, y: Array) -> Predictions:
        z = y[:5 * self.boxes].reshape(self.boxes, 5, *y.shape[1:])
        boxes = xp.stack(self._corners(xp, *(z[:, k] for k in range(4))))
        return Predictions(boxes, z[:, 4], y[5 * self.boxes:, None])


def cells_of(rows: np.ndarray, grid: tuple[int, int]
             ) -> Iterator[tuple[int, int, int, int, float, float]]:
    """(n, m, i, j, x, y) for each object in order: rows[n, m], in cell (i, j) at the place (x, y),
    from 0 to 1."""
    S_h, S_w = grid
    for n, m in np.argwhere(rows[..., 0] >= 0).tolist():
        x, y = float(rows[n, m, 1]) * S_w, float(rows[n, m, 2]) * S_h
        j, i = min(int(x), S_w - 1), min(int(y), S_h - 1)   # a centre on the right or lower edge
        yield n, m, i, j, x - j, y - i


def in_image(xp: Any, x: Array, y: Array) -> tuple[Array, Array]:
    """Places in their cells (..., S_h, S_w, N) as fractions of the image."""
    S_h, S_w = x.shape[-3:-1]
    columns = xp.arange(S_w).astype(x.dtype).reshape(-1, 1)
    rows = xp.arange(S_h).astype(x.dtype).reshape(-1, 1, 1)
    return (x + columns) * (1.0 / S_w), (y + rows) * (1.0 / S_h)


def best_of(xp: Any, score: Array) -> Array:
    """1 at the largest along the first axis, the first of equal ones, and 0 elsewhere."""
    best, index = score[0], xp.zeros(score.shape[1:], np.int64)
    for k in range(1, len(score)):
        better = score[k] > best
        best, index = xp.where(better, score[k], best), xp.where(better, k, index)
    numbers = xp.arange(len(score)).reshape(-1, *(1,) * index.ndim)
    return (numbers == index).astype(score.dtype)
