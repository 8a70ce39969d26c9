"""Whitening: decorrelating the input by a matrix that follows from the data."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet.checks import finite_array
from xpnet.initializers import zeros
from xpnet.layer import PREDICT, Array, Layer, Shape

SAMPLES = 4096      # whose products are summed at a time: they take memory in float64


class Whitening(Layer):
    """Whitening: Y = W (X - mean), with W Cov(X) W^T = I (Bell and Sejnowski 1997).

    With Cov = U diag(v) U^T, the largest v first, method "pca" has W = diag(v + eps)^(-1/2) U^T,
    and "zca" U times that, the symmetric one, whose outputs stay as near to X as they can and look
    like pictures. X (C, ..., N) counts as features (D, N); Y (components, N) for PCA, like X for
    ZCA; mean (D,), W (components or D, D). dX = W^T dY. `components` keeps only the first
    directions, all unless told; eps keeps those where the data do not vary from being blown up.
    Krizhevsky 2009, appendix A.

    mean and W come from data: `layer.fit(x_train)`, once the layer is in a network, e.g.
    net.layers[0].fit(x_train), and are saved with it. Before that Y = X, for PCA its first
    components. They are not trained. ValueError for more components than features, and in fit for
    data that do not vary in some direction while eps is 0.
    """

    kind = "whitening"

    def __init__(self, method: str = "zca", *, eps: float = 1e-5, components: int | None = None,
                 name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        self.method = self.expect_choice("method", method, ("zca", "pca"))
        self.eps = self.expect_number("eps", eps, 0)
        self.components = (None if components is None
                           else self.expect_integer("components", components))

    def build(self, in_shape: Shape) -> Shape:
        D = math.prod(in_shape)
        if self.components is not None and self.components > D:
            raise ValueError(f"{self.who}: expected at most {D} components, one for each feature. "
                             f"Received: components={self.components}.")
        rows = D if self.method == "zca" else self.components or D
        self.mean = self.state("mean", (D,), zeros)
        self.W = self.state("W", (rows, D), lambda rng, shape, fan_in, fan_out: np.eye(rows, D))
        return in_shape if self.method == "zca" else (rows,)

    @np.errstate(under="ignore")
    def fit(self, x: Any) -> Whitening:
        """Take mean and covariance from batch-first data (S, ...), S at least 2, in float64 on the
        host. Returns itself."""
        if not self.built:
            raise ValueError(f"{self.who}: expected to be in a network before fit, so that its "
                             "input shape is known. "
                             "Received: a layer that stands in none.")
        shape = self.in_shapes[0]
        x = finite_array(x, self.who, self.buffers.dtype)
        if x.shape[1:] != shape or len(x) < 2:
            raise ValueError(f"{self.who}: expected at least 2 samples of shape (S, "
                             f"{', '.join(map(str, shape))}). "
                             f"Received: shape {x.shape}.")
        x = x.reshape(len(x), -1)  # (S, D)
        mean = x.mean(axis=0, dtype=np.float64)
        blocks = [x[start:start + SAMPLES] for start in range(0, len(x), SAMPLES)]
        # exact for a constant feature then
        mean += sum((block - mean).sum(axis=0) for block in blocks) / len(x)
        # (D, D)
        covariance = sum(far.T @ far for far in (block - mean for block in blocks)) / (len(x) - 1)
        values, U = np.linalg.eigh(covariance)  # the smallest first
        values, U = (a[..., ::-1][..., :self.components] for a in (values, U))
        if values[-1] + self.eps <= values[0] * len(mean) * np.finfo(np.float64).eps:
            raise ValueError(f"{self.who}: expected data that vary in every direction, or eps "
                             "above 0, or fewer components. "
                             f"Received: a smallest variance of {max(values[-1], 0.0):.1e}.")
        W = U.T / np.sqrt(values + self.eps)[:, None]  # (components, D)
        with self.backend.scope():
            for state, value in ((self.mean, mean), (self.W, W if self.method == "pca" else U @ W)):
                state.data[...] = self.backend.asarray(value, self.buffers.dtype)
        return self

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        centred = x.reshape(-1, x.shape[-1]) - self.mean.data[:, None]  # (D, N)
        return self.backend.gemm(self.W.data, centred).reshape(*self.out_shape, -1)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        self.recall()
        if not self.needs_dx:
            return None
        dx = self.backend.gemm(self.W.data, dy.reshape(-1, dy.shape[-1]), trans_a=True)  # (D, N)
        return dx.reshape(*self.in_shapes[0], -1)

    def multiply_adds(self) -> int:
        return self.W.size
