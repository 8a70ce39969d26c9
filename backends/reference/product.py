"""Matrix products in plain array code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend

ONE_HOT = 1 << 24           # elements of the largest one-hot matrix


def gemm(self: Backend, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False,
         bias: Array | None = None, activation: str | None = None, out: Array | None = None,
         accumulate: bool = False) -> Array:
    """A matrix product, y = f(op(a) op(b) + bias).

    Args:
        a, b: op(a) is (M, K), op(b) is (K, N), where op transposes if trans_a or trans_b.
        bias: (M,), or None.
        activation: the name of f, or None.
        out: an array (M, N) for the result; None for a new one.
        accumulate: whether to add to `out` instead: out += y.
    """
    product = self.xp.matmul(a.T if trans_a else a, b.T if trans_b else b)
    if bias is not None:
        product += bias[:, None]
    if activation is not None:
        product = self.activate(product, activation)
    return self.store(product, out, accumulate)


def products(self: Backend, a: Array, b: Array, *, trans_a: bool = False, trans_b: bool = False
             ) -> Array:
    """G matrix products, y[g] = op(a[g]) op(b[g]).

    Args:
        a, b: (G, ., .); op(a[g]) is (M, K), op(b[g]) is (K, N), where op transposes if trans_a or
            trans_b. y (G, M, N).
    """
    return self.xp.matmul(a.transpose(0, 2, 1) if trans_a else a,
                          b.transpose(0, 2, 1) if trans_b else b)


def sums_by_token(self: Backend, dy: Array, tokens: Array, *, out: Array, accumulate: bool = False
                  ) -> None:
    """out[v] = the sum of the columns dy[:, p] with tokens[p] = v, the gradient of rows that were
    selected by tokens; added to `out` with accumulate.

    It is the product of one-hot rows with dy^T, some tokens at a time: nothing is scattered.

    Args:
        dy: (D, P).
        tokens: (P,) int64, from 0 to V - 1.
        out: (V, D).
    """
    rows = max(1, ONE_HOT // len(tokens))
    for start in range(0, len(out), rows):
        some = self.xp.arange(start, min(start + rows, len(out)))
        one_hot = (some[:, None] == tokens).astype(dy.dtype)            # (rows, P)
        self.gemm(one_hot, dy, trans_b=True, out=out[start:start + rows], accumulate=accumulate)
