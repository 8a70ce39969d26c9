"""Metrics: plain functions of a network's predictions and the targets, batch-first NumPy arrays.

For classes the targets are labels (N,) or (N, H, W). Predictions are labels like them, or scores
(N, K) or (N, K, H, W), of which the largest counts, the first of equal ones. Each position of a
feature map counts. Targets that are `ignore_index` do not.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import (
    expect_choice,
    expect_integer,
    expect_label,
    expect_positive,
    finite_array,
    is_integer,
    items,
    real_array,
    wrong,
)
from xpnet.tables import html_table, table

__all__ = [
    "accuracy", "confusion_matrix", "f1_score", "mean_iou", "precision", "psnr", "recall", "report",
    "ssim", "top_k_accuracy",
]

MOST_CLASSES = 2**14        # their confusion matrix takes 2 GiB


# --- classes --------------------------------------------------------------------------------------

def accuracy(y: Any, target: Any, *, ignore_index: int | None = None) -> float:
    """Accuracy: A = number of correct predictions / number of targets.

    NaN if there are no targets.
    """
    found, right, _ = _labels("accuracy", y, target, ignore_index)
    return float((found == right).mean()) if right.size else np.nan


def top_k_accuracy(y: Any, target: Any, k: int = 5, *, ignore_index: int | None = None) -> float:
    """Top-k accuracy: A = number of targets among the k largest scores / number of targets
    (Russakovsky et al. 2015).

    y (N, K) or (N, K, H, W) are scores. Of equal scores the first class comes first, so that k = 1
    is `accuracy`. NaN if there are no targets.
    """
    _, right, classes = _labels("top_k_accuracy", y, target, ignore_index)
    scores, target = np.asarray(y), np.asarray(target)
    if scores.ndim == target.ndim:
        raise ValueError("top_k_accuracy: expected scores of shape (N, K, ...). "
                         f"Received: shape {scores.shape}.")
    k = expect_integer("top_k_accuracy", "k", k, 1, classes)
    known = ... if ignore_index is None else target != ignore_index
    rows = np.moveaxis(scores, 1, -1)[known].reshape(-1, classes)  # (P, K)
    own = np.take_along_axis(rows, right[:, None], axis=1)  # (P, 1)
    before = (rows > own) | ((rows == own) & (np.arange(classes) < right[:, None]))
    return float((before.sum(axis=1) < k).mean()) if right.size else np.nan


def confusion_matrix(y: Any, target: Any, *, classes: int | None = None,
                     ignore_index: int | None = None
                     ) -> np.ndarray:
    """Confusion matrix: C[i, j] = number of targets i that were predicted to be j (Kohavi and
    Provost 1998).

    (K, K) int64.

    Args:
        classes: K; by default the number of scores, or for labels one more than the largest.
    """
    found, right, there = _labels("confusion_matrix", y, target, ignore_index)
    if there > MOST_CLASSES:
        raise ValueError(f"confusion_matrix: expected at most {MOST_CLASSES} classes. "
                         f"Received: labels up to {there - 1}.")
    K = there if classes is None else expect_integer(
        "confusion_matrix", "classes", classes, there, MOST_CLASSES)
    return np.bincount(right * K + found, minlength=K * K).reshape(K, K)


def precision(y: Any, target: Any, *, average: str | None = "macro", classes: int | None = None,
              ignore_index: int | None = None) -> Any:
    """Precision: P[k] = TP[k] / (TP[k] + FP[k]), the fraction of the predictions k that are correct
    (Kent et al. 1955).

    A class that is never predicted has 0. A class that is neither predicted nor among the targets
    has NaN, and the mean leaves it out.

    Args:
        average: "macro" is the mean over the classes; "micro" uses the sums over all classes, which
            gives the accuracy; None returns K numbers.
    """
    hits, found, right = _counts(y, target, classes, ignore_index)
    return _average("precision", average, hits, found, found + right > 0)


def recall(y: Any, target: Any, *, average: str | None = "macro", classes: int | None = None,
           ignore_index: int | None = None) -> Any:
    """Recall: R[k] = TP[k] / (TP[k] + FN[k]), the fraction of the targets k that are found (Kent et
    al. 1955).

    A class that is predicted but not among the targets has 0. A class that is neither predicted nor
    among the targets has NaN, and the mean leaves it out. `average` as in `precision`.
    """
    hits, found, right = _counts(y, target, classes, ignore_index)
    return _average("recall", average, hits, right, found + right > 0)


def f1_score(y: Any, target: Any, *, average: str | None = "macro", classes: int | None = None,
             ignore_index: int | None = None) -> Any:
    """F1 score: F[k] = 2 TP[k] / (2 TP[k] + FP[k] + FN[k]), the harmonic mean of precision and
    recall (Van Rijsbergen 1979).

    A class that is neither predicted nor among the targets has NaN, and the mean leaves it out.
    `average` as in `precision`; "macro" is the mean of the F of the classes, not the F of mean
    precision and mean recall.
    """
    hits, found, right = _counts(y, target, classes, ignore_index)
    return _average("f1_score", average, 2 * hits, found + right, found + right > 0)


def report(y: Any, target: Any, *, names: Sequence[str] | None = None,
           ignore_index: int | None = None) -> Report:
    """Precision, recall, F1 score and the number of targets of each class, their means, and the
    accuracy; see `precision`, `recall` and `f1_score`.

    The result is a table if it is printed or shown in a notebook.

    Args:
        y: predictions: labels or scores, e.g. what `net.predict_proba` returns.
        names: of the classes, in the order of their numbers; by default the numbers.
    """
    listed = None if names is None else items(names)
    if names is not None and not (listed and all(isinstance(name, str) for name in listed)):
        raise wrong("report", "names to be a list of names", "names", names)
    matrix = confusion_matrix(y, target, classes=len(listed) if listed else None,
                              ignore_index=ignore_index)
    K = len(matrix)
    options: dict[str, Any] = {"classes": K, "ignore_index": ignore_index, "average": None}
    total = matrix.sum()
    return Report(tuple(listed or map(str, range(K))), precision(y, target, **options),
                  recall(y, target, **options), f1_score(y, target, **options), matrix.sum(axis=1),
                  float(np.trace(matrix) / total) if total else math.nan)


@dataclass(frozen=True)
class Report:
    """What `report` found; the arrays are (K,)."""

    names: tuple[str, ...]
    precision: np.ndarray
    recall: np.ndarray
    f1_score: np.ndarray
    support: np.ndarray             # number of targets
    accuracy: float

    HEAD = "class", "precision", "recall", "F1", "targets"

    def _lines(self) -> list[tuple[str, ...]]:
        figures = np.stack([self.precision, self.recall, self.f1_score])        # (3, K)
        there = ~np.isnan(figures[0])
        weights = self.support / max(self.support.sum(), 1)
        rows = [*zip(self.names, figures.T, self.support, strict=True)]
        if there.any():
            rows += [("mean", figures[:, there].mean(axis=1), self.support.sum()),
                     ("mean, weighted by targets", (figures[:, there] * weights[there]).sum(axis=1),
                      self.support.sum())]
        return [(name, *(f"{value:.3f}" for value in values), f"{count:,}")
                for name, values, count in rows]

    def table(self) -> str:
        """The table without the accuracy."""
        return "\n".join(table(self.HEAD, self._lines(), left=1))

    def __str__(self) -> str:
        return f"{self.table()}\naccuracy: {self.accuracy:.4f}"

    def _repr_html_(self) -> str:
        return html_table(self.HEAD, self._lines(), left=1,
                          below=[f"accuracy: {self.accuracy:.4f}"])


def mean_iou(y: Any, target: Any, *, average: str | None = "macro", classes: int | None = None,
             ignore_index: int | None = None) -> Any:
    """Mean intersection over union: J = mean over k of TP[k] / (TP[k] + FP[k] + FN[k]) (Everingham
    et al. 2010).

    A class that is neither predicted nor among the targets has NaN, and the mean leaves it out.
    `average` as in `precision`. Long et al. 2015, section 5, divide by the number of classes.
    """
    hits, found, right = _counts(y, target, classes, ignore_index)
    return _average("mean_iou", average, hits, found + right - hits, found + right > 0)


def _labels(who: str, y: Any, target: Any, ignore_index: int | None
            ) -> tuple[np.ndarray, np.ndarray, int]:
    """Predicted and right labels (P,), without ignored ones, and the number of classes."""
    y, target = real_array(y, f"{who}: y"), finite_array(target, f"{who}: targets")
    scores = y.ndim == target.ndim + 1 and y.shape[:1] + y.shape[2:] == target.shape
    if target.ndim == 0 or not (scores or y.shape == target.shape):
        raise ValueError(f"{who}: expected labels like the targets, or scores with the classes as "
                         f"second axis. Received: {y.shape} for targets of {target.shape}.")
    if scores and y.shape[1] < 2:
        raise ValueError(f"{who}: expected scores of two classes or more. Received: shape "
                         f"{y.shape}; of a single output, make labels, e.g. y[:, 0] > 0.")
    if np.isnan(y).any():
        raise ValueError(f"{who}: expected predictions that are numbers. Received: NaN among them.")
    ignore_index = expect_label(who, "ignore_index", ignore_index)
    known = slice(None) if ignore_index is None else target != ignore_index
    found, right = (y.argmax(axis=1) if scores else y)[known].ravel(), target[known].ravel()
    for labels, what in ((found, "predictions"), (right, "targets")):
        if labels.size and (labels.min() < 0 or (labels != labels.astype(np.int64)).any()):
            raise ValueError(f"{who}: expected {what} to be labels, whole numbers from 0 on. "
                             f"Received: values from {labels.min()} to {labels.max()}.")
    most = max((int(labels.max()) for labels in (found, right) if labels.size), default=-1)
    if scores and most >= y.shape[1]:
        raise ValueError(f"{who}: expected targets from 0 to {y.shape[1] - 1}. Received: {most}.")
    return found.astype(np.int64), right.astype(np.int64), y.shape[1] if scores else most + 1


def _counts(y: Any, target: Any, classes: int | None, ignore_index: int | None
            ) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """For each class: correct predictions, predictions, targets."""
    C = confusion_matrix(y, target, classes=classes, ignore_index=ignore_index)
    return np.diagonal(C), C.sum(axis=0), C.sum(axis=1)


def _average(who: str, average: str | None, above: np.ndarray, below: np.ndarray,
             there: np.ndarray) -> Any:
    """above / below, 0 where below is 0, NaN for classes that do not occur; averaged."""
    average = expect_choice(who, "average", average, ("macro", "micro", None))
    if not there.any():
        return np.full(there.shape, np.nan) if average is None else np.nan
    if average == "micro":
        return float(above.sum() / below.sum())
    share = np.where(there, above / np.maximum(below, 1), np.nan)
    return share if average is None else float(share[there].mean())


# --- images ---------------------------------------------------------------------------------------

@np.errstate(under="ignore")
def psnr(y: Any, target: Any, *, data_range: float | None = None) -> float:
    """Peak signal-to-noise ratio: PSNR = mean over N of 10 log10(data_range^2 / mean of (y - t)^2).

    In decibels, for images (N, ...) of any shape. Infinite if two images are equal.

    Args:
        data_range: the largest value that a pixel can have. By default 255 for targets that are
            bytes, and 1 for floats from 0 to 1.

    Raises:
        ValueError: there is no data_range, and the targets are anything else.

    Huynh-Thu and Ghanbari 2008.
    """
    y, target, data_range = _images("psnr", y, target, data_range)
    error = ((y - target) ** 2).reshape(len(y), -1).mean(axis=1)  # (N,)
    with np.errstate(divide="ignore"):
        return float((10 * np.log10(data_range * data_range / error)).mean())


@np.errstate(under="ignore")
def ssim(y: Any, target: Any, *, data_range: float | None = None, kernel_size: int = 11,
         sigma: float = 1.5
         ) -> float:
    """Structural similarity: SSIM = mean of (2 m n + a) (2 s_mn + b) / ((m^2 + n^2 + a) (s_m^2 +
    s_n^2 + b)).

    m and n are the means of the two images (N, ..., H, W) in a Gaussian window, s_m^2, s_n^2 and
    s_mn their variances and covariance there, a = (0.01 data_range)^2, b = (0.03 data_range)^2. The
    mean is over all windows that are entirely inside, channels and samples.

    Args:
        data_range: as in `psnr`.
        kernel_size: rows and columns of the window, odd.
        sigma: standard deviation of the window.

    Wang et al. 2004, eq. 13 to 17.
    """
    y, target, data_range = _images("ssim", y, target, data_range)
    if not is_integer(kernel_size, 1) or kernel_size % 2 == 0:
        raise wrong("ssim", "kernel_size to be an odd int, 1 or larger", "kernel_size", kernel_size)
    sigma = expect_positive("ssim", "sigma", sigma)
    if y.ndim < 3 or min(y.shape[-2:]) < kernel_size:
        raise ValueError(f"ssim: expected images (N, ..., H, W) of {kernel_size} x {kernel_size} "
                         f"pixels or more. Received: shape {y.shape}.")
    bell = np.exp(-0.5 * (np.arange(kernel_size) - kernel_size // 2) ** 2 / sigma ** 2)
    bell /= bell.sum()

    def mean(x: Any) -> Any:
        """Weighted means in all windows, (N, ..., H - kernel_size + 1, W - kernel_size + 1)."""
        rows, columns = x.shape[-2] - kernel_size + 1, x.shape[-1] - kernel_size + 1
        x = sum(w * x[..., k:k + rows, :] for k, w in enumerate(bell))
        return sum(w * x[..., k:k + columns] for k, w in enumerate(bell))

    m, n = mean(y), mean(target)
    variances, covariance = (mean(y * y) - m * m + mean(target * target) - n * n,
                             mean(y * target) - m * n)
    a, b = (0.01 * data_range) ** 2, (0.03 * data_range) ** 2
    return float(
        ((2 * m * n + a) * (2 * covariance + b) / ((m * m + n * n + a) * (variances + b))).mean())


def _images(who: str, y: Any, target: Any, data_range: Any) -> tuple[np.ndarray, np.ndarray, float]:
    """Images as float64, and their data_range."""
    y, target = finite_array(y, f"{who}: y"), finite_array(target, f"{who}: targets")
    if y.shape != target.shape or y.ndim < 2 or y.size == 0:
        raise ValueError(f"{who}: expected images of the targets' shape. "
                         f"Received: shape {y.shape} for targets of shape {target.shape}.")
    if data_range is None and target.dtype == np.uint8:
        data_range = 255
    elif data_range is None and target.dtype.kind == "f":
        low, high = target.min(), target.max()
        if low < 0 or high > 1:
            raise ValueError(f"{who}: expected data_range, the largest value that a pixel can "
                             "have, for targets beyond 0 to 1. "
                             f"Received: data_range=None for targets from {low:g} to {high:g}.")
        data_range = 1
    elif data_range is None:
        raise ValueError(f"{who}: expected data_range, the largest value that a pixel can have. "
                         f"Received: data_range=None for targets of {target.dtype}.")
    return (y.astype(np.float64), target.astype(np.float64),
            expect_positive(who, "data_range", data_range))
