"""Checks of a graph: of its nodes when it is made, and of what its layers return."""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.buffers import Shape
from xpnet.checks import shape_or_type
from xpnet.layer import Layer
from xpnet.layers import Dropout, Flatten, LogSoftmax, Softmax
from xpnet.node import Node
from xpnet.ports import Ports

if TYPE_CHECKING:
    from xpnet.graph import Graph


# --- of its nodes ---------------------------------------------------------------------------------

def expect_inputs(who: str, ins: Ports) -> None:
    """TypeError if an input is the output of a layer."""
    for node in ins.nodes:
        if node.layer is not None:
            raise TypeError(f"{who}: expected each Input to be made by Input(...). "
                            f"Received: the output of {node.layer.who}.")


def expect_layers(who: str, outs: Ports) -> None:
    """ValueError if an output is an Input."""
    if any(node.layer is None for node in outs.nodes):
        raise ValueError(f"{who}: expected at least one layer. Received: an output that is the "
                         "Input itself.")


def expect_all_inputs(who: str, ins: Ports, nodes: Collection[Node], lengths: Collection[Node]
                      ) -> None:
    """ValueError if the Inputs among the nodes are not `ins`; `lengths` are numbers of steps."""
    if set(ins.nodes) == {node for node in nodes if node.layer is None} - {*lengths}:
        return
    unused = [node.name for node in ins.nodes if node not in nodes]
    received = (f"outputs that do not depend on {unused[0]}" if unused else
                "outputs that depend on another Input")
    raise ValueError(f"{who}: expected outputs that depend on the given Inputs, and on no others. "
                     f"Received: {received}.")


def expect_distinct_names(who: str, ins: Ports, nodes: Sequence[Node]) -> None:
    """ValueError if two nodes have the same name."""
    inputs = ins.names if len(ins) > 1 else ()
    times = Counter([*inputs, *(node.name for node in nodes)])
    twice = sorted(str(name) for name, count in times.items() if count > 1)
    if twice:
        raise ValueError(f"{who}: expected every layer to have a name of its own. "
                         f"Received: {', '.join(twice)} twice.")


def expect_softmax_once(nodes: Sequence[Node]) -> None:
    """ValueError if the input of a softmax is the output of another one; all nodes of a graph in
    the order of computation."""
    found: set[Node] = set()                # as in softmax_below, but each node is looked at once
    for node in nodes:
        below = bool(node.parents) and node.parents[0] in found
        if below and isinstance(node.layer, Softmax | LogSoftmax):
            raise ValueError(f"{node.layer.who}: expected softmax to be applied once. "
                             "Received: an input that is one already.")
        if isinstance(node.layer, Softmax) or below and isinstance(node.layer, Dropout | Flatten):
            found.add(node)


def softmax_below(node: Node) -> bool:
    """Whether the value is a softmax's output, perhaps flattened or with elements dropped."""
    while isinstance(node.layer, Dropout | Flatten):
        node = node.parents[0]
    return isinstance(node.layer, Softmax)


def expect_free(who: str, nodes: Sequence[Node], parts: Sequence[Graph], dtype: np.dtype) -> None:
    """ValueError if a layer or a part belongs to another network, or a part has another dtype."""
    known = {layer for part in parts for layer in part.layers}
    for node in nodes:
        if node.layer is not None and hasattr(node.layer, "buffers") and node.layer not in known:
            raise ValueError(f"{node.layer.who}: expected a layer of no other network. "
                             "Received: one that is in use elsewhere.")
    for part in parts:
        if part.owner is not None:
            raise ValueError(f"{who}: expected parts that are in no other network. "
                             f"Received: {part!r}, which is in use elsewhere.")
        if part.dtype != dtype:
            raise ValueError(f"{who}: expected parts of dtype {dtype}. Received: "
                             f"{part!r} of {part.dtype}.")


# --- of what layers return ------------------------------------------------------------------------

def expect_value(layer: Layer, y: Any, shape: Shape) -> None:
    """ValueError if `forward` did not return an array (*shape, N)."""
    if getattr(y, "shape", (None,))[:-1] != shape:
        raise ValueError(f"{layer.who}: expected forward to return an array of shape "
                         f"({', '.join(map(str, shape))}, N), as build said. "
                         f"Received: {shape_or_type(y)}.")


def expect_gradients(layer: Layer, dxs: Sequence[Any], parents: Sequence[Node]) -> None:
    """ValueError if `backward` did not return None or an array of the parent's shape for each
    parent."""
    if len(dxs) != len(parents):
        raise ValueError(f"{layer.who}: expected backward to return a gradient for each of "
                         f"{len(parents)} inputs. Received: {len(dxs)}.")
    for parent, dx in zip(parents, dxs, strict=True):
        if dx is not None and getattr(dx, "shape", (None,))[:-1] != parent.shape:
            raise ValueError(f"{layer.who}: expected backward to return an array of its "
                             f"input's shape, ({', '.join(map(str, parent.shape))}, N). "
                             f"Received: {shape_or_type(dx)}.")
