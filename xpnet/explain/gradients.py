"""How large the gradients of a loss are, layer by layer."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import expect_instance
from xpnet.graph import Graph
from xpnet.node import Node, layer_of
from xpnet.training.gradients import input_gradient

WHO = "gradient_sizes"


class GradientSize(NamedTuple):
    """The root mean square of the gradients at one layer.

    name: of the layer's output, as `summary` shows it.
    output: of dL/dy, the gradient with respect to the layer's output.
    parameters: of the gradients of all its parameters; None if it has none.
    """

    name: str
    output: float
    parameters: float | None


def gradient_sizes(net: Graph, x: Any, target: Any, *, loss: Any = None) -> list[GradientSize]:
    """The root mean square of the gradients of a loss at each layer, in the order of computation:
    sqrt(mean of g^2).

    If the sizes fall from the last layer to the first one, the first layers learn slowly: the
    gradient vanishes (Hochreiter 1991; Glorot and Bengio 2010, section 4). The network is in
    prediction mode: dropout is off, batch norm uses its running statistics. Nothing in it changes.

    Args:
        net: the network.
        x: samples, batch-first, one batch.
        target: targets of the loss.
        loss: that of the last fit by default.

    Raises:
        ValueError: x, the target and the loss do not fit the network.
    """
    expect_instance(WHO, "net", net, Graph, "a Network")
    found: dict[Node, GradientSize] = {}

    def hook(node: Node, backward: Any, dys: Any) -> Any:
        dxs = backward(*dys)
        layer = layer_of(node)
        grads = [p.grad for p in layer.parameters]
        found[node] = GradientSize(node.name, _size(net, dys), _size(net, grads) if grads else None)
        return dxs

    input_gradient(net, x, target, loss=loss, hook=hook)
    return [found[node] for node in net.nodes if node in found]


def _size(net: Graph, arrays: Any) -> float:
    values = [np.asarray(net.backend.to_numpy(a), np.float64) for a in arrays]
    return float(np.sqrt(sum((a * a).sum() for a in values) / sum(a.size for a in values)))
