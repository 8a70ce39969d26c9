"""Optimizer updates on an NVIDIA GPU: one pass over the flat buffers."""

from __future__ import annotations

import numpy as np

from xpnet.backends import cuda_launch
from xpnet.backends.base import Array
from xpnet.backends.cupy_rows import CupyRows

RULES = ("Sgd", "Adam", "Amsgrad", "Nadam", "Adamax", "Adagrad", "Adadelta", "RmsProp", "Rprop", "Lion")     # of optimizers.cu
SLOTS = 3                               # that its kernel takes


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched from here, by family: the names that the compiler is asked for."""
    return {"optimizers": tuple(f"update<{name}, {width}, {rule}>" for rule in RULES
                                for name, width in cuda_launch.types_and_extreme_widths())}


class CupyOptimizers(CupyRows):
    """Every optimizer on an NVIDIA GPU. Plain xp where types are mixed, or a buffer is not contiguous."""

    def sgd(self, w: Array, g: Array, v: Array | None, hyper: Array, *, nesterov: bool, decayed: int) -> None:
        if not self._update("Sgd", w, g, (v,), hyper, decayed, nesterov):
            super().sgd(w, g, v, hyper, nesterov=nesterov, decayed=decayed)

    def adam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decoupled: bool, decayed: int) -> None:
        if not self._update("Adam", w, g, (m, v), hyper, decayed, decoupled):
            super().adam(w, g, m, v, hyper, decoupled=decoupled, decayed=decayed)

    def amsgrad(self, w: Array, g: Array, m: Array, v: Array, top: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Amsgrad", w, g, (m, v, top), hyper, decayed):
            super().amsgrad(w, g, m, v, top, hyper, decayed=decayed)

    def nadam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Nadam", w, g, (m, v), hyper, decayed):
            super().nadam(w, g, m, v, hyper, decayed=decayed)

    def adamax(self, w: Array, g: Array, m: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Adamax", w, g, (m, u), hyper, decayed):
            super().adamax(w, g, m, u, hyper, decayed=decayed)

    def adagrad(self, w: Array, g: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Adagrad", w, g, (s,), hyper, decayed):
            super().adagrad(w, g, s, hyper, decayed=decayed)

    def adadelta(self, w: Array, g: Array, v: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Adadelta", w, g, (v, u), hyper, decayed):
            super().adadelta(w, g, v, u, hyper, decayed=decayed)

    def rmsprop(self, w: Array, g: Array, v: Array, mean: Array | None, velocity: Array | None, hyper: Array, *,
                decayed: int) -> None:
        if not self._update("RmsProp", w, g, (v, mean, velocity), hyper, decayed):
            super().rmsprop(w, g, v, mean, velocity, hyper, decayed=decayed)

    def rprop(self, w: Array, g: Array, before: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Rprop", w, g, (before, s), hyper, decayed):
            super().rprop(w, g, before, s, hyper, decayed=decayed)

    def lion(self, w: Array, g: Array, m: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update("Lion", w, g, (m,), hyper, decayed):
            super().lion(w, g, m, hyper, decayed=decayed)

    def _update(self, rule: str, w: Array, g: Array, slots: tuple[Array | None, ...], hyper: Array, decayed: int,
                way: bool = False) -> bool:
        """Launch a rule, with w for the slots that are None: it does not look at them. False where it has no kernel."""
        held = [a for a in slots if a is not None]
        if not self._has_kernels(w, g, *held) or hyper.dtype != np.float64 or not all(
                a.flags.c_contiguous for a in (w, g, *held, hyper)):
            return False
        types, launch = self._array(2, w, g, *held)
        bits = sum(1 << s for s, a in enumerate(slots) if a is not None)
        pointers = [w if a is None else a for a in (*slots, *[None] * (SLOTS - len(slots)))]
        self._launch("optimizers", f"update<{types}, {rule}>", launch, w, g, *pointers, hyper, np.int32(bits), np.bool_(way),
                     np.int64(decayed), np.int64(w.size))
        return True
