"""Weights of recurrent layers in the layouts of other libraries, and back.

Each function converts one layer in one direction: NumPy arrays in, new arrays out. Our arrays have
the names of the parameters here, {"W": (gates H, D), "U": (gates H, H), "b": (gates H,)}, and
"c" (H,) of a GRU whose reset gate comes after the product; without biases there is no b and no c.

A kind of equation is "rnn" (SimpleRNN), "lstm" (LSTM), "gru" (GRU) or "gru_before", which is
GRU(reset="before"). The order of the gates, and what holds the biases:

            lstm        gru, gru_before     biases
    ours    i f g o     r z n               b; and c of n in "gru"
    PyTorch i f g o     r z n               two, which are added; no "gru_before"
    Keras 3 i f g o     z r n               one; "gru" two, as the rows of one array (2, 3H)
    ONNX    i o f g     z r n               two, one after the other
    Darknet a connected section for the input and one for the state of each gate, each with biases

Keras writes c for g, and h for n; ONNX writes c and h. The matrices of Keras are transposed. In all
of them h' = (1 - z) n + z h. `keras_kind`, `onnx_kind` and `darknet_kind` say which kind a layer of
the library is, and refuse what no layer here computes.

Sources: the documentation of torch.nn.LSTM and GRU; keras.layers.LSTM and GRU; ONNX's operators
RNN, GRU (linear_before_reset) and LSTM; lstm_layer.c, gru_layer.c and rnn_layer.c of Darknet.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_choice, shown

Array = np.ndarray
Weights = dict[str, Array]

OURS = {"rnn": "h", "lstm": "ifgo", "gru": "rzn", "gru_before": "rzn"}
KERAS = OURS | {"gru": "zrn", "gru_before": "zrn"}
ONNX = KERAS | {"lstm": "iofg"}
# The sections of Darknet that hold the gates of a layer, in the order of its weights files, and the
# gate of each letter. The order of later forks is in io/darknet/recurrent.py.
DARKNET = {"lstm": ("wi", "wf", "wo", "wg", "ui", "uf", "uo", "ug"),
           "gru_before": ("wz", "wr", "wh", "uz", "ur", "uh")}
DARKNET_GATE = {"h": "n"}


# --- PyTorch --------------------------------------------------------------------------------------

def from_pytorch(kind: str, weight_ih: Array, weight_hh: Array, bias_ih: Array | None = None,
                 bias_hh: Array | None = None) -> Weights:
    """Our arrays from those of torch.nn.RNN, LSTM and GRU of one layer and direction, whose names
    end in _l0, _l0_reverse, _l1, ..."""
    who = "from_pytorch"
    expect_choice(who, "kind", kind, ("rnn", "lstm", "gru"))
    return _ours(who, kind, weight_ih, weight_hh, bias_ih, bias_hh, OURS[kind])


def to_pytorch(kind: str, weights: Mapping[str, Array]) -> Weights:
    """weight_ih, weight_hh and, if there are biases, bias_ih and bias_hh. The second bias is 0
    except for c."""
    expect_choice("to_pytorch", "kind", kind, ("rnn", "lstm", "gru"))
    W, U, biases = _theirs("to_pytorch", kind, weights, OURS[kind])
    found = {"weight_ih": W, "weight_hh": U}
    return found if biases is None else found | {"bias_ih": biases[0], "bias_hh": biases[1]}


# --- Keras 3 --------------------------------------------------------------------------------------

def from_keras(kind: str, kernel: Array, recurrent_kernel: Array, bias: Array | None = None
               ) -> Weights:
    """Our arrays from those of keras.layers.SimpleRNN, LSTM and GRU: kernel (D, gates H),
    recurrent_kernel (H, gates H), and bias (gates H,), or (2, 3H) of "gru"."""
    expect_choice("from_keras", "kind", kind, OURS)
    first, second = bias, None
    if bias is not None and kind == "gru":
        if np.ndim(bias) != 2 or len(bias) != 2:
            raise ValueError("from_keras: expected the bias (2, 3H) of a GRU with "
                             'reset_after=True, whose kind is "gru"; with reset_after=False it is '
                             f'"gru_before". Received: shape {np.shape(bias)}.')
        first, second = bias
    return _ours("from_keras", kind, np.transpose(kernel), np.transpose(recurrent_kernel), first,
                 second, KERAS[kind])


def to_keras(kind: str, weights: Mapping[str, Array]) -> list[Array]:
    """[kernel, recurrent_kernel] or [kernel, recurrent_kernel, bias], as layer.set_weights takes
    them."""
    expect_choice("to_keras", "kind", kind, OURS)
    W, U, biases = _theirs("to_keras", kind, weights, KERAS[kind])
    found = [np.ascontiguousarray(W.T), np.ascontiguousarray(U.T)]
    if biases is not None:
        found.append(np.stack(biases) if kind == "gru" else biases[0])
    return found


def keras_kind(layer: str, config: Mapping[str, Any]) -> str:
    """The kind of a layer of Keras with this class name and configuration, as
    layer.get_config() returns it.

    Raises:
        ValueError: the layer has other activations than the usual ones, or is none of SimpleRNN,
            LSTM and GRU.
    """
    who = f"Keras {layer}"
    expect_choice("keras_kind", "layer", layer, ("SimpleRNN", "LSTM", "GRU"))
    if layer == "SimpleRNN":                    # its activation is an argument of ours, too
        return "rnn"
    for name, usual in (("activation", "tanh"), ("recurrent_activation", "sigmoid")):
        if config.get(name, usual) != usual:
            raise ValueError(f"{who}: expected {name}={usual!r}; no layer here has another one. "
                             f"Received: {name}={shown(config[name])}.")
    if layer == "LSTM":
        return "lstm"
    return "gru" if config.get("reset_after", True) else "gru_before"


# --- ONNX -----------------------------------------------------------------------------------------

def from_onnx(kind: str, W: Array, R: Array, B: Array | None = None) -> Weights:
    """Our arrays from the inputs of ONNX's RNN, LSTM and GRU without their axis of directions:
    W (gates H, D), R (gates H, H), B (2 gates H,)."""
    expect_choice("from_onnx", "kind", kind, OURS)
    first, second = (None, None) if B is None else np.split(np.asarray(B), 2)
    return _ours("from_onnx", kind, W, R, first, second, ONNX[kind])


def to_onnx(kind: str, weights: Mapping[str, Array]) -> tuple[Array, Array, Array | None]:
    """W, R, and B or None, of one direction."""
    expect_choice("to_onnx", "kind", kind, OURS)
    W, R, biases = _theirs("to_onnx", kind, weights, ONNX[kind])
    return W, R, None if biases is None else np.concatenate(biases)


def onnx_kind(operator: str, attributes: Mapping[str, Any], inputs: Sequence[str] = ()) -> str:
    """The kind of an operator RNN, LSTM or GRU of ONNX.

    Args:
        operator: its name.
        attributes: by name, as onnx.helper.get_attribute_value returns them.
        inputs: the names of its inputs, of which the eighth of an LSTM is P.

    Raises:
        ValueError: peepholes, input_forget, clip, or other activations than the usual ones. An RNN
            may have any activation, the same in both directions.
    """
    who = f"ONNX {operator}"
    expect_choice("onnx_kind", "operator", operator, ("RNN", "LSTM", "GRU"))
    if operator == "LSTM" and len(inputs) > 7 and inputs[7]:
        raise ValueError(f"{who}: expected no peepholes; the gates of LSTM here do not read c. "
                         "Received: an input P.")
    if attributes.get("input_forget", 0):
        raise ValueError(f"{who}: expected gates i and f of their own; in LSTM here f is not 1 - "
                         "i. Received: input_forget=1.")
    if "clip" in attributes:
        raise ValueError(f"{who}: expected arguments of activations that are not clipped. "
                         f"Received: clip={attributes['clip']:g}.")
    names = [name.decode() if isinstance(name, bytes) else name
             for name in attributes.get("activations", ())]
    usual = {"RNN": names[:1] or ["Tanh"], "LSTM": ["Sigmoid", "Tanh", "Tanh"],
             "GRU": ["Sigmoid", "Tanh"]}[operator]
    if names not in ([], usual, 2 * usual):
        raise ValueError(f"{who}: expected activations {', '.join(usual)} in each direction; no "
                         f"layer here has others. Received: {', '.join(names)}.")
    if operator == "GRU":
        return "gru" if attributes.get("linear_before_reset", 0) else "gru_before"
    return operator.lower()


# --- Darknet --------------------------------------------------------------------------------------

def from_darknet(kind: str, sections: Mapping[str, tuple[Array, Array]]) -> Weights:
    """Our arrays from weights (H, inputs) and biases (H,) of each connected section of a layer: u
    reads the input and w the state, and the second letter is that of the gate, with h for n."""
    expect_choice("from_darknet", "kind", kind, tuple(DARKNET))
    if set(sections) != set(DARKNET[kind]):
        raise ValueError(f"from_darknet: expected the sections {', '.join(DARKNET[kind])}. "
                         f"Received: {', '.join(sections) or 'none'}.")
    by_gate = {name[0] + DARKNET_GATE.get(name[1], name[1]): section
               for name, section in sections.items()}
    W, first = (np.concatenate([by_gate["u" + gate][k] for gate in OURS[kind]]) for k in range(2))
    U, second = (np.concatenate([by_gate["w" + gate][k] for gate in OURS[kind]]) for k in range(2))
    return _ours("from_darknet", kind, W, U, first, second, OURS[kind])


def to_darknet(kind: str, weights: Mapping[str, Array]) -> dict[str, tuple[Array, Array]]:
    """(weights, biases) of each connected section, in the order of Darknet's files. Biases of the
    state are 0."""
    expect_choice("to_darknet", "kind", kind, tuple(DARKNET))
    W, U, biases = _theirs("to_darknet", kind, weights, OURS[kind])
    first, second = biases or 2 * (np.zeros(len(W), W.dtype),)
    gates, rows = OURS[kind], len(W) // len(OURS[kind])
    found = {}
    for name in DARKNET[kind]:
        start = gates.index(DARKNET_GATE.get(name[1], name[1])) * rows
        part, matrix, bias = slice(start, start + rows), *((W, first) if name[0] == "u"
                                                           else (U, second))
        found[name] = matrix[part].copy(), bias[part].copy()
    return found


def darknet_kind(section: str, options: Mapping[str, Any]) -> str:
    """The kind of a section [lstm] or [gru] of Darknet with these options.

    Raises:
        ValueError: batch normalisation within the layer; a [gru] without tanh=1, whose candidate
            n is then a sigmoid; or [rnn], which adds f(W x) and f(U h) after the activation and has
            another product behind them.
    """
    who = f"Darknet [{section}]"
    if section == "rnn":
        raise ValueError(f"{who}: expected h = f(W x + U h), as SimpleRNN computes it. Received: "
                         "h = f(W x) + f(U h), and an output f(V h).")
    expect_choice("darknet_kind", "section", section, ("lstm", "gru"))
    if int(options.get("batch_normalize", 0)):
        raise ValueError(f"{who}: expected sections without batch normalisation, which no "
                         "recurrent layer here has. Received: batch_normalize=1.")
    if section == "gru" and not int(options.get("tanh", 0)):
        raise ValueError(f"{who}: expected tanh=1; without it the candidate is a sigmoid, which no "
                         "layer here has. Received: tanh=0.")
    return "lstm" if section == "lstm" else "gru_before"


# --- what they share ------------------------------------------------------------------------------

def _ours(who: str, kind: str, W: Array, U: Array, first: Array | None, second: Array | None,
          order: str) -> Weights:
    """Our arrays from matrices (gates H, D) and (gates H, H) and two biases, whose gates are in
    another order."""
    W, U, *biases = (np.asarray(a) for a in (W, U, first, second) if a is not None)
    H, gates = U.shape[-1], len(OURS[kind])
    if W.ndim != 2 or len(W) != gates * H or U.shape != (gates * H, H) or any(
            b.shape != (gates * H,) for b in biases):
        raise ValueError(f"{who}: expected arrays of one {kind}, with {gates} gates of H rows. "
                         f"Received: {', '.join(str(a.shape) for a in (W, U, *biases))}.")
    W, U, *biases = (_reordered(a, order, OURS[kind]) for a in (W, U, *biases))
    found = {"W": W, "U": U}
    if not biases:
        return found
    b, other = biases if len(biases) == 2 else (biases[0], np.zeros_like(biases[0]))
    if kind == "gru":                           # r applies to the last third of the second one
        found["c"] = other[2 * H:].copy()
        other = np.concatenate([other[:2 * H], np.zeros_like(found["c"])])
    return found | {"b": b + other}


def _theirs(who: str, kind: str, weights: Mapping[str, Array], order: str
            ) -> tuple[Array, Array, tuple[Array, Array] | None]:
    """W, U and two biases, if there are any, with the gates in another order."""
    names = {"W", "U"} | ({"b", "c"} if kind == "gru" else {"b"})
    if set(weights) not in ({"W", "U"}, names):
        raise ValueError(f"{who}: expected the arrays {', '.join(sorted(names))} of a {kind}, or W "
                         f"and U alone. Received: {', '.join(weights)}.")
    W, U = (_reordered(np.asarray(weights[name]), OURS[kind], order) for name in "WU")
    if "b" not in weights:
        return W, U, None
    b, second = np.asarray(weights["b"]), np.zeros_like(weights["b"])
    if "c" in weights:
        second[-len(weights["c"]):] = weights["c"]
    return W, U, (_reordered(b, OURS[kind], order), _reordered(second, OURS[kind], order))


def _reordered(rows: Array, given: str, wanted: str) -> Array:
    """A copy of (gates H, ...) with the blocks of H rows in another order."""
    H = len(rows) // len(given)
    blocks = {gate: rows[k * H:(k + 1) * H] for k, gate in enumerate(given)}
    return np.concatenate([blocks[gate] for gate in wanted])
