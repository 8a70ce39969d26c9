"""Networks as safetensors files: the arrays under "layer.parameter", the rest as one JSON text in
the metadata.

It is one text because safetensors writes several metadata entries in an order that changes from run
to run, and the same network should give the same file.
"""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.arguments import shown
from xpnet.buffers import Parameter, Shape
from xpnet.checks import listed_differences
from xpnet.graph import Graph
from xpnet.io import formats
from xpnet.io.architecture import architecture, as_json, differences, graph
from xpnet.io.files import existing, name_of, write_atomically
from xpnet.io.packed import Piece, packed
from xpnet.io.report import LoadReport
from xpnet.io.trained import from_json, to_json
from xpnet.layer import Layer
from xpnet.trained import Trained

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "xpnet-1"
FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64"}     # safetensors' names of dtypes
MOST_CHARACTERS = 400       # of a layer's error about the arguments in a file


# --- writing --------------------------------------------------------------------------------------

def save(net: Graph, path: str | Path) -> None:
    """Write the network's architecture, parameters, state and step counters to a file, and what it
    knows of its training.

    An old file is replaced only when the new content is complete (see `write_atomically`).

    Raises:
        ValueError: the name has the suffix of another format, such as .onnx or .pt.
        AttributeError: a layer of your own does not keep its arguments in attributes of the same
            name.
        TypeError: a layer of your own has an argument that JSON cannot hold.
        OSError: the file cannot be written.
    """
    other = formats.of_name(name_of(path, "save"))
    if other is not None:
        raise ValueError("save: expected a name that ends with .safetensors, the format that is "
                         "written; net.export writes ONNX, xn.io.save_darknet Darknet. Received: "
                         f"{os.fspath(path)}, whose suffix means {other}.")
    write_atomically(path, content(net))


def to_bytes(net: Graph) -> bytes:
    """The content of the file that `save` writes; for pickle and deepcopy."""
    return b"".join(content(net))


def content(net: Graph, training: tuple[dict[str, np.ndarray], dict[str, Any]] | None = None
            ) -> list[Piece]:
    """The content of the file that `save` writes; with `training`, that of a checkpoint: it also
    has arrays and facts of a training, and a digest of everything.

    On a CPU it consists of views of the network's arrays, see `packed`.
    """
    if len(net.layer_names) < len(net.layers):
        raise ValueError("save: expected every layer to have a name of its own. Received: names "
                         "that were changed to equal ones.")
    arrays = {name: net.backend.to_numpy(p.data) for name, p in net.arrays.items()}
    steps, uses = (int(counter) for counter in net.backend.to_numpy(net.counters))
    about = {"format": FORMAT, "architecture": architecture(net),
             "progress": {"epochs": net.epochs, "steps": steps, "uses": uses}}
    if trained := to_json(net.trained):
        about["trained"] = trained
    if net.backend.tuning:
        about["tuning"] = net.backend.tuning
    if training is not None:
        others, facts = training
        about["training"] = facts | {"arrays": sorted(others)}
        arrays |= others
        about["digest"] = _digest(arrays, about)
    return packed(arrays, {"xpnet": as_json(about)})


def _digest(arrays: dict[str, np.ndarray], about: dict[str, Any]) -> str:
    """SHA-256 of all arrays and of the JSON text without the digest."""
    total = hashlib.sha256()
    for name in sorted(arrays):
        a = np.ascontiguousarray(arrays[name])
        total.update(f"{name} {a.dtype.str} {a.shape}\n".encode())
        total.update(a.data)
    total.update(as_json({name: value for name, value in about.items() if name != "digest"}
                         ).encode())
    return total.hexdigest()


# --- reading --------------------------------------------------------------------------------------

def load(path: str | Path, *, backend: str | Backend = "auto",
         layers: Sequence[type[Layer]] = ()) -> Graph:
    """Build the network that was saved in a file.

    No more memory is allocated than the arrays of the file need.

    Args:
        layers: your own layer classes that the network uses.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, was not saved by xpnet, or its architecture and arrays
            disagree.
    """
    with _opened(path) as saved:
        return _built(saved, backend, layers)


def load_weights(net: Graph, path: str | Path, *, architecture: bool = True) -> None:
    """Copy a file's parameters, state and step counters into a network of the same architecture,
    and what the file says of their training.

    What the file does not say stays as it is, but the history. If the file is refused, the network
    does not change.

    Args:
        architecture: False: compare only the names and shapes of the arrays, and copy nothing else.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is truncated, was not saved by xpnet, or is of another architecture.
    """
    with _opened(path) as saved:
        if architecture:
            _compare(saved, net)
        trained = _trained(saved, net) if architecture else net.trained
        _copy(net, saved)
        net.trained = trained


def load_matching(net: Graph, path: str | Path) -> LoadReport:
    """Copy the arrays of a file whose names and shapes are those of the network's.

    Everything else stays as it is, the step counters too. If the file is refused, the network does
    not change. The errors are those of `load`.
    """
    with _opened(path) as saved:
        report = _report(net, saved, written=True)
        arrays = saved.arrays()         # read before anything changes
    write_arrays(net, {name: arrays[name] for name in report.matched})
    return report


def compare(net: Graph, path: str | Path) -> LoadReport:
    """What `load_matching` would copy; nothing changes. The errors are those of `load`."""
    with _opened(path) as saved:
        return _report(net, saved, written=False)


@contextmanager
def checkpoint(path: str | Path) -> Iterator[tuple[Saved, dict[str, np.ndarray]]]:
    """An open checkpoint, and the arrays of the training in it.

    Raises FileNotFoundError or ValueError if there is no such file, if it is damaged, or if it is a
    network that was saved without a training.
    """
    with _opened(path) as saved:
        if "training" not in saved.about:
            raise ValueError("load: expected a checkpoint of a training. Received: "
                             f"{saved.path}, which is a network without one.")
        arrays = saved.arrays()
        if _digest(arrays, saved.about) != saved.about.get("digest"):
            raise ValueError("load: expected a checkpoint as it was written. Received: "
                             f"{saved.path}, which was changed or damaged.")
        yield saved, {name: arrays[name] for name in saved.about["training"]["arrays"]}


def copy_into(net: Graph, saved: Saved) -> None:
    """Copy a network's arrays and counters from an open file of the same architecture."""
    _compare(saved, net)
    _copy(net, saved)


def from_bytes(content: bytes, backend: str | Backend, layers: Sequence[type[Layer]]) -> Graph:
    """The network that `to_bytes` wrote; pickle and deepcopy call this."""
    from safetensors.numpy import load as unpack
    arrays = unpack(content)
    header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    about = _metadata(header.get("__metadata__", {}), "bytes")
    held = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    return _built(Saved("bytes", about, held, lambda: arrays), backend, layers)


@dataclass
class Saved:
    """An open file: its decoded metadata, the shapes and dtypes of its arrays, and a function that
    reads them."""

    path: str
    about: dict[str, Any]
    held: dict[str, tuple[Shape, str]]          # shapes and dtypes of the network's arrays
    arrays: Callable[[], dict[str, np.ndarray]]         # all of the file


@contextmanager
def _opened(path: str | Path) -> Iterator[Saved]:
    """Read and check the file's header; the arrays are read when `arrays` is called."""
    from safetensors import safe_open
    name = existing(path, "load", "a file that save wrote")
    with _explained(name):
        opened = safe_open(name, framework="numpy")
    with opened as file:
        with _explained(name):
            names, raw = list(file.keys()), file.metadata() or {}
            slices = {array: file.get_slice(array) for array in names}
            held = {array: (tuple(part.get_shape()), FLOATS.get(part.get_dtype(), part.get_dtype()))
                    for array, part in slices.items()}

        def arrays() -> dict[str, np.ndarray]:
            with _explained(name):
                return {array: file.get_tensor(array) for array in names}
        about = _metadata(raw, name)
        for other in _names_of_training(about, held, name):
            del held[other]
        yield Saved(name, about, held, arrays)


@contextmanager
def _explained(path: str) -> Iterator[None]:
    from safetensors import SafetensorError
    try:
        yield
    except MemoryError as error:
        raise MemoryError("load: expected a file whose arrays fit into memory. Received: "
                          f"{path}.") from error
    except SafetensorError as error:
        what = formats.of_content(path)
        raise ValueError("load: expected a complete safetensors file that save wrote. Received: "
                         f"{path}, which is {what} ({str(error):.200})"
                         f"{formats.remedy(what)}.") from error
    except OSError as error:
        raise OSError(error.errno, f"load: expected a file that can be read. Received: {path} "
                                   f"({error.strerror or error})") from error


def _metadata(raw: dict[str, str], path: str) -> dict[str, Any]:
    try:
        about = json.loads(raw.get("xpnet", "null"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"load: expected metadata in JSON. Received: {path} ({error}).") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"load: expected a file that xpnet saved (format {FORMAT}). Received: "
                         f"{path}, metadata {raw!r:.80}.")
    plan, progress = about.get("architecture"), about.get("progress")
    if not isinstance(plan, dict) or not isinstance(progress, dict):
        raise ValueError("load: expected an architecture and a progress in the metadata. Received: "
                         f"{path}, architecture {plan!r:.80}, progress {progress!r:.80}.")
    if not all(isinstance(count := progress.get(name), int) and 0 <= count < 2**64
               for name in ("epochs", "steps", "uses")):
        raise ValueError("load: expected counts of epochs, steps and uses in the metadata. "
                         f"Received: {path}, {progress!r:.80}.")
    if not isinstance(about.get("tuning", {}), dict):
        raise ValueError(f"load: expected tuning to be a dict. Received: {path}, tuning "
                         f"{about['tuning']!r:.80}.")
    return about


def _names_of_training(about: dict[str, Any], held: dict[str, Any], path: str) -> list[str]:
    """The names of the arrays that belong to a training and not to the network."""
    if "training" not in about:
        return []
    names = about["training"].get("arrays") if isinstance(about["training"], dict) else None
    if not isinstance(names, list) or not all(isinstance(name, str) and name in held
                                              for name in names):
        raise ValueError("load: expected the names of the training's arrays in the metadata. "
                         f"Received: {path}, {names!r:.80}.")
    return list(dict.fromkeys(names))


def _built(saved: Saved, backend: str | Backend, layers: Sequence[type[Layer]]) -> Graph:
    plan = saved.about["architecture"]
    try:
        inputs, outputs, declared = graph(plan, layers)
    except Exception as error:      # a constructor may raise anything for unknown arguments
        text = " ".join(str(error).split())
        raise ValueError("load: expected an architecture whose layers can be built. Received: "
                         f"{saved.path} ({type(error).__name__}: {text:.{MOST_CHARACTERS}}"
                         ").") from error
    _check(saved, declared)     # before anything of the size that the file claims is allocated
    net = Graph(inputs, outputs, backend=backend, dtype=plan.get("dtype"), seed=plan.get("seed"))       # type: ignore[arg-type]
    if not isinstance(backend, Backend):    # a new backend can take over the saved tuning
        net.backend.tuning |= saved.about.get("tuning", {})
    net.trained = _trained(saved, net)
    _copy(net, saved)
    return net


def _trained(saved: Saved, net: Graph) -> Trained:
    """What the network knows of its training after the arrays of the file are in it."""
    found = from_json(saved.about.get("trained", {}), [node.shape for node in net.outs.nodes],
                      saved.path)
    known = {name: value for name, value in vars(found).items() if value}
    return replace(net.trained, **{"history": None} | known)


def _compare(saved: Saved, net: Graph) -> None:
    try:
        found = differences(saved.about["architecture"], net)
    except ValueError as error:
        raise ValueError(f"load: expected an architecture in the metadata. Received: {saved.path} "
                         f"({error}).") from error
    if found:
        raise ValueError("load: expected a file of a network of this architecture. Received: "
                         f"{saved.path}, where {listed_differences(found)}. net.load(path, "
                         "architecture=False) compares only the names and shapes of the arrays.")


def _check(saved: Saved, places: dict[str, Parameter]) -> None:
    if saved.held.keys() != places.keys():
        names = sorted(saved.held.keys() ^ places.keys())[:5]
        differing = ", ".join(shown(name)[1:-1] for name in names)
        raise ValueError(f"load: expected the arrays of this network. Received: {saved.path}, "
                         f"which differs in {differing}.")
    for name, (shape, elements) in saved.held.items():
        if shape != places[name].shape or elements not in FLOATS.values():
            raise ValueError(f"load: expected {shown(name)[1:-1]} to be floating-point numbers of "
                             f"shape {places[name].shape}. Received: {elements} of shape "
                             f"{shape} in {saved.path}.")


def _report(net: Graph, saved: Saved, written: bool) -> LoadReport:
    places = net.arrays
    both = [name for name in places if name in saved.held]
    for name in both:
        if saved.held[name][1] not in FLOATS.values():
            raise ValueError(f"load: expected {shown(name)[1:-1]} to be floating-point numbers. "
                             f"Received: {saved.held[name][1]} in {saved.path}.")
    differ = {name: (saved.held[name][0], places[name].shape) for name in both
              if saved.held[name][0] != places[name].shape}
    return LoadReport(
        saved.path, tuple(name for name in both if name not in differ),
        tuple(name for name in places if name not in saved.held),
        tuple(sorted(name for name in saved.held if name not in places)), differ, written)


def _copy(net: Graph, saved: Saved) -> None:
    _check(saved, net.arrays)
    arrays, progress = saved.arrays(), saved.about["progress"]      # read before anything changes
    net.epochs = progress["epochs"]
    write_arrays(net, {name: arrays[name] for name in net.arrays})
    with net.backend.scope():
        counters = np.array([progress["steps"], progress["uses"]], np.uint64)
        net.counters[...] = net.backend.asarray(counters)


def write_arrays(net: Graph, arrays: dict[str, np.ndarray]) -> None:
    """Copy arrays into the network's, by their full names."""
    if net.step is not None:
        net.step.release()
    places = net.arrays
    with net.backend.scope():
        for name, a in arrays.items():
            places[name].data[...] = net.backend.asarray(a, net.dtype)
