"""Optimizer rules as compiled loops, for float32."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import optimizers
from xpnet.backends.numba.kernels.arrays import FLOAT32, ready, writable
from xpnet.backends.numba.kernels.jit import Kernel
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.rules import rule_for

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


# The kernels have the names of their rules.
KERNELS = {name: value for name, value in vars(optimizers).items() if isinstance(value, Kernel)}


def update(self: NumbaBackend, rule: str, w: Array, g: Array, slots: Sequence[Array | None],
           hyper: Array, *, decayed: int) -> None:
    rule_for(rule, slots, hyper)
    held = [a for a in slots if a is not None]
    if rule not in KERNELS or g.dtype != FLOAT32 or not writable(w, *held):
        NumpyBackend.update(self, rule, w, g, slots, hyper, decayed=decayed)
        return
    flat = (w.size,)
    # w is passed for a slot that is not used
    written = [(w if a is None else a).reshape(flat) for a in slots]
    bits = sum(1 << s for s, a in enumerate(slots) if a is not None)
    KERNELS[rule](self.threads_for(w.size), w.reshape(flat), ready(g, flat), *written,
                  ready(hyper, hyper.shape), bits, decayed)
