"""Shards of a batch that are computed together, because some layers compute over the whole batch.

Such a layer, see Layer.over_batch, needs something of all shards before any of them can go on. So
the passes of the shards are generators. Each goes on to the next such layer and stops there; the
tables of all shards and ranks are joined in a fixed tree; and each shard continues with the result.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import numpy as np

from xpnet.graph import Graph
from xpnet.layer import Exchanging
from xpnet.node import Node
from xpnet.parallel.ranks import DataParallel
from xpnet.parallel.sums import Branch, Table, add_moments, add_sums

SHARD = 2**32           # counters[1] is larger by s SHARD in shard s, for other masks of dropout

Passes = Mapping[int, Exchanging[None]]     # by the numbers of the shards that have samples


def compute_together(net: Graph, parallel: DataParallel, outputs: Sequence[Node], passes: Passes,
                     finished: Callable[[int], None]) -> None:
    """Run the forward and backward passes of this rank's shards.

    A rank without samples takes part in each exchange. Every pass begins with the state of the
    network.

    Args:
        outputs: the values from which the backward pass begins.
        passes: a `forward_pass` and its `backward_pass` for each shard.
        finished: called with the number of each shard after its pass, when the network's state and
            counters are those of the shard.
    """
    places = {s: _Place(net, s * SHARD, steps) for s, steps in passes.items()}
    nodes, sent = net.over_batch(outputs), None
    for node, backward in [*((node, False) for node in nodes),
                           *((node, True) for node in nodes[::-1])]:
        shape, join = ((node.shape[0], 2), add_sums) if backward else (
            (node.shape[0], 3), add_moments)
        branch = Branch(lambda: Table(shape, join, parallel.size))      # noqa: B023 - used at once
        for s in parallel.own:
            table = branch.new()
            table.memory.fill(0)
            if s in places:
                table.values[...] = places[s].advance(sent)
            branch.push(table)
        total = branch.total()
        parallel.join_ranks(total)
        sent = total.values
    for s, place in places.items():
        place.advance(sent, lambda: finished(s))    # noqa: B023 - called at once


class _Place:
    """What belongs to a shard while others are computed: what its layers keep, its state, and the
    counters that key its random numbers."""

    def __init__(self, net: Graph, shift: int, steps: Exchanging[None]) -> None:
        self.net, self.steps = net, steps
        self.kept = [None] * len(net.nodes)
        self.state, self.counters = net.state.copy(), net.counters.copy()
        self.counters[1:2] += self.counters.dtype.type(shift)

    def advance(self, sent: np.ndarray | None, finished: Callable[[], None] | None = None
                ) -> np.ndarray | None:
        """Go on with what was exchanged, to the next exchange; or to the end, and call
        `finished`."""
        net = self.net
        before = net.state.copy(), net.counters.copy()
        net.state[...], net.counters[...] = self.state, self.counters
        for node, kept in zip(net.nodes, self.kept, strict=True):
            node.kept = kept
        own = None
        try:
            own = self.steps.send(sent)     # type: ignore[arg-type]    # None begins it
        except StopIteration:
            if finished is not None:
                finished()
        self.kept = [node.kept for node in net.nodes]
        self.state[...] = net.state
        net.forget()
        net.state[...], net.counters[...] = before
        return own
