"""How one element of a value is computed, as JSON: its products, their sum, and what it reads."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import layers as xl
from xpnet.catalogue.item import Item
from xpnet.explain.field import receptive_field
from xpnet.explore import elements, recurrent, sums
from xpnet.explore.parts import Computed, Part, activated, finite
from xpnet.explore.sums import Place, Rule
from xpnet.graph import Graph
from xpnet.layer import Layer
from xpnet.node import Node

if TYPE_CHECKING:
    from xpnet.explore.session import Side

# By the class of a layer itself: a subclass of a user may compute something else.
RULES: dict[type, Rule] = {**sums.RULES, **elements.RULES, **recurrent.RULES}
MOST_VALUES = 4096          # that are sent of what a layer reads, where its products are not known


def traceable(layer: Layer) -> bool:
    """Whether the products of this layer's elements are known."""
    return type(layer) in RULES and not getattr(layer, "return_state", False)


def traced(side: Side, node: Node, at: Place) -> dict[str, Any]:
    """How the element `at` of a node's value is computed. Values are those of the side, in float64.
    """
    layer, net = node.layer, side.net
    value = float(side.array(node)[at])
    found: dict[str, Any] = {"node": side.nodes.index(node), "at": list(at)}
    if layer is None:
        return found | {"kind": "other", "formula": "the input", "inputs": [], "bias": None,
                        "sum": None, "value": finite(value), "receptive_field": None}
    xs = [side.array(parent).astype(np.float64) for parent in node.parents]
    with net.backend.scope():
        computed = RULES[type(layer)](layer, xs, at) if traceable(layer) else other(layer, xs, at)
    if computed.total is not None:
        constants = computed.more.get("constants")
        result = float(activated(computed.activation, computed.total, constants))
        found["result"] = finite(result)
    return found | without_nan(computed.more) | {
        "kind": computed.kind, "formula": computed.formula,
        "inputs": [_part(side, node, part.shortened()) for part in computed.parts],
        "bias": finite(computed.bias), "sum": finite(computed.total), "value": finite(value),
        "activation": computed.activation, "receptive_field": field(net, node, at, side)}


def other(layer: Layer, xs: Sequence[np.ndarray], at: Place) -> Computed:
    """What a layer without a rule reads: the window of the channel, or everything."""
    parts = []
    for k, x in enumerate(xs):
        if isinstance(layer, xl.LpPool2d | xl.GaussianPool2d | xl.StochasticPool2d):
            rows, columns = sums.taps(layer.window, *at[1:])
            channel = slice(at[0], at[0] + 1)
            parts.append(Part(k, sums.around(channel, rows, columns),
                              sums.taken(x, channel, rows, columns)[0]))
        else:
            parts.append(Part(k, [[0, n] for n in x.shape], x if x.size <= MOST_VALUES else None))
    return Computed("other", meaning(type(layer)), parts)


def meaning(kind: type) -> str:
    """The formula of a layer of xpnet, from its docstring."""
    if getattr(xl, kind.__name__, None) is not kind:
        return "a layer of your own, whose formula is not known here"
    return Item(kind).formula.split(", dX =")[0]


def _part(side: Side, node: Node, part: Part) -> dict[str, Any]:
    read = (node.parents[part.input] if part.inside is None else
            node if part.inside == "previous" else None)
    found: dict[str, Any] = {"node": side.nodes.index(read) if read in side.nodes else None,
                             "region": part.region, "values": listed(part.values),
                             "weights": listed(part.weights), "products": listed(part.products),
                             "chosen": part.chosen}
    if part.indices is not None:
        found |= {"indices": part.indices, "rest": finite(part.rest)}
    if part.inside is not None:
        found[part.inside] = True
    return found


def field(net: Graph, node: Node, at: Place, side: Side) -> dict[str, Any] | None:
    """The rows and columns of the input image that an element depends on; None if the network has
    not one input of images, or windows that are not known."""
    if len(net.in_nodes) > 1 or len(net.in_nodes[0].shape) != 3:
        return None
    try:
        rows, columns = receptive_field(net, node.name, at[1:] if len(at) == 3 else None)
    except ValueError:
        return None
    return {"node": side.nodes.index(net.in_nodes[0]), "region": [list(rows), list(columns)]}


def without_nan(value: Any) -> Any:
    """Dictionaries and lists with None for NaN and infinity."""
    if isinstance(value, dict):
        return {name: without_nan(one) for name, one in value.items()}
    if isinstance(value, list):
        return [without_nan(one) for one in value]
    return finite(value) if isinstance(value, float) else value


def listed(a: np.ndarray | None) -> list[Any] | None:
    """Nested lists, with None for NaN and infinity."""
    if a is None:
        return None
    if np.isfinite(a).all():
        found: list[Any] = a.tolist()
        return found
    rows: list[Any] = [listed(row) if a.ndim > 1 else finite(float(row)) for row in a]
    return rows
