"""Batches that several ranks share: the shards of each batch, and the step that adds them up.

The loss of a batch is not the mean of its shards' losses if they differ in size: each shard counts
by its share of the samples, as the batches of a group do, see groups.py.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np

from xpnet.checks import different_facts, listed_differences
from xpnet.graph import Graph
from xpnet.layer import Array
from xpnet.parallel.ranks import DataParallel
from xpnet.parallel.sums import Branch, Sums
from xpnet.training.batches import Batch, Batches
from xpnet.training.callbacks import Run
from xpnet.training.groups import Groups, Member, Span
from xpnet.training.same import digest
from xpnet.training.totals import SUMS, Totals

ASKS = "interrupted", "stopped"         # what a rank may ask for: Run.interrupt and Run.stop
SHARD = 2**32           # counters[1] is larger by s SHARD in shard s, for other masks of dropout


class ShardedBatches(Batches):
    """The shards of one rank of every batch. `span` and `positions` are those of whole batches,
    and `get` returns what this rank has of a batch."""

    def __init__(self, net: Graph, data: Sequence[Any], size: int, where: np.ndarray | None,
                 parallel: DataParallel) -> None:
        self.parallel = parallel
        bounds, own = parallel.bounds(size), parallel.own
        self._own_size = bounds[own.stop] - bounds[own.start]   # of a batch that is not the last
        super().__init__(net, data, size, where)

    def arrange(self, order: np.ndarray) -> None:
        """As Batches.arrange, but the batch sources have the samples of this rank only."""
        own = [np.arange(*self._own(number)) for number in range(len(self))]
        self.order = order if self.where is None else self.where[order]
        mine = self.order[np.concatenate(own)]
        for feed in self.feeds:
            feed.arrange(mine)

    def shards(self, number: int) -> list[tuple[int, Span]]:
        """The shards of this rank that have samples, and their samples of the whole."""
        start, stop = self.span(number)
        bounds = self.parallel.bounds(stop - start)
        return [(s, (start + bounds[s], start + bounds[s + 1])) for s in self.parallel.own
                if bounds[s] < bounds[s + 1]]

    def parts(self, number: int) -> Iterator[tuple[int, Batch]]:
        for s, span in self.shards(number):
            yield s * SHARD, self.part(number, span)

    def part(self, number: int, span: Span) -> Batch:
        """Some samples of this rank of batch `number`."""
        shift = number * self._own_size - self._own(number)[0]
        return tuple(feed.batch(span[0] + shift, span[1] + shift) for feed in self.feeds)

    def get(self, number: int) -> Batch:
        return self.part(number, self._own(number))

    def _own(self, number: int) -> Span:
        """The samples of this rank of batch `number`, among all samples."""
        start, stop = self.span(number)
        bounds, own = self.parallel.bounds(stop - start), self.parallel.own
        return start + bounds[own.start], start + bounds[own.stop]


class ShardedStep:
    """The step of a training with ranks. After each batch all ranks have the same parameters,
    gradients, state and figures.

    Args:
        run: the training.
        groups: of batches; of one batch each without gradient accumulation.
    """

    def __init__(self, run: Run, groups: Groups) -> None:
        assert run.parallel is not None
        self.run, self.groups, self.parallel = run, groups, run.parallel
        net, outputs = run.net, len(run.step.goals)
        self._totals = Totals(net.backend, run.step.goals)      # of a shard
        self._branch = Branch(lambda: Sums(
            net.grads.size + net.state.size, SUMS * outputs + len(ASKS), net.dtype,
            self.parallel.size))

    def train(self, batches: ShardedBatches, number: int, lr: float) -> None:
        """Train on batch `number`; the update follows after the last batch of a group."""
        step = self.run.step
        first, last = self.groups.ends(number, self.run.batches)
        group = batches.span(first)[0], batches.span(last)[1]
        with (step.updating(lr, number == last), step.net.backend.scope(),
              np.errstate(over="ignore", invalid="ignore")):
            before = None if number == first else step.net.grads.copy()
            start = step.net.state.copy()
            total = self._own_sum(batches, number, group, start)
            self._exchange(total)
            self._use(total, before, start, batches.span(number))
            step.net.backend.advance(step.net.counters[:1])
            if number == last:
                step.updater.apply()

    def _own_sum(self, batches: ShardedBatches, number: int, group: Span, start: Array) -> Sums:
        """The sum of this rank's shards."""
        net = self.run.net
        shards = dict(batches.shards(number))
        masks = net.counters[1:2]
        use = masks.copy()
        for s in self.parallel.own:
            place = self._branch.new()
            place.memory.fill(0)
            if s in shards:
                masks[...] = use + use.dtype.type(s * SHARD)
                net.state[...] = start
                self._shard(batches, number, shards[s], group)
                self._collect(place, batches, number, shards[s], start)
            self._branch.push(place)
        masks[...] = use
        return self._branch.total()

    def _shard(self, batches: ShardedBatches, number: int, span: Span, group: Span) -> None:
        """The forward and backward pass of a shard."""
        self._totals.reset()
        shares = self.groups.shares(batches, span, group)
        self.run.step.part(batches.part(number, span), Member(True, False, shares), self._totals)

    def _collect(self, place: Sums, batches: ShardedBatches, number: int, span: Span,
                 start: Array) -> None:
        """Write the gradients, the change of the state and the figures to `place`."""
        net, on_host = self.run.net, self.run.net.backend.to_numpy
        place.values[:net.grads.size] = on_host(net.grads)
        if net.state.size:
            change = net.state - start
            place.values[net.grads.size:] = on_host(change * change.dtype.type(span[1] - span[0]))
        shares = self.groups.shares(batches, span, batches.span(number))
        figures = place.figures[:-len(ASKS)].reshape(-1, SUMS)
        values = np.stack(self._totals.values())                        # (outputs, SUMS)
        values[:, 0] *= shares / self._counted(values)
        figures[...] = values

    def _exchange(self, total: Sums) -> None:
        """Add the sums of all ranks, and do what one of them asks for."""
        run = self.run
        asks = total.figures[-len(ASKS):]
        asks[:] = [name in run.asked for name in ASKS]
        self.parallel.add_ranks(total)
        for name, count in zip(ASKS, asks, strict=True):
            if count:
                setattr(run.history, name, True)
                run.asked.discard(name)

    def _use(self, total: Sums, before: Array | None, start: Array, span: Span) -> None:
        """Write the sum to the network: its gradients, its state, and the sums of the epoch."""
        net, step, to_device = self.run.net, self.run.step, self.run.net.backend.asarray
        net.grads[...] = to_device(total.values[:net.grads.size])
        if before is not None:
            net.grads[...] += before
        if net.state.size:
            change = to_device(total.values[net.grads.size:])
            net.state[...] = start + change / change.dtype.type(span[1] - span[0])
        figures = total.figures[:-len(ASKS)].reshape(-1, SUMS).copy()
        figures[:, 0] *= self._counted(figures)     # the sums of an epoch are weighted by samples
        assert step.totals is not None
        step.totals.add_values(figures)

    def _counted(self, figures: np.ndarray) -> np.ndarray:
        """(outputs,): the weight of each mean loss in the sums of an epoch."""
        return figures[:, 2] - figures[:, 4] * [sums.mean for sums in self._totals.sums]


def expect_together(run: Run) -> None:
    """RuntimeError after an epoch if ranks have different parameters, or if only some of them end
    the training."""
    assert run.parallel is not None
    facts = {"parameters": digest(run.net), "ended": run.history.ended}
    every = run.parallel.communicator.gather_objects(facts)
    found = [text for rank, one in enumerate(every)
             for text in different_facts(one, every[0], f" on rank {rank}")]
    if found:
        raise RuntimeError(f"fit: expected the same on every rank after epoch {run.epoch}. "
                           f"Received: {listed_differences(found)}.")
