"""Vectors for the tokens of sequences: words, characters, categories."""

from __future__ import annotations

import numpy as np

from xpnet.backends.arguments import expect_choice
from xpnet.initializers import INITIALIZERS
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.lengths import CAUSAL

__all__ = ["Embedding"]

MOST_TOKENS = 1 << 24       # float32 has all whole numbers up to here


class Embedding(Layer):
    """Vectors of tokens: Y[:, t] = W[X[t]], a row of W for each token (Bengio et al. 2003, section
    2).

    X (T, N) are whole numbers from 0 to tokens - 1, in the dtype of the network; people pass
    integers (N, T). W (tokens, features), Y (features, T, N). It is the product of W^T with one-hot
    columns, of which only the rows that are needed are read. dW[v] = sum of the dY[:, t] with X[t]
    = v, in the order of the steps; dX = 0. X may have any shape (..., N); Y is (features,
    ..., N).

    Args:
        tokens: size of the vocabulary.
        features: length of a vector.
        init: name of an initializer; by default numbers with mean 0 and variance 1.

    Raises:
        ValueError: X has a number that is not a token. On a GPU this is checked for the arrays that
            people pass, before anything is computed.
    """

    kind = "embedding"
    steps = CAUSAL

    def __init__(self, tokens: int, features: int, *, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(name=name)
        self.tokens = self.expect_integer("tokens", tokens, 1, MOST_TOKENS)
        self.features = self.expect_integer("features", features)
        self.init = expect_choice(self.who, "init", init, [None, *INITIALIZERS])

    def build(self, in_shape: Shape) -> Shape:
        # Each output has one term, so "lecun_normal" has the variance 1 / fan_in = 1.
        self.W = self.parameter("W", (self.tokens, self.features),
                                INITIALIZERS[self.init or "lecun_normal"], fan_in=1,
                                fan_out=self.features)
        return self.features, *in_shape

    def expect_values(self, x: Array, number: int = 0) -> None:
        least, most = float(x.min()), float(x.max())
        if not 0 <= least <= most < self.tokens:            # a NaN is neither
            outside = least if not least >= 0 else most
            raise ValueError(f"{self.who}: expected tokens from 0 to {self.tokens - 1}. "
                             f"Received: {outside:g} among them.")
        if x.dtype.kind == "f" and not (x == x.round()).all():
            raise ValueError(f"{self.who}: expected tokens, which are whole numbers. Received: "
                             f"{float(x[x != x.round()][0]):g} among them.")

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if self.xp is np:
            self.expect_values(x)
        tokens = x.reshape(-1).astype("int64")                              # (T N,)
        if self.xp is not np:       # other values were reported before, or come from a layer
            tokens = self.xp.clip(tokens, 0, self.tokens - 1)
        self.remember(mode, tokens)
        y = self.backend.gather_batch(self.W.data, tokens, self.W.data.dtype)   # (features, T N)
        return y.reshape(self.features, *x.shape)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        tokens, = self.recall()
        self.backend.sums_by_token(dy.reshape(self.features, -1), tokens, out=self.W.grad,
                                   accumulate=accumulate)
        return self.backend.zeros(dy.shape[1:], dy.dtype) if self.needs_dx else None
