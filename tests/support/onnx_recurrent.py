"""ONNX operators on our layers: RNN, GRU and LSTM."""

from __future__ import annotations

import xpnet as xn
from xpnet.io import gates


def recurrent(operator):
    return lambda backend, attributes, inputs, outputs: run(operator, backend, attributes, inputs)


def run(operator, backend, attributes, inputs):
    """All outputs: Y (T, directions, N, H), Y_h and Y_c (directions, N, H); with layout=1 N first.
    """
    kind = gates.onnx_kind(operator, attributes, ["" if a is None else "given" for a in inputs])
    X, W, R, B, lengths, *initial = [*inputs, *[None] * 6][:7]
    batch_first = attributes.get("layout", 0) == 1
    H, direction = attributes["hidden_size"], attributes.get("direction", b"forward").decode()
    x = X.transpose(2, 1, 0) if batch_first else X.transpose(2, 0, 1)       # (D, T, N)
    first = [state.transpose(1, 2, 0) if batch_first else state.transpose(0, 2, 1)
             for state in initial if state is not None]                     # (directions, H, N)
    layer = made(kind, H, attributes, bidirectional=direction == "bidirectional",
                 reverse=direction == "reverse", lengths=lengths is not None, bias=B is not None)
    scans = len(layer.ways)
    state_shape = (H,) if scans == 1 else (2, H)
    arrays = [x, *([] if lengths is None else [lengths[None]]),
              *(state.reshape(*state_shape, -1) for state in first)]
    layer.initialize(*(a.shape[:-1] for a in arrays), backend=backend, dtype=X.dtype)
    parameters = {p.name: p for p in layer.parameters}
    for k, way in enumerate(layer.ways):
        weights = gates.from_onnx(kind, W[k], R[k], None if B is None else B[k])
        for name, values in weights.items():
            parameters[f"{way}1.{name}"].data[...] = backend.asarray(values)
    out = layer.forward(*(backend.asarray(a, X.dtype) for a in arrays))
    y, *states = (backend.to_numpy(a) for a in layer.unpacked(out))
    Y = y.reshape(scans, H, *y.shape[1:]).transpose(2, 0, 3, 1)     # (T, directions, N, H)
    states = [a.reshape(scans, H, -1).transpose(0, 2, 1) for a in states]
    if batch_first:
        return [Y.transpose(2, 0, 1, 3), *(a.transpose(1, 0, 2) for a in states)]
    return [Y, *states]


def made(kind, units, attributes, **options):
    options |= {"return_sequences": True, "return_state": True}
    if kind == "rnn":
        name, *_ = attributes.get("activations", [b"Tanh"])
        return xn.SimpleRNN(units, activation=name.decode().lower(), **options)
    if kind == "lstm":
        return xn.LSTM(units, **options)
    return xn.GRU(units, reset="after" if kind == "gru" else "before", **options)


OPERATORS = {"RNN": recurrent("RNN"), "GRU": recurrent("GRU"), "LSTM": recurrent("LSTM")}
WITH_WINDOWS = ()       # operators of which only the cases with two spatial axes count
# the reasons why cases cannot pass
REASONS = {"the gates of LSTM do not read c": ["test_lstm_with_peepholes"]}
