"""Activations against mpmath: the relative error of f and f' over the whole range of numbers, and
NaN.

The points are on a logarithmic scale on both sides of 0, most of them where the curves bend. Every
implementation is tested: base.py, NumPy, the Numba kernels, the CUDA kernels compiled by g++, and a
GPU if there is one.
"""

from __future__ import annotations

import math
from functools import cache

import numpy as np
import pytest
from activation_formulas import FORMULAS, OTHERS
from implementations import CPU, implementation, on_cpu
from mpmath import mp, mpf

import xpnet as xn
from xpnet.backends import Backend, Window
from xpnet.backends.activations import ACTIVATIONS, FUSED

CASES = [(name, ()) for name in ACTIVATIONS] + list(OTHERS.items())
every_activation = pytest.mark.parametrize("name, constants", CASES,
                                           ids=lambda value: str(value) if value else "usual")
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])

# Relative errors are at most ROUNDINGS units of the last digit. Where the argument of an
# exponential is rounded first, e.g. z^2 / 2, its absolute error is a relative error of the result.
# The argument is about the logarithm of the result, and two roundings of it are allowed.
ROUNDINGS = 8
ROUNDED_ARGUMENT = {"gelu", "gelu_tanh", "gaussian", "softplus", "swish", "celu"}
# Subnormal numbers become 0 on a GPU and in the Numba kernels, and some are then multiplied with z:
# errors of FLOOR times the smallest normal number are allowed.
FLOOR = 256
# The fused kernels keep only y. If y is near its limit, f' is only as accurate as y. These are the
# allowed errors, in units of the last digit of 1.
FROM_ROUNDED_OUTPUT = {"sigmoid": 1.0, "logistic": 1.0, "tanh": 1.0, "scaled_tanh": 2.0}
# f' has a zero within this range, where it is the difference of terms of up to about 0.5.
PASSES_ZERO = dict.fromkeys(("silu", "swish", "gelu", "gelu_tanh", "mish"), (-2, -0.5))
# Derivatives that choose between constants, and their value for NaN. All others give NaN.
CONSTANT_AT_NAN = {
    "relu": 0, "linear": 1, "relie": 0.01, "ramp": 0.1, "leaky_relu": 0.01, "plse": 0.125,
    "stair": 1,
    "hardtanh": 0, "lhtan": 0.001, "relu6": 0, "hard_sigmoid": 0, "softshrink": 1, "hardshrink": 1,
    "thresholded_relu": 0, "step": 0}


backend = implementation


@cache
def grid(dtype: str) -> np.ndarray:
    """Points from 1e-30 to about the largest float32 on both sides of 0.

    Beyond `far` every exponential is 0 or infinite.
    """
    far, top, count = (120, 3e38, 50) if dtype == "float32" else (800, 1e100, 30)
    sizes = np.concatenate([np.geomspace(1e-30, 1e-3, 12, endpoint=False),
                            np.geomspace(1e-3, far, count), np.geomspace(2 * far, top, 13)])
    return np.concatenate([-sizes[::-1], sizes]).astype(dtype)


@cache
def exact(name: str, constants: tuple[float, ...], dtype: str) -> tuple[np.ndarray, np.ndarray]:
    """(f, f') on the grid as float64, computed with enough digits for small differences."""
    f, usual = FORMULAS[name], ACTIVATIONS[name].constants.values()
    with mp.workdps(120 if dtype == "float32" else 400):
        numbers = [mpf(float(np.dtype(dtype).type(c))) for c in constants or usual]
        values, slopes = [], []
        for x in map(mpf, grid(dtype).tolist()):
            h = abs(x) * mpf(10)**-25
            values.append(float(f(x, *numbers)))
            slopes.append(float((f(x + h, *numbers) - f(x - h, *numbers)) / (2 * h)))
    return np.array(values), np.array(slopes)


def both(backend: Backend, name: str, x: np.ndarray, constants: tuple[float, ...] = ()
         ) -> tuple[np.ndarray, np.ndarray]:
    """(f(x), f'(x)) as the layers compute them."""
    with np.errstate(all="ignore"), backend.scope():
        z = backend.asarray(x)
        y = backend.activate(z, name, constants)
        kept = z if ACTIVATIONS[name].of == "z" else y
        slope = backend.activation_backward(backend.asarray(np.ones_like(x)), kept, name, constants)
        return backend.to_numpy(y), backend.to_numpy(slope)


def largest_error(name: str, actual: np.ndarray, right: np.ndarray) -> float:
    """The largest error, relative to the allowed one."""
    unit = np.finfo(actual.dtype)
    sizes = np.abs(right)
    roundings = np.full(sizes.shape, float(ROUNDINGS))
    if name in ROUNDED_ARGUMENT:
        roundings += 2 * np.abs(np.log(np.maximum(sizes, float(unit.tiny))))
    allowed = roundings * sizes * float(unit.eps) + FLOOR * float(unit.tiny)
    return float((np.abs(actual - right) / allowed).max())


@both_types
@every_activation
def test_values(backend: Backend, name: str, constants: tuple[float, ...], dtype: str):
    y, _ = both(backend, name, grid(dtype), constants)
    assert y.dtype == dtype
    assert largest_error(name, y, exact(name, constants, dtype)[0]) < 1


@both_types
@every_activation
def test_derivatives(backend: Backend, name: str, constants: tuple[float, ...], dtype: str):
    x = grid(dtype)
    _, slope = both(backend, name, x, constants)
    right, eps = exact(name, constants, dtype)[1], float(np.finfo(dtype).eps)
    assert slope.dtype == dtype
    relative = np.ones(x.shape, bool)
    if name in FROM_ROUNDED_OUTPUT:
        relative = x <= 0 if name in ("sigmoid", "logistic") else np.abs(x) < 0.5
        assert np.abs(slope - right).max() <= FROM_ROUNDED_OUTPUT[name] * eps
        assert slope.min() >= 0
    elif name in PASSES_ZERO:
        low, high = PASSES_ZERO[name]
        relative = (x <= low) | (x >= high)
        assert np.abs(slope - right)[~relative].max() <= 4 * eps
    elif name == "stair":
        relative = x != np.floor(x)                 # f' jumps at whole numbers, as large floats are
    assert largest_error(name, slope[relative], right[relative]) < 1


@both_types
@every_activation
def test_nan(backend: Backend, name: str, constants: tuple[float, ...], dtype: str):
    """The NaN is among other numbers, and the gradient is not 1."""
    z = np.array([1, np.nan, -1] * 5, dtype)
    y, slope = both(backend, name, z, constants)
    assert (np.isnan(y) == np.isnan(z)).all()
    if name not in CONSTANT_AT_NAN:
        assert (np.isnan(slope) == np.isnan(z)).all()
    elif not constants:
        assert slope[1::3].tolist() == [dtype_of(slope, CONSTANT_AT_NAN[name])] * 5
    else:
        assert set(slope[1::3].tolist()) <= {0.0, 1.0, *(dtype_of(slope, c) for c in constants)}


def dtype_of(array: np.ndarray, number: float) -> float:
    return float(array.dtype.type(number))


@both_types
@pytest.mark.parametrize("name", FUSED)
@pytest.mark.parametrize("cpu", CPU)
def test_fused_activations_are_as_accurate(cpu: str, name: str, dtype: str):
    """At the end of kernels that compute z = 1 x + 0.

    The CUDA kernels end with the function that is tested above.
    """
    backend = on_cpu(cpu)
    x, ones, zeros = grid(dtype), np.ones(1, dtype), np.zeros(1, dtype)
    right = exact(name, (), dtype)[0]
    with np.errstate(all="ignore"):
        results = [
            backend.gemm(np.ones((3, 1), dtype), x[None], bias=np.zeros(3, dtype),
                         activation=name)[1],
            backend.conv2d(x.reshape(1, 1, -1, 1), ones.reshape(1, 1, 1, 1), Window.make(1),
                           bias=zeros, activation=name),
            backend.batch_norm_inference(x[None], ones, zeros, zeros, ones, 0.0, activation=name)]
    for y in results:
        assert largest_error(name, y.reshape(-1), right) < 1


def test_a_sigmoid_is_as_accurate_in_gates(backend: Backend):
    """GLU applies a sigmoid to its second half."""
    layer = xn.GLU().initialize((2,), backend=backend)
    b = np.array([-80, -30, -18, -16, -1, 20], np.float32)
    y = backend.to_numpy(layer.forward(backend.asarray(np.stack([np.ones_like(b), b]))))
    np.testing.assert_allclose(y[0], [1 / (1 + math.exp(-float(v))) for v in b], rtol=1e-6)


def test_the_gates_of_recurrent_cells_have_all_digits(implementation: Backend):
    """Over the whole range of float32, one step with U = 0; a NaN remains one."""
    sizes = np.logspace(-30, np.log10(87), 400)
    z = np.concatenate([-sizes[::-1], [0, np.nan, np.inf, -100], sizes]).astype(np.float32)
    double = z.astype(np.float64)
    with np.errstate(over="ignore"):
        sigmoid, tanh = 1 / (1 + np.exp(-double)), np.tanh(double)
    sigmoid[double == -100] = 0                                             # subnormal
    for cell, rows in (("tanh", [tanh]), ("sigmoid", [sigmoid]),
                       ("lstm", [sigmoid, sigmoid, tanh, sigmoid]),
                       ("gru", [sigmoid, sigmoid, tanh])):
        a = np.tile(z, (len(rows), 1))
        U = np.zeros((len(rows), 1), np.float32)
        states = [np.zeros((1, z.size), np.float32)] * (2 if cell == "lstm" else 1)
        with implementation.scope():
            kept = implementation.scan(cell, implementation.asarray(a), implementation.asarray(U),
                                       [implementation.asarray(s) for s in states], [z.size])[2]
        gates = implementation.to_numpy(kept[len(states)])
        for k, right in enumerate(rows):
            np.testing.assert_allclose(gates[k], right, rtol=1e-6, atol=2e-38, err_msg=cell)
