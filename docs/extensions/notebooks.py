"""Notebooks as pages: the cells and the outputs that are stored in the file. Nothing is run."""

from __future__ import annotations

import json
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook in the form of the other pages."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(fenced("python", text) if cell["cell_type"] == "code" else text)
        parts += [output(shown) for shown in cell.get("outputs", [])]
    return "\n\n".join(part for part in parts if part)


def output(shown: dict[str, Any]) -> str:
    """What a cell printed, or an image that it showed."""
    if shown["output_type"] == "stream":
        return fenced("text", "".join(shown["text"]))
    data = shown.get("data", {})
    if "image/png" in data:
        png = "".join(data["image/png"]).replace("\n", "")
        return f"![](data:image/png;base64,{png})"
    return fenced("text", "".join(data.get("text/plain", "")))


def fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````" if text.strip() else ""


class NotebookParser(MystParser):
    """Parses a notebook as the Markdown page that says the same."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        super().parse(as_markdown(json.loads(inputstring)), document)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
