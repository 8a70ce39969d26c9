"""ONNX operators on our layers and kernels: normalisation."""

from __future__ import annotations

from onnx_operators import run_layer

import xpnet as xn


def lrn(backend, attributes, inputs, outputs):
    layer = xn.LocalResponseNorm(attributes["size"], alpha=attributes.get("alpha", 1e-4), beta=attributes.get("beta", 0.75),
                                 k=attributes.get("bias", 1.0))
    return [run_layer(backend, layer, inputs[0])]


OPERATORS = {"LRN": lrn}
WITH_WINDOWS = ()       # the operators whose cases count only where they have two spatial axes
REASONS: dict[str, list[str]] = {}        # why cases cannot pass
