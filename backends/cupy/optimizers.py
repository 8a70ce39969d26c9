"""Optimizer rules on an NVIDIA GPU: one pass over the flat buffers."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import cache
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.rows import along_array, has_kernels
from xpnet.backends.rules import RULES, rule_for

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


SLOTS = 3                               # arguments of the kernel


@cache
def structs() -> dict[str, str]:
    """{rule: its struct in optimizers.cu}, for the rules that have one: Adamw for "adamw"."""
    there = re.findall(r"^struct (\w+)", cuda_launch.source("optimizers"), flags=re.MULTILINE)
    return {rule: rule.capitalize() for rule in RULES if rule.capitalize() in there}


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {"optimizers": tuple(f"update<{name}, {width}, {struct}>"
                                for struct in structs().values()
                                for name, width in cuda_launch.types_and_extreme_widths())}


def update(self: CupyBackend, rule: str, w: Array, g: Array, slots: Sequence[Array | None],
           hyper: Array, *, decayed: int) -> None:
    rule_for(rule, slots, hyper)
    held = [a for a in slots if a is not None]
    if rule not in structs() or not has_kernels(w, g,
                                                *held) or hyper.dtype != np.float64 or not all(
            a.flags.c_contiguous for a in (w, g, *held, hyper)):
        Backend.update(self, rule, w, g, slots, hyper, decayed=decayed)
        return
    types, launch = along_array(2, w, g, *held)
    bits = sum(1 << s for s, a in enumerate(slots) if a is not None)
    # w takes the place of a missing slot; the kernel does not read it.
    pointers = [w if a is None else a for a in (*slots, *[None] * (SLOTS - len(slots)))]
    self._launch("optimizers", f"update<{types}, {structs()[rule]}>", launch, w, g, *pointers,
                 hyper, np.int32(bits), np.int64(decayed), np.int64(w.size))
