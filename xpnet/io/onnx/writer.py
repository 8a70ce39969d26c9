"""An ONNX graph under construction, and the object that writes the nodes of one layer."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.buffers import Parameter
from xpnet.node import Node

OPSET = 18          # of the operators that are written; onnxruntime 1.14 and newer read it
IR_VERSION = 8      # the one that came with this opset


class Draft:
    """Nodes, initializers and names of a graph under construction.

    Args:
        onnx: the package.
        dtype: of all values but tokens.
    """

    def __init__(self, onnx: Any, dtype: np.dtype) -> None:
        self.onnx, self.dtype = onnx, dtype
        self.nodes: list[Any] = []
        self.initializers: dict[str, np.ndarray] = {}
        self.integers: set[str] = set()         # inputs that are int64
        self._values: set[str] = set()
        self._names: set[str] = set()           # of nodes

    def value(self, name: str) -> str:
        """A name of a value that no other value has."""
        return _free(name, self._values)

    def node_name(self, name: str) -> str:
        return _free(name, self._names)


def _free(name: str, taken: set[str]) -> str:
    free, number = name, 1
    while free in taken:
        number += 1
        free = f"{name}_{number}"
    taken.add(free)
    return free


class Use:
    """Writes the nodes of one use of a layer: use("Relu", x) is the name of a new value.

    The node that reads the layer's parameters has the name of the layer, or the last node if there
    are no parameters; the others have names below it, e.g. "conv1/Relu". The last value has the
    name of the layer's use, or, if it is an output of the network, that of the output.
    """

    def __init__(self, draft: Draft, node: Node, output: str | None = None) -> None:
        assert node.layer is not None
        self.draft, self.layer_name, self.name = draft, node.layer_name, node.name
        self.output = output
        self._written: list[tuple[str, tuple[str, ...], list[str], dict[str, Any]]] = []
        self._parameters: set[str] = set()

    def __call__(self, op: str, *inputs: str, **attributes: Any) -> str:
        return self.several(op, 1, *inputs, **attributes)[0]

    def several(self, op: str, outputs: int, *inputs: str, **attributes: Any) -> list[str]:
        """The outputs of a node that has several. An input "" is left out."""
        names = [self.draft.value(f"{self.name}/{op}") for _ in range(outputs)]
        self._written.append((op, inputs, names, attributes))
        return names

    @staticmethod
    def values(p: Parameter) -> np.ndarray:
        """The values of a parameter or state, on the host."""
        assert p.backend is not None
        return np.asarray(p.backend.to_numpy(p.data))

    def parameter(self, p: Parameter, array: np.ndarray | None = None) -> str:
        """The initializer of a parameter or state, e.g. "conv1.W"; `array` is its content if that
        is not the parameter itself."""
        return self.initializer(p.name, self.values(p) if array is None else array)

    def initializer(self, name: str, array: np.ndarray) -> str:
        """An initializer that all uses of the layer share."""
        full = f"{self.layer_name}.{name}"
        self.draft.initializers[full] = np.ascontiguousarray(array, self.draft.dtype)
        self._parameters.add(full)
        return full

    def constant(self, value: Any, name: str = "constant") -> str:
        """An initializer of real numbers that belongs to this use."""
        return self._constant(np.asarray(value, self.draft.dtype), name)

    def ints(self, values: Sequence[int] | int, name: str = "ints") -> str:
        """An initializer of integers, such as a shape."""
        return self._constant(np.asarray(values, np.int64), name)

    def floats(self, values: Any, name: str) -> str:
        """An initializer of float32, whatever the dtype of the network."""
        return self._constant(np.asarray(values, np.float32), name)

    def _constant(self, array: np.ndarray, name: str) -> str:
        full = self.draft.value(f"{self.name}/{name}")
        self.draft.initializers[full] = array
        return full

    def finish(self, y: str) -> str:
        """Write the nodes to the draft. Returns the name of the layer's value."""
        made = {name for _, _, names, _ in self._written for name in names}
        if y not in made:
            if self.output is None:
                return y                        # of a dropout
            y = self("Identity", y)             # an output has a name of its own
        with_parameters = [number for number, (_, inputs, _, _) in enumerate(self._written)
                           if self._parameters & set(inputs)]
        main = with_parameters[0] if with_parameters else len(self._written) - 1
        result = self.draft.value(self.name) if self.output is None else self.output
        for number, (op, inputs, names, attributes) in enumerate(self._written):
            name = self.name if number == main else f"{self.name}/{op}"
            ins, outs = ([result if one == y else one for one in ones] for ones in (inputs, names))
            self.draft.nodes.append(self.draft.onnx.helper.make_node(
                op, ins, outs, self.draft.node_name(name), **attributes))
        return result

