"""The notebooks are valid, hold no outputs, and run from the first cell to the last."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from pages import ROOT, headings
from skips import NO_NUMBA
from tiers import full

NOTEBOOKS = sorted((ROOT / "docs" / "notebooks").glob("*.ipynb"))
by_notebook = pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)


@by_notebook
def test_notebooks_are_stored_without_outputs(path: Path):
    """Version 4.5, in which each cell has an id."""
    book = json.loads(path.read_text(encoding="utf-8"))
    assert (book["nbformat"], book["nbformat_minor"]) == (4, 5)
    ids = [cell["id"] for cell in book["cells"]]
    assert len(ids) == len({*ids}) and all(re.fullmatch(r"[\w-]{1,64}", name) for name in ids)
    for cell in book["cells"]:
        assert cell["cell_type"] in ("code", "markdown") and cell["source"]
        assert cell["cell_type"] == "markdown" or (
            cell["outputs"] == [] and cell["execution_count"] is None)
        assert all(len(line.rstrip("\n")) <= 100 for line in cell["source"])


@by_notebook
def test_links_of_notebooks(path: Path):
    for cell in json.loads(path.read_text(encoding="utf-8"))["cells"]:
        for link in re.findall(r"\]\(([^)\s]+)\)", "".join(cell["source"])):
            target, _, anchor = link.partition("#")
            file = path.parent / target
            assert file.exists(), link
            assert not anchor or anchor in headings(file), link


@full
@NO_NUMBA                       # with NumPy alone they take minutes
@by_notebook
def test_notebooks_run(path: Path, monkeypatch: pytest.MonkeyPatch):
    """No cell raises an error or writes to stderr, and the figures are there."""
    nbclient = pytest.importorskip("nbclient", reason='nbclient is not installed: pip install '
                                                      '"xpnet[dev]"')
    import nbformat
    monkeypatch.setenv("XPNET_NUM_THREADS", "1")        # the tests use all cores
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    monkeypatch.setenv("PYDEVD_DISABLE_FILE_VALIDATION", "1")
    book = nbformat.read(path, as_version=4)
    nbformat.validate(book)
    nbclient.NotebookClient(book, timeout=300, kernel_name="python3",
                            resources={"metadata": {"path": str(path.parent)}}).execute()
    outputs = [output for cell in book.cells for output in cell.get("outputs", [])]
    errors = [output.text for output in outputs if output.get("name") == "stderr"
              and not output.text.startswith("xpnet: compiling")]
    assert errors == []
    assert sum("image/png" in output.get("data", {}) for output in outputs) >= 3
