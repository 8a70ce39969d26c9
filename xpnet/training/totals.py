"""Sums of losses and hits over the batches of an epoch, kept on the backend."""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array
from xpnet.losses import Loss
from xpnet.training.goals import Goal

SUMS = 5        # of each output: losses, hits, samples, ignored samples, padding


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

    def add(self, losses: Sequence[Array], ys: Sequence[Array], targets: Sequence[Array],
            masks: Sequence[Array | None]) -> None:
        """Add a batch: the loss, the value that it was computed of, the targets, and which steps
        are real, by output."""
        for sums, loss, y, target, mask in zip(self.sums, losses, ys, targets, masks, strict=True):
            sums.add(loss, y, target, mask)

    def write(self, table: Array) -> None:
        """Write the sums to an array (outputs, SUMS) of the backend."""
        for sums, row in zip(self.sums, table, strict=True):
            for a, place in sums.parts(row):
                place[...] = a

    def add_table(self, table: Array) -> None:
        """Add sums as `write` writes them."""
        for sums, row in zip(self.sums, table, strict=True):
            for a, more in sums.parts(row):
                a += more

    def values(self) -> list[np.ndarray]:
        """The sums of each output, on the host."""
        return [sums.values() for sums in self.sums]

    def result(self, before: Sequence[np.ndarray] = ()) -> dict[str, float]:
        """The figures of all batches, or of those since `values` returned `before`."""
        before = before or [np.zeros(SUMS)] * len(self.sums)
        results = [sums.result(then) for sums, then in zip(self.sums, before, strict=True)]
        if len(results) == 1:
            return results[0]
        total = sum(goal.weight * result["loss"] for goal, result in zip(self.goals, results))
        return {"loss": total} | {f"{goal.name}_{figure}": value
                                  for goal, result in zip(self.goals, results)
                                  for figure, value in result.items()}


class OutputTotals:
    """Sums of loss and hits of one output, weighted by the sizes of the batches.

    Each place of a map counts. Targets that the loss ignores are neither hits nor misses. Of
    sequences of different lengths the real steps count: a mean loss is weighted by their number. If
    the loss is NaN, the accuracy is NaN, too.
    """

    def __init__(self, backend: Backend, loss: Loss) -> None:
        self.backend, self.classes = backend, loss.counts_hits
        self.ignored_label = loss.ignore_index
        self.mean = loss.reduction == "mean"
        self.sums = backend.zeros((3,), np.float64)         # loss, hits, samples
        self.ignored = backend.zeros((1,), np.float64)      # samples
        self.padding = backend.zeros((1,), np.float64)      # samples

    def reset(self) -> None:
        for sums in (self.sums, self.ignored, self.padding):
            sums.fill(0)

    def add(self, loss: Array, y: Array, target: Array, mask: Array | None = None) -> None:
        """Add a batch; the mask (T, N) says which steps are real."""
        labels, counted = target.ndim < y.ndim, None
        if self.classes:
            y, target = y.reshape(len(y), -1), target.reshape(-1) if labels else target.reshape(
                len(y), -1)                                                 # (K, P), (P,) or (K, P)
        if mask is not None:
            counted, real = mask.reshape(-1), mask.sum(dtype=np.float64)
            self.padding += y.shape[-1] - real * (y.shape[-1] / mask.size)
            loss = loss * (real / mask.size).astype(loss.dtype) if self.mean else loss
        if not self.classes:
            self.backend.tally(self.sums, loss, y, None)
            return
        if labels and self.ignored_label is not None:
            ignored = target == self.ignored_label
            ignored = ignored if counted is None else ignored & counted
            self.ignored += ignored.sum()
            target = self.backend.xp.where(ignored, -1, target)
        if counted is not None:
            right = target if labels else self.backend.argmax(target, 0)
            target = self.backend.xp.where(counted, right, -1)
        self.backend.tally(self.sums, loss, y, target)

    def parts(self, row: Array) -> Iterator[tuple[Array, Array]]:
        """The arrays of the sums, each with its place in a row (SUMS,)."""
        return zip((self.sums, self.ignored, self.padding), (row[:3], row[3:4], row[4:]),
                   strict=True)

    def values(self) -> np.ndarray:
        """(5,): sums of losses, hits, samples, ignored samples and padding."""
        return np.concatenate([self.backend.to_numpy(a)
                               for a in (self.sums, self.ignored, self.padding)])

    def restore(self, values: np.ndarray) -> None:
        """Go on with what `values` returned."""
        for a, value in self.parts(self.backend.asarray(values)):
            a[...] = value

    def result(self, before: np.ndarray | float = 0.0) -> dict[str, float]:
        loss, hits, count, ignored, padding = self.values() - before
        loss = loss / (count - padding if self.mean else count)
        if not self.classes:
            return {"loss": float(loss)}
        known = count - padding - ignored
        some = known and not math.isnan(loss)       # of scores that are NaN none is the largest
        return {"loss": float(loss), "accuracy": float(hits / known) if some else math.nan}
