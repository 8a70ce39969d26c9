"""Activations that are piecewise linear or nearly so: rectifiers, thresholds and hard sigmoids."""

from __future__ import annotations

from xpnet.layers.activations import Activation, NamedActivation

__all__ = [
    "Abs", "ClippedReLU", "HardSigmoid", "HardSwish", "Hardshrink", "Hardtanh", "LeakyReLU",
    "Lhtan", "Plse", "Ramp", "ReLU", "ReLU6", "Relie", "Softshrink", "Stair", "Step",
    "ThresholdedReLU",
]


class ReLU(NamedActivation):
    """Rectified linear unit: Y = max(X, 0), dX = dY where Y > 0 (Nair and Hinton 2010)."""

    kind = "relu"


class LeakyReLU(Activation):
    """Leaky rectified linear unit: Y = X where X > 0, else slope X (Maas et al. 2013).

    dX = dY where X > 0, else slope dY; 0 <= slope. NumPyNet's and Darknet's slope is 0.1.
    """

    kind = "leaky_relu"

    def __init__(self, slope: float = 0.01, *, name: str | None = None) -> None:
        super().__init__("leaky_relu", name=name)
        self.slope = self.expect_number("slope", slope, 0)


class Relie(NamedActivation):
    """Leaky rectifier of fixed slope: Y = X where X > 0, else 0.01 X (Redmon 2013). dX = dY, or
    0.01 dY where X <= 0."""

    kind = "relie"


class Ramp(NamedActivation):
    """Ramp: Y = X + 0.1 X where X > 0, else 0.1 X (Redmon 2013), dX = 1.1 dY where X > 0, else 0.1
    dY.

    This is the ramp of Darknet, and what NumPyNet's code computes. NumPyNet's table prints X^2 +
    0.1 X^2 and 0 instead, and f + 1 and f as their derivatives, which they are not.
    """

    kind = "ramp"


class ReLU6(NamedActivation):
    """Rectified linear unit limited to 6: Y = min(max(X, 0), 6), dX = dY where 0 < Y < 6
    (Krizhevsky 2010)."""

    kind = "relu6"


class ClippedReLU(Activation):
    """Clipped rectified linear unit: Y = min(max(X, 0), limit), dX = dY where 0 < Y < limit (Hannun
    et al. 2014).

    The limit is above 0. It is 20 in the paper and in Chainer, and 6 in ReLU6.
    """

    kind = "clipped_relu"

    def __init__(self, limit: float = 6.0, *, name: str | None = None) -> None:
        super().__init__("relu6", name=name)
        self.limit = self.expect_positive("limit", limit)


class Abs(NamedActivation):
    """Absolute-value rectification: Y = |X|, dX = dY sign(X), 0 where X is 0 (Jarrett et al.
    2009)."""

    kind = "abs"


class Plse(NamedActivation):
    """Sigmoid in three pieces: Y = X / 8 + 1/2 for |X| <= 4, outside 0.01 (X + 4) and 0.01 (X - 4)
    + 1 (Redmon 2013).

    dX = dY / 8 inside, 0.01 dY outside. NumPyNet's table prints 0.125 X + 5, with which Y is not
    continuous: the middle piece must go from 0 to 1.
    """

    kind = "plse"


class Stair(NamedActivation):
    """Stair with slopes: Y = floor(X / 2) where n = floor(X) is even, else X - n + floor(X / 2)
    (Redmon 2013).

    dX = dY where Y is not an integer, else 0.
    """

    kind = "stair"


class Hardtanh(Activation):
    """Hyperbolic tangent in three pieces: Y = min(max(X, low), high), dX = dY where low < Y < high
    (Collobert 2004).

    NumPyNet's table prints this function with low = -1 and high = 1; its code computes another one,
    0.2 X + 1/2 for |X| <= 2.5 and X elsewhere. Raises ValueError unless low < high.
    """

    kind = "hardtanh"

    def __init__(self, low: float = -1.0, high: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("hardtanh", name=name)
        self.low, self.high = self.expect_number("low", low), self.expect_number("high", high)
        if not self.low < self.high:
            raise ValueError(f"{self.who}: expected low to be below high. Received: low={low!r}, "
                             f"high={high!r}.")


class Lhtan(NamedActivation):
    """Leaky step in three pieces: Y = X for 0 <= X <= 1, outside 0.001 X and 0.001 (X - 1) + 1
    (Redmon 2013).

    dX = dY where 0 < X < 1, else 0.001 dY.
    """

    kind = "lhtan"


class HardSigmoid(Activation):
    """Logistic function in three pieces: Y = min(max(alpha X + beta, 0), 1) (Courbariaux et al.
    2015), with alpha > 0.

    dX = alpha dY where 0 < Y < 1. The defaults of alpha and beta are PyTorch's; in the paper both
    are 1/2, and ONNX uses alpha = 0.2.
    """

    kind = "hard_sigmoid"

    def __init__(self, alpha: float = 1 / 6, beta: float = 0.5, *, name: str | None = None) -> None:
        super().__init__("hard_sigmoid", name=name)
        self.alpha, self.beta = (self.expect_positive("alpha", alpha),
                                 self.expect_number("beta", beta))


class HardSwish(NamedActivation):
    """Swish with a hard sigmoid: Y = X min(max(X + 3, 0), 6) / 6 (Howard et al. 2019).

    dX = dY (X / 3 + 1/2) for -3 < X < 3, 0 below, dY above.
    """

    kind = "hard_swish"


class Softshrink(Activation):
    """Soft threshold: Y = X - t sign(X) where |X| > t, else 0 (Donoho 1995), with a threshold t >=
    0.

    dX = dY where Y is not 0. It is the proximal operator of t |X|, as used in ISTA (Daubechies et
    al. 2004).
    """

    kind = "softshrink"

    def __init__(self, threshold: float = 0.5, *, name: str | None = None) -> None:
        super().__init__("softshrink", name=name)
        self.threshold = self.expect_number("threshold", threshold, 0)


class Hardshrink(Activation):
    """Hard threshold: Y = X where |X| > t, else 0 (Donoho and Johnstone 1994), with a threshold t
    >= 0.

    dX = dY where Y is not 0.
    """

    kind = "hardshrink"

    def __init__(self, threshold: float = 0.5, *, name: str | None = None) -> None:
        super().__init__("hardshrink", name=name)
        self.threshold = self.expect_number("threshold", threshold, 0)


class ThresholdedReLU(Activation):
    """Thresholded rectified linear unit: Y = X where X > t, else 0 (Konda et al. 2015), with a
    threshold t >= 0.

    dX = dY where Y > 0.
    """

    kind = "thresholded_relu"

    def __init__(self, threshold: float = 1.0, *, name: str | None = None) -> None:
        super().__init__("thresholded_relu", name=name)
        self.threshold = self.expect_number("threshold", threshold, 0)


class Step(NamedActivation):
    """Step of the perceptron: Y = 1 where X > 0, else 0 (Rosenblatt 1958). dX = 0: no gradient
    reaches the layers below."""

    kind = "step"
