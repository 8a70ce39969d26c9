"""Networks and layers as ONNX files: with random values, and run by others."""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from layer_cases import LayerCase
from model_cases import SETTINGS, SMALLEST

import xpnet as xn
from xpnet import models
from xpnet.graph import Graph
from xpnet.io.onnx.export import export

Arrays = list[np.ndarray]


def vary(net: Graph, seed: int = 3, most_axes: int = 9) -> Graph:
    """Add random numbers to all parameters and states, so that no bias is 0 and no variance 1; or
    to those that have at most `most_axes` axes."""
    rng = np.random.default_rng(seed)
    for name, p in net.arrays.items():
        if len(p.shape) > most_axes:
            continue
        noise = 0.1 * rng.standard_normal(p.shape)
        p.data += (abs(noise) if name.endswith(".var") else noise).astype(net.dtype)
    return net


def of_case(case: LayerCase, dtype: str = "float32") -> tuple[xn.Network, Arrays]:
    """A network of one layer, and batch-first samples."""
    ins = [xn.Input(shape) for shape in case.in_shapes]
    net = xn.Network(ins[0] if len(ins) == 1 else ins, case.make().node(*ins), backend="numpy",
                     dtype=dtype)
    vary(net)
    return net, [np.ascontiguousarray(np.moveaxis(x, -1, 0)) for x in case.inputs(dtype)]


def of_model(name: str) -> xn.Network:
    net = models.MODELS[name](SMALLEST[name], backend="numpy", **SETTINGS.get(name, {}))
    vary(net, most_axes=1)
    last = net.nodes[-1].layer
    if getattr(last, "activation", None) == "relu":     # outputs of 0 would all be equal
        last.b.data += np.float32(20)                   # type: ignore[union-attr]
    return net


def samples(net: Graph, N: int, seed: int = 0) -> Arrays:
    """Random samples for all inputs; tokens for an Embedding."""
    rng = np.random.default_rng(seed)
    tokens = isinstance(net.nodes[0].layer, xn.Embedding)
    return [rng.integers(0, net.nodes[0].layer.tokens, (N, *node.shape)) if tokens
            else rng.standard_normal((N, *node.shape)).astype(net.dtype) for node in net.ins.nodes]


def predicted(net: xn.Network, xs: Arrays) -> Arrays:
    return list(net.outs.unpack(net.predict(net.ins.pack(xs)), "test", "outputs"))


def exported(net: Graph, path: Path, **options: Any) -> Any:
    """The file as a model of the package onnx."""
    import onnx
    export(net, path, **options)
    return onnx.load(path)


def model(nodes: Sequence[Any], shape: Any, constants: Mapping[str, Any] | None = None, *,
          tensors: Sequence[Any] = (), inputs: Mapping[str, Any] | None = None,
          outputs: Sequence[str] = ("y",), opset: int = 17) -> Any:
    """A model with an input x of this shape, and outputs of unknown shape; constants are arrays by
    name, or tensors of the package onnx."""
    from onnx import TensorProto, helper, numpy_helper
    inputs = {"x": shape} if inputs is None else inputs
    graph = helper.make_graph(
        nodes, "test",
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, one)
         for name, one in inputs.items()],
        [helper.make_tensor_value_info(name, TensorProto.FLOAT, None) for name in outputs],
        [*(numpy_helper.from_array(np.asarray(array), name)
           for name, array in (constants or {}).items()), *tensors])
    return helper.make_model(graph, opset_imports=[helper.make_opsetid("", opset)], ir_version=8)


def load(made: Any, folder: Path, **options: Any) -> xn.Network:
    """The network that a model becomes."""
    path = folder / "made.onnx"
    path.write_bytes(made.SerializeToString())
    return xn.io.load_onnx(path, backend="numpy", **options)


def written(folder: Path, nodes: Sequence[Any], *tensors: Any, shape: Any = ("N", 4)) -> Path:
    """A file with an input x of this shape, and an output y."""
    path = folder / "net.onnx"
    path.write_bytes(model(nodes, shape, tensors=tensors, opset=18).SerializeToString())
    return path


def refused(path: Path, match: str) -> None:
    """The file is refused with one line."""
    with pytest.raises(ValueError, match=match) as caught:
        xn.io.load_onnx(path, backend="numpy")
    assert "\n" not in str(caught.value)


def check(made: Any, folder: Path, *kinds: str, N: int = 3, **options: Any) -> xn.Network:
    """The file is a network of these layers and computes what the reference computes."""
    net = load(made, folder, **options)
    assert [type(layer).__name__ for layer in net.layers] == list(kinds)
    xs = samples(net, N)
    for y, expected in zip(predicted(net, xs), by_reference(made, xs), strict=True):
        assert difference(y, expected) < 1e-5
    return net


def feed(model: Any, xs: Arrays) -> dict[str, np.ndarray]:
    from onnx.helper import tensor_dtype_to_np_dtype
    return {value.name: x.astype(tensor_dtype_to_np_dtype(value.type.tensor_type.elem_type))
            for value, x in zip(model.graph.input, xs, strict=True)}


def by_reference(model: Any, xs: Arrays) -> Arrays:
    """The outputs, computed by the package onnx."""
    from onnx.reference import ReferenceEvaluator
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")             # its softplus overflows, ...
        found: Arrays = ReferenceEvaluator(model).run(None, feed(model, xs))
        return found


def by_runtime(model: Any, xs: Arrays) -> Arrays:
    """The outputs, computed by onnxruntime."""
    import onnxruntime
    options = onnxruntime.SessionOptions()
    options.log_severity_level = 3
    session = onnxruntime.InferenceSession(model.SerializeToString(), options,
                                           providers=["CPUExecutionProvider"])
    found: Arrays = session.run(None, feed(model, xs))
    return found


def difference(a: np.ndarray, b: np.ndarray) -> float:
    """The largest difference, relative to the largest number."""
    assert a.shape == b.shape and a.dtype == b.dtype
    return float(abs(a - b).max() / abs(b).max())
