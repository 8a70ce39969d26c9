"""Networks written as ONNX files."""

from __future__ import annotations

import json
import os
from collections.abc import Callable
from typing import Any

from xpnet import layers as L
from xpnet.checks import expect_flag
from xpnet.graph import Graph
from xpnet.io.files import Path, name_of, write_atomically
from xpnet.io.onnx import (
    write_activations,
    write_normalization,
    write_sequences,
    write_shapes,
    write_windows,
)
from xpnet.io.onnx.library import UnsupportedError, library, listed
from xpnet.io.onnx.writer import IR_VERSION, OPSET, Draft, Use
from xpnet.layer import Layer
from xpnet.node import Node
from xpnet.transform.folding import fold_batch_norm

WRITE: dict[type[Layer], Callable[..., str]] = {
    **write_activations.WRITE, **write_windows.WRITE, **write_shapes.WRITE,
    **write_normalization.WRITE, **write_sequences.WRITE}
REASONS: dict[type[Layer], str] = {
    L.DeconvolutionalNetwork2d: "it solves for its feature maps step by step"}
MOST_BYTES = 2**31 - 2**20      # of a file: protobuf's limit, less what is not arrays


def export(net: Graph, path: Path, *, fold: bool = False) -> None:
    """Write a network for predictions as an ONNX file.

    Samples are batch-first, as people pass them, and the batch may have any size. Layers keep their
    names, and arrays theirs, e.g. "conv1.W". Dropout is left out, and batch norms have their
    running statistics. Layers that ONNX has no operator for are several nodes. The operators are
    those of opset 18. What the network knows of its samples is in the metadata: "xpnet.scale",
    "xpnet.classes" (a JSON list) and "xpnet.image_fit".

    Args:
        net: the network.
        path: a name that ends with .onnx. An old file is replaced when the new one is complete.
        fold: whether batch norms are folded into the layers before them, see `net.folded`.

    Raises:
        ImportError: the package onnx is missing; it is in the extra `onnx`.
        ValueError: ONNX cannot say what some layers compute (the error lists them all), the name
            does not end with .onnx, or the arrays are larger than 2 GiB.
        OSError: the file cannot be written.
    """
    name = name_of(path, "export")
    if os.path.splitext(name)[1].lower() != ".onnx":
        raise ValueError("export: expected a name that ends with .onnx; net.save writes "
                         f".safetensors. Received: {name}.")
    fold = expect_flag("export", "fold", fold)
    onnx = library("export")
    write_atomically(name, model(onnx, fold_batch_norm(net) if fold else net), who="export")


def model(onnx: Any, net: Graph) -> bytes:
    """The content of the file."""
    if sum(p.data.nbytes for p in net.arrays.values()) > MOST_BYTES:
        raise ValueError("export: expected arrays of less than 2 GiB, the limit of an ONNX file. "
                         f"Received: {net!r} with larger ones.")
    draft = Draft(onnx, net.dtype)
    inputs = _inputs(net, draft)        # their names and those of the outputs come first
    outputs = {node: draft.value(name)
               for node, name in zip(net.outs.nodes, net.outs.names, strict=True)}
    values = dict(inputs)
    reasons: dict[str, None] = {}       # of layers that cannot be written, each once
    for node in net.nodes:
        layer = node.layer
        assert layer is not None
        use = Use(draft, node, outputs.get(node))
        try:
            if type(layer) not in WRITE:
                raise UnsupportedError(REASONS.get(type(layer), "it is not a layer of xpnet"))
            y = WRITE[type(layer)](use, layer, *(values[parent] for parent in node.parents))
        except UnsupportedError as error:
            reasons[f"{layer.who} ({error})"] = None
            y = node.name
        else:
            y = use.finish(y)
        values[node] = y
    if reasons:
        raise ValueError("export: expected layers that ONNX has operators for. Received: "
                         f"{listed([*reasons])}.")
    return _serialized(onnx, net, draft, inputs, outputs)


def _inputs(net: Graph, draft: Draft) -> dict[Node, str]:
    """The names of the inputs; those that only an Embedding reads are integers.

    Numbers of steps are inputs (N, 1), too, if a layer reads them.
    """
    read = {parent for node in net.nodes for parent in node.parents}
    values = {node: draft.value(node.name) for node in net.in_nodes if node in read}
    for node, name in values.items():
        readers = [reader.layer for reader in net.nodes if node in reader.parents]
        if all(type(reader) is L.Embedding for reader in readers):
            draft.integers.add(name)
    return values


def _serialized(onnx: Any, net: Graph, draft: Draft, inputs: dict[Node, str],
                outputs: dict[Node, str]) -> bytes:
    helper, of_array = onnx.helper, onnx.numpy_helper.from_array
    real = helper.np_dtype_to_tensor_dtype(draft.dtype)

    def value(name: str, node: Node) -> Any:
        element = onnx.TensorProto.INT64 if name in draft.integers else real
        return helper.make_tensor_value_info(name, element, ["N", *node.shape])

    ins, outs = ([value(name, node) for node, name in names.items()] for names in (inputs, outputs))
    graph = helper.make_graph(
        draft.nodes, "xpnet", ins, outs,
        [of_array(array, name) for name, array in draft.initializers.items()])
    opset = helper.make_opsetid("", OPSET)
    made = helper.make_model(graph, opset_imports=[opset], ir_version=IR_VERSION,
                             producer_name="xpnet")
    helper.set_model_props(made, _metadata(net))
    content: bytes = made.SerializeToString(deterministic=True)
    return content


def _metadata(net: Graph) -> dict[str, str]:
    known = net.trained
    found = {"xpnet.scale": known.scale, "xpnet.image_fit": known.image_fit,
             "xpnet.classes": None if known.classes is None else json.dumps(known.classes)}
    return {name: str(value) for name, value in found.items() if value is not None}
