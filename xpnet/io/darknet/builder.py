"""The graph of a cfg file: each section becomes one or several layers.

Layers are named by what they are and by the number of their section, as Darknet counts: conv0, bn0,
leaky0, pool1, ... Nothing is allocated here; the layers only declare their arrays.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace

from xpnet.graph import Input
from xpnet.io.darknet.cfg import Config, Section
from xpnet.io.darknet.heads import HEADS, Head, head
from xpnet.layer import Layer
from xpnet.layers import (
    Activation,
    Concat,
    Flatten,
    Identity,
    LeakyReLU,
    Permute,
    Reshape,
    Slice,
)
from xpnet.node import Node

LEAKY = 0.1                     # the slope of "leaky"
# Darknet's names of activations, and those of xpnet; None is the identity
ACTIVATIONS: dict[str, str | None] = {
    "elu": "elu", "gelu": "gelu_tanh", "hardtan": "hardtanh", "leaky": "leaky", "lhtan": "lhtan",
    "linear": None, "loggy": "loggy", "logistic": "sigmoid", "mish": "mish", "plse": "plse",
    "ramp": "ramp", "relie": "relie", "relu": "relu", "relu6": "relu6", "selu": "selu",
    "stair": "stair", "swish": "silu", "tanh": "tanh",
}


@dataclass(frozen=True)
class Stored:
    """An array in a weights file.

    Attributes:
        section: whose array it is.
        what: Darknet's name of it, e.g. "scales".
        name: full name of the network's array, e.g. "bn0.gamma".
        shape: in the file.
        axes: the file's array is transposed by these axes; None if it is not.
        matrix: whether the file has the array transposed if its version is above 1000.
        gate: what it belongs to in [lstm] and [gru], e.g. "wi", see recurrent.py.
        merged: whether an array of the network has its values among others.
    """

    section: Section
    what: str
    name: str
    shape: tuple[int, ...]
    axes: tuple[int, ...] | None = None
    matrix: bool = False
    gate: str = ""
    merged: bool = False

    @property
    def layer(self) -> str:
        """Full name of the layer."""
        return self.name.rsplit(".", 2 if self.merged else 1)[0]

    @property
    def parameters(self) -> tuple[str, ...]:
        """Full names of the network's arrays that have its values."""
        return tuple(f"{self.layer}.{name}" for name in "WUb") if self.merged else (self.name,)


class Builder:
    """Makes the nodes, section by section.

    Args:
        steps: whether the input is a sequence, inputs and time_steps of [net].

    Attributes:
        section: the one that is made now.
        values: the value of each section so far; None if it has none that others may read.
        stored: the arrays of a weights file, in its order.
        heads: the sections that decode the outputs.
        convolutions: convolution and batch norm of the [convolutional] sections, by their numbers.
    """

    def __init__(self, config: Config, steps: bool = False) -> None:
        self.config, self.section = config, config.net
        self.values: list[Node | None] = []
        self.stored: list[Stored] = []
        self.heads: list[Head] = []
        self.convolutions: dict[int, tuple[Layer | None, ...]] = {}
        self.layers: list[tuple[int, Layer]] = []       # with the number of the section
        self._uses: Counter[str] = Counter()            # by the names of layers
        self.input = self._input(config.net, steps)
        self._value: Node | None = self.input
        self._maps: list[Node] = []                     # that heads decode

    def _input(self, net: Section, steps: bool) -> Node:
        sizes = [net.integer(key, 0) for key in ("channels", "height", "width")]
        if 0 not in sizes:
            return Input(sizes)
        inputs = net.integer("inputs", 0)
        if not inputs:
            key = ("channels", "height", "width")[sizes.index(0)]
            raise net.wrong("channels, height and width above 0, or inputs", key)
        return Input((inputs, net.integer("time_steps", 1, 1)) if steps else (inputs,))

    @property
    def value(self) -> Node:
        """The value of the section before."""
        if self._value is None:
            raise self.section.wrong("a value before it that is part of the graph; [route] reads "
                                     "others", received=f"what {', '.join(HEADS)} decode")
        return self._value

    @value.setter
    def value(self, value: Node | None) -> None:
        self._value = value

    # --- help for sections ------------------------------------------------------------------------

    def use(self, layer: Layer, label: str, *nodes: Node) -> Node:
        """The output of a new layer, called `label` and the number of the section."""
        name = f"{label}{self.section.index}"
        self._uses[name] += 1
        layer.name = name if self._uses[name] == 1 else f"{name}_{self._uses[name]}"
        self.layers.append((self.section.index, layer))
        return layer(*nodes)

    def activate(self, node: Node, name: str | None) -> Node:
        """The value of an activation layer; the node itself without a name."""
        if name is None:
            return node
        layer = LeakyReLU(LEAKY) if name == "leaky" else Activation(name)
        return self.use(layer, name if name == "leaky" else "act", node)

    def activation(self, default: str) -> str | None:
        """xpnet's name of the section's activation, or "leaky"."""
        return ACTIVATIONS[self.section.choice("activation", default, ACTIVATIONS)]

    def split_activation(self, default: str) -> tuple[str | None, str | None]:
        """(what the layer itself applies, the activation layer behind it): "leaky" has a slope that
        only a layer can have."""
        name = self.activation(default)
        return (None, name) if name == "leaky" else (name, None)

    def as_map(self, node: Node) -> Node:
        """A vector (D,) as a map (D, 1, 1)."""
        if len(node.shape) == 2:
            raise self.section.wrong("an image or a vector before it", received=(
                f"a sequence of {node.shape[1]} vectors"))
        return node if len(node.shape) == 3 else self.use(Reshape((-1, 1, 1)), "map", node)

    def as_vector(self, node: Node) -> Node:
        """Maps as a vector. A sequence stays one: each step has a vector."""
        return self.use(Flatten(), "flat", node) if len(node.shape) == 3 else node

    def number(self, given: int, key: str) -> int:
        """The number of the layer that a section names, if there is one."""
        index = given if given >= 0 else self.section.index + given
        if not 0 <= index < self.section.index:
            raise self.section.wrong(f"{key} to name layers before this one", key)
        return index

    def read(self, key: str) -> list[Node]:
        """The values of the layers that an option names."""
        found = []
        for given in self.section.integers(key):
            value = self.values[self.number(given, key)]
            if value is None:
                raise self.section.wrong(f"{key} to name layers whose output is part of the graph, "
                                         f"not {', '.join(HEADS)}", key)
            found.append(value)
        return found

    def store(self, what: str, layer: Layer, parameter: str, shape: Sequence[int],
              axes: tuple[int, ...] | None = None, matrix: bool = False, gate: str = "") -> None:
        self.stored.append(Stored(self.section, what, f"{layer.name}.{parameter}", tuple(shape),
                                  axes, matrix, gate))

    def add_head(self) -> None:
        """An output of the network: the raw map that this section decodes."""
        if self.value.layer is None:
            raise self.section.wrong("a layer before it", received="the input")
        made = head(self.section, self.value.name, self.value.shape, self.input.shape)
        value = self.value
        if made.kind == "detection":
            value = self._by_cells(value, made)
            made = replace(made, layer=value.name)
        self.heads.append(made)
        self._maps.append(value)
        self._value = None

    def _by_cells(self, vector: Node, made: Head) -> Node:
        """The vector of [detection] as the map (5 B + K, S, S) of xn.YOLOv1. Darknet has the
        classes of all cells first, then the confidences of their boxes, then the boxes."""
        x, (S, _), K, B = self.as_vector(vector), made.grid, made.classes, made.boxes

        def part(before: int, channels: int) -> Node:
            y = self.use(Slice(S * S * before, S * S * (before + channels)), "part", x)
            return self.use(Permute((2, 0, 1)), "cells",
                            self.use(Reshape((S, S, channels)), "rows", y))

        classes, confidences, boxes = part(0, K), part(K, B), part(K + B, 4 * B)
        each = [self.use(Slice(start, start + size), label, of)
                for b in range(B) for start, size, label, of in (
                    (4 * b, 4, "box", boxes), (b, 1, "confidence", confidences))]
        return self.use(Concat(), "detection", *each, classes)

    # --- all sections -----------------------------------------------------------------------------

    def finish(self) -> None:
        """Set what holds for all layers of a section: stopbackward=1 freezes them and those before,
        learning_rate scales theirs. A larger stopbackward is a number of first iterations, and
        freezes nothing here. A network that computes nothing gets an Identity."""
        if self._value is self.input:
            self.value = self.values[-1] = self.use(Identity(), "same", self.input)
        sections = self.config.layers
        frozen = max((section.index for section in sections
                      if section.integer("stopbackward", 0) == 1), default=-1)
        for index, layer in self.layers:
            layer.trainable = index > frozen
            layer.lr_scale = sections[index].number("learning_rate", 1)

    @property
    def outputs(self) -> list[Node]:
        """The raw maps of the heads, and the last value if it is not decoded."""
        last = [] if self.values[-1] is None else [self.value]
        return list(dict.fromkeys([*self._maps, *last]))
