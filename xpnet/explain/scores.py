"""Gradients of a class's score with respect to the input, and with respect to a layer's output."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import expect_instance, finite_array, is_integer, wrong
from xpnet.graph import Graph
from xpnet.graph_checks import softmax_below
from xpnet.inspect.memory import explained
from xpnet.layer import Array
from xpnet.layers.softmax import Softmax
from xpnet.node import Node
from xpnet.training.batches import Batches, finite_samples


def scores_of(who: str, net: Graph) -> Node:
    """The node of the class scores (K,): the output, or the input of a softmax at the end, because
    a probability also grows when the scores of other classes fall (Simonyan et al. 2014)."""
    expect_instance(who, "net", net, Graph, "a Network")
    net.expect_whole(who)
    nodes = net.outs.nodes
    if len(net.in_nodes) > 1 or len(nodes) > 1 or len(nodes[0].shape) != 1:
        raise ValueError(f"{who}: expected a network with one input and one output (K,) of class "
                         f"scores. Received: {len(net.in_nodes)} inputs and outputs of shapes "
                         f"{[node.shape for node in nodes]}.")
    node = nodes[0]
    if softmax_below(node):
        while not isinstance(node.layer, Softmax):
            node = node.parents[0]
        node = node.parents[0]
    if len(node.shape) != 1:
        raise ValueError(f"{who}: expected scores (K,) below the softmax. Received: {node.shape}.")
    return node


def expect_targets(who: str, target: Any, samples: int, classes: int) -> np.ndarray | None:
    """The class of each sample (N,), or None."""
    if target is None:
        return None
    if is_integer(target, 0, classes - 1):
        return np.full(samples, int(target))
    numbers = finite_array(target, f"{who}: target")
    if (numbers.shape != (samples,) or (numbers != numbers.astype(np.int64)).any()
            or samples and (numbers.min() < 0 or numbers.max() >= classes)):
        raise wrong(who, f"target to be None, or a class from 0 to {classes - 1}, or one for each "
                    f"of {samples} samples", "target", target)
    return numbers.astype(np.int64)


class ScoreGradients(NamedTuple):
    """For N samples, batch-first: their `targets` (N,), the `scores` (N, K), the `value` of a node
    and the `gradient` of the target's score with respect to it, (N, ...)."""

    targets: np.ndarray
    scores: np.ndarray
    value: np.ndarray
    gradient: np.ndarray


def score_gradients(who: str, net: Graph, x: Any, target: Any, layer: str | None = None
                    ) -> ScoreGradients:
    """The gradients of class scores with respect to the output of a layer, or to the input.

    The network is in prediction mode, and does not change. x is one batch.

    Args:
        target: a class, or one for each sample; None for the class with the largest score.
        layer: the name of a layer; None for the input.
    """
    score = scores_of(who, net)
    node = net.in_nodes[0] if layer is None else net.node(layer)
    data: list[Any] = [*finite_samples(net, x, who)]
    samples, K = len(data[0]), score.shape[0]
    targets = expect_targets(who, target, samples, K)
    backend = net.backend
    with explained(net, who, samples), backend.stream():
        batch, before = Batches(net, data, samples).get(0), net.grads.copy()
        arrived: list[Array] = []

        def hook(one: Node, backward: Any, dys: Any) -> Any:
            if one is node:
                arrived.append(backend.to_numpy(dys[0]).copy())
            return backward(*dys)

        try:
            nodes = [score] if node.layer is None else [score, node]
            y, *values = net.run(batch, nodes, keep=True)
            scores = backend.to_numpy(y).T.copy()                           # (N, K)
            targets = scores.argmax(axis=1) if targets is None else targets
            chosen = np.zeros((K, samples), net.dtype)
            chosen[targets, np.arange(samples)] = 1
            dxs = net.run_backward([(score, backend.asarray(chosen))], hook=hook, to_inputs=True)
        finally:
            net.forget()
            net.grads[...] = before
        value = backend.to_numpy((values or batch)[0])
        if node.layer is None and dxs[0] is not None:
            arrived.append(backend.to_numpy(dxs[0]))
        dx = arrived[0] if arrived else np.zeros_like(value)    # the score does not depend on it
    value, gradient = (np.ascontiguousarray(np.moveaxis(a, -1, 0)) for a in (value, dx))
    return ScoreGradients(targets, scores, value, gradient)
