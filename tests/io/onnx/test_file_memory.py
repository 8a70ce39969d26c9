"""Small ONNX files do not take much memory, whatever sizes they name."""

from __future__ import annotations

import numpy as np
import pytest
from hostile_files import limited_memory, limited_time
from onnx_networks import refused, written

import xpnet as xn
from xpnet.io.onnx.fold import MOST_BYTES

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

from onnx import TensorProto, helper  # noqa: E402


@pytest.mark.parametrize("kind", ["ConstantOfShape", "Range", "Expand", "Add", "Less", "Where",
                                  "Concat", "Gather", "Cast", "Reshape", "many"])
def test_small_files_do_not_become_large_arrays(kind, tmp_path):
    shape = onnx.numpy_helper.from_array(np.array([2**28]), "shape")
    zero, one, half, minus, some, rows, columns = (
        onnx.numpy_helper.from_array(np.array(value), name) for name, value in (
            ("zero", 0), ("one", 1), ("half", [2**12, 2**12]), ("minus", [-1]), ("some", 2**17),
            ("rows", [[1]] * 2**13), ("columns", [[1] * 2**13])))
    nodes = {
        "ConstantOfShape": [helper.make_node("ConstantOfShape", ["shape"], ["a"]),
                            helper.make_node("Neg", ["a"], ["c"])],
        "Range": [helper.make_node("Squeeze", ["shape"], ["n"]),
                  helper.make_node("Range", ["zero", "n", "one"], ["c"])],
        "Expand": [helper.make_node("Expand", ["one", "shape"], ["a"]),
                   helper.make_node("Neg", ["a"], ["c"])],
        "Add": [helper.make_node("Expand", ["one", "shape"], ["a"]),
                helper.make_node("Add", ["a", "zero"], ["c"])],
        "Less": [helper.make_node("Less", ["rows", "columns"], ["c"])],
        "Where": [helper.make_node("Equal", ["rows", "rows"], ["a"]),
                  helper.make_node("Where", ["a", "columns", "zero"], ["c"])],
        "Concat": [helper.make_node("Concat", ["columns"] * 3000, ["c"], axis=0)],
        "Gather": [helper.make_node("Expand", ["zero", "half"], ["a"]),
                   helper.make_node("Gather", ["columns", "a"], ["c"])],
        "Cast": [helper.make_node("Expand", ["one", "half"], ["a"]),
                 helper.make_node("Cast", ["a"], ["c"], to=11)],
        "Reshape": [helper.make_node("Expand", ["one", "half"], ["a"]),
                    helper.make_node("Reshape", ["a", "minus"], ["c"])],
        "many": [*(helper.make_node("Range", ["zero", "some", "one"], [f"a{i}"])
                   for i in range(100)),
                 helper.make_node("Sum", [f"a{i}" for i in range(100)], ["c"])]}[kind]
    path = written(tmp_path, [*nodes, helper.make_node("Mul", ["x", "c"], ["y"])], shape, zero,
                   one, rows, columns, half, minus, some)
    with limited_memory((1 << 22) + (MOST_BYTES if kind == "many" else 0)):
        refused(path, "it makes an array|bytes of memory, more than a file of this size may")


@pytest.mark.parametrize("count, size", [(1, 2**28), (2**7, 2**20)])
def test_small_files_do_not_become_large_parameters(count, size, tmp_path):
    """Weights of one repeated number."""
    shape = onnx.numpy_helper.from_array(np.array([4, size // 4]), "shape")
    nodes = [node for i in range(count) for node in (
        helper.make_node("ConstantOfShape", ["shape"], [f"w{i}"]),
        helper.make_node("Gemm", ["x", f"w{i}"], [f"y{i}"]))]
    nodes += [helper.make_node("Sum", [f"y{i}" for i in range(count)], ["y"])]
    path = written(tmp_path, nodes, shape)
    with limited_memory(1 << 26):
        refused(path, f"Gemm 'y{0 if count == 1 else 5}' .it takes .* bytes of memory")


# Nodes that make y of x, the constants that they read, the shape of x, and why they are refused.
# Each has a number of 64 bits or less that says how large something is.
node = helper.make_node
threes = helper.make_tensor("threes", TensorProto.INT64, [1], [3])
LARGE = {
    "parts": ([node("Split", ["x"], ["y"], axis=1, num_outputs=2**40)], {}, (2**28,),
              "its num_outputs is not 1"),
    "shape": ([node("Expand", ["one", "n"], ["s"]), node("Reshape", ["x", "s"], ["y"])],
              {"n": [2**24]}, (4,), "its shape has 16777216 numbers"),
    "axes": ([node("Expand", ["one", "n"], ["s"]), node("ConstantOfShape", ["s"], ["c"]),
              node("Add", ["x", "c"], ["y"])], {"n": [2**24]}, (4,), "an array of 16777216 axes"),
    "new axes": ([node("Range", ["a", "b", "c"], ["r"]), *(
        node("Unsqueeze", [f"u{k}" if k else "x", "r"], [f"u{k + 1}" if k < 20 else "y"])
        for k in range(21))], {"a": 1, "b": 2**12, "c": 1}, (4,), "its output has 4097 axes"),
    "batch": ([node("Shape", ["x"], ["s"]), node("Gather", ["s", "z"], ["b"]),
               node("Expand", ["b", "n"], ["e"]), node("Add", ["x", "e"], ["y"])],
              {"n": [2**31 - 1], "z": [0]}, (4,), "too large or too many"),
    "integers": ([node("ConstantOfShape", ["n"], ["W"], value=threes),
                  node("Gemm", ["x", "W"], ["y"])], {"n": [4, 2**26]}, (4,), "bytes of memory"),
    "alpha": ([node("ConstantOfShape", ["n"], ["W"]), node("Gemm", ["x", "W"], ["y"], alpha=2.0)],
              {"n": [4, 2**26]}, (4,), "bytes of memory"),
    "gates": ([node("ConstantOfShape", ["n"], ["W"]),
               node("RNN", ["x", "W", "W"], ["", "y"], hidden_size=2**14)],
              {"n": [1, 2**14, 2**14]}, (5, "N", 2**14), "bytes of memory"),
    "centres": ([node("ConstantOfShape", ["n"], ["W"]), node("ConstantOfShape", ["m"], ["B"]),
                 node("Gemm", ["x", "W"], ["g"], alpha=2.0, transB=1),
                 node("ReduceSumSquare", ["x", "one"], ["q"]), node("Sub", ["g", "q"], ["d"]),
                 node("Sub", ["d", "B"], ["y"])], {"n": [2**26, 4], "m": [2**26]}, (4,),
                "bytes of memory"),
    "weights": ([node("Add", ["a", "b"], ["W"]), node("Gemm", ["x", "W"], ["y"])],
                {"a": np.zeros((2500, 1), np.float32), "b": np.zeros((1, 2500), np.float32)},
                (2500,), "bytes of memory"),
    "groups": ([node("ConstantOfShape", ["n"], ["g"]),
                node("GroupNormalization", ["x", "g", "g"], ["y"], num_groups=2)],
               {"n": [2]}, (2**30, 4, 4), "bytes of memory"),
    "indices": ([node("Range", ["a", "b", "c"], ["r"]), node("Gather", ["x", "r"], ["y"], axis=1)],
                {"a": 0, "b": 2**22, "c": 1}, (2**28,), "bytes of memory"),
    "means": ([node("ConstantOfShape", ["n"], ["c"], value=threes),
               node("Add", ["x", "c"], ["y"])], {"n": [2**24]}, (2**24,), "bytes of memory"),
    "pixels": ([node("Resize", ["x", "", "s"], ["y"], mode="cubic")],
               {"s": np.array([1, 1, 2**20, 1], np.float32)}, (1, 1, 1), "bytes of memory"),
    "sizes": ([node("Expand", ["one", "n"], ["s"]), node("Resize", ["x", "", "", "s"], ["y"])],
              {"n": [2**24]}, (1, 4, 4), "its sizes has 16777216 numbers"),
}


@pytest.mark.parametrize("name", LARGE)
def test_numbers_in_a_small_file_take_no_memory(name, tmp_path):
    nodes, constants, shape, match = LARGE[name]
    tensors = [onnx.numpy_helper.from_array(np.asarray(value), key)
               for key, value in (constants | {"one": [1]}).items()]
    path = written(tmp_path, nodes, *tensors, shape=shape if "N" in shape else ("N", *shape))
    with limited_time(), limited_memory(1 << 24):
        refused(path, match)


@pytest.mark.parametrize("nodes, constants, shape", [
    ([node("Resize", ["x", "", "s"], ["y"], mode="linear",
           coordinate_transformation_mode="align_corners")], {"s": [1, 1, 150, 1]}, (1, 1000, 1)),
    ([node("Resize", ["x", "", "s"], ["y"], mode="cubic")], {"s": [1, 1, 1.02, 1.02]},
     (1, 4000, 4000)),
    ([node("Add", ["a", "b"], ["W"]), node("Gemm", ["x", "W"], ["y"])],
     {"a": np.zeros((2000, 1)), "b": np.zeros((1, 2000))}, (2000,))])
def test_what_is_just_small_enough(nodes, constants, shape, tmp_path):
    tensors = [onnx.numpy_helper.from_array(np.asarray(value, np.float32), name)
               for name, value in constants.items()]
    path = written(tmp_path, nodes, *tensors, shape=("N", *shape))
    with limited_memory((64 << 20) + 4 * path.stat().st_size):
        assert len(xn.io.load_onnx(path, backend="numpy").layers) == 1


@pytest.mark.parametrize("nodes", [
    [node("Gemm", ["x", "W"], ["y"])],
    [node("Cast", ["W"], ["V"], to=1), node("Gemm", ["x", "V"], ["y"])],
    [node("Cast", ["W"], ["V"], to=1), node("Transpose", ["V"], ["U"]),
     node("Gemm", ["x", "U"], ["y"], transB=1)]])
def test_a_file_of_float16_has_room(nodes, tmp_path):
    """A single array, which is most of the file."""
    half = onnx.numpy_helper.from_array(np.ones((4096, 2048), np.float16), "W")
    net = xn.io.load_onnx(written(tmp_path, nodes, half, shape=("N", 4096)), backend="numpy")
    assert net.parameters.size == 4096 * 2048


def test_many_nodes_and_tensors(tmp_path, monkeypatch):
    monkeypatch.setattr("xpnet.io.onnx.read.MOST_NAMES", 500)
    monkeypatch.setattr("xpnet.io.onnx.read.MOST_TENSORS", 50)
    relu = node("Relu", ["x"], ["y"])
    nodes = [node("Relu", ["x"], [f"v{k}"]) for k in range(100)]
    tensors = [TensorProto(name=f"t{k}") for k in range(51)]
    assert xn.io.load_onnx(written(tmp_path, [*nodes[:90], relu], *tensors[:40])).layers
    for many in ([*nodes, relu],), ([relu], *tensors):
        refused(written(tmp_path, *many), "expected at most 50 tensors, and 500 names of nodes")
