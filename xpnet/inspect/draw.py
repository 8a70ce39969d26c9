"""A drawing of a network's graph as SVG, from top to bottom: a box for each use of a layer."""

from __future__ import annotations

import math
import os
import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from html import escape
from itertools import pairwise
from typing import Any
from unicodedata import east_asian_width

from xpnet.checks import wrong
from xpnet.graph import Graph
from xpnet.inspect.layout import Layout, lay_out
from xpnet.inspect.summary import rows
from xpnet.io.files import name_of, write_atomically
from xpnet.layer import Layer
from xpnet.node import Node, layer_of

BOX, GAP = 40, 30               # heights of a row of boxes, and of the space below it
ASIDE, LANE = 26, 16            # between two boxes, and the width of a line beside a box
MARGIN, FRAME = 14, 7           # around everything, and around the boxes of a part
INSIDE, BETWEEN = 10, 14        # beside the text in a box, and between its two columns
FONT, SMALL = 12, 11            # sizes of the font; a letter takes 0.6 of it, bold ones too
LONGEST = 32                    # characters of a line of text
HEAD, ROUND = 8, 5              # the straight end of an arrow; the radius of corners

# The text is dark on boxes that are light, and lines have a grey between black and white: so both
# can be read on a light page and on a dark one.
TEXT, MUTED, LINE, PORT, OTHER = "#1b1f24", "#4a5058", "#808080", "#d5d9de", "#eceff2"
COLOURS = {     # by the file of xpnet/layers that a layer's class, or a base class, is from
    "convolution": "#c9dffb", "linear": "#dcd3fa", "embedding": "#dcd3fa", "pooling": "#fbd9c0",
    "subsampling": "#fbd9c0", "normalization": "#cfeccf", "local_normalization": "#cfeccf",
    "recurrent": "#f5cfe4", "rnn": "#f5cfe4", "attention": "#f5cfe4", "merge": "#f7e9a8",
}
Step = tuple[Any, ...]      # of an arrow, see `arrows`
# What XML cannot contain: control characters, and halves of surrogate pairs.
FORBIDDEN = re.compile("[^\t\n\r\x20-\ud7ff\ue000-\ufffd\U00010000-\U0010ffff]")


@dataclass(frozen=True, repr=False)
class Drawing:
    """A drawing of a network's graph; a notebook shows it.

    Attributes:
        svg: the text of the SVG file.
        width, height: in pixels.
    """

    svg: str = field(repr=False)
    width: int
    height: int

    def _repr_svg_(self) -> str:
        return self.svg

    def __repr__(self) -> str:
        return f"<Drawing of {self.width} x {self.height} pixels>"


@dataclass(frozen=True)
class Box:
    name: str
    kind: str                   # "" for an input or an output of the network
    shape: str
    note: str                   # the number of parameters
    fill: str
    title: str                  # what a viewer shows beside the mouse pointer
    parents: tuple[int, ...]

    @property
    def width(self) -> float:
        """Generous: the width of a text depends on the fonts of the viewer."""
        return 2 * INSIDE + max(
            0.6 * size * (_letters(left) + _letters(right)) + (BETWEEN if left and right else 0)
            for size, left, right in ((FONT, self.kind, self.name), (SMALL, self.shape, self.note)))


def draw(net: Graph, path: str | os.PathLike[str] | None = None) -> Drawing:
    """The graph of a network as an SVG drawing, written to the file at `path` unless it is None.

    Raises:
        ValueError: the name of the file does not end in .svg.
    """
    if path is not None and not name_of(path, "draw").lower().endswith(".svg"):
        raise wrong("draw", "path to be the name of a .svg file", "path", os.fspath(path))
    boxes = boxes_of(net)
    widths = [box.width for box in boxes]
    layout = lay_out([box.parents for box in boxes], widths, gap=ASIDE, lane=LANE)
    width = math.ceil(layout.width + 2 * MARGIN)
    height = layout.height * (BOX + GAP) - GAP + 2 * MARGIN
    name = getattr(net, "name", None) or type(net).__name__
    lines = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{width}" height="{height}" '
        f'viewBox="0 0 {width} {height}" role="img">',
        f"<title>{_text(name)}: the graph of {len(net.nodes)} layers</title>",
        f'<g transform="translate({MARGIN} {MARGIN})" font-family="system-ui, \'Segoe UI\', '
        f'Helvetica, Arial, sans-serif">',
        f'<g fill="{LINE}" fill-opacity="0.15" stroke="{LINE}" stroke-opacity="0.5">',
        *_frames(net, layout, widths), "</g>",
        f'<g fill="none" stroke="{LINE}" stroke-width="1.5" stroke-linejoin="round">',
        *_lines(boxes, layout), "</g>",
        f'<g fill="{TEXT}" font-size="{FONT}">', *_drawn(boxes, layout, widths), "</g>",
        "</g>", "</svg>", ""]
    svg = "\n".join(lines)
    if path is not None:
        write_atomically(path, svg.encode(), who="draw")
    return Drawing(svg, width, height)


# --- what is drawn --------------------------------------------------------------------------------

def boxes_of(net: Graph) -> list[Box]:
    """A box for each input, for each use of a layer, and for each output."""
    boxes = [Box(node.name, "", _shape(node), "", PORT, f"the input {node.name}", ())
             for node in net.in_nodes]
    number = {node: k for k, node in enumerate((*net.in_nodes, *net.nodes))}
    for node, row in zip(net.nodes, rows(net), strict=True):
        layer = layer_of(node)
        note = ""
        if layer.parameters:
            note = "shared" if node.use > 1 else f"{row.parameters:,} parameters"
        boxes.append(Box(row.name, row.kind, _shape(node), note, _colour(layer), repr(layer),
                         tuple(number[parent] for parent in node.parents)))
    names = ("",) if net.outs.single else net.outs.names
    boxes += [Box("output" if name in ("", "output") else f"output {name}", "", _shape(node), "",
                  PORT, f"the output {name or node.name}", (number[node],))
              for name, node in zip(names, net.outs.nodes)]
    return boxes


def _colour(layer: Layer) -> str:
    files = (kind.__module__.removeprefix("xpnet.layers.") for kind in type(layer).__mro__)
    return next((COLOURS[file] for file in files if file in COLOURS), OTHER)


def _shape(node: Node) -> str:
    return " x ".join(map(str, node.shape))


# --- SVG ------------------------------------------------------------------------------------------

def _drawn(boxes: Sequence[Box], layout: Layout, widths: Sequence[float]) -> Iterator[str]:
    """The boxes: kind and name, and below them output shape and parameters."""
    for box, row, x, width in zip(boxes, layout.rows, layout.centres, widths, strict=True):
        y, left = top_of(row), x - width / 2
        yield (f'<g><title>{_text(box.title)}</title><rect x="{left:.1f}" y="{y}" '
               f'width="{width:.1f}" height="{BOX}" rx="{ROUND if box.kind else BOX / 2:g}" '
               f'fill="{box.fill}" stroke="{LINE}"/>')
        bold, small = 'font-weight="600"', f'font-size="{SMALL}" fill="{MUTED}"'
        for text, other, down, style, of_other in (
                (box.kind, box.name, 17, bold, ""), (box.shape, box.note, 32, small, small)):
            if text and other:
                yield _written(text, left + INSIDE, y + down, "start", style)
                yield _written(other, left + width - INSIDE, y + down, "end", of_other)
            else:
                yield _written(text or other, x, y + down, "middle", style)
        yield "</g>"


def _written(text: str, x: float, y: float, anchor: str, style: str) -> str:
    style = f" {style}" if style else ""
    return f'<text x="{x:.1f}" y="{y:g}" text-anchor="{anchor}"{style}>{_text(cut(text))}</text>'


def arrows(boxes: Sequence[Box], layout: Layout) -> Iterator[list[Step]]:
    """The line of each arrow, from the lower edge of a box to the upper edge of one below it.

    It is straight beside boxes, and changes its place between two rows only. The steps are those of
    SVG: ("M", x, y) is where it begins, ("C", ...) a curve with the coordinates of its two control
    points and of its end, ("V", y) a vertical line down to y.
    """
    for number, box in enumerate(boxes):
        lines = layout.lines[number]
        apart = min(ASIDE / 2, box.width / (len(lines) + 1))
        # Arrows end side by side, in the order in which they arrive.
        order = sorted(range(len(lines)), key=lambda k: (lines[k][-2], k))
        for k, (parent, line) in enumerate(zip(box.parents, lines, strict=True)):
            end = line[-1] + apart * (order.index(k) - (len(lines) - 1) / 2)
            y = top_of(layout.rows[parent]) + BOX
            path: list[Step] = [("M", line[0], y)]
            for x, other in pairwise((*line[:-1], end)):
                down = y + GAP - HEAD
                if round(x, 1) != round(other, 1):
                    middle = (y + down) / 2
                    path.append(("C", x, middle, other, middle, other, down))
                y += GAP + BOX
                path.append(("V", y))
            path[-1] = "V", y - BOX
            yield path


def _lines(boxes: Sequence[Box], layout: Layout) -> Iterator[str]:
    """The arrows as SVG, with their heads."""
    for path in arrows(boxes, layout):
        written = []
        for letter, *numbers in path:
            written.append(letter + " ".join(
                f"{value:.1f}" if k % 2 == 0 and letter != "V" else f"{value:g}"
                for k, value in enumerate(numbers)))
        head = f"m-4 -{HEAD - 1}l4 {HEAD - 1}l4 -{HEAD - 1}"
        yield f'<path d="{"".join(written)}{head}"/>'


def _frames(net: Graph, layout: Layout, widths: Sequence[float]) -> Iterator[str]:
    """A tinted frame behind each part, if its rectangle contains no box of another one."""
    parts: dict[tuple[str, int], list[int]] = {}
    first = len(net.in_nodes)
    for number, node in enumerate(net.nodes, first):
        for depth in range(1, len(node.inside) + 1):
            name = ".".join(str(part.name) for part in node.inside[:depth])
            parts.setdefault((name, node.use), []).append(number)
    for (name, _), members in sorted(parts.items(), key=lambda item: item[0][0].count(".")):
        levels = max(other.removeprefix(name).count(".") for other, _ in parts
                     if f"{other}.".startswith(f"{name}."))
        around = min(FRAME * (1 + levels), GAP // 2)
        left = min(layout.centres[k] - widths[k] / 2 for k in members) - around
        right = max(layout.centres[k] + widths[k] / 2 for k in members) + around
        top, bottom = (edge(layout.rows[k] for k in members) for edge in (min, max))
        if all(k in members or not top <= layout.rows[k] <= bottom
               or layout.centres[k] + widths[k] / 2 < left
               or layout.centres[k] - widths[k] / 2 > right for k in range(len(widths))):
            y = top_of(top) - around
            yield (f'<rect x="{left:.1f}" y="{y}" width="{right - left:.1f}" '
                   f'height="{top_of(bottom) + BOX + around - y}" rx="{ROUND + around}">'
                   f"<title>{_text(name)}</title></rect>")


def top_of(row: int) -> int:
    """The upper edge of the boxes in a row."""
    return row * (BOX + GAP)


def _letters(text: str) -> int:
    """How wide a text is, in letters: Chinese characters, for example, take two."""
    return sum(2 if east_asian_width(letter) in "WF" else 1 for letter in cut(text))


def cut(text: str) -> str:
    """A text as long as a box shows it."""
    return text if len(text) <= LONGEST else text[:LONGEST - 1] + "\u2026"


def _text(text: str) -> str:
    """A text as XML."""
    return escape(FORBIDDEN.sub("\ufffd", text))
