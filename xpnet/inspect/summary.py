"""The table of a network's layers: output, parameters, multiply-adds, receptive field."""

from __future__ import annotations

import math
from dataclasses import dataclass
from fractions import Fraction

from xpnet.backends.window import POINTS
from xpnet.graph import Graph
from xpnet.layer import Layer
from xpnet.node import Node, layer_of
from xpnet.tables import html_table
from xpnet.tables import table as columns

HEAD = "layer", "type", "output", "parameters", "multiply-adds", "receptive field"


@dataclass(frozen=True)
class Row:
    """One layer's line.

    `receptive_field`: rows and columns of the input that one output element depends on, one row of
    a signal; None if it depends on all of them (after Flatten or Linear).
    """

    name: str
    kind: str
    inputs: tuple[str, ...]
    shape: tuple[int, ...]
    parameters: int
    multiply_adds: int
    receptive_field: tuple[int, int] | None
    activation_bytes: int       # of the output for one sample


def rows(net: Graph) -> list[Row]:
    """A Row for each layer, in the order of computation."""
    # (field, jump) per axis: a layer adds (extent - 1) * jump to field and multiplies jump by its
    # stride (Araujo et al. 2019, eq. 2).
    point = Fraction(1), Fraction(1)
    fields: dict[Node, list[tuple[Fraction, Fraction]] | None] = {
        node: [point] * 2 if len(node.shape) > 1 else None for node in net.in_nodes}
    table, counted = [], set[Layer]()
    for node in net.nodes:
        layer = layer_of(node)
        below = [fields[parent] for parent in node.parents]
        fields[node] = None
        if (all(below) and not layer.sees_all
                and (len(node.shape) > 1 or layer.seen_window is not None)):
            axes = [[field[axis] for field in below if field is not None] for axis in (0, 1)]
            widest = [(max(field for field, _ in axis), max(jump for _, jump in axis))
                      for axis in axes]
            window = layer.seen_window or POINTS
            fields[node] = [(field + (extent - 1) * jump, jump * stride / Fraction(upsampling))
                            for (field, jump), extent, stride, upsampling
                            in zip(widest, window.extent, window.stride, layer.upsampling,
                                   strict=True)]
        field = fields[node]
        table.append(Row(
            name=node.name, kind=type(layer).__name__, shape=node.shape,
            inputs=tuple(parent.name for parent in node.parents),
            # The parameters of a shared layer count at its first use.
            parameters=0 if layer in counted else sum(p.size for p in layer.parameters),
            multiply_adds=layer.multiply_adds(),
            receptive_field=(math.ceil(field[0][0]), math.ceil(field[1][0])) if field else None,
            activation_bytes=math.prod(node.shape) * net.dtype.itemsize))
        counted.add(layer)
    return table


@dataclass(frozen=True, repr=False)
class Summary:
    """The table of a network's layers, with totals. Print it; a notebook shows it as a table.

    Attributes:
        rows: the layers, in the order of computation.
        lines: the cells of the table, with a line for each input.
        totals: the lines below the table.
    """

    rows: tuple[Row, ...]
    lines: tuple[tuple[str, ...], ...]
    totals: tuple[str, ...]

    def __repr__(self) -> str:
        text = columns(HEAD, self.lines, left=3)
        return "\n".join([*text, text[1], *self.totals])

    def _repr_html_(self) -> str:
        return html_table(HEAD, self.lines, left=3, below=self.totals)


def summary(net: Graph) -> Summary:
    """The table of a network's layers."""
    table = rows(net)
    lines = [(node.name, "", _shape(node.shape), "", "", "") for node in net.in_nodes]
    for row in table:
        field = "x".join(map(str, row.receptive_field)) if row.receptive_field else "all"
        lines.append((row.name, row.kind, _shape(row.shape), f"{row.parameters:,}",
                      f"{row.multiply_adds:,}", field))
    trained = sum(p.size for layer in net.layers if layer.trainable for p in layer.parameters)
    return Summary(tuple(table), tuple(lines), (
        f"parameters: {sum(row.parameters for row in table):,} ({trained:,} trainable), state: "
        f"{sum(p.size for layer in net.layers for p in layer.states):,}",
        f"multiply-adds per sample: {sum(row.multiply_adds for row in table):,}",
        f"activations per sample: {readable_bytes(sum(row.activation_bytes for row in table))} "
        f"({net.dtype})",
        f"backend: {net.backend.name}" + (f" ({net.backend.note})" if net.backend.note else "")))


def _shape(shape: tuple[int, ...]) -> str:
    return " x ".join(map(str, shape))


def readable_bytes(size: float) -> str:
    for unit in ("B", "KiB", "MiB"):
        if size < 1024:
            return f"{size:.4g} {unit}"
        size /= 1024
    return f"{size:.4g} GiB"
