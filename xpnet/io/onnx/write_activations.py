"""Activations as ONNX's operators."""

from __future__ import annotations

from collections.abc import Callable
from math import log, pi, sqrt
from typing import Any

from xpnet import layers as L
from xpnet.backends.activations import SCALE, SELU_ALPHA, SELU_SCALE, SLOPE, constants_of
from xpnet.io.onnx.writer import Use
from xpnet.layer import Layer
from xpnet.layers.activations import Activation

Write = Callable[..., str]      # of (use, x, *constants): the name of f(x)


def activated(use: Use, x: str, activation: str | None, constants: tuple[float, ...] = ()) -> str:
    """f(x) of an activation by name; x itself without one."""
    if activation is None:
        return x
    return ACTIVATIONS[activation](use, x, *constants_of(activation, constants))


def times(use: Use, x: str, factor: float) -> str:
    return x if factor == 1 else use("Mul", x, use.constant(factor))


def plus(use: Use, x: str, term: float) -> str:
    return x if term == 0 else use("Add", x, use.constant(term))


def clip(use: Use, x: str, low: float, high: float) -> str:
    return use("Clip", x, use.constant(low, "low"), use.constant(high, "high"))


def operator(op: str, *names: str) -> Write:
    """An operator of ONNX whose attributes are the activation's constants, in this order."""
    return lambda use, x, *constants: use(op, x, **dict(zip(names, constants, strict=True)))


def scaled_tanh(use: Use, x: str) -> str:
    return times(use, use("Tanh", times(use, x, SLOPE)), SCALE)


def plse(use: Use, x: str) -> str:
    """near / 8 + 1/2 + 0.01 (x - near), where near is x between -4 and 4."""
    near = clip(use, x, -4, 4)
    inner = plus(use, times(use, near, 0.125), 0.5)
    return use("Add", inner, times(use, use("Sub", x, near), 0.01))


def lhtan(use: Use, x: str) -> str:
    near = clip(use, x, 0, 1)
    return use("Add", near, times(use, use("Sub", x, near), 0.001))


def stair(use: Use, x: str) -> str:
    """max(m, x - (m + 1)) with m = floor(x / 2)."""
    m = use("Floor", times(use, x, 0.5))
    return use("Max", m, use("Sub", x, plus(use, m, 1)))


def softplus(use: Use, x: str, k: float) -> str:
    return times(use, use("Softplus", times(use, x, k)), 1 / k)


def smooth_abs(use: Use, x: str, k: float) -> str:
    """2/k log cosh(k x / 2) = |x| + 2/k (softplus(-k |x|) - log 2)."""
    far = use("Abs", x)
    return use("Add", far, plus(use, times(use, use("Softplus", times(use, far, -k)), 2 / k),
                                -2 * log(2) / k))


def swish(use: Use, x: str, beta: float) -> str:
    return use("Mul", x, use("Sigmoid", times(use, x, beta)))


def gelu(use: Use, x: str) -> str:
    """x (1 + erf(x / sqrt 2)) / 2."""
    return times(use, use("Mul", x, plus(use, use("Erf", times(use, x, sqrt(0.5))), 1)), 0.5)


def gelu_tanh(use: Use, x: str) -> str:
    """x (1 + tanh(sqrt(2 / pi) (x + 0.044715 x^3))) / 2."""
    cube = use("Mul", x, use("Mul", x, x))
    bend = times(use, use("Add", x, times(use, cube, 0.044715)), sqrt(2 / pi))
    return times(use, use("Mul", x, plus(use, use("Tanh", bend), 1)), 0.5)


ACTIVATIONS: dict[str, Write] = {
    "relu": operator("Relu"), "sigmoid": operator("Sigmoid"), "tanh": operator("Tanh"),
    "scaled_tanh": scaled_tanh, "linear": lambda use, x: x, "logistic": operator("Sigmoid"),
    "loggy": lambda use, x: use("Tanh", times(use, x, 0.5)), "elu": operator("Elu", "alpha"),
    "selu": lambda use, x: use("Selu", x, alpha=SELU_ALPHA, gamma=SELU_SCALE),
    "celu": operator("Celu", "alpha"),
    "relie": lambda use, x: use("LeakyRelu", x, alpha=0.01),
    "ramp": lambda use, x: use("Add", use("Relu", x), times(use, x, 0.1)),
    "leaky_relu": operator("LeakyRelu", "alpha"), "abs": operator("Abs"), "plse": plse,
    "stair": stair, "hardtanh": clip, "lhtan": lhtan,
    "relu6": lambda use, x, limit: clip(use, x, 0, limit),
    "hard_sigmoid": operator("HardSigmoid", "alpha", "beta"),
    "hard_swish": operator("HardSwish"), "softplus": softplus,
    "log_sigmoid": lambda use, x: use("Neg", use("Softplus", use("Neg", x))),
    "smooth_abs": smooth_abs, "softsign": operator("Softsign"),
    "symmelliot": lambda use, x, S: use("Softsign", times(use, x, S)),
    "elliot": lambda use, x, S: plus(
        use, times(use, use("Softsign", times(use, x, S)), 0.5), 0.5),
    "arctan": operator("Atan"), "silu": lambda use, x: swish(use, x, 1.0), "swish": swish,
    "gelu": gelu, "gelu_tanh": gelu_tanh,
    "mish": lambda use, x: use("Mul", x, use("Tanh", use("Softplus", x))),
    "softshrink": lambda use, x, t: use("Shrink", x, lambd=t, bias=t),
    "hardshrink": lambda use, x, t: use("Shrink", x, lambd=t, bias=0.0),
    "thresholded_relu": operator("ThresholdedRelu", "alpha"),
    "tanhshrink": lambda use, x: use("Sub", x, use("Tanh", x)),
    "step": lambda use, x: use("Ceil", clip(use, x, 0, 1)),
    "gaussian": lambda use, x: use("Exp", use("Neg", use("Mul", x, x))),
}


def activation(use: Use, layer: Activation, x: str) -> str:
    return activated(use, x, layer.activation, layer.constants)


def per_channel(layer: Layer, array: Any) -> Any:
    """An array (C,) or (1,) as (C, 1, ..., 1), to be used with (N, C, ...)."""
    return array.reshape(-1, *(1,) * (len(layer.in_shapes[0]) - 1))


def prelu(use: Use, layer: L.PReLU, x: str) -> str:
    return use("PRelu", x, use.parameter(layer.a, per_channel(layer, use.values(layer.a))))


def learned_swish(use: Use, layer: L.Swish, x: str) -> str:
    if layer.b is None:
        return activation(use, layer, x)
    return use("Mul", x, use("Sigmoid", use("Mul", x, use.parameter(layer.b))))


def gain(use: Use, layer: L.Gain, x: str) -> str:
    g = use.values(layer.g)
    return use("Mul", x, use.parameter(layer.g, g if layer.shape else per_channel(layer, g)))


def shift(use: Use, layer: L.Shift, x: str) -> str:
    b = use.values(layer.b)
    return use("Add", x, use.parameter(layer.b, b if layer.shape else per_channel(layer, b)))


def rrelu(use: Use, layer: L.RReLU, x: str) -> str:
    return use("LeakyRelu", x, alpha=(layer.lower + layer.upper) / 2)


def crelu(use: Use, layer: L.CReLU, x: str) -> str:
    return use("Concat", use("Relu", x), use("Relu", use("Neg", x)), axis=1)


def maxout(use: Use, layer: L.Maxout, x: str) -> str:
    C, *rest = layer.in_shapes[0]
    pieces = use("Reshape", x, use.ints([0, C // layer.pieces, layer.pieces, *rest]))
    return use("ReduceMax", pieces, use.ints([2]), keepdims=0)


def glu(use: Use, layer: L.GLU, x: str) -> str:
    a, b = use.several("Split", 2, x, axis=1, num_outputs=2)
    return use("Mul", a, use("Sigmoid", b))


def softmax(use: Use, layer: L.Softmax, x: str) -> str:
    z = x if layer.temperature == 1 else use("Div", x, use.constant(layer.temperature))
    return use("Softmax", z, axis=layer.axis + 1)


def log_softmax(use: Use, layer: L.LogSoftmax, x: str) -> str:
    return use("LogSoftmax", x, axis=layer.axis + 1)


WRITE: dict[type[Layer], Write] = {
    L.PReLU: prelu, L.Swish: learned_swish, L.Gain: gain, L.Shift: shift, L.RReLU: rrelu,
    L.CReLU: crelu, L.Maxout: maxout, L.GLU: glu, L.Softmax: softmax, L.LogSoftmax: log_softmax,
    **{getattr(L, name): activation
       for module in (L.activations, L.rectifiers) for name in module.__all__},
}
