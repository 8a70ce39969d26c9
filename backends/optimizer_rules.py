"""The update rules of the optimizers in plain xp: a part of the contract in base.py.

They change flat buffers w (n,) and what they remember of each weight in place, given the gradients g; only the first
`decayed` elements feel the weight decay. g' is g + decay w. `hyper` is a float64 array on the backend, because a number in
a captured GPU graph is a constant. It is cast first: float32 must stay float32.
"""

from __future__ import annotations

from typing import Any

Array = Any


class OptimizerRules:
    """One operation over the flat buffers for each optimizer, without a host synchronisation."""

    xp: Any

    def sgd(self, w: Array, g: Array, v: Array | None, hyper: Array, *, nesterov: bool, decayed: int) -> None:
        """v = mu v + g', w -= lr v (Nesterov: lr (g' + mu v)). hyper = (lr, mu, decay).

        v is None without momentum. Sutskever et al. 2013, in the form where lr multiplies the velocity last.
        """
        lr, mu, decay = hyper.astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
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
            g = _with_decay(w, g, decay, decayed)
        m *= b1
        m += new1 * g
        v *= b2
        v += new2 * g * g
        w -= lr / c1 * m / (self.xp.sqrt(v / c2) + eps)

    def amsgrad(self, w: Array, g: Array, m: Array, v: Array, top: Array, hyper: Array, *, decayed: int) -> None:
        """adam with top = max(top, v) in the place of v under the root: no weight's rate ever rises. Reddi et al. 2018."""
        lr, b1, b2, eps, decay, c1, c2 = hyper.astype(w.dtype)
        new1, new2 = (1 - hyper[1:3]).astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
        m *= b1
        m += new1 * g
        v *= b2
        v += new2 * g * g
        top[...] = self.xp.maximum(top, v)
        w -= lr / c1 * m / (self.xp.sqrt(top / c2) + eps)

    def nadam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decayed: int) -> None:
        """m and v as in adam, w -= (now g' + next m) / (sqrt(v / c2) + eps): a step that looks ahead, as Nesterov's.

        hyper = (now, next, b1, b2, eps, decay, c2), the first two with the rate in them. Dozat 2016, algorithm 2.
        """
        now, ahead, b1, b2, eps, decay, c2 = hyper.astype(w.dtype)
        new1, new2 = (1 - hyper[2:4]).astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
        m *= b1
        m += new1 * g
        v *= b2
        v += new2 * g * g
        w -= (now * g + ahead * m) / (self.xp.sqrt(v / c2) + eps)

    def adamax(self, w: Array, g: Array, m: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        """m = b1 m + (1 - b1) g', u = max(b2 u, |g'| + eps), w -= lr / c1 m / u. hyper = (lr, b1, b2, eps, decay, c1).

        Kingma and Ba 2015, algorithm 2.
        """
        lr, b1, b2, eps, decay, c1 = hyper.astype(w.dtype)
        new1, = (1 - hyper[1:2]).astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
        m *= b1
        m += new1 * g
        u[...] = self.xp.maximum(b2 * u, abs(g) + eps)
        w -= lr / c1 * m / u

    def adagrad(self, w: Array, g: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        """s += g'^2, w -= lr g' / (sqrt(s) + eps). hyper = (lr, eps, decay). Duchi et al. 2011."""
        lr, eps, decay = hyper.astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
        s += g * g
        w -= lr * g / (self.xp.sqrt(s) + eps)

    def adadelta(self, w: Array, g: Array, v: Array, u: Array, hyper: Array, *, decayed: int) -> None:
        """v = rho v + (1 - rho) g'^2, d = sqrt(u + eps) / sqrt(v + eps) g', u = rho u + (1 - rho) d^2, w -= lr d.

        hyper = (lr, rho, eps, decay). Zeiler 2012, algorithm 1.
        """
        lr, rho, eps, decay = hyper.astype(w.dtype)
        new, = (1 - hyper[1:2]).astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
        v *= rho
        v += new * g * g
        d = self.xp.sqrt(u + eps) / self.xp.sqrt(v + eps) * g
        u *= rho
        u += new * d * d
        w -= lr * d

    def rmsprop(self, w: Array, g: Array, v: Array, mean: Array | None, velocity: Array | None, hyper: Array, *,
                decayed: int) -> None:
        """v = alpha v + (1 - alpha) g'^2, step = g' / (sqrt(v) + eps), velocity = mu velocity + step, w -= lr velocity.

        hyper = (lr, alpha, eps, decay, mu). Without momentum velocity is None and w -= lr step. With a mean,
        mean = alpha mean + (1 - alpha) g', the root is that of max(v - mean^2, 0). Tieleman and Hinton 2012; Graves 2013.
        """
        lr, alpha, eps, decay, mu = hyper.astype(w.dtype)
        new, = (1 - hyper[1:2]).astype(w.dtype)
        g = _with_decay(w, g, decay, decayed)
        v *= alpha
        v += new * g * g
        spread = v
        if mean is not None:
            mean *= alpha
            mean += new * g
            spread = self.xp.maximum(v - mean * mean, 0)    # rounding may have made it negative
        step = g / (self.xp.sqrt(spread) + eps)
        if velocity is not None:
            velocity *= mu
            velocity += step
            step = velocity
        w -= lr * step

    def lion(self, w: Array, g: Array, m: Array, hyper: Array, *, decayed: int) -> None:
        """w -= lr (sign(b1 m + (1 - b1) g) + decay w), then m = b2 m + (1 - b2) g. hyper = (lr, b1, b2, decay).

        Chen et al. 2023, algorithm 2.
        """
        lr, b1, b2, decay = hyper.astype(w.dtype)
        new1, new2 = (1 - hyper[1:3]).astype(w.dtype)
        w[:decayed] -= lr * decay * w[:decayed]
        w -= lr * self.xp.sign(b1 * m + new1 * g)
        m *= b2
        m += new2 * g

    def rprop(self, w: Array, g: Array, before: Array, s: Array, hyper: Array, *, decayed: int) -> None:
        """w -= sign(g') s; s grows by the factor `more` where g' kept its sign, and by `less` < 1 where it changed.

        There g' counts as 0, so that w waits for a step. s stays from `least` to `most`; the 0 that it is at first stands
        for lr. before = g'. hyper = (lr, less, more, least, most, decay). Riedmiller and Braun 1993; Igel and Huesken 2003.
        """
        lr, less, more, least, most, decay = hyper.astype(w.dtype)
        xp, zero = self.xp, w.dtype.type(0)
        g = _with_decay(w, g, decay, decayed)
        same = g * before
        factor = xp.where(same > 0, more, xp.where(same < 0, less, w.dtype.type(1)))
        s[...] = xp.minimum(xp.maximum(xp.where(s == 0, lr, s) * factor, least), most)
        before[...] = xp.where(same < 0, zero, g)
        w -= xp.sign(before) * s


def _with_decay(w: Array, g: Array, decay: Array, decayed: int) -> Array:
    """g' = g + decay w for the first elements, in an array of its own."""
    g = g.copy()
    g[:decayed] += decay * w[:decayed]
    return g
