"""Losses with their gradients: cross entropy, and losses of pairs and triplets of vectors.

The vectors may come from several calls of one network.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import expect_choice, expect_number, expect_positive
from xpnet.functional.call import Array, Call, classes_call
from xpnet.losses import CrossEntropy
from xpnet.losses.regression import cosine_of

REDUCTIONS = ("mean", "sum", "none")


def cross_entropy(z: Array, target: Array, sample_weight: Array | None = None, *,
                  weight: Any = None, ignore_index: int | None = None, label_smoothing: float = 0.0,
                  reduction: str = "mean", layout: str = "NCHW", backend: str | Backend = "auto"
                  ) -> tuple[Array, Array]:
    """Cross entropy of softmax(z), and its gradient: loss = mean of -sum over k of t[n, k] log
    softmax(z)[n, k], dz = (softmax(z) sum over k of t[n, k] - t) / N.

    z (N, K), (N, K, T) or (N, K, H, W) -> loss (), dz like z. Both are computed in one pass over z.
    The other arguments are those of xpnet.CrossEntropy; with reduction="none" the loss is (N,),
    (N, T) or (N, H, W), and dz the gradient of its sum.

    Args:
        target: labels (N,) or (N, H, W) of an integer type, or class probabilities t like z, 0 or
            larger. Targets in the memory of a GPU are not checked: a label there that is not a
            class counts as ignored.
        sample_weight: (N,).

    Bridle 1990.
    """
    others = {"target": (target, "")} | ({} if sample_weight is None
                                         else {"sample_weight": (sample_weight, "N")})
    call = classes_call("cross_entropy", layout, backend, {"z": z}, others)
    loss = CrossEntropy(weight=weight, ignore_index=ignore_index, label_smoothing=label_smoothing,
                        reduction=reduction)
    *shape, N = call.sizes(z)
    loss.check_weights("weight", loss.weight, tuple(shape))
    labels = target.ndim == len(shape)
    if tuple(target.shape) not in (call.outer((*shape[1:], N)), tuple(z.shape)):
        raise ValueError(f"{call.who}: expected labels of shape {call.outer((*shape[1:], N))} or "
                         f"probabilities {tuple(z.shape)}. "
                         f"Received: target of shape {tuple(target.shape)}.")
    if target.dtype.kind not in "iu" if labels else target.dtype != z.dtype:
        raise TypeError(f"{call.who}: expected integer labels, or probabilities of {z.dtype}. "
                        f"Received: target of {target.dtype}.")
    call.expect("sample_weight", sample_weight, (N,))
    xp = call.backend.xp
    with call.backend.scope():
        t = xp.ascontiguousarray(xp.moveaxis(target, 0, -1) if call.batch_first else target)
        if xp is np:
            loss.targets(np.moveaxis(t, -1, 0), tuple(shape), z.dtype)
        value, dz = loss(call.backend, call.inward(z), t, call.ready(sample_weight))
        return call.outward(value) if reduction == "none" else xp.asarray(value), call.outward(dz)


def triplet_margin(anchor: Array, positive: Array, negative: Array, margin: float = 1.0, *,
                   reduction: str = "mean", layout: str = "NCHW", backend: str | Backend = "auto"
                   ) -> tuple[Array, Array, Array, Array]:
    """Triplet loss: L = mean of max(0, |a - p| - |a - n| + margin), and its gradients with respect
    to a, p and n.

    anchor a, positive p and negative n (N, D) -> loss (), da, dp, dn.
    With u = (a - p) / |a - p| and v = (a - n) / |a - n|: da = (u - v) / N, dp = -u / N, dn = v / N
    where the loss is above 0. u and v are 0 where the vectors are equal.

    Args:
        reduction: "sum" does not divide; "none" gives a loss (N,) for each triplet and the
            gradients of their sum.

    Weinberger and Saul 2009; Schroff et al. 2015, who square the distances.
    """
    margin = expect_positive("triplet_margin", "margin", margin)

    def terms(xp: Any, a: Array, p: Array, n: Array) -> tuple[Array, ...]:
        (near, u), (far, v) = _distance(xp, a - p), _distance(xp, a - n)
        f = xp.maximum(near - far + margin, 0)
        u, v = u * (f > 0), v * (f > 0)
        return f, u - v, -u, v
    return _vectors("triplet_margin", layout, backend,
                    {"anchor": anchor, "positive": positive, "negative": negative}, None,
                    reduction, terms)


def contrastive(a: Array, b: Array, same: Array, margin: float = 1.0, *, reduction: str = "mean",
                layout: str = "NCHW", backend: str | Backend = "auto"
                ) -> tuple[Array, Array, Array]:
    """Contrastive loss: L = mean of 1/2 d^2 where `same`, 1/2 max(0, margin - d)^2 elsewhere, d =
    |a - b|.

    a and b (N, D), same (N,) of 1 and 0 or bool -> loss (), da, db = -da. da = (a - b) / N where
    `same`, else -max(0, margin - d) (a - b) / (d N), 0 where a = b. `reduction` as in
    triplet_margin.

    Hadsell et al. 2006, eq. 4.
    """
    margin = expect_positive("contrastive", "margin", margin)

    def terms(xp: Any, a: Array, b: Array, same: Array) -> tuple[Array, ...]:
        d, unit = _distance(xp, a - b)
        short = xp.maximum(margin - d, 0)
        da = xp.where(same, a - b, -short * unit)
        return xp.where(same, 0.5 * d * d, 0.5 * short * short), da, -da
    return _vectors("contrastive", layout, backend, {"a": a, "b": b}, ("same", same, (0, 1)),
                    reduction, terms)


def cosine_embedding(a: Array, b: Array, sign: Array, margin: float = 0.0, *,
                     reduction: str = "mean", layout: str = "NCHW", backend: str | Backend = "auto"
                     ) -> tuple[Array, Array, Array]:
    """Cosine embedding loss: L = mean of 1 - cos(a, b) where sign = 1, max(0, cos(a, b) - margin)
    where sign = -1.

    a and b (N, D), sign (N,) of 1 and -1 -> loss (), da, db. With the unit vectors a' and b', d cos
    / da = (b' - cos a') / |a|. Lengths count as at least 1e-8. `reduction` as in triplet_margin.

    Args:
        margin: between -1 and 1.

    Salton et al. 1975.
    """
    margin = expect_number("cosine_embedding", "margin", margin, -1, 1)

    def terms(xp: Any, a: Array, b: Array, together: Array) -> tuple[Array, ...]:
        cosine, da, db = cosine_of(xp, a, b)
        slope = xp.where(together, -1.0, (cosine > margin).astype(a.dtype)).astype(a.dtype)
        f = xp.where(together, 1.0 - cosine, xp.maximum(cosine - margin, 0))
        return f, slope * da, slope * db
    return _vectors("cosine_embedding", layout, backend, {"a": a, "b": b}, ("sign", sign, (-1, 1)),
                    reduction, terms)


def margin_ranking(a: Array, b: Array, sign: Array, margin: float = 0.0, *, reduction: str = "mean",
                   layout: str = "NCHW", backend: str | Backend = "auto"
                   ) -> tuple[Array, Array, Array]:
    """Ranking loss: L = mean of max(0, margin - sign (a - b)): a should be above b where sign = 1,
    below it where sign = -1.

    Scores a and b (N,), sign (N,) of 1 and -1 -> loss (), da = -sign / N where the loss is above 0,
    db = -da. `reduction` as in triplet_margin.

    Args:
        margin: 0 or larger.

    Herbrich et al. 2000.
    """
    margin = expect_number("margin_ranking", "margin", margin, 0)

    def terms(xp: Any, a: Array, b: Array, above: Array) -> tuple[Array, ...]:
        s = xp.where(above, 1.0, -1.0).astype(a.dtype)
        f = xp.maximum(margin - s * (a - b), 0)
        da = -s * (f > 0)
        return f, da, -da
    return _vectors("margin_ranking", layout, backend, {"a": a, "b": b}, ("sign", sign, (-1, 1)),
                    reduction, terms, axes="")


def _distance(xp: Any, difference: Array) -> tuple[Array, Array]:
    """The norm |difference| (N,) along the first axis, and difference / |difference|, 0 where that
    is 0."""
    d = xp.sqrt((difference * difference).sum(axis=0))
    return d, difference / (d + (d == 0))


def _vectors(who: str, layout: str, backend: str | Backend, vectors: dict[str, Array],
             mark: tuple[str, Array, tuple[int, int]] | None, reduction: str,
             terms: Callable[..., tuple[Array, ...]], axes: str = "D") -> Any:
    """Loss and gradients from `terms`, which takes batch-last vectors and boolean marks.

    Args:
        mark: name, array and its two values; the second is True.
    """
    expect_choice(who, "reduction", reduction, REDUCTIONS)
    call = Call(who, layout, backend, vectors, {} if mark is None else {mark[0]: (mark[1], "")},
                half=False, axes=axes)
    first, *_ = vectors.values()
    for name, vector in vectors.items():
        call.expect(name, vector, first.shape)
    N = first.shape[0] if call.batch_first else first.shape[-1]
    if mark is not None:
        name, marks, (no, yes) = mark
        call.expect(name, marks, (N,))
        if call.backend.xp is np and not np.isin(marks, (no, yes)).all():
            raise ValueError(f"{who}: expected {name} of {no} and {yes}. "
                             f"Received: {marks[~np.isin(marks, (no, yes))][0]} among them.")
    with call.backend.scope():
        more = [] if mark is None else [call.backend.asarray(mark[1]) == mark[2][1]]
        f, *gradients = terms(call.backend.xp, *map(call.inward, vectors.values()), *more)
        dtype, scale = first.dtype, 1.0 / N if reduction == "mean" else 1.0
        value = (f.astype(dtype) if reduction == "none"
                 else call.backend.xp.asarray(f.sum() * scale, dtype=dtype))
        return value, *(call.outward((g * scale).astype(dtype, copy=False)) for g in gradients)
