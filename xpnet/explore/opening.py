"""The networks that `xpnet explore` opens: by name, from files, and to compare with."""

from __future__ import annotations

import copy
import inspect
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from xpnet.backends import Backend, get_backend
from xpnet.backends.registry import is_name
from xpnet.checks import perhaps, shown
from xpnet.io import formats
from xpnet.layer import Layer
from xpnet.models import DARKNETS, MODELS
from xpnet.network import Network, load

if TYPE_CHECKING:
    from xpnet.data import Dataset

WHO = "explore"
NAMED: dict[str, Callable[..., Network]] = {**MODELS, **DARKNETS}


def opened(model: str, *, data: Dataset | None = None, backend: str | Backend = "auto",
           seed: int = 0, layers: Sequence[type[Layer]] = ()) -> Network:
    """The network of a name of xpnet.models, of a file that `save` wrote, or of an ONNX file."""
    if model in NAMED:
        return named(model, data=data, backend=backend, seed=seed)
    if not Path(model).expanduser().is_file():
        raise ValueError(f"{WHO}: expected a file, or one of {', '.join(NAMED)}"
                         + perhaps(model, NAMED) + f". Received: {shown(model)}, which is "
                         "neither.")
    if formats.of_name(model) == "ONNX":
        from xpnet.io.onnx.load import load_onnx
        return load_onnx(Path(model).expanduser(), backend=backend, seed=seed)
    return load(Path(model).expanduser(), backend=backend, layers=layers)


def named(model: str, *, data: Dataset | None = None, backend: str | Backend = "auto",
          seed: int = 0) -> Network:
    """A network of xpnet.models for the samples and classes of a data set, if the model has these
    arguments. Without a data set it has its own input shape, and its classes are numbers."""
    if model not in NAMED:
        raise ValueError(f"{WHO}: expected model to be one of {', '.join(NAMED)}"
                         + perhaps(model, NAMED) + f". Received: {shown(model)}.")
    function = NAMED[model]
    arguments: dict[str, Any] = {"backend": backend, "seed": seed}
    if data is not None:
        arguments |= {"input_shape": data.shape, "classes": data.classes}
    names = inspect.signature(function).parameters
    net = function(**{name: value for name, value in arguments.items()
                      if name in names and value is not None})
    shape = net.outs.nodes[0].shape
    if net.classes is None and len(net.outs) == 1 and len(shape) == 1 and "classes" in names:
        net.classes = tuple(map(str, range(shape[0])))
    return net


def compared(net: Network, what: str, layers: Sequence[type[Layer]] = ()) -> tuple[Network, bool]:
    """The network of side "b", and whether it is a copy of the first on another backend: `what` is
    a backend or a file. ValueError if its structure is another one."""
    if is_name(what):
        other = copy.deepcopy(net)
        other.move(get_backend(what))
        return other, True
    if not Path(what).expanduser().is_file():
        raise ValueError(f"{WHO}: expected a backend or a file to compare with. Received: "
                         f"{shown(what)}, which is neither.")
    other = opened(what, backend=net.backend, layers=layers)
    if (difference := _difference(net, other)) is not None:
        raise ValueError(f"{WHO}: expected a file with a network of the same structure to compare "
                         f"with. Received: {shown(what)}, {difference}.")
    return other, False


def _difference(net: Network, other: Network) -> str | None:
    """Where the structures of two networks differ first; None if they are the same."""
    nodes = [(*one.in_nodes, *one.nodes) for one in (net, other)]
    index = [{node: k for k, node in enumerate(those)} for those in nodes]
    for a, b in zip(*nodes, strict=False):
        kinds = [type(node.layer).__name__ if node.layer else "Input" for node in (a, b)]
        if kinds[0] != kinds[1]:
            return f"where {b.name} is {kinds[1]} and not {kinds[0]}"
        if a.shape != b.shape:
            return f"where {b.name} has the shape {b.shape} and not {a.shape}"
        read = [[those[parent] for parent in node.parents]
                for those, node in zip(index, (a, b), strict=True)]
        if read[0] != read[1]:
            names = [", ".join(parent.name for parent in node.parents) for node in (a, b)]
            return f"where {b.name} reads {names[1]} and not {names[0]}"
    if len(nodes[0]) != len(nodes[1]):
        return f"which has {len(nodes[1])} values and not {len(nodes[0])}"
    outs = [[those[node] for node in one.outs.nodes] for those, one in
            zip(index, (net, other), strict=True)]
    return None if outs[0] == outs[1] else "whose outputs are others"
