"""Normalisation as ONNX's operators."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from xpnet import layers as L
from xpnet.io.onnx.write_activations import Write, activated, per_channel, plus
from xpnet.io.onnx.write_shapes import reshaped
from xpnet.io.onnx.write_windows import sliding
from xpnet.io.onnx.writer import Use
from xpnet.layer import Layer


def batch_norm(use: Use, layer: Any, x: str) -> str:
    """With the running statistics. ONNX's momentum is the part that stays."""
    y = use("BatchNormalization", x, use.parameter(layer.gamma), use.parameter(layer.beta),
            use.parameter(layer.mean), use.parameter(layer.var), epsilon=layer.eps,
            **({} if layer.momentum is None else {"momentum": 1 - layer.momentum}))
    return activated(use, y, layer.activation)


def normalised_axes(layer: L.LayerNorm) -> list[int]:
    """The axes of a sample over which mean and variance are taken, which are neighbours."""
    if layer.axis is None:
        return [*range(len(layer.in_shapes[0]))]
    return [layer.axis] if isinstance(layer.axis, int) else layer.axis


def layer_norm(use: Use, layer: L.LayerNorm, x: str) -> str:
    """ONNX normalises the last axes: others are moved there, and back."""
    axes, count = [axis + 1 for axis in normalised_axes(layer)], len(layer.in_shapes[0]) + 1
    shape = tuple(layer.in_shapes[0][axis - 1] for axis in axes)
    order = [axis for axis in range(count) if axis not in axes] + axes
    moved = order != [*range(count)]
    gamma = use.parameter(layer.gamma) if layer.gamma else use.constant(np.ones(shape), "gamma")
    beta = [use.parameter(layer.beta)] if layer.beta else []
    y = use("LayerNormalization", use("Transpose", x, perm=order) if moved else x, gamma, *beta,
            axis=count - len(axes), epsilon=layer.eps)
    return use("Transpose", y, perm=[order.index(axis) for axis in range(count)]) if moved else y


def rms_norm(use: Use, layer: L.RMSNorm, x: str) -> str:
    axes = normalised_axes(layer)
    squares = use("ReduceMean", use("Mul", x, x), use.ints([axis + 1 for axis in axes], "axes"),
                  keepdims=1)
    y = use("Div", x, use("Sqrt", plus(use, squares, layer.floor)))
    if not layer.gamma:
        return y
    gamma = use.values(layer.gamma)
    rest = (1,) * (len(layer.in_shapes[0]) - 1 - axes[-1])
    return use("Mul", y, use.parameter(layer.gamma, gamma.reshape(*gamma.shape, *rest)))


def instance_norm(use: Use, layer: Any, x: str) -> str:
    C = layer.in_shapes[0][0]
    gamma = use.parameter(layer.gamma) if layer.gamma else use.constant(np.ones(C), "gamma")
    beta = use.parameter(layer.beta) if layer.beta else use.constant(np.zeros(C), "beta")
    return use("InstanceNormalization", x, gamma, beta, epsilon=layer.eps)


def group_norm(use: Use, layer: L.GroupNorm, x: str) -> str:
    """The elements of a group as one channel of an instance normalisation."""
    shape, g = layer.in_shapes[0], layer.groups
    rows = reshaped(use, x, g, math.prod(shape) // g)
    rows = use("InstanceNormalization", rows, use.constant(np.ones(g), "gamma"),
               use.constant(np.zeros(g), "beta"), epsilon=layer.eps)
    y = reshaped(use, rows, *shape)
    for op, p in (("Mul", layer.gamma), ("Add", layer.beta)):
        if p:
            y = use(op, y, use.parameter(p, per_channel(layer, use.values(p))))
    return y


def local_response_norm(use: Use, layer: L.LocalResponseNorm, x: str) -> str:
    shape, size = layer.in_shapes[0], layer.size
    if size is not None and size % 2 and len(shape) > 1:
        return use("LRN", x, size=size, alpha=layer.alpha, beta=layer.beta, bias=layer.k)
    squares, C = use("Mul", x, x), shape[0]
    if size is None:
        mean = use("ReduceMean", squares, use.ints([1]), keepdims=1)
    else:           # a matrix (C, C) of neighbours: ONNX counts one channel more on the other side
        distance = np.arange(C) - np.arange(C)[:, None]
        near = (distance >= -(size // 2)) & (distance <= (size - 1) // 2)
        rows = reshaped(use, squares, C, math.prod(shape[1:]))
        mean = reshaped(use, use("MatMul", use.constant(near / size, "neighbours"), rows), *shape)
    b = use("Add", use("Mul", mean, use.constant(layer.alpha)), use.constant(layer.k))
    return use("Mul", x, use("Pow", b, use.constant(-layer.beta)))


def lp_normalize(use: Use, layer: L.LpNormalize, x: str) -> str:
    """x / max(||x||_p, eps)."""
    axes = use.ints([layer._along + 1] if layer.axis is not None
                    else range(1, len(layer.in_shapes[0]) + 1), "axes")
    if layer.p in (1, 2):
        length = use(f"ReduceL{layer.p:.0f}", x, axes, keepdims=1)
    else:           # divided by the largest element, so that no power overflows
        far = use("Abs", x)
        tiny = use.constant(np.finfo(use.draft.dtype).tiny, "tiny")
        largest = use("Max", use("ReduceMax", far, axes, keepdims=1), tiny)
        powers = use("Pow", use("Div", far, largest), use.constant(layer.p, "p"))
        total = use("ReduceSum", powers, axes, keepdims=1)
        length = use("Mul", largest, use("Pow", total, use.constant(1 / layer.p, "root")))
    return use("Div", x, use("Max", length, use.constant(layer.eps, "eps")))


# --- local normalisation --------------------------------------------------------------------------

def local_mean(use: Use, layer: Any, x: str) -> str:
    """M x: the Gaussian mean over all channels and the window around each position."""
    C, H, W = layer.in_shapes[0]
    bell = layer._bell()
    rows, columns = (inside @ bell for inside in layer.window.inside(H, W))
    total = use("ReduceSum", x, use.ints([1]), keepdims=1)
    g = use.constant(np.outer(bell, bell)[None, None], "g")
    return use("Mul", use("Conv", total, g, **sliding(layer.window, 2)),
               use.constant(1 / (C * np.outer(rows, columns)), "share"))


def subtractive_norm(use: Use, layer: Any, x: str) -> str:
    centred = use("Sub", x, use("ReduceMean", x, use.ints([1, 2, 3]), keepdims=1))
    return use("Sub", centred, local_mean(use, layer, centred))


def divisive_norm(use: Use, layer: Any, x: str) -> str:
    """x / max(c, sigma), with c the mean of sigma."""
    sigma = use("Sqrt", local_mean(use, layer, use("Mul", x, x)))
    mean = use("ReduceMean", sigma, use.ints([2, 3]), keepdims=1)
    least = use("Max", mean, use.constant(layer.floor, "floor"))
    return use("Div", x, use("Max", least, sigma))


def contrast_norm(use: Use, layer: L.ContrastNorm2d, x: str) -> str:
    return divisive_norm(use, layer, subtractive_norm(use, layer, x))


WRITE: dict[type[Layer], Write] = {
    L.BatchNorm1d: batch_norm, L.BatchNorm2d: batch_norm, L.LayerNorm: layer_norm,
    L.RMSNorm: rms_norm, L.InstanceNorm1d: instance_norm, L.InstanceNorm2d: instance_norm,
    L.GroupNorm: group_norm, L.LocalResponseNorm: local_response_norm,
    L.LpNormalize: lp_normalize, L.L1Norm: lp_normalize, L.L2Norm: lp_normalize,
    L.SubtractiveNorm2d: subtractive_norm, L.DivisiveNorm2d: divisive_norm,
    L.ContrastNorm2d: contrast_norm,
}
