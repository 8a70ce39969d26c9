"""Public tools for testing layers and losses of your own."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend, get_backend
from xpnet.layer import TRAIN, Layer, Shape
from xpnet.losses import Loss


def check_gradients(layer: Layer, *in_shapes: Shape, batch: int = 3, backend: str | Backend = "numpy", seed: int = 0,
                    inputs: tuple[np.ndarray, ...] | None = None, tolerance: float = 1e-6) -> float:
    """Compare a layer's backward with finite differences along one random direction, in float64.

    With L = sum of R Y for a random R, the directional derivative (L(v + h d) - L(v - h d)) / 2h over all inputs and
    parameters v together must be the product of d with the gradients. `layer` is new, in_shapes come without the batch
    axis, `inputs` (batch-last) replace the normally distributed ones, e.g. to keep away from kinks.
    Returns the relative error; AssertionError where it is above `tolerance`.
    """
    layer.initialize(*in_shapes, backend=backend, dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    if inputs is None:
        inputs = tuple(rng.standard_normal((*shape, batch)) for shape in in_shapes)
    on_backend = layer.backend.asarray
    xs = [np.array(x, np.float64) for x in inputs]
    for parameter in layer.parameters:      # biases start at 0, a point that hides mistakes
        parameter.data += on_backend(0.1 * rng.standard_normal(parameter.shape))
    values = [layer.backend.to_numpy(p.data).copy() for p in layer.parameters]
    y = layer.forward(*map(on_backend, xs), mode=TRAIN)
    weight = rng.standard_normal(y.shape)                                                       # R
    dxs: Any = layer.backward(on_backend(weight))
    gradients = [layer.backend.to_numpy(g) for g in (*(dxs if isinstance(dxs, tuple) else (dxs,)),
                                                     *(p.grad for p in layer.parameters))]
    expected, received = ([a.shape for a in arrays] for arrays in ((*xs, *values), gradients))
    if expected != received:
        raise AssertionError(f"check_gradients: {layer.who}: expected gradients of shapes {expected}. Received: {received}.")
    direction = [rng.standard_normal(v.shape) for v in (*xs, *values)]
    direction = [d / np.sqrt((d * d).sum()) for d in direction]

    def objective(h: float) -> float:
        moved = [v + h * d for v, d in zip((*xs, *values), direction, strict=True)]
        for parameter, value in zip(layer.parameters, moved[len(xs):], strict=True):
            parameter.data[...] = on_backend(value)
        out = layer.forward(*map(on_backend, moved[:len(xs)]), mode=TRAIN)
        return float((layer.backend.to_numpy(out) * weight).sum())

    h = 1e-5
    numeric = (objective(h) - objective(-h)) / (2 * h)
    analytic = float(sum((g * d).sum() for g, d in zip(gradients, direction, strict=True)))
    return _relative_error(f"check_gradients: {layer.who}", numeric, analytic, tolerance)


def check_loss(loss: Loss, out_shape: Shape, target: Any, *, backend: str | Backend = "numpy", seed: int = 0,
               y: np.ndarray | None = None, tolerance: float = 1e-6) -> float:
    """Compare a loss's gradient with finite differences along one random direction, in float64.

    out_shape is the network's output without the batch axis, target is batch-first, y (out_shape, N) batch-last, normally
    distributed unless given. Returns the relative error; AssertionError where it is above `tolerance`.
    """
    backend = get_backend(backend)
    rng = np.random.default_rng(seed)
    known = loss.targets(target, out_shape, np.dtype(np.float64))
    goal = backend.asarray(np.moveaxis(known, 0, -1).copy())
    y = rng.standard_normal((*out_shape, len(known))) if y is None else y
    direction = rng.standard_normal(y.shape)
    direction /= np.linalg.norm(direction)

    def value(h: float) -> float:
        return float(backend.to_numpy(loss(backend, backend.asarray(y + h * direction), goal)[0]))

    dy = backend.to_numpy(loss(backend, backend.asarray(y), goal)[1])
    if dy.shape != y.shape:
        raise AssertionError(f"check_loss: {type(loss).__name__}: expected a gradient of shape {y.shape}. Received: {dy.shape}.")
    h = 1e-5
    numeric, analytic = (value(h) - value(-h)) / (2 * h), float((dy * direction).sum())
    return _relative_error(f"check_loss: {type(loss).__name__}", numeric, analytic, tolerance)


def _relative_error(who: str, numeric: float, analytic: float, tolerance: float) -> float:
    error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), 1e-12)
    if not error <= tolerance:
        raise AssertionError(f"{who}: expected a directional derivative of {numeric!r}, from finite differences. "
                             f"Received: {analytic!r} from backward, a relative error of {error:.1e}.")
    return error
