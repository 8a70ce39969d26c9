"""The inputs or the outputs of a graph: one node, a list of nodes or a dict of nodes.

Data, targets, losses and predictions follow the same structure.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from xpnet.checks import shown
from xpnet.node import Node

MOST_NAMED = 4          # values that an error names


class Ports:
    """Nodes as they were given, their names, and arrays to and from this structure.

    The names are the keys of a dict, else the names of the nodes.
    """

    def __init__(self, who: str, what: str, given: Any) -> None:
        self.who, self.what = who, what
        self.single = isinstance(given, Node)
        self.keys: tuple[str, ...] | None = None
        nodes: Any = (given,) if self.single else given
        if isinstance(given, Mapping):
            self.keys, nodes = tuple(given), tuple(given.values())
        if (not isinstance(nodes, tuple | list) or not nodes
                or not all(isinstance(node, Node) for node in nodes)
                or not all(isinstance(key, str) for key in self.keys or ())):
            raise TypeError(f"{who}: expected each {what} to be a node, from Input(...) or a "
                            f"layer: one, a list or a dict of them. Received: {_types(given)}.")
        self.nodes: tuple[Node, ...] = tuple(nodes)
        if len(set(self.nodes)) < len(self.nodes):
            raise ValueError(f"{who}: expected each {what} once. Received: one twice.")
        self._name_inputs()

    @property
    def with_lengths(self) -> Ports | None:
        """The inputs whose samples have different numbers of steps; None without one."""
        found = {name: node for name, node in zip(self.names, self.nodes, strict=True)
                 if node.lengths is not None}
        if not found:
            return None
        nodes: Any = list(found.values())
        return Ports(self.who, self.what, found if self.keys else
                     nodes if len(found) > 1 else nodes[0])

    def _name_inputs(self) -> None:
        """Inputs without a name get their keys, or numbers if there are several."""
        for number, node in enumerate(self.nodes, 1):
            if node.layer is None and node.given_name is None and not self.single:
                node.given_name = self.keys[number - 1] if self.keys else f"input{number}"

    @property
    def form(self) -> list[str] | None:
        """The structure for JSON: None for one node, [] for a list, the keys of a dict."""
        return None if self.single else list(self.keys or ())

    @staticmethod
    def formed(nodes: Sequence[Node], form: Any) -> Any:
        """Nodes in the structure that `form` describes."""
        if form is None and len(nodes) == 1:
            return nodes[0]
        if isinstance(form, list) and all(isinstance(key, str) for key in form):
            if len(form) in (0, len(nodes)):
                return dict(zip(form, nodes)) if form else list(nodes)
        raise ValueError(f"the structure of {len(nodes)} inputs or outputs is {shown(form)}")

    def __len__(self) -> int:
        return len(self.nodes)

    @property
    def names(self) -> tuple[str, ...]:
        return self.keys or tuple(node.name for node in self.nodes)

    @property
    def given(self) -> Any:
        """The nodes in their structure."""
        return self.pack(self.nodes)

    def pack(self, values: Sequence[Any]) -> Any:
        """A value for each node, in the structure: the value itself, a list or a dict."""
        if self.single:
            return values[0]
        return list(values) if self.keys is None else dict(zip(self.keys, values, strict=True))

    def unpack(self, value: Any, who: str, what: str) -> tuple[Any, ...]:
        """The values for all nodes; an error, about `what`, if the structure is another one."""
        if self.single:
            return (value,)
        if isinstance(value, Mapping):
            if set(value) == set(self.names):
                return tuple(value[name] for name in self.names)
            raise ValueError(f"{who}: expected {what} for {', '.join(self.names)}. Received: a "
                             f"dict with {_few([shown(key)[:40] for key in value])}.")
        if self.keys is None and isinstance(value, tuple | list) and len(value) == len(self):
            return tuple(value)
        kind = "dict" if self.keys else "list or dict"
        count = f" of {len(value)}" if isinstance(value, tuple | list) else ""
        raise ValueError(f"{who}: expected {what} as a {kind} for {', '.join(self.names)}. "
                         f"Received: {type(value).__name__}{count}.")


def _types(given: Any) -> str:
    if not isinstance(given, Mapping | tuple | list):
        return shown(given)
    values = given.values() if isinstance(given, Mapping) else given
    kind = "dict" if isinstance(given, Mapping) else "list"
    return f"a {kind} of {_few([type(value).__name__ for value in values])}"


def _few(names: list[str]) -> str:
    """The first names and how many more there are."""
    more = [f"{len(names) - MOST_NAMED} more"] * (len(names) > MOST_NAMED)
    return ", ".join(names[:MOST_NAMED] + more) or "nothing"
