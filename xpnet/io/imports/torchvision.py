"""The order in which torchvision's networks use their modules, by the names of the modules.

A .safetensors file has its names in another order, and a .pth file in that of the definition, where
GoogLeNet's auxiliary classifiers stand before the last layer.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from xpnet.io.imports.matching import Module

AUXILIARY = "aux"
# conv2, inception4a, expand3x3, 0
PART = re.compile(r"([a-z_]*)(\d{0,9})(.*)", re.ASCII | re.DOTALL)
OLD = re.compile(r"\.(norm|conv)\.(\d)$")         # in the published files of DenseNets
# Groups of names that follow each other: what is not named here is in the first one.
LATER = {"layer": 1, "inception": 1, "expand": 1, "downsample": 2, "fc": 3, "classifier": 3}
# Within a number of the first group. In a layer of a DenseNet, the norm comes before the
# convolution; at the beginning of the network, behind it.
WITHIN = {"norm": 0, "conv": 1, "bn": 2, "denseblock": 4, "transition": 5}
FIRST_NORM = 3


def in_order(modules: Sequence[Module], auxiliary: bool) -> list[Module]:
    """The modules as they are used; auxiliary classifiers last, or left out."""
    others = [module for module in modules if not module.name.startswith(AUXILIARY)]
    last = [module for module in modules if module.name.startswith(AUXILIARY)]
    return sorted(others, key=_key) + (sorted(last, key=_key) if auxiliary else [])


def _key(module: Module) -> list[tuple[int, int, int, str]]:
    parts = OLD.sub(r".\1\2", module.name).split(".")
    return [_rank(part, depth) for depth, part in enumerate(parts)]


def _rank(part: str, depth: int) -> tuple[int, int, int, str]:
    word, number, rest = PART.fullmatch(part).groups()          # type: ignore[union-attr]
    within = FIRST_NORM if word == "norm" and depth == 1 else WITHIN.get(word, 0)
    return LATER.get(word, 0), int(number or 0), within, rest
