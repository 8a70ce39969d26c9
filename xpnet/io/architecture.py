"""The architecture of a network as JSON can hold it: written, built again, and compared."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import layers as library
from xpnet.backends.arguments import shown
from xpnet.layer import Layer, Node, Parameter
from xpnet.network import Input, Network

Entry = dict[str, Any]
# arguments that say nothing about what a layer computes: its arrays are in the file
IRRELEVANT = "name", "init"


def architecture(net: Network) -> dict[str, Any]:
    """The network without its arrays."""
    return {
        "input_shape": net.input.shape, "output": net.output.layer.name if net.output.layer
        else None,
        "dtype": net.dtype.name, "seed": net.seed,
        "layers": [{"name": layer.name, "type": type(layer).__name__, "trainable": layer.trainable,
                    "config": _config(layer),
                    "inputs": [parent.layer.name if parent.layer else None
                               for parent in node.parents]}
                   for node in net.nodes if (layer := node.layer) is not None],
    }


def _config(layer: Layer) -> dict[str, Any]:
    try:
        return layer.config()
    except AttributeError as error:
        raise AttributeError(f"save: {layer.who}: expected every argument of the constructor in an "
                             "attribute of the same name. "
                             f"Received: {error}.") from error


def as_json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """A constructor's argument that JSON does not know: NumPy's numbers and arrays as Python's."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    raise TypeError("save: expected layers whose constructors take numbers, strings, lists or "
                    f"None. Received: {value!r}.")


def own_layers(net: Network) -> list[type[Layer]]:
    """The classes of the network's layers that are not the library's."""
    return (list({type(layer): None for layer in net.layers
                  if getattr(library, type(layer).__name__, None) is not type(layer)}))


def entries(plan: dict[str, Any]) -> list[Entry]:
    """The entries of the layers; ValueError where one is none."""
    found = plan.get("layers")
    if not isinstance(found, list):
        raise ValueError(f"the layers are no list but {shown(found)}")
    for entry in found:
        if not (isinstance(entry, dict) and isinstance(entry.get("config"), dict)
                and isinstance(entry.get("inputs"), list)
                and all(isinstance(entry.get(key), str) for key in ("name", "type"))
                and all(name is None or isinstance(name, str) for name in entry["inputs"])):
            raise ValueError(f"an entry of the layers is {shown(entry)}")
    return found


def graph(plan: dict[str, Any], layers: Sequence[type[Layer]]
          ) -> tuple[Node, Node, dict[str, Parameter]]:
    """Input, output and declared arrays of the network that was saved. Nothing large is allocated:
    layers only declare."""
    classes: dict[str, type[Layer]] = {name: getattr(library, name) for name in library.__all__}
    classes |= {layer.__name__: layer for layer in layers}
    declared: dict[str, Parameter] = {}
    nodes: dict[str | None, Node] = {None: Input(plan.get("input_shape"))}      # type: ignore[arg-type] # it checks
    for entry in entries(plan):
        if entry["type"] not in classes:
            raise LookupError(f"xpnet has no layer {shown(entry['type'])[1:-1]}; "
                              "if it is yours, name its class in layers=[...]")
        layer = classes[entry["type"]](**entry["config"])
        layer.name, layer.trainable = entry["name"], entry.get("trainable")     # type: ignore[assignment] # it checks
        nodes[layer.name] = layer(*(nodes[name] for name in entry["inputs"]))
        declared |= {f"{layer.name}.{p.name}": p for p in layer.parameters + layer.states}
    return nodes[None], nodes[plan.get("output")], declared


def differences(plan: dict[str, Any], net: Network) -> list[str]:
    """In what the architecture of a file differs from the network's: "relu1 is a Tanh and not a
    ReLU", ...

    The dtype, the seed and which layers are trainable may differ, and so may what a constructor
    draws initial values with.
    """
    own = json.loads(as_json(architecture(net)))
    theirs, ours = ({entry["name"]: entry for entry in entries(one)} for one in (plan, own))
    found = []
    if plan.get("input_shape") != own["input_shape"]:
        found.append(f"the input has shape {shown(plan.get('input_shape'))} and not "
                     f"{own['input_shape']}")
    for layer, (name, entry) in zip(net.layers, ours.items(), strict=True):
        if name not in theirs:
            found.append(f"there is no layer {name}")
            continue
        found += _differing(theirs[name], entry, _defaults(type(layer)))
    found += [f"there is a layer {shown(name)[1:-1]}" for name in theirs if name not in ours]
    if plan.get("output") != own["output"]:
        found.append(f"the output is that of {shown(plan.get('output'))} and not of "
                     f"{own['output']!r}")
    return found


def _differing(theirs: Entry, ours: Entry, defaults: dict[str, Any]) -> list[str]:
    name = ours["name"]
    if theirs["type"] != ours["type"]:
        return [f"{name} is of type {shown(theirs['type'])[1:-1]} and not {ours['type']}"]
    found = []
    for key in dict.fromkeys([*ours["config"], *theirs["config"]]):
        if key not in IRRELEVANT:
            # A file from before the argument was there has the default.
            a, b = (entry["config"].get(key, defaults.get(key)) for entry in (theirs, ours))
            if not _same(a, b):
                found.append(f"{name} has {key}={shown(a)} and not {shown(b)}")
    if theirs["inputs"] != ours["inputs"]:
        found.append(f"{name} reads {shown(theirs['inputs'])} and not {ours['inputs']}")
    return found


def _same(a: Any, b: Any) -> bool:
    """Equal, or once a number and once a list of just this number: 3 and [3, 3] are the same kernel
    size."""
    if isinstance(a, list) != isinstance(b, list):
        several, one = (a, b) if isinstance(a, list) else (b, a)
        return bool(several) and all(value == one for value in several)
    return bool(a == b)


def _defaults(kind: type[Layer]) -> dict[str, Any]:
    found = inspect.signature(kind.__init__).parameters.values()
    return json.loads(json.dumps({p.name: p.default for p in found if p.default is not p.empty},
                                 default=lambda value: None))
