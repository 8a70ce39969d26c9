"""The confusion matrix of a classifier, and its worst mistakes."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_class_names, expect_integer, finite_array, real_array
from xpnet.metrics import confusion_matrix
from xpnet.viz.figure import axes_for, names_of
from xpnet.viz.images import LONGEST, draw_image, expect_image, grid_of

MOST_NUMBERS = 20       # classes for which the numbers are written into the matrix
MIDDLE = 0.5            # of the colours, from which on letters are white


def show_confusion(y: Any, target: Any, *, names: Sequence[str] | None = None, ax: Any = None
                   ) -> Any:
    """A figure of the confusion matrix: row i, column j is the number of targets i that were
    predicted to be j, see xpnet.metrics.confusion_matrix.

    The colour is the part of the row, so that rare classes can be seen, too.

    Args:
        y: predicted labels (N,), or scores (N, K).
        target: labels (N,).
        names: of the classes; by default their numbers.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: y and the target do not fit.
        ImportError: matplotlib is not installed.
    """
    who = "show_confusion"
    C = confusion_matrix(y, target, classes=None if names is None else len(
        expect_class_names(who, names, "names")))
    K = len(C)
    labels = names_of(who, names, K)
    parts = C / np.maximum(C.sum(axis=1, keepdims=True), 1)
    size = min(9.0, max(3.5, 0.42 * K + 1.5))
    axes = axes_for(who, ax, size + 0.8, size)
    drawn = axes.imshow(parts, cmap="Blues", vmin=0, vmax=1)
    axes.figure.colorbar(drawn, ax=axes, shrink=0.8, label="part of the row")
    axes.set_xticks(range(K), labels, rotation=90 if max(map(len, labels)) > 2 else 0,
                    parse_math=False)
    axes.set_yticks(range(K), labels, parse_math=False)
    axes.set_xlabel("predicted")
    axes.set_ylabel("target")
    if K <= MOST_NUMBERS:
        for i, j in zip(*np.nonzero(C)):
            axes.text(j, i, f"{C[i, j]:,}", ha="center", va="center", fontsize=8,
                      color="white" if parts[i, j] > MIDDLE else "black")
    return axes.figure


def show_mistakes(x: Any, y: Any, target: Any, *, most: int = 12,
                  names: Sequence[str] | None = None, columns: int = 6) -> Any:
    """A figure of the samples that were predicted wrongly, the worst first: those whose wrong score
    exceeds the right one by the most.

    The title says the target, and what was predicted instead.

    Args:
        x: images (N, C, H, W) with 1 or 3 channels.
        y: scores or probabilities (N, K).
        target: labels (N,).
        most: the images that are shown.
        names: of the classes; by default their numbers.
        columns: the images of a row.

    Raises:
        ValueError: x, y and the target do not fit, or all predictions are right.
        ImportError: matplotlib is not installed.
    """
    who = "show_mistakes"
    most, columns = expect_integer(who, "most", most), expect_integer(who, "columns", columns)
    wrong, x = worst_mistakes(y, target), real_array(x, f"{who}: x")
    if x.ndim != 4 or len(x) != len(target):
        raise ValueError(f"{who}: expected x of {len(target)} images (N, C, H, W). Received: shape "
                         f"{x.shape}.")
    if not len(wrong):
        raise ValueError(f"{who}: expected a wrong prediction. Received: {len(target)} samples "
                         "that are all predicted rightly.")
    y, target, wrong = np.asarray(y), np.asarray(target), wrong[:most]
    labels = names_of(who, names, y.shape[1])
    figure, axes = grid_of(who, len(wrong), columns, 1.5, 1.9)
    for ax, n in zip(axes, wrong, strict=True):
        right, found = (labels[k][:LONGEST] for k in (int(target[n]), int(y[n].argmax())))
        draw_image(ax, expect_image(who, x[n], f"x[{n}]"), f"{right}, not {found}")
    return figure


def worst_mistakes(y: Any, target: Any) -> np.ndarray:
    """The numbers of the samples whose largest score is not that of the target, in the order of
    max over k of y[n, k] - y[n, target], largest first; of equal ones the first."""
    y = finite_array(y, "show_mistakes: y")
    if y.ndim != 2:
        raise ValueError(f"show_mistakes: expected y of scores (N, K). Received: shape {y.shape}.")
    confusion_matrix(y, target)         # its errors
    target = np.asarray(target).astype(np.int64)
    by = y.max(axis=1) - y[np.arange(len(y)), target]
    order = np.argsort(-by, kind="stable")
    return order[y.argmax(axis=1)[order] != target[order]]
