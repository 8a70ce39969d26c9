"""Samples, targets and weights: checked, and handed out batch by batch."""

from __future__ import annotations

import inspect
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xpnet.backends.feed import Feed
from xpnet.checks import finite_array, not_finite
from xpnet.dlpack import host_array
from xpnet.graph import Graph
from xpnet.layer import Array
from xpnet.losses import Loss
from xpnet.node import Node
from xpnet.ragged import expect_no_lengths, filled
from xpnet.training.datasets import MixedTargets, SampleFeed, Samples, checked_dataset, is_dataset
from xpnet.training.goals import Goal

Batch = tuple[Array, ...]       # the inputs, the targets, and the samples' weights if there are any
Layout = tuple[Any, ...]        # (shape, dtype) of each array of a batch


class Batches:
    """Batches of samples, of their targets, and of their weights if there are any.

    Args:
        net: the network that the batches are for.
        data: batch-first arrays, as `check_samples` returns them, perhaps with weights behind them.
        size: samples of a batch; the last one may be smaller.
        where: the positions of the samples in the arrays; all of them by default.
    """

    def __init__(self, net: Graph, data: Sequence[Any], size: int,
                 where: np.ndarray | None = None) -> None:
        self.backend, self.inputs = net.backend, len(net.in_nodes)
        self.samples, self.size = len(data[0]) if where is None else len(where), size
        self.where, self.order = where, where
        self.feeds = tuple(self._feed(a, net.dtype if number < self.inputs else a.dtype)
                           for number, a in enumerate(data))
        if isinstance(self.feeds[0], SampleFeed):   # its batches are made before those of targets
            for a in data:
                if isinstance(a, MixedTargets):
                    a.samples = self.feeds[0]
        self.shapes = tuple(a.shape[1:] for a in data)
        self.position: Array | None = None      # on the backend: the sample that comes next
        self.reached = -1                       # what the host knows of it; -1 is nothing
        if where is not None:
            self.arrange(np.arange(self.samples))

    def _feed(self, a: Any, dtype: Any) -> Feed:
        """The batch source of an array, or of what is in the place of an array."""
        if isinstance(a, Samples | MixedTargets):
            return a.feed(self.backend, dtype, self.size)
        return self.backend.feed(a, dtype, self.size)

    def __len__(self) -> int:
        return count_batches(self.samples, self.size)

    def arrange(self, order: np.ndarray) -> None:
        """From now on sample number i is the one that was number order[i]."""
        self.order = order = order if self.where is None else self.where[order]
        for feed in self.feeds:
            feed.arrange(order)

    def span(self, number: int) -> tuple[int, int]:
        """(start, stop) of the samples of batch `number`."""
        start = number * self.size
        return start, min(start + self.size, self.samples)

    def positions(self, start: int, stop: int) -> np.ndarray:
        """Where samples start to stop - 1 are in the arrays."""
        return np.arange(start, stop) if self.order is None else self.order[start:stop]

    def get(self, number: int) -> Batch:
        """Batch `number`."""
        start, stop = self.span(number)
        return tuple(feed.batch(start, stop) for feed in self.feeds)

    def parts(self, number: int) -> Iterator[tuple[int, Batch]]:
        """The parts of batch `number` that have a forward pass each, here one; and by how much the
        second counter of the network is larger in each."""
        yield 0, self.get(number)

    def __getitem__(self, number: int) -> NumberedBatch:
        """Batch `number`, to be made by a step; only after `arrange`."""
        return NumberedBatch(self, number)

    # --- for captured steps -----------------------------------------------------------------------

    def write(self, start: int, stop: int, places: Batch) -> None:
        """Before a graph is launched: write what it does not gather itself, and set the position
        where it begins."""
        for feed, place in zip(self.feeds, places, strict=True):
            if not feed.in_graphs:
                feed.batch(start, stop, place)
        if self.position is None:
            self.position = self.backend.zeros((1,), np.int64)
        if self.reached != start:
            with self.backend.scope():
                self.position.fill(start)
        self.reached = -1               # until the step has ended without an error

    def gather(self, places: Batch) -> tuple[Array, int]:
        """In a graph: gather the samples at the position. Returns the position, and the number of
        samples by which it has to be advanced."""
        assert self.position is not None
        for feed, place in zip(self.feeds, places, strict=True):
            if feed.in_graphs:
                feed.batch_at(self.position, place)
        return self.position, places[0].shape[-1]


class NumberedBatch:
    """A batch that Batches make: its arrays, or what a captured step needs instead of them."""

    def __init__(self, batches: Batches, number: int) -> None:
        self.source, self.number = batches, number
        self.start, self.stop = batches.span(number)

    @property
    def layout(self) -> Layout:
        count = self.stop - self.start
        return tuple([((*shape, count), feed.dtype)
                      for shape, feed in zip(self.source.shapes, self.source.feeds, strict=True)])

    def arrays(self) -> Batch:
        return self.source.get(self.number)

    def write(self, places: Batch) -> None:
        self.source.write(self.start, self.stop, places)

    def done(self) -> None:
        self.source.reached = self.stop


def count_batches(samples: int, size: int, drop_last: bool = False) -> int:
    """How many batches of `size` there are; with `drop_last` without one that is smaller."""
    return samples // size if drop_last else -(-samples // size)


def check_samples(net: Graph, x: Any, y: Any, goals: Sequence[Goal], who: str, lengths: Any = None
                  ) -> list[Any]:
    """Batch-first inputs, numbers of steps and targets, checked against the network and against
    each other; x may be a Dataset, which has the targets, too."""
    if is_dataset(x):
        expect_no_lengths(lengths, who)
        if y is not None:
            raise ValueError(f"{who}: expected no y with a data set, which has its own targets. "
                             f"Received: {type(y).__name__}.")
        return checked_dataset(net, x, goals, who)
    xs = finite_samples(net, x, who, lengths)
    targets = []
    steps = steps_of(net, xs, [goal.node for goal in goals])
    for goal, target, numbers in zip(goals, net.outs.unpack(y, who, "targets"), steps, strict=True):
        name = f"{who}: targets"
        target = (host_array(target, name, net.backend) if numbers is None else
                  filled(target, numbers[:, 0], goal.node.shape[-1], name, net.backend))
        target = goal.loss.targets(target, goal.node.shape, net.dtype)
        if len(xs[0]) != len(target):
            raise ValueError(f"{who}: expected as many targets as samples. Received: {len(xs[0])} "
                             f"samples, {len(target)} targets.")
        targets.append(target)
    return [*xs, *targets]


def check_weights(net: Graph, sample_weight: Any, samples: int, goals: Sequence[Goal]
                  ) -> np.ndarray:
    """The samples' weights, in the network's dtype."""
    for goal in goals:
        _expect_weighted(goal.loss)
    weights = host_array(sample_weight, "fit: sample_weight", net.backend)
    weights = finite_array(weights, "fit: sample_weight", net.dtype)
    if weights.shape != (samples,):
        raise ValueError("fit: expected sample_weight to have a number for each of the "
                         f"{samples} samples. Received: an array of shape {weights.shape}.")
    return weights.astype(net.dtype, copy=False)


def _expect_weighted(loss: Loss) -> None:
    if "sample_weight" not in inspect.signature(loss).parameters:
        raise ValueError("fit: expected a loss that takes sample_weight, for weights of samples. "
                         f"Received: {loss.who}, whose __call__ does not.")


def steps_of(net: Graph, arrays: Sequence[Any], nodes: Sequence[Node]) -> list[np.ndarray | None]:
    """The numbers of steps (N, 1) of nodes, from arrays as `check_samples` returns them; None for a
    node without lengths."""
    given = dict(zip(net.in_nodes, arrays))
    return [None if node.lengths is None else given[node.lengths] for node in nodes]


def finite_samples(net: Graph, x: Any, who: str, lengths: Any = None) -> tuple[Any, ...]:
    """Batch-first samples for each input, and numbers of steps, checked.

    ValueError if one of them is NaN or infinite in the network's dtype.
    """
    xs = net.check_inputs(x, lengths)
    for a in xs:
        received = not_finite(a, net.dtype, net.backend.to_numpy)
        if received:
            raise ValueError(f"{who}: expected finite samples. Received: {received}.")
    return xs


def check_batch_sizes(net: Graph, samples: int, batch_size: int, drop_last: bool = False,
                      shards: int = 1) -> None:
    """ValueError if a batch, or a shard of one, would be too small for a layer in training, or if
    there is none."""
    if drop_last and samples < batch_size:
        raise ValueError("fit: expected at least one whole batch, with drop_last=True. Received: "
                         f"{samples} samples in batches of {batch_size}.")
    last = min(batch_size if drop_last else samples % batch_size or batch_size, samples)
    smallest = max(last // shards, 1)
    many, one, cut = (("batches", "batch", "") if shards == 1 else
                      ("shards", "shard", f", cut into {shards} shards"))
    for layer in net.layers:
        if smallest < layer.smallest_batch:
            raise ValueError(f"{layer.who}: expected {many} of at least {layer.smallest_batch} in "
                             f"training: it normalises over the {one} alone. "
                             f"Received: {samples} samples in batches of {batch_size}, the last of "
                             f"{last}{cut}.")
