"""ONNX operators on our layers and kernels: normalisation."""

from __future__ import annotations

from onnx_operators import batch_first, batch_last, run_layer

import xpnet as xn
from xpnet import TRAIN


def lrn(backend, attributes, inputs, outputs):
    layer = xn.LocalResponseNorm(attributes["size"], alpha=attributes.get("alpha", 1e-4),
                                 beta=attributes.get("beta", 0.75), k=attributes.get("bias", 1.0))
    return [run_layer(backend, layer, inputs[0])]


def along_trailing_axes(layer_of, attributes, x, **settings):
    """A layer that normalises from ONNX's `axis` on, and x for it: if the batch is among these
    axes, it becomes one sample."""
    axis = attributes.get("axis", -1) % x.ndim
    if axis == 0:
        return layer_of(**settings), x[None]
    return layer_of(axis=range(axis - 1, x.ndim - 1), **settings), x


def layer_normalization(backend, attributes, inputs, outputs):
    x, gamma, beta = inputs
    layer, samples = along_trailing_axes(xn.LayerNorm, attributes, x,
                                         eps=attributes.get("epsilon", 1e-5))
    y = run_layer(backend, layer, samples, gamma=gamma, beta=beta).reshape(x.shape)
    _, mean, std = layer.standardised(batch_last(backend, samples))
    axis = attributes.get("axis", -1) % x.ndim
    kept = *x.shape[:axis], *(1,) * (x.ndim - axis)
    return [y, batch_first(backend, mean).reshape(kept),
            batch_first(backend, 1 / std).reshape(kept)]


def rms_normalization(backend, attributes, inputs, outputs):
    x, gamma = inputs
    layer, samples = along_trailing_axes(xn.RMSNorm, attributes, x,
                                         eps=attributes.get("epsilon", 1e-5))
    return [run_layer(backend, layer, samples, gamma=gamma).reshape(x.shape)]


def group_normalization(backend, attributes, inputs, outputs):
    x, gamma, beta = inputs
    layer = xn.GroupNorm(attributes["num_groups"], eps=attributes.get("epsilon", 1e-5))
    return [run_layer(backend, layer, x, gamma=gamma, beta=beta)]


def instance_normalization(backend, attributes, inputs, outputs):
    x, gamma, beta = inputs
    return [run_layer(backend, xn.InstanceNorm2d(eps=attributes.get("epsilon", 1e-5), affine=True),
                      x, gamma=gamma, beta=beta)]


def mean_variance_normalization(backend, attributes, inputs, outputs):
    """Over (N, H, W), the usual axes: batch normalisation in training, without gamma, beta and
    eps."""
    assert attributes.get("axes", [0, 2, 3]) == [0, 2, 3]
    return [run_layer(backend, xn.BatchNorm2d(eps=0), inputs[0], mode=TRAIN)]


def lp_normalization(backend, attributes, inputs, outputs):
    x, = inputs  # one sample: any of its axes can be normalised
    layer = xn.LpNormalize(attributes.get("p", 2), axis=attributes.get("axis", -1))
    return [run_layer(backend, layer, x[None])[0]]


OPERATORS = {
    "LRN": lrn, "LayerNormalization": layer_normalization, "RMSNormalization": rms_normalization,
    "GroupNormalization": group_normalization, "InstanceNormalization": instance_normalization,
    "MeanVarianceNormalization": mean_variance_normalization, "LpNormalization": lp_normalization}
WITH_WINDOWS = ()       # operators of which only the cases with two spatial axes count
REASONS: dict[str, list[str]] = {}        # the reasons why cases cannot pass
