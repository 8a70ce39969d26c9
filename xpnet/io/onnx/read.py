"""ONNX files and their tensors, read without running anything and without trusting their sizes."""

from __future__ import annotations

import math
import os
import stat
from collections import Counter
from collections.abc import Iterator
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.io import formats
from xpnet.io.files import FLAGS, Path, existing
from xpnet.io.onnx.library import UnsupportedError

OLDEST = 7                      # opset
MOST_ELEMENTS = 1 << 31         # of a tensor
MOST_AXES = 32                  # of one
MOST_NAMES = 200_000            # of nodes, values, attributes and tensors
MOST_TENSORS = 1 << 16
# The field of a tensor that holds its numbers if they are not raw bytes, by the name of its type
FIELDS = {"FLOAT": "float_data", "DOUBLE": "double_data", "INT64": "int64_data",
          "UINT64": "uint64_data", "UINT32": "uint64_data",
          **dict.fromkeys(("INT32", "INT16", "INT8", "UINT16", "UINT8", "BOOL", "FLOAT16"),
                          "int32_data")}


def read_model(onnx: Any, path: Path, who: str) -> Any:
    """The content of a file as the package onnx's ModelProto.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no ONNX file, or its operators are older than opset 7 or newer than the
            package onnx.
    """
    name = existing(path, who, "an ONNX file")
    with open(name, "rb") as file:
        content = file.read()
    model = onnx.ModelProto()
    try:
        model.ParseFromString(content)
    except Exception as error:          # of protobuf, whose classes differ between its versions
        raise ValueError(f"{who}: expected an ONNX file. Received: {name}, which is "
                         f"{_what(name)}.") from error
    if (sum(1 for _ in _texts(model.graph)) > MOST_NAMES
            or len(model.graph.initializer) > MOST_TENSORS):
        raise ValueError(f"{who}: expected at most {MOST_TENSORS:,} tensors, and {MOST_NAMES:,} "
                         f"names of nodes, values and attributes. Received: {name} with more.")
    if not all(isinstance(text, str) for text in _texts(model.graph)):
        raise ValueError(f"{who}: expected names in UTF-8. Received: {name}, which is damaged.")
    if not model.graph.output or not model.opset_import:
        raise ValueError(f"{who}: expected an ONNX file with a graph. Received: {name}, which is "
                         f"{_what(name)}.")
    newest = onnx.defs.onnx_opset_version()
    if not OLDEST <= opset(model) <= newest:
        raise ValueError(f"{who}: expected operators of opset {OLDEST} to {newest}; "
                         "onnx.version_converter converts others. Received: "
                         f"{name} with opset {opset(model)}.")
    return model


def _texts(graph: Any) -> Iterator[Any]:
    """The names in a graph; the package onnx has bytes for those that are no UTF-8."""
    for node in graph.node:
        yield from (node.op_type, node.domain, node.name, *node.input, *node.output)
        yield from (attribute.name for attribute in node.attribute)
    for port in (*graph.input, *graph.output):
        yield port.name
        yield from (dim.dim_param for dim in port.type.tensor_type.shape.dim)
    yield from (tensor.name for tensor in graph.initializer)
    yield from (sparse.values.name for sparse in graph.sparse_initializer)


def _what(name: str) -> str:
    what = formats.of_content(name)
    return "damaged" if what in ("an ONNX file", "truncated or not a safetensors file") else what


def opset(model: Any) -> int:
    """The version of ONNX's own operators, 0 if the file uses none."""
    return max([entry.version for entry in model.opset_import if entry.domain in ("", "ai.onnx")],
               default=0)


def type_name(onnx: Any, number: int) -> str:
    """The name of a type of numbers, e.g. FLOAT."""
    names = {value: name for name, value in onnx.TensorProto.DataType.items()}
    return names.get(number, f"number {number}")


class Tensors:
    """Reads the tensors of a file; numbers may be in files beside it.

    Args:
        onnx: the package.
        path: of the ONNX file.
    """

    def __init__(self, onnx: Any, path: Path) -> None:
        self.onnx, self.folder = onnx, os.path.dirname(os.path.abspath(os.fspath(path)))
        self.taken = Counter[str]()         # bytes of each file beside the model

    def read(self, tensor: Any) -> np.ndarray:
        """The array of a tensor. Raises UnsupportedError if its size does not fit its content, its
        type is no plain number, or its file is not beside the model."""
        what = f"tensor {shown(tensor.name)}"
        kind = type_name(self.onnx, tensor.data_type)
        if kind not in FIELDS:
            raise UnsupportedError(f"{what} has numbers of type {kind}")
        dtype = np.dtype(self.onnx.helper.tensor_dtype_to_np_dtype(tensor.data_type))
        shape = tuple(tensor.dims)
        count = math.prod(shape)
        if any(size < 0 for size in shape) or count > MOST_ELEMENTS or len(shape) > MOST_AXES:
            raise UnsupportedError(f"{what} has the shape {shown(shape)}")
        if tensor.data_location == self.onnx.TensorProto.EXTERNAL:
            raw = self._external(tensor, what, count * dtype.itemsize)
        elif tensor.HasField("raw_data"):
            raw = tensor.raw_data
        else:
            numbers = getattr(tensor, FIELDS[kind])
            if len(numbers) != count:
                raise UnsupportedError(f"{what} has {len(numbers)} numbers for the shape {shape}")
            found: np.ndarray = self.onnx.numpy_helper.to_array(tensor)
            return found
        if len(raw) != count * dtype.itemsize:
            raise UnsupportedError(f"{what} has {len(raw)} bytes for the shape {shape} of {dtype}")
        found = np.frombuffer(raw, dtype.newbyteorder("<")).astype(dtype, copy=False)
        return found.reshape(shape)

    def _external(self, tensor: Any, what: str, size: int) -> bytes:
        """The bytes of a tensor in a file beside the model."""
        entries = {str(entry.key): str(entry.value) for entry in tensor.external_data}
        name = entries.get("location", "")
        if name in ("", ".", "..") or any(mark in name for mark in ("/", "\\", "\0", ":")):
            raise UnsupportedError(f"{what} is in {shown(name)}, which is not the name of a file "
                                   "beside the model")
        try:
            start, length = (int(entries.get(key, default)) for key, default in (
                ("offset", 0), ("length", size)))
        except ValueError:
            start, length = -1, -1
        path = os.path.join(self.folder, name)
        try:
            if os.path.islink(path):
                raise UnsupportedError(f"{what} is in {shown(name)}, which is a symbolic link")
            file = os.open(path, os.O_RDONLY | FLAGS)
        except (OSError, ValueError) as error:
            raise UnsupportedError(f"{what} is in {shown(name)}, which cannot be opened "
                                   f"({getattr(error, 'strerror', error)})") from error
        try:
            about = os.fstat(file)
            if not stat.S_ISREG(about.st_mode) or not (0 <= start and length == size
                                                       and start + size <= about.st_size):
                raise UnsupportedError(f"{what} is in {shown(name)}, which does not have {size} "
                                       f"bytes for it from byte {start} on")
            self.taken[name] += size
            if self.taken[name] > about.st_size:
                raise UnsupportedError(f"{what} is in {shown(name)}, whose bytes belong to several "
                                       "tensors")
            with open(file, "rb", closefd=False) as opened:
                opened.seek(start)
                return opened.read(size)
        finally:
            os.close(file)
