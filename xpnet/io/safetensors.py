"""Graphs as safetensors files: the arrays under "layer.parameter", all else as one JSON text in
the metadata.

One text, because safetensors writes several metadata entries in an order that changes from run to
run, and the same network should give the same file.
"""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.arguments import shown
from xpnet.buffers import Parameter, Shape
from xpnet.graph import Graph
from xpnet.io import formats
from xpnet.io.architecture import architecture, as_json, differences, graph
from xpnet.io.files import name_of, write_atomically
from xpnet.layer import Layer

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "xpnet-1"
# element types, as safetensors names them
FLOATS = {"F16": "float16", "F32": "float32", "F64": "float64"}
MOST_SHOWN = 4                      # differences that an error names
MOST_CHARACTERS = 400               # of what a layer says about a file's arguments


# --- writing --------------------------------------------------------------------------------------

def save(net: Graph, path: str | Path) -> None:
    """Write the network's architecture, parameters, state and step counters; the old file stays
    until the new is complete.

    ValueError for a name that ends like another format's, such as .onnx or .pt. What else is
    refused, and what stays of an old file, is said in `write_atomically`.
    """
    other = formats.of_name(name_of(path, "save"))
    if other is not None:
        raise ValueError("save: expected a name that ends with .safetensors, the format that is "
                         "written. "
                         f"Received: {os.fspath(path)}, whose end stands for {other}.")
    write_atomically(path, to_bytes(net))


def to_bytes(net: Graph) -> bytes:
    """What `save` writes."""
    from safetensors.numpy import save as pack
    if len(net.layer_names) < len(net.layers):
        raise ValueError("save: expected every layer to have a name of its own. Received: names "
                         "that were changed to equal ones.")
    arrays = {name: np.array(net.backend.to_numpy(p.data)) for name, p in net.arrays.items()}
    steps, uses = (int(counter) for counter in net.backend.to_numpy(net.counters))
    about = {"format": FORMAT, "architecture": architecture(net),
             "progress": {"epochs": net.epochs, "steps": steps, "uses": uses}}
    if net.backend.tuning:
        about["tuning"] = net.backend.tuning
    return pack(arrays, {"xpnet": as_json(about)})


# --- reading --------------------------------------------------------------------------------------

def load(path: str | Path, *, backend: str | Backend = "auto", layers: Sequence[type[Layer]] = ()
         ) -> Graph:
    """The network that a file holds. Layer classes of your own are named in `layers`.

    ValueError for a file that is truncated, that xpnet did not write, or whose architecture and
    arrays disagree. Memory is taken for arrays only that the file holds.
    """
    with _opened(path) as saved:
        return _built(saved, backend, layers)


def load_weights(net: Graph, path: str | Path, *, architecture: bool = True) -> None:
    """Copy a file's parameters and state into a network of the same architecture; on any error it
    is untouched.

    With architecture=False into any network that has arrays of the same names and shapes, whatever
    it computes with them.
    """
    with _opened(path) as saved:
        if architecture:
            _compare(saved, net)
        _copy(net, saved)


def from_bytes(content: bytes, backend: str | Backend, layers: Sequence[type[Layer]]) -> Graph:
    """The network that `to_bytes` wrote: what pickle and deepcopy call."""
    from safetensors.numpy import load as unpack
    arrays = unpack(content)
    header = json.loads(content[8:8 + int.from_bytes(content[:8], "little")])
    about = _metadata(header.get("__metadata__", {}), "bytes")
    held = {name: (array.shape, array.dtype.name) for name, array in arrays.items()}
    return _built(Saved("bytes", about, held, lambda: arrays), backend, layers)


@dataclass
class Saved:
    """A file that is open: its decoded metadata, what its arrays are, and a function that reads
    them."""

    path: str
    about: dict[str, Any]
    held: dict[str, tuple[Shape, str]]          # shapes and element types
    arrays: Callable[[], dict[str, np.ndarray]]


@contextmanager
def _opened(path: str | Path) -> Iterator[Saved]:
    """The file's header, checked; the arrays are read when they are asked for."""
    from safetensors import safe_open
    name = name_of(path, "load")
    if not os.path.isfile(name):
        raise FileNotFoundError(f"load: expected a file that save wrote. Received: {path}, where "
                                "there is none.")
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
        yield Saved(name, _metadata(raw, name), held, arrays)


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
                         f"{path}, which is {what} "
                         f"({str(error):.200}){formats.remedy(what)}.") from error
    except OSError as error:
        raise OSError(error.errno, f"load: expected a file that can be read. Received: {path} "
                                   f"({error.strerror or error})"
                      ) from error


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
        raise ValueError("load: expected an architecture and a progress in the metadata. "
                         f"Received: {path}, "
                         f"architecture {plan!r:.80}, progress {progress!r:.80}.")
    if not all(isinstance(count := progress.get(name), int) and 0 <= count < 2**64
               for name in ("epochs", "steps", "uses")):
        raise ValueError("load: expected counts of epochs, steps and uses in the metadata. "
                         f"Received: {path}, {progress!r:.80}.")
    if not isinstance(about.get("tuning", {}), dict):
        raise ValueError(f"load: expected tuning to be a table. Received: {path}, tuning "
                         f"{about['tuning']!r:.80}.")
    return about


def _built(saved: Saved, backend: str | Backend, layers: Sequence[type[Layer]]) -> Graph:
    plan = saved.about["architecture"]
    try:
        inputs, outputs, declared = graph(plan, layers)
    # whatever a constructor says to arguments that no layer of ours was saved with
    except Exception as error:
        raise ValueError("load: expected an architecture whose layers can be built. Received: "
                         f"{saved.path} "
                         f"({type(error).__name__}: "
                         f"{' '.join(str(error).split()):.{MOST_CHARACTERS}}).") from error
    _check(saved, declared)         # before a network of whatever size the file claims is allocated
    net = Graph(inputs, outputs, backend=backend, dtype=plan.get("dtype"), seed=plan.get("seed"))       # type: ignore[arg-type]
    if not isinstance(backend, Backend):    # made here, so it may take over what the run had tuned
        net.backend.tuning |= saved.about.get("tuning", {})
    _copy(net, saved)
    return net


def _compare(saved: Saved, net: Graph) -> None:
    try:
        found = differences(saved.about["architecture"], net)
    except ValueError as error:
        raise ValueError(f"load: expected an architecture in the metadata. Received: {saved.path} "
                         f"({error}).") from error
    if found:
        more = (f", and {len(found) - MOST_SHOWN} more differences" if len(found) > MOST_SHOWN
                else "")
        raise ValueError("load: expected a file of a network of this architecture. Received: "
                         f"{saved.path}, where "
                         f"{', '.join(found[:MOST_SHOWN])}{more}. net.load(path, "
                         "architecture=False) takes the arrays alone.")


def _check(saved: Saved, places: dict[str, Parameter]) -> None:
    if saved.held.keys() != places.keys():
        differing = (", ".join(shown(name)[1:-1]
                               for name in sorted(saved.held.keys() ^ places.keys())[:5]))
        raise ValueError(f"load: expected the arrays of this network. Received: {saved.path}, "
                         f"which differs in {differing}.")
    for name, (shape, elements) in saved.held.items():
        if shape != places[name].shape or elements not in FLOATS.values():
            raise ValueError(f"load: expected {shown(name)[1:-1]} to be floating-point numbers of "
                             f"shape {places[name].shape}. "
                             f"Received: {elements} of shape {shape} in {saved.path}.")


def _copy(net: Graph, saved: Saved) -> None:
    places = net.arrays
    _check(saved, places)
    arrays, progress = saved.arrays(), saved.about["progress"]      # all, before one is changed
    net.epochs = progress["epochs"]
    if net.step is not None:
        net.step.release()
    with net.backend.scope():
        for name, array in arrays.items():
            places[name].data[...] = net.backend.asarray(array, net.dtype)
        net.counters[...] = (net.backend.asarray(np.array([progress["steps"], progress["uses"]],
                                                          np.uint64)))
