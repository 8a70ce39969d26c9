"""Splits of a data set: seeded, the same on every platform, and with the proportions of the
classes."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np


def split(who: str, labels: np.ndarray | None, count: int, share: float, seed: int, *,
          names: Sequence[str] | None = None, ignored: int | None = None
          ) -> tuple[np.ndarray, np.ndarray]:
    """Positions of the samples that stay and of those that are split off, both increasing.

    About `share` of the samples are split off: `round(share * count)`, of each class with n samples
    floor(share * n) or one more.

    Each sample has a random key of 64 bits, and those with the smallest keys of their class are
    split off. The keys are the raw output of PCG64, which NumPy guarantees to stay the same (NEP
    19); the methods of its generators may change.

    Args:
        names: of the classes, for errors.
        ignored: a label that is no class.

    Raises:
        ValueError: a class would be missing in one of the parts, or without labels everything.
    """
    keys = np.random.PCG64(seed).random_raw(count)
    labels = np.zeros(count, np.int64) if labels is None else labels
    classes, groups = np.unique(labels, return_inverse=True)
    order = np.lexsort((keys, groups))                  # by class, then by key
    sizes = np.bincount(groups)
    taken = apportion(sizes, share)
    lost = np.flatnonzero(((taken == 0) | (taken == sizes)) & (classes != ignored))
    if len(lost):
        k = lost[0]
        what = "validation" if taken[k] == 0 else "training"
        lacks = ("no samples" if len(classes) == 1 and names is None else "no sample of "
                 f"{names[classes[k]] if names else int(classes[k])!r}, which has {sizes[k]}")
        raise ValueError(f"{who}: expected a share that leaves samples of each class in both "
                         f"parts. Received: validation={share:g}, which gives {what} {lacks}.")
    starts = np.cumsum(sizes) - sizes
    rank = np.arange(count) - starts[groups[order]]     # of each sample in its class
    off = order[rank < taken[groups[order]]]
    stays = np.ones(count, bool)
    stays[off] = False
    return np.flatnonzero(stays), np.sort(off)


def apportion(sizes: np.ndarray, share: float) -> np.ndarray:
    """How many of each class: floor(share * size), and one more for the largest remainders, the
    first of equal ones, so that the sum is round(share * sum of sizes)."""
    exact = share * sizes
    taken = np.floor(exact).astype(np.int64)
    missing = round(share * int(sizes.sum())) - int(taken.sum())
    largest = np.argsort(taken - exact, kind="stable")      # the remainders, negated
    taken[largest[:max(missing, 0)]] += 1
    return taken
