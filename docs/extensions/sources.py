"""Links to files of the repository lead to pages of the site that show these files.

The Markdown pages link to sources by relative paths, as a code host expects it:
`../xpnet/layers/linear.py`. The [source] links of the reference lead to the same pages.
"""

from __future__ import annotations

import inspect
import sys
from html import escape
from pathlib import Path
from typing import Any

from docutils import nodes
from public import paths, public
from pygments import highlight
from pygments.formatters import HtmlFormatter
from pygments.lexers import get_lexer_for_filename
from pygments.lexers.special import TextLexer
from pygments.util import ClassNotFound
from sphinx import addnodes
from sphinx.application import Sphinx
from sphinx.transforms import SphinxTransform
from sphinx.util.osutil import relative_uri

ROOT = Path(__file__).parents[2]


def page_of(env: Any, path: Path) -> str:
    """The name of the page that shows a file or a folder."""
    shown(env).add(path)
    return f"source/{path.relative_to(ROOT).as_posix()}"


def shown(env: Any) -> set[Path]:
    """The files and folders that pages of this build link to; builds start afresh."""
    if not hasattr(env, "shown_files"):
        env.shown_files = set()
    return env.shown_files


def merge(app: Sphinx, env: Any, docnames: list[str], other: Any) -> None:
    """Sphinx reads the pages in several processes."""
    shown(env).update(shown(other))


class LinksToFiles(SphinxTransform):
    """Replaces links to files and folders outside docs/ by links to the pages that show them, and
    links of public names to their files by links to the reference."""

    default_priority = 500

    def apply(self, **kwargs: Any) -> None:
        page = Path(self.env.doc2path(self.env.docname))
        for link in [*self.document.findall(addnodes.download_reference),
                     *self.document.findall(addnodes.pending_xref)]:
            path = page.parent / link["reftarget"]
            if link.get("refdomain") == "doc":      # MyST has taken .md from the name
                if link["reftarget"] in self.env.found_docs:
                    continue
                path = Path(self.env.srcdir, f"{link['reftarget']}.md")
            elif link.get("refdomain"):             # a name of the reference
                continue
            path = path.resolve()
            name = paths().get(link.astext())
            if name and path == file_of(public()[name]):    # `Conv2d`, with a link to its file
                link.replace_self(addnodes.pending_xref(
                    "", *link.children, refdomain="py", reftype="obj", reftarget=name,
                    refdoc=self.env.docname, refexplicit=True))
            elif path.exists() and path.is_relative_to(ROOT):
                uri = self.app.builder.get_target_uri
                link.replace_self(nodes.reference(
                    "", "", *link.children, internal=True,
                    refuri=relative_uri(uri(self.env.docname), uri(page_of(self.env, path)))))


def file_of(what: Any) -> Path | None:
    """The file in which a class or a function is defined; None of a constant."""
    try:
        return Path(inspect.getfile(inspect.unwrap(what))).resolve()
    except TypeError:
        return None


def link_to_code(env: Any, info: dict[str, str]) -> str | None:
    """The page and the line of an object of the reference, for sphinx.ext.linkcode."""
    found: Any = sys.modules.get(info["module"])
    for name in info["fullname"].split("."):
        found = getattr(found, name, None)
    found = inspect.unwrap(found.fget if isinstance(found, property) else found)
    path = file_of(found)
    if path is None or not path.is_relative_to(ROOT):
        return None
    try:
        return f"../{page_of(env, path)}.html#L-{inspect.getsourcelines(found)[1]}"
    except OSError:                     # of a NamedTuple, for example
        return None


PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8"><title>{name}</title>
<meta name="viewport" content="width=device-width">
<style>
body {{ margin: 1.5em; font: 16px sans-serif; color-scheme: light dark; }}
pre, td {{ line-height: 1.4; font-size: 14px; }}
a {{ color: #2757dd; }}
.linenos a {{ color: gray; text-decoration: none; }}
{light}
@media (prefers-color-scheme: dark) {{ body {{ background: #131416; color: #ced6dd; }}
a {{ color: #5ca5ff; }}
{dark} }}
</style></head>
<body><p><a href="{root}index.html">xpnet</a></p><h1>{name}</h1>{body}</body></html>
"""


def write_pages(app: Sphinx, error: Exception | None) -> None:
    """Write a page for each file and folder that a page links to. They are not part of the search
    and of the contents, so they are made without the theme, which is much faster."""
    light, dark = (HtmlFormatter(style=style, lineanchors="L", anchorlinenos=True, linenos="table")
                   for style in (app.config.pygments_style, app.config.pygments_dark_style))
    linked = shown(app.env)
    for path in sorted(linked):
        name, page = path.relative_to(ROOT).as_posix(), page_of(app.env, path)
        file = Path(app.outdir, f"{page}.html")
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(PAGE.format(
            name=escape(name), root="../" * page.count("/"),
            light=light.get_style_defs(".highlight"), dark=dark.get_style_defs(".highlight"),
            body=listing(path, linked) if path.is_dir() else code(path, light)), encoding="utf-8")


def listing(folder: Path, linked: set[Path]) -> str:
    """The files of a folder; those that are shown on a page of the site are links."""
    rows = []
    for path in sorted(folder.iterdir()):
        if path.name[0] in "._" and path.name != "__init__.py":
            continue
        name = escape(path.name) + "/" * path.is_dir()
        rows.append(f'<li><a href="{escape(folder.name)}/{escape(path.name)}.html">{name}</a></li>'
                    if path in linked else f"<li>{name}</li>")
    return f"<ul>{''.join(rows)}</ul>"


def code(path: Path, style: HtmlFormatter) -> str:
    try:
        lexer = get_lexer_for_filename(path.name)
    except ClassNotFound:
        lexer = TextLexer()
    return highlight(path.read_text(encoding="utf-8"), lexer, style)


def setup(app: Sphinx) -> dict[str, Any]:
    app.add_lexer("output", TextLexer)      # the fences of docs/*.md with what a program prints
    app.add_transform(LinksToFiles)
    app.connect("build-finished", write_pages)
    app.setup_extension("sphinx.ext.linkcode")
    app.config.linkcode_resolve = lambda domain, info: link_to_code(app.env, info)
    app.connect("env-merge-info", merge)
    return {"parallel_read_safe": True}
