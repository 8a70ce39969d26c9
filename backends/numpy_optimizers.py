"""Optimizer updates with NumPy alone: chunk by chunk, so that all passes over a chunk but the first find it in the cache."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numpy_base import CHUNK, NumpyBase, spans


class NumpyOptimizers(NumpyBase):
    """The two that are used most in few passes, all others as base.py has them."""

    def _over_flat(self, task: Callable[[slice, slice], None], n: int, decayed: int) -> None:
        """task(chunk, the chunk's decayed part relative to it) for all n elements."""
        chunks = spans(n, max(1, -(-n // CHUNK)))

        def part(k: int) -> None:
            chunk = chunks[k]
            task(chunk, slice(0, max(0, min(decayed, chunk.stop) - chunk.start)))

        self.run(part, len(chunks), 4 * n)

    def _by_chunks(self, rule: Callable[..., None], buffers: tuple[Array | None, ...], hyper: Array, decayed: int) -> None:
        """The rule of base.py for all elements of the buffers, of which some may be None."""
        def task(chunk: slice, shrinking: slice) -> None:
            rule(*(None if buffer is None else buffer[chunk] for buffer in buffers), hyper, decayed=shrinking.stop)

        assert buffers[0] is not None
        self._over_flat(task, buffers[0].size, decayed)

    def sgd(self, w: Array, g: Array, v: Array | None, hyper: Array, *, nesterov: bool, decayed: int) -> None:
        lr, mu, decay = hyper.astype(w.dtype)

        def task(chunk: slice, shrinking: slice) -> None:
            step = self.empty(g[chunk].shape, w.dtype)
            np.copyto(step, g[chunk])
            if decay:
                step[shrinking] += decay * w[chunk][shrinking]
            if v is not None:
                velocity = v[chunk]
                velocity *= mu
                velocity += step
                if nesterov:
                    step += mu * velocity
                else:
                    np.copyto(step, velocity)
            step *= lr
            w[chunk] -= step

        self._over_flat(task, w.size, decayed)

    def adam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decoupled: bool, decayed: int) -> None:
        lr, b1, b2, eps, decay, c1, c2 = hyper.astype(w.dtype)
        new1, new2 = (1 - hyper[1:3]).astype(w.dtype)       # 1 - b2 in float32 would keep only four digits

        def task(chunk: slice, shrinking: slice) -> None:
            W, G, M, V = w[chunk], g[chunk], m[chunk], v[chunk]
            t = self.empty(W.shape, w.dtype)
            if decay and decoupled:
                W[shrinking] *= 1 - lr * decay
            elif decay:
                G = G.copy()
                G[shrinking] += decay * W[shrinking]
            M *= b1
            np.multiply(G, new1, out=t)
            M += t
            V *= b2
            np.multiply(G, G, out=t)
            t *= new2
            V += t
            np.sqrt(V, out=t)                               # sqrt(v / c2) + eps, all times sqrt(c2): a pass less
            t += eps * np.sqrt(c2)
            np.divide(M, t, out=t)
            t *= lr * np.sqrt(c2) / c1
            W -= t

        self._over_flat(task, w.size, decayed)

    def amsgrad(self, w: Array, g: Array, m: Array, v: Array, top: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().amsgrad, (w, g, m, v, top), hyper, decayed)

    def nadam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().nadam, (w, g, m, v), hyper, decayed)

    def adamax(self, w: Array, g: Array, m: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().adamax, (w, g, m, u), hyper, decayed)

    def adagrad(self, w: Array, g: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().adagrad, (w, g, s), hyper, decayed)

    def adadelta(self, w: Array, g: Array, v: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().adadelta, (w, g, v, u), hyper, decayed)

    def rmsprop(self, w: Array, g: Array, v: Array, mean: Array | None, velocity: Array | None, hyper: Array, *,
                decayed: int) -> None:
        self._by_chunks(super().rmsprop, (w, g, v, mean, velocity), hyper, decayed)

    def rprop(self, w: Array, g: Array, before: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().rprop, (w, g, before, s), hyper, decayed)

    def lion(self, w: Array, g: Array, m: Array, hyper: Array, *, decayed: int) -> None:
        self._by_chunks(super().lion, (w, g, m), hyper, decayed)
