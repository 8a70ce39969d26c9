"""Rows as tables: aligned text for the terminal, Markdown for the documentation."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from benchmarks.rows import Row, of_part

Table = list[list[str]]     # the first line is the header

RATIO = ("the time divided by that of the faster PyTorch contender in the line; below 1 is faster "
         "than PyTorch")
MEMORY = ("MB that a step needs beyond the libraries; in brackets the ratio to the PyTorch "
          "contender in the line that needs less")
CONVOLUTION = ("multiplications and additions of the direct algorithm per second, in percent of "
               "the machine's peak; Winograd's algorithm needs fewer and can exceed it")


def step_table(rows: Sequence[Row], *, times: bool = True) -> Table:
    """A line for each network, batch, mode and threads; for each contender milliseconds, and the
    ratio in brackets.

    Without `times`, only the ratios, which are comparable between machines.
    """
    def text(row: Row) -> str:
        ratio = "" if row["ratio"] is None else f"{row['ratio']:.2f}"
        return f"{milliseconds(row['seconds'])}{ratio and f' ({ratio})'}" if times else ratio
    return by_contender(of_part(rows, "steps"), ("net", "batch", "mode", "threads"), text)


def memory_table(rows: Sequence[Row]) -> Table:
    """The same lines: megabytes, and the ratio in brackets; no lines if the system does not report
    memory."""
    def text(row: Row) -> str:
        ratio = "" if row["memory_ratio"] is None else f" ({row['memory_ratio']:.2f})"
        return f"{row['memory'] / 1e6:.1f}{ratio}"
    known = [row for row in of_part(rows, "steps") if row["memory"] is not None]
    return by_contender(known, ("net", "batch", "mode", "threads"), text)


def convolution_table(rows: Sequence[Row], *, rates: bool = True) -> Table:
    """A line for each convolution, batch and threads; for each contender and direction GFLOP/s, and
    percent of the peak in brackets.

    Without `rates`, only the percent.
    """
    def text(row: Row) -> str:
        percent = "" if row["of_peak"] is None else f"{100 * row['of_peak']:.0f} %"
        return (f"{row['flops_per_second'] / 1e9:.3g}{percent and f' ({percent})'}" if rates
                else percent)
    named = [row | {"contender": f"{row['contender']} {row['direction']}"}
             for row in of_part(rows, "convolutions")]
    return by_contender(named, ("convolution", "batch", "threads"), text)


def by_contender(rows: Sequence[Row], names: Sequence[str], text: Callable[[Row], str]) -> Table:
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
    """Milliseconds with about three significant digits: 0.012, 1.23, 12.3, 1230."""
    value = float(f"{1000 * seconds:.3g}")
    digits = 0 if value >= 100 else 1 if value >= 10 else 2 if value >= 1 else 3
    return f"{value:.{digits}f}"


def as_text(table: Table) -> str:
    widths = [max(len(line[i]) for line in table) for i in range(len(table[0]))]
    return "\n".join("  ".join(text.ljust(width) for text, width in zip(line, widths)).rstrip()
                     for line in table)


def as_markdown(table: Table) -> str:
    header, *body = (f"| {' | '.join(line)} |" for line in table)
    return "\n".join([header, "|" + "---|" * len(table[0]), *body])


def between_markers(document: str, name: str, content: str, file: str) -> str:
    """The document with `content` between the two markers of this name."""
    begin, end = f"<!-- benchmarks {name}: begin -->", f"<!-- benchmarks {name}: end -->"
    if (document.count(begin) != 1 or document.count(end) != 1
        or document.index(begin) > document.index(end)):
        raise ValueError(f"--markdown: expected one line '{begin}' and after it one '{end}'. "
                         f"Received: {file} without them.")
    before, rest = document.split(begin)
    return f"{before}{begin}\n\n{content}\n\n{end}{rest.split(end)[1]}"
