"""The table of optimizer rules: each is a function in plain xp that changes weights by one step.

A rule `f(xp, w, g, *slots, hyper, decayed)` gets weights w (n,), their gradients g (n,) and the
slots, arrays (n,) that an optimizer keeps between steps. It changes w and the slots in place.
Weight decay applies to the first `decayed` weights only: there g' = g + decay w, elsewhere g' = g.

A rule works element by element, so that a backend may apply it to one chunk after another. `hyper`
is a float64 array on the backend, because a number in a captured GPU graph would be a constant. It
is cast to the type of w first, so that float32 stays float32; but 1 - b is computed in float64: in
float32, 1 - 0.999 keeps four digits only.

An entry of the table is enough for a rule to work on every backend. A faster version is found by
the rule's name: a kernel of numba/kernels/optimizers.py, a struct of cupy/kernels/optimizers.cu
("Adamw" for "adamw"), a function of numpy/optimizers.py.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from xpnet.backends.arguments import expect_choice

Array = Any


class Rule(NamedTuple):
    """A rule, the names of its slots and of its hyper-parameters, in their order.

    An optimizer passes None for a slot that it does not use, if the rule allows it.
    """

    apply: Callable[..., None]
    slots: tuple[str, ...]
    hyper: tuple[str, ...]


def rule_for(name: str, slots: Sequence[Array | None], hyper: Array) -> Rule:
    """The rule called `name`. Raises ValueError if there is none, or if it takes other
    arguments."""
    rule = RULES.get(name)
    if rule is None:
        expect_choice("update", "rule", name, RULES)
        raise AssertionError                                            # expect_choice has raised
    if (len(slots), len(hyper)) != (len(rule.slots), len(rule.hyper)):
        raise ValueError(f"update: expected {len(rule.slots)} slots and {len(rule.hyper)} "
                         f"hyper-parameters for the rule {name}. Received: {len(slots)} and "
                         f"{len(hyper)}.")
    return rule


def with_decay(w: Array, g: Array, decay: Array, decayed: int) -> Array:
    """g' = g + decay w for the first `decayed` weights, as a new array."""
    g = g.copy()
    g[:decayed] += decay * w[:decayed]
    return g


def sgd(xp: Any, w: Array, g: Array, v: Array | None, hyper: Array, decayed: int) -> None:
    """v = mu v + g', w -= lr v; without v, w -= lr g'.

    Sutskever et al. 2013, in the form in which lr multiplies the velocity last.
    """
    lr, mu, decay = hyper.astype(w.dtype)
    step = with_decay(w, g, decay, decayed)
    if v is not None:
        v *= mu
        v += step
        step = v
    w -= lr * step


def nesterov(xp: Any, w: Array, g: Array, v: Array, hyper: Array, decayed: int) -> None:
    """v = mu v + g', w -= lr (g' + mu v). Sutskever et al. 2013."""
    lr, mu, decay = hyper.astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    v *= mu
    v += g
    w -= lr * (g + mu * v)


def adam(xp: Any, w: Array, g: Array, m: Array, v: Array, hyper: Array, decayed: int) -> None:
    """m = b1 m + (1 - b1) g', v = b2 v + (1 - b2) g'^2, w -= lr (m / c1) / (sqrt(v / c2) + eps).

    c1 = 1 - b1^t and c2 = 1 - b2^t. Kingma and Ba 2015, algorithm 1.
    """
    lr, b1, b2, eps, decay, c1, c2 = hyper.astype(w.dtype)
    new1, new2 = (1 - hyper[1:3]).astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    m *= b1
    m += new1 * g
    v *= b2
    v += new2 * g * g
    w -= lr / c1 * m / (xp.sqrt(v / c2) + eps)


def adamw(xp: Any, w: Array, g: Array, m: Array, v: Array, hyper: Array, decayed: int) -> None:
    """w -= lr decay w, then a step of adam without decay. Loshchilov and Hutter 2019, algorithm
    2."""
    lr, _, _, _, decay, _, _ = hyper.astype(w.dtype)
    w[:decayed] -= lr * decay * w[:decayed]
    adam(xp, w, g, m, v, hyper, 0)


def amsgrad(xp: Any, w: Array, g: Array, m: Array, v: Array, top: Array, hyper: Array,
            decayed: int) -> None:
    """adam with top = max(top, v) instead of v under the root. Reddi et al. 2018, algorithm 2."""
    lr, b1, b2, eps, decay, c1, c2 = hyper.astype(w.dtype)
    new1, new2 = (1 - hyper[1:3]).astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    m *= b1
    m += new1 * g
    v *= b2
    v += new2 * g * g
    top[...] = xp.maximum(top, v)
    w -= lr / c1 * m / (xp.sqrt(top / c2) + eps)


def nadam(xp: Any, w: Array, g: Array, m: Array, v: Array, hyper: Array, decayed: int) -> None:
    """m and v as in adam, w -= (now g' + next m) / (sqrt(v / c2) + eps).

    now and next include the learning rate. Dozat 2016, algorithm 2.
    """
    now, ahead, b1, b2, eps, decay, c2 = hyper.astype(w.dtype)
    new1, new2 = (1 - hyper[2:4]).astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    m *= b1
    m += new1 * g
    v *= b2
    v += new2 * g * g
    w -= (now * g + ahead * m) / (xp.sqrt(v / c2) + eps)


def adamax(xp: Any, w: Array, g: Array, m: Array, u: Array, hyper: Array, decayed: int) -> None:
    """m = b1 m + (1 - b1) g', u = max(b2 u, |g'| + eps), w -= lr / c1 m / u.

    Kingma and Ba 2015, algorithm 2.
    """
    lr, b1, b2, eps, decay, c1 = hyper.astype(w.dtype)
    new1, = (1 - hyper[1:2]).astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    m *= b1
    m += new1 * g
    u[...] = xp.maximum(b2 * u, abs(g) + eps)
    w -= lr / c1 * m / u


def adagrad(xp: Any, w: Array, g: Array, s: Array, hyper: Array, decayed: int) -> None:
    """s += g'^2, w -= lr g' / (sqrt(s) + eps). Duchi et al. 2011."""
    lr, eps, decay = hyper.astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    s += g * g
    w -= lr * g / (xp.sqrt(s) + eps)


def adadelta(xp: Any, w: Array, g: Array, v: Array, u: Array, hyper: Array, decayed: int) -> None:
    """v = rho v + (1 - rho) g'^2, d = sqrt(u + eps) / sqrt(v + eps) g', u = rho u + (1 - rho) d^2,
    w -= lr d. Zeiler 2012, algorithm 1.
    """
    lr, rho, eps, decay = hyper.astype(w.dtype)
    new, = (1 - hyper[1:2]).astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    v *= rho
    v += new * g * g
    d = xp.sqrt(u + eps) / xp.sqrt(v + eps) * g
    u *= rho
    u += new * d * d
    w -= lr * d


def rmsprop(xp: Any, w: Array, g: Array, v: Array, mean: Array | None, velocity: Array | None,
            hyper: Array, decayed: int) -> None:
    """v = alpha v + (1 - alpha) g'^2, step = g' / (sqrt(v) + eps), velocity = mu velocity + step,
    w -= lr velocity; without velocity, w -= lr step.

    With mean, mean = alpha mean + (1 - alpha) g', and the root is that of max(v - mean^2, 0).
    Tieleman and Hinton 2012; Graves 2013.
    """
    lr, alpha, eps, decay, mu = hyper.astype(w.dtype)
    new, = (1 - hyper[1:2]).astype(w.dtype)
    g = with_decay(w, g, decay, decayed)
    v *= alpha
    v += new * g * g
    spread = v
    if mean is not None:
        mean *= alpha
        mean += new * g
        spread = xp.maximum(v - mean * mean, 0)         # rounding errors can make it negative
    step = g / (xp.sqrt(spread) + eps)
    if velocity is not None:
        velocity *= mu
        velocity += step
        step = velocity
    w -= lr * step


def lion(xp: Any, w: Array, g: Array, m: Array, hyper: Array, decayed: int) -> None:
    """w -= lr (sign(b1 m + (1 - b1) g) + decay w), then m = b2 m + (1 - b2) g.

    Chen et al. 2023, algorithm 2.
    """
    lr, b1, b2, decay = hyper.astype(w.dtype)
    new1, new2 = (1 - hyper[1:3]).astype(w.dtype)
    w[:decayed] -= lr * decay * w[:decayed]
    w -= lr * xp.sign(b1 * m + new1 * g)
    m *= b2
    m += new2 * g


def rprop(xp: Any, w: Array, g: Array, before: Array, s: Array, hyper: Array, decayed: int) -> None:
    """w -= sign(g') s; s is multiplied by `more` > 1 if g' kept its sign, and by `less` < 1 if it
    changed.

    If the sign changed, g' counts as 0, so that w does not change in this step. s is kept from
    `least` to `most`; s = 0 means that there was no step yet, and then s starts at lr. before = g'.
    Riedmiller and Braun 1993; Igel and Huesken 2003.
    """
    lr, less, more, least, most, decay = hyper.astype(w.dtype)
    zero = w.dtype.type(0)
    g = with_decay(w, g, decay, decayed)
    same = g * before
    factor = xp.where(same > 0, more, xp.where(same < 0, less, w.dtype.type(1)))
    s[...] = xp.minimum(xp.maximum(xp.where(s == 0, lr, s) * factor, least), most)
    before[...] = xp.where(same < 0, zero, g)
    w -= xp.sign(before) * s


ADAM = ("lr", "b1", "b2", "eps", "decay", "c1", "c2")

RULES: dict[str, Rule] = {
    "sgd": Rule(sgd, ("v",), ("lr", "mu", "decay")),
    "nesterov": Rule(nesterov, ("v",), ("lr", "mu", "decay")),
    "adam": Rule(adam, ("m", "v"), ADAM),
    "adamw": Rule(adamw, ("m", "v"), ADAM),
    "amsgrad": Rule(amsgrad, ("m", "v", "top"), ADAM),
    "nadam": Rule(nadam, ("m", "v"), ("now", "next", "b1", "b2", "eps", "decay", "c2")),
    "adamax": Rule(adamax, ("m", "u"), ("lr", "b1", "b2", "eps", "decay", "c1")),
    "adagrad": Rule(adagrad, ("s",), ("lr", "eps", "decay")),
    "adadelta": Rule(adadelta, ("v", "u"), ("lr", "rho", "eps", "decay")),
    "rmsprop": Rule(rmsprop, ("v", "mean", "velocity"), ("lr", "alpha", "eps", "decay", "mu")),
    "rprop": Rule(rprop, ("before", "s"), ("lr", "less", "more", "least", "most", "decay")),
    "lion": Rule(lion, ("m",), ("lr", "b1", "b2", "decay")),
}
