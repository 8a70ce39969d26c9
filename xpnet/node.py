"""The nodes of a graph: each is one value, made by one use of a layer."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, ClassVar

if TYPE_CHECKING:
    from xpnet.buffers import Shape
    from xpnet.layer import Layer


class Names:
    """The automatic names of the layers of a graph: conv1, conv2, ..., in the order of their calls.

    All nodes of a graph share one. Graphs that are joined by a layer of several inputs go on
    together; layers of the second graph that were named automatically are then named anew.
    """

    def __init__(self) -> None:
        self._counts: dict[str, int] = {}
        self._given: list[tuple[Any, str]] = []     # layers and networks, and their names
        self._joined: Names | None = None           # the names that this graph goes on with

    @property
    def current(self) -> Names:
        return self if self._joined is None else self._joined.current

    def give(self, thing: Any) -> None:
        """Name a layer or a network by its kind."""
        count = self._counts[thing.kind] = self._counts.get(thing.kind, 0) + 1
        thing.name = f"{thing.kind}{count}"
        self._given.append((thing, thing.name))

    def join(self, other: Names) -> None:
        if other is not self:
            other._joined = self
            for thing, name in other._given:
                if thing.name == name:              # it was not renamed
                    self.give(thing)

    @staticmethod
    def of(nodes: Sequence[Node]) -> Names:
        """The names of the graph that these nodes belong to from now on."""
        first = nodes[0].names.current
        for node in nodes[1:]:
            first.join(node.names.current)
        return first


@dataclass(eq=False, repr=False)
class Node:
    """One value of a graph: what a use of `layer` makes of its parents.

    `shape` is that of one sample, without the batch axis. What the layer's forward pass keeps for
    the backward pass belongs to the use, so the graph stores it here, as `kept`. If samples have
    different numbers of steps, along the last axis, `lengths` is the Input of these numbers.

    `a + b`, `a - b` and `a * b` of two nodes are Add()(a, b), Subtract()(a, b), Multiply()(a, b).
    """

    # The layer class of each operator. layers/merge.py enters them: this file knows no layers.
    operators: ClassVar[dict[str, type[Layer]]] = {}
    __array_ufunc__: ClassVar[None] = None      # array + node is node.__radd__(array)

    layer: Layer | None                 # None for an input
    parents: tuple[Node, ...]
    shape: Shape
    names: Names
    use: int = 1                        # which use of the layer this is
    inside: tuple[Any, ...] = ()        # the networks that it came with, the largest one first
    given_name: str | None = None       # of an input
    kept: Any = None
    lengths: Node | None = None

    @property
    def layer_name(self) -> str:
        """The full name of the layer, whatever the use: conv1, in a network encoder.conv1."""
        assert self.layer is not None
        return ".".join(str(owner.name) for owner in (*self.inside, self.layer))

    @property
    def name(self) -> str:
        """The layer's full name, with a number from its second use on: conv1, conv1:2."""
        if self.layer is None:
            return self.given_name or "input"
        return self.layer_name if self.use == 1 else f"{self.layer_name}:{self.use}"

    def __add__(self, other: Node) -> Node:
        return self._combined("+", other)

    def __sub__(self, other: Node) -> Node:
        return self._combined("-", other)

    def __mul__(self, other: Node) -> Node:
        return self._combined("*", other)

    __radd__, __rsub__, __rmul__ = __add__, __sub__, __mul__    # of another type: they raise

    def _combined(self, operator: str, other: Node) -> Node:
        """The output of the operator's layer; raises TypeError if `other` is no node."""
        layer = self.operators[operator]
        if not isinstance(other, Node):
            raise TypeError(f"{layer.__name__}: expected two values of a graph around "
                            f"{operator!r}; Rescale(mean, std) computes (X - mean) / std with "
                            f"fixed numbers. Received: {type(other).__name__}.")
        return layer()(self, other)

    def __repr__(self) -> str:
        """Without the parents: each would show its own, and so on."""
        return (f"<{self.layer.who if self.layer else 'Input'}: a value of shape {self.shape} per "
                "sample>")


def layer_of(node: Node) -> Layer:
    """The layer of a node that is no input."""
    assert node.layer is not None
    return node.layer


def topological(outputs: Sequence[Node]) -> list[Node]:
    """Every node that the outputs depend on, parents first.

    Depth first, without recursion, because graphs can be deep.
    """
    order: list[Node] = []
    seen: set[Node] = set()
    stack = [(node, False) for node in reversed(outputs)]
    while stack:
        node, parents_done = stack.pop()
        if parents_done:
            order.append(node)
        elif node not in seen:
            seen.add(node)
            stack.append((node, True))
            stack.extend((parent, False) for parent in reversed(node.parents))
    return order
