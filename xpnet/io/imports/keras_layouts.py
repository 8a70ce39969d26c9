"""What the arrays of our layers are in Keras 3, and in which shapes.

Keras has the channels last. Kernels are (rows, columns, channels, filters) and (features, units),
and after Flatten the features are in the order (rows, columns, channels); ours are in the order
(channels, rows, columns).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

import numpy as np

from xpnet import layers as L
from xpnet.buffers import Shape
from xpnet.graph import Graph
from xpnet.io import gates
from xpnet.io.imports.layouts import Unit
from xpnet.layer import Layer
from xpnet.layers.recurrent import Recurrent
from xpnet.node import Node

KINDS: dict[type[Layer], str] = {
    L.Conv1d: "conv1d", L.Conv2d: "conv2d", L.DepthwiseConv2d: "depthwise_conv2d",
    L.ConvTranspose1d: "conv1d_transpose", L.ConvTranspose2d: "conv2d_transpose",
    L.SeparableConv2d: "separable_conv2d", L.Linear: "dense", L.Embedding: "embedding",
    L.BatchNorm1d: "batch_normalization", L.BatchNorm2d: "batch_normalization",
    L.LayerNorm: "layer_normalization", L.RMSNorm: "rms_normalization",
    L.GroupNorm: "group_normalization", L.PReLU: "p_re_lu",
}
RECURRENT: dict[type[Layer], tuple[str, str]] = {       # and the kind of equations
    L.SimpleRNN: ("simple_rnn", "rnn"), L.LSTM: ("lstm", "lstm"), L.GRU: ("gru", "gru")}


class Layout(NamedTuple):
    """The shape of an array in Keras, and our array of it."""

    theirs: Shape
    ours: Callable[[np.ndarray], np.ndarray]


def units(net: Graph, who: str) -> list[tuple[str, Unit]]:
    """The layers with arrays, each with its kind in Keras, "" if Keras has none.

    Raises ValueError if features become feature maps: their order in Keras differs.
    """
    first: dict[Layer, Node] = {}
    for node in net.nodes:
        assert node.layer is not None
        first.setdefault(node.layer, node)
        if isinstance(node.layer, L.Reshape) and len(node.shape) > len(node.parents[0].shape) == 1:
            raise ValueError(f"{who}: expected no layer that turns features into maps, because "
                             f"Keras has them in another order. Received: {node.layer.who}.")
    return [_recurrent(node.layer_name, layer) if isinstance(layer, Recurrent)
            else _plain(node, layer)
            for layer, node in first.items() if layer.parameters or layer.states]


def _plain(node: Node, layer: Layer) -> tuple[str, Unit]:
    kind, name = KINDS.get(type(layer), ""), node.layer_name
    shapes = {p.name: p.shape for p in (*layer.parameters, *layer.states)}
    if "batches" in shapes:             # the mean over all batches, which Keras does not have
        kind = ""
    layouts = [_layout(kind, key, shape, layer, node.parents[0])
               for key, shape in shapes.items()] if kind else []

    def convert(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        return {f"{name}.{key}": layout.ours(arrays[str(number)]).reshape(shape)
                for number, (layout, (key, shape)) in enumerate(zip(layouts, shapes.items()))}

    return kind, Unit(name, tuple(f"{name}.{key}" for key in shapes),
                      {str(number): layout.theirs for number, layout in enumerate(layouts)},
                      convert, {str(number): f"{name}.{key}" for number, key in enumerate(shapes)})


def _layout(kind: str, key: str, shape: Shape, layer: Layer, before: Node) -> Layout:
    order = features(before) if len(before.shape) == 1 else None
    if kind == "embedding":
        return Layout(shape, lambda a: a)
    if kind == "p_re_lu":               # (1, 1, C) with shared_axes=[1, 2]
        each = order is not None and shape != (1,)
        return Layout((1,) * (len(before.shape) - 1) + shape, lambda a: a[order] if each else a)
    if kind == "dense" and key == "W":
        return Layout(shape[::-1], lambda a: a.T if order is None else a.T[:, order])
    if len(shape) > 1 and isinstance(layer, L.LayerNorm) and layer.axis in (
            None, [*range(len(shape))]):        # several axes, the channels among them
        return Layout((*shape[1:], shape[0]), lambda a: np.moveaxis(a, -1, 0))
    if kind == "dense" or not key.endswith("W"):
        normed = order is not None and kind.endswith("normalization")
        return Layout(shape, lambda a: a[order] if normed else a)
    if kind == "depthwise_conv2d" or key == "depthwise.W":
        C = layer.in_shapes[0][0]
        return Layout((*shape[2:], C, shape[0] // C), lambda a: np.moveaxis(a, (-2, -1), (0, 1)))
    return Layout((*shape[2:], shape[1], shape[0]), lambda a: np.moveaxis(a, (-1, -2), (0, 1)))


def features(node: Node) -> np.ndarray:
    """The index in Keras of each feature of a vector."""
    layer, size = node.layer, node.shape[0]
    if layer is None or isinstance(layer, L.Linear):
        return np.arange(size)
    if isinstance(layer, L.Concat):
        starts = np.cumsum([0, *(parent.shape[0] for parent in node.parents)])
        return np.concatenate([start + features(parent)
                               for start, parent in zip(starts, node.parents, strict=False)])
    before = node.parents[0]
    if isinstance(layer, L.Flatten | L.Reshape) and len(before.shape) > 1:
        C, *rest = before.shape
        return np.moveaxis(np.arange(size).reshape(*rest, C), -1, 0).ravel()
    return features(before) if before.shape == node.shape else np.arange(size)


def _recurrent(name: str, layer: Recurrent) -> tuple[str, Unit]:
    """One layer in one direction, or in both: the arrays of the cells one after another."""
    shapes = {p.name: p.shape for p in layer.parameters}
    kind, equations = RECURRENT.get(type(layer), ("", ""))
    if getattr(layer, "reset", "after") == "before":
        equations = "gru_before"
    if layer.layers > 1:                # in Keras they are several layers
        kind = ""
    ways = [f"{way}1" for way in layer.ways]
    each = 3 if layer.bias else 2
    theirs: dict[str, Shape] = {}
    of: dict[str, str] = {}
    for number, way in enumerate(ways if kind else ()):
        W, U = shapes[f"{way}.W"], shapes[f"{way}.U"]
        bias = (2, W[0]) if equations == "gru" else (W[0],)
        for key, shape, ours in zip(range(each), (W[::-1], U[::-1], bias), "WUb", strict=False):
            theirs[str(number * each + key)] = shape
            of[str(number * each + key)] = f"{name}.{way}.{ours}"

    def convert(arrays: Mapping[str, np.ndarray]) -> dict[str, np.ndarray]:
        given = [arrays[str(number)] for number in range(len(ways) * each)]
        return {f"{name}.{way}.{key}": a for number, way in enumerate(ways)
                for key, a in gates.from_keras(
                    equations, *given[number * each:(number + 1) * each]).items()}

    return (kind and ("bidirectional" if layer.bidirectional else kind),
            Unit(name, tuple(f"{name}.{key}" for key in shapes), theirs, convert, of))
