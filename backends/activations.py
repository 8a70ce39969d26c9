"""Elementwise activations: each with its derivative, as functions of (xp, array, *constants).

A derivative is written with y = f(z) if all of its digits follow from y (`of` is "y"), else with
the input z (`of` is "z"); then the layer keeps z as well. Values and derivatives have a small
relative error, also if they are tiny, down to the smallest normal number; below it they may be 0.
Exceptions:

- sigmoid, tanh, scaled_tanh: f' has an error of one rounding of y, about 1e-7 in float32, because
  the fused kernels keep y alone. If y is rounded to its limit, f' is 0.
- silu, swish, gelu, gelu_tanh, mish: f' is a difference that passes through 0 between -2 and 0,
  and has an absolute error there.

f(NaN) is NaN, and so is f'(NaN), except for derivatives that are a choice between constants (relu,
leaky_relu, hardtanh, ...). There f'(NaN) is what the comparison gives, the same constant on every
backend: a derivative then costs one comparison for each element, and the loss is NaN already.
At an infinity f and f' are at their limits; no intermediate result overflows if the result is
finite. The kernels that compute z (products, convolutions, batch normalisation) also apply those in
FUSED. The formulas with their sources are in the docstrings of the classes in xpnet/layers.

An entry of the table is enough for an activation to work on every backend. Faster versions: a
`case` of cupy/kernels/curves.cu (its name in capitals), and a branch of numba/kernels/curves.py.
"""

from __future__ import annotations

from collections.abc import Callable
from math import pi, sqrt
from typing import Any, NamedTuple

from xpnet.backends.arguments import expect_choice, wrong
from xpnet.backends.erf import erfc

Function = Callable[..., Any]

SCALE, SLOPE = 1.7159, 2.0 / 3.0    # LeCun et al. 1998, appendix A: f(1) = 1, f(-1) = -1
# Klambauer et al. 2017: they preserve mean 0 and variance 1
SELU_SCALE, SELU_ALPHA = 1.0507009873554805, 1.6732632423543772
FAR = 1e4  # exp(-FAR) is 0: a factor is clipped here if the other one is 0, or it could be infinite
LARGE = 1e30                        # a float32 whose product with a factor does not overflow
ROUND = 2.0**53                     # 1 + ROUND is ROUND
LAST_ODD = 17                       # last term of Lambert's fraction: exact in float64 for |z| <= 1


class Activation(NamedTuple):
    """An entry of the table.

    forward, derivative: functions of (xp, array, *constants).
    of: what the derivative is written with, the output "y" or the input "z".
    constants: the default of each constant, by name.
    init: the default initializer of weights whose product goes through the activation.
    fused: whether the kernels that compute z apply it.
    """

    forward: Function
    derivative: Function
    of: str = "y"
    constants: dict[str, float] = {}
    init: str = "glorot_uniform"
    fused: bool = False


HALF = "he_normal"          # if f is 0 or small for half of the inputs (He et al. 2015)


def pick(xp, condition, yes: float, no: float, like):
    """One of two numbers >= 0 for each element, in the dtype of `like`: twice as fast as
    `where`."""
    if yes < no:
        return pick(xp, ~condition, no, yes, like)
    return xp.maximum(condition.astype(like.dtype) * yes, no)


# --- sigmoids -------------------------------------------------------------------------------------

def fraction(xp, z):
    """(a, b) with a / b = exp(z), where the larger of both is 1.

    So sigmoid(z) = a / (a + b) is accurate even if it is tiny.
    """
    t = xp.exp(-xp.abs(z))
    return xp.maximum(t, z >= 0), xp.maximum(t, z <= 0)


def sigmoid(xp, z):
    """1 / (1 + exp(-z)), as 1 / (1 + t) or t / (1 + t) with t = exp(-|z|), which cannot
    overflow."""
    t = xp.exp(-xp.abs(z))
    return xp.maximum(t, z >= 0) / (1 + t)


def loggy_derivative(xp, z):
    """(1 - tanh(z / 2)^2) / 2 = 2 t / (1 + t)^2 with t = exp(-|z|)."""
    t = xp.exp(-xp.abs(z))
    return 2 * t / (1 + t)**2


def softplus(xp, z, k):
    return xp.maximum(z, 0) + xp.log1p(xp.exp(-k * xp.abs(z))) / k


def silu(xp, z):
    a, b = fraction(xp, z)
    return cut(xp, z) * (a / (a + b))


def swish(xp, z, beta):
    """z sigmoid(beta z), for a beta of any sign. z is clipped far from 0, where the sigmoid may be
    0."""
    near = xp.clip(z, -LARGE, LARGE)
    u = beta * near
    a, b = fraction(xp, u)
    return xp.where(u < 0, near, z) * (a / (a + b))


def swish_derivative(xp, z, beta):
    """s + u s (1 - s), for u = beta z and s = sigmoid(u)."""
    u = xp.clip(beta * xp.clip(z, -LARGE, LARGE), -FAR, FAR)
    a, b = fraction(xp, u)
    return a / (a + b) + u * a * b / (a + b)**2


def cut(xp, z):
    """z, clipped far below 0, where it is multiplied by a sigmoid that is 0."""
    return xp.maximum(z, -LARGE)


def bend(xp, z):
    """(u, u') of the tanh form of GELU: u = 2 sqrt(2/pi) (z + 0.044715 z^3)."""
    z, a = xp.clip(z, -FAR, FAR), 2 * sqrt(2 / pi)
    return a * (z + 0.044715 * z * z * z), a * (1 + 0.134145 * z * z)


def gelu_tanh(xp, z):
    """0.5 (1 + tanh(u / 2)) is sigmoid(u)."""
    a, b = fraction(xp, bend(xp, z)[0])
    return cut(xp, z) * (a / (a + b))


def gelu_tanh_derivative(xp, z):
    u, du = bend(xp, z)
    a, b = fraction(xp, u)
    return a / (a + b) + xp.clip(z, -FAR, FAR) * du * a * b / (a + b)**2


def normal_below(xp, z):
    """The probability that a standard normal variable is below z."""
    return 0.5 * erfc(xp, -sqrt(0.5) * z)


def gelu_derivative(xp, z):
    """Phi(z) + z phi(z), with the normal distribution and its density."""
    near = xp.clip(z, -100, 100)
    return normal_below(xp, z) + near * xp.exp(-0.5 * near * near) / sqrt(2 * pi)


def mish_parts(xp, z):
    """(w, w') for w = tanh(softplus(z)) = (e^2 + 2 e) / (e^2 + 2 e + 2) with e = exp(z) = a / b."""
    a, b = fraction(xp, z)
    above = a * (a + 2 * b)
    below = above + 2 * b * b
    return above / below, 4 * a * b * b * (a + b) / (below * below)


def mish_derivative(xp, z):
    w, dw = mish_parts(xp, z)
    return w + xp.clip(z, -FAR, FAR) * dw


def smooth_abs(xp, z, k):
    """2/k log cosh(u), u = k |z| / 2. Near 0 the second formula would lose digits; for large u the
    first one would overflow."""
    z = xp.abs(z)
    u = 0.5 * k * z
    near = xp.log1p(2 * xp.sinh(0.5 * xp.minimum(u, 1))**2)
    return xp.where(u < 1, 2 / k * near, z + 2 / k * xp.log1p(0.5 * xp.expm1(-2 * u)))


# --- rational -------------------------------------------------------------------------------------

def softsign(xp, z):
    z = xp.clip(z, -ROUND, ROUND)               # infinity / infinity would be NaN
    return z / (1 + xp.abs(z))


def softsign_derivative(xp, z):
    """In terms of the output it would be (1 - |y|)^2, which loses digits if |y| is nearly 1."""
    r = 1 / (1 + xp.abs(z))
    return r * r


def elliot(xp, z, S):
    """1/2 + softsign / 2 = r / 2 below 0, and 1 - r / 2 above, with r = 1 / (1 + |S z|)."""
    half = 0.5 / (1 + xp.abs(S * z))
    return xp.where(z < 0, half, 1 - half)


def arctan_derivative(xp, z):
    r = 1 / xp.hypot(z, 1.0)
    return r * r


# --- piecewise ------------------------------------------------------------------------------------

def rectifier(positive: float, negative: float) -> Activation:
    """positive z if z > 0, else negative z."""
    return Activation(lambda xp, z: positive * xp.maximum(z, 0) + negative * xp.minimum(z, 0),
                      lambda xp, y: pick(xp, y > 0, positive, negative, y), init=HALF)


def plse(xp, z):
    near = xp.clip(z, -4, 4)
    return 0.125 * near + 0.5 + 0.01 * (z - near)


def lhtan(xp, z):
    near = xp.clip(z, 0, 1)
    return near + 0.001 * (z - near)


def stair(xp, z):
    """m = floor(z / 2), or z - (m + 1) if that is larger: if the integer part of z is odd."""
    finite = xp.where(xp.isinf(z), 0.0, z)      # infinity - infinity would be NaN
    m = xp.floor(0.5 * finite)
    return xp.where(xp.isinf(z), z, xp.maximum(m, finite - (m + 1)))


def hard_swish_derivative(xp, z):
    return xp.where(z <= -3, 0.0, xp.where(z >= 3, 1.0, (2 * z + 3) / 6))


def beyond(xp, z, threshold):
    """z if |z| > threshold, else 0."""
    return xp.where(xp.abs(z) <= threshold, 0.0, z)


def tanhshrink(xp, z):
    """z - tanh(z). Near 0, where this loses digits, it is computed as z w / (1 + w).

    By Lambert's continued fraction (1768), tanh(z) = z / (1 + w), w = z^2 / (3 + z^2 / (5 + ...)).
    """
    square = xp.minimum(xp.abs(z), 1)**2
    w = 0.0
    for odd in range(LAST_ODD, 1, -2):
        w = square / (odd + w)
    return xp.where(xp.abs(z) < 1, z * w / (1 + w), z - xp.tanh(z))


def tanhshrink_derivative(xp, z):
    t = xp.tanh(z)
    return t * t


# --- exponential ----------------------------------------------------------------------------------

def elu(xp, z, alpha):
    return xp.maximum(z, 0) + alpha * xp.expm1(xp.minimum(z, 0))


def elu_derivative(xp, z, alpha):
    slope = xp.exp(xp.minimum(z, 0))                        # 1 where z > 0
    if alpha >= 0:
        return slope * pick(xp, z > 0, 1.0, alpha, z)
    return xp.where(z > 0, slope, alpha * slope)


def gaussian(xp, z):
    near = xp.clip(z, -100, 100)
    return xp.exp(-near * near)


def gaussian_derivative(xp, z):
    return -2 * xp.clip(z, -100, 100) * gaussian(xp, z)


ACTIVATIONS: dict[str, Activation] = {
    "relu": Activation(lambda xp, z: xp.maximum(z, 0), lambda xp, y: y > 0, init=HALF, fused=True),
    "sigmoid": Activation(sigmoid, lambda xp, y: y * (1 - y), fused=True),
    "tanh": Activation(lambda xp, z: xp.tanh(z), lambda xp, y: (1 - y) * (1 + y), fused=True),
    "scaled_tanh": Activation(lambda xp, z: SCALE * xp.tanh(SLOPE * z),
                              lambda xp, y: SLOPE / SCALE * (SCALE - y) * (SCALE + y), fused=True),
    "linear": Activation(lambda xp, z: +z, lambda xp, y: xp.ones_like(y)),
    "logistic": Activation(sigmoid, lambda xp, y: y * (1 - y)),
    "loggy": Activation(lambda xp, z: xp.tanh(0.5 * z), loggy_derivative, of="z"),
    "elu": Activation(elu, elu_derivative, of="z", constants={"alpha": 1.0}, init=HALF),
    "selu": Activation(lambda xp, z: SELU_SCALE * elu(xp, z, SELU_ALPHA),
                       lambda xp, z: SELU_SCALE * elu_derivative(xp, z, SELU_ALPHA), of="z",
                       init="lecun_normal"),
    "celu": Activation(
        lambda xp, z, alpha: xp.maximum(z, 0) + alpha * xp.expm1(xp.minimum(z, 0) / alpha),
        lambda xp, z, alpha: xp.exp(xp.minimum(z, 0) / alpha), of="z", constants={"alpha": 1.0},
        init=HALF),
    "relie": rectifier(1.0, 0.01),
    "ramp": rectifier(1.1, 0.1),
    "leaky_relu": Activation(lambda xp, z, slope: xp.maximum(z, 0) + slope * xp.minimum(z, 0),
                             lambda xp, y, slope: pick(xp, y > 0, 1.0, slope, y),
                             constants={"slope": 0.01}, init=HALF),
    "abs": Activation(lambda xp, z: xp.abs(z), lambda xp, z: xp.sign(z), of="z"),
    "plse": Activation(plse, lambda xp, z: pick(xp, xp.abs(z) > 4, 0.01, 0.125, z), of="z"),
    "stair": Activation(stair, lambda xp, y: y != xp.floor(y)),
    "hardtanh": Activation(lambda xp, z, low, high: xp.clip(z, low, high),
                           lambda xp, y, low, high: (y > low) & (y < high),
                           constants={"low": -1.0, "high": 1.0}),
    "lhtan": Activation(lhtan, lambda xp, z: pick(xp, (z > 0) & (z < 1), 1.0, 0.001, z), of="z"),
    "relu6": Activation(lambda xp, z, limit: xp.clip(z, 0, limit),
                        lambda xp, y, limit: (y > 0) & (y < limit), constants={"limit": 6.0},
                        init=HALF),
    "hard_sigmoid": Activation(
        lambda xp, z, alpha, beta: xp.clip(alpha * (z + beta / alpha), 0, 1),
        lambda xp, y, alpha, beta: pick(xp, (y > 0) & (y < 1), alpha, 0.0, y),
        constants={"alpha": 1 / 6, "beta": 0.5}),
    "hard_swish": Activation(lambda xp, z: xp.maximum(z, -3) * (xp.clip(z + 3, 0, 6) / 6),
                             hard_swish_derivative, of="z", init=HALF),
    "softplus": Activation(softplus, lambda xp, y, k: -xp.expm1(-k * y), constants={"k": 1.0}),
    "log_sigmoid": Activation(lambda xp, z: -softplus(xp, -z, 1.0), lambda xp, y: -xp.expm1(y)),
    "smooth_abs": Activation(smooth_abs, lambda xp, z, k: xp.tanh(0.5 * k * z), of="z",
                             constants={"k": 1.0}),
    "softsign": Activation(softsign, softsign_derivative, of="z"),
    "symmelliot": Activation(lambda xp, z, S: softsign(xp, S * z),
                             lambda xp, z, S: S * softsign_derivative(xp, S * z), of="z",
                             constants={"steepness": 1.0}),
    "elliot": Activation(elliot, lambda xp, z, S: 0.5 * S * softsign_derivative(xp, S * z), of="z",
                         constants={"steepness": 1.0}),
    "arctan": Activation(lambda xp, z: xp.arctan(z), arctan_derivative, of="z"),
    "silu": Activation(silu, lambda xp, z: swish_derivative(xp, z, 1.0), of="z", init=HALF),
    "swish": Activation(swish, swish_derivative, of="z", constants={"beta": 1.0}, init=HALF),
    "gelu": Activation(lambda xp, z: cut(xp, z) * normal_below(xp, z), gelu_derivative, of="z",
                       init=HALF),
    "gelu_tanh": Activation(gelu_tanh, gelu_tanh_derivative, of="z", init=HALF),
    "mish": Activation(lambda xp, z: cut(xp, z) * mish_parts(xp, z)[0], mish_derivative, of="z",
                       init=HALF),
    "softshrink": Activation(lambda xp, z, threshold: z - xp.clip(z, -threshold, threshold),
                             lambda xp, y, threshold: y != 0, constants={"threshold": 0.5}),
    "hardshrink": Activation(beyond, lambda xp, y, threshold: y != 0, constants={"threshold": 0.5}),
    "thresholded_relu": Activation(lambda xp, z, threshold: xp.where(z <= threshold, 0.0, z),
                                   lambda xp, y, threshold: y > 0, constants={"threshold": 1.0}),
    "tanhshrink": Activation(tanhshrink, tanhshrink_derivative, of="z"),
    "step": Activation(lambda xp, z: xp.ceil(xp.clip(z, 0, 1)), lambda xp, y: xp.zeros_like(y)),
    "gaussian": Activation(gaussian, gaussian_derivative, of="z"),
}

FUSED = tuple(name for name, f in ACTIVATIONS.items() if f.fused)


# Functions that are no activations by name, because an element depends on others or on trained
# parameters, and the layers that compute them. Keras has them among its activations.
LAYERS = {"softmax": "Softmax()", "logsoftmax": "LogSoftmax()", "prelu": "PReLU()",
          "glu": "GLU()", "maxout": "Maxout()", "crelu": "CReLU()"}


def check(activation: str | None, who: str) -> Any:
    """The name itself, or None. Raises ValueError if there is no such activation."""
    if isinstance(activation, str) and (name := activation.lower().replace("_", "")) in LAYERS:
        raise wrong(who, "activation to be an elementwise function; "
                         f"{LAYERS[name]} is a layer of its own", "activation", activation)
    return expect_choice(who, "activation", activation, [None, *ACTIVATIONS])


def of_input(activation: str | None) -> bool:
    """Whether the derivative is written with the input z, so that the layer has to keep z."""
    return activation is not None and ACTIVATIONS[activation].of == "z"


def constants_of(activation: str, given: tuple[float, ...]) -> tuple[float, ...]:
    """The given constants, or the activation's defaults."""
    return given or tuple(ACTIVATIONS[activation].constants.values())


def forward(xp: Any, z: Any, activation: str, constants: tuple[float, ...] = ()) -> Any:
    """f(z). The constants are the activation's defaults if none are given."""
    return ACTIVATIONS[activation].forward(xp, z, *constants_of(activation, constants))


def derivative(xp: Any, y: Any, activation: str, constants: tuple[float, ...] = ()) -> Any:
    """f' from y = f(z), or from z if the derivative is written with z."""
    return ACTIVATIONS[activation].derivative(xp, y, *constants_of(activation, constants))
