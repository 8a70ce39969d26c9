"""The documentation is right: its Python code runs, block after block, and prints what the page
shows.

A fence ```python is run, in order with the others of its file, in an empty folder. A fence
```output that follows contains exactly what the block before it prints. Links lead to files and
headings that exist.
"""

from __future__ import annotations

import re
from pathlib import Path

import numpy as np
import pytest
from pages import PAGES, ROOT, blocks, headings, name_of
from skips import NO_NUMBA
from tiers import full

# Of the pages in folders below docs, those that run in the first tier; the others are `full`.
FIRST = {"start/install.md", "course/01-images-as-arrays.md"}
# Pages of docs itself whose code takes seconds, and is similar to tests of the first tier: `full`.
LONG = {"pictures.md", "training.md", "functional.md", "data.md"}


def needs_numba(page: Path) -> bool:
    return any("xpnet.backends.numba" in code for _, code, _ in blocks(page))


def marks(page: Path) -> list[pytest.MarkDecorator]:
    below = page.parent.parent == ROOT / "docs"
    later = name_of(page) not in FIRST if below else name_of(page) in LONG
    return [NO_NUMBA] * needs_numba(page) + [full] * later


@pytest.mark.parametrize("page", [pytest.param(page, marks=marks(page), id=name_of(page))
                                  for page in PAGES if blocks(page)])
def test_pages(page, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    namespace = {"__name__": "__main__"}
    with np.printoptions():                         # a page may change them, for itself
        for line, code, printed in blocks(page):
            # With blank lines in front, errors name the line of the code on its page.
            exec(compile("\n" * (line - 1) + code, str(page), "exec", dont_inherit=True), namespace)
            out = capsys.readouterr().out
            assert printed is None or out == printed, f"{name_of(page)}, line {line}"


@pytest.mark.parametrize("page", [page for page in PAGES if blocks(page)], ids=name_of)
def test_code_on_pages_ends_at_100_columns(page):
    long = [row for _, code, _ in blocks(page) for row in code.splitlines() if len(row) > 100]
    assert long == []


def test_which_page_needs_numba():
    assert [name_of(page) for page in PAGES if needs_numba(page)] == ["cpu.md"]


def test_these_pages_exist_and_have_code():
    for name in ("networks.md", "training.md"):
        assert len(blocks(ROOT / "docs" / name)) > 5
    assert any(printed for _, _, printed in blocks(ROOT / "docs" / "networks.md"))


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_links_lead_to_files_and_headings_that_exist(page):
    text = page.read_text(encoding="utf-8")
    for link in re.findall(r"\]\(([^)\s]+)\)", text) + re.findall(r'src="([^"]+)"', text):
        if "://" in link:
            continue
        target, _, anchor = link.partition("#")
        file = page.parent / target if target else page
        assert file.exists(), f"{name_of(page)}: {link}"
        assert not anchor or anchor in headings(file), f"{name_of(page)}: {link}"


def test_anchors_are_those_of_github():
    assert "threads-and-the-same-bits" in headings(ROOT / "docs" / "cpu.md")


@pytest.mark.parametrize("page", PAGES, ids=name_of)
def test_fences_are_closed(page):
    text = page.read_text(encoding="utf-8")
    assert len(re.findall(r"^ *```", text, re.MULTILINE)) % 2 == 0
