"""Elementwise activations: the layer for any of them by name, and the classes of the sigmoids."""

from __future__ import annotations

from xpnet.backends import activations
from xpnet.layer import PREDICT, Array, Layer, Shape


class Activation(Layer):
    """Elementwise activation by name: Y = f(X), dX = dY f'(X). Any shape.

    For the gradient the layer keeps Y where f' follows from Y, else X (ELU, GELU, Softsign, ...), which
    takes more memory where nothing else keeps X.
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


class NamedActivation(Activation):
    """Base class of the activations without constants: `kind` is the activation's name."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(self.kind, name=name)


class Identity(NamedActivation):
    """Linear activation: Y = X, dX = dY. Its name is "linear"."""

    kind = "linear"


class Sigmoid(NamedActivation):
    """Logistic function: Y = 1 / (1 + exp(-X)) (Rumelhart et al. 1986), dX = dY Y (1 - Y).

    Y has all of its digits where it is tiny. In float32 it is rounded to 1 from X = 17.4 on, and then dX
    is 0.
    "logistic" is another name of it.
    """

    kind = "sigmoid"


class Loggy(NamedActivation):
    """Logistic function between -1 and 1: Y = 2 / (1 + exp(-X)) - 1 (Redmon 2013), dX = dY (1 - Y^2) / 2.

    This is tanh(X / 2), and computed so: exp(-X) would overflow. dX is computed as dY 2 t / (1 + t)^2 with
    t = exp(-|X|), which has its digits also where Y is rounded to 1. Of darknet, and NumPyNet.
    """

    kind = "loggy"


class Tanh(NamedActivation):
    """Hyperbolic tangent: Y = tanh(X), dX = dY (1 - Y^2) (LeCun et al. 1998)."""

    kind = "tanh"


class ScaledTanh(NamedActivation):
    """Scaled hyperbolic tangent: Y = 1.7159 tanh(2 X / 3), with Y(1) = 1 and Y(-1) = -1 (LeCun et al. 1998, appendix A)."""

    kind = "scaled_tanh"


class LogSigmoid(NamedActivation):
    """Logarithm of the logistic function: Y = log(1 / (1 + exp(-X))), dX = dY (1 - exp(Y)).

    The cost of Burges et al. 2005, with the sign turned. Computed as min(X, 0) - log(1 + exp(-|X|)), which loses no digits
    and does not overflow.
    """

    kind = "log_sigmoid"


class Softsign(NamedActivation):
    """Softsign: Y = X / (1 + |X|), dX = dY / (1 + |X|)^2 (Bergstra et al. 2009).

    In terms of the output the derivative is (1 - |Y|)^2, which has no digits left where |Y| is nearly 1. NumPyNet's table
    prints 1 / (1 + |f|)^2, the formula for X with f put in its place: at f = 1/2, X = 1, it gives 4/9 instead of 1/4.
    """

    kind = "softsign"


class SymmElliot(Activation):
    """Elliott's symmetric sigmoid: Y = S X / (1 + |S X|), dX = dY S / (1 + |S X|)^2, with a steepness S > 0 (Elliott 1993).

    In terms of the output the derivative is S (1 - |Y|)^2. NumPyNet's table prints S / (1 + |S f|)^2, the formula for X
    with f put in its place.
    """

    kind = "symmelliot"

    def __init__(self, steepness: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("symmelliot", name=name)
        self.steepness = self.expect_positive("steepness", steepness)
        self.constants = (self.steepness,)


class Elliot(Activation):
    """Elliott's sigmoid: Y = S X / (2 (1 + |S X|)) + 1/2, dX = dY S / (2 (1 + |S X|)^2), with a steepness S > 0 (Elliott 1993).

    In terms of the output the derivative is S/2 (1 - |2 Y - 1|)^2. NumPyNet's table and code have 1 + |X + S|
    in the denominator: then, with S = 1, Y is 0 for every X <= -1. For the derivative the table prints
    S / (2 (1 + |f + S|)^2).
    """

    kind = "elliot"

    def __init__(self, steepness: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("elliot", name=name)
        self.steepness = self.expect_positive("steepness", steepness)
        self.constants = (self.steepness,)


class Arctan(NamedActivation):
    """Arc tangent: Y = arctan(X), dX = dY / (1 + X^2), between -pi/2 and pi/2 (Kamruzzaman and Aziz 2002)."""

    kind = "arctan"
