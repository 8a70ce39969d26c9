"""Graphs of layers: built from nodes, with arrays on a backend, computed, and built again.

Inside, everything is batch-last. A graph knows nothing of training and of files; see passes.py for
the computation, and network.py for what people call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping, Sequence
from itertools import count
from typing import Any

import numpy as np

from xpnet.augment.base import Augmentation
from xpnet.backends import Backend, get_backend
from xpnet.buffers import Array, Buffers, Parameter
from xpnet.checks import (
    expect_dtype,
    expect_flag,
    expect_name,
    expect_seed,
    expect_shape,
    perhaps,
    shown,
    wrong,
)
from xpnet.graph_checks import (
    expect_all_inputs,
    expect_distinct_names,
    expect_free,
    expect_inputs,
    expect_layers,
    expect_softmax_once,
)
from xpnet.inputs import checked_inputs
from xpnet.layer import PREDICT, Layer
from xpnet.node import Names, Node, layer_of, topological
from xpnet.passes import Hook, Order, backward_pass, forward_pass, result_of
from xpnet.ports import Ports
from xpnet.trained import Trained

FLAT = "parameters", "grads", "state"       # arrays that layers have views of
MOST_STEPS = 1 << 24        # float32 has all whole numbers up to here


def Input(shape: Sequence[int], *, lengths: bool = False, name: str | None = None) -> Node:    # noqa: N802 - it reads like a layer
    """The symbolic input of a network.

    Args:
        shape: of one sample, (C, H, W) or (D,), without the batch axis.
        lengths: whether the samples are sequences (D, T), or tokens (T,), of 1 to T steps. Their
            numbers of steps are passed to `fit`, `predict` and `evaluate` as `lengths`, or follow
            from a list of arrays. Layers whose steps read others must be able to take them.
        name: by default "input", or input1, input2, ...
    """
    who = "Input"
    shape = expect_shape(who, "the shape of one sample, e.g. (1, 28, 28)", shape)
    node = Node(None, (), shape, Names(), given_name=expect_name(who, "name", name))
    if expect_flag(who, "lengths", lengths):
        if len(shape) > 2 or shape[-1] > MOST_STEPS:
            raise ValueError(f"{who}: expected shape to be (features, steps) or (steps,), with at "
                             f"most 2^24 steps, for lengths=True. Received: {shape}.")
        node.lengths = Node(None, (), (1,), node.names, given_name=f"{node.name}.lengths")
    return node


class Graph:
    """Layers from one or several Inputs to one or several outputs, on one backend.

    Args:
        inputs: an Input, or a list or dict of Inputs.
        outputs: the node whose value is the output, or a list or dict of nodes.
        backend: the name of a backend, or a Backend.
        dtype: float32 or float64.
        seed: of initial values and of all random numbers of training.
        values: host arrays that replace initial values, by full names, e.g. "conv1.W".
        trained: what is known of the training of these values.
    """

    who = "Network"
    kind = "network"                    # the automatic names of parts are kind1, kind2, ...
    name: str | None = None             # as a part of another network
    backend: Backend
    xp: Any
    buffers: Buffers
    parameters: Array
    grads: Array
    state: Array
    counters: Array

    def __init__(self, inputs: Any, outputs: Any, *, backend: str | Backend = "auto",
                 dtype: Any = "float32", seed: int = 0,
                 values: Mapping[str, np.ndarray] | None = None, trained: Trained | None = None
                 ) -> None:
        self.dtype, self.seed = expect_dtype(self.who, dtype), expect_seed(self.who, seed)
        self.ins, self.outs = Ports(self.who, "Input", inputs), Ports(self.who, "output", outputs)
        expect_inputs(self.who, self.ins)
        self.ragged = self.ins.with_lengths         # the inputs with lengths, None without one
        companions = []
        for node in self.ragged.nodes if self.ragged else ():
            assert node.lengths is not None
            node.lengths.given_name = f"{node.name}.lengths"
            companions.append(node.lengths)
        # A node for each array that the graph reads: those that people pass, then numbers of steps.
        self.in_nodes: tuple[Node, ...] = (*self.ins.nodes, *companions)
        nodes = topological(self.outs.nodes)
        self.nodes = tuple(node for node in nodes if node.layer is not None)
        expect_layers(self.who, self.outs)
        expect_all_inputs(self.who, self.ins, nodes, companions)
        self.layers: tuple[Layer, ...] = tuple(dict.fromkeys(layer_of(node) for node in self.nodes))
        self.owner: Graph | None = None     # the network that this one is a part of
        self.calls = 0                      # how often this one was used as a part
        self.epochs = 0                     # trained so far; keys the order in which fit shuffles
        self.step: Any = None               # the last training step, see TrainStep
        self.trained = Trained() if trained is None else trained
        expect_distinct_names(self.who, self.ins, self.nodes)
        expect_softmax_once(self.nodes)
        self._parts: tuple[Graph, ...] = tuple(dict.fromkeys(
            node.inside[0] for node in self.nodes if node.inside))
        expect_free(self.who, self.nodes, self._parts, self.dtype)
        self.order = Order(self.in_nodes, self.nodes)
        self._allocate(get_backend(backend), self._carried() | dict(values or {}))

    # --- construction -----------------------------------------------------------------------------

    @property
    def layer_names(self) -> dict[str, Layer]:
        """The layers by their full names, in the order of their first uses."""
        names: dict[Layer, str] = {}
        for node in self.nodes:
            names.setdefault(layer_of(node), node.layer_name)
        return {name: layer for layer, name in names.items()}

    @property
    def arrays(self) -> dict[str, Parameter]:
        """Parameters and states by their full names, e.g. "conv1.W"."""
        return {f"{name}.{p.name}": p for name, layer in self.layer_names.items()
                for p in layer.parameters + layer.states}

    def _carried(self) -> dict[str, np.ndarray]:
        """The values that layers of other networks bring along."""
        return {f"{name}.{p.name}": np.array(p.backend.to_numpy(p.data))
                for name, layer in self.layer_names.items()
                for p in layer.parameters + layer.states if p.backend is not None}

    def _allocate(self, backend: Backend, values: Mapping[str, np.ndarray],
                  counters: np.ndarray | None = None) -> None:
        names = self.layer_names
        if len(names) < len(self.layers):
            raise ValueError(f"{self.who}: expected every layer to have a name of its own. "
                             "Received: names that were changed to equal ones.")
        buffers = Buffers(names, backend, self.dtype, self.seed, values)    # memory may not suffice
        made = backend.zeros((2,), np.uint64)       # (step, use): what dropout's masks follow from
        if counters is not None:
            with backend.scope():
                made[...] = backend.asarray(counters)
        self._place(buffers, made, None)
        for layer in self.layers:
            layer.buffers = buffers
            with backend.scope():
                layer.bind(backend, self.seed, made)
        for node in self.nodes[::-1]:       # layers begin at their first use
            layer_of(node).enter(self.order.index[node], self.order.needs_dx[node])

    def _place(self, buffers: Buffers, counters: Array, owner: Graph | None) -> None:
        """The only place where backend and flat arrays are set, of a part's too."""
        backend = buffers.backend
        flat = {name: getattr(buffers, name) for name in FLAT}
        vars(self).update(flat, buffers=buffers, backend=backend, xp=backend.xp, counters=counters,
                          owner=owner)
        for part in self._parts:
            part._place(buffers, counters, self)

    def move(self, backend: Backend) -> None:
        """Move all arrays to another backend."""
        self.expect_whole("move")
        old = self.backend
        flat = {name: np.array(old.to_numpy(getattr(self, name))) for name in FLAT}
        self._allocate(backend, self._carried(), old.to_numpy(self.counters))
        with backend.scope():
            for name, values in flat.items():
                getattr(self, name)[...] = backend.asarray(values)

    def expect_whole(self, who: str) -> None:
        """ValueError if the layers belong to a larger network by now."""
        if self.owner is not None:
            raise ValueError(f"{who}: expected a network that is no part of another one. Received: "
                             f"{self!r}, which is a part; use the whole network.")

    def rebuild(self, make: Callable[[Node, tuple[Node, ...]], Node]) -> tuple[Any, Any]:
        """A copy of the graph, as new (inputs, outputs) for a network: make(node, parents) makes
        the new node of each node, given the new nodes of its parents."""
        new = renewed(self.ins.nodes)
        for node in self.nodes:
            new[node] = make(node, tuple(new[parent] for parent in node.parents))
        return (self.ins.pack([new[node] for node in self.ins.nodes]),
                self.outs.pack([new[node] for node in self.outs.nodes]))

    def as_part(self, nodes: Sequence[Node]) -> Any:
        """The nodes of the outputs when the graph is a part of another one, where `nodes` are in
        the place of its inputs."""
        names = Names.of(nodes)
        if len(nodes) != len(self.ins) or any(
                node.shape != own.shape for node, own in zip(nodes, self.ins.nodes, strict=True)):
            raise ValueError(f"{self.who}: expected inputs of shapes "
                             f"{[node.shape for node in self.ins.nodes]}. Received: "
                             f"{[node.shape for node in nodes]}.")
        for node, own in zip(nodes, self.ins.nodes, strict=True):
            if (node.lengths is None) is not (own.lengths is None):
                raise ValueError(f"{self.who}: expected lengths exactly where the part's own Input "
                                 f"has lengths=True. Received: {node!r} for {own.name}.")
        if self.name is None:
            names.give(self)
        uses = {layer: layer.uses for layer in self.layers}
        first = not self.calls
        self.calls += 1
        new = dict(zip(self.ins.nodes, nodes, strict=True))
        new |= {own.lengths: node.lengths for node, own in zip(nodes, self.ins.nodes, strict=True)
                if node.lengths is not None and own.lengths is not None}
        for node in self.nodes:
            layer = layer_of(node)
            use = node.use if first else uses[layer] + node.use
            layer.uses = max(layer.uses, use)
            new[node] = Node(layer, tuple(new[parent] for parent in node.parents), node.shape,
                             names, use, (self, *node.inside),
                             lengths=None if node.lengths is None else new[node.lengths])
        return self.outs.pack([new[node] for node in self.outs.nodes])

    def node(self, name: str) -> Node:
        """The node called `name`; ValueError for another name."""
        found = {node.name: node for node in (*self.ins.nodes, *self.nodes)}
        if not isinstance(name, str) or name not in found:
            raise wrong(self.who, "name to be that of a layer" + perhaps(name, found), "name",
                        name)
        return found[name]

    def check_inputs(self, x: Any, lengths: Any = None) -> tuple[Any, ...]:
        """Batch-first arrays of real numbers, one for each input, then the numbers of steps (N, 1)
        of each input with lengths; an error if the network cannot take them."""
        xs = checked_inputs(self, x, lengths)
        given = dict(zip(self.in_nodes, xs, strict=True))
        for node in self.nodes:
            for number, parent in enumerate(node.parents):
                if parent in given:
                    layer_of(node).expect_values(given[parent], number)
        return xs

    def masks(self, xs: Sequence[Array], nodes: Sequence[Node]) -> list[Array | None]:
        """(T, N) for each node: which steps of its value are real, for batch-last inputs; None if
        the node has no lengths."""
        given = dict(zip(self.in_nodes, xs, strict=True))
        return [None if node.lengths is None else
                self.xp.arange(node.shape[-1])[:, None] < given[node.lengths] for node in nodes]

    def without_padding(self, xs: Sequence[Array], nodes: Sequence[Node], ys: Sequence[Array]
                        ) -> list[Array]:
        """The values ys of some nodes with 0 beyond the end of each sample."""
        return [y if mask is None else self.xp.where(mask, y, y.dtype.type(0))
                for y, mask in zip(ys, self.masks(xs, nodes), strict=True)]

    # --- computing --------------------------------------------------------------------------------

    def run(self, xs: Sequence[Array], outputs: Sequence[Node], mode: str = PREDICT, *,
            hook: Hook | None = None, keep: bool = False) -> list[Array]:
        """The values of some nodes, for batch-last inputs xs on the backend.

        Args:
            xs: an array for each of `in_nodes`. What is beyond the end of a sample is not read.
            outputs: the nodes whose values are returned.
            mode: "predict", "train" or "sample".
            hook: called for each node as hook(node, forward, inputs); it returns the value, which
                `forward(*inputs)` computes.
            keep: keep what `run_backward` needs in a prediction too.
        """
        return result_of(forward_pass(self, xs, outputs, mode, hook=hook, keep=keep))

    def run_backward(self, gradients: Sequence[tuple[Node, Array]], accumulate: bool = False, *,
                     hook: Hook | None = None, to_inputs: bool = False) -> list[Array | None]:
        """All parameters' gradients, given the gradients with respect to some nodes' values.

        Gradients of a value that is read several times are added, and so are those of a layer's
        parameters if the layer is used several times.

        Args:
            gradients: pairs of a node and the gradient with respect to its value.
            accumulate: add to the parameters' gradients instead of replacing them.
            hook: called for each node as hook(node, backward, (dy,)), like that of `run`.
            to_inputs: compute the gradients with respect to the network's inputs, too. They are
                returned, one for each input (None without it).
        """
        return result_of(backward_pass(self, gradients, accumulate, hook=hook,
                                       to_inputs=to_inputs))

    def over_batch(self, outputs: Sequence[Node]) -> list[Node]:
        """The nodes at which shards of a batch exchange arrays, of those that `outputs` need."""
        return [node for node in self.order.plan(outputs).nodes if layer_of(node).over_batch]

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {len(self.layers)} layers>"

    def forget(self) -> None:
        """Free what a forward pass kept for a backward pass that will not come."""
        for node in self.nodes:
            node.kept = None


def renewed(inputs: Sequence[Node]) -> dict[Node, Node]:
    """New Inputs in place of these, and in place of their numbers of steps."""
    new = {node: Input(node.shape, lengths=node.lengths is not None, name=node.given_name)
           for node in inputs}
    companions = {node.lengths: made.lengths for node, made in new.items()}
    return new | {old: made for old, made in companions.items() if old and made}


def chain(who: str, layers: Iterable[Any], node: Node, used: set[str] | None = None) -> Node:
    """The output of layers and networks, one after another, whose input is a node.

    Args:
        who: the caller, for errors.
        used: names that are taken. Layers without a name get the first free one of their kind.
    """
    if isinstance(layers, str | bytes | np.ndarray) or not isinstance(layers, Iterable):
        raise TypeError(f"{who}: expected a list of layers. Received: {shown(layers)}.")
    for layer in layers:
        if isinstance(layer, type) and issubclass(layer, Layer):
            raise TypeError(f"{who}: expected layers, e.g. {layer.__name__}(...). "
                            f"Received: the class {layer.__name__}.")
        if not isinstance(layer, Layer | Graph):
            hint = ("; augmentations are passed to fit, and the layer that adds noise is "
                    "AdditiveNoise" if isinstance(layer, Augmentation) else "")
            raise TypeError(f"{who}: expected layers{hint}. Received: {shown(layer)}.")
        thing: Any = layer
        if used is not None:
            if thing.name is None:
                thing.name = next(name for number in count(1)
                                  if (name := f"{thing.kind}{number}") not in used)
            used.add(thing.name)
        made = thing(node)
        if not isinstance(made, Node):
            said = thing.who if isinstance(thing, Layer) else repr(thing)
            raise ValueError(f"{who}: expected layers with one output each; a Network takes any "
                             f"graph. Received: {said} with {len(made)} outputs.")
        node = made
    return node
