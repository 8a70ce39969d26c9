"""Weights of recurrent layers in other libraries' layouts: the libraries' equations, written down
as they document them, give what our layers give."""

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn
from xpnet.io import gates

D, H, T, N = 3, 4, 5, 2
GATES = {"rnn": 1, "lstm": 4, "gru": 3, "gru_before": 3}
LAYERS = {"rnn": xn.SimpleRNN, "lstm": xn.LSTM, "gru": xn.GRU,
          "gru_before": lambda *args, **options: xn.GRU(*args, reset="before", **options)}
every_kind = pytest.mark.parametrize("kind", GATES)


def normal(*shape, seed=0):
    return np.random.default_rng([seed, *shape]).standard_normal(shape)


X = normal(N, T, D)                                         # as Keras has it


def sigmoid(z):
    return 1 / (1 + np.exp(-z))


def ours(kind, weights):
    """The states (N, T, H) of our layer with these weights, for X."""
    layer = LAYERS[kind](H, return_sequences=True, bias="b" in weights)
    layer.initialize((D, T), dtype="float64")
    assert {p.name for p in layer.parameters} == {f"forward1.{name}" for name in weights}
    for p in layer.parameters:
        p.data[...] = weights[p.name.removeprefix("forward1.")]
    y = layer.forward(np.ascontiguousarray(X.transpose(2, 1, 0)))
    return y.transpose(2, 1, 0)


def unrolled(step, states=1):
    """The states h (N, T, H) of step(x, h, ...) -> h, ..., or -> h for a single state."""
    carried, found = (np.zeros((N, H)),) * states, []
    for t in range(T):
        new = step(X[:, t], *carried)
        carried = new if isinstance(new, tuple) else (new,)
        found.append(carried[0])
    return np.stack(found, axis=1)


# --- Keras ----------------------------------------------------------------------------------------

def keras(kind, kernel, recurrent, bias):
    """The calls of Keras's cells, with rows as samples."""
    def of(m, k):
        return m[..., k * H:(k + 1) * H]

    if kind == "rnn":
        return unrolled(lambda x, h: np.tanh(x @ kernel + bias + h @ recurrent))

    def lstm(x, h, c):
        z = x @ kernel + h @ recurrent + bias
        c = sigmoid(of(z, 1)) * c + sigmoid(of(z, 0)) * np.tanh(of(z, 2))
        return sigmoid(of(z, 3)) * np.tanh(c), c

    def gru(x, h):
        input_bias, recurrent_bias = bias if kind == "gru" else (bias, np.zeros_like(bias))
        matrix_x, matrix_inner = x @ kernel + input_bias, h @ recurrent + recurrent_bias
        z = sigmoid(of(matrix_x, 0) + of(matrix_inner, 0))
        r = sigmoid(of(matrix_x, 1) + of(matrix_inner, 1))
        hh = np.tanh(of(matrix_x, 2) + (r * of(matrix_inner, 2) if kind == "gru"
                                        else (r * h) @ of(recurrent, 2)))
        return z * h + (1 - z) * hh

    return unrolled(lstm, 2) if kind == "lstm" else unrolled(gru)


@every_kind
def test_keras(kind):
    rows = GATES[kind] * H
    theirs = [normal(D, rows), normal(H, rows), normal(*(2, rows) if kind == "gru" else (rows,))]
    assert_close(ours(kind, gates.from_keras(kind, *theirs)), keras(kind, *theirs))
    no_bias = np.zeros_like(theirs[2])
    assert_close(ours(kind, gates.from_keras(kind, *theirs[:2])), keras(kind, *theirs[:2], no_bias))


# --- ONNX -----------------------------------------------------------------------------------------

def onnx(kind, W, R, B):
    """The equations of ONNX's operator documentation; test_onnx_cases.py has ONNX's own cases."""
    def of(m, k):
        return m[k * H:(k + 1) * H]

    Wb, Rb = B[:len(W)], B[len(W):]

    def gate(k, x, h):
        return x @ of(W, k).T + h @ of(R, k).T + of(Wb, k) + of(Rb, k)

    if kind == "rnn":
        return unrolled(lambda x, h: np.tanh(gate(0, x, h)))

    def lstm(x, h, c):                                      # i o f c
        i, o, f = (sigmoid(gate(k, x, h)) for k in range(3))
        c = f * c + i * np.tanh(gate(3, x, h))
        return o * np.tanh(c), c

    def gru(x, h):                                          # z r h
        z, r = sigmoid(gate(0, x, h)), sigmoid(gate(1, x, h))
        if kind == "gru":                                   # linear_before_reset = 1
            n = np.tanh(x @ of(W, 2).T + r * (h @ of(R, 2).T + of(Rb, 2)) + of(Wb, 2))
        else:
            n = np.tanh(x @ of(W, 2).T + (r * h) @ of(R, 2).T + of(Rb, 2) + of(Wb, 2))
        return (1 - z) * n + z * h

    return unrolled(lstm, 2) if kind == "lstm" else unrolled(gru)


@every_kind
def test_onnx(kind):
    rows = GATES[kind] * H
    W, R, B = normal(rows, D), normal(rows, H), normal(2 * rows)
    assert_close(ours(kind, gates.from_onnx(kind, W, R, B)), onnx(kind, W, R, B))
    assert_close(ours(kind, gates.from_onnx(kind, W, R)), onnx(kind, W, R, 0 * B))


# --- darknet --------------------------------------------------------------------------------------

def darknet(kind, sections):
    """forward_lstm_layer and forward_gru_layer, with the connected sections by their names."""
    def connected(name, x):
        weights, biases = sections[name]
        return x @ weights.T + biases

    def lstm(x, h, c):
        f, i, g, o = (connected("w" + k, h) + connected("u" + k, x) for k in "figo")
        c = sigmoid(f) * c + sigmoid(i) * np.tanh(g)
        return sigmoid(o) * np.tanh(c), c

    def gru(x, state):                                      # with tanh=1
        z = sigmoid(connected("uz", x) + connected("wz", state))
        r = sigmoid(connected("ur", x) + connected("wr", state))
        h = np.tanh(connected("uh", x) + connected("wh", r * state))
        return state * z + h * (1 - z)

    return unrolled(lstm, 2) if kind == "lstm" else unrolled(gru)


@pytest.mark.parametrize("kind", gates.DARKNET)
def test_darknet(kind):
    sections = {name: (normal(H, D if name[0] == "u" else H, seed=k), normal(H, seed=k))
                for k, name in enumerate(gates.DARKNET[kind])}
    assert_close(ours(kind, gates.from_darknet(kind, sections)), darknet(kind, sections))


# --- there and back -------------------------------------------------------------------------------

def some_weights(kind, bias=True):
    layer = LAYERS[kind](H, bias=bias).initialize((D, T))
    for k, p in enumerate(layer.parameters):
        p.data[...] = normal(*p.shape, seed=k)
    return {p.name.removeprefix("forward1."): p.data for p in layer.parameters}


@every_kind
@pytest.mark.parametrize("bias", [True, False])
def test_there_and_back(kind, bias):
    """The same bits, in arrays of their own."""
    weights = some_weights(kind, bias)
    ways = [gates.from_keras(kind, *gates.to_keras(kind, weights)),
            gates.from_onnx(kind, *gates.to_onnx(kind, weights))]
    if kind != "gru_before":
        ways.append(gates.from_pytorch(kind, **gates.to_pytorch(kind, weights)))
    if bias and kind in gates.DARKNET:
        sections = gates.to_darknet(kind, weights)
        assert tuple(sections) == gates.DARKNET[kind]
        ways.append(gates.from_darknet(kind, sections))
    for found in ways:
        assert found.keys() == weights.keys()
        for name, a in found.items():
            assert a.dtype == weights[name].dtype and not np.shares_memory(a, weights[name])
            np.testing.assert_array_equal(a, weights[name])


def test_kinds():
    assert gates.keras_kind("LSTM", {"activation": "tanh", "units": 3}) == "lstm"
    assert gates.keras_kind("SimpleRNN", {"activation": "relu"}) == "rnn"
    assert gates.keras_kind("GRU", {}) == "gru"
    assert gates.keras_kind("GRU", {"reset_after": False}) == "gru_before"
    assert gates.onnx_kind("LSTM", {"activations": [b"Sigmoid", b"Tanh", b"Tanh"] * 2}) == "lstm"
    assert gates.onnx_kind("RNN", {"activations": [b"Relu"] * 2}) == "rnn"
    assert gates.onnx_kind("GRU", {}) == "gru_before"
    assert gates.onnx_kind("GRU", {"linear_before_reset": 1}) == "gru"
    assert gates.darknet_kind("lstm", {"output": "3"}) == "lstm"
    assert gates.darknet_kind("gru", {"tanh": "1"}) == "gru_before"


@pytest.mark.parametrize(("action", "message"), [
    (lambda: gates.keras_kind("GRU", {"activation": "relu"}),
     "Keras GRU: expected activation='tanh'; no layer here has another one. Received: "
     "activation='relu'."),
    (lambda: gates.keras_kind("LSTM", {"recurrent_activation": "hard_sigmoid"}),
     "Keras LSTM: expected recurrent_activation='sigmoid'; no layer here has another one."),
    (lambda: gates.from_keras("gru", normal(D, 3 * H), normal(H, 3 * H), normal(3 * H)),
     'from_keras: expected the bias (2, 3H) of a GRU with reset_after=True, whose kind is "gru"; '
     'with reset_after=False it is "gru_before". Received: shape (12,).'),
    (lambda: gates.onnx_kind("LSTM", {}, ["X", "W", "R", "", "", "", "", "P"]),
     "ONNX LSTM: expected no peepholes; the gates of LSTM here do not read c. Received: an input "
     "P."),
    (lambda: gates.onnx_kind("LSTM", {"input_forget": 1}),
     "ONNX LSTM: expected gates i and f of their own;"),
    (lambda: gates.onnx_kind("GRU", {"clip": 3.0}),
     "ONNX GRU: expected arguments of activations that are not clipped. Received: clip=3."),
    (lambda: gates.onnx_kind("GRU", {"activations": ["HardSigmoid", "Tanh"]}),
     "ONNX GRU: expected activations Sigmoid, Tanh in each direction; no layer here has others. "
     "Received: HardSigmoid, Tanh."),
    (lambda: gates.onnx_kind("RNN", {"activations": ["Tanh", "Relu"]}),
     "ONNX RNN: expected activations Tanh in each direction;"),
    (lambda: gates.darknet_kind("rnn", {}),
     "Darknet [rnn]: expected h = f(W x + U h), as SimpleRNN computes it."),
    (lambda: gates.darknet_kind("gru", {}), "Darknet [gru]: expected tanh=1; without it the "),
    (lambda: gates.darknet_kind("lstm", {"batch_normalize": 1}),
     "Darknet [lstm]: expected sections without batch normalisation,"),
    (lambda: gates.from_darknet("lstm", {}), "from_darknet: expected the sections wi, wf, wo, wg,"),
    (lambda: gates.to_pytorch("gru_before", some_weights("gru_before")),
     "to_pytorch: expected kind to be 'rnn', 'lstm' or 'gru'. Received: kind='gru_before'."),
    (lambda: gates.to_onnx("gru", some_weights("gru_before")),
     "to_onnx: expected the arrays U, W, b, c of a gru, or W and U alone. Received: W, U, b."),
    (lambda: gates.from_onnx("lstm", normal(4 * H, D), normal(4 * H, H + 1)),
     "from_onnx: expected arrays of one lstm, with 4 gates of H rows. Received: (16, 3), (16, 5)."),
    (lambda: gates.from_pytorch("gru", normal(3 * H, D), normal(3 * H, H), normal(H)),
     "from_pytorch: expected arrays of one gru, with 3 gates of H rows. Received: (12, 3), (12, "
     "4), (4,)."),
    (lambda: gates.from_pytorch("rnn", normal(H, D), normal(H)),
     "from_pytorch: expected arrays of one rnn, with 1 gates of H rows. Received: (4, 3), (4,)."),
])
def test_what_is_not_representable_is_refused(action, message):
    with pytest.raises(ValueError) as raised:
        action()
    assert message in str(raised.value) and "\n" not in str(raised.value)
