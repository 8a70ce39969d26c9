"""Recurrent layers from ONNX's operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.gates import from_onnx, onnx_kind
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.read_activations import Read
from xpnet.io.onnx.write_sequences import NAMES

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
    directions = 2 if direction == "bidirectional" else 1
    W, R = op.numbers(1, "W"), op.numbers(2, "R")
    B = op.numbers(3, "B") if op.given(3) else None
    weights = [from_onnx(kind, W[d], R[d], None if B is None else B[d]) for d in range(directions)]
    T, H = value.shape[0], R.shape[-1]
    y_used, h_used, c_used = [*op.used, False, False][:3]
    # alone, the last h is the layer's output
    options: dict[str, Any] = {"return_sequences": y_used, "bias": B is not None,
                               "return_state": c_used or y_used and h_used}
    inputs = [op.permuted(value, (1, 0))]                                   # (D, T)
    options["lengths"] = _add_lengths(op, inputs, T)
    if op.operation.kind == "RNN":
        options["activation"] = _activation(op, directions)
    _add_states(op, inputs, directions, H)
    if direction == "reverse":
        y, arrays = _reversed(op, kind, options, weights[0], H)
    else:
        if kind == "gru_before":
            options["reset"] = "before"
        y = LAYERS[kind](H, bidirectional=directions == 2, **options)
        arrays = {f"{way}1.{name}": array
                  for way, one in zip(("forward", "reverse"), weights, strict=False)
                  for name, array in one.items()}
    found = op.add(y, *inputs, arrays=arrays, key=op.key(1, 2, 3))
    return _outputs(op, found, (T, directions, H))


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


def _activation(op: Reading, directions: int) -> str:
    """Our name of an RNN's activation, with the constants that it has there."""
    names = op.attribute("activations") or ["Tanh"] * directions
    alphas, betas = op.attribute("activation_alpha"), op.attribute("activation_beta")
    for ours, (name, alpha, beta) in NAMES.items():
        if name != names[0]:
            continue
        if all(given is None or np.allclose(given, constant if constant is not None else given)
               for given, constant in ((alphas, alpha), (betas, beta))):
            return ours
    raise UnsupportedError(f"no activation here is {names[0]} with these constants")


def _reversed(op: Reading, kind: str, options: dict[str, Any], weights: dict[str, np.ndarray],
              H: int) -> tuple[Any, dict[str, np.ndarray]]:
    """From the last step to the first one, which only a layer around a cell does alone."""
    if kind != "rnn" or options.pop("activation") != "tanh" or not options.pop("bias"):
        raise UnsupportedError("layers here read forward or both ways; only an RNN with tanh and a "
                               "bias reads in reverse alone")
    return L.RNN(L.ElmanCell(H), reverse=True, **options), {
        f"cell.{name}": array for name, array in weights.items()}


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
            if number < len(op.used) and op.used[number]:
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
