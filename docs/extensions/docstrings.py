"""Docstrings are plain text with formulas: here they become reStructuredText that looks the same.

`*`, `|` and `_` are not markup, `code` is code or a link to a public name, indented blocks are
code, and a line that ends early is the end of a line in the site, too, so that each equation has
its own.
"""

from __future__ import annotations

import re
from typing import Any

from public import paths

SECTION = re.compile(r"(Args|Attributes|Raises|Returns|Yields|Example|Examples|Note):")
ITEM = re.compile(r"[-*] |\d+\. ")
FULL = 88               # a line that has room for the next word, up to here, was ended on purpose


def escaped(text: str) -> str:
    """A line of plain text as reStructuredText."""
    parts = re.split(r"(`[^`]+`)", text)
    return "".join(inline(part[1:-1]) if n % 2 else re.sub(r"([\\*|`]|_(?!\w))", r"\\\1", part)
                   for n, part in enumerate(parts))


def inline(code: str) -> str:
    """Code, with a link if it is a public name. `fit` alone is a method, not xpnet.training.fit."""
    public = paths().get(code.removeprefix("xn."))
    linked = public and ("." in code or code[0].isupper())
    return f":py:obj:`{code} <{public}>`" if linked else f"``{code}``"


def paragraph(lines: list[str]) -> list[str]:
    """A paragraph: its lines are joined where they are full, and stay lines where they are not."""
    if all(line.startswith("    ") for line in lines):
        return ["::", "", *lines]
    if ITEM.match(lines[0]):
        return [escaped(line) for line in lines]
    rows = [lines[0]]
    ended = False
    for before, line in zip(lines, lines[1:], strict=False):
        if line[0] == " " or len(before) + 1 + len(line.split()[0]) <= FULL:
            ended = True
            rows.append(line)
        else:
            rows[-1] += " " + line
    return [f"| {escaped(row)}" for row in rows] if ended else [escaped(row) for row in rows]


def converted(lines: list[str]) -> list[str]:
    """A docstring as reStructuredText; the sections are left to sphinx.ext.napoleon."""
    done: list[str] = []
    block: list[str] = []
    section = False
    for line in [*lines, ""]:
        if SECTION.fullmatch(line):
            section = True
        elif line and not line.startswith(" "):
            section = False
        if section:
            done.append(line if SECTION.fullmatch(line) else escaped(line))
        elif line.strip():
            block.append(line)
        elif block:             # the first paragraph is the summary, without lines of its own
            done += [*(paragraph(block) if done else [escaped(" ".join(block))]), ""]
            block = []
    return done


def without_sections(lines: list[str]) -> list[str]:
    """A docstring without its arguments and errors: what it computes."""
    kept: list[str] = []
    section = False
    for line in lines:
        section = bool(SECTION.fullmatch(line)) or section and (not line or line[0] == " ")
        if not section:
            kept.append(line)
    return kept


def process(app: Any, what: str, name: str, obj: Any, options: Any, lines: list[str]) -> None:
    lines[:] = converted(lines)


def setup(app: Any) -> dict[str, Any]:
    app.connect("autodoc-process-docstring", process, priority=100)     # napoleon has 500
    return {"parallel_read_safe": True}
