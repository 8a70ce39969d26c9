"""The receptive field of a unit: the rows and columns of the input that it depends on."""

from __future__ import annotations

from xpnet.backends.window import pair
from xpnet.checks import expect_instance, is_integer, items, wrong
from xpnet.graph import Graph
from xpnet.layer import Layer
from xpnet.layers.convolution import ConvTranspose2d
from xpnet.layers.gathered import RowsAndColumns
from xpnet.layers.pooling import AdaptiveAvgPool2d, AdaptiveMaxPool2d, spans
from xpnet.layers.resize import ConstantPad2d, Crop2d
from xpnet.layers.shape import Permute, PixelShuffle
from xpnet.layers.softmax import OverAxis
from xpnet.layers.subsampling import SkipSampling2d
from xpnet.node import Node, layer_of

WHO = "receptive_field"
Span = tuple[int, int]      # the first row or column, and the one after the last
EMPTY = 0, 0                # of a unit that reads padding alone


def receptive_field(net: Graph, layer: str, at: tuple[int, int] | None = None
                    ) -> tuple[Span, Span]:
    """The rows and the columns of the input image that a unit depends on.

    A window with stride s, padding p and extent e reads for the outputs a .. b - 1 the inputs
    a s - p .. (b - 1) s - p + e - 1 (Araujo et al. 2019, section 2). Padding is left out, so the
    field of a unit near a border is smaller than that in `summary`. With branches it is the
    smallest rectangle around those of all branches. A layer between features (Flatten, Linear,
    global pooling) reads everything. Statistics over positions, such as those of InstanceNorm2d, do
    not count, as in `summary`; a layer of your own without `window` counts as elementwise.

    Args:
        net: a network with one input, of images.
        layer: the name of a layer, as `summary` shows it.
        at: row and column of the unit in the layer's output; by default the middle.

    Returns:
        ((first row, row after the last), (first column, column after the last)); (0, 0) if all
        that the unit reads is padding.

    Raises:
        ValueError: a layer on the way has windows that are not known.
    """
    expect_instance(WHO, "net", net, Graph, "a Network")
    shape = net.in_nodes[0].shape
    if len(net.in_nodes) > 1 or len(shape) != 3:
        raise ValueError(f"{WHO}: expected a network with one input of shape (C, H, W). Received: "
                         f"inputs of shapes {[node.shape for node in net.in_nodes]}.")
    node = net.node(layer)
    found: dict[Node, tuple[Span, Span]] = {node: _unit(node, at)}
    for one in reversed(net.nodes):
        if one in found:
            for parent in one.parents:
                field = _read(one, parent, found[one])
                found[parent] = _around(found[parent], field) if parent in found else field
    return found[net.in_nodes[0]]


def _unit(node: Node, at: tuple[int, int] | None) -> tuple[Span, Span]:
    if len(node.shape) != 3:
        if at is not None:
            raise wrong(WHO, f"at to be None for {node.name}, whose output has no maps", "at", at)
        return (0, 1), (0, 1)           # features have no positions
    _, H, W = node.shape
    place = [H // 2, W // 2] if at is None else items(at)
    if not (place and len(place) == 2 and is_integer(place[0], 0, H - 1)
            and is_integer(place[1], 0, W - 1)):
        raise wrong(WHO, f"at to be the row and column of a unit in {H} x {W}", "at", at)
    row, column = map(int, place)
    return (row, row + 1), (column, column + 1)


def _around(a: tuple[Span, Span], b: tuple[Span, Span]) -> tuple[Span, Span]:
    """The smallest rectangle around two."""
    for one, other in ((a, b), (b, a)):
        if EMPTY in one:
            return other
    rows, columns = ((min(p[0], q[0]), max(p[1], q[1])) for p, q in zip(a, b, strict=True))
    return rows, columns


def _read(node: Node, parent: Node, field: tuple[Span, Span]) -> tuple[Span, Span]:
    """The rows and columns of a parent that those of a node depend on."""
    layer = layer_of(node)
    if len(parent.shape) != 3:
        return (0, 1), (0, 1)
    sizes = parent.shape[1], parent.shape[2]
    if len(node.shape) != 3:
        return (0, sizes[0]), (0, sizes[1])
    rows, columns = (_along(layer, axis, span, size, node.shape[1 + axis])
                     for axis, (span, size) in enumerate(zip(field, sizes, strict=True)))
    return rows, columns


def _along(layer: Layer, axis: int, span: Span, size: int, outputs: int) -> Span:
    """The same along one axis, from `outputs` elements to `size`; padding is left out."""
    first, last = span[0], span[1] - 1
    if first > last:
        return EMPTY
    window = layer.seen_window
    if (layer.sees_all or isinstance(layer, Permute)
            or isinstance(layer, OverAxis) and layer.axis not in (0, -3)):
        raise _unknown(layer)
    if isinstance(layer, ConvTranspose2d):
        # tap k of input i adds to the output i s - before + k d
        s, extent = layer.slide.stride[axis], layer.slide.extent[axis]
        before = layer.slide.padding[2 * axis]
        start, stop = -(-(first + before - extent + 1) // s), (last + before) // s + 1
    elif isinstance(layer, AdaptiveAvgPool2d | AdaptiveMaxPool2d):
        parts = spans(size, outputs)
        start, stop = parts[first][0], parts[last][1]
    elif isinstance(layer, RowsAndColumns):
        matrix = layer.matrices(*layer.in_shapes[0][1:])[axis]
        read = matrix.column[(matrix.row >= first) & (matrix.row <= last)]
        start, stop = int(read.min()), int(read.max()) + 1
    elif isinstance(layer, PixelShuffle):
        start, stop = first // layer.r, last // layer.r + 1
    elif isinstance(layer, ConstantPad2d | Crop2d):
        before = layer.sides[2 * axis] * (1 if isinstance(layer, Crop2d) else -1)
        start, stop = first + before, last + before + 1
    elif window is not None and {*layer.upsampling} == {1}:
        s, before = window.stride[axis], window.padding[2 * axis]
        if isinstance(layer, SkipSampling2d):
            before = -pair(layer.offset, "offset", 0, WHO)[axis]
        start, stop = first * s - before, last * s - before + window.extent[axis]
    elif window is None and size == outputs:
        start, stop = span
    else:
        raise _unknown(layer)
    start, stop = max(start, 0), min(stop, size)
    return (start, stop) if start < stop else EMPTY


def _unknown(layer: Layer) -> ValueError:
    return ValueError(f"{WHO}: expected layers whose windows are known: convolution, pooling, "
                      f"borders, interpolation, or elementwise. Received: {layer.who}.")
