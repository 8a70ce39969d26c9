"""Networks made of ONNX files: of exported ones, and of files as other programs write them."""

from __future__ import annotations

import itertools
import sys

import numpy as np
import pytest
from layer_cases import CASES
from model_cases import LARGE, SMALLEST
from onnx_networks import (
    by_reference,
    difference,
    exported,
    of_case,
    of_model,
    predicted,
    samples,
    vary,
)
from tiers import first

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper  # noqa: E402

# Layers whose nodes no layer here has: their operators are there only within larger patterns
ONE_WAY = {
    "Step": "Ceil", "Stair": "Floor", "Gaussian": "Exp",
    "LocallyConnected2d": "3 axes", "MultiHeadAttention-lengths": "Less",
    "MaxUnpool2d": "is used", "LpPool2d": "Pow", "StochasticPool2d": "constant input",
    "DivisiveNorm2d": "Sqrt", "ContrastNorm2d": "Sqrt", "LpNormalize": "constant input",
    "L1Norm": "ReduceL1", "L2Norm": "ReduceL2", "LocalResponseNorm-all": "Pow",
    "DeconvolutionalNetwork2d": "cannot be exported"}


def one_way(case) -> str | None:
    return ONE_WAY.get(str(case), ONE_WAY.get(type(case.make()).__name__))


BACK = {str(case): case for case in CASES if one_way(case) is None}
OF_CATALOGUE = [name for name in BACK if name.endswith("-of-catalogue")]


@pytest.mark.parametrize("name", first(BACK, *OF_CATALOGUE))
def test_layer_comes_back(name, tmp_path):
    net, xs = of_case(BACK[name])
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    assert difference(predicted(again, xs)[0], predicted(net, xs)[0]) < 1e-5


@pytest.mark.parametrize("name", [name for name in ONE_WAY if "Deconv" not in name])
def test_layer_that_does_not_come_back(name, tmp_path):
    case = next(case for case in CASES
                if str(case) == name or type(case.make()).__name__ == name)
    net, _ = of_case(case)
    net.export(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=f"load_onnx: expected nodes .*{ONE_WAY[name]}"):
        xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")


@pytest.mark.parametrize("name", first([name for name in SMALLEST if name not in LARGE],
                                       "lenet5", "siamese", "char_lstm", "mobilenet_v2"))
def test_import_export_import_gives_the_same_bits(name, tmp_path):
    net = of_model(name)
    net.export(tmp_path / "a.onnx")
    once = xn.io.load_onnx(tmp_path / "a.onnx", backend="numpy")
    once.export(tmp_path / "b.onnx")
    twice = xn.io.load_onnx(tmp_path / "b.onnx", backend="numpy")
    assert once.arrays.keys() == twice.arrays.keys()
    xs = samples(net, 2)
    for y, a, b in zip(predicted(net, xs), predicted(once, xs), predicted(twice, xs)):
        assert difference(a, y) < 1e-5
        assert (a == b).all()


def small(**options) -> xn.Network:
    return vary(xn.Sequential([
        xn.Conv2d(4, 3, padding=(1, 0), name="first"), xn.BatchNorm2d(), xn.ReLU(),
        xn.MaxPool2d(2), xn.Flatten(), xn.Linear(3, name="last"),
    ], input_shape=(2, 6, 6), backend="numpy", **options))


def test_names_values_metadata_and_dtype_come_back(tmp_path):
    for dtype in ("float32", "float64"):
        net = small(dtype=dtype)
        net.classes, net.scale = ["cat", "dog", "été"], 255
        net.export(tmp_path / "net.onnx")
        again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
        assert list(again.layer_names) == list(net.layer_names)
        assert again.arrays.keys() == net.arrays.keys()
        assert all((again.arrays[name].data == p.data).all() for name, p in net.arrays.items())
        assert (again.classes, again.scale, again.dtype) == (net.classes, net.scale, net.dtype)
        assert isinstance(again, xn.Network)


def test_a_loaded_network_trains_as_the_one_that_was_exported(tmp_path):
    net = small()
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    x, = samples(net, 12)
    y = np.arange(12) % 3
    for one in (net, again):
        one.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, batch_size=4,
                verbose=False)
    for name, p in net.arrays.items():
        np.testing.assert_allclose(again.arrays[name].data, p.data, rtol=1e-4, atol=1e-6)
    assert again.history["loss"][-1] < again.history["loss"][0]


def test_batch_norms_can_be_frozen(tmp_path):
    net = small()
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", freeze_batch_norm=True, backend="numpy")
    before = {name: np.array(p.data) for name, p in again.arrays.items()}
    x, = samples(net, 6)
    again.fit(x, np.arange(6) % 3, loss="cross_entropy", epochs=1, verbose=False)
    changed = {name for name, p in again.arrays.items() if (p.data != before[name]).any()}
    assert changed == {"first.W", "first.b", "last.W", "last.b"}


def test_shared_weights_stay_shared(tmp_path):
    a, b = xn.Input((4,)), xn.Input((4,))
    shared = xn.Linear(5)
    net = xn.Network({"left": a, "right": b}, {"sum": shared(a) + shared(b)}, backend="numpy")
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    assert again.arrays.keys() == {"linear1.W", "linear1.b"}
    assert again.ins.names == ("left", "right")


# --- files of other programs ----------------------------------------------------------------------

def model(nodes, shape, constants=(), *, opset=17, outputs=("y",), ir=8, inputs=None):
    """A model with an input x of this shape, and outputs of unknown shape."""
    inputs = {"x": shape} if inputs is None else inputs
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, one)
         for name, one in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [onnx.numpy_helper.from_array(np.asarray(array), name)
         for name, array in dict(constants).items()])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=ir)


def load(made, tmp_path, **options) -> xn.Network:
    path = tmp_path / "made.onnx"
    path.write_bytes(made.SerializeToString())
    return xn.io.load_onnx(path, backend="numpy", **options)


def check(made, tmp_path, *kinds, N=3, **options) -> xn.Network:
    """The file is a network of these layers and computes what the reference computes."""
    net = load(made, tmp_path, **options)
    assert [type(layer).__name__ for layer in net.layers] == list(kinds)
    xs = samples(net, N)
    for y, expected in zip(predicted(net, xs), by_reference(made, xs), strict=True):
        assert difference(y, expected) < 1e-5
    return net


RNG = np.random.default_rng(0)
WEIGHTS = RNG.standard_normal((5, 4)).astype(np.float32)
node = helper.make_node


@pytest.mark.parametrize("batch", [None, "N", "", 1, 7])
def test_the_batch_may_be_free_named_or_fixed(batch, tmp_path):
    """Also where a Reshape has the size of the batch, or -1 for it."""
    shape = RNG.standard_normal((8, 5)).astype(np.float32)
    for target in ([0, -1], [-1, 8], [batch if isinstance(batch, int) else 0, 8]):
        made = model([node("Reshape", ["x", "shape"], ["flat"], "flat"),
                      node("MatMul", ["flat", "W"], ["y"], "product")], [batch, 2, 4],
                     {"shape": np.array(target), "W": shape})
        check(made, tmp_path, "Flatten", "Linear", N=batch if isinstance(batch, int) else 3)


def test_flatten_by_arithmetic_with_shapes(tmp_path):
    """Shape, Slice, Concat and Reshape, as programs write x.view(len(x), -1)."""
    made = model([
        node("Shape", ["x"], ["all"]), node("Constant", [], ["zero"], value_ints=[0]),
        node("Constant", [], ["one"], value_ints=[1]),
        node("Constant", [], ["rest"], value_ints=[-1]),
        node("Slice", ["all", "zero", "one"], ["n"]),
        node("Concat", ["n", "rest"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["flat"], "flatten"),
        node("Gemm", ["flat", "W"], ["y"], "fc", transB=1)],
        ["N", 2, 2], {"W": WEIGHTS})
    assert list(check(made, tmp_path, "Flatten", "Linear").layer_names) == ["flatten", "fc"]


def test_numbers_of_a_shape_one_by_one(tmp_path):
    """Shape, Gather of one number, products of them, Unsqueeze and Concat, as programs write
    x.view(len(x), x.shape[1] * x.shape[2] // 2, 2)."""
    made = model([
        node("Shape", ["x"], ["all"]),
        *(node("Gather", ["all", f"i{k}"], [f"n{k}"], axis=0) for k in range(3)),
        node("Mul", ["n1", "n2"], ["elements"]), node("Div", ["elements", "i2"], ["half"]),
        node("Unsqueeze", ["n0", "zero"], ["N"]), node("Unsqueeze", ["half", "zero"], ["rows"]),
        node("Cast", ["rows"], ["rows7"], to=7),
        node("Concat", ["N", "rows7", "two"], ["shape"], axis=0),
        node("Reshape", ["x", "shape"], ["y"])], ["N", 2, 6],
        {"zero": np.array([0]), "two": np.array([2]),
         **{f"i{k}": np.array(k) for k in range(3)}})
    check(made, tmp_path, "Reshape")


def test_channels_last_files(tmp_path):
    """A convolution between a Transpose from NHWC to NCHW and one back; two Transposes are none."""
    W = RNG.standard_normal((3, 2, 3, 3)).astype(np.float32)
    made = model([
        node("Transpose", ["x"], ["a"], perm=(0, 3, 1, 2)), node("Conv", ["a", "W"], ["b"], "conv"),
        node("Transpose", ["b"], ["c"], perm=(0, 2, 3, 1)), node("Relu", ["c"], ["d"]),
        node("Transpose", ["b"], ["e"], perm=(0, 2, 3, 1)),
        node("Transpose", ["e"], ["f"], perm=(0, 3, 1, 2)), node("Conv", ["f", "V"], ["g"], "two"),
        node("Transpose", ["g"], ["h"], perm=(0, 2, 3, 1)), node("Add", ["d", "h"], ["y"])],
        ["N", 6, 5, 2], {"W": W, "V": RNG.standard_normal((3, 3, 1, 1)).astype(np.float32)})
    check(made, tmp_path, "Permute", "Conv2d", "Permute", "ReLU", "Conv2d", "Permute", "Add")


@pytest.mark.parametrize("pads", [dict(auto_pad="SAME_UPPER"), dict(auto_pad="SAME_LOWER"),
                                  dict(auto_pad="VALID"), dict(pads=[0, 1, 2, 3])])
def test_paddings_of_convolutions_and_pools(pads, tmp_path):
    W = RNG.standard_normal((3, 1, 2, 3)).astype(np.float32)
    made = model([node("Conv", ["x", "W"], ["a"], group=2, strides=(2, 1), **pads),
                  node("MaxPool", ["a"], ["y"], kernel_shape=(2, 2), strides=(2, 2), ceil_mode=1)],
                 ["N", 2, 8, 7], {"W": np.concatenate([W, W[:1] + 1])})
    check(made, tmp_path, "Conv2d", "MaxPool2d")


@pytest.mark.parametrize("opset", [7, 9, 10, 11, 12, 13, 17, 18, 21])
def test_attributes_that_became_inputs(opset, tmp_path):
    """Clip since 11, Pad since 11, Squeeze and Unsqueeze since 13, ReduceMean since 18, Slice since
    10, Dropout since 12."""
    constants, nodes = {}, []

    def add(kind, names, y, since, **moved):
        """A node whose attributes are inputs from an opset on."""
        if opset >= since:
            constants.update({f"{y}.{name}": np.array(
                value, np.float32 if kind == "Clip" else np.int64)
                for name, value in moved.items()})
            nodes.append(node(kind, [*names, *(f"{y}.{name}" for name in moved)], [y]))
        else:
            nodes.append(node(kind, names, [y], **moved))

    add("Clip", ["x"], "a", 11, min=-0.5, max=0.75)
    add("Pad", ["a"], "b", 11, pads=[0, 0, 1, 2, 0, 0, 0, 1])
    add("Slice", ["b"], "c", 10, starts=[1, 0], ends=[4, 2], axes=[2, 1])
    add("Unsqueeze", ["c"], "d", 13, axes=[2])
    add("Squeeze", ["d"], "e", 13, axes=[2])
    add("ReduceMean", ["e"], "f", 18, axes=[2, 3])
    nodes.append(node("Dropout", ["f"], ["y"]))
    check(model(nodes, ["N", 3, 4, 5], constants, opset=opset), tmp_path, "Hardtanh", "ZeroPad2d",
          "Slice", "Slice", "GlobalAvgPool2d", "Dropout", "Reshape")


@pytest.mark.parametrize("kind, layer, attributes", [
    ("HardSigmoid", "HardSigmoid", {}), ("HardSigmoid", "HardSigmoid", {"alpha": 0.3}),
    ("Elu", "ELU", {"alpha": 0.5}), ("LeakyRelu", "LeakyReLU", {}),
    ("Selu", "SELU", {}), ("Softmax", "Softmax", {"axis": 1}), ("HardSwish", "HardSwish", {}),
    ("LogSoftmax", "LogSoftmax", {"axis": -1})])
def test_attributes_and_their_defaults(kind, layer, attributes, tmp_path):
    check(model([node(kind, ["x"], ["y"], **attributes)], ["N", 3, 4]), tmp_path, layer)


def test_softmax_of_old_files_is_over_all_axes_behind(tmp_path):
    net = load(model([node("Softmax", ["x"], ["y"])], ["N", 3, 4], opset=11), tmp_path)
    x, = samples(net, 2)
    e = np.exp(x)
    np.testing.assert_allclose(net.predict(x), e / e.sum(axis=(1, 2), keepdims=True), rtol=1e-5)


def test_gates_are_broadcast(tmp_path):
    """Squeeze and excitation: one factor for each channel; the gradient is its sum over a map."""
    made = model([node("GlobalAveragePool", ["x"], ["a"]), node("Sigmoid", ["a"], ["b"]),
                  node("Mul", ["x", "b"], ["y"])], ["N", 3, 4, 5])
    check(made, tmp_path, "GlobalAvgPool2d", "Sigmoid", "Reshape", "Multiply")


def test_products_of_sequences(tmp_path):
    """Programs multiply the last axis of (N, T, D), which is one Linear for all steps."""
    W, V = RNG.standard_normal((4, 5)), RNG.standard_normal((5, 2))
    made = model([node("MatMul", ["x", "W"], ["a"], "one"), node("Add", ["a", "b"], ["c"]),
                  node("Relu", ["c"], ["d"]), node("MatMul", ["d", "V"], ["y"], "two")],
                 ["N", 6, 4], {"W": W.astype(np.float32), "V": V.astype(np.float32),
                               "b": np.arange(5, dtype=np.float32)})
    net = check(made, tmp_path, "Permute", "Linear", "Permute", "ReLU", "Permute", "Linear",
                "Permute")
    assert net.arrays.keys() == {"one.W", "one.b", "two.W"}


@pytest.mark.parametrize("kind", ["LSTM", "GRU", "RNN"])
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
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
    for direction, layout in (("forward", 0), ("bidirectional", 0), ("forward", 1)):
        made = recurrent(kind, outputs, direction=direction, layout=layout)
        net = load(made, tmp_path)
        xs = samples(net, 3)
        given = [xs[0] if layout else xs[0].transpose(1, 0, 2)]
        for y, expected in zip(predicted(net, xs), by_reference(made, given), strict=True):
            assert difference(y, expected) < 1e-5


@pytest.mark.parametrize("kind, outputs", OUTPUTS)
@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
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
            if wanted.ndim == 4:                                            # Y: 0 behind the end
                assert not y[:, T:].any()
                y = y[:, :T]
            assert difference(y, wanted) < 1e-5


@pytest.mark.parametrize("kind", ["LSTM", "GRU"])
def test_gates_in_reverse_alone_are_refused(kind, tmp_path):
    with pytest.raises(ValueError, match=f"load_onnx: expected nodes .*{kind} 'rnn' "
                                         r"\(layers here read .* in reverse alone"):
        load(recurrent(kind, ["Y"], direction="reverse"), tmp_path)


def test_an_rnn_in_reverse_alone(tmp_path):
    made = recurrent("RNN", ["Y", "Y_h"], direction="reverse")
    net = load(made, tmp_path)
    xs = samples(net, 3)
    for y, expected in zip(predicted(net, xs), by_reference(made, [xs[0].transpose(1, 0, 2)])):
        assert difference(y, expected) < 1e-5


STATEFUL = {
    "LSTM": lambda **options: xn.LSTM(4, **options),
    "LSTM-both": lambda **options: xn.LSTM(4, bidirectional=True, **options),
    "LSTM-deep": lambda **options: xn.LSTM(4, layers=2, **options),
    "GRU": lambda **options: xn.GRU(4, **options),
    "GRU-before": lambda **options: xn.GRU(4, reset="before", bias=False, **options),
    "RNN": lambda **options: xn.RNN(xn.ElmanCell(4), reverse=True, **options)}


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


@pytest.mark.parametrize("direction", ["forward", "bidirectional"])
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


def test_attention_of_other_programs(tmp_path):
    """One product makes queries, keys and values, which are taken apart; the products of two values
    are MatMul layers, and constants for positions are learned."""
    T, D, heads = 5, 6, 2
    constants = {"W": RNG.standard_normal((D, 3 * D)), "place": RNG.standard_normal((1, T, D)),
                 "scale": np.array(0.5), "out": RNG.standard_normal((D, D))}
    constants = {name: a.astype(np.float32) for name, a in constants.items()}
    constants |= {"parts": np.array([0, T, 3, heads, D // heads]), "shape": np.array([0, 0, D]),
                  **{f"i{k}": np.array(k) for k in range(3)}}
    made = model([
        node("Add", ["x", "place"], ["p"], "place"), node("MatMul", ["p", "W"], ["a"], "qkv"),
        node("Reshape", ["a", "parts"], ["b"]),
        node("Transpose", ["b"], ["c"], perm=(2, 0, 3, 1, 4)),
        *(node("Gather", ["c", f"i{k}"], [f"c{k}"], axis=0) for k in range(3)),
        node("Transpose", ["c1"], ["keys"], perm=(0, 1, 3, 2)),
        node("MatMul", ["c0", "keys"], ["d"]), node("Mul", ["d", "scale"], ["e"]),
        node("Softmax", ["e"], ["f"], axis=-1), node("MatMul", ["f", "c2"], ["g"]),
        node("Transpose", ["g"], ["h"], perm=(0, 2, 1, 3)), node("Reshape", ["h", "shape"], ["i"]),
        node("MatMul", ["i", "out"], ["y"], "out")], ["N", T, D], constants)
    net = load(made, tmp_path)
    assert net.arrays.keys() == {"place.b", "qkv.W", "out.W"}
    xs = samples(net, 3)
    assert difference(predicted(net, xs)[0], by_reference(made, xs)[0]) < 1e-5


def test_constants_that_are_learned_and_that_are_fixed(tmp_path):
    """Mean and standard deviation of an input are settings; other arrays are learned."""
    constants = {"mean": [[[0.5]], [[0.25]]], "std": [[[2.0]], [[4.0]]], "g": [[[0.0]], [[3.0]]],
                 "b": [[1.0, 2.0, 3.0]], "half": 0.5}
    made = model([
        node("Sub", ["x", "mean"], ["a"]), node("Div", ["a", "std"], ["c"]),
        node("Mul", ["c", "g"], ["d"], "gain"), node("Add", ["d", "b"], ["e"], "shift"),
        node("Sub", ["half", "e"], ["f"]), node("Mul", ["f", "half"], ["y"])], ["N", 2, 1, 3],
        {name: np.array(value, np.float32) for name, value in constants.items()})
    net = check(made, tmp_path, "Rescale", "Gain", "Gain", "Shift", "Rescale", "Rescale",
                "Rescale")
    assert {name: p.shape for name, p in net.arrays.items() if name.startswith(("gain", "shift"))
            } == {"gain.g": (2,), "shift.b": (1, 1, 3)}


def test_open_sizes_are_asked_for(tmp_path):
    made = model([node("Relu", ["x"], ["y"])], ["N", 3, "H", "W"])
    with pytest.raises(ValueError, match=r"load_onnx: expected input_shape, .* Received: x with "
                                         r"\(3, H, W\)"):
        load(made, tmp_path)
    for given in ((3, 4, 5), {"x": (3, 4, 5)}):
        assert load(made, tmp_path, input_shape=given).input.shape == (3, 4, 5)
    for given in ((4, 4, 5), (3, 4), {"z": (3, 4, 5)}):
        with pytest.raises(ValueError, match="load_onnx: expected input_shape"):
            load(made, tmp_path, input_shape=given)


def test_a_value_within_the_file_can_be_the_output(tmp_path):
    made = model([node("Relu", ["x"], ["a"]), node("Softmax", ["a"], ["y"], axis=1)], ["N", 3])
    assert len(load(made, tmp_path, outputs="a").layers) == 1
    assert load(made, tmp_path, outputs=["y", "a"]).outs.names == ("y", "a")
    with pytest.raises(ValueError, match="load_onnx: expected outputs to be names"):
        load(made, tmp_path, outputs="b")


def test_one_error_lists_all_nodes_that_cannot_be_had(tmp_path):
    made = model([node("Det", ["x"], ["a"], "first"), node("Relu", ["a"], ["b"], "fine"),
                  node("Softmax", ["x"], ["c"], "second", axis=0),
                  node("Add", ["b", "c"], ["y"], "sum"),
                  node("Mine", ["x"], ["z"], "third", domain="own")], ["N", 3, 3],
                 outputs=("y", "z"))
    with pytest.raises(ValueError, match="load_onnx: expected nodes that layers here can compute. "
                                         r"Received: Det 'first' \(there is no layer for this "
                                         r"operator\); Softmax 'second' \(it works along the batch"
                                         r"\); own.Mine 'third' \(there is no layer") as caught:
        load(made, tmp_path)
    assert "fine" not in str(caught.value) and "\n" not in str(caught.value)


def test_only_what_the_outputs_need_is_read(tmp_path):
    made = model([node("Det", ["x"], ["a"]), node("Relu", ["x"], ["y"])], ["N", 3, 3])
    assert len(load(made, tmp_path).layers) == 1


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'load_onnx: .*pip install "xpnet\[onnx\]"'):
        xn.io.load_onnx(tmp_path / "net.onnx")


def test_exported_files_are_those_that_are_checked(tmp_path):
    """The checks of this file read what export writes."""
    net = small()
    onnx.checker.check_model(exported(net, tmp_path / "net.onnx"), full_check=True)
