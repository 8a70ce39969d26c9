"""The forward and the backward pass over the nodes of a graph.

Both are generators. They stop where the shards of a batch exchange arrays, and `result_of` runs
those that exchange nothing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

from xpnet.buffers import Array
from xpnet.graph_checks import expect_gradients, expect_value
from xpnet.layer import PREDICT, Exchanging, Layer
from xpnet.node import Node, layer_of, topological

if TYPE_CHECKING:
    from xpnet.graph import Graph

# What computes a node: the node, its layer's forward or backward method, and that method's arrays.
Hook = Callable[[Node, Callable[..., Any], tuple[Array, ...]], Any]
Result = TypeVar("Result")


@dataclass(frozen=True)
class Plan:
    """What has to be computed for some values of a graph."""

    nodes: tuple[Node, ...]             # in order, without inputs
    readers: Mapping[Node, int]         # by how many of these nodes each value is read


class Order:
    """The nodes of a graph in the order of computation, and what follows from it.

    Args:
        inputs: the Inputs.
        nodes: all other nodes, parents first.
    """

    def __init__(self, inputs: Sequence[Node], nodes: tuple[Node, ...]) -> None:
        self.nodes = nodes
        self.index = {node: number for number, node in enumerate(nodes)}
        # whether each value depends on a parameter: only then is its gradient needed
        self.depends = dict.fromkeys(inputs, False)
        for node in nodes:
            self.depends[node] = (any(self.depends[parent] for parent in node.parents)
                                  or bool(layer_of(node).parameters))
        self.needs_dx = {node: any(self.depends[parent] for parent in node.parents)
                         for node in nodes}
        self._plans: dict[tuple[Node, ...], Plan] = {}

    def plan(self, outputs: Sequence[Node]) -> Plan:
        """What has to be computed for the values of `outputs`."""
        outputs = tuple(outputs)
        plan = self._plans.get(outputs)
        if plan is None:
            wanted = set(topological(outputs))
            nodes = tuple(node for node in self.nodes if node in wanted)
            readers = Counter(parent for node in nodes for parent in node.parents)
            readers.update(outputs)         # the caller reads them
            plan = self._plans[outputs] = Plan(nodes, readers)
        return plan


def forward_pass(graph: Graph, xs: Sequence[Array], outputs: Sequence[Node], mode: str = PREDICT, *,
                 hook: Hook | None = None, keep: bool = False, shared: bool = False
                 ) -> Exchanging[list[Array]]:
    """What `Graph.run` does, as a generator. With `shared`, xs are one of the shards of a batch,
    and layers that compute over the whole batch exchange arrays with the other shards, see
    Layer.over_batch; the hook gets their values."""
    order = graph.order
    plan = order.plan(outputs)
    values = dict(zip(graph.in_nodes, graph.without_padding(xs, graph.in_nodes, xs), strict=True))
    left = dict(plan.readers)
    for node in plan.nodes:
        layer = layer_of(node)
        inputs = tuple([values[parent] for parent in node.parents])
        layer.enter(order.index[node], keep or order.needs_dx[node], keep)
        compute: Callable[..., Any] = partial(_forward, node, layer, mode)
        if shared and layer.over_batch:
            y = yield from layer.forward_shared(*inputs)
            node.kept = layer.take()
            compute = partial(_returned, y)
        y = compute(*inputs) if hook is None else hook(node, compute, inputs)
        expect_value(layer, y, node.shape)
        values[node] = y
        for parent in node.parents:
            left[parent] -= 1
            if not left[parent]:        # it is not read again: its memory can be freed
                del values[parent]
        del inputs, y, compute
    return [values[node] for node in outputs]


def _forward(node: Node, layer: Layer, mode: str, *inputs: Array) -> Array:
    """The node's value; what its layer keeps for the backward pass goes to the node."""
    y = layer.forward(*inputs, mode=mode)
    if layer.keeps(mode):                   # else a backward pass may still need what is kept
        node.kept = layer.take()
    return y


def backward_pass(graph: Graph, gradients: Sequence[tuple[Node, Array]], accumulate: bool = False,
                  *, hook: Hook | None = None, to_inputs: bool = False, shared: bool = False
                  ) -> Exchanging[list[Array | None]]:
    """What `Graph.run_backward` does, as a generator, after a `forward_pass` with the same
    `shared`."""
    order, sums = graph.order, _Sums()
    for node, dy in gradients:
        sums.add(node, dy)
    begun: set[Layer] = set()           # layers whose gradients have been written
    for node in reversed(order.nodes):
        kept, node.kept = node.kept, None
        dy = sums.take(node)
        if dy is None:                  # no output depends on it, or it depends on no parameter
            continue
        layer = layer_of(node)
        layer.enter(order.index[node], to_inputs or order.needs_dx[node])
        layer.give(kept)
        del kept                        # the layer frees it as it proceeds
        add = accumulate or layer in begun
        compute: Callable[..., Any] = partial(layer.backward, accumulate=add)
        if shared and layer.over_batch:
            found = yield from layer.backward_shared(dy, accumulate=add)
            compute = partial(_returned, found)
        found = compute(dy) if hook is None else hook(node, compute, (dy,))
        begun.add(layer)
        del dy, compute
        dxs = found if isinstance(found, tuple) else (found,)
        expect_gradients(layer, dxs, node.parents)
        for parent, dx in zip(node.parents, dxs, strict=True):
            if dx is not None and (to_inputs or order.depends[parent]):
                sums.add(parent, dx)
        del found, dxs, dx
    return [sums.take(node) for node in graph.ins.nodes]


class _Sums:
    """Gradients with respect to values, added up where a value is read several times."""

    def __init__(self) -> None:
        self._sums: dict[Node, Array] = {}
        self._ours: set[Node] = set()       # sums that may be written to; layers' arrays may not

    def add(self, node: Node, dx: Array) -> None:
        if node not in self._sums:
            self._sums[node] = dx
        elif node in self._ours:
            self._sums[node] += dx
        else:
            self._sums[node] = self._sums[node] + dx
            self._ours.add(node)

    def take(self, node: Node) -> Array | None:
        return self._sums.pop(node, None)


def _returned(value: Any, *inputs: Array) -> Any:
    """What a layer has computed already."""
    return value


def result_of(steps: Exchanging[Result]) -> Result:
    """What a generator returns that exchanges nothing."""
    try:
        next(steps)
    except StopIteration as end:
        return end.value        # type: ignore[no-any-return]
    raise RuntimeError("expected a pass without exchange")
