"""A layer on one backend against the same layer on NumPy: output and every gradient."""

from __future__ import annotations

from typing import Any

import numpy as np
from layer_cases import LayerCase
from parity import distance

from xpnet.backends import Backend
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.layer import TRAIN

# ||a - b|| / ||b||. TF32 rounds only the factors, to 10 bits of fraction.
TOLERANCE = {"float64": 1e-12, "float32": 1e-5, "tf32": 2e-3}


def results(case: LayerCase, backend: Backend, dtype: str) -> dict[str, np.ndarray]:
    """The layer's output, its input and parameter gradients, and its state after a step."""
    with backend.scope():
        layer = case.layer(backend, dtype)
        y = layer.forward(*(backend.asarray(x) for x in case.inputs(dtype)), mode=TRAIN)
        dy = np.random.default_rng(3).standard_normal(y.shape).astype(dtype)
        dxs: Any = layer.backward(backend.asarray(dy))
        arrays = {"y": y} | {f"dx{k}": dx
                             for k, dx in enumerate(dxs if isinstance(dxs, tuple) else (dxs,))
                             if dx is not None}
        arrays |= {f"d{p.name}": p.grad for p in layer.parameters} | {
            name: p.data for name, p in layer.buffers.arrays.items()}
        return {name: np.array(backend.to_numpy(a)) for name, a in arrays.items()}


def agree(case: LayerCase, backend: Backend, digits: str) -> None:
    """Fails if the two differ by more than TOLERANCE[digits]."""
    dtype = "float32" if digits == "tf32" else digits
    expected, actual = results(case, NumpyBackend(), dtype), results(case, backend, dtype)
    assert expected.keys() == actual.keys()
    for name, right in expected.items():
        error = distance(actual[name], right)
        assert error <= TOLERANCE[digits], f"{case} {digits}: {name} is {error:.1e} away in norm"
