"""Sequences of different lengths in a graph: which values have steps that may be padding.

An Input with lengths has a companion, the Input of the numbers of steps, shape (1,). It is
`node.lengths` of every value (features, steps) with these steps. Causal layers, in which no step
reads a later one, pass it on: padding comes last, so no real step reads it. Layers that need the
numbers get them among their inputs, and all others are refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.node import Node

# What a layer class says in `steps`: no step reads a later one; it takes the lengths of its first
# input as its second one; it takes those of its keys as its last input.
CAUSAL, LENGTHS, KEYS = "causal", "lengths", "keys"


def with_lengths(layer: Any, inputs: tuple[Node, ...]) -> tuple[Node, ...]:
    """The inputs of a use of a layer, with the numbers of steps among them if it reads them.

    The layer's flag `lengths` is set, so that it is saved with these inputs.
    """
    if layer.steps not in (LENGTHS, KEYS) or any(node.lengths in inputs for node in inputs):
        return inputs
    number = 1 if layer.steps == KEYS and len(inputs) > 1 else 0
    lengths = inputs[number].lengths
    if lengths is None:
        return inputs
    if layer.built and not layer.lengths:
        raise ValueError(f"{layer.who}: expected a sequence without lengths, as in its first use. "
                         f"Received: {inputs[number]!r} with lengths.")
    layer.lengths = True
    return (inputs[0], lengths, *inputs[1:]) if layer.steps == LENGTHS else (*inputs, lengths)


def lengths_after(layer: Any, inputs: tuple[Node, ...]) -> Node | None:
    """`lengths` of the output of a layer that is built.

    Raises ValueError if the layer would mix steps with padding, or steps of different sequences.
    """
    ragged = [node for node in inputs if node.lengths is not None]
    if not ragged:
        return _of_sequence(layer, inputs[0])
    shape, T = layer.out_shape, ragged[0].shape[-1]
    has_steps = len(shape) == 2 and shape[1] == T
    if layer.steps in (LENGTHS, KEYS):
        others = {node.lengths for node in inputs[1:] if len(node.shape) == 2}
        if others - {None} if layer.steps == LENGTHS else len(others) > 1:
            raise ValueError(f"{layer.who}: expected lengths of the first input, and the same ones "
                             f"of keys and values. Received: {ragged} with lengths.")
        return inputs[0].lengths if len(shape) == 2 else None
    if layer.steps != CAUSAL or not has_steps:
        raise ValueError(f"{layer.who}: expected samples of one length, because its steps may read "
                         "padding; causal convolutions and recurrent layers, for example, take "
                         'lengths, and a class of your own may say steps = "causal". Received: '
                         f"{ragged[0]!r} with lengths.")
    if len({node.lengths for node in ragged}) > 1:
        raise ValueError(f"{layer.who}: expected inputs with the same steps. Received: {ragged} "
                         "with lengths of different inputs.")
    return ragged[0].lengths


def _of_sequence(layer: Any, part: Node) -> Node | None:
    """`lengths` of Y that Slice and Reshape take from the output of a recurrent layer with
    return_state, see xpnet/layers/states.py; None for any other value."""
    if len(layer.out_shape) == 2 and getattr(part.layer, "start", None) == 0:
        whole = part.parents[0]
        if getattr(whole.layer, "packed_shapes", ())[:1] == (layer.out_shape,):
            return whole.parents[0].lengths
    return None
