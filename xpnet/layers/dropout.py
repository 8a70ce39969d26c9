"""Dropout and its relatives: random masks or noise in training, none in prediction."""

from __future__ import annotations

import math
from typing import Any

from xpnet.backends import Backend
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.linear import Linear, by_columns
from xpnet.lengths import CAUSAL

__all__ = [
    "AdditiveNoise", "AlphaDropout", "DropConnect", "Dropout", "Dropout2d", "GaussianDropout",
]

FLOOR = -1.6732632423543772 * 1.0507009873554805        # limit of SELU, -alpha lambda


class InTraining(Layer):
    """Base class: random in training and in "sample" mode, the identity in prediction."""

    steps = CAUSAL

    def build(self, in_shape: Shape) -> Shape:
        return in_shape

    @property
    def key(self) -> tuple[int, int]:
        """What the layer's random numbers depend on, in addition to the counters."""
        return self.seed, self.index

    def unchanged(self, x: Array) -> Array:
        """The output of a prediction, x itself; its gradient is dY."""
        self.remember(PREDICT, None)
        return x


class Dropout(InTraining):
    """Dropout: in training Y = X keep / (1 - p), each element kept with probability 1 - p; in
    prediction Y = X.

    X and Y of any shape. dX = dY keep / (1 - p). The mask depends only on (seed, layer, step) and
    is the same on every backend.

    Args:
        p: probability that an element is dropped, 0 <= p < 1.

    Srivastava et al. 2014, in its "inverted" form.
    """

    kind = "dropout"

    def __init__(self, p: float = 0.5, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.p = self.expect_number("p", p, 0, below=1)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return self.unchanged(x)
        y, keep = self.backend.dropout(x, self.p, self.key, self.counters)
        self.remember(mode, keep)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        keep, = self.recall()
        return dy if keep is None else self.backend.dropout_dx(dy, self.p, keep)


class Dropout2d(Dropout):
    """Spatial dropout: in training Y = X keep / (1 - p), whole feature maps being kept or dropped;
    in prediction Y = X.

    X (C, H, W, N), keep (C, 1, 1, N). dX = dY keep / (1 - p). Neighbouring pixels are alike: if
    single ones were dropped, their neighbours would still carry the information. Arguments are
    those of Dropout.

    Raises:
        ValueError: a sample does not have the axes channels, height, width.

    Tompson et al. 2015, section 3.2.
    """

    kind = "dropout2d"

    def build(self, in_shape: Shape) -> Shape:
        return self.expect_axes(in_shape, "channels, height, width")

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return self.unchanged(x)
        C, _, _, N = x.shape
        _, keep = self.backend.dropout(self.backend.zeros((C, N), x.dtype), self.p, self.key,
                                       self.counters)
        keep = keep.reshape(C, 1, 1, N)
        self.remember(mode, keep)
        return self._masked(x, keep)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        keep, = self.recall()
        return dy if keep is None else self._masked(dy, keep)

    def _masked(self, x: Array, keep: Array) -> Array:
        return self.xp.where(keep, x * (1.0 / (1.0 - self.p)), x.dtype.type(0))


class GaussianDropout(Dropout):
    """Gaussian dropout: in training Y = X M, M normal with mean 1 and variance p / (1 - p); in
    prediction Y = X.

    X and Y of any shape. dX = dY M. The first two moments are those of Dropout with the same p. M
    depends only on (seed, layer, step) and is the same on every backend up to rounding: NumPy's
    Philox words, with the transform of Box and Muller 1958.

    Args:
        p: 0 <= p < 1.

    Srivastava et al. 2014, section 10, where p is the probability that an element is kept.
    """

    kind = "gaussian_dropout"

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return self.unchanged(x)
        spread = math.sqrt(self.p / (1.0 - self.p))
        noise = 1.0 + spread * normal_numbers(self.backend, x.size, x.dtype, self.key,
                                              self.counters).reshape(x.shape)
        self.remember(mode, noise)
        return x * noise

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        noise, = self.recall()
        return dy if noise is None else dy * noise


class AdditiveNoise(InTraining):
    """Additive Gaussian noise: in training Y = X + std Z, Z normal with mean 0 and variance 1; in
    prediction Y = X.

    X and Y of any shape. dX = dY. Keras calls this layer GaussianNoise; here that is the
    augmentation, which changes samples before they reach the network. Z depends only on (seed,
    layer, step), as the noise of GaussianDropout.

    Args:
        std: standard deviation, in the units of X.

    Sietsma and Dow 1991; as a penalty on the derivatives: Bishop 1995.
    """

    kind = "noise"

    def __init__(self, std: float, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.std = self.expect_number("std", std, 0)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return self.unchanged(x)
        self.remember(mode, None)
        z = normal_numbers(self.backend, x.size, x.dtype, self.key, self.counters)
        return x + self.std * z.reshape(x.shape)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return dy


class AlphaDropout(Dropout):
    """Alpha dropout: in training Y = a (X keep + alpha (1 - keep)) + b, alpha = -1.7581, the limit
    of SELU; in prediction Y = X.

    X and Y of any shape. dX = a dY keep. With q = 1 - p, a = (q + alpha^2 p q)^(-1/2) and b = -a p
    alpha keep a mean of 0 and a variance of 1 as they are.

    Args:
        p: probability that an element is replaced, 0 <= p < 1.

    Klambauer et al. 2017, section 2.
    """

    kind = "alpha_dropout"

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return self.unchanged(x)
        _, keep = self.backend.dropout(x, self.p, self.key, self.counters)
        self.remember(mode, keep)
        a = self._scale()
        b = -a * self.p * FLOOR
        return self.xp.where(keep, a * x + b, x.dtype.type(a * FLOOR + b))

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        keep, = self.recall()
        if keep is None:
            return dy
        return self.xp.where(keep, self._scale() * dy, dy.dtype.type(0))

    def _scale(self) -> float:
        return ((1.0 - self.p) * (1.0 + FLOOR**2 * self.p)) ** -0.5


def normal_numbers(backend: Backend, n: int, dtype: Any, key: tuple[int, int],
                   counter: Array) -> Array:
    """n numbers with mean 0 and variance 1: sqrt(-2 log u1) cos(2 pi u2), and sin, for uniform u1,
    u2 (Box and Muller 1958).

    Numbers 2 i and 2 i + 1 come from the words 2 i and 2 i + 1 of backend.random_bits(..., key,
    counter).
    """
    xp, pairs = backend.xp, (n + 1) // 2
    words = backend.random_bits(2 * pairs, key, counter).reshape(pairs, 2)
    u = (words.astype(dtype) + 0.5) * 2.0**-32  # 0 < u <= 1
    radius, angle = xp.sqrt(-2.0 * xp.log(u[:, 0])), 2.0 * math.pi * u[:, 1]
    normal = backend.empty((pairs, 2), dtype)
    normal[:, 0] = radius * xp.cos(angle)
    normal[:, 1] = radius * xp.sin(angle)
    return normal.reshape(2 * pairs)[:n]


class DropConnect(Linear):
    """DropConnect: in training Y = f(W keep / (1 - p) X + b), each weight kept with probability 1 -
    p; else Y = f(W X + b).

    X (D, N), W and keep (units, D), b (units,), Y (units, N).
    dZ = dY f'(Y), dW = dZ X^T keep / (1 - p), dX = (W keep / (1 - p))^T dZ.
    Other arguments are those of Linear.

    Args:
        p: probability that a weight is dropped, 0 <= p < 1.

    Wan et al. 2013, whose p is the probability that a weight is kept, with three differences. There
    is one mask for a batch; the paper draws one for each sample, which would take N products of
    matrices. Biases are never dropped. Prediction uses the mean weights; the paper draws Z from a
    normal distribution of the same mean and variance.
    """

    kind = "drop_connect"

    def __init__(self, units: int, p: float = 0.5, *, bias: bool = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(units, bias=bias, activation=activation, init=init, name=name)
        self.p = self.expect_number("p", p, 0, below=1)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return super().forward(x, mode)
        W, keep = self.backend.dropout(self.W.data, self.p, (self.seed, self.index), self.counters)
        return self.product(W, x, mode, W, keep)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        if len(self.kept or ()) == 2:       # of a prediction, by all weights
            return super().backward(dy, accumulate)
        x, kept, W, keep = self.recall()
        dz = self.backend.activation_backward(by_columns(dy), kept, self.activation,
                                              bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        dW = self.backend.gemm(dz, x, trans_b=True)  # (units, D)
        self.backend.store(self.backend.dropout_dx(dW, self.p, keep), self.W.grad, accumulate)
        if not self.needs_dx:
            return None
        dx = self.backend.gemm(W, dz, trans_a=True)
        return dx.reshape(*self.in_shapes[0], dy.shape[-1])
