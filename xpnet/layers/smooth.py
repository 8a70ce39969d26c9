"""Smooth activations between the rectifier and the identity: exponential units, softplus, and the gated ones."""

from __future__ import annotations

from xpnet.layers.activation import Activation, NamedActivation


class ELU(Activation):
    """Exponential linear unit: Y = X where X > 0, else alpha (exp(X) - 1) (Clevert et al. 2016), with any alpha.

    dX = dY where X > 0, else dY alpha exp(X). The layer keeps X for it: Y + alpha is the same number, but
    in float32 it loses its digits below X = -8. NumPyNet's table prints max(exp(X) - 1, X), which is
    exp(X) - 1 everywhere: that is never below X.
    """

    kind = "elu"

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("elu", name=name)
        self.alpha = self.expect_number("alpha", alpha)
        self.constants = (self.alpha,)


class SELU(NamedActivation):
    """Scaled exponential linear unit: Y = s X where X > 0, else s a (exp(X) - 1) (Klambauer et al. 2017).

    With a = 1.67326, s = 1.05070, weights from "lecun_normal" and many inputs, mean 0 and variance 1 go through unchanged.
    dX = s dY where X > 0, else s a dY exp(X). For the derivative NumPyNet's table prints the pieces of
    another activation.
    """

    kind = "selu"


class CELU(Activation):
    """Continuously differentiable exponential linear unit: Y = max(X, 0) + min(0, alpha (exp(X / alpha) - 1)) (Barron 2017).

    dX = dY exp(min(X, 0) / alpha), with alpha > 0.
    """

    kind = "celu"

    def __init__(self, alpha: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("celu", name=name)
        self.alpha = self.expect_positive("alpha", alpha)
        self.constants = (self.alpha,)


class Softplus(Activation):
    """Softplus of sharpness k: Y = log(1 + exp(k X)) / k (Dugas et al. 2001), dX = dY (1 - exp(-k Y)), with k > 0.

    Computed as max(X, 0) + log(1 + exp(-k |X|)) / k, which neither overflows nor ends at 0. NumPyNet's table prints
    exp(f) / (1 + exp(f)) for the derivative, the formula for X with f put in its place: at X = 0, f = log 2, it gives 2/3
    instead of 1/2.
    """

    kind = "softplus"

    def __init__(self, k: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("softplus", name=name)
        self.k = self.expect_positive("k", k)
        self.constants = (self.k,)


class SmoothAbs(Activation):
    """Smooth absolute value: Y = (2/k) log(1 + exp(k X)) - X - (2/k) log 2 (Schmidt et al. 2007), with a sharpness k > 0.

    dX = dY tanh(k X / 2). The last term makes Y(0) = 0. Computed as (2/k) log cosh(k X / 2), with all digits near 0 too.
    """

    kind = "smooth_abs"

    def __init__(self, k: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("smooth_abs", name=name)
        self.k = self.expect_positive("k", k)
        self.constants = (self.k,)


class SiLU(NamedActivation):
    """Sigmoid-weighted linear unit: Y = X s(X) with s(u) = 1 / (1 + exp(-u)) (Elfwing et al. 2018).

    dX = dY (s + X s (1 - s)).
    """

    kind = "silu"


class GELU(Activation):
    """Gaussian error linear unit: Y = X Phi(X), Phi(X) = (1 + erf(X / sqrt 2)) / 2 (Hendrycks and Gimpel 2016).

    dX = dY (Phi(X) + X phi(X)), phi the density of the normal distribution Phi. With approximate="tanh"
    Y = X/2 (1 + tanh(sqrt(2 / pi) (X + 0.044715 X^3))), and dX is its derivative. ValueError for another `approximate`.
    """

    kind = "gelu"

    def __init__(self, approximate: str = "none", *, name: str | None = None) -> None:
        self.approximate = self.expect_choice("approximate", approximate, ("none", "tanh"))
        super().__init__("gelu_tanh" if self.approximate == "tanh" else "gelu", name=name)


class Mish(NamedActivation):
    """Mish: Y = X tanh(log(1 + exp(X))) (Misra 2019).

    tanh(log(1 + e)) is rational in e = exp(X), (e^2 + 2 e) / (e^2 + 2 e + 2), and so is its derivative w', all without an
    overflow with exp(-X) for X > 0: dX = dY (w + X w').
    """

    kind = "mish"


class Tanhshrink(NamedActivation):
    """What the hyperbolic tangent leaves: Y = X - tanh(X), dX = dY tanh(X)^2 (Collobert et al. 2011)."""

    kind = "tanhshrink"


class Gaussian(NamedActivation):
    """Gaussian: Y = exp(-X^2), dX = -2 dY X exp(-X^2) (Broomhead and Lowe 1988)."""

    kind = "gaussian"
