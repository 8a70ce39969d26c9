"""Recurrent layers made of ONNX's operators RNN, LSTM and GRU."""

from __future__ import annotations

import itertools

import numpy as np
import pytest
from onnx_networks import by_reference, check, difference, load, model, predicted, samples, vary

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper  # noqa: E402

RNG = np.random.default_rng(0)
node = helper.make_node
every_direction = pytest.mark.parametrize("direction", ["forward", "reverse", "bidirectional"])


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@every_direction
def test_recurrent_layers_as_other_programs_write_them(kind, direction, tmp_path):
    """(T, N, D) with an axis of directions, states of zeros that are computed from shapes."""
    gates, D = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    constants = {"W": RNG.standard_normal((D, gates * 3, 4)), "R": RNG.standard_normal(
        (D, gates * 3, 3)), "B": RNG.standard_normal((D, gates * 6)),
        "fc": RNG.standard_normal((3 * D, 2))}
    constants = {name: a.astype(np.float32) for name, a in constants.items()}
    constants |= {"one": np.array([1]), "D": np.array([D]), "H": np.array([3]),
                  "shape": np.array([0, 0, -1])}
    states = ["h", "h"] if kind == "LSTM" else ["h"]
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    made = model([
        node("Transpose", ["x"], ["t"], perm=(1, 0, 2)), node("Shape", ["t"], ["s"]),
        node("Gather", ["s", "one"], ["n"]), node("Concat", ["D", "n", "H"], ["hs"], axis=0),
        node("ConstantOfShape", ["hs"], ["h"]),
        node(kind, ["t", "W", "R", "B", "", *states], ["Y"], "rnn", hidden_size=3,
             direction=direction, **options),
        node("Transpose", ["Y"], ["a"], perm=(0, 2, 1, 3)),
        node("Reshape", ["a", "shape"], ["b"]), node("Transpose", ["b"], ["c"], perm=(1, 0, 2)),
        node("MatMul", ["c", "fc"], ["y"], "fc")], ["N", 6, 4], constants)
    layer = {"LSTM": "LSTM", "GRU": "GRU", "RNN": "SimpleRNN"}[kind]
    check(made, tmp_path, "Permute", layer, "Linear", "Permute")


def recurrent(kind, outputs, T=5, *, direction="forward", layout=0, lengths=False):
    """One operator with these outputs, of which the network's outputs are copies."""
    gates, D = {"LSTM": 4, "GRU": 3, "RNN": 1}[kind], 2 if direction == "bidirectional" else 1
    rng = np.random.default_rng(1)
    constants = {name: rng.standard_normal(shape).astype(np.float32) for name, shape in (
        ("W", (D, gates * 3, 4)), ("R", (D, gates * 3, 3)), ("B", (D, gates * 6)))}
    options = {"linear_before_reset": 1} if kind == "GRU" else {}
    used = [name for name in outputs if name]
    # the batch comes first in the outputs, as in ours
    first = {"Y": (0, 1, 2, 3) if layout else (2, 0, 1, 3), "Y_h": (0, 1, 2) if layout else
             (1, 0, 2)}
    made = model([node(kind, ["x", "W", "R", "B", *(["steps"] if lengths else [])], outputs, "rnn",
                       hidden_size=3, direction=direction, layout=layout, **options),
                  *(node("Transpose", [name], [f"{name}:first"],
                         perm=first.get(name, first["Y_h"])) for name in used)],
                 None, constants, outputs=[f"{name}:first" for name in used],
                 inputs={"x": ["N", T, 4] if layout else [T, "N", 4]})
    if lengths:
        made.graph.input.append(helper.make_tensor_value_info("steps", TensorProto.INT32, ["N"]))
    return made


OUTPUTS = [("LSTM", ["", "", "Y_c"]), ("LSTM", ["", "Y_h", "Y_c"]), ("LSTM", ["Y", "", "Y_c"]),
           ("LSTM", ["Y", "Y_h", "Y_c"]), ("GRU", ["Y", "Y_h"]), ("GRU", ["", "Y_h"]),
           ("RNN", ["Y", "Y_h"])]


@pytest.mark.parametrize("kind, outputs", OUTPUTS)
def test_outputs_of_recurrent_operators(kind, outputs, tmp_path):
    for direction, layout in (("forward", 0), ("bidirectional", 0), ("reverse", 0), ("forward", 1)):
        made = recurrent(kind, outputs, direction=direction, layout=layout)
        net = load(made, tmp_path)
        xs = samples(net, 3)
        given = [xs[0] if layout else xs[0].transpose(1, 0, 2)]
        for y, expected in zip(predicted(net, xs), by_reference(made, given), strict=True):
            assert difference(y, expected) < 1e-5


@pytest.mark.parametrize("kind, outputs", OUTPUTS)
@every_direction
def test_outputs_of_recurrent_operators_for_sequences_of_different_lengths(
        kind, outputs, direction, tmp_path):
    """The reference implementation ignores the lengths, so it is given each sequence alone."""
    net = load(recurrent(kind, outputs, direction=direction, lengths=True), tmp_path)
    x, steps = RNG.standard_normal((3, 5, 4)).astype(np.float32), np.array([5, 2, 3])
    ys = predicted(net, [x, steps[:, None].astype(np.float32)])
    for number, T in enumerate(steps.tolist()):
        alone = recurrent(kind, outputs, T, direction=direction)
        expected = by_reference(alone, [x[number, :T, None]])
        for y, wanted in zip(ys, expected, strict=True):
            y = y[number:number + 1]
            if wanted.ndim == 4:                                            # Y: 0 beyond the end
                assert not y[:, T:].any()
                y = y[:, :T]
            assert difference(y, wanted) < 1e-5


def test_constants_of_activations_that_a_file_leaves_out(tmp_path):
    """They are those of ONNX's operators: a HardSigmoid's slope is 0.2, which no layer here has."""
    for name, constants, ours in (
            ("HardSigmoid", {}, None), ("ScaledTanh", {}, None), ("LeakyRelu", {}, "leaky_relu"),
            ("HardSigmoid", {"activation_alpha": [1 / 6], "activation_beta": [0.5]},
             "hard_sigmoid"), ("LeakyRelu", {"activation_alpha": [0.3]}, None)):
        made = recurrent("RNN", ["Y"])
        made.graph.node[0].attribute.extend(helper.make_attribute(*item) for item in (
            ("activations", [name]), *constants.items()))
        if ours is None:
            with pytest.raises(ValueError, match=rf"RNN 'rnn' \(no activation here is {name} with "
                                                 r"these constants\)"):
                load(made, tmp_path)
        else:
            assert ours in [getattr(layer, "activation", None)
                            for layer in load(made, tmp_path).layers]


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
def test_operators_that_share_weights_are_one_layer_whatever_their_outputs(kind, tmp_path):
    made = recurrent(kind, ["Y", ""])
    first, copy = made.graph.node
    again, last = type(first)(), node("Transpose", ["h"], ["h:first"], perm=(1, 0, 2))
    again.CopyFrom(first)
    again.name, again.input[0], again.output[:] = "again", "x2", ["", "h"]
    made.graph.node.extend([again, last])
    made.graph.input.append(helper.make_tensor_value_info("x2", TensorProto.FLOAT, [5, "N", 4]))
    made.graph.output.append(helper.make_tensor_value_info("h:first", TensorProto.FLOAT, None))
    net = load(made, tmp_path)
    gated = [layer for layer in net.layers if layer.kind == kind.lower()]
    assert [layer.uses for layer in gated] == [2]
    xs = samples(net, 3)
    expected = by_reference(made, [x.transpose(1, 0, 2) for x in xs])
    for y, wanted in zip(predicted(net, xs), expected, strict=True):
        assert difference(y, wanted) < 1e-5
    net.export(tmp_path / "again.onnx")
    twice = xn.io.load_onnx(tmp_path / "again.onnx", backend="numpy")
    assert len(twice.parameters) == len(net.parameters)
    for a, b in zip(predicted(net, xs), predicted(twice, xs), strict=True):
        assert (a == b).all()


STATEFUL = {
    "LSTM": lambda **options: xn.LSTM(4, **options),
    "LSTM-both": lambda **options: xn.LSTM(4, bidirectional=True, **options),
    "LSTM-deep": lambda **options: xn.LSTM(4, layers=2, **options),
    "GRU": lambda **options: xn.GRU(4, **options),
    "LSTM-reverse": lambda **options: xn.LSTM(4, reverse=True, layers=2, **options),
    "GRU-before": lambda **options: xn.GRU(4, reset="before", bias=False, **options),
    "SimpleRNN": lambda **options: xn.SimpleRNN(4, reverse=True, bias=False, **options)}


@pytest.mark.parametrize("name", STATEFUL)
def test_final_states_come_back(name, tmp_path):
    """With and without all steps and lengths: the same bits, and once more the same layers."""
    for sequences, lengths in itertools.product((False, True), repeat=2):
        ins = [xn.Input((3, 5)), *([xn.Input((1,))] if lengths else [])]
        outs = STATEFUL[name](return_sequences=sequences, return_state=True, lengths=lengths)(*ins)
        net = vary(xn.Network(ins, list(outs), backend="numpy"))
        net.export(tmp_path / "a.onnx")
        once = xn.io.load_onnx(tmp_path / "a.onnx", backend="numpy")
        once.export(tmp_path / "b.onnx")
        twice = xn.io.load_onnx(tmp_path / "b.onnx", backend="numpy")
        assert [*map(type, once.layers)] == [*map(type, twice.layers)]
        xs = [RNG.standard_normal((3, 3, 5)).astype(np.float32),
              *([np.array([[5], [2], [3]], np.float32)] if lengths else [])]
        for y, a, b in zip(*(predicted(one, xs) for one in (net, once, twice)), strict=True):
            assert (y == a).all() and (a == b).all()


def test_a_layer_around_elmans_cell_comes_back_as_a_simple_rnn(tmp_path):
    for options in itertools.product((False, True), repeat=2):
        settings = dict(zip(("reverse", "return_sequences"), options))
        net = vary(xn.Sequential([xn.RNN(xn.ElmanCell(4), **settings)], input_shape=(3, 5),
                                 backend="numpy"))
        net.export(tmp_path / "net.onnx")
        again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
        layer, = [layer for layer in again.layers if isinstance(layer, xn.SimpleRNN)]
        assert {name: getattr(layer, name) for name in settings} == settings
        x = RNG.standard_normal((3, 3, 5)).astype(np.float32)
        assert difference(again.predict(x), net.predict(x)) < 1e-5


@every_direction
def test_states_and_last_states_of_a_recurrent_layer(direction, tmp_path):
    D = 2 if direction == "bidirectional" else 1
    constants = {name: RNG.standard_normal(shape).astype(np.float32) for name, shape in (
        ("W", (D, 9, 4)), ("R", (D, 9, 3)), ("B", (D, 18)))}
    made = model([node("GRU", ["x", "W", "R", "B", "", "h"], ["Y", "Y_h"], hidden_size=3,
                       direction=direction, linear_before_reset=1),
                  node("Transpose", ["Y_h"], ["y"], perm=(1, 0, 2)),
                  node("Transpose", ["Y"], ["z"], perm=(2, 0, 1, 3))],
                 None, constants, outputs=("y", "z"),
                 inputs={"x": [5, "N", 4], "h": [D, "N", 3]})
    net = load(made, tmp_path)
    x, h = (RNG.standard_normal((2, *n.shape)).astype(np.float32) for n in net.ins.nodes)
    expected = by_reference(made, [x.transpose(1, 0, 2), h.transpose(1, 0, 2)])
    for y, wanted in zip(predicted(net, [x, h]), expected, strict=True):
        assert difference(y, wanted) < 1e-5
