"""Gradients that are exchanged while the backward pass goes on: in pieces, each as soon as all
layers in it are done.

The flat gradients begin with the weights, in the order of the layers, and the backward pass comes
to the last layer first. So the weights are cut between layers, and the last piece is sent first.
What is left, biases and figures, is small, and is sent at the end. The pieces are added in the same
tree as the whole, so the bits are the same.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Any, NamedTuple

from xpnet.graph import Graph
from xpnet.node import Node
from xpnet.parallel.sums import UNIT, Array, Branch, Sums


class ThreadSender:
    """Exchanges in another thread, one after another, while this thread computes."""

    def __init__(self) -> None:
        self._thread = ThreadPoolExecutor(1, "xpnet-exchange")
        self._sent: list[Future[object]] = []

    def send(self, work: Callable[[], object]) -> None:
        """Call work() in the other thread, after what was sent before."""
        self._sent.append(self._thread.submit(work))

    def wait(self) -> None:
        """Return when all that was sent is done. Raises its error."""
        sent, self._sent = self._sent, []
        for work in sent:
            work.result()


class Piece(NamedTuple):
    """Bytes of a buffer that can be sent when the backward pass has done the node of this number,
    and with it all nodes of higher numbers."""

    start: int
    stop: int
    node: int


def pieces_of(net: Graph, count: int, ranks: int, size: int) -> list[Piece]:
    """The buffer of a network, of `size` bytes, in the order in which it is sent: `count` pieces of
    the weights, about equal, and the rest. There are fewer if the network has fewer layers. The
    length of each can be divided among the ranks.
    """
    unit, item, buffers = UNIT * ranks, net.dtype.itemsize, net.buffers
    first_use: dict[Any, int] = {}
    for number, node in enumerate(net.nodes):
        first_use.setdefault(node.layer, number)
    places = [(offset * item, first_use[layer]) for (layer, p), offset in
              zip(buffers.placed, buffers.offsets, strict=True) if p.decay]
    end = buffers.decayed * item // unit * unit         # of whole units of weights
    starts = {-(-start // unit) * unit for start, _ in places}
    cuts = {min(starts, key=lambda start: abs(start - k * end // count)) for k in range(1, count)
            } if starts else set()
    bounds = [0, *sorted(cut for cut in cuts if 0 < cut < end), end]
    stops = [start for start, _ in places[1:]] + [buffers.decayed * item]
    found = [Piece(a, b, min(number for (start, number), stop in zip(places, stops, strict=True)
                             if start < b and a < stop))
             for a, b in zip(bounds, bounds[1:]) if a < b]
    return [*found[::-1], Piece(end, size, -1)]


class PieceByPiece:
    """The sum of a rank's shards on its way to the other ranks, during the backward pass of the
    last shard.

    Args:
        net: the network, whose gradients are those of the last shard.
        pieces: of the buffer.
        shard: the buffer of the last shard; its gradients are copied here.
        branch: the sums of the other shards.
        send: send(total, start, stop) sends bytes of the sum.
    """

    def __init__(self, net: Graph, pieces: list[Piece], shard: Sums, branch: Branch[Sums],
                 send: Callable[[Sums, int, int], None]) -> None:
        self.total, self._add = branch.last(shard)
        self._net, self._shard, self._send, self._left = net, shard, send, deque(pieces)
        self._numbers = {node: number for number, node in enumerate(net.nodes)}

    def hook(self, node: Node, backward: Callable[..., Any], arrays: tuple[Array, ...]) -> Any:
        """For the backward pass: before a node, send what is done."""
        while self._left[0].node > self._numbers[node]:
            self._send_next()
        return backward(*arrays)

    def finish(self) -> None:
        """Send what is left; state and figures of the last shard are in its buffer."""
        while self._left:
            self._send_next()

    def _send_next(self) -> None:
        start, stop, _ = self._left.popleft()
        item, size = self._net.dtype.itemsize, self._net.grads.size
        part = slice(start // item, min(stop // item, size))
        self._shard.values[part] = self._net.grads[part]
        self._add(start, stop)
        self._send(self.total, start, stop)
