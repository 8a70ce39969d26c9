"""The update rules of the optimizers in plain xp: a part of the contract in base.py.

They change flat buffers w (n,) in place, given the gradients g; only the first `decayed` elements feel the weight decay.
`hyper` is a float64 array on the backend, because a number in a captured GPU graph is a constant. It is cast first: float32
must stay float32.
"""

from __future__ import annotations

from typing import Any

Array = Any


class OptimizerRules:
    """One operation over the flat buffers for each optimizer, without a host synchronisation."""

    xp: Any

    def sgd(self, w: Array, g: Array, v: Array | None, hyper: Array, *, nesterov: bool, decayed: int) -> None:
        """v = mu v + g', w -= lr v (Nesterov: lr (g' + mu v)), g' = g + decay w. hyper = (lr, mu, decay).

        v is None without momentum. Sutskever et al. 2013, in the form where lr multiplies the velocity last.
        """
        lr, mu, decay = hyper.astype(w.dtype)
        g = g.copy()
        g[:decayed] += decay * w[:decayed]
        if v is not None:
            v *= mu
            v += g
            g = g + mu * v if nesterov else v
        w -= lr * g

    def adam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decoupled: bool, decayed: int) -> None:
        """m = b1 m + (1 - b1) g, v = b2 v + (1 - b2) g^2, w -= lr (m / c1) / (sqrt(v / c2) + eps), c = 1 - b^t.

        hyper = (lr, b1, b2, eps, decay, c1, c2). Decay is added to g (Kingma and Ba 2015, algorithm 1), or with
        `decoupled` w shrinks by lr * decay first (Loshchilov and Hutter 2019, algorithm 2).
        """
        lr, b1, b2, eps, decay, c1, c2 = hyper.astype(w.dtype)
        new1, new2 = (1 - hyper[1:3]).astype(w.dtype)       # 1 - b2 in float32 would keep only four digits
        if decoupled:
            w[:decayed] -= lr * decay * w[:decayed]
        else:
            g = g.copy()
            g[:decayed] += decay * w[:decayed]
        m *= b1
        m += new1 * g
        v *= b2
        v += new2 * g * g
        w -= lr / c1 * m / (self.xp.sqrt(v / c2) + eps)
