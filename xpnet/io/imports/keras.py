"""`net.load_keras`: the weights of Keras 3, from a .weights.h5 file.

Such a file has a group for each layer, called by its class and a number: conv2d, conv2d_1, ... The
arrays of a layer are called 0, 1, ..., and a recurrent layer has those of its cells.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import bare, expect_flag
from xpnet.graph import Graph
from xpnet.io import formats
from xpnet.io.files import existing, name_of
from xpnet.io.imports.keras_layouts import units
from xpnet.io.imports.layouts import Unit
from xpnet.io.imports.matching import Matches, Module, load
from xpnet.io.imports.tensors import Tensor
from xpnet.io.report import LoadReport

if TYPE_CHECKING:
    from pathlib import Path

WHO = "load_keras"
MOST_SHOWN = 9                  # groups of an error
LEAST_CHUNK = 1 << 16           # elements that a chunk may have whatever the size of its array
CELLS = "", "cell/", "forward_layer/cell/", "backward_layer/cell/"
NUMBERED = re.compile(r"(.*?)(?:_(\d{1,9}))?", re.ASCII | re.DOTALL)      # conv2d_1


def load_keras(net: Graph, path: str | Path, *, strict: bool = True) -> LoadReport:
    """Copy the weights of a Keras network from a .weights.h5 file; see Network.load_keras."""
    strict = expect_flag(WHO, "strict", strict)
    ours = units(net, WHO)
    with _opened(path) as modules:
        return load(WHO, net, name_of(path, WHO), _by_kind(ours, modules), strict)


def _by_kind(ours: Sequence[tuple[str, Unit]], modules: Sequence[Module]) -> Matches:
    """The layers of each kind, in their order, and the groups of that kind, by their numbers."""
    found = Matches()
    kinds = [_kind(module.name) for module in modules]
    for kind in dict.fromkeys([*(kind for kind, _ in ours), *(kind for kind, _ in kinds)]):
        mine = [unit for known, unit in ours if known == kind]
        theirs = [module for _, module in sorted(
            ((number, module) for (known, number), module in zip(kinds, modules, strict=True)
             if known == kind), key=lambda pair: pair[0])]
        for unit, module in zip(mine, theirs, strict=False):
            found.compare(unit, module)
        found.add_missing(mine[len(theirs):])
        found.add_unused(theirs[len(mine):])
    return found


def _kind(name: str) -> tuple[str, int]:
    kind, number = NUMBERED.fullmatch(name).groups()        # type: ignore[union-attr]
    return kind, int(number or 0)


# --- the file -------------------------------------------------------------------------------------

@contextmanager
def _opened(path: str | Path) -> Iterator[list[Module]]:
    """The groups with arrays. They can be read while the file is open.

    Raises:
        ImportError: h5py is missing.
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, or not one of Keras 3.
    """
    name = existing(path, WHO, "the name of a .weights.h5 file")
    try:
        import h5py
    except ImportError as error:
        raise ImportError(f"{WHO}: expected the package h5py. Received: {error}. Remedy: pip "
                          'install "xpnet[keras]"') from error
    with _damage_named(name):
        file = h5py.File(name, "r")
    with file:
        with _damage_named(name):
            layers = _inside(h5py, file, "layers")
            held = ", ".join(bare(group) for group in [*file][:MOST_SHOWN])
            modules = [Module(group, _tensors(h5py, layers, group, name))
                       for group in (() if layers is None else layers)]
        if layers is None:
            raise ValueError(f"{WHO}: expected a .weights.h5 file of Keras 3, with a group "
                             f"layers. Received: {name}, which has {held}.")
        yield [module for module in modules if module.tensors]


@contextmanager
def _damage_named(path: str) -> Iterator[None]:
    """The errors of h5py, which have many classes, become one that names the file."""
    try:
        yield
    except (OSError, RuntimeError, LookupError, TypeError, ValueError, AttributeError,
            OverflowError) as error:
        reason = " ".join(str(error).split())
        raise ValueError(f"{WHO}: expected a .weights.h5 file of Keras 3. Received: {path}, which "
                         f"is {formats.of_content(path)} ({reason:.100}).") from error


def _tensors(h5py: Any, layers: Any, group: str, path: str) -> dict[str, Tensor]:
    """The arrays of a layer and of its cells, numbered from 0. Numbers in other files are left out,
    and so are arrays with larger chunks than the array itself: HDF5 unpacks whole chunks."""
    found: dict[str, Tensor] = {}
    for cell in CELLS:
        held = _inside(h5py, layers, f"{group}/{cell}vars") or {}
        for key in sorted(held, key=lambda key: (len(key), key)):
            data = _inside(h5py, held, key)
            if (isinstance(data, h5py.Dataset) and data.dtype.kind in "fiu"
                    and not data.external and not data.is_virtual
                    and math.prod(data.chunks or ()) <= max(data.size, LEAST_CHUNK)):
                def read(data: Any = data) -> np.ndarray:
                    with _damage_named(path):
                        array: np.ndarray = data[()]
                    return array

                found[str(len(found))] = Tensor(tuple(data.shape), str(data.dtype), read)
    return found


def _inside(h5py: Any, group: Any, path: str) -> Any:
    """What a group holds at a path, None if there is nothing. Links to other files are not
    followed."""
    for part in path.split("/"):
        if not isinstance(group, h5py.Group) or not isinstance(
                group.get(part, getlink=True), h5py.HardLink):
            return None
        group = group[part]
    return group
