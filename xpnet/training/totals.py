"""Sums of losses and hits over the batches of an epoch, kept on the backend."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array
from xpnet.losses import Loss
from xpnet.training.goals import Goal


class Totals:
    """Sums over batches for every output, without a synchronisation for a batch.

    Of one output the figures are `loss` and, for classes, `accuracy`. Of several, `loss` is the
    weighted sum of the losses, and each output has figures of its own, `name_loss` and
    `name_accuracy`.
    """

    def __init__(self, backend: Backend, goals: Sequence[Goal]) -> None:
        self.backend, self.goals = backend, goals
        self.sums = [OutputTotals(backend, goal.loss) for goal in goals]

    def reset(self) -> None:
        for sums in self.sums:
            sums.reset()

    def add(self, losses: Sequence[Array], ys: Sequence[Array], targets: Sequence[Array]) -> None:
        """Add a batch: the loss, the value that it was computed of, and the targets, by output."""
        for sums, loss, y, target in zip(self.sums, losses, ys, targets, strict=True):
            sums.add(loss, y, target)

    def values(self) -> list[np.ndarray]:
        """The sums of each output, on the host."""
        return [sums.values() for sums in self.sums]

    def result(self, before: Sequence[np.ndarray] = ()) -> dict[str, float]:
        """The figures of all batches, or of those since `values` returned `before`."""
        before = before or [np.zeros(4)] * len(self.sums)
        results = [sums.result(then) for sums, then in zip(self.sums, before, strict=True)]
        if len(results) == 1:
            return results[0]
        total = sum(goal.weight * result["loss"] for goal, result in zip(self.goals, results))
        return {"loss": total} | {f"{goal.name}_{figure}": value
                                  for goal, result in zip(self.goals, results)
                                  for figure, value in result.items()}


class OutputTotals:
    """Sums of loss and hits of one output, weighted by the sizes of the batches.

    Each place of a map counts. Targets that the loss ignores are neither hits nor misses. If the
    loss is NaN, the accuracy is NaN, too.
    """

    def __init__(self, backend: Backend, loss: Loss) -> None:
        self.backend, self.classes = backend, loss.counts_hits
        self.ignored_label = loss.ignore_index
        self.sums = backend.zeros((3,), np.float64)         # loss, hits, samples
        self.ignored = backend.zeros((1,), np.float64)      # samples

    def reset(self) -> None:
        self.sums.fill(0)
        self.ignored.fill(0)

    def add(self, loss: Array, y: Array, target: Array) -> None:
        if not self.classes:
            self.backend.tally(self.sums, loss, y, None)
            return
        labels = target.ndim < y.ndim
        target = target.reshape(-1) if labels else target.reshape(len(y), -1)   # (P,) or (K, P)
        if labels and self.ignored_label is not None:
            ignored = target == self.ignored_label
            self.ignored += ignored.sum()
            target = self.backend.xp.where(ignored, -1, target)
        self.backend.tally(self.sums, loss, y.reshape(len(y), -1), target)

    def values(self) -> np.ndarray:
        """(4,): sums of losses, hits, samples and ignored samples."""
        return np.concatenate([self.backend.to_numpy(self.sums),
                               self.backend.to_numpy(self.ignored)])

    def result(self, before: np.ndarray | float = 0.0) -> dict[str, float]:
        loss, hits, count, ignored = self.values() - before
        if not self.classes:
            return {"loss": float(loss / count)}
        known = count - ignored
        some = known and not math.isnan(loss)       # of scores that are NaN none is the largest
        return {"loss": float(loss / count), "accuracy": float(hits / known) if some else math.nan}
