"""The arrays of another library's file in a network: which belongs to which, and a report."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from difflib import SequenceMatcher
from typing import Any

import numpy as np

from xpnet.backends.arguments import bare, perhaps, shown
from xpnet.buffers import Shape
from xpnet.graph import Graph
from xpnet.io.imports.layouts import IGNORED, Unit
from xpnet.io.imports.tensors import Tensor
from xpnet.io.report import LoadReport
from xpnet.io.safetensors import write_arrays

MOST_SHOWN = 3                  # names of an error
LONGEST_NUMBER = 10             # digits of a number in a name


@dataclass
class Module:
    """The tensors of a file that have one name in front: features.0 of features.0.weight."""

    name: str
    tensors: dict[str, Tensor]          # by the rest of their names

    def full(self, key: str) -> str:
        return f"{self.name}.{key}" if self.name else key

    @property
    def shapes(self) -> dict[str, Shape]:
        return {key: tensor.shape for key, tensor in self.tensors.items()}


@dataclass
class Matches:
    """What was found. `pairs` are units and modules with equal names and shapes."""

    pairs: list[tuple[Unit, Module]] = field(default_factory=list)
    shapes: dict[str, tuple[Shape, Shape]] = field(default_factory=dict)
    missing: list[str] = field(default_factory=list)
    unused: list[str] = field(default_factory=list)

    def compare(self, unit: Unit, module: Module) -> None:
        """Enter a unit and the module that belongs to it."""
        theirs = {key: shape for key, shape in module.shapes.items()
                  if key in unit.theirs or key != IGNORED}
        if unit.theirs and theirs == unit.theirs:
            self.pairs.append((unit, module))
            return
        differ = {key: (theirs[key], shape) for key, shape in unit.theirs.items()
                  if key in theirs and theirs[key] != shape}
        self.shapes |= {unit.of[key]: pair for key, pair in differ.items()}
        named = {unit.of[key] for key in differ}
        self.missing += [name for name in unit.arrays if name not in named]
        self.unused += [module.full(key) for key in theirs if key not in differ]

    def add_missing(self, units: Sequence[Unit]) -> None:
        self.missing += [name for unit in units for name in unit.arrays]

    def add_unused(self, modules: Sequence[Module]) -> None:
        self.unused += [module.full(key) for module in modules for key in module.tensors
                        if key != IGNORED]


def modules_of(tensors: Mapping[str, Tensor]) -> list[Module]:
    """The modules of a file, in the order of their first tensors. The output layer of an attention
    belongs to the attention."""
    found: dict[str, Module] = {}
    for name, tensor in tensors.items():
        prefix, _, key = name.rpartition(".")
        owner, _, last = prefix.rpartition(".")
        if last == "out_proj" and owner in found and any(
                part.endswith(("in_proj_weight", "q_proj_weight"))
                for part in found[owner].tensors):
            prefix, key = owner, f"out_proj.{key}"
        found.setdefault(prefix, Module(prefix, {})).tensors[key] = tensor
    return list(found.values())


def by_order(units: Sequence[Unit], modules: Sequence[Module]) -> Matches:
    """Pairs of equal names and shapes, both in their order; what stands between two pairs belongs
    together if it is the same number of units and modules."""
    found = Matches()
    ours = [_signature(unit.theirs) for unit in units]
    theirs = [_signature(module.shapes) for module in modules]
    for tag, i, i_end, j, j_end in SequenceMatcher(None, ours, theirs, False).get_opcodes():
        if tag == "equal" or i_end - i == j_end - j:
            for unit, module in zip(units[i:i_end], modules[j:j_end], strict=True):
                found.compare(unit, module)
        else:
            found.add_missing(units[i:i_end])
            found.add_unused(modules[j:j_end])
    return found


def by_shape(who: str, units: Sequence[Unit], modules: Sequence[Module]) -> Matches:
    """As by_order, for a file that does not keep the order of its names: modules of equal names and
    shapes are sorted by the numbers in their names.

    Raises ValueError if the names of two of them differ in more than numbers.
    """
    found, left = Matches(), sorted(modules, key=_numbered)
    others = []
    for signature in dict.fromkeys(_signature(unit.theirs) for unit in units):
        ours = [unit for unit in units if _signature(unit.theirs) == signature]
        theirs = [module for module in left if _signature(module.shapes) == signature]
        for one, next_one in zip(theirs, theirs[1:]):
            if not _in_order(one, next_one):
                raise ValueError(f'{who}: expected mapping={{...}} or mapping="torchvision", '
                                 "because a safetensors file does not keep the order of names. "
                                 f"Received: {bare(one.name)} and {bare(next_one.name)}, which "
                                 "have equal shapes.")
        for unit, module in zip(ours, theirs, strict=False):
            found.compare(unit, module)
            left.remove(module)
        others += ours[len(theirs):]
    others.sort(key=units.index)
    if len(others) == len(left):
        for unit, module in zip(others, left, strict=True):
            found.compare(unit, module)
    else:
        found.add_missing(others)
        found.add_unused(left)
    return found


def _signature(shapes: Mapping[str, Shape]) -> frozenset[tuple[str, Shape]]:
    return frozenset((key, shape) for key, shape in shapes.items() if key != IGNORED)


def _numbered(module: Module) -> list[tuple[int, str]]:
    return [(int(part), "") if _is_number(part) else (-1, part)
            for part in module.name.split(".")]


def _is_number(part: str) -> bool:
    return part.isascii() and part.isdigit() and len(part) < LONGEST_NUMBER


def _in_order(one: Module, other: Module) -> bool:
    """Whether the first part in which two names differ is a number in both."""
    pairs = zip(one.name.split("."), other.name.split("."), strict=False)
    return all(map(_is_number, next((pair for pair in pairs if pair[0] != pair[1]), ("", ""))))


def by_names(who: str, units: Sequence[Unit], modules: Sequence[Module],
             mapping: Mapping[Any, Any]) -> Matches:
    """Pairs by a dict of a module's name to that of a layer.

    Raises ValueError for a name that the file or the network does not have.
    """
    ours, theirs = {unit.name: unit for unit in units}, {one.name: one for one in modules}
    found, unused = Matches(), dict(ours)
    for key, value in mapping.items():
        for name, known, where in ((key, theirs.keys(), "the file"),
                                   (value, ours.keys(), "the network")):
            if not isinstance(name, str) or name not in known:
                raise ValueError(f"{who}: expected mapping to have names of modules of the file, "
                                 "and of layers with arrays"
                                 + perhaps(name, known)
                                 + f". Received: {shown(name)}, which {where} does not have.")
        if unused.pop(value, None) is None:
            raise ValueError(f"{who}: expected mapping to name each layer once. Received: "
                             f"{shown(value)} twice.")
        found.compare(ours[value], theirs[key])
    found.add_missing([*unused.values()])
    found.add_unused([module for module in modules if module.name not in mapping])
    return found


def load(who: str, net: Graph, path: str, matches: Matches, strict: bool) -> LoadReport:
    """Copy what matches into the network, and say what did.

    With `strict`, nothing is copied unless everything matches: then ValueError is raised.
    """
    sources = {unit.of[key]: module.full(key) for unit, module in matches.pairs
               for key in unit.theirs}
    matched = [name for unit, _ in matches.pairs for name in unit.arrays]
    report = LoadReport(path, tuple(matched), tuple(matches.missing), tuple(matches.unused),
                        matches.shapes, True, sources)
    if strict and not report.complete:
        raise ValueError(f"{who}: expected all arrays of the network and of the file to match; "
                         f"strict=False copies those that do. Received: {path}, with "
                         f"{_differences(report)}.")
    arrays: dict[str, np.ndarray] = {}
    for unit, module in matches.pairs:
        arrays |= unit.convert({key: np.asarray(module.tensors[key].read(), np.float64
                                                if net.dtype == np.float64 else np.float32)
                                for key in unit.theirs})
    write_arrays(net, arrays)           # everything has been read
    return report


def _differences(report: LoadReport) -> str:
    """What does not match, with a few names."""
    said = [f"{name} of shape {shown(theirs)} instead of {ours}"
            for name, (theirs, ours) in report.shapes.items()]
    parts = [_some(said)] if said else []
    for names, what in ((report.missing, "nothing for "), (report.unused, "no place for ")):
        if names:
            parts.append(what + _some(names))
    return "; ".join(parts)


def _some(names: Sequence[str]) -> str:
    more = len(names) - MOST_SHOWN
    listed = ", ".join(bare(name) for name in names[:MOST_SHOWN])
    return listed + (f" and {more} more" if more > 0 else "")
