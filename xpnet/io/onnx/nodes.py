"""The nodes of a file in one form, whatever its opset: what newer opsets made an input is an input
here."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from xpnet.checks import shown
from xpnet.io.onnx.library import UnsupportedError
from xpnet.io.onnx.read import Tensors

REDUCTIONS = "ReduceMean", "ReduceMax", "ReduceMin", "ReduceSum", "ReduceProd", "ReduceL2"
# Attributes of older opsets that are inputs of newer ones, and which input
MOVED: dict[str, dict[str, int]] = {
    "Clip": {"min": 1, "max": 2}, "Squeeze": {"axes": 1}, "Unsqueeze": {"axes": 1},
    "Pad": {"pads": 1, "value": 2}, "Dropout": {"ratio": 1}, "Split": {"split": 1},
    "Slice": {"starts": 1, "ends": 2, "axes": 3}, "Upsample": {"scales": 1},
    **{name: {"axes": 1} for name in REDUCTIONS},
}
UNBOUNDED = 3e38        # Clip's bounds of old opsets are the largest numbers by default


@dataclass(eq=False)
class Operation:
    """One node: its operator, the names of its inputs ("" if one is left out) and outputs."""

    kind: str
    name: str
    inputs: list[str]
    outputs: list[str]
    attributes: dict[str, Any] = field(default_factory=dict)

    def __str__(self) -> str:
        return f"{self.kind:.80} {(self.name or self.outputs[0])!r:.80}"


class Program:
    """The nodes of a file in order, and its constants by name.

    `problems` has a reason for each tensor that cannot be read, by name.
    """

    def __init__(self, onnx: Any, graph: Any, tensors: Tensors) -> None:
        self.onnx, self.tensors = onnx, tensors
        self.constants: dict[str, np.ndarray] = {}
        self.problems: dict[str, str] = {}
        for tensor in graph.initializer:
            self._keep(tensor.name, tensor)
        for sparse in graph.sparse_initializer:
            self.problems[sparse.values.name] = "it is a sparse tensor"
        self.operations = [self._operation(node) for node in graph.node if any(node.output)]

    def constant(self, name: str, array: Any) -> str:
        """A new constant; returns its name."""
        if name in self.constants:
            name = f"{name}'{len(self.constants)}"
        self.constants[name] = np.asarray(array)
        return name

    def _keep(self, name: str, tensor: Any) -> None:
        try:
            self.constants[name] = self.tensors.read(tensor)
        except UnsupportedError as error:
            self.problems[name] = str(error)

    def _operation(self, node: Any) -> Operation:
        kind = node.op_type if node.domain in ("", "ai.onnx") else f"{node.domain}.{node.op_type}"
        operation = Operation(kind, node.name, list(node.input), list(node.output))
        for attribute in node.attribute:
            try:
                operation.attributes[attribute.name] = self._plain(attribute)
            except UnsupportedError as error:
                self.problems[operation.outputs[0]] = str(error)
        try:
            self._modernise(operation)
        except (ValueError, TypeError, OverflowError) as error:
            self.problems[operation.outputs[0]] = f"its attributes are of other types: {error}"
        return operation

    def _plain(self, attribute: Any) -> Any:
        kinds = self.onnx.AttributeProto
        if attribute.type in (kinds.GRAPH, kinds.GRAPHS):
            return None                 # no operator that has one is read
        if attribute.type == kinds.TENSOR:
            return self.tensors.read(attribute.t)
        try:
            value = self.onnx.helper.get_attribute_value(attribute)
        except ValueError as error:
            raise UnsupportedError(f"its attribute {shown(attribute.name)} has no value of a known "
                                   "type") from error
        if isinstance(value, bytes):
            return value.decode(errors="replace")
        if isinstance(value, list | tuple) or hasattr(value, "extend"):
            return [item.decode(errors="replace") if isinstance(item, bytes) else item
                    for item in value]
        return value

    def _modernise(self, operation: Operation) -> None:
        for name, place in MOVED.get(operation.kind, {}).items():
            if name not in operation.attributes:
                continue
            value = operation.attributes.pop(name)
            if operation.kind == "Clip" and abs(value) > UNBOUNDED:
                continue
            operation.inputs += [""] * (place + 1 - len(operation.inputs))
            integers = name in ("axes", "pads", "split", "starts", "ends")
            array = np.asarray(value, np.int64 if integers else np.float32)
            operation.inputs[place] = self.constant(f"{operation.outputs[0]}.{name}", array)


def reachable(operations: Iterable[Operation], outputs: Iterable[str]) -> list[Operation]:
    """The operations that the outputs follow from, in an order in which they can be computed.

    Raises ValueError if there is a circle.
    """
    maker = {name: operation for operation in operations for name in operation.outputs if name}
    order: list[Operation] = []
    state: dict[Operation, bool] = {}           # False: its inputs are being visited
    stack = [(maker[name], False) for name in reversed([*outputs]) if name in maker]
    while stack:
        operation, done = stack.pop()
        if done:
            state[operation] = True
            order.append(operation)
        elif operation not in state:
            state[operation] = False
            stack.append((operation, True))
            before = [maker[name] for name in reversed(operation.inputs) if name in maker]
            if any(state.get(one) is False for one in before):
                raise ValueError(f"a circle of nodes through {operation}")
            stack.extend((one, False) for one in before)
    return order
