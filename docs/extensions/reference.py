"""The API reference: a page for each subject, with every public name, made when the site is built.

A name is public if it is in `__all__` of xpnet or of one of MODULES, or, where there is none, if it
is defined there and does not begin with an underscore. It is on the first page of PAGES that has
the file or the package in which it is defined.
"""

from __future__ import annotations

import importlib
import inspect
import shutil
from functools import cache
from pathlib import Path
from typing import Any

MODULES = ("xpnet", "xpnet.data", "xpnet.explain", "xpnet.functional", "xpnet.metrics",
           "xpnet.vision", "xpnet.viz", "xpnet.explore", "xpnet.training", "xpnet.parallel",
           "xpnet.sklearn", "xpnet.io.darknet", "xpnet.backends", "xpnet.catalogue", "xpnet.models",
           "xpnet.initializers", "xpnet.testing")

# page: (title, the files and packages in which its names are defined)
PAGES = {
    "networks": ("Networks", "network graph ensemble inspect"),
    "layer": ("Layers of your own", "layer testing initializers"),
    "convolution": ("Convolution", "layers.convolution layers.sparse_coding"),
    "linear": ("Linear layers", "layers.linear layers.embedding"),
    "activations": ("Activations", "layers.activations layers.rectifiers layers.gates "
                                   "layers.softmax"),
    "pooling": ("Pooling", "layers.pooling layers.subsampling"),
    "normalization": ("Normalisation", "layers.normalization layers.local_normalization "
                                       "layers.preprocessing"),
    "dropout": ("Dropout and noise", "layers.dropout"),
    "signals": ("Signals", "layers.signals"),
    "sequences": ("Sequences", "layers.recurrent layers.rnn layers.attention training.chunks"),
    "shapes": ("Shapes, borders and several inputs", "layers.shape layers.resize layers.merge "
                                                     "layers.fusion layers.landmarks"),
    "losses": ("Losses", "losses"),
    "optimizers": ("Optimizers", "optim"),
    "schedules": ("Learning-rate schedules", "schedules"),
    "training": ("Training", "training history"),
    "metrics": ("Metrics", "metrics"),
    "data": ("Data sets", "data"),
    "augmentation": ("Augmentation", "augment"),
    "vision": ("Boxes, landmarks and regions", "vision"),
    "models": ("Models", "models"),
    "explain": ("What a value depends on", "explain"),
    "viz": ("Pictures", "viz"),
    "explore": ("The page in the browser", "explore"),
    "functional": ("Functions of arrays", "functional"),
    "parallel": ("Many machines", "parallel"),
    "sklearn": ("scikit-learn", "sklearn"),
    "darknet": ("Darknet", "io.darknet"),
    "backends": ("Backends", "backends"),
    "catalogue": ("Catalogue", "catalogue"),
}

# Methods of subclasses of BASES that people call; the others are called by the base class.
BASES = ("Layer", "Loss", "Optimizer", "Schedule", "Augmentation", "Callback")
METHODS = {"xpnet.Whitening": "fit", "xpnet.DeconvolutionalNetwork2d": "learn, infer, reconstruct, "
                                                                       "cost"}

# Public names that are no classes and no functions: (page, what they are).
CONSTANTS = {
    "xpnet.TRAIN": ("layer", "The mode of a training step: layers keep what `backward` needs, "
                             "dropout is on."),
    "xpnet.PREDICT": ("layer", "The mode of a prediction: dropout is off, batch norm uses its "
                               "running statistics."),
    "xpnet.SAMPLE": ("layer", "The mode of a prediction with dropout on."),
    "xpnet.viz.KERNELS": ("viz", "Kernels that `show_convolution` knows by name: "
                                 "{name: array (KH, KW)}."),
    "xpnet.viz.POOLINGS": ("viz", "Layers that `show_pooling` knows by name: {name: function of "
                                  "the window size}."),
    "xpnet.catalogue.FAMILIES": ("catalogue", "The items of the catalogue: {family: [Item]}."),
}


@cache
def public() -> dict[str, Any]:
    """{"xpnet.Conv2d": the class} for every public name, each under its first path."""
    found: dict[str, Any] = {}
    for name in MODULES:
        module = importlib.import_module(name)
        names = getattr(module, "__all__", None) or [
            key for key, value in vars(module).items()
            if key[0] != "_" and inspect.isroutine(value) and value.__module__.startswith(name)]
        for key in names:
            value = getattr(module, key)
            if not inspect.ismodule(value) and not any(value is other for other in found.values()):
                found[f"{name}.{key}"] = value
    return found


@cache
def paths() -> dict[str, str]:
    """{"Conv2d": "xpnet.Conv2d", "data.digits": "xpnet.data.digits", ...}: names as in code."""
    found = {path.removeprefix("xpnet."): path for path in public()}
    return {path.rpartition(".")[2]: path for path in reversed(public())} | found


def place(path: str) -> tuple[str, int, str, int] | None:
    """(page, number of the file or package on it, file, position in the file) of a public name;
    None if PAGES has none for it."""
    if path in CONSTANTS:
        return CONSTANTS[path][0], 0, "", 0
    what = public()[path]
    for page, (_, homes) in PAGES.items():
        for number, home in enumerate(homes.split()):
            if f"{what.__module__}.".startswith(f"xpnet.{home}."):
                module = vars(importlib.import_module(what.__module__))
                return page, number, what.__module__, [*module].index(what.__name__)
    return None


def names_of(page: str) -> list[str]:
    """The names of a page, in the order in which they are defined."""
    found = [(place(path), path) for path in public()]
    return [path for at, path in sorted(item for item in found if item[0]) if at[0] == page]


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
    table = [path for path in names if path not in CONSTANTS]
    return "\n".join([title, "=" * len(title), "", ".. autosummary::", "   :nosignatures:", "",
                      *(f"   ~{path}" for path in table), "", *map(entry, names)])


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
    path = paths().get(node["reftarget"].rpartition(".")[2])
    if path is None or path == node["reftarget"]:
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
