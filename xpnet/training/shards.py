"""Batches that several ranks share: the shards of each batch, and the step that adds them up.

The loss of a batch is not the mean of its shards' losses if they differ in size: each shard counts
by its share of the samples, as the batches of a group do, see groups.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import different_facts, listed_differences
from xpnet.graph import Graph
from xpnet.layer import Array
from xpnet.node import Node, layer_of
from xpnet.parallel.overlap import PieceByPiece, pieces_of
from xpnet.parallel.ranks import DataParallel
from xpnet.parallel.sums import Branch, Sums
from xpnet.passes import Hook
from xpnet.training.batches import Batch, Batches
from xpnet.training.callbacks import Run
from xpnet.training.groups import Groups, Span
from xpnet.training.same import digest
from xpnet.training.shard_graphs import ShardGraphs
from xpnet.training.together import SHARD, compute_together
from xpnet.training.totals import SUMS, Totals

ASKS = "interrupted", "stopped"         # what a rank may ask for: Run.interrupt and Run.stop


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

    def part(self, number: int, span: Span, places: Batch | None = None) -> Batch:
        """Some samples of this rank of batch `number`, written into `places` if they are given."""
        shift = number * self._own_size - self._own(number)[0]
        return tuple(feed.batch(span[0] + shift, span[1] + shift, place) for feed, place in
                     zip(self.feeds, places or (None,) * len(self.feeds), strict=True))

    def get(self, number: int) -> Batch:
        return self.part(number, self._own(number))

    def _own(self, number: int) -> Span:
        """The samples of this rank of batch `number`, among all samples."""
        start, stop = self.span(number)
        bounds, own = self.parallel.bounds(stop - start), self.parallel.own
        return start + bounds[own.start], start + bounds[own.stop]


class Work(NamedTuple):
    """What has to be done for a batch, apart from its samples."""

    starts: bool                # whether it is the first batch of its group
    ends: bool
    samples: int
    sizes: dict[int, int]       # samples of this rank's shards that have some


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
        self._size = (net.grads.size + net.state.size, SUMS * outputs + len(ASKS), net.dtype,
                      self.parallel.size)
        self._branch = Branch(lambda: Sums(*self._size, net.backend.zeros))
        communicator = self.parallel.communicator
        # What NCCL sends, and pieces, are exchanged beside the computation. Without NCCL, a GPU
        # exchanges through the memory of the host.
        self._by_nccl = communicator.backend is not None
        self._pieces = pieces_of(net, self.parallel.pieces, self.parallel.size,
                                 len(Sums(*self._size).memory)) if self.parallel.pieces > 1 else []
        self._sender = communicator.sender() if self._by_nccl or self._pieces else None
        self._on_host: Sums | None = None
        self._asks = np.zeros(len(ASKS))
        # For each shard of this rank and each output: its share in the group, and in the batch.
        self._shares = net.backend.zeros((2, len(self.parallel.own), outputs), np.float64)
        self._graphs = ShardGraphs(net.backend, communicator) if (
            communicator.captures and net.backend.captures and run.step.capture
            and not self.parallel.sync) else None

    def train(self, batches: ShardedBatches, number: int, lr: float) -> None:
        """Train on batch `number`; the update follows after the last batch of a group."""
        step, net = self.run.step, self.run.net
        first, last = self.groups.ends(number, self.run.batches)
        group = batches.span(first)[0], batches.span(last)[1]
        start, stop = batches.span(number)
        shards = dict(batches.shards(number))
        work = Work(number == first, number == last, stop - start,
                    {s: span[1] - span[0] for s, span in shards.items()})
        with (step.updating(lr, work.ends), net.backend.scope(),
              np.errstate(over="ignore", invalid="ignore")):
            self._write_shares(batches, number, group)
            self._asks[:] = [name in self.run.asked for name in ASKS]
            if self._graphs is not None and work.samples == min(batches.size, batches.samples):
                self._graphs.run(self, work, batches, number)
            else:
                self.compute(work, lambda s: batches.part(number, shards[s]))
            if self._by_nccl:                   # so the host does not wait for the GPU
                self._asks = self.parallel.communicator.gather(self._asks).sum(axis=0)
        self._answer()

    def compute(self, work: Work, part: Callable[[int], Batch]) -> None:
        """The work on a batch; part(s) are the samples of shard s."""
        step, net = self.run.step, self.run.net
        before = None if work.starts else net.grads.copy()
        start = net.state.copy()
        if self._pieces:
            total = self._piece_by_piece(work.sizes, part, start)
        else:
            total = (self._together if self.parallel.sync else self._own_sum)(
                work.sizes, part, start)
            self._exchange(total)
        self._use(total, before, start, work.samples)
        net.backend.advance(net.counters[:1])
        if work.ends:
            step.updater.apply()

    def _write_shares(self, batches: ShardedBatches, number: int, group: Span) -> None:
        """Write the shares to the backend; an empty shard has none."""
        shards, outputs = dict(batches.shards(number)), len(self.run.step.goals)
        shares = [share for whole in (group, batches.span(number)) for s in self.parallel.own
                  for share in (self.groups.shares(batches, shards[s], whole) if s in shards
                                else (0.0,) * outputs)]
        self.run.net.backend.assign(self._shares.reshape(-1), tuple(shares))

    def _own_sum(self, sizes: dict[int, int], part: Callable[[int], Batch], start: Array) -> Sums:
        """The sum of this rank's shards."""
        use = self.run.net.counters[1:2].copy()
        for s in self.parallel.own:
            place = self._branch.new()
            self._shard(s, place, sizes, part, start, use)
            place.values[:self.run.net.grads.size] = self.run.net.grads
            self._branch.push(place)
        self.run.net.counters[1:2] = use
        return self._branch.total()

    def _piece_by_piece(self, sizes: dict[int, int], part: Callable[[int], Batch], start: Array
                        ) -> Sums:
        """The sum of all shards of all ranks. Pieces are exchanged during the last backward pass of
        this rank."""
        net, sender, use = self.run.net, self._sender, self.run.net.counters[1:2].copy()
        assert sender is not None
        *others, last = self.parallel.own
        for s in others:
            place = self._branch.new()
            self._shard(s, place, sizes, part, start, use)
            place.values[:net.grads.size] = net.grads
            self._branch.push(place)

        def send(total: Sums, start: int, stop: int) -> None:
            if stop == len(total.memory) and not self._by_nccl:
                total.figures[-len(ASKS):] = self._asks
            sender.send(lambda: self.parallel.add_ranks(total, start, stop))

        place = self._branch.new()
        pieces = PieceByPiece(net, self._pieces, place, self._branch, send)
        self._shard(last, place, sizes, part, start, use, pieces.hook)
        pieces.finish()
        net.counters[1:2] = use
        sender.wait()
        if not self._by_nccl:
            self._asks = pieces.total.figures[-len(ASKS):].copy()
        return pieces.total

    def _shard(self, s: int, place: Sums, sizes: dict[int, int], part: Callable[[int], Batch],
               start: Array, use: Array, hook: Hook | None = None) -> None:
        """Compute a shard: its gradients are those of the network, and `place` has the rest. `use`
        is the second counter of the network before the batch."""
        net = self.run.net
        place.memory.fill(0)
        if s not in sizes:
            net.grads.fill(0)
            return
        net.counters[1:2] = use + use.dtype.type(s * SHARD)
        net.state[...] = start
        self._totals.reset()
        k = s - self.parallel.own.start
        self.run.step.part(part(s), self._shares[0, k], self._totals, hook)
        self._collect(place, sizes[s], self._shares[1, k], start)

    def _together(self, sizes: dict[int, int], part: Callable[[int], Batch], start: Array) -> Sums:
        """The sum of this rank's shards, which are computed together. The gradients of a shard are
        moved away after each layer, because the next shard writes its own there."""
        net, step, own = self.run.net, self.run.step, self.parallel.own
        offsets = {p: offset for (_, p), offset in zip(net.buffers.placed, net.buffers.offsets,
                                                       strict=True)}
        places = {s: self._branch.new() for s in own}
        for place in places.values():
            place.memory.fill(0)

        def moved(place: Sums) -> Hook:
            def hook(node: Node, backward: Callable[..., Any], arrays: tuple[Array, ...]) -> Any:
                found = backward(*arrays)
                for p in layer_of(node).parameters:
                    place.values[offsets[p]:offsets[p] + p.size] += p.grad.reshape(-1)
                    p.grad.fill(0)
                return found
            return hook

        def finished(s: int) -> None:
            self._collect(places[s], sizes[s], self._shares[1, s - own.start], start)
            self._totals.reset()

        self._totals.reset()
        net.grads.fill(0)
        compute_together(net, self.parallel, [goal.node for goal in step.goals], {
            s: step.shared_part(part(s), self._shares[0, s - own.start], self._totals,
                                moved(places[s])) for s in sizes}, finished)
        for place in places.values():
            self._branch.push(place)
        return self._branch.total()

    def _collect(self, place: Sums, samples: int, shares: Array, start: Array) -> None:
        """Write the change of the state and the figures of a shard to `place`."""
        net = self.run.net
        if net.state.size:
            change = net.state - start
            place.values[net.grads.size:] = change * change.dtype.type(samples)
        figures = self._table(place)
        self._totals.write(figures)
        figures[:, 0] *= shares / self._counted(figures)

    def _exchange(self, total: Sums) -> None:
        """Add the sums of all ranks; without NCCL, also what the ranks ask for."""
        backend, host = self.run.net.backend, total
        if self._by_nccl:
            assert self._sender is not None
            self._sender.send(lambda: self.parallel.add_ranks(total))
            self._sender.wait()
            return
        if backend.xp is not np:
            host = self._on_host = self._on_host or Sums(*self._size)
            host.memory[...] = backend.to_numpy(total.memory)
        host.figures[-len(ASKS):] = self._asks
        self.parallel.add_ranks(host)
        self._asks = host.figures[-len(ASKS):].copy()
        if host is not total:
            total.memory[...] = backend.asarray(host.memory)

    def _answer(self) -> None:
        """Do what one of the ranks asks for."""
        for name, count in zip(ASKS, self._asks, strict=True):
            if count:
                setattr(self.run.history, name, True)
                self.run.asked.discard(name)

    def _use(self, total: Sums, before: Array | None, start: Array, samples: int) -> None:
        """Write the sum to the network: its gradients, its state, and the sums of the epoch."""
        net, step = self.run.net, self.run.step
        net.grads[...] = total.values[:net.grads.size]
        if before is not None:
            net.grads[...] += before
        if net.state.size:
            change = total.values[net.grads.size:]
            net.state[...] = start + change / change.dtype.type(samples)
        figures = self._table(total)
        figures[:, 0] *= self._counted(figures)     # the sums of an epoch are weighted by samples
        assert step.totals is not None
        step.totals.add_table(figures)

    def _table(self, sums: Sums) -> Array:
        """The figures as a table (outputs, SUMS)."""
        return sums.figures[:-len(ASKS)].reshape(-1, SUMS)

    def _counted(self, figures: Array) -> Array:
        """(outputs,): the weight of each mean loss in the sums of an epoch."""
        counted = figures[:, 2].copy()
        for number, sums in enumerate(self._totals.sums):
            if sums.mean:
                counted[number:number + 1] -= figures[number:number + 1, 4]
        return counted


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
