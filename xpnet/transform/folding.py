"""Batch normalisation folded into the layer before it, for predictions with fewer passes over
memory."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable

import numpy as np

from xpnet.graph import Graph
from xpnet.layer import Layer
from xpnet.layers import (
    Conv1d,
    Conv2d,
    ConvTranspose1d,
    ConvTranspose2d,
    DepthwiseConv2d,
    Linear,
    SeparableConv2d,
    TrueConv2d,
)
from xpnet.layers.normalization import BatchNorm
from xpnet.node import Node, layer_of
from xpnet.transform.transfer import copied

Arrays = dict[str, np.ndarray]


def fold_batch_norm(net: Graph) -> Graph:
    """Batch norm folded away: W' = s W, row by row, b' = s (b - mean) + beta, with
    s = gamma / sqrt(var + eps).

    Each batch norm is folded into the layer before it, in a new network for predictions:
    f(gamma (W x + b - mean) / sqrt(var + eps) + beta) = f(W' x + b'). So the new network predicts
    the same as `net`, up to rounding. It must not be trained, because it does not normalise.

    A batch norm is folded if it directly follows a convolution or a Linear without an activation,
    and no other layer reads the output in between. The layer keeps its name and takes over the
    batch norm's activation f. Everything else is copied; `net` does not change.

    Source: Jacob et al. 2018, section 3.2.
    """
    readers = Counter(parent for node in net.nodes for parent in node.parents)
    readers.update(net.outs.nodes)
    uses = Counter(node.layer for node in net.nodes)
    folds = {node.parents[0]: node for node in net.nodes
             if isinstance(node.layer, BatchNorm) and _takes(node.parents[0].layer)
             and readers[node.parents[0]] == uses[node.parents[0].layer] == uses[node.layer] == 1}
    folded, copies = set(folds.values()), dict[Layer, Layer]()

    def make(node: Node, parents: tuple[Node, ...]) -> Node:
        layer = layer_of(node)
        if node in folded:
            return parents[0]
        if layer not in copies:
            norm = folds[node].layer if node in folds else None
            changes = ({"bias": getattr(layer, "bias", True) or True, "activation": norm.activation}
                       if isinstance(norm, BatchNorm) else {})
            copies[layer] = copied(node, changes)
        return copies[layer].node(*parents)

    arrays = {name: net.backend.to_numpy(p.data) for name, p in net.arrays.items()}
    for node, after in folds.items():
        assert isinstance(node.layer, Layer) and isinstance(after.layer, BatchNorm)
        arrays |= _folded(node, after, arrays)
    return Graph(*net.rebuild(make), backend=net.backend, dtype=net.dtype, seed=net.seed,
                 values=arrays, trained=net.trained)


def _rows(layer: Layer, W: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """W (outputs, ...), each row times the scale of its output."""
    return W * scale.reshape(-1, *(1,) * (W.ndim - 1))


def _columns(layer: Layer, W: np.ndarray, scale: np.ndarray) -> np.ndarray:
    """W (C, filters/groups, ...) of a transposed convolution times the scale of its outputs, which
    are the second axis of each group."""
    assert isinstance(layer, ConvTranspose2d)
    by_groups = W.reshape(layer.groups, len(W) // layer.groups, W.shape[1], -1)
    return (by_groups * scale.reshape(layer.groups, 1, -1, 1)).reshape(W.shape)


# The weights that make a layer's outputs, and how each output's weights are scaled. Subclasses are
# left out, because they may compute something else.
WEIGHTS: dict[type[Layer], tuple[str, Callable[[Layer, np.ndarray, np.ndarray], np.ndarray]]] = {
    Conv1d: ("W", _rows), Conv2d: ("W", _rows), TrueConv2d: ("W", _rows),
    DepthwiseConv2d: ("W", _rows), SeparableConv2d: ("pointwise.W", _rows),
    ConvTranspose1d: ("W", _columns), ConvTranspose2d: ("W", _columns), Linear: ("W", _rows),
}


def _takes(layer: Layer | None) -> bool:
    """Whether a batch norm that follows this layer can be folded into it."""
    return type(layer) in WEIGHTS and getattr(layer, "activation", None) is None


@np.errstate(under="ignore")
def _folded(node: Node, after: Node, arrays: Arrays) -> Arrays:
    """The layer's arrays with the batch norm in them, computed in float64."""
    layer, norm = layer_of(node), after.layer
    assert isinstance(norm, BatchNorm)
    gamma, beta, mean, var = (arrays[f"{after.layer_name}.{name}"].astype(np.float64)
                              for name in ("gamma", "beta", "mean", "var"))
    scale = gamma / np.sqrt(var + norm.eps)
    name, scaled = WEIGHTS[type(layer)]
    bias_name = f"{node.layer_name}.{name.removesuffix('W')}b"
    W = arrays[f"{node.layer_name}.{name}"].astype(np.float64)
    bias = arrays.get(bias_name, np.zeros(len(scale)))
    per_channel = -1, *(1,) * (bias.ndim - 1)       # with bias="map" b is (filters, OH, OW)
    shifted = bias - mean.reshape(per_channel)
    return {f"{node.layer_name}.{name}": scaled(layer, W, scale),
            bias_name: scale.reshape(per_channel) * shifted + beta.reshape(per_channel)}
