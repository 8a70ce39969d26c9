"""Recurrent layers and attention as ONNX's operators."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.backends.activations import SCALE, SLOPE
from xpnet.io.gates import to_onnx
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.write_activations import Write
from xpnet.io.onnx.write_shapes import reshaped
from xpnet.io.onnx.write_windows import linear, sliced
from xpnet.io.onnx.writer import Use
from xpnet.layer import Layer

# ONNX's names of activations, with their alpha and beta
NAMES: dict[str, tuple[str, float | None, float | None]] = {
    "relu": ("Relu", None, None), "tanh": ("Tanh", None, None),
    "sigmoid": ("Sigmoid", None, None), "logistic": ("Sigmoid", None, None),
    "softsign": ("Softsign", None, None), "softplus": ("Softplus", None, None),
    "linear": ("Affine", 1.0, 0.0), "scaled_tanh": ("ScaledTanh", SCALE, SLOPE),
    "leaky_relu": ("LeakyRelu", 0.01, None), "relie": ("LeakyRelu", 0.01, None),
    "elu": ("Elu", 1.0, None), "hard_sigmoid": ("HardSigmoid", 1 / 6, 0.5),
    "thresholded_relu": ("ThresholdedRelu", 1.0, None),
}


def activation_attributes(name: str, directions: int) -> dict[str, Any]:
    """The attributes that give an activation to each direction of an RNN."""
    if name not in NAMES:
        raise UnsupportedError(f"ONNX's RNN has no activation {name!r}")
    onnx_name, alpha, beta = NAMES[name]
    found: dict[str, Any] = {"activations": [onnx_name] * directions}
    if alpha is not None:
        found["activation_alpha"] = [alpha] * directions
    if beta is not None:
        found["activation_beta"] = [beta] * directions
    return found


def scan(use: Use, kind: str, x: str, scans: Sequence[Any], lengths: str, states: Sequence[str],
         prefix: str, outputs: int = 2, **attributes: Any) -> list[str]:
    """Y (T, directions, N, H), Y_h and Y_c (directions, N, H) of one operator.

    Args:
        kind: of the equations, see xpnet.io.gates.
        x: (T, N, D).
        scans: one layer in one direction, or in both.
        lengths: (N,), or "".
        states: first states (directions, N, H), or none.
        prefix: of the names of the initializers.
        outputs: how many are returned; only an LSTM has three.
    """
    arrays = [to_onnx(kind, {name: use.values(p) for name in ("W", "U", "b", "c")
                             if (p := getattr(one, name, None))}) for one in scans]
    inputs = [x]
    for name, parts in zip(("W", "U", "b"), zip(*arrays, strict=True)):
        inputs.append("" if parts[0] is None else
                      use.initializer(f"{prefix}{name}", np.stack(parts)))
    inputs += [lengths, *states]
    while inputs[-1] == "":
        inputs.pop()
    if kind == "gru":
        attributes["linear_before_reset"] = 1
    return use.several(kind.removesuffix("_before").upper(), outputs, *inputs,
                       hidden_size=scans[0].units, **attributes)


def recurrent(use: Use, layer: Any, x: str, *more: str) -> str:
    """Each layer is one operator, for one direction or for both."""
    kind = {L.SimpleRNN: "rnn", L.LSTM: "lstm"}.get(type(layer))
    if kind is None:
        kind = "gru" if layer.reset == "after" else "gru_before"
    directions = len(layer.ways)
    attributes: dict[str, Any] = {
        "direction": "bidirectional" if layer.bidirectional else layer.ways[0]}
    if kind == "rnn":
        attributes |= activation_attributes(layer.activation, directions)
    lengths = _lengths(use, more[0]) if layer.lengths else ""
    states = [_first_states(use, state, layer.layers * directions)
              for state in (more[1:] if layer.lengths else more)]
    h = use("Transpose", x, perm=(2, 0, 1))                                 # (T, N, D)
    ends = []                                   # Y_h, or Y_h and Y_c, of each layer
    for level, scans in enumerate(layer.scans):
        first = level * directions
        own = [state if layer.layers == 1 else
               sliced(use, state, 0, first, first + directions) for state in states]
        prefix = "" if layer.layers == 1 else f"{level + 1}."
        Y, *last = scan(use, kind, h, scans, lengths, own, prefix, 1 + layer.carried, **attributes)
        ends.append(last)
        if level + 1 < layer.layers or layer.return_sequences:
            h = _joined(use, Y, directions * layer.units)
    return _output(use, layer, h, ends, directions * layer.units)


def _joined(use: Use, Y: str, rows: int) -> str:
    """Y (T, directions, N, H) as (T, N, rows)."""
    by_steps = use("Transpose", Y, perm=(0, 2, 1, 3))
    return use("Reshape", by_steps, use.ints([0, 0, rows], "shape"))


def _output(use: Use, layer: Any, h: str, ends: Sequence[Sequence[str]], rows: int) -> str:
    """(N, rows, T) of the states h (T, N, rows), or the last states (N, rows); with return_state a
    vector with the final states of all layers behind it, see xpnet/layers/states.py."""
    if layer.return_sequences:
        y = use("Transpose", h, perm=(1, 2, 0))
    else:
        y = reshaped(use, use("Transpose", ends[-1][0], perm=(1, 0, 2)), rows)
    if not layer.return_state:
        return y
    parts = [reshaped(use, y, -1)]
    for of_kind in zip(*ends, strict=True):                                 # h, and c of an LSTM
        state = of_kind[0] if len(of_kind) == 1 else use("Concat", *of_kind, axis=0)
        parts.append(reshaped(use, use("Transpose", state, perm=(1, 0, 2)), -1))
    return use("Concat", *parts, axis=1)


def _lengths(use: Use, lengths: str) -> str:
    flat = use("Reshape", lengths, use.ints([-1], "shape"))
    return use("Cast", flat, to=use.draft.onnx.TensorProto.INT32)


def _first_states(use: Use, state: str, scans: int) -> str:
    """(N, H) or (N, scans, H) as (scans, N, H)."""
    if scans == 1:
        return use("Unsqueeze", state, use.ints([0], "axes"))
    return use("Transpose", state, perm=(1, 0, 2))


def around_cell(use: Use, layer: L.RNN, x: str, *more: str) -> str:
    """A recurrent layer around an ElmanCell, which is ONNX's RNN."""
    if type(layer.cell) is not L.ElmanCell:
        raise UnsupportedError(f"ONNX has no operator for the cell {type(layer.cell).__name__}")
    lengths = _lengths(use, more[0]) if layer.lengths else ""
    states = [_first_states(use, state, 1) for state in (more[1:] if layer.lengths else more)]
    h = use("Transpose", x, perm=(2, 0, 1))
    Y, *last = scan(use, "rnn", h, [layer.cell], lengths, states, "cell.",
                    direction="reverse" if layer.reverse else "forward")
    if layer.return_sequences:
        h = _joined(use, Y, layer.units)
    return _output(use, layer, h, [last], layer.units)


def elman_cell(use: Use, layer: L.ElmanCell, x: str, state: str) -> str:
    z = use("Gemm", x, use.parameter(layer.W), use.parameter(layer.b), transB=1)
    return use("Tanh", use("Add", z, use("Gemm", state, use.parameter(layer.U), transB=1)))


def attention(use: Use, layer: L.MultiHeadAttention, x: str, *others: str) -> str:
    lengths, others = (others[-1], others[:-1]) if layer.lengths else ("", others)
    keys, values = (others[0], others[-1]) if others else (x, x)
    (D, T), (_, S), h = layer.in_shapes[0], layer.key.in_shapes[0], layer.heads

    def by_heads(child: L.Linear, value: str, steps: int) -> str:
        return reshaped(use, linear(use, child, value), h, D // h, steps)   # (N, h, d, steps)

    Q, K, V = (by_heads(child, value, steps) for child, value, steps in (
        (layer.query, x, T), (layer.key, keys, S), (layer.value, values, S)))
    B = use("MatMul", use("Transpose", K, perm=(0, 1, 3, 2)), Q)            # (N, h, S, T)
    B = use("Mul", B, use.constant(layer.scale, "scale"))
    if layer.mask:
        hidden = np.where(np.tri(T, dtype=bool).T, 0, -np.inf)
        B = use("Add", B, use.constant(hidden, "mask"))
    if lengths:                 # the weights of padding are 0, also if there is nothing else
        real = _real(use, lengths, S, (1, 1, S, 1))
        B = use("Where", real, B, use.constant(np.finfo(use.draft.dtype).min, "lowest"))
        A = use("Where", real, use("Softmax", B, axis=2), use.constant(0, "zero"))
    else:
        A = use("Softmax", B, axis=2)
    y = linear(use, layer.output, reshaped(use, use("MatMul", V, A), D, T))
    if not lengths or others:
        return y
    return use("Where", _real(use, lengths, T, (1, 1, T)), y, use.constant(0, "zero"))


def _real(use: Use, lengths: str, steps: int, shape: tuple[int, ...]) -> str:
    """Which steps are before the ends of the samples, for arrays (N, ..., steps, ...)."""
    ends = use("Reshape", lengths, use.ints([0, *(1,) * (len(shape) - 1)], "shape"))
    return use("Less", use.constant(np.arange(steps).reshape(shape), "steps"), ends)


WRITE: dict[type[Layer], Write] = {
    L.SimpleRNN: recurrent, L.GRU: recurrent, L.LSTM: recurrent, L.RNN: around_cell,
    L.ElmanCell: elman_cell, L.MultiHeadAttention: attention,
}
