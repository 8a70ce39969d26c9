"""`net.load_torch`: the weights of PyTorch."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

from xpnet.checks import expect_flag, wrong
from xpnet.graph import Graph
from xpnet.io.files import name_of
from xpnet.io.imports import matching, torchvision
from xpnet.io.imports.layouts import units
from xpnet.io.imports.tensors import WHO, opened
from xpnet.io.report import LoadReport

if TYPE_CHECKING:
    from pathlib import Path

TORCHVISION = "torchvision"


def load_torch(net: Graph, path: str | Path, mapping: str | Mapping[str, str] | None = None, *,
               strict: bool = True) -> LoadReport:
    """Copy the weights of a PyTorch network from a .safetensors or .pth file; see
    Network.load_torch."""
    strict = expect_flag(WHO, "strict", strict)
    named = isinstance(mapping, str) and mapping == TORCHVISION
    if not (mapping is None or named or isinstance(mapping, Mapping)):
        raise wrong(WHO, f'mapping to be None, "{TORCHVISION}" or a dict of names', "mapping",
                    mapping)
    ours = units(net)
    with opened(path) as tensors:
        modules = matching.modules_of(tensors.named)
        if isinstance(mapping, Mapping):
            found = matching.by_names(WHO, ours, modules, mapping)
        elif named:
            found = matching.by_order(ours, torchvision.in_order(modules, len(net.outs) > 1))
        elif tensors.ordered:
            found = matching.by_order(ours, modules)
        else:
            found = matching.by_shape(WHO, ours, modules)
        return matching.load(WHO, net, name_of(path, WHO), found, strict)
