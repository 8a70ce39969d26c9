"""Networks as safetensors files: the arrays under "layer.parameter", all else as one JSON text in the metadata.

One text, because safetensors writes several metadata entries in an order that changes from run to run, and the same
network should give the same file.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

from xpnet import layers as library
from xpnet.backends import Backend
from xpnet.io.files import write_atomically
from xpnet.layer import Layer, Node
from xpnet.network import Input, Network

FORMAT = "xpnet-1"


def save(net: Network, path: str | Path) -> None:
    """Write the network's architecture, parameters, state and step counters; the old file stays until the new is complete."""
    from safetensors.numpy import save as to_bytes
    arrays = {name: np.array(net.backend.to_numpy(p.data)) for name, p in net.buffers.arrays.items()}
    steps, uses = (int(counter) for counter in net.backend.to_numpy(net.counters))
    about = {"format": FORMAT, "architecture": architecture(net),
             "progress": {"epochs": net.epochs, "steps": steps, "uses": uses}}
    write_atomically(path, to_bytes(arrays, {"xpnet": json.dumps(about, default=_plain)}))


def load(path: str | Path, *, backend: str | Backend = "auto", layers: Sequence[type[Layer]] = ()) -> Network:
    """The network that a file holds. Layer classes of your own are named in `layers`.

    ValueError for a file that is truncated, that xpnet did not write, or whose architecture and arrays disagree.
    """
    arrays, metadata = _read(path)
    net = _rebuild(metadata, backend, layers, path)
    _copy(net, arrays, metadata, path)
    return net


def load_weights(net: Network, path: str | Path) -> None:
    """Copy a file's parameters and state into a network with the same layers; on any error it is untouched."""
    _copy(net, *_read(path), path)


def architecture(net: Network) -> dict[str, Any]:
    """The network without its arrays, as JSON can hold it."""
    return {
        "input_shape": net.input.shape, "output": net.output.layer.name if net.output.layer else None,
        "dtype": net.dtype.name, "seed": net.seed,
        "layers": [{"type": type(layer).__name__, "trainable": layer.trainable, "config": layer.config(),
                    "inputs": [parent.layer.name if parent.layer else None for parent in node.parents]}
                   for node in net.nodes if (layer := node.layer) is not None],
    }


def _plain(value: Any) -> Any:
    """A constructor's argument that JSON does not know: NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"save: expected layers whose constructors take numbers, strings, lists or None. Received: {value!r}.")


def _read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays and the decoded metadata, read and checked before anything is changed."""
    from safetensors import SafetensorError, safe_open
    try:
        with safe_open(str(path), framework="numpy") as file:
            raw = file.metadata() or {}
            arrays = {name: file.get_tensor(name) for name in file.keys()}      # noqa: SIM118 - it is no dict
    except SafetensorError as error:
        raise ValueError(f"load: expected a complete safetensors file. Received: {path}, which is truncated or no such file "
                         f"({error}).") from error
    try:
        about = json.loads(raw.get("xpnet", "null"))
    except json.JSONDecodeError as error:
        raise ValueError(f"load: expected metadata in JSON. Received: {path} ({error}).") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"load: expected a file that xpnet saved (format {FORMAT}). Received: {path}, metadata {raw!r:.80}.")
    return arrays, about


def _rebuild(metadata: dict[str, Any], backend: str | Backend, layers: Sequence[type[Layer]], path: str | Path) -> Network:
    plan = metadata["architecture"]
    classes: dict[str, type[Layer]] = {name: getattr(library, name) for name in library.__all__}
    classes |= {layer.__name__: layer for layer in layers}
    try:
        nodes: dict[str | None, Node] = {None: Input(plan["input_shape"])}
        for entry in plan["layers"]:
            if entry["type"] not in classes:
                raise ValueError(f"load: expected layers that xpnet has, or their classes in layers=[...]. "
                                 f"Received: {entry['type']} in {path}.")
            layer = classes[entry["type"]](**entry["config"])
            layer.trainable = entry["trainable"]
            nodes[entry["config"]["name"]] = layer(*(nodes[name] for name in entry["inputs"]))
        return Network(nodes[None], nodes[plan["output"]], backend=backend, dtype=plan["dtype"], seed=plan["seed"])
    except (KeyError, TypeError) as error:
        raise ValueError(f"load: expected an architecture as xpnet writes it. Received: {path} ({error!r}).") from error


def _copy(net: Network, arrays: dict[str, np.ndarray], metadata: dict[str, Any], path: str | Path) -> None:
    places = net.buffers.arrays
    if arrays.keys() != places.keys():
        differing = ", ".join(sorted(arrays.keys() ^ places.keys())[:5])
        raise ValueError(f"load: expected the arrays of this network. Received: {path}, which differs in {differing}.")
    for name, array in arrays.items():
        if array.shape != places[name].shape or array.dtype.kind != "f":
            raise ValueError(f"load: expected {name} to be floating-point numbers of shape {places[name].shape}. "
                             f"Received: {array.dtype} of shape {array.shape} in {path}.")
    progress = metadata["progress"]
    counters = np.array([progress["steps"], progress["uses"]], np.uint64)
    net.epochs = int(progress["epochs"])
    for name, array in arrays.items():
        places[name].data[...] = net.backend.asarray(array, net.dtype)
    net.counters[...] = net.backend.asarray(counters)
