"""Rows as tables: aligned text for the terminal, Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.rows import Row, of_part

Table = list[list[str]]     # the first line is the header

RATIO = "the ratio to the faster PyTorch of the line, below 1 is faster than PyTorch"
MEMORY = ("MB that a step needs beyond the libraries; in brackets the ratio to the PyTorch of the "
          "line that needs less")
CONVOLUTION = ("the direct algorithm's multiplications and additions per second in percent of the "
               "peak; Winograd does with fewer and may exceed it")


def step_table(rows: Sequence[Row], *, times: bool = True) -> Table:
    """A line for each network, batch, mode and threads; a column for each contender: milliseconds,
    the ratio in brackets.

    Without `times` the ratios alone, which is what others can compare with on another machine.
    """
    def text(row: Row) -> str:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        return f"{milliseconds(row['seconds'])}{ratio and f' ({ratio})'}" if times else ratio
    return _by_contender(of_part(rows, "steps"), ("net", "batch", "mode", "threads"), text)


def memory_table(rows: Sequence[Row]) -> Table:
    """The same lines: megabytes, the ratio in brackets. No line where the system does not tell."""
    def text(row: Row) -> str:
        ratio = "" if row["memory_ratio"] is None else f" ({row['memory_ratio']:.2f})"
        return f"{row['memory'] / 1e6:.1f}{ratio}"
    told = [row for row in of_part(rows, "steps") if row["memory"] is not None]
    return _by_contender(told, ("net", "batch", "mode", "threads"), text)


def convolution_table(rows: Sequence[Row], *, rates: bool = True) -> Table:
    """A line for each convolution, batch and threads; for each contender its three directions:
    GFLOP/s, and percent of the peak.

    Without `rates` the percent alone.
    """
    def text(row: Row) -> str:
        percent = "" if row["of_peak"] is None else f"{100 * row['of_peak']:.0f} %"
        return (f"{row['flops_per_second'] / 1e9:.3g}{percent and f' ({percent})'}" if rates
                else percent)
    named = [row | {"contender": f"{row['contender']} {row['direction']}"}
             for row in of_part(rows, "convolutions")]
    return _by_contender(named, ("convolution", "batch", "threads"), text)


def _by_contender(rows: Sequence[Row], names: Sequence[str], text: Callable[[Row], str]) -> Table:
    """A line for each combination of `names`, in the order in which they come; a column for each
    contender."""
    contenders = list(dict.fromkeys(row["contender"] for row in rows))
    lines: dict[tuple[str, ...], dict[str, str]] = {}
    for row in rows:
        lines.setdefault(tuple(str(row[name]) for name in names), {})[row["contender"]] = text(row)
    return [[*names, *contenders],
            *([*line, *(texts.get(contender, "") for contender in contenders)]
                                     for line, texts in lines.items())]


def milliseconds(seconds: float) -> str:
    """Three digits that count: 0.0123, 1.23, 123, 1230."""
    value = float(f"{1000 * seconds:.3g}")
    return (f"{value:.0f}" if value >= 100
            else f"{value:.{1 if value >= 10 else 2 if value >= 1 else 3}f}")


def as_text(table: Table) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip()
                     for line in table)


def as_markdown(table: Table) -> str:
    header, *body = (f"| {' | '.join(line)} |" for line in table)
    return "\n".join([header, "|" + "---|" * len(table[0]), *body])


def between_markers(document: str, name: str, content: str, file: str) -> str:
    """The document with `content` in place of what stands between the two markers of that name."""
    begin, end = f"<!-- benchmarks {name}: begin -->", f"<!-- benchmarks {name}: end -->"
    if (document.count(begin) != 1 or document.count(end) != 1
        or document.index(begin) > document.index(end)):
        raise ValueError(f"--markdown: expected one line '{begin}' and after it one '{end}'. "
                         f"Received: {file} without them.")
    before, rest = document.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
