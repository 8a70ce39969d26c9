"""Attention: each step of a sequence reads the steps of another one, or of its own."""

from __future__ import annotations

from functools import cached_property
from typing import Any

import numpy as np

from xpnet.backends import Window
from xpnet.initializers import for_activation
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.dropout import Dropout
from xpnet.layers.linear import Linear
from xpnet.layers.scan import inside
from xpnet.lengths import KEYS

__all__ = ["MultiHeadAttention"]


class MultiHeadAttention(Layer):
    """Multi-head attention: Y = W_o [V_1 A_1; ...; V_h A_h] + b_o, A_i = softmax over the keys of
    K_i^T Q_i / sqrt(d), with h heads of d = D / h rows of Q, K and V.

    Inputs X (D, T, N), and for the keys and values Z (E, S, N), or Z and another (F, S, N); X alone
    attends to itself. Y (D, T, N). The layer has four children, Linear layers of D units that
    multiply each step: Q = W_q X + b_q, K = W_k Z, V = W_v Z + b_v, and the output. Their
    parameters are query.W (D, D), key.W (D, E), value.W (D, F), output.W (D, D), and b (D,) of all
    but the keys: a bias there would add one number to each column of K^T Q, which changes no
    softmax. Rows i d to (i + 1) d of the first three W belong to head i. So PyTorch's
    in_proj_weight is these three on top of each other, and its out_proj.weight is output.W.

    A (S, T): column t has the weights with which step t reads the values, and its sum is 1. For
    each sample and head, with H = V A:
    dV = dH A^T, dA = V^T dH, dB = A (dA - sum over the keys of dA A) / sqrt(d), dQ = K dB,
    dK = Q dB^T.

    Args:
        heads: h, which divides D.
        mask: "causal" lets step t read the steps 0 to t only; None all.
        lengths: whether the last input is the number of steps of each sample of the keys, (1, N).
            What comes behind is padding: its weights are 0, and so is its gradient. If X attends to
            itself, Y is 0 at the padding. Without a single step, all weights are 0.
        dropout: probability that an element of A is dropped in training, as by Dropout.
        bias: False leaves out the biases.
        init: name of the initializer of the weights; "glorot_uniform" by default.

    Raises:
        ValueError: an input does not have the axes features, steps; heads does not divide the
            features; keys and values differ in their steps; there is a mask, and the keys do not
            have the steps of the queries; or the numbers of steps are missing.

    Vaswani et al. 2017, section 3.2.
    """

    kind = "attention"
    steps = KEYS

    def __init__(self, heads: int, *, mask: str | None = None, lengths: bool = False,
                 dropout: float = 0.0, bias: bool = True, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(name=name)
        self.heads = self.expect_integer("heads", heads)
        self.mask = self.expect_choice("mask", mask, (None, "causal"))
        self.lengths = self.expect_flag("lengths", lengths)
        self.dropout = self.expect_number("dropout", dropout, 0, below=1)
        self.bias, self.init = self.expect_flag("bias", bias), init
        for_activation(init, None, self.who)

    def build(self, x: Shape, *others: Shape) -> Shape:         # type: ignore[override]
        D, T = self.expect_axes(x, "features, steps")
        if self.lengths:
            if others[-1:] != ((1,),):
                raise ValueError(f"{self.who}: expected a last input of shape (1,), the number of "
                                 "steps of each sample of the keys. Received: "
                                 f"{others[-1] if others else 'none'}.")
            others = others[:-1]
        if len(others) > 2:
            raise ValueError(f"{self.who}: expected 1 to 3 inputs: queries, keys, values. "
                             f"Received: {1 + len(others)}.")
        keys, values = (others[0], others[-1]) if others else (x, x)
        (_, S), (_, of_values) = (self.expect_axes(shape, "features, steps")
                                  for shape in (keys, values))
        if D % self.heads:
            raise ValueError(f"{self.who}: expected heads={self.heads} to divide the features. "
                             f"Received: {D} features.")
        if of_values != S:
            raise ValueError(f"{self.who}: expected keys and values of the same number of steps. "
                             f"Received: {keys} and {values}.")
        if self.mask and S != T:
            raise ValueError(f'{self.who}: expected queries and keys of the same number of steps '
                             f'with mask="causal". Received: {T} and {S} steps.')
        self.expect_elements("weights A", (self.heads, S, T))
        self.query, self.key, self.value, self.output = (
            Linear(D, bias=bias, init=self.init)
            for bias in (self.bias, False, self.bias, self.bias))
        for name, layer, shape in (("query", self.query, x), ("key", self.key, keys),
                                   ("value", self.value, values), ("output", self.output, x)):
            self.child(name, layer, shape)
        if self.dropout:
            self.drop = Dropout(self.dropout)
            self.child("dropout", self.drop, (self.heads, S, T))
        self.alone = not others                 # the keys and values are X
        self.apart = len(others) == 2           # the values are not the keys
        self.scale = (D // self.heads) ** -0.5
        self.window = Window((1, S))            # a step depends on all steps, or on those before
        return x

    def expect_values(self, x: Array, number: int = 0) -> None:
        _, S = self.key.in_shapes[0]
        if (self.lengths and number == len(self.in_shapes) - 1
                and not 0 <= float(x.min()) <= float(x.max()) <= S):
            raise ValueError(f"{self.who}: expected numbers of steps from 0 to {S}. Received: "
                             f"numbers from {float(x.min()):g} to {float(x.max()):g}.")

    def forward(self, x: Array, *others: Array, mode: str = PREDICT) -> Array:  # type: ignore[override]
        lengths = others[-1] if self.lengths else None
        others = others[:-1] if self.lengths else others
        keys, values = (others[0], others[-1]) if others else (x, x)
        Q = self._by_heads(self.query.forward(x, mode=mode))                    # (h N, d, T)
        K = self._by_heads(self.key.forward(keys, mode=mode))                   # (h N, d, S)
        V = self._by_heads(self.value.forward(values, mode=mode))               # (h N, d, S)
        A = self._softmax(self.backend.products(K, Q, trans_a=True), lengths)   # (h N, S, T)
        dropped = self.drop.forward(A, mode=mode) if self.dropout else A
        H = self.backend.products(V, dropped)                                   # (h N, d, T)
        self.remember(mode, Q, K, V, A, dropped, lengths)
        y = self.output.forward(self._by_features(H, x.shape[-1]), mode=mode)
        return inside(self.xp, y, lengths) if self.alone else y

    def backward(self, dy: Array, accumulate: bool = False) -> Any:
        Q, K, V, A, dropped, lengths = self.recall()
        N, products = dy.shape[-1], self.backend.products
        if self.alone:
            dy = inside(self.xp, dy, lengths)
        dH = self._by_heads(self.output.backward(dy, accumulate))
        dV = products(dH, dropped, trans_b=True)
        dA = products(V, dH, trans_a=True)
        dA = self.drop.backward(dA) if self.dropout else dA
        dB = dA                                 # in place
        dB -= (dA * A).sum(axis=1, keepdims=True)
        dB *= A
        dB *= self.scale
        dQ, dK = products(K, dB), products(Q, dB, trans_b=True)
        for child in (self.query, self.key, self.value):
            child.needs_dx = self.needs_dx or not self.alone
        dx = self.query.backward(self._by_features(dQ, N), accumulate)
        dkeys: Any = self.key.backward(self._by_features(dK, N), accumulate)
        dvalues = self.value.backward(self._by_features(dV, N), accumulate)
        if self.alone:
            found = [None if dx is None else dx + dkeys + dvalues]
        else:
            found = [dx, dkeys, dvalues] if self.apart else [dx, dkeys + dvalues]
        if lengths is not None:                 # numbers of steps have no gradient
            found.append(self.backend.zeros(lengths.shape, dy.dtype))
        return found[0] if len(found) == 1 else tuple(found)

    def _softmax(self, products: Array, lengths: Array | None) -> Array:
        """A (h N, S, T), of all keys or of those that mask and lengths let through."""
        B, hidden = products, products.dtype.type(-np.inf)      # written in place from here on
        B *= self.scale
        if self.mask:
            B = self.xp.where(self._visible, B, hidden)
        if lengths is None:
            B -= B.max(axis=1, keepdims=True)
            e = self.xp.exp(B, out=B)
            e /= e.sum(axis=1, keepdims=True)
            return e
        S, T = B.shape[1:]
        real = self.xp.arange(S)[:, None] < lengths.reshape(-1, 1, 1)           # (N, S, 1)
        B = self.xp.where(real, B.reshape(self.heads, -1, S, T), hidden).reshape(B.shape)
        # Without a single step the maximum is -inf and the sum 0, else the sum is 1 or larger.
        B -= self.xp.maximum(B.max(axis=1, keepdims=True), np.finfo(B.dtype).min)
        e = self.xp.exp(B, out=B)
        e /= self.xp.maximum(e.sum(axis=1, keepdims=True), B.dtype.type(1))
        return e

    @cached_property
    def _visible(self) -> Array:
        """Whether step t may read step s, (S, T)."""
        T = self.in_shapes[0][1]
        return self.backend.asarray(np.tri(T, dtype=bool).T)

    def _by_heads(self, x: Array) -> Array:
        """(D, T, N) -> (h N, d, T), a matrix for each head and sample."""
        D, T, N = x.shape
        d = D // self.heads
        x = x.reshape(self.heads, d, T, N).transpose(0, 3, 1, 2)
        return self.backend.asarray(x).reshape(self.heads * N, d, T)

    def _by_features(self, H: Array, N: int) -> Array:
        """(h N, d, T) -> (D, T, N)."""
        _, d, T = H.shape
        H = H.reshape(self.heads, N, d, T).transpose(0, 2, 3, 1)
        return self.backend.asarray(H).reshape(self.heads * d, T, N)

    def multiply_adds(self) -> int:
        (D, T), (_, S) = self.in_shapes[0], self.key.in_shapes[0]
        return sum(child.multiply_adds() for child in self.children) + 2 * D * T * S
