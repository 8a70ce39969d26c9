"""Layers for the values of an ONNX file, and what the functions that read an operator work with."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.checks import is_plain_name
from xpnet.graph import Input
from xpnet.io.onnx.fold import TEMPORARY, Batch, Room, integers, repeats
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.nodes import Operation
from xpnet.io.onnx.read import MOST_AXES
from xpnet.layer import Layer, Shape
from xpnet.node import Node

REAL = 4                    # bytes of a float32
Arrays = Mapping[str, np.ndarray]


@dataclass(frozen=True)
class Value:
    """A value of the file that depends on samples.

    Attributes:
        node: a value of the graph with the same elements in the same order.
        shape: of a sample, as the file sees it; a Reshape is made only if a layer needs this shape.
        batch: the position of the batch axis in the file.
        name: of the operation that gave it this shape.
        integer: whether the file has integers here.
    """

    node: Node
    shape: Shape
    batch: int = 0
    name: str = ""
    integer: bool = False

    @property
    def full_shape(self) -> list[Any]:
        """The shape in the file, with the batch."""
        return [*self.shape[:self.batch], Batch(), *self.shape[self.batch:]]

    @property
    def axes(self) -> int:
        return len(self.shape) + 1

    def sample_axis(self, axis: int) -> int:
        """The axis of a sample for an axis in the file. Raises UnsupportedError for the batch."""
        if not -self.axes <= axis < self.axes:
            raise UnsupportedError(f"its input has no axis {axis}")
        axis %= self.axes
        if axis == self.batch:
            raise UnsupportedError("it works along the batch")
        return axis - (axis > self.batch)


def unviewed(node: Node) -> Node:
    """The node that has the same elements in the same order before a layer gave them a shape."""
    return node.parents[0] if isinstance(node.layer, L.Reshape | L.Flatten) else node


def one_batch(values: list[Value]) -> list[Value]:
    """The values. Raises UnsupportedError if the batch is not the same axis of all."""
    if len({value.batch for value in values}) > 1:
        raise UnsupportedError("its inputs have the batch along different axes")
    return values


class Builder:
    """Makes layers with names of their own, and collects their arrays.

    Args:
        batch: the size of the batch in the file, None if it is free.
        freeze: whether batch norms are frozen.
        room: the memory for parameters, their gradients, and arrays that are computed.
    """

    def __init__(self, batch: int | None, freeze: bool, room: Room) -> None:
        self.batch, self.freeze, self.room = batch, freeze, room
        self.arrays: dict[str, np.ndarray] = {}
        self._names: set[str] = set()
        self._numbers: dict[str, int] = {}      # the last one behind each name
        self._shared: dict[Any, Layer] = {}

    def input(self, shape: Shape, name: str) -> Node:
        self._names.add(name)
        return Input(shape, name=name)

    def name(self, wanted: str, kind: str) -> str:
        """`wanted` if it can be a name, else the kind; with a number if it is taken."""
        plain = is_plain_name(wanted) and not wanted.isdigit()
        start = f"{wanted}_" if plain else kind
        number = self._numbers.get(start, 1)
        free = wanted if plain and number == 1 else f"{start}{number}"
        while free in self._names:
            number += 1
            free = f"{start}{number}"
        self._numbers[start] = number
        self._names.add(free)
        return free

    def add(self, layer: Layer, *nodes: Node, name: str = "", arrays: Arrays | None = None,
            key: Any = None) -> Node:
        """The output of a layer with these arrays. With the same key, settings and input shapes as
        an earlier layer, it is another use of that one."""
        shapes = tuple(node.shape for node in nodes)
        known = (type(layer), repr(layer.config()), shapes, key)
        if key is not None and known in self._shared:
            return self._shared[known].node(*nodes)
        layer.name = self.name(name, layer.kind)
        try:
            node = layer.node(*nodes)
        except ValueError as error:
            raise UnsupportedError(str(error).rstrip(".")) from error
        declared = {p.name: p.shape for p in layer.parameters + layer.states}
        self.room.take(2 * REAL * sum(map(math.prod, declared.values())))   # with gradients
        for array, values in (arrays or {}).items():
            if values.shape != declared[array]:
                raise UnsupportedError(f"its {array} has the shape {values.shape} and not "
                                       f"{declared[array]}")
            self.arrays[f"{layer.name}.{array}"] = values
        if key is not None:
            self._shared[known] = layer
        return node

    def plain(self, value: Value) -> Node:
        """A node with the shape that the file sees."""
        node, shape = value.node, value.shape or (1,)
        if node.shape == shape:
            return node
        node = unviewed(node)                                   # two views are one
        if node.shape == shape:
            return node
        layer = L.Flatten() if len(shape) == 1 else L.Reshape(shape)
        return self.add(layer, node, name=value.name)

    def permuted(self, node: Node, axes: Sequence[int], name: str) -> Node:
        """The node with its axes in another order; two permutations are one."""
        axes = list(axes)
        if isinstance(node.layer, L.Permute):
            axes = [node.layer.axes[axis] for axis in axes]
            node = node.parents[0]
        return node if axes == sorted(axes) else self.add(L.Permute(axes), node, name=name)


class Reading:
    """One operation of the file with its inputs, for the function that makes its layer.

    Args:
        builder: makes the layers.
        operation: the node.
        given: the inputs: Values, arrays, or None if one is left out.
        used: which outputs are needed.
        opset: the version of the file's operators.
    """

    def __init__(self, builder: Builder, operation: Operation, given: Sequence[Any],
                 used: Sequence[bool], opset: int) -> None:
        self.builder, self.operation, self.inputs = builder, operation, list(given)
        self.used, self.opset = list(used), opset
        self.kind, self.attributes = operation.kind, operation.attributes
        # Files without names of nodes have at least names of values.
        self.name = operation.name or operation.outputs[0]

    def attribute(self, name: str, default: Any = None) -> Any:
        return self.attributes.get(name, default)

    def given(self, number: int) -> bool:
        return number < len(self.inputs) and self.inputs[number] is not None

    def expect_one_output(self) -> None:
        if any(self.used[1:]):
            raise UnsupportedError(f"its output {self.operation.outputs[1:][0]!r} is used")

    def value(self, number: int = 0) -> Value:
        found = self.inputs[number] if number < len(self.inputs) else None
        if not isinstance(found, Value):
            raise UnsupportedError(f"its input {number} is a constant" if found is not None
                                   else f"its input {number} is missing")
        return found

    def values(self) -> list[Value]:
        """All inputs, which have to depend on samples and to have the same batch axis."""
        return one_batch([self.value(number) for number in range(len(self.inputs))])

    def array(self, number: int, what: str) -> np.ndarray:
        array = self._array(number, what)
        if repeats(array):
            raise UnsupportedError(f"its {what} is an array of one repeated number")
        return array

    def _array(self, number: int, what: str) -> np.ndarray:
        found = self.inputs[number] if number < len(self.inputs) else None
        if found is None or isinstance(found, Value):
            raise UnsupportedError(f"its {what} is missing" if found is None
                                   else f"its {what} depends on the samples")
        return np.asarray(found)

    def numbers(self, number: int, what: str) -> np.ndarray:
        """Real numbers, e.g. weights; those of few bits as float32."""
        array = self._array(number, what)
        if array.dtype == object or array.dtype.kind not in "fiu":
            raise UnsupportedError(f"its {what} is not made of real numbers")
        if 0 in array.strides:              # a view of one number, which a copy would enlarge
            self.expect_room(array.size)
        return array if array.dtype in (np.float32, np.float64) else array.astype(np.float32)

    def expect_room(self, elements: int) -> None:
        """Raise UnsupportedError if there is no room for parameters of this many elements."""
        self.builder.room.expect(TEMPORARY * REAL * elements)

    def few(self, number: int, what: str) -> list[Any]:
        """Numbers for the axes of a value, such as a shape. One may be the number of samples."""
        array = self.array(number, what)
        if array.size > MOST_AXES:
            raise UnsupportedError(f"its {what} has {array.size} numbers")
        return array.reshape(-1).tolist()

    def ints(self, number: int, what: str) -> list[int] | None:
        """Integers such as axes; None if the input is left out."""
        return integers(self.array(number, what), f"its {what}") if self.given(number) else None

    def number(self, number: int, what: str) -> float | None:
        if not self.given(number):
            return None
        array = self.array(number, what)
        if array.size != 1:
            raise UnsupportedError(f"its {what} is not one number")
        return float(array.reshape(-1)[0])

    def batch_first(self, number: int = 0, *axes: int) -> Value:
        """An input with the batch as its first axis and, if given, one of these numbers of axes of
        a sample."""
        value = self.value(number)
        if value.batch != 0:
            raise UnsupportedError(f"the batch is axis {value.batch} of its input")
        if axes and len(value.shape) not in axes:
            raise UnsupportedError(f"its input has {value.axes} axes")
        return value

    def key(self, *inputs: int) -> tuple[str, ...] | None:
        """What tells whether two operations share their weights: the names of these inputs."""
        names = tuple(self.operation.inputs[number] for number in inputs if self.given(number))
        return names or None

    def add(self, layer: Layer, *values: Value, arrays: Arrays | None = None, key: Any = None,
            suffix: str = "") -> Value:
        """The output of a layer whose inputs have the shapes that the file sees."""
        nodes = [self.builder.plain(value) for value in values]
        node = self.builder.add(layer, *nodes, name=self.name + suffix, arrays=arrays, key=key)
        return Value(node, node.shape, values[0].batch)

    def elementwise(self, layer: Layer, value: Value | None = None) -> Value:
        """A layer for which the shape does not matter."""
        value = self.value() if value is None else value
        node = self.builder.add(layer, value.node, name=self.name)
        return replace(value, node=node, integer=False)

    def viewed(self, value: Value, shape: Shape, batch: int | None = None) -> Value:
        """The same elements in another shape."""
        if math.prod(shape) != math.prod(value.shape):
            raise UnsupportedError(f"its input has samples of shape {value.shape} and not {shape}")
        if len(shape) > MOST_AXES:
            raise UnsupportedError(f"its output has {len(shape) + 1} axes")
        return replace(value, shape=tuple(shape), name=self.name,
                       batch=value.batch if batch is None else batch)

    def permuted(self, value: Value, axes: Sequence[int], batch: int | None = None) -> Value:
        """A sample's axes in another order."""
        name = self.name if self.kind == "Transpose" else f"{self.name}/Transpose"
        node = self.builder.permuted(self.builder.plain(value), axes, name)
        return Value(node, node.shape, value.batch if batch is None else batch, self.name,
                     value.integer)
