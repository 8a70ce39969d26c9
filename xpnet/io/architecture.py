"""The architecture of a network as JSON: written, built again, and compared."""

from __future__ import annotations

import inspect
import json
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet import layers as library
from xpnet.backends.arguments import bare, shown
from xpnet.buffers import Parameter
from xpnet.graph import Graph, Input
from xpnet.layer import Layer
from xpnet.node import Node
from xpnet.ports import Ports

Entry = dict[str, Any]
IRRELEVANT = "name", "init"     # arguments that do not change what a built layer computes


def architecture(net: Graph) -> dict[str, Any]:
    """The network without its arrays.

    The entry of a second use of a layer names the layer instead of its type and arguments.
    """
    entries: list[Entry] = []
    first: dict[Layer, str] = {}        # names of the layers' first uses
    for node in net.nodes:
        layer = node.layer
        assert layer is not None
        inputs = [parent.name for parent in node.parents]
        if layer in first:
            entries.append({"name": node.name, "layer": first[layer], "inputs": inputs})
            continue
        first[layer] = node.layer_name
        entries.append({"name": node.layer_name, "type": type(layer).__name__,
                        "trainable": layer.trainable, "lr_scale": layer.lr_scale,
                        "config": layer.config(), "inputs": inputs})
    ins = [{"name": node.name, "shape": node.shape} | ({"lengths": True} if node.lengths else {})
           for node in net.ins.nodes]
    return {"inputs": ins,
            "outputs": [node.name for node in net.outs.nodes],
            "input_keys": net.ins.form, "output_keys": net.outs.form,
            "dtype": net.dtype.name, "seed": net.seed, "layers": entries}


def as_json(value: Any) -> str:
    return json.dumps(value, default=_plain)


def _plain(value: Any) -> Any:
    """NumPy's numbers and arrays as Python's, for JSON; a layer that is an argument of another one
    as its type and arguments."""
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, Layer):
        return {"type": type(value).__name__, "config": value.config()}
    raise TypeError("save: expected layers and losses whose constructors take numbers, strings, "
                    f"lists or None. Received: {value!r}.")


def own_layers(net: Graph) -> list[type[Layer]]:
    """The classes of the network's layers that are not part of xpnet, and those of layers that are
    their arguments."""
    arguments = [value for layer in net.layers for value in layer.config().values()
                 if isinstance(value, Layer)]
    return list({type(layer): None for layer in (*net.layers, *arguments)
                 if getattr(library, type(layer).__name__, None) is not type(layer)})


def entries(plan: dict[str, Any]) -> list[Entry]:
    """The entries of the layers; ValueError if one is malformed."""
    found = _list_of(plan, "layers", dict)
    for entry in found:
        again = isinstance(entry.get("layer"), str)         # a second use of a layer
        new = isinstance(entry.get("type"), str) and isinstance(entry.get("config"), dict)
        if not ((again or new) and isinstance(entry.get("name"), str)
                and isinstance(entry.get("inputs"), list)
                and all(isinstance(name, str) for name in entry["inputs"])):
            raise ValueError(f"an entry of the layers is {shown(entry)}")
    return found


def _list_of(plan: dict[str, Any], key: str, kind: type) -> list[Any]:
    found = plan.get(key)
    if not isinstance(found, list):
        raise ValueError(f"the {key} are not a list but {shown(found)}")
    if not all(isinstance(one, kind) for one in found):
        raise ValueError(f"the {key} are {shown(found)}")
    return found


def graph(plan: dict[str, Any],
          layers: Sequence[type[Layer]]) -> tuple[Any, Any, dict[str, Parameter]]:
    """Inputs, outputs and declared arrays of the network that was saved.

    Layers only declare their arrays here; none is allocated.
    """
    classes: dict[str, type[Layer]] = {name: getattr(library, name) for name in library.__all__}
    classes |= {layer.__name__: layer for layer in layers}
    declared: dict[str, Parameter] = {}
    nodes: dict[str, Node] = {}
    made: dict[str, Layer] = {}
    ins = _list_of(plan, "inputs", dict)
    for entry in ins:
        name = entry.get("name")
        node = nodes[name] = Input(entry.get("shape"), name=name,   # type: ignore[arg-type, index]
                                   lengths=entry.get("lengths", False))
        if node.lengths is not None:
            nodes[node.lengths.name] = node.lengths
    for entry in entries(plan):
        name, parents = entry["name"], [nodes[parent] for parent in entry["inputs"]]
        if "layer" in entry:
            nodes[name] = made[entry["layer"]].node(*parents)
            continue
        layer = made[name] = _layer(entry, classes)
        layer.name = name
        layer.trainable = entry.get("trainable")        # type: ignore[assignment]
        layer.lr_scale = entry.get("lr_scale")          # type: ignore[assignment]
        nodes[name] = layer.node(*parents)
        declared |= {f"{name}.{p.name}": p for p in layer.parameters + layer.states}
    outs = [nodes[name] for name in _list_of(plan, "outputs", str)]
    return (Ports.formed([nodes[entry["name"]] for entry in ins], plan.get("input_keys")),
            Ports.formed(outs, plan.get("output_keys")), declared)


def _layer(entry: Entry, classes: dict[str, type[Layer]]) -> Layer:
    """The layer of this type with these arguments, some of which may be layers."""
    if entry["type"] not in classes:
        raise LookupError(f"xpnet has no layer {bare(entry['type'])}; "
                          "pass a class of your own in layers=[...]")
    config: Entry = {name: _layer(value, classes) if _is_layer(value) else value
                     for name, value in entry["config"].items()}
    return classes[entry["type"]](**config)


def _is_layer(value: Any) -> bool:
    """Whether an argument in a file is a layer, as `_plain` writes it."""
    return (isinstance(value, dict) and value.keys() == {"type", "config"}
            and isinstance(value["type"], str) and isinstance(value["config"], dict))


def differences(plan: dict[str, Any], net: Graph) -> list[str]:
    """How the architecture of a file differs from the network's: "relu1 is of type Tanh and not
    ReLU", ...

    The dtype, the seed, the trainable layers and the initializers may differ.
    """
    own = json.loads(as_json(architecture(net)))
    theirs, ours = ({entry["name"]: entry for entry in entries(one)} for one in (plan, own))
    found = []
    if plan.get("inputs") != own["inputs"]:
        found.append(f"there is {_inputs(plan.get('inputs'))} and not {_inputs(own['inputs'])}")
    kinds = {name: type(layer) for name, layer in net.layer_names.items()}
    for name, entry in ours.items():
        if name not in theirs:
            found.append(f"there is no layer {name}")
            continue
        defaults = _defaults(kinds[name]) if name in kinds else {}
        found += _differing(theirs[name], entry, defaults)
    found += [f"there is a layer {bare(name)}" for name in theirs if name not in ours]
    if plan.get("outputs") != own["outputs"]:
        found.append(f"the outputs are {shown(plan.get('outputs'))} and not {own['outputs']!r}")
    return found


def _inputs(found: Any) -> str:
    """Inputs in words, e.g. "input of shape [1, 28, 28]"."""
    if not isinstance(found, list) or not all(isinstance(one, dict) for one in found):
        return shown(found)
    return ", ".join(f"{bare(one.get('name'))} of shape {shown(one.get('shape'))}"
                     + (" with lengths" if one.get("lengths") is True else "") for one in found)


def _differing(theirs: Entry, ours: Entry, defaults: dict[str, Any]) -> list[str]:
    name = ours["name"]
    for key, what in (("layer", "a use of"), ("type", "of type")):
        if theirs.get(key) != ours.get(key):
            return [f"{name} is {what} {bare(theirs.get(key))} and not {ours.get(key)}"]
    found = []
    for key in dict.fromkeys([*ours.get("config", ()), *theirs.get("config", ())]):
        if key not in IRRELEVANT:
            # A file without the argument is older than the argument, and means its default.
            a, b = (entry["config"].get(key, defaults.get(key)) for entry in (theirs, ours))
            if not _same(a, b):
                found.append(f"{name} has {key}={shown(a)} and not {shown(b)}")
    if theirs["inputs"] != ours["inputs"]:
        found.append(f"{name} reads {shown(theirs['inputs'])} and not {ours['inputs']}")
    return found


def _same(a: Any, b: Any) -> bool:
    """Whether both are equal, or one is a number and the other a list of this number: 3 and [3, 3]
    are the same kernel size."""
    if isinstance(a, list) != isinstance(b, list):
        several, one = (a, b) if isinstance(a, list) else (b, a)
        return bool(several) and all(value == one for value in several)
    return bool(a == b)


def _defaults(kind: type[Layer]) -> dict[str, Any]:
    found = inspect.signature(kind.__init__).parameters.values()
    return json.loads(json.dumps({p.name: p.default for p in found if p.default is not p.empty},
                                 default=lambda value: None))
