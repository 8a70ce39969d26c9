"""How the site reads docstrings and notebooks. `make docs` makes all of it, and fails on warnings;
these tests are for what it cannot notice."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from tiers import full

pytest.importorskip("myst_parser", reason='pip install ".[docs]" is not done')
EXTENSIONS = str(Path(__file__).parents[2] / "docs" / "extensions")


@pytest.fixture(autouse=True)
def extensions(monkeypatch):
    monkeypatch.syspath_prepend(EXTENSIONS)
    yield
    for name in [name for name, module in list(sys.modules.items())
                 if str(getattr(module, "__file__", "")).startswith(EXTENSIONS)]:
        del sys.modules[name]


def converted(text):
    from docstrings import converted
    return "\n".join(converted(text.splitlines())).strip()


@full
def test_formulas_in_docstrings_are_no_markup():
    assert converted("Y = |X| * w_i ** 2, W_ A\\B") == "Y = \\|X\\| \\* w_i \\*\\* 2, W\\_ A\\\\B"


@full
def test_each_equation_has_its_line_and_prose_is_joined():
    long = "word " * 17                         # full: the next word has no room
    text = f"Summary.\n\ndX = dY,\ndb = sum of dY.\n\n{long}\nand more."
    assert converted(text) == f"Summary.\n\n| dX = dY,\n| db = sum of dY.\n\n{long} and more."


@full
def test_code_in_docstrings_is_code():
    assert converted("A.\n\n    x = y * 2") == "A.\n\n::\n\n    x = y * 2"


@full
def test_names_in_backticks_are_links_if_they_are_public():
    assert converted("`Conv2d`, `xn.data.digits`, `fit` and `no`.") == (
        ":py:obj:`Conv2d <xpnet.Conv2d>`, :py:obj:`xn.data.digits <xpnet.data.digits>`, ``fit`` "
        "and ``no``.")


@full
def test_arguments_are_left_to_napoleon():
    text = "A.\n\nArgs:\n    x_: of a * b.\n\nAfter."
    assert converted(text) == "A.\n\nArgs:\n    x\\_: of a \\* b.\n\nAfter."


@full
def test_a_notebook_is_a_page_with_its_outputs():
    from notebooks import as_markdown
    cells = [{"cell_type": "markdown", "source": ["# Title\n", "Text."]},
             {"cell_type": "code", "source": ["print(1)"], "outputs": [
                 {"output_type": "stream", "name": "stdout", "text": ["1\n", "\r 5%|"]},
                 {"output_type": "stream", "name": "stderr", "text": ["compiling\n"]},
                 {"output_type": "stream", "name": "stdout", "text": ["\r10%|##\r       \r2 3\n"]},
                 {"output_type": "display_data", "data": {"image/png": "ab\ncd", "text/plain": ""}},
                 {"output_type": "display_data", "data": {"image/svg+xml": "<svg/>"}},
                 {"output_type": "execute_result", "data": {"text/html": "<p>", "text/plain": ""}},
                 {"output_type": "execute_result", "data": {"text/plain": ["2"]}}]}]
    image = '````{raw} html\n<img alt="What the cell above shows" src="data:image/'
    assert as_markdown({"cells": cells}) == (
        "# Title\nText.\n\n````python\nprint(1)\n````\n\n````text\n1\n2 3\n````\n\n"
        f'{image}png;base64,abcd">\n````\n\n{image}svg+xml;base64,PHN2Zy8+">\n````\n\n'
        '````{raw} html\n<div class="output"><p></div>\n````\n\n````text\n2\n````')


@full
def test_the_site_runs_its_notebooks(tmp_path):
    """A notebook as in docs/notebooks, with a figure and a table, in the folder of its file."""
    for package in "nbclient", "nbformat", "ipykernel":
        pytest.importorskip(package)
    from notebooks import as_markdown, executed
    source = ("import pathlib, matplotlib.figure\nimport xpnet as xn\n"
              "print(pathlib.Path.cwd())\nfigure = xn.viz.show_images([[[[0.0, 1.0]]]])\nfigure")
    book = {"cells": [{"cell_type": "code", "id": "a", "source": source, "metadata": {},
                       "outputs": [], "execution_count": None}],
            "metadata": {}, "nbformat": 4, "nbformat_minor": 5}
    page = as_markdown(executed(book, tmp_path))
    assert f"````text\n{tmp_path.resolve()}\n````" in page and "data:image/png;base64,iVBOR" in page
    book["cells"][0]["source"] = "1 / 0"
    with pytest.raises(Exception, match="ZeroDivisionError"):
        executed(book, tmp_path)
