"""The cfg file of a network that was not read from one.

Each layer becomes a section, and a batch norm and an activation behind a convolution or a Linear
become options of its section. What Darknet does not have is refused, with the layer's name.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable
from typing import Any

from xpnet import layers as L
from xpnet.backends import activations
from xpnet.graph import Graph
from xpnet.io.darknet.builder import ACTIVATIONS, LEAKY
from xpnet.io.darknet.cfg import Config, parse
from xpnet.io.darknet.sections import EPS
from xpnet.layer import Layer
from xpnet.layers.normalization import BatchNorm
from xpnet.node import Node

WHO = "save_darknet"
NAMES: dict[str | None, str] = {ours: theirs for theirs, ours in ACTIVATIONS.items()}
NAMES |= {"logistic": "logistic", "linear": "linear"}


class Writer:
    """Writes the sections, node by node.

    Attributes:
        lines: of the cfg file.
        names: our name of each layer with arrays, by the name that the cfg file gives it.
    """

    def __init__(self, net: Graph) -> None:
        self.net = net
        self.lines: list[str] = []
        self.names: dict[str, str] = {}
        self.count = 0                              # sections of layers
        self.place: dict[Node, int] = {}            # the section that has a node's value
        self.readers = Counter(parent for node in net.nodes for parent in node.parents)
        self.readers.update(net.outs.nodes)
        self.next = {parent: node for node in net.nodes for parent in node.parents}
        self.done: set[Node] = set()                # became options of another section

    def config(self) -> Config:
        """The whole cfg file."""
        net = self.net
        if len(net.ins) > 1 or len(net.outs) > 1:
            raise self.refused("a network of one input and one output",
                               f"{len(net.ins)} inputs, {len(net.outs)} outputs")
        source, = net.ins.nodes
        if len(source.shape) == 3:
            self.add("net", **dict(zip(("channels", "height", "width"), source.shape, strict=True)))
        elif len(source.shape) == 1:
            self.add("net", inputs=source.shape[0])
        elif len(source.shape) == 2 and any(isinstance(node.layer, L.LSTM | L.GRU)
                                            for node in net.nodes):
            self.add("net", inputs=source.shape[0], time_steps=source.shape[1])
        else:
            raise self.refused("images, vectors, or sequences of a network with an LSTM or a GRU",
                               f"inputs of shape {source.shape}")
        self.count = 0
        self.place[source] = -1
        if self.readers[source] > 1:                # no section can name the input itself
            self.add("activation", activation="linear")
            self.place[source] = 0
        for node in net.nodes:
            if node not in self.done:
                self.write(node)
        last = net.outs.nodes[0]
        if self.place[last] != self.count - 1:
            self.route(last)
        return parse("\n".join(self.lines), "net.cfg")

    def write(self, node: Node) -> None:
        """The section of one node."""
        layer = node.layer
        assert layer is not None
        if node.use > 1:
            raise self.refused("layers that are used once", f"{layer.who}, used again")
        if isinstance(layer, L.Activation):
            function: Callable[..., None] | None = activation
        else:
            function = SECTIONS.get(type(layer))
        if function is None:
            raise self.refused("layers that Darknet has", layer.who)
        function(self, node, layer)
        self.place.setdefault(node, self.count - 1)

    def full_name(self, name: str) -> str:
        """Our name of an array that the cfg file calls conv0.W, ..."""
        layer, _, array = name.partition(".")
        return f"{self.names[layer]}.{array}"

    # --- help for sections ------------------------------------------------------------------------

    def refused(self, expected: str, received: str) -> ValueError:
        return ValueError(f"{WHO}: expected {expected}. Received: {received}.")

    def add(self, kind: str, **options: Any) -> None:
        self.lines += ["", f"[{kind}]", *(f"{key}={value}" for key, value in options.items())]
        self.count += 1

    def route(self, *nodes: Node, **options: Any) -> None:
        self.add("route", layers=",".join(str(self.number(node)) for node in nodes), **options)

    def number(self, node: Node) -> int:
        """The number of the section that has a value."""
        if self.place[node] < 0:
            raise self.refused("an input that is read by one layer", "an input that is read again")
        return self.place[node]

    def before(self, node: Node) -> None:
        """Make a value that of the section before."""
        if self.place[node] != self.count - 1:
            self.route(node)

    def alias(self, node: Node) -> None:
        """The value of the parent: Darknet reads maps as vectors, and vectors as maps."""
        self.place[node] = self.place[node.parents[0]]

    def square(self, layer: Any) -> tuple[int, dict[str, int]]:
        """(size, options of the stride) of a window."""
        (KH, KW), (sy, sx) = layer.window.kernel, layer.window.stride
        if KH != KW:
            raise self.refused("square windows", f"{layer.who} of {KH}x{KW}")
        return KH, {"stride": sy} if sy == sx else {"stride_y": sy, "stride_x": sx}

    def behind(self, node: Node, kind: type[Layer]) -> Node | None:
        """The node that alone reads this value, if its layer is of a class; it belongs to the
        section of this one."""
        reader = self.next.get(node)
        if (self.readers[node] != 1 or reader is None or not isinstance(reader.layer, kind)
                or reader.use > 1):
            return None
        self.done.add(reader)
        return reader

    def finish(self, node: Node, own: str | None, norm: bool) -> dict[str, Any]:
        """Options of a batch norm and of an activation behind a node. `own` is the activation of
        the layer itself, and `norm` whether a batch norm can be part of its section."""
        options: dict[str, Any] = {}
        parts = [node]
        if own is None and norm and (bn := self.behind(node, BatchNorm)) is not None:
            assert isinstance(bn.layer, BatchNorm)
            self.expect_eps(bn.layer)
            options["batch_normalize"], own = 1, bn.layer.activation
            self.names[f"bn{self.count}"] = bn.layer_name
            parts.append(bn)
        if own is None and (act := self.behind(parts[-1], L.Activation)) is not None:
            options["activation"] = self.activation_of(act.layer)
            parts.append(act)
        else:
            options["activation"] = self.named(own, node)
        self.place |= dict.fromkeys(parts, self.count)
        return options

    def expect_eps(self, layer: BatchNorm) -> None:
        if layer.eps != EPS or layer.momentum is None:
            raise self.refused(f"batch norms with eps={EPS:g} and a momentum",
                               f"{layer.who} with eps={layer.eps:g}, momentum={layer.momentum}")

    def named(self, activation: str | None, node: Node) -> str:
        """Darknet's name of an activation."""
        if activation not in NAMES:
            raise self.refused("activations that Darknet has",
                               f"{activation} of {node.layer_name}")
        return NAMES[activation]

    def activation_of(self, layer: Any) -> str:
        """Darknet's name of an activation layer."""
        table = activations.ACTIVATIONS[layer.activation].constants
        if layer.activation == "leaky_relu" and layer.constants == (LEAKY,):
            return "leaky"
        if layer.activation not in NAMES or layer.constants != tuple(table.values()):
            raise self.refused("activations that Darknet has", repr(layer))
        return NAMES[layer.activation]


# --- sections -------------------------------------------------------------------------------------

def convolution(w: Writer, node: Node, layer: L.Conv2d) -> None:
    w.before(node.parents[0])
    (size, stride), window = w.square(layer), layer.window
    if len({*window.padding}) > 1 or window.dilation[0] != window.dilation[1] or (
            layer.bias == "map"):
        raise w.refused("convolutions with equal padding on all sides, equal dilation and one bias "
                        "for each filter", layer.who)
    w.names[f"conv{w.count}"] = node.layer_name
    options = w.finish(node, layer.activation, not layer.bias)
    w.add("convolutional", filters=layer.filters, size=size, **stride, padding=window.padding[0],
          groups=layer.groups, dilation=window.dilation[0], **options)


def linear(w: Writer, node: Node, layer: L.Linear) -> None:
    w.before(node.parents[0])
    w.names[f"linear{w.count}"] = node.layer_name
    w.add("connected", output=layer.units, **w.finish(node, layer.activation, not layer.bias))


def batch_norm(w: Writer, node: Node, layer: BatchNorm) -> None:
    w.before(node.parents[0])
    w.expect_eps(layer)
    w.names[f"bn{w.count}"] = node.layer_name
    w.add("batchnorm")
    if layer.activation is not None:
        w.add("activation", activation=w.named(layer.activation, node))


def activation(w: Writer, node: Node, layer: L.Activation) -> None:
    w.before(node.parents[0])
    w.add("activation", activation=w.activation_of(layer))


def pool(kind: str) -> Callable[[Writer, Node, Any], None]:
    def write(w: Writer, node: Node, layer: Any) -> None:
        w.before(node.parents[0])
        size, stride = w.square(layer)
        top, bottom, left, right = layer.window.padding
        total = top + bottom
        if (top, bottom) != (left, right) or top != total // 2 or layer.window.dilation != (1, 1):
            raise w.refused("padding that Darknet has: half of it, rounded down, at the top and "
                            "left", layer.who)
        if kind == "local_avgpool" and total and layer.count_include_pad:
            raise w.refused("averages without the padding", layer.who)
        w.add(kind, size=size, **stride, padding=total)
    return write


def simple(kind: str, options: Callable[[Any], dict[str, Any]] = lambda layer: {}
           ) -> Callable[[Writer, Node, Any], None]:
    """A section whose options follow from the layer alone."""
    def write(w: Writer, node: Node, layer: Any) -> None:
        w.before(node.parents[0])
        w.add(kind, **options(layer))
    return write


def flatten(w: Writer, node: Node, layer: Layer) -> None:
    shape = node.parents[0].shape
    if 2 in (len(shape), len(node.shape)):
        raise w.refused("no Flatten or Reshape of a sequence", layer.who)
    if isinstance(layer, L.Reshape) and {*shape, *node.shape} - {1, max(node.shape)}:
        raise w.refused("layers that Darknet has", layer.who)
    reader = w.next.get(node)
    if len(node.shape) == 1 and len(shape) == 3 and shape[1:] != (1, 1) and not (
            w.readers[node] == 1 and reader and isinstance(reader.layer,
                                                           L.Linear | L.Softmax | L.Dropout)):
        raise w.refused("a Flatten in front of a Linear, a Softmax or a Dropout", layer.who)
    w.alias(node)


def softmax(w: Writer, node: Node, layer: L.Softmax) -> None:
    if layer.axis or (len(node.shape) == 3 and layer.temperature != 1):
        raise w.refused("a softmax along the channels", layer.who)
    w.before(node.parents[0])
    options = {"spatial": 1} if len(node.shape) == 3 else {"temperature": layer.temperature}
    w.add("softmax", **options)


def upsample(w: Writer, node: Node, layer: L.Upsample2d) -> None:
    rows, columns = layer.upsampling
    if layer.mode != "nearest" or rows != columns or rows != int(rows):
        raise w.refused("an Upsample2d that repeats rows and columns", layer.who)
    w.before(node.parents[0])
    w.add("upsample", stride=int(rows))


def concat(w: Writer, node: Node, layer: L.Concat) -> None:
    if layer.axis:
        raise w.refused("a Concat of channels", layer.who)
    w.route(*node.parents)


def part(w: Writer, node: Node, layer: L.Slice) -> None:
    taken, size = layer._part[-1], node.parents[0].shape[0]
    channels = taken.stop - taken.start
    if layer.axis or size % channels or taken.start % channels:
        raise w.refused("a Slice that is one of equal groups of channels", layer.who)
    w.route(node.parents[0], groups=size // channels, group_id=taken.start // channels)


def total(w: Writer, node: Node, layer: L.Add | L.WeightedSum) -> None:
    terms = list(node.parents)
    if isinstance(layer, L.Add):        # the value before comes first, if it is one of them
        terms.sort(key=lambda term: w.place[term] != w.count - 1)
    first, *others = terms
    numbers = ",".join(str(w.number(other)) for other in others)
    w.before(first)
    options: dict[str, Any] = {"from": numbers}
    if isinstance(layer, L.WeightedSum):
        w.names[f"shortcut{w.count}"] = node.layer_name
        options |= {"weights_type": "per_channel" if layer.per_channel else "per_feature",
                    "weights_normalization": layer.normalization or "none"}
    own = getattr(layer, "activation", None)
    options |= w.finish(node, own, False)
    w.add("shortcut", **options)


def product(w: Writer, node: Node, layer: L.Multiply) -> None:
    if len(node.parents) != 2 or len(node.shape) != 3:
        raise w.refused("a Multiply of two feature maps", layer.who)
    first, other = node.parents
    number = w.number(other)
    w.before(first)
    w.add("sam", **{"from": number}, **w.finish(node, None, False))


def local(w: Writer, node: Node, layer: L.LocallyConnected2d) -> None:
    w.before(node.parents[0])
    size, stride = w.square(layer)
    padding = layer.window.padding
    if not layer.bias or "stride" not in stride or padding not in ((0,) * 4, (1,) * 4) or (
            padding[0] and size != 3):
        raise w.refused("a LocallyConnected2d with biases and the padding that Darknet has",
                        layer.who)
    w.names[f"local{w.count}"] = node.layer_name
    w.add("local", filters=layer.filters, size=size, **stride, pad=padding[0],
          **w.finish(node, layer.activation, False))


def recurrent(w: Writer, node: Node, layer: L.LSTM | L.GRU) -> None:
    if (layer.layers > 1 or layer.bidirectional or not layer.return_sequences or layer.return_state
            or layer.lengths or not layer.bias or len(node.parents) > 1
            or (isinstance(layer, L.GRU) and layer.reset != "before")):
        raise w.refused('one LSTM or GRU(reset="before") in one direction with biases, whose first '
                        "state is 0 and whose output is all states", layer.who)
    w.before(node.parents[0])
    kind, options = ("lstm", {}) if isinstance(layer, L.LSTM) else ("gru", {"tanh": 1})
    w.names[f"{kind}{w.count}"] = node.layer_name
    w.add(kind, output=layer.units, **options)


SECTIONS: dict[type[Layer], Callable[..., None]] = {
    L.Conv2d: convolution, L.DepthwiseConv2d: convolution, L.Linear: linear,
    L.BatchNorm1d: batch_norm, L.BatchNorm2d: batch_norm, L.MaxPool2d: pool("maxpool"),
    L.AvgPool2d: pool("local_avgpool"), L.GlobalAvgPool2d: simple("avgpool"),
    L.Dropout: simple("dropout", lambda layer: {"probability": layer.p}),
    L.Flatten: flatten, L.Reshape: flatten, L.Softmax: softmax, L.Upsample2d: upsample,
    L.Concat: concat, L.Slice: part, L.Add: total, L.WeightedSum: total, L.Multiply: product,
    L.LocallyConnected2d: local, L.LSTM: recurrent, L.GRU: recurrent,
}
