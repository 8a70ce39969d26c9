"""Gradients with respect to a network's input: saliency maps, adversarial examples."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import finite_array
from xpnet.dlpack import host_array
from xpnet.graph import Graph
from xpnet.inspect.memory import explained
from xpnet.layer import Array
from xpnet.node import Node
from xpnet.passes import Hook
from xpnet.training.batches import Batches, check_samples, finite_samples
from xpnet.training.goals import known_goals
from xpnet.training.prediction import as_given


def input_gradient(net: Graph, x: Any, target: Any = None, *, lengths: Any = None,
                   loss: Any = None, output_gradient: Any = None, hook: Hook | None = None
                   ) -> Any:
    """dx = dL/dx for a loss L of the targets, or dx = d(sum of G y)/dx for a given G.

    The network is in prediction mode: dropout is off, batch norm uses its running statistics. x is
    one batch. Parameters, gradients and state stay as they are. With G one-hot this is the saliency
    map of a class (Simonyan et al. 2014, section 3), with a loss the direction of adversarial
    examples (Goodfellow et al. 2015, section 4).

    Args:
        net: the network.
        x: batch-first samples (N, ...), for several inputs a list or dict of arrays.
        target: targets of the loss.
        lengths: see `fit`. The gradient of padding is 0.
        loss: with a target; by default the loss of the last fit, with its loss_weights.
        output_gradient: G, batch-first and shaped like the output, instead of a target.
        hook: called for each node in the backward pass, see Graph.run_backward.

    Returns:
        A batch-first NumPy array like x, or a list of arrays; for several inputs a list or dict.
    """
    who = "input_gradient"
    if (target is None) == (output_gradient is None):
        raise ValueError(f"{who}: expected a target or an output_gradient. Received: "
                         f"{'neither' if target is None else 'both'}.")
    aims = known_goals(net, loss, None, who) if output_gradient is None else ()
    if aims:
        data: list[Any] = check_samples(net, x, target, aims, who, lengths)
    else:
        data = [*finite_samples(net, x, who, lengths)]
        data += _given(net, output_gradient, len(data[0]))
    nodes = [goal.node for goal in aims] or list(net.outs.nodes)
    count, backend = len(net.in_nodes), net.backend
    with explained(net, who, len(data[0])), backend.stream():
        batch, before = Batches(net, data, len(data[0])).get(0), net.grads.copy()
        try:
            xs, given = batch[:count], batch[count:]
            ys, masks = net.run(xs, nodes, keep=True), net.masks(xs, nodes)
            dys = ([goal.gradient(backend, y, target, mask=mask)[1]
                    for goal, y, target, mask in zip(aims, ys, given, masks, strict=True)]
                   if aims else net.without_padding(xs, nodes, given))
            gradients = [*zip(nodes, dys, strict=True)]
            dxs = net.run_backward(gradients, hook=hook, to_inputs=True)
        finally:
            net.forget()
            net.grads[...] = before
        found = [_batch_first(net, node, dx, batch[0].shape[-1])
                 for node, dx in zip(net.ins.nodes, dxs, strict=True)]
        return net.ins.pack(as_given(net, data, net.ins.nodes, found, lengths))


def _given(net: Graph, output_gradient: Any, samples: int) -> list[np.ndarray]:
    """A gradient for each output, checked."""
    found = []
    given = net.outs.unpack(output_gradient, "input_gradient", "output_gradient")
    for node, g in zip(net.outs.nodes, given, strict=True):
        g = host_array(g, "input_gradient: output_gradient", net.backend)
        g = finite_array(g, "input_gradient: output_gradient", net.dtype)
        if g.shape != (samples, *node.shape):
            raise ValueError("input_gradient: expected output_gradient of shape "
                             f"{(samples, *node.shape)}. Received: shape {g.shape}.")
        found.append(g.astype(net.dtype, copy=False))
    return found


def _batch_first(net: Graph, node: Node, dx: Array | None, samples: int) -> np.ndarray:
    if dx is None:                      # no output depends on this input
        return np.zeros((samples, *node.shape), net.dtype)
    return np.ascontiguousarray(np.moveaxis(net.backend.to_numpy(dx), -1, 0))
