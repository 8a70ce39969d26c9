"""Optimizer rules as compiled loops, for float32."""

from __future__ import annotations

from collections.abc import Sequence

from xpnet.backends.base import Array
from xpnet.backends.numba_base import FLOAT32, NumbaBase, writable
from xpnet.backends.numba_kernels import optimizers
from xpnet.backends.numba_kernels.arrays import ready
from xpnet.backends.numba_kernels.jit import Kernel
from xpnet.backends.rules import rule_for

# The kernels have the names of their rules.
KERNELS = {name: value for name, value in vars(optimizers).items() if isinstance(value, Kernel)}


class NumbaOptimizers(NumbaBase):
    """A rule that has a kernel takes one pass over memory."""

    def update(self, rule: str, w: Array, g: Array, slots: Sequence[Array | None], hyper: Array, *,
               decayed: int) -> None:
        rule_for(rule, slots, hyper)
        held = [a for a in slots if a is not None]
        if rule not in KERNELS or g.dtype != FLOAT32 or not writable(w, *held):
            super().update(rule, w, g, slots, hyper, decayed=decayed)
            return
        flat = (w.size,)
        written = [(w if a is None else a).reshape(flat) for a in slots]        # w for a slot that is not read
        bits = sum(1 << s for s, a in enumerate(slots) if a is not None)
        KERNELS[rule](self.crew(w.size), w.reshape(flat), ready(g, flat), *written, ready(hyper, hyper.shape),
                      bits, decayed)
