"""Optimizer updates on compiled loops, for float32; other types, and buffers that are not contiguous, are NumpyBackend's."""

from __future__ import annotations

from typing import Any

from xpnet.backends.base import Array
from xpnet.backends.numba_base import FLOAT32, NumbaBase, writable
from xpnet.backends.numba_kernels import optimizers
from xpnet.backends.numba_kernels.arrays import ready
from xpnet.backends.numba_kernels.jit import Kernel


class NumbaOptimizers(NumbaBase):
    """Every optimizer in one pass over memory."""

    def sgd(self, w: Array, g: Array, v: Array | None, hyper: Array, *, nesterov: bool, decayed: int) -> None:
        if not self._update(optimizers.sgd, w, g, (v,), hyper, decayed, v is not None, nesterov):
            super().sgd(w, g, v, hyper, nesterov=nesterov, decayed=decayed)

    def adam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decoupled: bool, decayed: int) -> None:
        if not self._update(optimizers.adam, w, g, (m, v), hyper, decayed, decoupled):
            super().adam(w, g, m, v, hyper, decoupled=decoupled, decayed=decayed)

    def amsgrad(self, w: Array, g: Array, m: Array, v: Array, top: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.amsgrad, w, g, (m, v, top), hyper, decayed):
            super().amsgrad(w, g, m, v, top, hyper, decayed=decayed)

    def nadam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.nadam, w, g, (m, v), hyper, decayed):
            super().nadam(w, g, m, v, hyper, decayed=decayed)

    def adamax(self, w: Array, g: Array, m: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.adamax, w, g, (m, u), hyper, decayed):
            super().adamax(w, g, m, u, hyper, decayed=decayed)

    def adagrad(self, w: Array, g: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.adagrad, w, g, (s,), hyper, decayed):
            super().adagrad(w, g, s, hyper, decayed=decayed)

    def adadelta(self, w: Array, g: Array, v: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.adadelta, w, g, (v, u), hyper, decayed):
            super().adadelta(w, g, v, u, hyper, decayed=decayed)

    def rmsprop(self, w: Array, g: Array, v: Array, mean: Array | None, velocity: Array | None, hyper: Array, *,
                decayed: int) -> None:
        held = mean is not None, velocity is not None
        if not self._update(optimizers.rmsprop, w, g, (v, mean, velocity), hyper, decayed, *held):
            super().rmsprop(w, g, v, mean, velocity, hyper, decayed=decayed)

    def rprop(self, w: Array, g: Array, before: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.rprop, w, g, (before, s), hyper, decayed):
            super().rprop(w, g, before, s, hyper, decayed=decayed)

    def lion(self, w: Array, g: Array, m: Array, hyper: Array, *, decayed: int) -> None:
        if not self._update(optimizers.lion, w, g, (m,), hyper, decayed):
            super().lion(w, g, m, hyper, decayed=decayed)

    def _update(self, kernel: Kernel, w: Array, g: Array, slots: tuple[Array | None, ...], hyper: Array, *settings: Any) -> bool:
        """Start a kernel, with w for the slots that are None: it does not look at them. False where NumPy has to do it."""
        if g.dtype != FLOAT32 or not writable(w, *(a for a in slots if a is not None)):
            return False
        flat = (w.size,)
        written = [(w if a is None else a).reshape(flat) for a in slots]
        kernel(self.crew(w.size), w.reshape(flat), ready(g, flat), *written, ready(hyper, hyper.shape), *settings)
        return True
