"""Preparing the input: fixed scaling, and whitening that is fitted to data."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import finite_array, items, wrong
from xpnet.initializers import zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.lengths import CAUSAL

__all__ = ["Rescale", "Whitening"]

SAMPLES = 4096      # samples whose products are summed at once, which takes memory in float64


class Rescale(Layer):
    """Fixed scaling of the input: Y = (X - mean) / std, dX = dY / std.

    X and Y (C, ..., N). As the first layer, Rescale(std=255) lets images stay bytes until they are
    on the backend, and the scaling is saved with the network.

    Args:
        mean: a number, or one for each channel.
        std: a number other than 0, or one for each channel.

    Raises:
        ValueError: a list does not have one number per channel.
    """

    kind = "rescale"
    steps = CAUSAL

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

    def bind(self, backend: Backend, seed: int, counters: Array) -> None:
        super().bind(backend, seed, counters)
        self._mean, self._std = (self._per_channel(value) for value in (self.mean, self.std))

    def _per_channel(self, value: float | list[float]) -> float | Array:
        """A number, or an array (C, 1, .., 1) on the backend."""
        if not isinstance(value, list):
            return value
        numbers = self.backend.asarray(np.array(value), self.buffers.dtype)
        return numbers.reshape(-1, *(1,) * len(self.in_shapes[0]))

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

    X (C, ..., N) counts as features (D, N); mean (D,), W (components or D, D). Y is (components, N)
    for PCA, and like X for ZCA. dX = W^T dY. With Cov = U diag(v) U^T, the largest v first, PCA has
    W = diag(v + eps)^(-1/2) U^T, and ZCA has U times that: the symmetric W, whose outputs stay as
    close to X as possible and look like images.

    mean and W come from data: call `layer.fit(x_train)` once the layer is in a network, e.g.
    net.layers[0].fit(x_train). They are saved with the network and not trained. Before that Y = X,
    for PCA its first components.

    Args:
        method: "zca" or "pca".
        eps: keeps directions in which the data do not vary from being amplified.
        components: number of directions that are kept, for PCA and ZCA; by default all.

    Raises:
        ValueError: there are more components than features.

    Krizhevsky 2009, appendix A.
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
        """Compute mean and covariance of batch-first data (S, ...) in float64 on the host; return
        the layer.

        Args:
            x: at least 2 samples.

        Raises:
            ValueError: the layer is not in a network, the shape is not that of its input, or eps is
                0 and the data do not vary in some direction.
        """
        if not self.built:
            raise ValueError(f"{self.who}: expected to be in a network before fit, so that its "
                             "input shape is known. Received: a layer that is in none.")
        shape = self.in_shapes[0]
        x = finite_array(x, self.who, self.buffers.dtype)
        if x.shape[1:] != shape or len(x) < 2:
            raise ValueError(f"{self.who}: expected at least 2 samples of shape (S, "
                             f"{', '.join(map(str, shape))}). Received: shape {x.shape}.")
        x = x.reshape(len(x), -1)  # (S, D)
        mean = x.mean(axis=0, dtype=np.float64)
        blocks = [x[start:start + SAMPLES] for start in range(0, len(x), SAMPLES)]
        # a second pass makes the mean of a constant feature exact
        mean += sum((block - mean).sum(axis=0) for block in blocks) / len(x)
        products = sum(far.T @ far for far in (block - mean for block in blocks))
        values, U = np.linalg.eigh(products / (len(x) - 1))     # of the covariance, smallest first
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
