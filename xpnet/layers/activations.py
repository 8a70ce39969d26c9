"""Activations that are smooth, and the base classes of all activations.

The functions and their derivatives are in xpnet/backends/activations.py.
"""

from __future__ import annotations

from xpnet.backends import activations
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.lengths import CAUSAL

__all__ = [
    "Activation", "Arctan", "CELU", "ELU", "Elliot", "GELU", "Gaussian", "Identity", "LogSigmoid",
    "Loggy", "Mish", "SELU", "ScaledTanh", "SiLU", "Sigmoid", "SmoothAbs", "Softplus", "Softsign",
    "SymmElliot", "Tanh", "Tanhshrink",
]


class Activated(Layer):
    """Base class of the layers with an argument `activation`: Y = f(Z), where the layer computes Z.

    The kernel that computes Z applies f if it can (`fused`); if not, `activated` applies it.
    """

    def __init__(self, activation: str | None, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.activation = activations.check(activation, self.who)

    @property
    def fused(self) -> str | None:
        """The activation, if the kernel that computes Z applies it."""
        return self.activation if self.activation in activations.FUSED else None

    def activated(self, z: Array, done: str | None = None) -> tuple[Array, Array]:
        """(Y, the array that activation_backward needs) from the kernel's result z: Y if the kernel
        has already applied the activation `done`, else Z."""
        if self.activation == done:
            return z, z
        y = self.backend.activate(z, self.activation)
        return y, z if activations.of_input(self.activation) else y


class Activation(Layer):
    """Elementwise activation by name: Y = f(X), dX = dY f'(X). Any shape.

    For the backward pass the layer keeps Y if f' follows from Y, else X (ELU, GELU, Softsign, ...).
    Keeping X takes more memory, unless another layer keeps it too.

    Args:
        activation: a name in the table of xpnet.backends.activations. Its constants have the
            default values of the table; to choose others, use the class of the activation.

    Raises ValueError for an unknown name.
    """

    kind = "activation"
    steps = CAUSAL

    def __init__(self, activation: str, *, name: str | None = None) -> None:
        super().__init__(name=name)
        if activation is None:
            raise ValueError(f"{self.who}: expected the name of an activation. Received: None.")
        self.activation: str = activations.check(activation, self.who)

    @property
    def constants(self) -> tuple[float, ...]:
        """The activation's constants: attributes of the layer, or the defaults of the table."""
        table = activations.ACTIVATIONS[self.activation].constants
        return tuple(getattr(self, name, default) for name, default in table.items())

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
    """Base class of the activations without constants; `kind` is the name of the activation."""

    def __init__(self, *, name: str | None = None) -> None:
        super().__init__(self.kind, name=name)


# --- sigmoids -------------------------------------------------------------------------------------


class Identity(NamedActivation):
    """Linear activation: Y = X, dX = dY. Its name is "linear"."""

    kind = "linear"


class Sigmoid(NamedActivation):
    """Logistic function: Y = 1 / (1 + exp(-X)) (Rumelhart et al. 1986), dX = dY Y (1 - Y).

    Y is accurate even if it is tiny. In float32 it is rounded to 1 from X = 17.4 on, and then dX is
    0. "logistic" is a second name for it.
    """

    kind = "sigmoid"


class Loggy(NamedActivation):
    """Logistic function between -1 and 1: Y = 2 / (1 + exp(-X)) - 1 (Redmon 2013), dX = dY (1 -
    Y^2) / 2.

    It is computed as tanh(X / 2), which is equal, because exp(-X) would overflow. dX is computed as
    dY 2 t / (1 + t)^2 with t = exp(-|X|), which is accurate even if Y is rounded to 1. Darknet and
    NumPyNet have it.
    """

    kind = "loggy"


class Tanh(NamedActivation):
    """Hyperbolic tangent: Y = tanh(X), dX = dY (1 - Y^2) (LeCun et al. 1998)."""

    kind = "tanh"


class ScaledTanh(NamedActivation):
    """Scaled hyperbolic tangent: Y = 1.7159 tanh(2 X / 3), with Y(1) = 1 and Y(-1) = -1 (LeCun et
    al. 1998, appendix A)."""

    kind = "scaled_tanh"


class LogSigmoid(NamedActivation):
    """Logarithm of the logistic function: Y = log(1 / (1 + exp(-X))), dX = dY (1 - exp(Y)).

    It is the cost of Burges et al. 2005 with the opposite sign. Computed as min(X, 0) - log(1 +
    exp(-|X|)), which loses no digits and does not overflow.
    """

    kind = "log_sigmoid"


class Softsign(NamedActivation):
    """Softsign: Y = X / (1 + |X|), dX = dY / (1 + |X|)^2 (Bergstra et al. 2009).

    In terms of the output the derivative is (1 - |Y|)^2, which loses all digits if |Y| is nearly 1.
    NumPyNet's table prints 1 / (1 + |f|)^2, the formula for X with f in place of X: at f = 1/2, X =
    1, it gives 4/9 instead of 1/4.
    """

    kind = "softsign"


class SymmElliot(Activation):
    """Elliott's symmetric sigmoid: Y = S X / (1 + |S X|), dX = dY S / (1 + |S X|)^2, with a
    steepness S > 0 (Elliott 1993).

    In terms of the output the derivative is S (1 - |Y|)^2. NumPyNet's table prints S / (1 + |S
    f|)^2, the formula for X with f in place of X.
    """

    kind = "symmelliot"

    def __init__(self, steepness: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("symmelliot", name=name)
        self.steepness = self.expect_positive("steepness", steepness)


class Elliot(Activation):
    """Elliott's sigmoid: Y = S X / (2 (1 + |S X|)) + 1/2, dX = dY S / (2 (1 + |S X|)^2), with a
    steepness S > 0 (Elliott 1993).

    In terms of the output the derivative is S/2 (1 - |2 Y - 1|)^2. NumPyNet's table and code have 1
    + |X + S| in the denominator: then, with S = 1, Y is 0 for every X <= -1. For the derivative the
    table prints S / (2 (1 + |f + S|)^2).
    """

    kind = "elliot"

    def __init__(self, steepness: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("elliot", name=name)
        self.steepness = self.expect_positive("steepness", steepness)


class Arctan(NamedActivation):
    """Arc tangent: Y = arctan(X), dX = dY / (1 + X^2), between -pi/2 and pi/2 (Kamruzzaman and Aziz
    2002)."""

    kind = "arctan"


# --- exponential and gated units ------------------------------------------------------------------


class ELU(Activation):
    """Exponential linear unit: Y = X where X > 0, else alpha (exp(X) - 1) (Clevert et al. 2016),
    with any alpha.

    dX = dY where X > 0, else dY alpha exp(X). The layer keeps X to compute it: Y + alpha is the
    same number as alpha exp(X), but in float32 it loses its digits below X = -8. NumPyNet's table
    prints max(exp(X) - 1, X), which is exp(X) - 1 everywhere, because exp(X) - 1 is never below X.
    """

    kind = "elu"

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("elu", name=name)
        self.alpha = self.expect_number("alpha", alpha)


class SELU(NamedActivation):
    """Scaled exponential linear unit: Y = s X where X > 0, else s a (exp(X) - 1) (Klambauer et al.
    2017).

    With a = 1.67326, s = 1.05070, weights from "lecun_normal" and many inputs, mean 0 and variance
    1 are preserved. dX = s dY where X > 0, else s a dY exp(X). For the derivative NumPyNet's table
    prints the pieces of another activation.
    """

    kind = "selu"


class CELU(Activation):
    """Continuously differentiable exponential linear unit: Y = max(X, 0) + min(0, alpha (exp(X /
    alpha) - 1)) (Barron 2017).

    dX = dY exp(min(X, 0) / alpha), with alpha > 0.
    """

    kind = "celu"

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("celu", name=name)
        self.alpha = self.expect_positive("alpha", alpha)


class Softplus(Activation):
    """Softplus of sharpness k: Y = log(1 + exp(k X)) / k (Dugas et al. 2001), dX = dY (1 - exp(-k
    Y)), with k > 0.

    Computed as max(X, 0) + log(1 + exp(-k |X|)) / k, which neither overflows nor loses small
    values. NumPyNet's table prints exp(f) / (1 + exp(f)) for the derivative, the formula for X with
    f in place of X: at X = 0, f = log 2, it gives 2/3 instead of 1/2.
    """

    kind = "softplus"

    def __init__(self, k: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("softplus", name=name)
        self.k = self.expect_positive("k", k)


class SmoothAbs(Activation):
    """Smooth absolute value: Y = (2/k) log(1 + exp(k X)) - X - (2/k) log 2 (Schmidt et al. 2007),
    with a sharpness k > 0.

    dX = dY tanh(k X / 2). The last term makes Y(0) = 0. Computed as (2/k) log cosh(k X / 2), which
    is accurate near 0 too.
    """

    kind = "smooth_abs"

    def __init__(self, k: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("smooth_abs", name=name)
        self.k = self.expect_positive("k", k)


class SiLU(NamedActivation):
    """Sigmoid-weighted linear unit: Y = X s(X) with s(u) = 1 / (1 + exp(-u)) (Elfwing et al. 2018).

    dX = dY (s + X s (1 - s)).
    """

    kind = "silu"


class GELU(Activation):
    """Gaussian error linear unit: Y = X Phi(X), Phi(X) = (1 + erf(X / sqrt 2)) / 2 (Hendrycks and
    Gimpel 2016).

    dX = dY (Phi(X) + X phi(X)), where phi is the density of the normal distribution Phi.

    Args:
        approximate: "none", or "tanh" for Y = X/2 (1 + tanh(sqrt(2 / pi) (X + 0.044715 X^3))) and
            its derivative.

    Raises ValueError for another `approximate`.
    """

    kind = "gelu"

    def __init__(self, approximate: str = "none", *, name: str | None = None) -> None:
        self.approximate = self.expect_choice("approximate", approximate, ("none", "tanh"))
        super().__init__("gelu_tanh" if self.approximate == "tanh" else "gelu", name=name)


class Mish(NamedActivation):
    """Mish: Y = X tanh(log(1 + exp(X))) (Misra 2019).

    w = tanh(log(1 + e)) is rational in e = exp(X), w = (e^2 + 2 e) / (e^2 + 2 e + 2), and so is its
    derivative w': dX = dY (w + X w'). For X > 0 both are computed from exp(-X), which does not
    overflow.
    """

    kind = "mish"


class Tanhshrink(NamedActivation):
    """Difference from the hyperbolic tangent: Y = X - tanh(X), dX = dY tanh(X)^2 (Collobert et al.
    2011)."""

    kind = "tanhshrink"


class Gaussian(NamedActivation):
    """Gaussian: Y = exp(-X^2), dX = -2 dY X exp(-X^2) (Broomhead and Lowe 1988)."""

    kind = "gaussian"
