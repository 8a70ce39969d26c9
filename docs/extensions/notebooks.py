"""Notebooks as pages. The repository has them without outputs, so they are run for the site."""

from __future__ import annotations

import base64
import json
import os
from pathlib import Path
from typing import Any

from docutils import nodes
from myst_parser.parsers.sphinx_ import MystParser
from sphinx.application import Sphinx

ROOT = Path(__file__).parents[2]
SECONDS = 600                           # that a cell may take


def executed(notebook: dict[str, Any], folder: Path) -> dict[str, Any]:
    """The notebook with the outputs of its cells, run in this folder. An error in a cell is one
    here."""
    import nbformat
    from nbclient import NotebookClient
    path = os.pathsep.join(filter(None, (str(ROOT), os.environ.get("PYTHONPATH"))))
    client = NotebookClient(nbformat.reads(json.dumps(notebook), as_version=4), timeout=SECONDS,
                            kernel_name="python3", resources={"metadata": {"path": str(folder)}},
                            extra_arguments=["--log-level=ERROR"])
    found: dict[str, Any] = client.execute(env={**os.environ, "PYTHONPATH": path})
    return found


def as_markdown(notebook: dict[str, Any]) -> str:
    """A notebook in the form of the other pages."""
    parts = []
    for cell in notebook["cells"]:
        text = "".join(cell["source"])
        parts.append(fenced("python", text) if cell["cell_type"] == "code" else text)
        parts += [output(shown) for shown in joined(cell.get("outputs", []))]
    return "\n\n".join(part for part in parts if part)


def joined(outputs: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """Outputs in which what was printed in several parts is one text."""
    found: list[dict[str, Any]] = []
    for shown in outputs:
        if shown.get("name") == "stderr":       # that kernels are compiled, for example
            continue
        if shown["output_type"] == "stream":
            text = "".join(shown["text"])
            if found and found[-1]["output_type"] == "stream":
                text = found.pop()["text"] + text
            shown = {"output_type": "stream", "text": text}
        found.append(shown)
    return found


def printed(text: str) -> str:
    """What a terminal shows at the end: a carriage return begins the line again."""
    lines = []
    for line in text.split("\n"):
        shown = ""
        for part in line.split("\r"):
            shown = part + shown[len(part):]
        lines.append(shown.rstrip())
    return "\n".join(lines)


def output(shown: dict[str, Any]) -> str:
    """What a cell printed, or a figure or a table that it showed."""
    if shown["output_type"] == "stream":
        return fenced("text", printed(shown["text"]))
    data = {kind: "".join(text) for kind, text in shown.get("data", {}).items()}
    if "image/png" in data:
        return image("image/png", data["image/png"].replace("\n", ""))
    if "image/svg+xml" in data:
        return image("image/svg+xml", base64.b64encode(data["image/svg+xml"].encode()).decode())
    if "text/html" in data:
        return fenced("{raw} html", f'<div class="output">{data["text/html"]}</div>')
    return fenced("text", data.get("text/plain", ""))


def image(kind: str, content: str) -> str:
    """As HTML: Markdown takes no SVG in an address."""
    return fenced("{raw} html", f'<img alt="What the cell above shows" '
                  f'src="data:{kind};base64,{content}">')


def fenced(language: str, text: str) -> str:
    return f"````{language}\n{text.rstrip()}\n````" if text.strip() else ""


class NotebookParser(MystParser):
    """Parses a notebook as the Markdown page that says the same."""

    supported = ("notebook",)

    def parse(self, inputstring: str, document: nodes.document) -> None:
        book = json.loads(inputstring)
        folder = Path(document.settings.env.doc2path(document.settings.env.docname)).parent
        super().parse(as_markdown(executed(book, folder)), document)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_source_suffix(".ipynb", "notebook")
    app.add_source_parser(NotebookParser)
    return {"parallel_read_safe": True}
