"""The filters of a layer, and the feature maps that layers make of an image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer, finite_array, items, perhaps, shown, wrong
from xpnet.graph import Graph
from xpnet.layer import Layer
from xpnet.layers.convolution import Conv2d
from xpnet.node import Node
from xpnet.training.prediction import values_of
from xpnet.viz.figure import axes_for, new_figure, title
from xpnet.viz.images import between_0_and_1, draw_image, draw_map, expect_image, mosaic

MOST_ROWS = 24      # layers that a figure shows without being asked for them
FULL_WIDTH = 9.0    # inches


def show_filters(net: Graph, layer: str, *, most: int = 64, ax: Any = None) -> Any:
    """A figure of the filters of a layer, W (F, C/groups, KH, KW).

    With three input channels each filter is a colour image, scaled so that its weights fill the
    range from black to white (Krizhevsky et al. 2012, figure 3). With any other number, a filter is
    a row with a map for each input channel, and all of them have one scale of colours, in which 0
    is white. With one input channel the filters fill a square. The filters are those that slide
    over the input: of a TrueConv2d they are flipped. Of a transposed convolution a row is an input
    channel, with what it adds to each output channel.

    Args:
        net: the network.
        layer: the name of a layer, as `summary` shows it.
        most: the filters, and the input channels of each, that are shown: the first ones.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: there is no such layer, or it has no filters.
        ImportError: matplotlib is not installed.
    """
    who = "show_filters"
    W = filters_of(who, net, layer)
    most = expect_integer(who, "most", most)
    F, C, KH, KW = W.shape
    some = W[:most, :most]
    if C == 3:
        maps, columns = np.stack([between_0_and_1(np.moveaxis(w, 0, -1)) for w in W[:most]]), None
    else:
        maps, columns = some.reshape(-1, KH, KW), None if C == 1 else some.shape[1]
    whole = mosaic(maps, columns)
    width = min(FULL_WIDTH, max(3.0, whole.shape[1] / 8))
    axes = axes_for(who, ax, width, min(FULL_WIDTH, width * whole.shape[0] / whole.shape[1] + 0.4))
    text = f"{layer}: " + (f"{F} filters" if most >= F else f"{most} of {F} filters")
    if C in (1, 3):
        text += f" of {C} x {KH} x {KW}"
    else:
        text += f" of {KH} x {KW}, a row each; {C} input channels, a column each"
    if C == 3:
        whole[np.isnan(whole)] = 1      # white
        draw_image(axes, np.moveaxis(whole, -1, 0), text)
    else:
        draw_map(axes, whole, text, signed=True)
    return axes.figure


def filters_of(who: str, net: Graph, name: str) -> np.ndarray:
    """The filters of a layer in float64: (F, C/groups, KH, KW)."""
    expect_instance(who, "net", net, Graph, "a Network")
    layers = net.layer_names
    if not isinstance(name, str) or name not in layers:
        raise wrong(who, "layer to be the name of a layer" + perhaps(name, layers), "layer", name)
    layer = _convolution(layers[name])
    if layer is None:
        some = [other for other, one in layers.items() if _convolution(one)]
        raise ValueError(f"{who}: expected a layer with filters"
                         + (f", e.g. {some[0]}" if some else "")
                         + f". Received: {layers[name].who}.")
    with net.backend.scope():
        return np.asarray(net.backend.to_numpy(layer.kernel()), np.float64)


def _convolution(layer: Layer) -> Conv2d | None:
    """The layer itself, or the first of its children that is a convolution."""
    return next((one for one in (layer, *layer.children) if isinstance(one, Conv2d)), None)


def show_feature_maps(net: Graph, x: Any, layers: Sequence[str] | None = None, *, most: int = 16
                      ) -> Any:
    """A figure of an image and of the feature maps that the layers make of it: a row for each
    layer.

    Each layer has its own scale of colours: from its smallest value to its largest, or around 0,
    which is white, if some values are negative.

    Args:
        net: a network with one input.
        x: one sample (C, H, W), as it enters the network.
        layers: names of layers, as `summary` shows them; by default all whose output is maps.
        most: the maps of each layer that are shown: the first ones.

    Raises:
        ValueError: a layer does not exist or its output is not maps, or x does not fit.
        ImportError: matplotlib is not installed.
    """
    who = "show_feature_maps"
    expect_instance(who, "net", net, Graph, "a Network")
    most = expect_integer(who, "most", most)
    x = finite_array(x, f"{who}: x")
    nodes = _nodes(who, net, layers)
    values = values_of(net, x[None], nodes, 1, who)
    wholes = [mosaic(value[0, :most].astype(np.float64), most) for value in values]
    image = expect_image(who, x, "x") if len(x) in (1, 3) else None
    first = 1 if image is not None else 0
    heights = [1.6] * first + [
        max(0.5, min(1.6, (FULL_WIDTH - 1.5) * len(whole) / whole.shape[1])) for whole in wholes]
    figure = new_figure(who, FULL_WIDTH, sum(heights) + 0.35 * len(heights))
    axes = figure.subplots(len(heights), 1, squeeze=False,
                           gridspec_kw={"height_ratios": heights})[:, 0]
    if image is not None:
        draw_image(axes[0], image, "x: " + " x ".join(map(str, x.shape)))
    for ax, node, whole in zip(axes[first:], nodes, wholes, strict=True):
        C = node.shape[0]
        draw_map(ax, whole)
        title(ax, f"{node.name}: " + (f"{most} of {C}" if most < C else f"{C}")
              + f" maps of {node.shape[1]} x {node.shape[2]}")
    return figure


def _nodes(who: str, net: Graph, layers: Any) -> list[Node]:
    """The nodes with these names, or all whose values are maps."""
    maps = [node for node in net.nodes if len(node.shape) == 3]
    if layers is None:
        if not 0 < len(maps) <= MOST_ROWS:
            raise wrong(who, f"layers to be names of layers, for a network with {len(maps)} layers "
                        "of feature maps", "layers", layers)
        return maps
    names = [layers] if isinstance(layers, str) else items(layers)
    if not names:
        raise wrong(who, "layers to be names of layers", "layers", layers)
    nodes = [net.node(name) for name in names]
    for node in nodes:
        if node not in maps:
            raise ValueError(f"{who}: expected layers whose output is maps (C, H, W). Received: "
                             f"{shown(node.name)}, with output {node.shape}.")
    return nodes
