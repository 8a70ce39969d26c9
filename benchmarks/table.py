"""Rows as tables: aligned text for the terminal, Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

Row = dict[str, Any]
Table = list[list[str]]     # the first line is the header


RATIO = "the ratio to the faster PyTorch of the line, below 1 is faster than PyTorch."


def step_table(rows: Sequence[Row], *, times: bool = True) -> Table:
    """A line for each net, batch and mode; a column for each contender: milliseconds, and the ratio in brackets.

    Without `times` the ratios alone, which is what others can compare with on another machine.
    """
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    lines: dict[tuple[Any, ...], dict[str, str]] = {}
    for row in rows:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        line = lines.setdefault((row["net"], row["batch"], row["mode"]), {})
        line[row["contender"]] = f"{milliseconds(row['seconds'])}{ratio and f' ({ratio})'}" if times else ratio
    body = [[str(name) for name in cell] + [line.get(contender, "") for contender in contenders]
            for cell, line in lines.items()]
    return [["net", "batch", "mode", *contenders], *body]


def bandwidth_table(rows: Sequence[Row]) -> Table:
    """A line for each kernel and size."""
    body = [[row["kernel"], " x ".join(map(str, row["shape"])), f"{row['bytes'] / 1e6:.1f}", f"{1e6 * row['seconds']:.1f}",
             f"{row['bytes_per_second'] / 1e9:.0f}", f"{row['copy_bytes_per_second'] / 1e9:.0f}", f"{row['of_copy']:.2f}"]
            for row in rows]
    return [["kernel", "x (C, H, W, N)", "MB moved", "us", "GB/s", "copy GB/s", "of the copy"], *body]


def milliseconds(seconds: float) -> str:
    """Three digits that count: 0.0123, 1.23, 123, 1230."""
    value = float(f"{1000 * seconds:.3g}")
    return f"{value:.0f}" if value >= 100 else f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}"


def as_text(table: Table) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip() for line in table)


def as_markdown(table: Table) -> str:
    header, *body = (f"| {' | '.join(line)} |" for line in table)
    return "\n".join([header, "|" + "---|" * len(table[0]), *body])


def between_markers(document: str, name: str, content: str, file: str) -> str:
    """The document with `content` in place of what stands between the two markers of that name."""
    begin, end = f"<!-- benchmarks {name}: begin -->", f"<!-- benchmarks {name}: end -->"
    if document.count(begin) != 1 or document.count(end) != 1 or document.index(begin) > document.index(end):
        raise ValueError(f"--markdown: expected one line '{begin}' and after it one '{end}'. Received: {file} without them.")
    before, rest = document.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
