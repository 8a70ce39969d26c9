"""Receptive fields of units, drawn on the input image."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.checks import items, wrong
from xpnet.explain.field import receptive_field
from xpnet.graph import Graph
from xpnet.viz.figure import STYLES, axes_for, colour
from xpnet.viz.images import draw_image, expect_image

WHO = "show_receptive_field"


def show_receptive_field(net: Graph, x: Any, layers: str | Sequence[str],
                         at: tuple[int, int] | None = None, *, ax: Any = None) -> Any:
    """A figure of an image with the receptive field of a unit as a rectangle, or of a unit of
    several layers.

    Padding is left out. See xpnet.explain.receptive_field for what a rectangle means and for the
    source.

    Args:
        net: a network with one input, of images.
        x: one sample (C, H, W) with 1 or 3 channels: uint8, or floats from 0 to 1.
        layers: the name of a layer, as `summary` shows it, or several.
        at: row and column of the unit in the output of each layer; by default the middle.
        ax: axes of matplotlib; by default those of a new figure.

    Raises:
        ValueError: x does not fit, or a layer on the way has windows that are not known.
        ImportError: matplotlib is not installed.
    """
    names = [layers] if isinstance(layers, str) else items(layers)
    if not names:
        raise wrong(WHO, "layers to be the name of a layer, or several", "layers", layers)
    fields = {name: receptive_field(net, name, at) for name in names}
    image = expect_image(WHO, x, "x")
    if image.shape != net.in_nodes[0].shape:
        raise ValueError(f"{WHO}: expected x of shape {net.in_nodes[0].shape}. Received: shape "
                         f"{image.shape}.")
    axes = axes_for(WHO, ax, 5, 4.6)
    draw_image(axes, image)
    from matplotlib.patches import Rectangle
    for k, (name, ((top, bottom), (left, right))) in enumerate(fields.items()):
        axes.add_patch(Rectangle(
            (left - 0.5, top - 0.5), right - left, bottom - top, fill=False, clip_on=False,
            edgecolor=colour(k + 1), linewidth=2.5, linestyle=STYLES[k % len(STYLES)],
            label=f"{name}: {bottom - top} x {right - left}"))
    axes.legend(loc="upper center", bbox_to_anchor=(0.5, -0.02), title="receptive fields",
                ncols=min(2, len(fields)), frameon=False)
    return axes.figure
