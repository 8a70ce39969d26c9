"""Networks made of ONNX files."""

from __future__ import annotations

import json
import math
from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import layers as L
from xpnet.backends import Backend, get_backend
from xpnet.checks import (
    bare,
    expect_flag,
    expect_seed,
    expect_shape,
    is_number,
    is_plain_name,
    items,
    shown,
)
from xpnet.graph import Graph
from xpnet.io.files import Path
from xpnet.io.onnx import (
    read_activations,
    read_merges,
    read_normalization,
    read_sequences,
    read_shapes,
    read_windows,
)
from xpnet.io.onnx.build import Builder, Reading, Value
from xpnet.io.onnx.fold import Room, fold, fold_constants
from xpnet.io.onnx.library import UnsupportedError, library, listed, printable
from xpnet.io.onnx.nodes import Operation, Program, reachable
from xpnet.io.onnx.patterns import rewrite
from xpnet.io.onnx.read import Tensors, opset, read_model, type_name
from xpnet.io.public import Face
from xpnet.node import Node, topological
from xpnet.trained import FITS, Trained, expect_classes

if TYPE_CHECKING:
    from xpnet.network import Network

READ = {**read_activations.READ, **read_merges.READ, **read_normalization.READ,
        **read_sequences.READ, **read_shapes.READ, **read_windows.READ}
WHO = "load_onnx"
MOST_AXES = 8           # of an input
MOST_TEXT = 1 << 20     # characters of the names of classes


class _Failed:
    """The value of an operation that could not be read, or that depends on such a value."""


def load_onnx(path: Path, *, input_shape: Sequence[int] | Mapping[str, Sequence[int]] | None = None,
              outputs: str | Sequence[str] | None = None, freeze_batch_norm: bool = False,
              backend: str | Backend = "auto", seed: int = 0) -> Network:
    """A network that predicts what an ONNX file computes, and that can be trained.

    Layers have the names of the file's nodes, and inputs and outputs those of its values; several
    of them are a dict. Samples are batch-first. Weights, and other arrays that are added or
    multiplied, are parameters; single numbers are settings of layers. Constants and arithmetic with
    shapes are computed once, and groups of nodes that are one layer become that layer. Nothing in
    the file is executed.

    Args:
        path: an ONNX file. Arrays may be in other files in the same folder.
        input_shape: the shape of a sample, if the file leaves rows or columns open; for several
            inputs a dict.
        outputs: the names of values of the file to be the outputs; by default the file's outputs.
        freeze_batch_norm: whether batch norms keep their statistics, scale and shift in training.
        backend: the name of a backend, or a Backend.
        seed: of all random numbers of training.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: the package onnx is missing; it is in the extra `onnx`.
        ValueError: it is no ONNX file, shapes are missing, or nodes compute what no layer here
            computes (the error lists all of them with the reasons).
    """
    freeze = expect_flag(WHO, "freeze_batch_norm", freeze_batch_norm)
    backend, seed = get_backend(backend), expect_seed(WHO, seed)
    onnx = library(WHO)
    model = read_model(onnx, path, WHO)
    tensors = Tensors(onnx, path)
    program = Program(onnx, model.graph, tensors)
    room = Room(model.ByteSize() + tensors.taken.total())
    program.operations = fold_constants(program.operations, program.constants, room)
    names = _output_names(model, program, outputs)
    program.operations = rewrite(program, names)
    try:
        operations = reachable(program.operations, names)
    except ValueError as error:
        raise ValueError(f"{WHO}: expected nodes without circles. Received: {error}.") from error
    read = {name for operation in operations for name in operation.inputs} | {*names}
    inputs = [value for value in model.graph.input
              if value.name in read and value.name not in program.constants]
    builder, values = _inputs(onnx, inputs, operations, input_shape, freeze, room)
    problems = _build(builder, program, operations, values, names, opset(model))
    if problems:
        raise ValueError(f"{WHO}: expected nodes that layers here can compute. Received: "
                         f"{listed(problems)}.")
    try:
        ins, outs = _ports(builder, values, [value.name for value in inputs], names)
        graph = Graph(ins, outs, backend=backend, dtype=_dtype(builder), seed=seed,
                      values=builder.arrays)
    except (ValueError, UnsupportedError) as error:
        raise ValueError(f"{WHO}: expected a graph that can be a network. Received: "
                         f"{printable(str(error)).rstrip('.')}.") from error
    graph.trained = _trained(model, graph)
    network: Network = Face.of(graph)
    return network


def _output_names(model: Any, program: Program, outputs: Any) -> list[str]:
    known = {name for operation in program.operations for name in operation.outputs}
    if outputs is None:
        return [value.name for value in model.graph.output]
    names = [outputs] if isinstance(outputs, str) else items(outputs)
    if not names or not all(isinstance(name, str) and name in known for name in names):
        raise ValueError(f"{WHO}: expected outputs to be names of values of the file. Received: "
                         f"outputs={shown(outputs)}.")
    return names


def _inputs(onnx: Any, inputs: Sequence[Any], operations: Sequence[Operation], given: Any,
            freeze: bool, room: Room) -> tuple[Builder, dict[str, Any]]:
    """A builder, and the values of the inputs."""
    if isinstance(given, Mapping):
        shapes = dict(given)
    else:
        shapes = {} if given is None else {value.name: given for value in inputs[:1]}
    unknown = [name for name in shapes if name not in {value.name for value in inputs}]
    if unknown or (given is not None and not isinstance(given, Mapping) and len(inputs) != 1):
        names = printable(", ".join(value.name for value in inputs))
        raise ValueError(f"{WHO}: expected input_shape to be a dict with shapes for {names}, or "
                         f"one shape for a single input. Received: input_shape={shown(given)}.")
    missing, found, time_first = [], {}, _time_first(operations)
    batch_size = _fixed_batch(inputs)
    for value in inputs:
        tensor = value.type.tensor_type
        sizes = [d.dim_value if d.WhichOneof("value") == "dim_value" and d.dim_value > 0 else None
                 for d in tensor.shape.dim]
        if not value.type.HasField("tensor_type") or not 1 <= len(sizes) <= MOST_AXES:
            raise ValueError(f"{WHO}: expected inputs that are arrays with a batch axis. "
                             f"Received: {shown(value.name)} with {len(sizes)} axes.")
        batch = _batch_axis(sizes, value.name in time_first, batch_size)
        sample: list[Any] = [*sizes[:batch], *sizes[batch + 1:]]
        if value.name in shapes:
            sample = _given_shape(value.name, sample, shapes[value.name])
        if None in sample:
            missing.append(printable(f"{value.name} with {_symbols(tensor, batch)}"))
        integer = type_name(onnx, tensor.elem_type).startswith(("INT", "UINT"))
        found[value.name] = (tuple(sample), batch, sizes[batch], integer)
    if missing:
        raise ValueError(f"{WHO}: expected input_shape, the shape of a sample, for inputs whose "
                         f"shape the file leaves open. Received: {'; '.join(missing)}.")
    sizes_of_batch = {size for _, _, size, _ in found.values()}
    builder = Builder(sizes_of_batch.pop() if len(sizes_of_batch) == 1 else None, freeze, room)
    return builder, {
        name: Value(builder.input(shape or (1,), name), shape, batch, name, integer)
        for name, (shape, batch, _, integer) in found.items()}


def _fixed_batch(inputs: Sequence[Any]) -> int | None:
    """The size of the first input's first axis if it is fixed and all inputs have an axis of this
    size; else None."""
    shapes = [[dim.dim_value for dim in value.type.tensor_type.shape.dim] for value in inputs]
    size = shapes[0][0] if shapes and shapes[0] else 0
    return size if size > 0 and all(size in shape for shape in shapes) else None


def _time_first(operations: Sequence[Operation]) -> set[str]:
    """The sequences and states that recurrent operators read with the batch as second axis."""
    return {name for operation in operations if operation.kind in read_sequences.READ
            and not operation.attributes.get("layout", 0)
            for name in (*operation.inputs[:1], *operation.inputs[5:])}


def _batch_axis(sizes: Sequence[int | None], time_first: bool, batch: int | None) -> int:
    """The first axis, or a free axis if the first one has a size above 1; if no axis is free, the
    first one that has the size of the batch."""
    if time_first:
        return 1
    if sizes[0] in (None, 1):
        return 0
    if None in sizes:
        return sizes.index(None)
    return sizes.index(batch) if batch is not None and batch in sizes else 0


def _given_shape(name: str, sample: Sequence[int | None], given: Any) -> list[int]:
    name = printable(name)
    shape = expect_shape(WHO, f"input_shape of {name}, the shape of a sample", given)
    if len(shape) != len(sample) or any(
            have not in (None, want) for have, want in zip(sample, shape, strict=True)):
        raise ValueError(f"{WHO}: expected input_shape to fit the file, where {name} has samples "
                         f"of shape ({', '.join(str(n or '?') for n in sample)}). Received: "
                         f"{shape}.")
    return [*shape]


def _symbols(tensor: Any, batch: int) -> str:
    """The shape of a sample, with the names of the sizes that are open."""
    sizes = [str(d.dim_value) if d.dim_value > 0 else bare(d.dim_param or "?")
             for d in tensor.shape.dim]
    return f"({', '.join(sizes[:batch] + sizes[batch + 1:])})"


def _build(builder: Builder, program: Program, operations: Sequence[Operation],
           values: dict[str, Any], outputs: Sequence[str], version: int) -> list[str]:
    """Read all operations; their values are added to `values`. Returns what cannot be read."""
    problems = []
    readers = Counter(outputs)
    for operation in operations:
        readers.update(operation.inputs)
    used = {operation: [bool(name) and readers[name] > 0 for name in operation.outputs]
            for operation in operations}
    read_sequences.share_outputs(used)
    values.update(program.constants)
    for operation in operations:
        broken = [program.problems[name] for name in (*operation.inputs, *operation.outputs)
                  if name in program.problems]
        if broken:
            problems.append(f"{operation} ({broken[0]})")
        given = [values.get(name) if name else None for name in operation.inputs]
        lost = any(isinstance(value, _Failed) for value in given)
        results: Sequence[Any] = [_Failed()] * len(operation.outputs)
        if not broken and not lost:
            unknown = [name for name in operation.inputs if name and name not in values]
            try:
                if unknown:
                    raise UnsupportedError(f"its input {unknown[0]!r} is nowhere in the file")
                results = _read(Reading(builder, operation, given, used[operation], version))
            except UnsupportedError as error:
                problems.append(f"{operation} ({error})")
        values.update(zip(operation.outputs, results, strict=False))
    return problems


def _read(reading: Reading) -> Sequence[Any]:
    """The outputs of one operation: arrays if no input depends on samples, else Values."""
    given = reading.inputs
    if reading.kind == "Shape" and given and isinstance(given[0], Value):
        shape = np.empty(given[0].axes, object)
        shape[:] = given[0].full_shape
        return [shape[reading.attribute("start", 0):reading.attribute("end")]]
    if not any(isinstance(value, Value) for value in given):
        return fold(reading.operation, given, reading.builder.room)
    if reading.kind not in READ:
        raise UnsupportedError("there is no layer for this operator")
    try:
        found = READ[reading.kind](reading)
    except (ValueError, TypeError, LookupError, AttributeError, ArithmeticError) as error:
        text = " ".join(str(error).split())
        raise UnsupportedError(f"it has settings that no layer has: {text:.200}") from error
    return found if isinstance(found, list) else [found]


def _ports(builder: Builder, values: Mapping[str, Any], inputs: Sequence[str],
           outputs: Sequence[str]) -> tuple[Any, Any]:
    nodes: dict[str, Node] = {}
    taken: set[Node] = set()
    for name in outputs:
        value = values.get(name)
        if not isinstance(value, Value):
            raise UnsupportedError(f"the output {shown(name)}, which depends on no input")
        node = builder.plain(value)
        if node.layer is None or node in taken:     # an output is a node of its own
            node = builder.add(L.Identity(), node, name=name)
        nodes[name] = node
        taken.add(node)
    needed = {*topological([*nodes.values()])}
    ins = {name: values[name].node for name in inputs if values[name].node in needed}
    return tuple(next(iter(ports.values())) if len(ports) == 1 else ports
                 for ports in (ins, nodes))     # type: ignore[return-value]


def _dtype(builder: Builder) -> str:
    """float64 if all arrays of the file are, else float32."""
    kinds = {array.dtype for array in builder.arrays.values()}
    return "float64" if kinds == {np.dtype(np.float64)} else "float32"


def _trained(model: Any, graph: Graph) -> Trained:
    """What xpnet's export says of the samples. Entries of others, or damaged ones, are left out."""
    about = {entry.key: entry.value for entry in model.metadata_props}
    found = Trained()
    try:
        scale = float(about.get("xpnet.scale", "nan"))
    except ValueError:
        scale = math.nan
    if is_number(scale) and scale > 0:
        found = replace(found, scale=scale)
    if about.get("xpnet.image_fit") in FITS:
        found = replace(found, image_fit=about["xpnet.image_fit"])
    try:
        classes = json.loads(about.get("xpnet.classes", "null")[:MOST_TEXT])
        if isinstance(classes, list) and all(map(is_plain_name, classes)):
            names = expect_classes(WHO, classes, [node.shape for node in graph.outs.nodes])
            found = replace(found, classes=names)
    except (ValueError, RecursionError):
        pass
    return found
