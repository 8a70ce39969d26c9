"""Networks as safetensors files: the arrays under "layer.parameter", all else as one JSON text in the metadata.

One text, because safetensors writes several metadata entries in an order that changes from run to run, and the same
network should give the same file.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet import layers as library
from xpnet.backends import Backend
from xpnet.io.files import write_atomically
from xpnet.layer import Layer, Node, Parameter
from xpnet.network import Input, Network

if TYPE_CHECKING:
    from pathlib import Path

FORMAT = "xpnet-1"


def save(net: Network, path: str | Path) -> None:
    """Write the network's architecture, parameters, state and step counters; the old file stays until the new is complete."""
    import json

    from safetensors.numpy import save as to_bytes
    arrays = {name: np.array(net.backend.to_numpy(p.data)) for name, p in net.buffers.arrays.items()}
    steps, uses = (int(counter) for counter in net.backend.to_numpy(net.counters))
    about = {"format": FORMAT, "architecture": architecture(net),
             "progress": {"epochs": net.epochs, "steps": steps, "uses": uses}}
    if net.backend.tuning:
        about["tuning"] = net.backend.tuning
    write_atomically(path, to_bytes(arrays, {"xpnet": json.dumps(about, default=_plain)}))


def load(path: str | Path, *, backend: str | Backend = "auto", layers: Sequence[type[Layer]] = ()) -> Network:
    """The network that a file holds. Layer classes of your own are named in `layers`.

    ValueError for a file that is truncated, that xpnet did not write, or whose architecture and arrays disagree.
    """
    arrays, about = _read(path)
    inputs, output, declared = _graph(about, layers, path)
    _check(arrays, declared, path)      # before a network of whatever size the file claims is allocated
    plan = about["architecture"]
    net = Network(inputs, output, backend=backend, dtype=plan.get("dtype"), seed=plan.get("seed"))
    if not isinstance(backend, Backend):                # one of its own: the bits of the saved run, on the same kind of GPU
        net.backend.tuning |= about.get("tuning", {})
    _copy(net, arrays, about, path)
    return net


def load_weights(net: Network, path: str | Path) -> None:
    """Copy a file's parameters and state into a network with the same layers; on any error it is untouched."""
    _copy(net, *_read(path), path)


def architecture(net: Network) -> dict[str, Any]:
    """The network without its arrays, as JSON can hold it."""
    return {
        "input_shape": net.input.shape, "output": net.output.layer.name if net.output.layer else None,
        "dtype": net.dtype.name, "seed": net.seed,
        "layers": [{"name": layer.name, "type": type(layer).__name__, "trainable": layer.trainable, "config": _config(layer),
                    "inputs": [parent.layer.name if parent.layer else None for parent in node.parents]}
                   for node in net.nodes if (layer := node.layer) is not None],
    }


def _config(layer: Layer) -> dict[str, Any]:
    try:
        return layer.config()
    except AttributeError as error:
        raise AttributeError(f"save: {layer.who}: expected every argument of the constructor in an attribute of the same name. "
                             f"Received: {error}.") from error


def _plain(value: Any) -> Any:
    """A constructor's argument that JSON does not know: NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError(f"save: expected layers whose constructors take numbers, strings, lists or None. Received: {value!r}.")


def _read(path: str | Path) -> tuple[dict[str, np.ndarray], dict[str, Any]]:
    """All arrays and the decoded metadata, read and checked before anything is changed."""
    from safetensors import SafetensorError, safe_open
    if not os.path.isfile(path):
        raise FileNotFoundError(f"load: expected a file that save wrote. Received: {path}, where there is none.")
    try:
        with safe_open(str(path), framework="numpy") as file:
            about = _metadata(file.metadata() or {}, path)
            return {name: file.get_tensor(name) for name in file.keys()}, about     # noqa: SIM118 - it is no dict
    except (SafetensorError, TypeError, AttributeError) as error:       # the last two: of element types that NumPy has not
        raise ValueError(f"load: expected a complete safetensors file. Received: {path}, which is truncated or no such file "
                         f"({error}).") from error


def _metadata(raw: dict[str, str], path: str | Path) -> dict[str, Any]:
    import json
    try:
        about = json.loads(raw.get("xpnet", "null"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"load: expected metadata in JSON. Received: {path} ({error}).") from error
    if not isinstance(about, dict) or about.get("format") != FORMAT:
        raise ValueError(f"load: expected a file that xpnet saved (format {FORMAT}). Received: {path}, metadata {raw!r:.80}.")
    plan, progress = about.get("architecture"), about.get("progress")
    if not isinstance(plan, dict) or not isinstance(progress, dict):
        raise ValueError(f"load: expected an architecture and a progress in the metadata. Received: {path}, "
                         f"architecture {plan!r:.80}, progress {progress!r:.80}.")
    if not all(isinstance(count := progress.get(name), int) and 0 <= count < 2**64 for name in ("epochs", "steps", "uses")):
        raise ValueError(f"load: expected counts of epochs, steps and uses in the metadata. Received: {path}, {progress!r:.80}.")
    if not isinstance(about.get("tuning", {}), dict):
        raise ValueError(f"load: expected tuning to be a table. Received: {path}, tuning {about['tuning']!r:.80}.")
    return about


def _graph(about: dict[str, Any], layers: Sequence[type[Layer]], path: str | Path
           ) -> tuple[Node, Node, dict[str, Parameter]]:
    """Input, output and declared arrays of the network that the metadata describe."""
    classes: dict[str, type[Layer]] = {name: getattr(library, name) for name in library.__all__}
    classes |= {layer.__name__: layer for layer in layers}
    plan = about["architecture"]
    declared: dict[str, Parameter] = {}
    try:
        nodes: dict[str | None, Node] = {None: Input(plan["input_shape"])}
        for entry in plan["layers"]:
            if entry["type"] not in classes:
                raise LookupError(f"xpnet has no layer {entry['type']}; if it is yours, name its class in layers=[...]")
            layer = classes[entry["type"]](**entry["config"])
            layer.name, layer.trainable = entry["name"], entry["trainable"]
            nodes[layer.name] = layer(*(nodes[name] for name in entry["inputs"]))
            declared |= {f"{layer.name}.{p.name}": p for p in layer.parameters + layer.states}
        return nodes[None], nodes[plan["output"]], declared
    except Exception as error:      # whatever a constructor says to arguments that no layer of ours was saved with
        raise ValueError(f"load: expected an architecture whose layers can be built. Received: {path} "
                         f"({type(error).__name__}: {error}).") from error


def _check(arrays: dict[str, np.ndarray], places: dict[str, Parameter], path: str | Path) -> None:
    if arrays.keys() != places.keys():
        differing = ", ".join(sorted(arrays.keys() ^ places.keys())[:5])
        raise ValueError(f"load: expected the arrays of this network. Received: {path}, which differs in {differing}.")
    for name, array in arrays.items():
        if array.shape != places[name].shape or array.dtype.kind != "f":
            raise ValueError(f"load: expected {name} to be floating-point numbers of shape {places[name].shape}. "
                             f"Received: {array.dtype} of shape {array.shape} in {path}.")


def _copy(net: Network, arrays: dict[str, np.ndarray], about: dict[str, Any], path: str | Path) -> None:
    _check(arrays, net.buffers.arrays, path)
    progress = about["progress"]
    net.epochs = progress["epochs"]
    if net._train_step is not None:
        net._train_step.release()
    with net.backend.scope():
        for name, array in arrays.items():
            net.buffers.arrays[name].data[...] = net.backend.asarray(array, net.dtype)
        net.counters[...] = net.backend.asarray(np.array([progress["steps"], progress["uses"]], np.uint64))
