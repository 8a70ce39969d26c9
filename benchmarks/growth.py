"""Tables of how the time of a training step grows with the batch and with the network's width."""

from __future__ import annotations

import math
from collections.abc import Sequence

from benchmarks.parts import WIDE_BATCH
from benchmarks.rows import Row, of_part
from benchmarks.table import Table

AXES = {"batch": lambda row: row["width"] == 1, "width": lambda row: row["batch"] == WIDE_BATCH}
GROWTH = ("the time of a training step divided by that of the first column, and the exponent a of "
          "time ~ batch^a or width^a that fits best; PyTorch is the faster of its two layouts in "
          "each column")


def growth_tables(rows: Sequence[Row]) -> list[Table]:
    """A table for each axis that was measured, with a line for each network and contender."""
    tables = [_table(of_part(rows, "growth"), axis) for axis in AXES]
    return [table for table in tables if len(table) > 1]


def _table(rows: Sequence[Row], axis: str) -> Table:
    lines: dict[tuple[str, str, str], dict[float, float]] = {}
    for row in filter(AXES[axis], rows):
        contender = "PyTorch" if row["contender"].startswith("torch") else row["contender"]
        line = lines.setdefault((row["net"], str(row["threads"]), contender), {})
        line[row[axis]] = min(row["seconds"], line.get(row[axis], math.inf))
    places = sorted({place for line in lines.values() for place in line})
    header = ["net", "threads", "contender", *(f"{axis} {place:g}" for place in places), "exponent"]
    table = [header]
    for names, line in sorted(lines.items()):
        factors = (_times(line[place] / line[min(line)]) if place in line else ""
                   for place in places)
        table.append([*names, *factors, exponent(line)])
    return table


def _times(factor: float) -> str:
    return f"{factor:.{2 if factor < 10 else 1 if factor < 100 else 0}f}"


def exponent(line: dict[float, float]) -> str:
    """The slope of log(time) over log(batch or width), by least squares; "" for a single point."""
    x, y = [math.log(place) for place in line], [math.log(seconds) for seconds in line.values()]
    mean_x, mean_y = sum(x) / len(x), sum(y) / len(y)
    squares = sum((a - mean_x)**2 for a in x)
    if not squares:
        return ""
    return f"{sum((a - mean_x) * (b - mean_y) for a, b in zip(x, y)) / squares:.2f}"
