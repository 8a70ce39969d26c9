"""ONNX operators on our layers and kernels: optimizers. Each function is as in
onnx_operators.py."""

from __future__ import annotations

import numpy as np


def updated(backend, arrays, kinds, rule, hyper):
    """Optimizers take several tensors at once, X1, X2, ..., G1, G2, ..., V1, V2, ..., and return
    X1, X2, ..., V1, V2, ..."""
    results, count = [], len(arrays) // kinds
    for k in range(count):
        x, g, *slots = arrays[k::count]
        x, *slots = (backend.asarray(a.copy()) for a in (x, *slots))
        backend.update(rule, x, backend.asarray(g), slots, backend.asarray(np.array(hyper)),
                       decayed=len(x))
        results.append([backend.to_numpy(a) for a in (x, *slots)])
    return [array for kind in zip(*results) for array in kind]


def momentum(backend, attributes, inputs, outputs):
    lr, _, *arrays = inputs  # the second input counts steps; at 0 beta counts as 1
    hyper = [float(lr), attributes["alpha"], attributes["norm_coefficient"]]
    return updated(backend, arrays, 3, "nesterov" if attributes["mode"] == b"nesterov" else "sgd",
                   hyper)


def adam(backend, attributes, inputs, outputs):
    lr, _, *arrays = inputs  # at step 0 there is no bias correction
    settings = (attributes[name] for name in ("alpha", "beta", "epsilon", "norm_coefficient"))
    return updated(backend, arrays, 4, "adam", [float(lr), *settings, 1, 1])


def adagrad(backend, attributes, inputs, outputs):
    lr, step, *arrays = inputs
    rate = float(lr) / (1 + int(step) * attributes.get("decay_factor", 0.0))
    return updated(backend, arrays, 3, "adagrad",
                   [rate, attributes["epsilon"], attributes["norm_coefficient"]])


OPERATORS = {"Momentum": momentum, "Adam": adam, "Adagrad": adagrad}
WITH_WINDOWS = ()       # the operators whose cases count only where they have two spatial axes
REASONS: dict[str, list[str]] = {}        # why cases cannot pass
