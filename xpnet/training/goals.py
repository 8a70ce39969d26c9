"""What a network is trained for: the loss of each output, and the value that the loss reads."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, NamedTuple

from xpnet.backends import Backend
from xpnet.checks import expect_number
from xpnet.graph import Graph
from xpnet.graph_checks import softmax_below
from xpnet.layer import Array
from xpnet.layers import Activation, Softmax
from xpnet.losses import Loss, get_loss
from xpnet.node import Node


class Goal(NamedTuple):
    """The loss of one output."""

    name: str           # of the output
    output: Node
    node: Node          # the value that the loss reads
    loss: Loss
    weight: float       # the factor of this loss in their sum

    def gradient(self, backend: Backend, y: Array, target: Array, *weights: Array,
                 mask: Array | None) -> tuple[Array, Array]:
        """The loss, and its gradient with respect to y times `weight`; see Loss.checked."""
        loss, dy = self.loss.checked(backend, y, target, *weights, mask=mask)
        return loss, dy if self.weight == 1 else dy * self.weight


def goals(net: Graph, loss: Any, loss_weights: Any, who: str) -> tuple[Goal, ...]:
    """The goal of each output.

    Args:
        loss: a loss or its name, for every output; or a list or dict of them, as the outputs are.
        loss_weights: numbers, 0 or larger, as the outputs are; None for 1.
        who: the caller, for errors.
    """
    outs = net.outs
    one = isinstance(loss, str | Loss) or outs.single
    losses = (loss,) * len(outs) if one else outs.unpack(loss, who, "losses")
    weights = ((1.0,) * len(outs) if loss_weights is None
               else outs.unpack(loss_weights, who, "loss_weights"))
    found = []
    for name, output, given, weight in zip(outs.names, outs.nodes, losses, weights, strict=True):
        node, read = loss_input(output, get_loss(given))
        if node.lengths is not None:
            _expect_steps(node, read, who)
        found.append(Goal(name, output, node, read, expect_number(who, "loss_weights", weight, 0)))
    return tuple(found)


def _expect_steps(node: Node, loss: Loss, who: str) -> None:
    """Raise ValueError if the loss cannot leave out the padding of a value with lengths."""
    if not loss.of_places or "mask" not in inspect.signature(loss).parameters:
        raise ValueError(f"{who}: expected a loss with terms of each step, which takes a mask, for "
                         f"an output with lengths. Received: {loss.who}.")


def known_goals(net: Graph, loss: Any, loss_weights: Any, who: str) -> tuple[Goal, ...]:
    """The goals of these losses, or by default of the network's last fit, in another process too.
    """
    if loss is not None:
        return goals(net, loss, loss_weights, who)
    known = net.trained
    if not known.losses:
        raise ValueError(f'{who}: expected loss, e.g. "cross_entropy", for a network that was not '
                         "trained. Received: loss=None.")
    own = [name for name in known.losses if isinstance(name, str)]
    if own:
        raise ValueError(f"{who}: expected loss=..., because the network was trained with a loss "
                         f"that is not part of xpnet, {own[0]}, and a file holds only its name. "
                         "Received: loss=None.")
    weights = net.outs.pack(known.loss_weights) if loss_weights is None else loss_weights
    return goals(net, net.outs.pack(known.losses), weights, who)


def loss_input(output: Node, loss: Loss) -> tuple[Node, Loss]:
    """The value that the loss reads, and the loss of this value.

    That is the output. But if the loss has its own softmax or sigmoid and the last layer is one
    too, it is what this layer reads.
    """
    if loss.reduction == "none":
        raise ValueError(f"{loss.who}: expected reduction 'mean', 'batchmean' or 'sum', for "
                         "training and evaluation. Received: reduction='none'.")
    last, own = output.layer, loss.takes_logits
    sigmoid = getattr(last, "activation", None) in ("sigmoid", "logistic")
    if loss.of_logits is not None and sigmoid and isinstance(last, Activation):
        return output.parents[0], loss.of_logits
    below = {"": False, "softmax": softmax_below(output), "sigmoid": sigmoid}
    if last is None or not below[own]:
        return output, loss
    if isinstance(last, Activation) or isinstance(last, Softmax) and last.of_logits:
        return output.parents[0], loss
    place = "in" if isinstance(last, Softmax) or own == "sigmoid" else "below"
    raise ValueError(f"{type(loss).__name__}: expected logits, or a {own.capitalize()} as the very "
                     f"last layer. Received: a {own} {place} {last.who}; {own} would be applied "
                     "twice.")


def probability(backend: Backend, goal: Goal) -> Callable[[Array], Array]:
    """The function that makes probabilities of an output, batch-last: softmax, sigmoid or identity.
    """
    # If the loss does not read the output itself, the last layer is the softmax or sigmoid.
    if not goal.loss.takes_logits or goal.node is not goal.output:
        return lambda y: y
    if goal.loss.takes_logits == "softmax":
        return backend.softmax
    return lambda y: backend.activate(y, "sigmoid")
