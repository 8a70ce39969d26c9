"""Formulas become MathML when the site is built. Every browser draws it, without a script; the font
is copied into the site."""

from __future__ import annotations

import shutil
from importlib.resources import as_file, files
from pathlib import Path
from typing import Any

from docutils import nodes
from math_core import LatexError, LatexToMathML
from sphinx.application import Sphinx
from sphinx.util import logging

LOG = logging.getLogger(__name__)
CONVERTER = LatexToMathML(fancy_error=False)


def mathml(node: nodes.Element, displaystyle: bool) -> str:
    """The formula of a node; one that cannot be converted is a warning, and shown as it is."""
    latex = node.astext()
    try:
        return CONVERTER.convert_with_local_state(latex, displaystyle=displaystyle)
    except LatexError as error:
        LOG.warning("formula %r: %s", latex, error, location=node)
        return f"<code>{nodes.Text(latex)}</code>"


def visit_math(self: Any, node: nodes.math) -> None:
    self.body.append(mathml(node, displaystyle=False))
    raise nodes.SkipNode


def visit_displaymath(self: Any, node: nodes.math_block) -> None:
    self.body.append(f'<div class="math">{mathml(node, displaystyle=True)}</div>')
    raise nodes.SkipNode


def copy_font(app: Sphinx, error: Exception | None) -> None:
    """STIX Two Math, which is part of the package ziamath. Few systems have a font for formulas."""
    with as_file(files("ziamath") / "fonts" / "STIXTwoMath-Regular.ttf") as font:
        shutil.copy(font, Path(app.outdir, "_static"))


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_html_math_renderer("mathml", (visit_math, None), (visit_displaymath, None))
    app.connect("build-finished", copy_font)
    app.config.html_math_renderer = "mathml"
    return {"parallel_read_safe": True}
