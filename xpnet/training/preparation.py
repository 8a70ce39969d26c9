"""The data of a fit: what it trains on and what it validates on, checked before any work."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import expect_share, is_number
from xpnet.graph import Graph
from xpnet.training.batches import check_samples, check_weights
from xpnet.training.classes import class_factors
from xpnet.training.datasets import MixedTargets, checked_augment, checked_dataset, is_dataset
from xpnet.training.goals import Goal


class Data(NamedTuple):
    """Inputs, targets and perhaps weights, and which of their samples are meant: None for all."""

    arrays: list[Any]
    where: np.ndarray | None = None

    @property
    def samples(self) -> int:
        return len(self.arrays[0]) if self.where is None else len(self.where)


def prepared(net: Graph, x: Any, y: Any, aims: Sequence[Goal], *, lengths: Any, validation: Any,
             augment: Any, sample_weight: Any, class_weight: Any) -> tuple[Data, Data | None]:
    """What to train on, and what to validate on. The arguments are those of `fit`.

    Nothing is copied for a share: arrays are read at other positions, and a Dataset has subsets.
    """
    changes = checked_augment("fit", x, augment)
    names = x.classes if is_dataset(x) else None
    share = expect_share("fit", "validation", validation) if is_number(validation) else None
    if share is not None and is_dataset(x):
        # As subsets, so that an augmentation that mixes samples takes none of the validation.
        x, validation, sample_weight = _divided(net, x, share, sample_weight, aims)
        share = None
    elif validation is None and is_dataset(x):
        validation = x.validation
    arrays = (checked_dataset(net, x, aims, "fit", changes) if changes and y is None
              else check_samples(net, x, y, aims, "fit", lengths))
    where = held_out = None
    if share is not None:
        where, off = _split(net, arrays, aims, share)
        held_out = Data(arrays, off)
    elif validation is not None:
        held_out = Data(_validation(net, validation, aims))
    weights = _weights(net, arrays, where, aims, sample_weight, class_weight, names)
    return Data(arrays if weights is None else [*arrays, weights], where), held_out


def _divided(net: Graph, data: Any, share: float, sample_weight: Any, aims: Sequence[Goal]
             ) -> tuple[Any, Any, Any]:
    """A share of a Dataset is split off: the samples that stay, the share, and the weights of those
    that stay."""
    from xpnet.data.split import split
    if data.validation is not None:
        raise ValueError("fit: expected a data set without a validation part, for a share as "
                         f"validation. Received: validation={share:g} and {data!r}.")
    stays, off = split("fit", data.labels, len(data), share, net.seed,
                       names=None if data.labels is None else data.classes)
    if sample_weight is not None:
        sample_weight = check_weights(net, sample_weight, len(data), aims)[stays]
    return data.subset(stays), data.subset(off), sample_weight


def _split(net: Graph, arrays: Sequence[Any], aims: Sequence[Goal], share: float
           ) -> tuple[np.ndarray, np.ndarray]:
    """The positions that stay and those that are split off, by the first targets that are labels.
    """
    from xpnet.data.split import split
    labels, ignored = next(
        ((target, goal.loss.ignore_index)
         for goal, target in zip(aims, arrays[len(net.in_nodes):], strict=True)
         if goal.loss.counts_hits and target.ndim == 1), (None, None))
    return split("fit", labels, len(arrays[0]), share, net.seed, ignored=ignored)


def _validation(net: Graph, validation: Any, aims: Sequence[Goal]) -> list[Any]:
    """The arrays of a pair (x, y), of (x, y, lengths) or of a Dataset, checked."""
    parts = (validation, None) if is_dataset(validation) else validation
    if not isinstance(parts, tuple | list) or len(parts) not in (2, 2 if net.ragged is None else 3):
        or_three = "" if net.ragged is None else " or (x, y, lengths)"
        raise TypeError(f"fit: expected validation to be a pair (x, y){or_three}, a Dataset, or a "
                        f"share of the samples, e.g. 0.2. Received: {type(validation).__name__}.")
    x, y, *lengths = parts
    return check_samples(net, x, y, aims, "fit: validation", *lengths)


def _weights(net: Graph, arrays: Sequence[Any], where: np.ndarray | None, aims: Sequence[Goal],
             sample_weight: Any, class_weight: Any, names: Sequence[str] | None
             ) -> np.ndarray | None:
    """The factor of each sample, from both arguments; None if there are none."""
    samples = len(arrays[0])
    if class_weight is not None:
        chosen = slice(None) if where is None else where
        labels = [(a.labels if isinstance(a, MixedTargets) else a)[chosen]
                  for a in arrays[len(net.in_nodes):]]
        factors = np.ones(samples)
        factors[chosen] = class_factors(class_weight, aims, labels, names)
        sample_weight = (factors if sample_weight is None else
                         factors * check_weights(net, sample_weight, samples, aims))
    return None if sample_weight is None else check_weights(net, sample_weight, samples, aims)
