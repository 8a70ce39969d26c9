"""What the arrays of our layers are called in PyTorch, and in which shapes.

A unit is a layer with arrays of its own, or a child of a layer. It knows the names and shapes that
a module of PyTorch has for it, and makes our arrays from those.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

import numpy as np

from xpnet import layers as L
from xpnet.buffers import Shape
from xpnet.graph import Graph
from xpnet.io import gates
from xpnet.layer import Layer
from xpnet.layers.recurrent import Recurrent

Arrays = Mapping[str, np.ndarray]

CONVOLUTION = {"weight": "W", "bias": "b"}
BATCH_NORM = {"weight": "gamma", "bias": "beta", "running_mean": "mean", "running_var": "var",
              "num_batches_tracked": "batches"}
NORM = {"weight": "gamma", "bias": "beta"}
# PyTorch's names of the arrays, and ours
NAMES: dict[type[Layer], dict[str, str]] = {
    **dict.fromkeys([L.Conv1d, L.Conv2d, L.DepthwiseConv2d, L.ConvTranspose1d, L.ConvTranspose2d,
                     L.Linear, L.DropConnect], CONVOLUTION),
    **dict.fromkeys([L.BatchNorm1d, L.BatchNorm2d], BATCH_NORM),
    **dict.fromkeys([L.LayerNorm, L.RMSNorm, L.GroupNorm, L.InstanceNorm1d, L.InstanceNorm2d],
                    NORM),
    L.Embedding: {"weight": "W"}, L.PReLU: {"weight": "a"},
}
RECURRENT: dict[type[Layer], str] = {L.SimpleRNN: "rnn", L.LSTM: "lstm", L.GRU: "gru"}
IGNORED = "num_batches_tracked"     # of a batch norm that does not count its batches


@dataclass(frozen=True)
class Unit:
    """A layer, or a child of one, and its arrays in PyTorch.

    Attributes:
        name: of the layer, e.g. "conv1", or of the child, "sep1.depthwise".
        arrays: the full names of our arrays.
        theirs: shape by the name within a module of PyTorch; empty if it has no such layer.
        convert: makes our arrays, by their full names, from those of `theirs`.
        of: the full name of our array that one of theirs mainly goes to.
    """

    name: str
    arrays: tuple[str, ...]
    theirs: dict[str, Shape]
    convert: Callable[[Arrays], dict[str, np.ndarray]]
    of: dict[str, str]


def units(net: Graph) -> list[Unit]:
    """The units of a network with arrays, in the order of the layers."""
    found: list[Unit] = []
    for name, layer in net.layer_names.items():
        found += _of_layer(name, layer)
    return found


def _of_layer(name: str, layer: Layer) -> Iterator[Unit]:
    if not (layer.parameters or layer.states):
        return
    if isinstance(layer, Recurrent):
        yield _recurrent(name, layer)
    elif isinstance(layer, L.MultiHeadAttention):
        yield _attention(name, layer)
    elif layer.children:
        for child in layer.children:
            yield from _of_layer(f"{name}.{child.name}", child)
    else:
        yield _plain(name, layer)


def _own(name: str, layer: Layer) -> dict[str, Shape]:
    """The shapes of a layer's arrays by the last part of their names."""
    return {p.name.rpartition(".")[2]: p.shape for p in (*layer.parameters, *layer.states)}


def _plain(name: str, layer: Layer) -> Unit:
    own = _own(name, layer)
    names = {theirs: ours for theirs, ours in NAMES.get(type(layer), {}).items() if ours in own}
    known = set(names.values()) == set(own)
    theirs = {key: () if key == IGNORED else own[ours]
              for key, ours in names.items()} if known else {}

    def convert(arrays: Arrays) -> dict[str, np.ndarray]:
        return {f"{name}.{names[key]}": np.reshape(a, own[names[key]])
                for key, a in arrays.items()}

    return Unit(name, tuple(f"{name}.{key}" for key in own), theirs, convert,
                {key: f"{name}.{names[key]}" for key in theirs})


def _recurrent(name: str, layer: Recurrent) -> Unit:
    """weight_ih_l0, weight_hh_l0, bias_ih_l0, bias_hh_l0, then those of a second direction with
    _reverse, then those of the next layer."""
    shapes = {p.name: p.shape for p in layer.parameters}
    kind = RECURRENT.get(type(layer))
    if getattr(layer, "reset", "after") != "after":
        kind = None                     # PyTorch has no such layer
    theirs: dict[str, Shape] = {}
    of: dict[str, str] = {}
    scans: list[tuple[str, list[str]]] = []
    for level in range(layer.layers if kind else 0):
        for way, end in zip(layer.ways, ("", "_reverse"), strict=False):
            ours, end = f"{way}{level + 1}", f"_l{level}{end}"
            W, U = shapes[f"{ours}.W"], shapes[f"{ours}.U"]
            keys = [f"weight_ih{end}", f"weight_hh{end}"]
            theirs |= {keys[0]: W, keys[1]: U}
            of |= {keys[0]: f"{name}.{ours}.W", keys[1]: f"{name}.{ours}.U"}
            if layer.bias:
                keys += [f"bias_ih{end}", f"bias_hh{end}"]
                theirs |= dict.fromkeys(keys[2:], (W[0],))
                of |= dict.fromkeys(keys[2:], f"{name}.{ours}.b")
            scans.append((ours, keys))

    def convert(arrays: Arrays) -> dict[str, np.ndarray]:
        return {f"{name}.{ours}.{key}": a for ours, keys in scans
                for key, a in gates.from_pytorch(str(kind), *(arrays[k] for k in keys)).items()}

    return Unit(name, tuple(f"{name}.{key}" for key in shapes), theirs, convert, of)


def _attention(name: str, layer: L.MultiHeadAttention) -> Unit:
    """in_proj_weight is query.W, key.W and value.W on top of each other; if they read different
    features there are three arrays. The bias of the keys changes nothing, and is dropped."""
    shapes = {p.name: p.shape for p in layer.parameters}
    parts = "query", "key", "value"
    D = shapes["query.W"][0]
    joined = len({shapes[f"{part}.W"] for part in parts}) == 1
    theirs: dict[str, Shape] = {"in_proj_weight": (3 * D, D)} if joined else {
        f"{part[0]}_proj_weight": shapes[f"{part}.W"] for part in parts}
    theirs["out_proj.weight"] = shapes["output.W"]
    biased = "output.b" in shapes
    if biased:
        theirs |= {"in_proj_bias": (3 * D,), "out_proj.bias": (D,)}

    def convert(arrays: Arrays) -> dict[str, np.ndarray]:
        W = (np.split(arrays["in_proj_weight"], 3) if joined
             else [arrays[f"{part[0]}_proj_weight"] for part in parts])
        found = {f"{part}.W": w for part, w in zip(parts, W, strict=True)}
        found["output.W"] = arrays["out_proj.weight"]
        if biased:
            b = np.split(arrays["in_proj_bias"], 3)
            found |= {"query.b": b[0], "value.b": b[2], "output.b": arrays["out_proj.bias"]}
        return {f"{name}.{key}": a for key, a in found.items()}

    ours = {"in_proj_weight": "query.W", "in_proj_bias": "query.b", "out_proj.weight": "output.W",
            "out_proj.bias": "output.b"} | {f"{part[0]}_proj_weight": f"{part}.W"
                                            for part in parts}
    return Unit(name, tuple(f"{name}.{key}" for key in shapes), theirs, convert,
                {key: f"{name}.{ours[key]}" for key in theirs})
