"""Elementwise activations and softmax."""

from __future__ import annotations

from xpnet.backends import activations
from xpnet.layer import PREDICT, Array, Layer, Shape


class Activation(Layer):
    """Elementwise activation by name: Y = f(X), dX = dY f'(X), with f' written with Y where it follows from Y. Any shape.

    `activation` is one of the names in xpnet.backends.activations, with the constants that stand there; ValueError for
    another name. The class of an activation that has constants takes them.
    """

    kind = "activation"
    constants: tuple[float, ...] = ()       # the activation's own

    def __init__(self, activation: str, *, name: str | None = None) -> None:
        super().__init__(name=name)
        if activation is None:
            raise ValueError(f"{self.who}: expected the name of an activation. Received: None.")
        self.activation = activations.check(activation, self.who)

    def build(self, in_shape: Shape) -> Shape:
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        y = self.backend.activate(x, self.activation, self.constants)
        self.remember(mode, x if activations.of_input(self.activation) else y)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        kept, = self.recall()
        return self.backend.activation_backward(dy, kept, self.activation, self.constants)


class ReLU(Activation):
    """Rectified linear unit: Y = max(X, 0), dX = dY where Y > 0 (Nair and Hinton 2010)."""

    kind = "relu"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__("relu", name=name)


class Sigmoid(Activation):
    """Logistic function: Y = 1 / (1 + exp(-X)) (Rumelhart et al. 1986), dX = dY Y (1 - Y)."""

    kind = "sigmoid"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__("sigmoid", name=name)


class Tanh(Activation):
    """Hyperbolic tangent: Y = tanh(X), dX = dY (1 - Y^2) (LeCun et al. 1998)."""

    kind = "tanh"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__("tanh", name=name)


class ScaledTanh(Activation):
    """Scaled hyperbolic tangent: Y = 1.7159 tanh(2 X / 3), with Y(1) = 1 and Y(-1) = -1 (LeCun et al. 1998, appendix A)."""

    kind = "scaled_tanh"

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__("scaled_tanh", name=name)


class Softmax(Layer):
    """Softmax over the first axis: Y[k] = exp(X[k]) / sum over j of exp(X[j]), dX = Y (dY - sum over k of dY Y).

    X (K, ..., N), Y the same. As the last layer under the cross entropy loss it is fused with it (Bridle 1990).
    """

    kind = "softmax"

    def build(self, in_shape: Shape) -> Shape:
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        y = self.backend.softmax(x)
        self.remember(mode, y)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        y, = self.recall()
        return self.backend.softmax_backward(dy, y)
