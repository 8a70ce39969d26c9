"""The API reference: a page for each subject, with every public name, made when the site is built.

A page begins with a table of its names. Their entries come from the docstrings, by autodoc.
"""

from __future__ import annotations

import inspect
import shutil
from pathlib import Path
from typing import Any

from docstrings import escaped
from public import CONSTANTS, PAGES, names_of, paths, public

# Methods of subclasses of BASES that users call; the others are called by the base class.
BASES = ("Layer", "Loss", "Optimizer", "Schedule", "Augmentation", "Callback")
METHODS = {"xpnet.Whitening": "fit", "xpnet.DeconvolutionalNetwork2d": "learn, infer, reconstruct, "
                                                                       "cost"}


def entry(path: str) -> str:
    """The directive of autodoc for a public name."""
    what = public()[path]
    if path in CONSTANTS:
        module, _, name = path.rpartition(".")
        return (f".. py:data:: {name}\n   :module: {module}\n\n"
                f"   {CONSTANTS[path][1].replace('`', '``')}\n")
    if not inspect.isclass(what):
        return f".. autofunction:: {path}\n"
    bases = [base for base in what.__mro__[1:] if base in public().values()]
    if any(base.__name__ in BASES for base in bases):
        members = METHODS.get(path, "")
        return f".. autoclass:: {path}\n" + f"   :members: {members}\n" * bool(members)
    # Members of bases that have no entry of their own are shown here.
    others = {base.__name__ for base in what.__mro__[1:]
              if base in bases or base.__module__ == "builtins"}
    kind = "autoexception" if issubclass(what, BaseException) else "autoclass"
    return (f".. {kind}:: {path}\n   :members:\n   :special-members: __call__\n"
            f"   :inherited-members: {', '.join(sorted(others))}\n")


def text(page: str) -> str:
    """A page: a table of its names, then the entry of each."""
    title, _ = PAGES[page]
    names = names_of(page)
    rows = [f"   * - :py:obj:`~{path}`\n     - {summary(path)}" for path in names]
    head = [title, "=" * len(title), "", ".. list-table::", "   :widths: 1 3", ""]
    return "\n".join([*head, *rows, "", *map(entry, names)])


def summary(path: str) -> str:
    """The first paragraph of the docstring."""
    what = CONSTANTS[path][1] if path in CONSTANTS else inspect.getdoc(public()[path]) or ""
    return escaped(" ".join(what.partition("\n\n")[0].split()))


INDEX = """API reference
=============

Every public name, by subject, from its docstring. With ``import xpnet as xn``, ``xpnet.Conv2d``
is ``xn.Conv2d``. Each name has a link to its source. The :ref:`general index <genindex>` has all
names in alphabetical order.

.. toctree::

"""


def write(folder: Path) -> None:
    """Write the pages into a folder."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir()
    for page in PAGES:
        (folder / f"{page}.rst").write_text(text(page), encoding="utf-8")
    index = INDEX + "".join(f"   {page}\n" for page in PAGES)
    (folder / "index.rst").write_text(index, encoding="utf-8")


def missing_reference(app: Any, env: Any, node: Any, contnode: Any) -> Any:
    """A type in a signature, such as xpnet.layer.Layer, by its public name; without a link if it
    has none."""
    if node.get("refdomain") != "py" or node["reftype"] not in ("class", "exc"):
        return None
    module, _, name = node["reftarget"].rpartition(".")
    path = paths().get(name)
    if path is None or module not in ("", public()[path].__module__):
        return contnode
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", path, node,
                                          contnode)


def skip_member(app: Any, what: str, name: str, member: Any, skip: bool, options: Any) -> bool:
    """Leave out what other libraries define."""
    return skip or not (getattr(member, "__module__", None) or "xpnet").startswith("xpnet")


def setup(app: Any) -> dict[str, Any]:
    app.connect("builder-inited", lambda app: write(Path(app.srcdir) / "reference"))
    app.connect("autodoc-skip-member", skip_member)
    app.connect("missing-reference", missing_reference)
    return {"parallel_read_safe": True}
