"""Grad-CAM: where in the feature maps of a layer a class score comes from."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_instance, wrong
from xpnet.explain.scores import score_gradients
from xpnet.graph import Graph

WHO = "grad_cam"


def grad_cam(net: Graph, x: Any, target: Any = None, *, layer: str | None = None) -> np.ndarray:
    """The Grad-CAM map L[n] = max(0, sum over k of a[n, k] A[n, k]), with a[n, k] = the mean over
    positions of dS / dA[n, k].

    A (N, K, H', W') are the feature maps of the layer, S is the class score: the network's output,
    or what its last softmax reads. L (N, H', W') has the size of the maps, and is enlarged when it
    is drawn on the image. Selvaraju et al. 2017, equations 1 and 2.

    Args:
        net: a network with one input and one output of class scores.
        x: samples, batch-first, one batch.
        target: a class, or one for each sample; by default the class with the largest score.
        layer: the name of a layer of feature maps; by default the last one.

    Raises:
        ValueError: the network, x or the target do not fit, or the layer has no feature maps.
    """
    found = score_gradients(WHO, net, x, target, layer_of(WHO, net, layer))
    weights = found.gradient.mean(axis=(2, 3), keepdims=True)       # (N, K, 1, 1)
    return np.maximum((weights * found.value).sum(axis=1), 0)


def layer_of(who: str, net: Graph, layer: str | None) -> str:
    """The name of a layer of feature maps; by default the last one."""
    expect_instance(who, "net", net, Graph, "a Network")
    nodes = net.nodes if layer is None else [net.node(layer)]
    maps = [node.name for node in nodes if len(node.shape) == 3]
    if not maps:
        raise wrong(who, "layer to be the name of a layer with feature maps", "layer", layer)
    return maps[-1]
