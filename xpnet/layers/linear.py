"""Fully connected and locally connected layers, and radial basis functions."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import POINTS, Padding, Pair
from xpnet.checks import is_number, items, rows_of, wrong
from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.activations import Activated
from xpnet.layers.softmax import Softmax
from xpnet.lengths import CAUSAL
from xpnet.node import Node

__all__ = ["Linear", "LocallyConnected2d", "MatMul", "RBF"]


class Linear(Activated):
    """Fully connected layer: Y = f(W X + b) (Rosenblatt 1958).

    X (D, N), W (units, D), b (units,), Y (units, N).
    dZ = dY f'(Y), dW = dZ X^T, db = sum over N of dZ, dX = W^T dZ.
    Of sequences X (D, T, N) each step is multiplied by the same W, in one product of W and X seen
    as (D, T N); Y (units, T, N).

    Args:
        units: number of output features.
        activation: name of an activation. "softmax" adds the layer Softmax() after this one when it
            is called in a network: it is not elementwise, and losses read what comes before it.
        init: name of an initializer; by default the one that fits the activation.

    Raises:
        ValueError: a sample is neither a vector nor a sequence. Put Flatten() before the layer. Or
            the layer is used alone, and has activation="softmax".
    """

    kind = "linear"
    steps = CAUSAL

    def __init__(self, units: int, *, bias: bool = True, activation: str | None = None,
                 init: str | None = None, name: str | None = None) -> None:
        softmax = isinstance(activation, str) and activation == "softmax"
        elementwise = None if softmax else activation
        super().__init__(elementwise, name=name)
        self.activation = activation
        self.units = self.expect_integer("units", units)
        self.bias, self.init = self.expect_flag("bias", bias), init
        self.initializer = for_activation(init, elementwise, self.who)
        self.softmax: Softmax | None = None         # what comes after each use

    def __call__(self, *inputs: Node) -> Node:
        """Add the layer to a graph, with activation="softmax" as two layers."""
        if self.activation == "softmax":
            self.activation, self.softmax = None, Softmax()
        node = self.node(*inputs)
        return node if self.softmax is None else self.softmax(node)

    def build(self, in_shape: Shape) -> Shape:
        if self.activation == "softmax":
            raise ValueError(f'{self.who}: expected activation="softmax" in a call of the layer in '
                             "a graph, which adds the layer Softmax() after it. Received: a layer "
                             "that is built otherwise.")
        if len(in_shape) > 2:
            raise ValueError(f"{self.who}: expected a vector of features per sample; put Flatten() "
                             f"before it. Received: input shape {in_shape}.")
        D, *steps = in_shape
        self.W = self.parameter("W", (self.units, D), self.initializer)
        self.b = self.parameter("b", (self.units,), zeros) if self.bias else None
        return self.units, *steps

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        return self.product(self.W.data, x, mode)

    def product(self, W: Array, x: Array, mode: str, *kept_too: Array) -> Array:
        """f(W X + b); backward gets X as columns, what the derivative of f needs, and `kept_too`.
        """
        columns = by_columns(x)                                             # (D, T N)
        z = self.backend.gemm(W, columns, bias=self.b.data if self.b else None,
                              activation=self.fused)                        # (units, T N)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, columns, kept, *kept_too)
        return y.reshape(*self.out_shape, x.shape[-1])

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept = self.recall()
        dz = self.backend.activation_backward(by_columns(dy), kept, self.activation,
                                              bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        self.backend.gemm(dz, x, trans_b=True, out=self.W.grad, accumulate=accumulate)  # (units, D)
        if not self.needs_dx:
            return None
        dx = self.backend.gemm(self.W.data, dz, trans_a=True)               # (D, T N)
        return dx.reshape(*self.in_shapes[0], dy.shape[-1])

    def multiply_adds(self) -> int:
        return self.W.size * math.prod(self.in_shapes[0][1:])


def by_columns(x: Array) -> Array:
    """x (D, N) itself; a sequence (D, T, N) as (D, T N)."""
    return x if x.ndim == 2 else x.reshape(len(x), -1)


class MatMul(Layer):
    """Product of two matrices of each sample: Y = X Z.

    A layer of two inputs, MatMul()(x, z). X (..., M, K, N), Z (..., K, P, N), Y (..., M, P, N); the
    axes in front are equal and count the matrices of a sample. dX = dY Z^T, dZ = X^T dY.

    Raises:
        ValueError: a sample is no matrix, or the shapes do not fit.

    As the products of attention: Vaswani et al. 2017, eq. 1.
    """

    kind = "matmul"
    sees_all = True

    def build(self, x: Shape, z: Shape) -> Shape:               # type: ignore[override]
        if len(x) < 2 or len(x) != len(z) or x[:-2] != z[:-2] or x[-1] != z[-2]:
            raise ValueError(f"{self.who}: expected matrices (..., M, K) and (..., K, P) per "
                             f"sample. Received: {x} and {z}.")
        return *x[:-1], z[-1]

    def forward(self, x: Array, z: Array, mode: str = PREDICT) -> Array:    # type: ignore[override]
        X, Z = self._matrices(x), self._matrices(z)                         # (G N, M, K), ...
        self.remember(mode, X, Z)
        return self._samples(self.backend.products(X, Z), self.out_shape)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, Array]:
        X, Z = self.recall()
        dY = self._matrices(dy)
        dX, dZ = (self.backend.products(dY, Z, trans_b=True),
                  self.backend.products(X, dY, trans_a=True))
        return self._samples(dX, self.in_shapes[0]), self._samples(dZ, self.in_shapes[1])

    def _matrices(self, x: Array) -> Array:
        """(..., M, K, N) -> (G N, M, K)."""
        *G, M, K, N = x.shape
        x = x.reshape(-1, M, K, N).transpose(0, 3, 1, 2)
        return self.backend.asarray(x).reshape(-1, M, K)

    def _samples(self, X: Array, shape: Shape) -> Array:
        """(G N, M, K) -> (..., M, K, N)."""
        *G, M, K = shape
        X = X.reshape(math.prod(G), -1, M, K).transpose(0, 2, 3, 1)
        return self.backend.asarray(X).reshape(*shape, -1)

    def multiply_adds(self) -> int:
        return math.prod(self.in_shapes[0]) * self.in_shapes[1][-1]


class RBF(Layer):
    """Euclidean radial basis functions with fixed centres: Y[k] = -sum over d of (X[d] -
    codes[k][d])^2 (LeCun et al. 1998, eq. 7 and 9).

    X (D, N), codes (K, D), Y (K, N).
    dX = 2 (codes^T dY - X sum over k of dY). The nearest code has the largest output, so cross
    entropy on Y is the discriminative criterion of LeNet-5, without the constant that bounds the
    penalty.

    Args:
        codes: the K centres, lists of D numbers.

    Raises:
        ValueError: the codes differ in length, or the input does not have D features.
    """

    kind = "rbf"

    def __init__(self, codes: Sequence[Sequence[float]], *, name: str | None = None) -> None:
        super().__init__(name=name)
        rows = [items(code) or [] for code in items(codes) or rows_of(codes)]
        if (not rows or not rows[0] or len({len(row) for row in rows}) != 1
                or not all(is_number(value) for row in rows for value in row)):
            raise wrong(self.who, "codes to be lists of numbers of one length, one for each class",
                        "codes", codes)
        self.codes = [[float(value) for value in row] for row in rows]

    def build(self, in_shape: Shape) -> Shape:
        codes = np.array(self.codes)
        if in_shape != codes.shape[1:]:
            raise ValueError(f"{self.who}: expected {codes.shape[1]} features, the length of a "
                             f"code. Received: input shape {in_shape}.")
        self.C = self.state("codes", codes.shape, lambda rng, shape, fan_in, fan_out: codes)
        return (len(codes),)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode, x)
        C = self.C.data  # (K, D)
        xx, CC = (x * x).sum(axis=0), (C * C).sum(axis=1)       # (N,), (K,)
        return 2 * self.backend.gemm(C, x) - xx - CC[:, None]   # (K, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x, = self.recall()
        return 2 * (self.backend.gemm(self.C.data, dy, trans_a=True) - x * dy.sum(axis=0))  # (D, N)

    def multiply_adds(self) -> int:
        return self.C.size


class LocallyConnected2d(Activated):
    """Local connections without sharing: Y[f, p] = act(b[p, f] + sum over c, i, j of W[p, f, c, i,
    j] X[c, p s - top + (i, j)]).

    X (C, H, W, N), W (OH, OW, filters, C, KH, KW), b (OH, OW, filters), Y (filters, OH, OW, N); p =
    (y, x) is an output position. Every position is a small fully connected layer on its window, so
    all of them are one product in groups, with one group per position. With cols[p] (C KH KW, N)
    the column of position p: Z[p] = W[p] cols[p], dW[p] = dZ[p] cols[p]^T, db = sum of dZ over the
    batch, dX = col2im(W[p]^T dZ[p]). The layer has OH OW times the weights of a Conv2d and needs
    the same number of multiply-adds. Arguments and errors are those of Conv2d.

    LeCun 1989 (where it learns digits less well than shared weights do); Gregor and LeCun 2010;
    Taigman et al. 2014.
    """

    kind = "local"
    window: Window

    def __init__(self, filters: int, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
                 bias: bool = True, activation: str | None = None, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.filters = self.expect_integer("filters", filters)
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.window = Window.make(kernel_size, stride, padding, who=self.who)
        self.bias, self.init = self.expect_flag("bias", bias), init
        self.initializer = for_activation(init, activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        OH, OW = self.window.output_size(H, W, who=self.who)
        taps = self.window.taps
        self.positions, self.fan = OH * OW, C * taps
        self.W = self.parameter("W", (OH, OW, self.filters, C, *self.window.kernel),
                                self.initializer, decay=True, fan_in=self.fan,
                                fan_out=self.filters * taps, units=3)
        self.b = (self.parameter("b", (OH, OW, self.filters), zeros, decay=False)
                  if self.bias else None)
        return self.filters, OH, OW

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        P, K, F, N = self.positions, self.fan, self.filters, x.shape[3]
        cols = self.backend.im2col(x, self.window).reshape(K, P, N).transpose(1, 0, 2)
        cols = self.backend.asarray(cols).reshape(P * K, 1, 1, N)
        z = self.backend.conv2d(cols, self.W.data.reshape(P * F, K, 1, 1), POINTS, groups=P,
                                activation=self.fused,
                                bias=self.b.data.reshape(-1) if self.b else None)  # (P*F, 1, 1, N)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, cols, kept, x.shape)
        y = self.backend.asarray(y.reshape(P, F, N).transpose(1, 0, 2))     # (F, P, N)
        return y.reshape(*self.out_shape, N)

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        cols, kept, x_shape = self.recall()
        P, K, F, N = self.positions, self.fan, self.filters, x_shape[3]
        dy = self.backend.asarray(dy.reshape(F, P, N).transpose(1, 0, 2)).reshape(P * F, 1, 1, N)
        dz = self.backend.activation_backward(dy, kept, self.activation, accumulate=accumulate,
                                              bias_grad=self.b.grad.reshape(-1) if self.b else None)
        self.backend.conv2d_dW(cols, dz, POINTS, groups=P, out=self.W.grad.reshape(P * F, K, 1, 1),
                               accumulate=accumulate)
        if not self.needs_dx:
            return None
        dcols = self.backend.conv2d_dx(dz, self.W.data.reshape(P * F, K, 1, 1), cols.shape, POINTS,
                                       groups=P)
        dcols = self.backend.asarray(dcols.reshape(P, K, N).transpose(1, 0, 2)).reshape(K, P * N)
        return self.backend.col2im(dcols, x_shape, self.window)

    def multiply_adds(self) -> int:
        return self.positions * self.filters * self.fan
