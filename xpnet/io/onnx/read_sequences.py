"""Recurrent layers from ONNX's operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.checks import shown
from xpnet.io.gates import from_onnx, onnx_kind
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.nodes import Operation
from xpnet.io.onnx.read_activations import Read
from xpnet.io.onnx.write_sequences import NAMES

# alpha and beta of an RNN's activations that the file leaves out; others have none
CONSTANTS = {"LeakyRelu": (0.01, None), "Elu": (1.0, None), "ThresholdedRelu": (1.0, None),
             "HardSigmoid": (0.2, 0.5)}
LAYERS = {"rnn": L.SimpleRNN, "lstm": L.LSTM, "gru": L.GRU, "gru_before": L.GRU}


def recurrent(op: Reading) -> list[Any]:
    """Y, Y_h and, of an LSTM, Y_c.

    ONNX's sequences are (T, N, D), or (N, T, D) with layout=1, and its outputs have an axis of
    directions.
    """
    try:
        kind = onnx_kind(op.kind, op.attributes, op.operation.inputs)
    except ValueError as error:
        raise UnsupportedError(str(error).rstrip(".")) from error
    value, layout = op.value(), op.attribute("layout", 0)
    if len(value.shape) != 2 or value.batch != (0 if layout else 1):
        raise UnsupportedError("its input is no sequence with the batch where `layout` says")
    direction = op.attribute("direction", "forward")
    if direction not in ("forward", "reverse", "bidirectional"):
        raise UnsupportedError(f"its direction is {shown(direction)}")
    ways = ("forward", "reverse") if direction == "bidirectional" else (direction,)
    directions = len(ways)
    W, R = op.numbers(1, "W"), op.numbers(2, "R")
    B = op.numbers(3, "B") if op.given(3) else None
    arrays = {f"{way}1.{name}": array for d, way in enumerate(ways)
              for name, array in from_onnx(kind, W[d], R[d], None if B is None else B[d]).items()}
    T, H = value.shape[0], R.shape[-1]
    y_used, h_used, c_used = op.used
    # alone, the last h is the layer's output
    options: dict[str, Any] = {"bidirectional": directions == 2, "reverse": ways[0] == "reverse",
                               "return_sequences": y_used, "bias": B is not None,
                               "return_state": c_used or y_used and h_used}
    inputs = [op.permuted(value, (1, 0))]                                   # (D, T)
    options["lengths"] = _add_lengths(op, inputs, T)
    if op.operation.kind == "RNN":
        options["activation"] = _activation(op)
    _add_states(op, inputs, directions, H)
    if kind == "gru_before":
        options["reset"] = "before"
    found = op.add(LAYERS[kind](H, **options), *inputs, arrays=arrays, key=op.key(1, 2, 3))
    return _outputs(op, found, (T, directions, H))


def share_outputs(used: dict[Operation, list[bool]]) -> None:
    """Recurrent operators with the same weights become uses of one layer, which has one set of
    outputs: mark what is used of one of them as used of all."""
    weights = {operation: (operation.kind, *operation.inputs[1:4]) for operation in used
               if operation.kind in READ}
    needed: dict[tuple[str, ...], set[int]] = {names: set() for names in weights.values()}
    for operation, names in weights.items():
        needed[names].update(number for number, flag in enumerate(used[operation]) if flag)
    for operation, names in weights.items():
        used[operation] = [number in needed[names] for number in range(3)]


def _add_lengths(op: Reading, inputs: list[Value], T: int) -> bool:
    """Whether the steps of each sample are an input of the layer, which is added to `inputs`."""
    if not op.given(4):
        return False
    if isinstance(op.inputs[4], Value):
        value = op.value(4)
        inputs.append(op.viewed(value, (1,)))
        return True
    if (op.array(4, "lengths") != T).any():
        raise UnsupportedError("its samples have fixed lengths other than the whole sequence")
    return False


def _add_states(op: Reading, inputs: list[Value], directions: int, H: int) -> None:
    """First states that depend on samples are inputs; zeros are left out."""
    given = [number for number in (5, 6) if op.given(number)]
    states = [number for number in given if isinstance(op.inputs[number], Value)]
    for number in given:
        if number not in states and np.any(op.array(number, "first state")):
            raise UnsupportedError("its first state is constant and not 0")
    if states and len(states) != (2 if op.kind == "LSTM" else 1):
        raise UnsupportedError("it has one of two first states")
    for number in states:
        value = op.value(number)
        if math.prod(value.shape) != directions * H:
            raise UnsupportedError("its first state has another shape")
        inputs.append(op.viewed(value, (H,) if directions == 1 else (directions, H)))


def _activation(op: Reading) -> str:
    """Our name of an RNN's activation, with the constants that it has there."""
    wanted, *_ = op.attribute("activations") or ["Tanh"]
    given = [op.attribute(f"activation_{letter}", default) for letter, default in zip(
        ("alpha", "beta"), CONSTANTS.get(wanted, (None, None)), strict=True)]
    for ours, (name, *constants) in NAMES.items():
        if name == wanted and all(
                constant is None or number is not None and np.allclose(number, constant)
                for number, constant in zip(given, constants, strict=True)):
            return ours
    raise UnsupportedError(f"no activation here is {wanted} with these constants")


def _outputs(op: Reading, found: Value, shape: tuple[int, int, int]) -> list[Any]:
    """Y (T, directions, N, H), Y_h and Y_c (directions, N, H), or with the batch first; None for
    those that are not used."""
    (T, directions, H), layout = shape, op.attribute("layout", 0)
    layer: Any = found.node.layer               # perhaps an earlier one with the same weights
    results: list[Any] = [None] * 3
    if not layer.return_state:
        results[0 if layer.return_sequences else 1] = found
    else:
        start = 0
        for number, part in enumerate(layer.packed_shapes):
            stop = start + math.prod(part)
            if op.used[number]:
                name = ("Y", "Y_h", "Y_c")[number]
                taken = op.add(L.Slice(start, stop), found, suffix=f":{name}")
                results[number] = op.viewed(taken, part)
            start = stop
    Y, *states = results
    if Y is not None:
        Y = op.viewed(op.permuted(Y, (1, 0)), (T, directions, H), 0 if layout else 2)
    return [Y, *(None if state is None else op.viewed(state, (directions, H), 0 if layout else 1)
                 for state in states)]


READ: dict[str, Read] = {"RNN": recurrent, "LSTM": recurrent, "GRU": recurrent}
