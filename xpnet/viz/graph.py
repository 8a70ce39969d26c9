"""The graph of a network as a figure: what net.draw() writes as SVG."""

from __future__ import annotations

from typing import Any

from xpnet.checks import expect_instance
from xpnet.graph import Graph
from xpnet.inspect.draw import (
    ASIDE,
    BOX,
    FONT,
    GAP,
    INSIDE,
    LANE,
    LINE,
    MARGIN,
    MUTED,
    ROUND,
    SMALL,
    TEXT,
    Box,
    Step,
    arrows,
    boxes_of,
    cut,
    top_of,
)
from xpnet.inspect.layout import lay_out
from xpnet.viz.figure import axes_for, bare

WHO = "show_graph"
POINTS = 72         # in an inch: a pixel of the drawing is a point of the figure


def show_graph(net: Graph, *, ax: Any = None) -> Any:
    """A figure of the graph of a network, from top to bottom: a box for each use of a layer, with
    its kind, its name, its output shape and the number of its parameters.

    It is the drawing of `net.draw()`, which is better for web pages and notebooks; as a figure it
    can stand beside others, and be saved as PNG or PDF. Layout: Sugiyama et al. 1981, Brandes and
    Köpf 2002.

    Args:
        net: the network.
        ax: axes of matplotlib; by default those of a new figure, in which letters fit the boxes.

    Raises:
        ImportError: matplotlib is not installed.
    """
    expect_instance(WHO, "net", net, Graph, "a Network")
    boxes = boxes_of(net)
    layout = lay_out([box.parents for box in boxes], [box.width for box in boxes], gap=ASIDE,
                     lane=LANE)
    width, height = layout.width + 2 * MARGIN, layout.height * (BOX + GAP) - GAP + 2 * MARGIN
    axes = bare(axes_for(WHO, ax, width / POINTS, height / POINTS))
    for steps in arrows(boxes, layout):
        _arrow(axes, steps)
    for box, row, x in zip(boxes, layout.rows, layout.centres, strict=True):
        _box(axes, box, x, top_of(row))
    axes.set(xlim=(-MARGIN, width - MARGIN), ylim=(height - MARGIN, -MARGIN), aspect="equal")
    return axes.figure


def _box(axes: Any, box: Box, x: float, y: float) -> None:
    from matplotlib.patches import FancyBboxPatch
    left, right = x - box.width / 2, x + box.width / 2
    style = f"round,pad=0,rounding_size={ROUND if box.kind else BOX / 2}"
    axes.add_patch(FancyBboxPatch((left, y), box.width, BOX, boxstyle=style, facecolor=box.fill,
                                  edgecolor=LINE, label=box.title))
    for text, other, down, bold, size, colour in (
            (box.kind, box.name, BOX * 0.3, True, FONT, TEXT),
            (box.shape, box.note, BOX * 0.72, False, SMALL, MUTED)):
        font = {"fontsize": 0.85 * size, "va": "center", "parse_math": False}
        weight = "bold" if bold else "normal"
        if text and other:
            axes.text(left + INSIDE, y + down, cut(text), ha="left", color=colour, weight=weight,
                      **font)
            axes.text(right - INSIDE, y + down, cut(other), ha="right", color=colour, **font)
        else:
            axes.text(x, y + down, cut(text or other), ha="center", color=colour, weight=weight,
                      **font)


def _arrow(axes: Any, steps: list[Step]) -> None:
    from matplotlib.patches import FancyArrowPatch
    from matplotlib.path import Path
    points: list[tuple[float, float]] = []
    codes: list[Any] = []
    for letter, *numbers in steps:
        if letter == "V":
            numbers = [points[-1][0], numbers[0]]
        pairs = [*zip(numbers[::2], numbers[1::2], strict=True)]
        points += pairs
        codes += [{"M": Path.MOVETO, "C": Path.CURVE4, "V": Path.LINETO}[letter]] * len(pairs)
    axes.add_patch(FancyArrowPatch(path=Path(points, codes), arrowstyle="->", color=LINE,
                                   linewidth=1.2, mutation_scale=10, shrinkA=0, shrinkB=0))
