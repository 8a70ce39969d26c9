"""Tables as text and as HTML."""

from __future__ import annotations

from collections.abc import Sequence
from html import escape


def table(head: Sequence[str], lines: Sequence[Sequence[str]], left: int) -> list[str]:
    """The lines of a text table: the head, a rule, and a line for each row.

    The first `left` columns are aligned to the left, the others, which are numbers, to the right.
    """
    widths = [max(len(line[i]) for line in [head, *lines]) for i in range(len(head))]
    text = ["  ".join(cell.ljust(width) if i < left else cell.rjust(width)
                      for i, (cell, width) in enumerate(zip(line, widths, strict=True))).rstrip()
            for line in [head, *lines]]
    return [text[0], "-" * max(map(len, text)), *text[1:]]


def html_table(head: Sequence[str], lines: Sequence[Sequence[str]], left: int,
               below: Sequence[str] = ()) -> str:
    """The same table for notebooks, with some lines of text below."""
    def row(cells: Sequence[str], tag: str) -> str:
        return "<tr>" + "".join(
            f'<{tag} style="text-align: {"left" if i < left else "right"}">{escape(cell)}</{tag}>'
            for i, cell in enumerate(cells)) + "</tr>"

    return ("<table><thead>" + row(head, "th") + "</thead><tbody>"
            + "".join(row(line, "td") for line in lines) + "</tbody></table>"
            + "".join(f"<div>{escape(text)}</div>" for text in below))
