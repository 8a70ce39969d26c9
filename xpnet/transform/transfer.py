"""Parts of a trained network in a new one: up to a layer, and with a new head."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from xpnet.checks import expect_flag
from xpnet.graph import Graph, chain, renewed
from xpnet.layer import Layer
from xpnet.node import Node, layer_of, topological
from xpnet.ports import Ports


def copied(node: Node, changes: Mapping[str, Any] | None = None) -> Layer:
    """A new layer with the settings and the full name of the node's layer, without its values.

    Args:
        changes: arguments of the constructor that differ.
    """
    layer = layer_of(node)
    new = type(layer)(**layer.config() | dict(changes or {}))
    new.name, new.trainable, new.lr_scale = node.layer_name, layer.trainable, layer.lr_scale
    return new


def up_to(net: Graph, name: str) -> Graph:
    """A network that ends at a layer: its output is the value of that layer.

    Layers and values are copied; the two networks share nothing. Inputs that the layer does not
    depend on are left out, and the layers of parts belong to the new network, under the same names.

    Args:
        net: the network.
        name: the layer, as `summary` shows it.

    Raises:
        ValueError: there is no layer of this name.
    """
    inputs, output, values = _part(net, _expect_layer(net, net.node(name), "up_to"))
    return Graph(inputs, output, backend=net.backend, dtype=net.dtype, seed=net.seed, values=values,
                 trained=net.trained.of_inputs())


def with_head(net: Graph, layers: Iterable[Any], *, after: str | None = None, frozen: bool = False
              ) -> Graph:
    """A network that computes the same up to a layer, and new layers from there on.

    Layers and values of the old part are copied; the two networks share nothing. The new layers
    have new initial values. Those without a name get the first free one of their kind.

    Args:
        net: the network, with one output if `after` is missing.
        layers: the head: new layers or networks, one after another.
        after: the last layer that is kept. By default all layers below the last one with parameters
            are kept.
        frozen: whether the old part is frozen, see `trainable`.

    Raises:
        ValueError: there is no layer called `after`, or no layer to keep.
        TypeError: `layers` is no list of layers.
    """
    who = "with_head"
    frozen = expect_flag(who, "frozen", frozen)
    last = net.node(after) if after is not None else _below_the_head(net, who)
    inputs, output, values = _part(net, _expect_layer(net, last, who), frozen)
    used = {node.layer_name for node in topological([output]) if node.layer is not None}
    output = chain(who, layers, output, used)
    return Graph(inputs, output, backend=net.backend, dtype=net.dtype, seed=net.seed, values=values,
                 trained=net.trained.of_inputs())


def _below_the_head(net: Graph, who: str) -> Node:
    """What the last layer with parameters reads."""
    if len(net.outs) > 1:
        raise ValueError(f"{who}: expected after, the last layer that is kept, for a network of "
                         f"several outputs. Received: after=None for {len(net.outs)} outputs.")
    above = set(topological(net.outs.nodes))
    heads = [node for node in net.nodes
             if node in above and node.layer is not None and node.layer.parameters]
    if not heads or len(heads[-1].parents) > 1:
        raise ValueError(f"{who}: expected after, the last layer that is kept, as no last layer "
                         f"has parameters and one input. Received: after=None for {net!r}.")
    return heads[-1].parents[0]


def _expect_layer(net: Graph, node: Node, who: str) -> Node:
    if node.layer is None:
        raise ValueError(f"{who}: expected at least one layer to be kept, one of "
                         f"{', '.join([*net.layer_names][:4])}, ... Received: the input "
                         f"{node.name}.")
    return node


def _part(net: Graph, last: Node, frozen: bool = False
          ) -> tuple[Any, Node, dict[str, np.ndarray]]:
    """(inputs, output, values by full names) of a copy of what `last` depends on."""
    wanted, copies = set(topological([last])), dict[Layer, Layer]()
    ins = [node for node in net.ins.nodes if node in wanted]
    new = renewed(ins)
    for node in net.nodes:
        if node in wanted and node.layer is not None:
            if node.layer not in copies:
                copies[node.layer] = copied(node)
            new[node] = copies[node.layer].node(*(new[parent] for parent in node.parents))
    for layer in copies.values():
        layer.trainable = layer.trainable and not frozen
    kept = {f"{layer.name}.{p.name}" for layer in copies.values()
            for p in layer.parameters + layer.states}
    values = {name: np.array(net.backend.to_numpy(p.data)) for name, p in net.arrays.items()
              if name in kept}
    keys = None if net.ins.keys is None else [
        key for key, node in zip(net.ins.keys, net.ins.nodes, strict=True) if node in wanted]
    form = None if net.ins.single else keys or []
    return Ports.formed([new[node] for node in ins], form), new[last], values
