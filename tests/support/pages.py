"""The Markdown pages of the repository, the Python code on them, and their tables."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
PAGES = sorted(
    [*(ROOT / "docs").rglob("*.md"), *ROOT.glob("*.md"), *(ROOT / ".github").glob("*.md")])
FENCE = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def name_of(page: Path) -> str:
    """Its path in the repository, without the folder docs."""
    return page.relative_to(ROOT).as_posix().removeprefix("docs/")


def blocks(page: Path) -> list[tuple[int, str, str | None]]:
    """(line, code, what it prints or None) for each Python block of a page."""
    text = page.read_text(encoding="utf-8")
    found: list[tuple[int, str, str | None]] = []
    for match in FENCE.finditer(text):
        kind, content = match.groups()
        if kind == "python":
            found.append((text.count("\n", 0, match.start()) + 2, content, None))
        elif kind == "output":
            line, code, _ = found.pop()
            found.append((line, code, content))
    return found


def headings(page: Path) -> set[str]:
    """The anchors of a page's headings, as GitHub makes them."""
    text = re.sub(r"^```.*?^```$", "", page.read_text(encoding="utf-8"),
                  flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.+)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


def rows(page: Path, heading: str) -> list[list[str]]:
    """The rows of the first table below a heading; of a cell that has code, its first code."""
    text = page.read_text(encoding="utf-8")
    section = text.partition(f"\n## {heading}\n")[2].partition("\n## ")[0]
    lines = [line for line in section.splitlines() if line.startswith("| ")]
    assert len(lines) > 3, f"expected a table below {heading!r}"
    return [[code_or_text(cell) for cell in line.strip("| ").split(" | ")] for line in lines[1:]]


def code_or_text(cell: str) -> str:
    code = re.search("`(.*?)`", cell)
    return code[1] if code else cell.strip()


def sizes(cell: str) -> tuple[int, ...]:
    """(4, 10) for "4 x 10"."""
    return tuple(map(int, re.findall(r"\d+", cell)))
