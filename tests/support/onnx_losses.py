"""ONNX operators on our layers and kernels: losses."""

from __future__ import annotations

import numpy as np
from onnx_operators import batch_last, run_layer

import xpnet as xn


def of_classes(kind):
    """A loss of labels as ONNX's operator; the logarithms of the probabilities are a second output
    if requested."""
    def run(backend, attributes, inputs, outputs):
        scores, labels, *weight = inputs                        # (N, K, ...), (N, ...)
        reduction = attributes["reduction"].decode()
        loss = kind(weight=weight[0] if weight else None,
                    ignore_index=attributes.get("ignore_index"),
                    reduction="sum" if reduction == "none" else reduction)
        target = loss.targets(labels, scores.shape[1:], scores.dtype)
        y, t = batch_last(backend, scores), batch_last(backend, target)
        if reduction == "none":  # a sum over one position, for each of them
            y, t = y.reshape(len(y), -1), t.reshape(-1)
            value = np.array([backend.to_numpy(loss(backend, y[:, n:n + 1], t[n:n + 1])[0])
                              for n in range(t.size)])
            value = np.moveaxis(value.reshape(*labels.shape[1:], -1), -1, 0)
        else:
            value = backend.to_numpy(loss(backend, y, t)[0])
        return [value] if outputs == 1 else [value, run_layer(backend, xn.LogSoftmax(), scores)]
    return run


OPERATORS = {"SoftmaxCrossEntropyLoss": of_classes(xn.CrossEntropy),
             "NegativeLogLikelihoodLoss": of_classes(xn.NegativeLogLikelihood)}
WITH_WINDOWS = ()       # operators of which only the cases with two spatial axes count
REASONS: dict[str, list[str]] = {}        # the reasons why cases cannot pass
