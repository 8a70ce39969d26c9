"""Captured steps of ranks with a GPU each: forward and backward passes of a rank's shards, exchange
by NCCL and update are launched as one."""

from __future__ import annotations

import weakref
from functools import partial
from typing import TYPE_CHECKING, Any

from xpnet.backends import Backend
from xpnet.checks import warn_caller
from xpnet.parallel.communicator import Communicator
from xpnet.training.batches import Batch
from xpnet.training.step import MOST_CAPTURED

if TYPE_CHECKING:
    from xpnet.training.shards import ShardedBatches, ShardedStep, Work


class ShardGraphs:
    """The captured steps of a ShardedStep, for batches of one size: one step, or with groups those
    of the first, a middle and the last batch.

    NCCL wants all ranks to capture an exchange, or none. What decides is the same on all ranks: how
    often a step came before, and after the recording whether it succeeded on all of them.
    """

    def __init__(self, backend: Backend, communicator: Communicator) -> None:
        self.backend, self.communicator = backend, communicator
        self._graphs: dict[tuple[Any, ...], _Graph] = {}
        self._seen: set[tuple[Any, ...]] = set()
        self._failed, self._releases = False, 0

    def run(self, step: ShardedStep, work: Work, batches: ShardedBatches, number: int) -> None:
        """Work on a batch, in one launch if this step came often enough."""
        if step.run.step.releases != self._releases:
            self._graphs.clear()
            self._releases = step.run.step.releases
        trainable = tuple([layer.trainable for layer in step.run.net.layers])
        key = work.starts, work.ends, trainable, tuple(step.run.step.updater.parts())
        shards = dict(batches.shards(number))
        if self._failed or key not in self._seen:
            self._seen.add(key)
            step.compute(work, lambda s: batches.part(number, shards[s]))
            return
        if key not in self._graphs:
            if len(self._graphs) == MOST_CAPTURED:
                del self._graphs[next(iter(self._graphs))]
            self._graphs[key] = _Graph(self, step, work, batches)
        graph = self._graphs[key]
        for s, places in graph.places.items():
            batches.part(number, shards[s], places)
        graph.launch()
        if graph.failures:
            self._failed = True
            self._graphs.clear()
            if step.parallel.leads:
                warn_caller("TrainStep: the step could not be captured and runs launch by launch "
                            f"from now on ({graph.failures[0]})", UserWarning)


class _Graph:
    """A captured step, and the samples that it reads. It holds no reference to the ShardedStep."""

    def __init__(self, graphs: ShardGraphs, step: ShardedStep, work: Work, batches: ShardedBatches
                 ) -> None:
        backend, self.places = graphs.backend, dict[int, Batch]()
        for s, count in work.sizes.items():
            self.places[s] = tuple(backend.empty((*shape, count), feed.dtype) for shape, feed in
                                   zip(batches.shapes, batches.feeds, strict=True))
        self.failures: list[str] = []           # why it could not be captured
        self.launch = backend.capture(partial(_compute, weakref.ref(step), work, self.places),
                                      self.failures.append, partial(_agreed, graphs.communicator))


def _compute(owner: weakref.ref[ShardedStep], work: Work, places: dict[int, Batch]) -> None:
    step = owner()
    assert step is not None                     # it is the caller
    step.compute(work, places.__getitem__)


def _agreed(communicator: Communicator, failure: str) -> str:
    """The first failure of a rank, "" if there is none."""
    return next((f"rank {rank}: {text}" for rank, text in
                 enumerate(communicator.gather_objects(failure)) if text), "")
