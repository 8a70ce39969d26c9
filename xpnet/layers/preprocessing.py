"""Preparing the input: fixed scaling, and whitening fitted to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import finite_array, items, wrong
from xpnet.initializers import zeros
from xpnet.layer import PREDICT, Array, Layer, Shape

SAMPLES = 4096      # whose products are summed at a time: they take memory in float64


class Rescale(Layer):
    """Fixed scaling of the input: Y = (X - mean) / std, dX = dY / std.

    X (C, ..., N), Y the same; mean and std are numbers, or one for each channel. As the first
    layer, Rescale(std=255) lets pictures stay bytes until they are on the backend, and the saved
    network knows how its input is to be read. ValueError for a std of 0, and for lists of another
    length than the channels.
    """

    kind = "rescale"

    def __init__(self, mean: float | Sequence[float] = 0.0, std: float | Sequence[float] = 1.0, *,
                 name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        self.mean, self.std = self._numbers("mean", mean), self._numbers("std", std)
        if 0.0 in (self.std if isinstance(self.std, list) else [self.std]):
            raise wrong(self.who, "a std other than 0", "std", std)

    def _numbers(self, name: str, value: float | Sequence[float]) -> float | list[float]:
        if (numbers := items(value)) is not None:
            return [self.expect_number(f"each of {name}", number) for number in numbers]
        return self.expect_number(name, value)

    def build(self, in_shape: Shape) -> Shape:
        for name, value in (("mean", self.mean), ("std", self.std)):
            if isinstance(value, list) and len(value) != in_shape[0]:
                raise ValueError(f"{self.who}: expected a {name} for each of {in_shape[0]} "
                                 f"channels. Received: {len(value)}.")
        return in_shape

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        super().bind(backend, seed, index, counters)
        self._mean, self._std = (self._per_channel(value) for value in (self.mean, self.std))

    def _per_channel(self, value: float | list[float]) -> float | Array:
        """A number, or (C, 1, .., 1) on the backend."""
        if not isinstance(value, list):
            return value
        return (self.backend.asarray(np.array(value),
                                     self.buffers.dtype).reshape(-1,
                                                                 *(1,) * len(self.in_shapes[0])))

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        y = x - self._mean
        y /= self._std
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        self.recall()
        return dy / self._std if self.needs_dx else None


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
