"""Activations from ONNX's operators."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.backends.activations import SELU_ALPHA, SELU_SCALE
from xpnet.io.onnx.build import Reading, Value
from xpnet.io.onnx.library import UnsupportedError
from xpnet.layer import Layer

Read = Callable[[Reading], Any]
CLOSE = 1e-6            # relative
LARGEST = float(np.finfo(np.float32).max)
REAL = 1, 10, 11, 16    # ONNX's numbers of float32, float16, float64 and bfloat16


def with_attributes(make: Callable[..., Layer], **defaults: float) -> Read:
    """A layer that takes these attributes, in this order."""
    def read(op: Reading) -> Value:
        return op.elementwise(make(*(op.attribute(name, default)
                                     for name, default in defaults.items())))
    return read


def selu(op: Reading) -> Value:
    for name, constant in (("alpha", SELU_ALPHA), ("gamma", SELU_SCALE)):
        if abs(op.attribute(name, constant) - constant) > CLOSE:
            raise UnsupportedError(f"its {name} is not that of SELU's paper")
    return op.elementwise(L.SELU())


def gelu(op: Reading) -> Value:
    return op.elementwise(L.GELU(op.attribute("approximate", "none")))


def swish(op: Reading) -> Value:
    alpha = op.attribute("alpha", 1.0)
    return op.elementwise(L.SiLU() if alpha == 1 else L.Swish(alpha))


def clip(op: Reading) -> Value:
    """A bound that is left out is the largest float32, as ONNX says."""
    low, high = op.number(1, "lower bound"), op.number(2, "upper bound")
    if low is None and high is None:
        return op.value()
    if low == 0:
        return op.elementwise(L.ReLU() if high is None else L.ReLU6() if high == 6
                              else L.ClippedReLU(high))
    return op.elementwise(L.Hardtanh(-LARGEST if low is None else low,
                                     LARGEST if high is None else high))


def prelu(op: Reading) -> Value:
    """One slope, or one for each channel."""
    value, slope = op.value(), op.numbers(1, "slope")
    if slope.size == 1:
        return _with_slopes(op, L.PReLU(), slope.reshape(1))
    value = op.batch_first()
    shape = slope.shape if slope.ndim == len(value.shape) else slope.shape[1:]
    C, *rest = value.shape
    if slope.ndim < len(value.shape) or slope.size != C or shape != (C, *(1,) * len(rest)):
        raise UnsupportedError("it has other slopes than one for each channel")
    return _with_slopes(op, L.PReLU(per_channel=True), slope.reshape(-1))


def _with_slopes(op: Reading, layer: L.PReLU, slopes: np.ndarray) -> Value:
    return op.add(layer, op.value(), arrays={"a": slopes}, key=op.key(1))


def shrink(op: Reading) -> Value:
    lambd, bias = op.attribute("lambd", 0.5), op.attribute("bias", 0.0)
    if bias not in (0, lambd):
        raise UnsupportedError("a shrinkage is hard (bias 0) or soft (bias = lambd)")
    return op.elementwise((L.Softshrink if bias else L.Hardshrink)(lambd))


def softmax(op: Reading) -> Value:
    """Before opset 13 all axes from `axis` on are one."""
    layer = L.Softmax if op.kind == "Softmax" else L.LogSoftmax
    value = op.value()
    axis = value.sample_axis(op.attribute("axis", 1 if op.opset < 13 else -1))
    if op.opset >= 13 or axis == len(value.shape) - 1:
        return op.add(layer(axis), value)
    if value.batch > axis:
        raise UnsupportedError("it works along the batch")
    merged = op.viewed(value, (*value.shape[:axis], int(np.prod(value.shape[axis:]))))
    return op.viewed(op.add(layer(axis), merged), value.shape)


def identity(op: Reading) -> Value:
    return op.value()


def cast(op: Reading) -> Value:
    """Real numbers stay what they are; integers may become real numbers."""
    value = op.value()
    to = op.attribute("to", 1)
    if to not in REAL and not value.integer:
        raise UnsupportedError("it makes integers of real numbers")
    return Value(value.node, value.shape, value.batch, value.name,
                 value.integer and to not in REAL)


def dropout(op: Reading) -> Value:
    op.expect_one_output()
    if op.number(2, "training_mode"):
        raise UnsupportedError("it drops elements in predictions, too")
    ratio = op.number(1, "ratio")
    ratio = 0.5 if ratio is None else ratio
    return op.elementwise(L.Dropout(ratio)) if ratio else op.value()


READ: dict[str, Read] = {
    "Relu": with_attributes(L.ReLU), "Sigmoid": with_attributes(L.Sigmoid),
    "Tanh": with_attributes(L.Tanh), "Elu": with_attributes(L.ELU, alpha=1.0),
    "Celu": with_attributes(L.CELU, alpha=1.0),
    "LeakyRelu": with_attributes(L.LeakyReLU, alpha=0.01),
    "ThresholdedRelu": with_attributes(L.ThresholdedReLU, alpha=1.0),
    "HardSigmoid": with_attributes(L.HardSigmoid, alpha=0.2, beta=0.5),
    "HardSwish": with_attributes(L.HardSwish), "Softplus": with_attributes(L.Softplus),
    "Softsign": with_attributes(L.Softsign), "Mish": with_attributes(L.Mish),
    "Abs": with_attributes(L.Abs), "Atan": with_attributes(L.Arctan), "Selu": selu, "Gelu": gelu,
    "Swish": swish, "Clip": clip, "PRelu": prelu, "Shrink": shrink, "Softmax": softmax,
    "LogSoftmax": softmax, "Identity": identity, "Cast": cast, "CastLike": identity,
    "Dropout": dropout,
}
