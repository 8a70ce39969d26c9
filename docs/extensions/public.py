"""The public names, and the pages of the reference that have them.

A name is public if it is in `__all__` of xpnet or of one of MODULES, or, where there is none, if it
is defined there and does not begin with an underscore. It is on the first page of PAGES that has
the file or the package in which it is defined.
"""

from __future__ import annotations

import importlib
import inspect
from functools import cache
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
    "losses": ("Losses", "losses.base losses.classification losses.binary losses.regression "
                         "losses"),
    "optimizers": ("Optimizers", "optim.base optim.momentum optim"),
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

# Public names that are neither classes nor functions: (page, what they are).
CONSTANTS = {
    "xpnet.TRAIN": ("layer", "The mode of a training step: layers keep what `backward` needs, "
                             "dropout is on."),
    "xpnet.PREDICT": ("layer", "The mode of a prediction: dropout is off, batch norm uses its "
                               "running statistics."),
    "xpnet.SAMPLE": ("layer", "The mode of a prediction with dropout on."),
    "xpnet.viz.KERNELS": ("viz", "What `show_convolution` draws by default: {name: array "
                                 "(KH, KW)}."),
    "xpnet.viz.POOLINGS": ("viz", "What `show_pooling` draws by default: {name: function that "
                                  "makes a layer for a window size}."),
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
        return CONSTANTS[path][0], 99, "", 0         # after the others
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
