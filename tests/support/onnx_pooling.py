"""ONNX operators on our layers and kernels: pooling."""

from __future__ import annotations

import numpy as np
from onnx_operators import batch_first, batch_last, run_layer, window_arguments

import xpnet as xn


def lp_pool(backend, attributes, inputs, outputs):
    x, = inputs
    kernel, stride, padding, dilation = window_arguments(attributes, x)
    layer = xn.LpPool2d(kernel, attributes.get("p", 2), stride=stride, padding=padding,
                        dilation=dilation, ceil_mode=attributes.get("ceil_mode", 0) == 1)
    return [run_layer(backend, layer, x)]


def global_max_pool(backend, attributes, inputs, outputs):
    return [run_layer(backend, xn.GlobalMaxPool2d(), inputs[0])[:, :, None, None]]


def max_unpool(backend, attributes, inputs, outputs):
    """ONNX gives the positions of the maxima. Our layer finds them in the pooled input, here an
    image with marks at these positions."""
    x, places, *shape = inputs
    kernel, stride, padding, dilation = window_arguments(attributes, x)
    layer = xn.MaxUnpool2d(kernel, stride=stride, padding=padding, dilation=dilation)
    usual = *x.shape[:2], *((size - 1) * s + k for size, s, k in zip(x.shape[2:], stride, kernel))
    marks = np.zeros(shape[0] if shape else usual, x.dtype)
    # of the default size, whatever output shape is requested
    at = np.unravel_index(places.ravel(), usual)
    marks[at] = 1
    layer.initialize(x.shape[1:], marks.shape[1:], backend=backend, dtype=x.dtype)
    return [batch_first(backend, layer.forward(batch_last(backend, x), batch_last(backend, marks)))]


OPERATORS = {"LpPool": lp_pool, "GlobalMaxPool": global_max_pool, "MaxUnpool": max_unpool}
# operators of which only the cases with two spatial axes count
WITH_WINDOWS = ("LpPool", "GlobalMaxPool", "MaxUnpool")
REASONS: dict[str, list[str]] = {}        # the reasons why cases cannot pass
