"""Optimizer rules with NumPy, chunk by chunk: all passes but the first find a chunk in the
cache."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numpy.pieces import CHUNK, spans
from xpnet.backends.rules import rule_for

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


def update(self: NumpyBackend, rule: str, w: Array, g: Array, slots: Sequence[Array | None],
           hyper: Array, *, decayed: int) -> None:
    plain = rule_for(rule, slots, hyper).apply
    apply = partial(FAST[rule], self) if rule in FAST else partial(plain, self.xp)
    chunks = spans(w.size, max(1, -(-w.size // CHUNK)))

    def part(k: int) -> None:
        chunk = chunks[k]
        apply(*(None if a is None else a[chunk] for a in (w, g, *slots)), hyper,
              max(0, min(decayed, chunk.stop) - chunk.start))

    self.run(part, len(chunks), 4 * w.size)


def sgd(backend: NumpyBackend, w: Array, g: Array, v: Array | None, hyper: Array, decayed: int, *,
        nesterov: bool = False) -> None:
    lr, mu, decay = hyper.astype(w.dtype)
    step = backend.empty(g.shape, w.dtype)
    np.copyto(step, g)
    if decay:
        step[:decayed] += decay * w[:decayed]
    if v is not None:
        v *= mu
        v += step
        if nesterov:
            step += mu * v
        else:
            np.copyto(step, v)
    step *= lr
    w -= step


def adam(backend: NumpyBackend, w: Array, g: Array, m: Array, v: Array, hyper: Array, decayed: int,
         *, decoupled: bool = False) -> None:
    lr, b1, b2, eps, decay, c1, c2 = hyper.astype(w.dtype)
    new1, new2 = (1 - hyper[1:3]).astype(w.dtype)
    t = backend.empty(w.shape, w.dtype)
    if decay and decoupled:
        w[:decayed] *= 1 - lr * decay
    elif decay:
        g = g.copy()
        g[:decayed] += decay * w[:decayed]
    m *= b1
    np.multiply(g, new1, out=t)
    m += t
    v *= b2
    np.multiply(g, g, out=t)
    t *= new2
    v += t
    np.sqrt(v, out=t)  # sqrt(v / c2) + eps, all times sqrt(c2): saves a pass
    t += eps * np.sqrt(c2)
    np.divide(m, t, out=t)
    t *= lr * np.sqrt(c2) / c1
    w -= t


FAST: dict[str, Callable[..., None]] = {
    "sgd": sgd,
    "nesterov": partial(sgd, nesterov=True),
    "adam": adam,
    "adamw": partial(adam, decoupled=True),
}
