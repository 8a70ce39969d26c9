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
        if not self._updates(g, w, v):
            return super().sgd(w, g, v, hyper, nesterov=nesterov, decayed=decayed)
        self._update(optimizers.sgd, w, g, (v,), hyper, decayed, v is not None, nesterov)

    def adam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decoupled: bool, decayed: int) -> None:
        if not self._updates(g, w, m, v):
            return super().adam(w, g, m, v, hyper, decoupled=decoupled, decayed=decayed)
        self._update(optimizers.adam, w, g, (m, v), hyper, decayed, decoupled)

    def adamax(self, w: Array, g: Array, m: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        if not self._updates(g, w, m, u):
            return super().adamax(w, g, m, u, hyper, decayed=decayed)
        self._update(optimizers.adamax, w, g, (m, u), hyper, decayed)

    def adagrad(self, w: Array, g: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        if not self._updates(g, w, s):
            return super().adagrad(w, g, s, hyper, decayed=decayed)
        self._update(optimizers.adagrad, w, g, (s,), hyper, decayed)

    def adadelta(self, w: Array, g: Array, v: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        if not self._updates(g, w, v, u):
            return super().adadelta(w, g, v, u, hyper, decayed=decayed)
        self._update(optimizers.adadelta, w, g, (v, u), hyper, decayed)

    def rmsprop(self, w: Array, g: Array, v: Array, mean: Array | None, velocity: Array | None, hyper: Array, *,
                decayed: int) -> None:
        if not self._updates(g, w, v, mean, velocity):
            return super().rmsprop(w, g, v, mean, velocity, hyper, decayed=decayed)
        self._update(optimizers.rmsprop, w, g, (v, mean, velocity), hyper, decayed, mean is not None, velocity is not None)

    def lion(self, w: Array, g: Array, m: Array, hyper: Array, *, decayed: int) -> None:
        if not self._updates(g, w, m):
            return super().lion(w, g, m, hyper, decayed=decayed)
        self._update(optimizers.lion, w, g, (m,), hyper, decayed)

    @staticmethod
    def _updates(g: Array, *written: Array | None) -> bool:
        return g.dtype == FLOAT32 and writable(*(a for a in written if a is not None))

    def _update(self, kernel: Kernel, w: Array, g: Array, slots: tuple[Array | None, ...], hyper: Array, *settings: Any) -> None:
        """Start a kernel; for an array that is None it gets w, which it then does not look at under that name."""
        flat = (w.size,)
        written = [(w if a is None else a).reshape(flat) for a in slots]
        kernel(self.crew(w.size), w.reshape(flat), ready(g, flat), *written, ready(hyper, hyper.shape), *settings)
