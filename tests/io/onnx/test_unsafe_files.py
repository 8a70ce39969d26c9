"""Files that are damaged, or that were made to do harm, are refused with one line."""

from __future__ import annotations

import os

import numpy as np
import pytest
from hostile_files import limited_memory, limited_time
from onnx_networks import refused, written

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper  # noqa: E402

W = np.arange(12, dtype=np.float32).reshape(3, 4)


def gemm(tmp_path, tensor):
    tensor.name = "W"
    return written(tmp_path, [helper.make_node("Gemm", ["x", "W"], ["y"], transB=1)], tensor)


def tensor(dims, data_type=TensorProto.FLOAT, **fields):
    return TensorProto(dims=dims, data_type=data_type, **fields)


@pytest.mark.parametrize("wrong, match", [
    (tensor([3, 4], raw_data=b"\0" * 44), "44 bytes for the shape"),
    (tensor([2**40, 2**40], raw_data=b""), "has the shape"),
    (tensor([2**33]), "has the shape"),
    (tensor([2**20, 2**10]), "0 numbers for the shape"),
    (tensor([-3, 4], raw_data=b""), "has the shape"),
    (tensor([3, 4], float_data=[1.0] * 11), "11 numbers for the shape"),
    (tensor([1], TensorProto.STRING, string_data=[b"a"]), "numbers of type STRING"),
    (tensor([3, 4], TensorProto.INT4, raw_data=b"\0" * 6), "numbers of type INT4"),
])
def test_sizes_are_checked_before_memory_is_taken(wrong, match, tmp_path):
    path = gemm(tmp_path, wrong)
    with limited_memory(1 << 22):
        refused(path, f"load_onnx: expected nodes .* Gemm 'y' .*{match}")


def test_huge_axes_are_refused(tmp_path):
    """Of an input or by a setting; a layer norm without scale and shift declares both."""
    for nodes in ([helper.make_node("LayerNormalization", ["x", "one"], ["y"], axis=1)],
                  [helper.make_node("Relu", ["x"], ["y"])],
                  [helper.make_node("Pad", ["x", "pads"], ["y"])],
                  [helper.make_node("Resize", ["x", "", "scales"], ["y"], mode="linear")]):
        tensors = [onnx.numpy_helper.from_array(np.array(value, kind), name)
                   for name, value, kind in (("one", [1], np.float32),
                                             ("pads", [0, 0, 2**40, 0, 0, 2**40], np.int64),
                                             ("scales", [1, 1, 2**40], np.float32))]
        path = written(tmp_path, nodes, *tensors, shape=("N", 2**21, 2**20))
        with limited_memory(1 << 22):
            refused(path, "load_onnx: expected")


@pytest.mark.parametrize("nodes", [
    [helper.make_node("Pow", ["four", "large"], ["c"])],
    [helper.make_node("Mul", [f"a{i}" if i else "four", f"a{i}" if i else "four"], [f"a{i + 1}"])
     for i in range(60)] + [helper.make_node("Identity", ["a60"], ["c"])],
    [helper.make_node("Expand", ["four", "size"], ["many"]),
     helper.make_node("ReduceProd", ["many"], ["c"])]])
def test_sizes_have_64_bits(nodes, tmp_path):
    """Shapes with the number of samples are Python's ints."""
    arrays = [onnx.numpy_helper.from_array(np.array(value), name)
              for name, value in (("one", [1]), ("large", 10**9), ("size", [10**6]))]
    nodes = [helper.make_node("Shape", ["x"], ["s"]), helper.make_node("Gather", ["s", "one"],
                                                                       ["four"]), *nodes]
    path = written(tmp_path, [*nodes, helper.make_node("Mul", ["x", "c"], ["y"])], *arrays)
    with limited_time():
        refused(path, "too large|with the number of samples")


def test_subgraphs_in_subgraphs(tmp_path):
    """Deeper than a parser of protobuf recurses."""
    graph = b""
    for _ in range(3000):               # GraphProto.node.attribute.g
        for tag in (0x32, 0x2A, 0x0A):
            graph = bytes([tag]) + varint(len(graph)) + graph
    (tmp_path / "net.onnx").write_bytes(b"\x3a" + varint(len(graph)) + graph)
    refused(tmp_path / "net.onnx", "expected an ONNX file")


def varint(number: int) -> bytes:
    found = []
    while number > 127:
        found.append(number & 127 | 128)
        number >>= 7
    return bytes([*found, number])


# --- numbers in other files -----------------------------------------------------------------------

def external(location, offset=None, length=None):
    made = tensor([3, 4], data_location=TensorProto.EXTERNAL)
    for key, value in (("location", location), ("offset", offset), ("length", length)):
        if value is not None:
            made.external_data.add(key=key, value=str(value))
    return made


def test_numbers_may_be_in_a_file_beside_the_model(tmp_path):
    (tmp_path / "weights").write_bytes(b"1234" + W.tobytes())
    net = xn.io.load_onnx(gemm(tmp_path, external("weights", 4, 48)), backend="numpy")
    assert (net.arrays["y.W"].data == W).all()


@pytest.mark.parametrize("location", ["../secret", "/etc/passwd", "folder/weights", "..", ".", "",
                                      "folder\\weights", "a\0b", "C:weights"])
def test_no_path_leads_out_of_the_folder(location, tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder" / "weights").write_bytes(W.tobytes())
    refused(gemm(tmp_path, external(location)), "not the name of a file beside the model")


def test_bytes_belong_to_one_tensor(tmp_path):
    """Else a small file could ask for a large one many times."""
    (tmp_path / "weights").write_bytes(W.tobytes())
    tensors = []
    for name in "ab":
        tensors.append(external("weights", 0, 48))
        tensors[-1].name = name
    refused(written(tmp_path, [helper.make_node("Sum", ["x", "a", "b"], ["y"])], *tensors),
            "tensor 'b' is in 'weights', whose bytes belong to several tensors")


def test_links_are_not_followed(tmp_path):
    (tmp_path / "secret").write_bytes(W.tobytes())
    os.symlink(tmp_path / "secret", tmp_path / "weights")
    refused(gemm(tmp_path, external("weights")), "is a symbolic link")


@pytest.mark.parametrize("offset, length", [(None, 44), (8, 48), (-4, 48), (2**62, 48),
                                            ("x", 48), (None, 2**62)])
def test_the_file_has_the_bytes(offset, length, tmp_path):
    (tmp_path / "weights").write_bytes(W.tobytes())
    refused(gemm(tmp_path, external("weights", offset, length)), "does not have 48 bytes")


def test_a_missing_file_and_a_folder(tmp_path):
    refused(gemm(tmp_path, external("weights")), "cannot be opened")
    (tmp_path / "weights").mkdir()
    refused(gemm(tmp_path, external("weights")), "weights")


# --- damage ---------------------------------------------------------------------------------------

def test_what_is_no_onnx_file(tmp_path):
    path = tmp_path / "net.onnx"
    for content in (b"", b"no model", b"\x89HDF\r\n\x1a\n" + b"0" * 99, b"\x08\x08"):
        path.write_bytes(content)
        refused(path, "load_onnx: expected an ONNX file")
    with pytest.raises(FileNotFoundError, match="load_onnx: expected an ONNX file"):
        xn.io.load_onnx(tmp_path / "other.onnx")


@pytest.mark.parametrize("version", [6, 99])
def test_other_opsets(version, tmp_path):
    path = written(tmp_path, [helper.make_node("Relu", ["x"], ["y"])])
    made = onnx.load(path)
    made.opset_import[0].version = version
    path.write_bytes(made.SerializeToString())
    refused(path, f"load_onnx: expected operators of opset 7 to .* with opset {version}")


def test_nodes_without_outputs_or_inputs(tmp_path):
    relu = helper.make_node("Relu", ["x"], ["y"])
    for kind in ("Mul", "Div", "Shape", "Split"):
        path = written(tmp_path, [helper.make_node(kind, ["x"], []), relu])
        assert len(xn.io.load_onnx(path, backend="numpy").layers) == 1
    for kind in ("Add", "Reshape", "Conv", "Slice", "LSTM", "Resize", "Clip", "Concat", "Gemm"):
        refused(written(tmp_path, [helper.make_node(kind, [], ["y"])]), "load_onnx: expected")


def test_a_circle_of_nodes(tmp_path):
    refused(written(tmp_path, [helper.make_node("Add", ["x", "b"], ["a"]),
                               helper.make_node("Relu", ["a"], ["b"]),
                               helper.make_node("Relu", ["b"], ["y"])]), "without circles")


def test_deep_graphs(tmp_path):
    """Deeper than Python can recurse."""
    names = ["x", *(f"v{i}" for i in range(3000)), "y"]
    path = written(tmp_path, [helper.make_node("Relu", [a], [b]) for a, b in zip(names, names[1:])])
    assert len(xn.io.load_onnx(path, backend="numpy").layers) == 3001


def test_nodes_without_outputs_are_not_needed(tmp_path):
    path = written(tmp_path, [helper.make_node("Add", ["x", "x"], []),
                              helper.make_node("Clip", ["x"], [], min=0.0),
                              helper.make_node("Relu", ["x"], ["y"])])
    assert [layer.name for layer in xn.io.load_onnx(path, backend="numpy").layers] == ["y"]


def test_many_equal_names(tmp_path):
    """They take a time that does not grow with the square of their number."""
    nodes = [helper.make_node("Relu", [f"v{i}" if i else "x"], [f"v{i + 1}"], "same")
             for i in range(300)]
    nodes += [helper.make_node("Squeeze", ["v300"], ["s"], axes=[1]) for _ in range(3000)]
    nodes += [helper.make_node("Relu", ["v300"], ["y"], "same")]
    path = written(tmp_path, nodes)
    with limited_time():
        net = xn.io.load_onnx(path, backend="numpy")
    assert [layer.name for layer in net.layers][:3] == ["same", "same_2", "same_3"]
    assert len(net.layers) == 301


def test_names_that_are_no_text(tmp_path):
    path = written(tmp_path, [helper.make_node("Relu", ["x"], ["two"]),
                              helper.make_node("Relu", ["two"], ["y"])])
    path.write_bytes(path.read_bytes().replace(b"two", b"t\xffo"))
    refused(path, "expected names in UTF-8")


def test_names_in_errors_are_short_and_in_one_line(tmp_path):
    path = written(tmp_path, [helper.make_node("Strange\n" * 99, ["x"], ["long\n" * 999]),
                              helper.make_node("Relu", ["long\n" * 999], ["y"])])
    with pytest.raises(ValueError) as caught:
        xn.io.load_onnx(path)
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 400


@pytest.mark.parametrize("node, match", [
    (dict(op_type="Clip", inputs=["x"], outputs=["y"], min=[0.0]), "Clip 'y'"),
    (dict(op_type="Squeeze", inputs=["x"], outputs=["y"], axes="two"), "Squeeze 'y'"),
    (dict(op_type="Pad", inputs=["x"], outputs=["y"], pads=3.5), "Pad 'y'"),
    (dict(op_type="Softmax", inputs=["x"], outputs=["y"], axis="last"), "Softmax 'y'"),
    (dict(op_type="Gemm", inputs=["x", "x"], outputs=["y"], transB=[1]), "Gemm 'y'")])
def test_attributes_of_other_types(node, match, tmp_path):
    refused(written(tmp_path, [helper.make_node(**node)]), match)


def test_lengths_of_another_shape(tmp_path):
    arrays = [onnx.numpy_helper.from_array(np.zeros(shape, np.float32), name)
              for name, shape in (("W", (1, 3, 4)), ("R", (1, 3, 3)))]
    nodes = [helper.make_node("RNN", ["x", "W", "R", "", "x"], ["", "y"], hidden_size=3)]
    refused(written(tmp_path, nodes, *arrays, shape=(5, "N", 4)),
            r"RNN '' \(its input has samples of shape \(5, 4\) and not \(1,\)\)")


def test_types_that_are_not_known(tmp_path):
    refused(gemm(tmp_path, tensor([3, 4], 99, raw_data=b"")), "numbers of type number 99")
    refused(gemm(tmp_path, tensor([1] * 70, raw_data=b"\0" * 4)), "has the shape")
    path = written(tmp_path, [helper.make_node("Softmax", ["x"], ["y"], axis=1)])
    made = onnx.load(path)
    made.graph.node[0].attribute[0].ref_attr_name = "of a function"
    made.graph.input[0].type.tensor_type.elem_type = 99
    path.write_bytes(made.SerializeToString())
    refused(path, "its attribute 'axis' has no value of a known type")


def test_subgraphs_are_refused(tmp_path):
    body = helper.make_graph([helper.make_node("Relu", ["x"], ["z"])], "body", [], [
        helper.make_tensor_value_info("z", TensorProto.FLOAT, None)])
    yes = onnx.numpy_helper.from_array(np.array(True), "yes")
    refused(written(tmp_path, [helper.make_node("If", ["yes"], ["a"], then_branch=body,
                                                else_branch=body),
                               helper.make_node("Add", ["x", "a"], ["y"])], yes),
            "If 'a' .*nothing here computes it")
