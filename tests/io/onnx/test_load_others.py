"""Networks made of ONNX files as other programs write them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from onnx_networks import by_reference, check, difference, load, model, predicted, samples

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import helper  # noqa: E402

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


@pytest.mark.parametrize("mode, layer", [("reflect", "ReflectionPad2d"), ("constant", "ZeroPad1d"),
                                         ("edge", "ReplicationPad2d")])
def test_pads_of_features(mode, layer, tmp_path):
    """Both before and behind; a border of zeros behind alone is another layer."""
    made = model([node("Pad", ["x", "pads"], ["y"], mode=mode)], ["N", 6],
                 {"pads": np.array([0, 2, 0, 3])})
    net = check(made, tmp_path, "Reshape", layer, "Flatten")
    assert net.nodes[-1].shape == (11,)


def test_a_state_whose_batch_is_its_second_axis(tmp_path):
    """All sizes are fixed; the batch has the size of the first input's first axis."""
    made = model([node("Gather", ["s", "first"], ["h"], axis=0),
                  node("Add", ["x", "h"], ["y"])], None, {"first": np.array(1)},
                 inputs={"x": [1, 4], "s": [2, 1, 4]})
    net = load(made, tmp_path)
    assert [n.shape for n in net.ins.nodes] == [(4,), (2, 4)]
    x, s = samples(net, 3)
    np.testing.assert_array_equal(predicted(net, [x, s])[0], x + s[:, 1])


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


def test_one_error_lists_all_nodes_that_cannot_be_read(tmp_path):
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


@pytest.mark.parametrize("opset", [7, 17])
def test_clip_with_one_bound(opset, tmp_path):
    for name, number, layer in (("min", 0.0, "ReLU"), ("min", 0.2, "Hardtanh"),
                                ("max", 0.2, "Hardtanh"), ("max", 0.0, "Hardtanh")):
        if opset < 11:
            made = model([node("Clip", ["x"], ["y"], **{name: number})], ["N", 9], opset=opset)
        else:
            inputs = ["x", "b"] if name == "min" else ["x", "", "b"]
            made = model([node("Clip", inputs, ["y"])], ["N", 9],
                         {"b": np.array(number, np.float32)}, opset=opset)
        check(made, tmp_path, layer)


def test_an_output_without_a_name_is_not_needed(tmp_path):
    """Inputs that are left out have no name, either."""
    made = model([node("MaxPool", ["x"], ["a", ""], kernel_shape=(2, 2)),
                  node("Clip", ["a", "", "high"], ["y"])], ["N", 2, 4, 4],
                 {"high": np.array(0.5, np.float32)})
    kinds = [type(layer) for layer in load(made, tmp_path).layers]
    assert kinds == [xn.MaxPool2d, xn.Hardtanh]


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'load_onnx: .*pip install "xpnet\[onnx\]"'):
        xn.io.load_onnx(tmp_path / "net.onnx")
