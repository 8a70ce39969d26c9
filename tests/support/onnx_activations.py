"""ONNX operators on our layers and kernels: activations."""

from __future__ import annotations

import numpy as np
from onnx_operators import elementwise, run_layer

import xpnet as xn


def with_attributes(layer, **defaults):
    """The operator as a layer that takes these attributes in this order; the array is one
    sample."""
    def run(backend, attributes, inputs, outputs):
        return [run_layer(backend,
                          layer(*(attributes.get(name, value) for name, value in defaults.items())),
                          inputs[0][None])[0]]
    return run


def gelu(backend, attributes, inputs, outputs):
    return [run_layer(backend, xn.GELU(attributes.get("approximate", b"none").decode()),
                      inputs[0][None])[0]]


def selu(backend, attributes, inputs, outputs):
    if attributes:
        raise ValueError("SELU has no constants but its paper's")
    return elementwise("selu")(backend, attributes, inputs, outputs)


def prelu(backend, attributes, inputs, outputs):
    """A slope for each element of the last axis, which becomes the first one."""
    x, slope = inputs
    if slope.ndim != 1:
        raise ValueError("PReLU has one slope, or one for each channel")
    return [np.moveaxis(run_layer(backend, xn.PReLU(per_channel=True), np.moveaxis(x, -1, 0)[None],
                                  a=slope)[0], 0, -1)]


def shrink(backend, attributes, inputs, outputs):
    """x - bias above lambd, x + bias below -lambd: hard shrinkage without a bias, soft shrinkage if
    they are equal."""
    lambd, bias = attributes.get("lambd", 0.5), attributes.get("bias", 0.0)
    if bias not in (0, lambd):
        raise ValueError("a shrinkage is hard or soft")
    return [
        run_layer(backend, (xn.Softshrink if bias else xn.Hardshrink)(lambd), inputs[0][None])[0]]


def log_softmax(backend, attributes, inputs, outputs):
    x, = inputs
    return [run_layer(backend, xn.LogSoftmax(attributes.get("axis", -1) % x.ndim), x[None])[0]]


OPERATORS = {
    "Elu": with_attributes(xn.ELU, alpha=1.0), "Celu": with_attributes(xn.CELU, alpha=1.0),
    "Selu": selu, "Gelu": gelu, "LeakyRelu": with_attributes(xn.LeakyReLU, alpha=0.01),
    "PRelu": prelu, "Softplus": elementwise("softplus"), "Softsign": elementwise("softsign"),
    "HardSigmoid": with_attributes(xn.HardSigmoid, alpha=0.2, beta=0.5),
    "HardSwish": elementwise("hard_swish"), "Mish": elementwise("mish"),
    "Swish": with_attributes(xn.Swish, alpha=1.0), "Atan": elementwise("arctan"),
    "Abs": elementwise("abs"), "Identity": elementwise("linear"), "LogSoftmax": log_softmax,
    "ThresholdedRelu": with_attributes(xn.ThresholdedReLU, alpha=1.0), "Shrink": shrink}
WITH_WINDOWS = ()       # the operators whose cases count only where they have two spatial axes
REASONS: dict[str, list[str]] = {        # why cases cannot pass
    "SELU's constants are those of its paper": ["test_selu", "test_selu_example"],
    "PReLU has one slope, or one for each channel": ["test_prelu_example"],
}
