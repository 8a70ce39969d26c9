"""A network as JSON, for the page."""

from __future__ import annotations

from typing import Any

from xpnet.backends import Window
from xpnet.explore.inputs import token_count
from xpnet.explore.session import Session
from xpnet.explore.trace import traceable
from xpnet.inspect.layout import levels
from xpnet.layer import Layer
from xpnet.layers import ConvTranspose2d
from xpnet.layers.states import Stateful
from xpnet.node import Node

KINDS = {1: "features", 2: "sequence", 3: "image"}      # by the axes of a sample


def described(session: Session, models: list[str]) -> dict[str, Any]:
    """The network, what can be done with it, and the names of the models that can be opened."""
    side, data, trainer = session.sides["a"], session.samples, session.trainer
    net, index = side.net, session.index
    parents = [[index[parent] for parent in node.parents if parent in index]
               for node in side.nodes]
    columns = levels(parents)
    nodes = [_node(node, k, parents[k], columns[k]) for k, node in enumerate(side.nodes)]
    for k, (node, limits) in enumerate(zip(net.ins.nodes, session.ranges, strict=True)):
        nodes[k] |= {"tokens": token_count(net, node), "input_range": list(limits)}
    return {
        "name": session.name, "version": session.version, "network": session.number,
        "backend": {name: session.sides[name].net.backend.name if name in session.sides else None
                    for name in ("a", "b")},
        "parameters": sum(p.size for layer in net.layers for p in layer.parameters),
        "classes": None if session.classes is None else list(session.classes),
        "inputs": [index[node] for node in net.ins.nodes],
        "outputs": [index[node] for node in net.outs.nodes],
        "nodes": nodes, "input_range": list(session.ranges[0]),
        "samples": None if data is None else {"count": len(data),
                                              "labels": data.labels is not None},
        "training": {"possible": trainer.reason is None, "reason": trainer.reason},
        "compare": None if session.what is None else {"what": session.what}, "models": models}


def _node(node: Node, index: int, parents: list[int], column: int) -> dict[str, Any]:
    layer = node.layer
    found: dict[str, Any] = {
        "index": index, "name": node.name,
        "type": "Input" if layer is None else type(layer).__name__, "inputs": parents,
        "shape": list(node.shape), "kind": KINDS.get(len(node.shape), "other"), "parameters": [],
        "window": None, "activation": None, "traceable": False, "column": column}
    if layer is not None:
        found |= {"parameters": _parameters(node, layer), "window": _window(layer),
                  "activation": getattr(layer, "activation", None), "traceable": traceable(layer)}
    return found


def _parameters(node: Node, layer: Layer) -> list[dict[str, Any]]:
    """Parameters, then states, which are not trainable."""
    return [{"name": f"{node.layer_name}.{p.name}", "shape": list(p.shape),
             "role": p.name.rpartition(".")[2],
             "trainable": layer.trainable and p in layer.parameters}
            for p in (*layer.parameters, *layer.states)]


def _window(layer: Layer) -> dict[str, Any] | None:
    """Of a transposed convolution the window that slides over its output."""
    window = layer.window_over_y if isinstance(layer, ConvTranspose2d) else layer.window
    if not isinstance(window, Window) or isinstance(layer, Stateful):
        return None
    top, bottom, left, right = window.padding
    return {"kernel": list(window.kernel), "stride": list(window.stride),
            "padding": [[top, bottom], [left, right]], "dilation": list(window.dilation)}
