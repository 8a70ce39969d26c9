"""Losses of pairs and triplets: values as plain loops, gradients against finite differences,
layouts, errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from skips import CPU

from xpnet import functional as F

backends = pytest.mark.parametrize("backend", CPU)
RNG = np.random.default_rng(3)
A, B, C = (RNG.normal(0, 1, (7, 4)) for _ in range(3))
SIGNS = np.array([1, -1, 1, 1, -1, -1, 1])


def length(v):
    return math.hypot(*v)


def cosine(a, b):
    return math.fsum(a * b) / length(a) / length(b)


CASES = {  # function: vectors, labels, margin, and the loss of one pair or triplet
    "triplet_margin": ([A, B, C], [], 0.7,
                       lambda m, a, p, n: max(0.0, length(a - p) - length(a - n) + m)),
    "contrastive": ([A, B], [(SIGNS > 0).astype(int)], 3.1,
                    lambda m, a, b, same: length(a - b) ** 2 / 2 if same
                    else max(0.0, m - length(a - b)) ** 2 / 2),
    "cosine_embedding": ([A, B], [SIGNS], -0.3,
                         lambda m, a, b, s: 1 - cosine(a, b) if s > 0
                         else max(0.0, cosine(a, b) - m)),
    "margin_ranking": ([A[:, 0].copy(), B[:, 0].copy()], [SIGNS], 0.4,
                       lambda m, a, b, s: max(0.0, m - s * (a - b))),
}


@backends
@pytest.mark.parametrize("dtype, bound", [("float32", 1e-5), ("float64", 1e-12)])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradients(name, dtype, bound, backend):
    vectors, marks, margin, one = CASES[name]
    function, vectors = getattr(F, name), [v.astype(dtype) for v in vectors]
    each = [one(margin, *sample) for sample in zip(*(v.astype(float) for v in vectors), *marks)]
    assert 0 < sum(value > 0 for value in each) < 7 or name in ("contrastive", "cosine_embedding")
    for reduction, right in (("mean", math.fsum(each) / 7), ("sum", math.fsum(each)),
                             ("none", each)):
        loss, *gradients = function(*vectors, *marks, margin, reduction=reduction, backend=backend)
        np.testing.assert_allclose(loss, right, rtol=bound, atol=bound)
        assert loss.dtype == dtype and all((g.dtype, g.shape) == (v.dtype, v.shape)
                                           for g, v in zip(gradients, vectors))
        for k, gradient in enumerate(gradients):
            d, h = np.random.default_rng(k).normal(0, 1, vectors[k].shape), 1e-6

            def value(step, k=k, d=d, divisor=7 if reduction == "mean" else 1):
                moved = [v + step * d * (i == k)
                         for i, v in enumerate(v.astype(float) for v in vectors)]
                total = math.fsum(one(margin, *sample) for sample in zip(*moved, *marks))
                return total / divisor
            assert (gradient * d).sum() == pytest.approx(
                (value(h) - value(-h)) / (2 * h), rel=1e-4, abs=1e-6)


@pytest.mark.parametrize("name", CASES)
def test_batch_last(name):
    vectors, marks, margin, _ = CASES[name]
    loss, *gradients = getattr(F, name)(*vectors, *marks, margin)
    same, *others = getattr(F, name)(*(np.ascontiguousarray(v.T) for v in vectors), *marks, margin,
                                     layout="CHWN")
    assert loss == same
    for a, b in zip(gradients, others):
        np.testing.assert_array_equal(a, b.T)


def test_equal_vectors_have_no_direction():
    loss, da, dp, dn = F.triplet_margin(A, A, A)
    assert loss == 1 and not da.any() and not dp.any() and not dn.any()
    loss, da, _ = F.contrastive(A, A, np.zeros(7, int))
    assert loss == 0.5 and not da.any()
    loss, da, _ = F.cosine_embedding(np.zeros((2, 3)), np.ones((2, 3)), np.ones(2, int))
    assert loss == 1 and np.isfinite(da).all()


@pytest.mark.parametrize("call, text", [
    (lambda: F.triplet_margin(A, B, C[:3]), r"triplet_margin: expected negative of shape \(7, 4\)"),
    (lambda: F.triplet_margin(A, B, C, 0),
     "triplet_margin: expected margin to be a number above 0"),
    (lambda: F.contrastive(A, B, SIGNS),
     "contrastive: expected same of 0 and 1. Received: -1 among them"),
    (lambda: F.cosine_embedding(A, B, np.zeros(7)),
     "cosine_embedding: expected sign of -1 and 1. Received: 0"),
    (lambda: F.cosine_embedding(A, B, SIGNS, 2),
     "cosine_embedding: expected margin to be a number, -1 or larger, below 1"),
    (lambda: F.margin_ranking(A, B, SIGNS), r"margin_ranking: expected a of shape \(N\)"),
    (lambda: F.margin_ranking(A[:, 0], B[:, 0], SIGNS[:2]),
     r"margin_ranking: expected sign of shape \(7,\)"),
    (lambda: F.contrastive(A, B, SIGNS > 0, reduction="batchmean"),
     "contrastive: expected reduction to be"),
])
def test_refusals(call, text):
    with pytest.raises(ValueError, match=text):
        call()
