"""Public tools for testing your own layers and losses."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend, get_backend
from xpnet.checks import (
    expect_instance,
    expect_integer,
    expect_positive,
    expect_seed,
    expect_shape,
    finite_array,
    wrong,
)
from xpnet.layer import TRAIN, Layer, Shape
from xpnet.losses import Loss

TOLERANCE = {"float32": 1e-5, "float64": 1e-12}     # of ||a - b|| / ||b||, for check_precision


def check_gradients(layer: Layer, *in_shapes: Shape, batch: int = 3,
                    backend: str | Backend = "numpy", seed: int = 0,
                    inputs: tuple[np.ndarray, ...] | None = None, tolerance: float = 1e-6) -> float:
    """Compare a layer's backward with finite differences along one random direction, in float64.

    With L = sum of R Y for a random R, v all inputs and parameters together, and d a random
    direction, (L(v + h d) - L(v - h d)) / 2h must equal the product of d with the gradients.
    Returns the relative error.

    Args:
        layer: a layer that was not initialized yet.
        in_shapes: the shape of each input, without the batch axis.
        batch: number of samples.
        seed: of the initial parameters, the inputs, R and d.
        inputs: batch-last inputs, e.g. to keep away from kinks; drawn from N(0, 1) by default.
            Inputs of an integer dtype stay as they are: v does not contain them.
        tolerance: largest relative error allowed.

    Raises:
        AssertionError: the error is larger, or a gradient has the wrong shape.
    """
    who = "check_gradients"
    expect_instance(who, "layer", layer, Layer, "a Layer")
    batch, seed = expect_integer(who, "batch", batch), expect_seed(who, seed)
    tolerance = expect_positive(who, "tolerance", tolerance)
    layer.initialize(*in_shapes, backend=backend, dtype="float64", seed=seed)
    rng = np.random.default_rng(seed)
    if inputs is None:
        inputs = tuple(rng.standard_normal((*shape, batch)) for shape in in_shapes)
    elif not isinstance(inputs, tuple | list):
        raise wrong(who, "inputs to be a tuple of arrays, one for each input", "inputs", inputs)
    on_backend = layer.backend.asarray
    given = [finite_array(x, f"{who}: inputs") for x in inputs]
    xs = [x.astype(np.float64) for x in given]
    for parameter in layer.parameters:      # biases start at 0, which would hide mistakes
        parameter.data += on_backend(0.1 * rng.standard_normal(parameter.shape))
    values = [layer.backend.to_numpy(p.data).copy() for p in layer.parameters]
    y = layer.forward(*map(on_backend, xs), mode=TRAIN)
    weight = rng.standard_normal(y.shape)   # R
    dxs: Any = layer.backward(on_backend(weight))
    dxs = dxs if isinstance(dxs, tuple) else (dxs,)
    gradients = [layer.backend.to_numpy(g) for g in (*dxs, *(p.grad for p in layer.parameters))]
    expected, received = ([a.shape for a in arrays] for arrays in ((*xs, *values), gradients))
    if expected != received:
        raise AssertionError(f"check_gradients: {layer.who}: expected gradients of shapes "
                             f"{expected}. Received: {received}.")
    direction = [rng.standard_normal(v.shape) for v in (*xs, *values)]
    direction = [d / np.sqrt((d * d).sum()) for d in direction]
    for x, d in zip(given, direction, strict=False):
        d *= x.dtype.kind not in "iu"

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


def check_loss(loss: Loss, out_shape: Shape, target: Any, *, backend: str | Backend = "numpy",
               seed: int = 0, y: np.ndarray | None = None, tolerance: float = 1e-6) -> float:
    """Compare a loss's gradient with finite differences along one random direction, in float64.

    For a loss with reduction="none" the gradient is that of the sum. Returns the relative error.

    Args:
        out_shape: shape of the network's output, without the batch axis.
        target: batch-first, as for `fit`.
        seed: of y and of the direction.
        y: the network's output, batch-last; drawn from N(0, 1) by default.
        tolerance: largest relative error allowed.

    Raises:
        AssertionError: the error is larger.
    """
    who = "check_loss"
    expect_instance(who, "loss", loss, Loss, "a Loss")
    out_shape = expect_shape(who, "out_shape to be the shape of one output, e.g. (10,)", out_shape)
    tolerance, seed = expect_positive(who, "tolerance", tolerance), expect_seed(who, seed)
    backend = get_backend(backend)
    rng = np.random.default_rng(seed)
    known = loss.targets(target, out_shape, np.dtype(np.float64))
    if not len(known):
        raise ValueError(f"{who}: expected at least one target. Received: none.")
    goal = backend.asarray(np.moveaxis(known, 0, -1).copy())
    shape = (*out_shape, len(known))
    y = rng.standard_normal(shape) if y is None else finite_array(y, f"{who}: y")
    if y.shape != shape:
        raise ValueError(f"{who}: expected y of shape {shape}, the batch last. Received: shape "
                         f"{y.shape}.")
    direction = rng.standard_normal(y.shape)
    direction /= np.linalg.norm(direction)

    def value(h: float) -> float:
        moved = backend.asarray(y + h * direction)
        return float(backend.to_numpy(loss.checked(backend, moved, goal)[0]).sum())

    dy = backend.to_numpy(loss.checked(backend, backend.asarray(y), goal)[1])
    h = 1e-5
    numeric, analytic = (value(h) - value(-h)) / (2 * h), float((dy * direction).sum())
    return _relative_error(f"check_loss: {type(loss).__name__}", numeric, analytic, tolerance)


def check_precision(layer: Layer, *in_shapes: Shape, backend: str | Backend, batch: int = 3,
                    dtype: str = "float32", seed: int = 0,
                    inputs: tuple[np.ndarray, ...] | None = None,
                    tolerance: float | None = None) -> float:
    """Compare what a layer computes on a backend with the reference implementation in float64.

    The arrays compared are the output, the gradients with respect to all inputs and parameters, and
    the state, for equal parameters, inputs and dy. The error of an array is ||a - b|| / ||b||, b
    from the reference implementation. Returns the largest error.

    Args:
        layer: is not changed; two copies are made from its config().
        in_shapes: the shape of each input, without the batch axis.
        batch: number of samples.
        dtype: "float32" or "float64", what the backend computes with.
        seed: of the initial parameters, the inputs and dy.
        inputs: batch-last inputs; drawn from N(0, 1) by default.
        tolerance: largest error allowed; by default 1e-5 in float32 and 1e-12 in float64.

    Raises:
        AssertionError: the error is larger, or an array has the wrong shape or dtype.
    """
    who = f"check_precision: {layer.who}"
    rng = np.random.default_rng(seed)
    if inputs is None:
        inputs = tuple(rng.standard_normal((*shape, batch)) for shape in in_shapes)
    xs = [np.asarray(x, dtype) for x in inputs]
    copies = [type(layer)(**layer.config()) for _ in range(2)]
    mine, exact = (copy.initialize(*in_shapes, backend=on, dtype=to, seed=seed)
                   for copy, on, to in zip(copies, (backend, Backend()), (dtype, "float64")))
    # Biases start at 0, which would hide mistakes.
    for p, q in zip(mine.parameters, exact.parameters):
        p.data += mine.backend.asarray(0.1 * rng.standard_normal(p.shape), dtype)
        q.data[...] = mine.backend.to_numpy(p.data)
    dy = rng.standard_normal((*exact.out_shape, xs[0].shape[-1])).astype(dtype)
    received, expected = _computed(mine, xs, dy), _computed(exact, xs, dy)
    return _largest_error(who, received, expected, dtype, tolerance)


def _computed(layer: Layer, xs: Sequence[np.ndarray], dy: np.ndarray) -> dict[str, np.ndarray]:
    """The output, all gradients and the state of an initialized layer, on the host."""
    asarray, dtype = layer.backend.asarray, layer.buffers.dtype
    y = layer.forward(*(asarray(x, dtype) for x in xs), mode=TRAIN)
    dxs: Any = layer.backward(asarray(dy, dtype))
    arrays = {"y": y}
    arrays |= {f"dx{k}": dx for k, dx in enumerate(dxs if isinstance(dxs, tuple) else (dxs,))}
    arrays |= {f"d{p.name}": p.grad for p in layer.parameters}
    arrays |= {p.name: p.data for p in layer.states}
    return {name: layer.backend.to_numpy(a) for name, a in arrays.items()}


def check_loss_precision(loss: Loss, out_shape: Shape, target: Any, *, backend: str | Backend,
                         dtype: str = "float32", seed: int = 0, y: np.ndarray | None = None,
                         tolerance: float | None = None) -> float:
    """Compare a loss and its gradient on a backend with the reference implementation in float64.

    Returns the largest error, as in `check_precision`.

    Args:
        out_shape, target, y: as in `check_loss`.
        dtype, tolerance: as in `check_precision`.
        seed: of y.

    Raises:
        AssertionError: the error is larger, or an array has the wrong shape or dtype.
    """
    known = np.moveaxis(loss.targets(target, out_shape, np.dtype(dtype)), 0, -1)
    if y is None:
        y = np.random.default_rng(seed).standard_normal((*out_shape, known.shape[-1]))

    def computed(on: Backend, to: str) -> dict[str, np.ndarray]:
        goal = on.asarray(known, to if known.dtype.kind == "f" else None)
        value, dy = loss(on, on.asarray(y.astype(dtype), to), goal)
        return {"loss": on.to_numpy(value), "dy": on.to_numpy(dy)}

    received, expected = computed(get_backend(backend), dtype), computed(Backend(), "float64")
    return _largest_error(f"check_loss_precision: {type(loss).__name__}", received, expected, dtype,
                          tolerance)


def _largest_error(who: str, received: dict[str, np.ndarray], expected: dict[str, np.ndarray],
                   dtype: str, tolerance: float | None) -> float:
    """The largest ||a - b|| / ||b||. Raises AssertionError if it is above the tolerance."""
    def norm(array: np.ndarray) -> float:
        return float(np.sqrt((array * array).sum()))

    bound = TOLERANCE[dtype] if tolerance is None else tolerance
    errors: dict[str, float] = {}
    for name, b in expected.items():
        a = received[name]
        if a.dtype != dtype or a.shape != b.shape:
            raise AssertionError(f"{who}: expected {name} of {dtype} {b.shape}. Received: "
                                 f"{a.dtype} {a.shape}.")
        errors[name] = norm(a - b) / max(norm(b), 1e-30)
    worst = max(errors, key=lambda name: errors[name])
    if not errors[worst] <= bound:
        raise AssertionError(f"{who}: expected {worst} within {bound:.0e} of the float64 "
                             f"reference. Received: a relative error of {errors[worst]:.1e}.")
    return errors[worst]


def _relative_error(who: str, numeric: float, analytic: float, tolerance: float) -> float:
    error = abs(numeric - analytic) / max(abs(numeric), abs(analytic), 1e-12)
    if not error <= tolerance:
        raise AssertionError(f"{who}: expected a directional derivative of {numeric!r}, from "
                             f"finite differences. Received: {analytic!r} from backward, a "
                             f"relative error of {error:.1e}.")
    return error
