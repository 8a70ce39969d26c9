"""Why a class: saliency, smooth gradients, Grad-CAM and occlusion on the image; and the inputs that
units respond to most."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer, finite_array, items, wrong
from xpnet.explain.grad_cam import grad_cam, layer_of
from xpnet.explain.maximization import maximize
from xpnet.explain.occlusion import occlusion
from xpnet.explain.saliency import over_channels, saliency, smooth_gradient
from xpnet.explain.scores import score_gradients
from xpnet.graph import Graph
from xpnet.viz.figure import HEAT, axes_for, bare, names_of, new_figure, title
from xpnet.viz.images import (
    GAP,
    between_0_and_1,
    draw_image,
    draw_map,
    expect_image,
    mosaic,
    wide,
)

ALPHA = 0.6         # of colours over an image


def show_heat(image: Any, values: Any, *, text: str = "", ax: Any = None) -> Any:
    """A figure of an image in grey under a map of numbers, which is enlarged to its size.

    Args:
        image: (H, W) or (C, H, W) with 1 or 3 channels.
        values: (H', W'), e.g. a map of xpnet.explain.grad_cam.
        text: the title.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: the image or the values have other axes.
        ImportError: matplotlib is not installed.
    """
    who = "show_heat"
    if not isinstance(text, str):
        raise wrong(who, "text to be a string", "text", text)
    pixels, values = expect_image(who, image), finite_array(values, f"{who}: values")
    if values.ndim != 2 or values.size == 0:
        raise ValueError(f"{who}: expected values of shape (H, W). Received: shape {values.shape}.")
    axes = axes_for(who, ax, 4, 3.4)
    _heat(axes, pixels, values, text)
    return axes.figure


def _heat(axes: Any, pixels: np.ndarray, values: np.ndarray, text: str) -> None:
    _, H, W = pixels.shape
    draw_image(axes, pixels.mean(axis=0, keepdims=True), text)
    drawn = axes.imshow(values, cmap=HEAT, alpha=ALPHA, interpolation="bilinear",
                        extent=(-0.5, W - 0.5, H - 0.5, -0.5))
    axes.figure.colorbar(drawn, ax=axes, shrink=0.75, pad=0.02)


def show_explanations(net: Graph, x: Any, target: int | None = None, *, layer: str | None = None,
                      size: int | None = None, names: Sequence[str] | None = None) -> Any:
    """A figure of four answers to the question which pixels a class score depends on.

    Saliency and the smooth gradient (the largest absolute value over the channels) say how much a
    small change of a pixel changes the score; Grad-CAM, which feature maps it comes from;
    occlusion, how much it falls when a square is covered with 0, drawn at the middle of the square.

    The sources are in xpnet.explain, whose functions compute the four maps.

    Args:
        net: a network with one input of images and one output of class scores.
        x: one sample (C, H, W), as it enters the network.
        target: a class; by default the one with the largest score.
        layer: the layer of Grad-CAM; by default the last one with feature maps.
        size: rows and columns of the square that is covered; by default a fifth of the image.
        names: of the classes; by default the network's, or their numbers.

    Raises:
        ValueError: the network, x or the target do not fit.
        ImportError: matplotlib is not installed.
    """
    who = "show_explanations"
    x = finite_array(x, f"{who}: x")
    if x.ndim != 3:
        raise ValueError(f"{who}: expected x to be one image (C, H, W). Received: shape {x.shape}.")
    found = score_gradients(who, net, x[None], target)
    k = int(found.targets[0])
    size = max(3, min(x.shape[1:]) // 5) if size is None else expect_integer(who, "size", size)
    layer = layer_of(who, net, layer)
    pixels = expect_image(who, x if len(x) in (1, 3) else x.mean(axis=0), "x")
    label = names_of(who, names, found.scores.shape[1], "class", net)[k]
    smooth = over_channels(who, smooth_gradient(net, x[None], k))[0]
    figure = new_figure(who, 15, 3.4)
    axes = figure.subplots(1, 5)
    draw_image(axes[0], pixels, f"{label}: score {found.scores[0, k]:.3g}")
    draw_map(axes[1], saliency(net, x[None], k)[0], "saliency")
    draw_map(axes[2], smooth, "smooth gradient")
    _heat(axes[3], pixels, grad_cam(net, x[None], k, layer=layer)[0], f"Grad-CAM, {layer}")
    _, H, W = x.shape
    stride = max(1, size // 4)          # all places of a large image would take too long
    drop = occlusion(net, x, k, size=size, stride=stride)
    # Each value is drawn at the middle of its square.
    start = (size - 1 - stride) / 2
    OH, OW = drop.shape
    draw_map(axes[4], drop, f"occlusion, {size} x {size}",
             extent=(start, start + OW * stride, start + OH * stride, start))
    axes[4].set(xlim=(-0.5, W - 0.5), ylim=(H - 0.5, -0.5))
    return figure


def show_maximization(net: Graph, layer: str, units: Sequence[int] | None = None, *,
                      steps: int = 100, lr: float = 0.1, decay: float = 0.01, seed: int = 0,
                      names: Sequence[str] | None = None, ax: Any = None) -> Any:
    """A figure of the inputs to which units of a layer respond most, see xpnet.explain.maximize.

    Each is scaled from its smallest value (black) to its largest (white). The number in the corner
    is that of the unit, or channel.

    Args:
        net: a network with one input of images of 1 or 3 channels.
        layer: the name of a layer, as `summary` shows it.
        units: numbers of units or, for feature maps, of channels; by default the first 16.
        steps, lr, decay, seed: see xpnet.explain.maximize.
        names: a text for each unit instead of its number.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: there is no such layer or unit, or the input is no image.
        ImportError: matplotlib is not installed.
    """
    who = "show_maximization"
    expect_instance(who, "net", net, Graph, "a Network")
    available = net.node(layer).shape[0]
    chosen = list(range(min(16, available))) if units is None else items(units)
    if not chosen:
        raise wrong(who, "units to be numbers of units", "units", units)
    labels = [str(unit) for unit in chosen] if names is None else names_of(who, names, len(chosen))
    C, H, W = expect_image(who, np.zeros(net.in_nodes[0].shape), "an input").shape
    images = np.stack([between_0_and_1(maximize(net, layer, unit, steps=steps, lr=lr, decay=decay,
                                                seed=seed)[0]) for unit in chosen])
    columns = wide(len(chosen), H, W)
    whole = mosaic(np.moveaxis(images, 1, -1), columns)
    whole[np.isnan(whole)] = 1
    axes = axes_for(who, ax, 6, 6 * whole.shape[0] / whole.shape[1] + 0.3)
    draw_image(bare(axes), np.moveaxis(whole, -1, 0))
    title(axes, f"what units of {layer} respond to")
    for k, label in enumerate(labels):
        axes.text(k % columns * (W + GAP) - 0.3, k // columns * (H + GAP) - 0.3, label,
                  va="top", fontsize=7, parse_math=False,
                  bbox={"facecolor": "white", "pad": 1, "linewidth": 0})
    return axes.figure
