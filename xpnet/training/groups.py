"""Groups of batches whose gradients are added before one update, as if they were one batch.

The loss of a group is that of one batch with all its samples. A loss with reduction "mean" is
S / n there, sums over the group, where each batch b has S[b] / n[b]:

    S / n = sum over b of (n[b] / n) (S[b] / n[b])

So the gradient of each batch's loss is multiplied by its share n[b] / n. n counts samples, the real
steps of sequences, or what `Loss.divisors` says: weights of labels, or labels that are not ignored.
They are known on the host before a group begins.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.training.batches import Batches
from xpnet.training.datasets import MixedTargets
from xpnet.training.goals import Goal

Span = tuple[int, int]      # the first sample, and the one after the last


class Member(NamedTuple):
    """The place of a batch in its group."""

    first: bool
    last: bool
    shares: tuple[float, ...]       # for each goal: the factor of the gradient of its loss


class Groups:
    """The groups of an epoch.

    Args:
        goals: of the network's outputs.
        targets: of the network's outputs, batch-first on the host.
        size: batches of a group; the last one of an epoch may be smaller.
        lengths: for each goal the numbers of steps (N, 1), or None.
    """

    def __init__(self, goals: Sequence[Goal], targets: Sequence[Any], size: int,
                 lengths: Sequence[np.ndarray | None]) -> None:
        self.goals, self.size = goals, size
        self._divisors = [None if isinstance(target, MixedTargets)      # probabilities
                          else _divisors(goal, target, steps)
                          for goal, target, steps in zip(goals, targets, lengths, strict=True)]

    def member(self, batches: Batches, number: int, count: int) -> Member:
        """The place of batch `number` in an epoch of `count` batches."""
        first, last = self.ends(number, count)
        shares = self.shares(batches, batches.span(number),
                             (batches.span(first)[0], batches.span(last)[1]))
        return Member(number == first, number == last, shares)

    def ends(self, number: int, count: int) -> tuple[int, int]:
        """The first and the last batch of the group of batch `number`."""
        first = number - number % self.size
        return first, min(first + self.size, count) - 1

    def shares(self, batches: Batches, span: Span, whole: Span) -> tuple[float, ...]:
        """For each goal, the share of the samples `span` in those of `whole`."""
        return tuple([self._share(goal, divisors, batches, span, whole)
                      for goal, divisors in zip(self.goals, self._divisors, strict=True)])

    def _share(self, goal: Goal, divisors: np.ndarray | None, batches: Batches,
               span: Span, whole: Span) -> float:
        if goal.loss.reduction == "sum":
            return 1.0
        if divisors is None:
            return (span[1] - span[0]) / (whole[1] - whole[0])
        own, all_of_them = (float(divisors[batches.positions(*part)].sum())
                            for part in (span, whole))
        return own / all_of_them if all_of_them else 0.0    # if nothing counts, L and dy are 0


def _divisors(goal: Goal, target: np.ndarray, lengths: np.ndarray | None) -> np.ndarray | None:
    """What each sample adds to the divisor of the loss, (N,); None if all add the same."""
    if goal.loss.reduction != "mean":
        return None
    places = goal.loss.divisors(target, goal.node.shape)                # (N, ...)
    if lengths is not None:
        real = np.arange(goal.node.shape[-1]) < lengths                 # (N, T)
        if places is None:
            places = real
        else:
            places = np.where(real.reshape(len(real), *(1,) * (places.ndim - 2), -1), places, 0)
    return None if places is None else places.reshape(len(places), -1).sum(axis=1, dtype=np.float64)
