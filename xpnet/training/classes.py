"""Weights of classes, as factors of the samples' weights."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_number, is_integer, items, perhaps, shown, wrong
from xpnet.training.goals import Goal

BALANCED = "balanced"


def class_factors(class_weight: Any, goals: Sequence[Goal], targets: Sequence[np.ndarray],
                  names: Sequence[str] | None = None) -> np.ndarray:
    """The factor of each sample, (N,) float64: the weight of its class. Labels that the loss
    ignores have 1.

    Args:
        class_weight: "balanced", a dict of class numbers or names and weights, or K weights.
        goals: of the network's outputs.
        targets: of the network's outputs, as `check_samples` returns them.
        names: of the classes, if a Dataset has them.
    """
    who = "fit"
    labels = targets[0]
    if len(goals) != 1 or not goals[0].loss.counts_hits or labels.ndim != 1:
        raise ValueError(f"{who}: expected a network with one output and a label for each sample, "
                         "for class_weight; sample_weight takes any factors. Received: targets of "
                         f"shapes {[a.shape for a in targets]} for {goals[0].loss.who}.")
    K, ignored = goals[0].node.shape[0], goals[0].loss.ignore_index
    known = np.ones(len(labels), bool) if ignored is None else labels != ignored
    weights = _weights(who, class_weight, labels[known].astype(np.int64), K, names)
    factors = np.ones(len(labels))
    factors[known] = weights[labels[known].astype(np.int64)]
    return factors


def _weights(who: str, class_weight: Any, labels: np.ndarray, K: int,
             names: Sequence[str] | None) -> np.ndarray:
    """The weight of each class, (K,)."""
    if isinstance(class_weight, str) and class_weight == BALANCED:
        counts = np.bincount(labels, minlength=K)
        return len(labels) / (max(np.count_nonzero(counts), 1) * np.maximum(counts, 1))
    weights = np.ones(K)
    if isinstance(class_weight, Mapping):
        given = set()
        for key, weight in class_weight.items():
            k = _number(who, key, K, names)
            if k in given:
                raise wrong(who, "class_weight to have each class once", "class", key)
            given.add(k)
            weights[k] = expect_number(who, f"class_weight[{key!r}]", weight, 0)
        return weights
    listed = items(class_weight)
    if listed is None or len(listed) != K:
        raise wrong(who, f'class_weight to be "{BALANCED}", a dict of class numbers and weights, '
                    f"or {K} weights", "class_weight", class_weight)
    for k, weight in enumerate(listed):
        weights[k] = expect_number(who, f"class_weight[{k}]", weight, 0)
    return weights


def _number(who: str, key: Any, K: int, names: Sequence[str] | None) -> int:
    """The number of a class that a key of a dict means."""
    if isinstance(key, str) and names is not None:
        if key in names[:K]:
            return names.index(key)
        raise wrong(who, "class_weight to have names of classes"
                    + (perhaps(key, names) or f" among {shown(names)}"), "class", key)
    if not is_integer(key, 0) or key >= K:
        remedy = ("; names are known for a Dataset with classes" if isinstance(key, str) else "")
        raise wrong(who, f"class_weight to have classes from 0 to {K - 1}{remedy}", "class", key)
    return int(key)
