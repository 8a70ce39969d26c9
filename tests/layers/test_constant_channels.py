"""Constant data: constant channels become 0, and a sample of zeros has no gradient."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpnet as xn
from xpnet import TRAIN, Backend
from xpnet import functional as F

DTYPES = ["float32", "float64"]
VALUES = [1e7 / 3, 100.1, -0.3, 1e-7, 3e12]
# The channels of the last shape are so long that the Numba backend splits them.
SHAPES = [(5, 7, 7, 3), (5, 3, 3, 1), (5, 64, 33, 5), (5, 131, 1009, 1)]


def constant(shape: tuple[int, ...], dtype: str) -> np.ndarray:
    """x (C, ..., N): every channel has one of VALUES."""
    values = np.array(VALUES, dtype).reshape(-1, *(1,) * (len(shape) - 1))
    return np.broadcast_to(values, shape).copy()


def on(backend: Backend, *arrays: np.ndarray) -> list[np.ndarray]:
    return [backend.asarray(a) for a in arrays]


def on_a_cpu(backend: Backend) -> None:
    if backend.xp is not np:
        pytest.skip("a GPU merges means in the type of x: exact for equal elements only")


# --- batch norm ----------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", SHAPES, ids=str)
def test_a_constant_channel_becomes_beta(backend, shape, dtype):
    x, gamma, beta = constant(shape, dtype), np.full(5, 3, dtype), np.arange(5).astype(dtype)
    for activation in (None, "relu", "tanh"):
        results = backend.batch_norm(*on(backend, x, gamma, beta), 1e-5, activation=activation)
        y, mean, var = map(backend.to_numpy, results)
        assert (mean == x.reshape(5, -1)[:, 0]).all() and not var.any()
        expected = np.tanh(beta) if activation == "tanh" else beta
        assert abs(y.reshape(5, -1) - expected[:, None]).max() <= 1e-6


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("units", [3, 50, 1000])
def test_the_mean_of_nearly_equal_elements_is_rounded_once(backend, units, dtype):
    """Elements that differ by a few units in the last place: an error of several units in the mean
    would be large."""
    on_a_cpu(backend)
    rng = np.random.default_rng(0)
    unit = np.spacing(np.array(1e7 / 3, dtype))
    x = (np.array(1e7 / 3, dtype) + unit * rng.integers(0, units, (3, 9, 9, 50))).astype(dtype)
    one, zero = np.ones(3, dtype), np.zeros(3, dtype)
    y, mean, var = map(backend.to_numpy, backend.batch_norm(*on(backend, x, one, zero), 1e-30))
    for c in range(3):
        steps = ((x[c] - x[c].min()) / unit).astype(np.float64).ravel()     # whole numbers
        right = math.fsum(steps) / steps.size
        assert abs(float((mean[c] - x[c].min()) / unit) - right) <= 0.51
        about = ((mean[c] - x[c].min()) / unit).astype(np.float64)
        right = np.mean((steps - about) ** 2)
        np.testing.assert_allclose(var[c] / float(unit) ** 2, right, rtol=1e-4)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("ratio", [0.1, 0.9, 1.1, 10])
def test_both_sides_of_the_correction_of_the_mean(backend, ratio, dtype):
    """Deviations near 4096 units in the mean's last place: below this, the NumPy backend corrects
    the mean."""
    on_a_cpu(backend)
    rng, gap = np.random.default_rng(1), 4096 * np.finfo(dtype).eps
    x = (1 + ratio * gap * rng.standard_normal((2, 5, 5, 100))).astype(dtype)
    one, zero = np.ones(2, dtype), np.zeros(2, dtype)
    y, mean, _ = map(backend.to_numpy, backend.batch_norm(*on(backend, x, one, zero), 1e-40))
    far = (x - 1).astype(np.float64).reshape(2, -1)                             # exact: x is near 1
    centred = far - far.mean(axis=1, keepdims=True)
    right = centred / centred.std(axis=1, keepdims=True)
    np.testing.assert_allclose(y.reshape(2, -1), right, atol=5e-3)
    assert (abs(mean - 1 - far.mean(axis=1)) <= 4 * np.finfo(dtype).eps).all()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("momentum", [0.1, None])
def test_running_statistics_reach_a_constant_channel(backend, momentum, dtype):
    """The running variance goes to 0, so that a remaining error of the running mean would be
    amplified."""
    layer = xn.BatchNorm2d(momentum=momentum).initialize((5, 2, 2), backend=backend, dtype=dtype)
    x = backend.asarray(constant((5, 2, 2, 3), dtype))
    for _ in range(500):
        layer.forward(x, mode=TRAIN)
    assert (backend.to_numpy(layer.mean.data) == np.array(VALUES, dtype)).all()
    assert not backend.to_numpy(layer.forward(x)).any()


def test_a_momentum_of_0_keeps_the_running_mean(backend):
    layer = xn.BatchNorm2d(momentum=0).initialize((5, 2, 2), backend=backend)
    layer.forward(backend.asarray(constant((5, 2, 2, 3), "float32")), mode=TRAIN)
    assert not backend.to_numpy(layer.mean.data).any()


@pytest.mark.parametrize("dtype", DTYPES)
def test_batch_norm_as_a_function(backend, dtype):
    x = np.moveaxis(constant((5, 2, 2, 37), dtype), -1, 0).copy()
    one, zero = np.ones(5, dtype), np.zeros(5, dtype)
    y, mean, var = F.batch_norm(*on(backend, x, one, zero), backend=backend)
    assert not backend.to_numpy(y).any() and not backend.to_numpy(var).any()


# --- other normalisations -------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("make", [lambda: xn.LayerNorm(affine=False), xn.InstanceNorm2d,
                                  lambda: xn.GroupNorm(2, affine=False)])
def test_a_constant_sample_becomes_0(backend, make, value, dtype):
    layer = make().initialize((4, 13, 17), backend=backend, dtype=dtype)
    y = layer.forward(backend.asarray(np.full((4, 13, 17, 3), value, dtype)))
    np.testing.assert_allclose(backend.to_numpy(y), 0, atol=1e-12)


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("make", [xn.SubtractiveNorm2d, xn.ContrastNorm2d])
def test_a_flat_image_becomes_0(backend, make, value, dtype):
    layer = make(5).initialize((2, 13, 17), backend=backend, dtype=dtype)
    y = layer.forward(backend.asarray(np.full((2, 13, 17, 3), value, dtype)))
    np.testing.assert_allclose(backend.to_numpy(y), 0, atol=1e-6)


@pytest.mark.parametrize("method", ["zca", "pca"])
@pytest.mark.parametrize("dtype", DTYPES)
def test_whitening_of_constant_features(backend, method, dtype):
    net = xn.Sequential([xn.Whitening(method)], input_shape=(5,), backend=backend, dtype=dtype)
    x = constant((5, 301), dtype).T.copy()
    net.layers[0].fit(x)
    np.testing.assert_allclose(np.asarray(net.predict(x)), 0, atol=1e-12)


# --- blank samples -------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("axis", [0, 1, None])
@pytest.mark.parametrize("make", [xn.L1Norm, xn.L2Norm, lambda axis: xn.LpNormalize(3, axis=axis),
                                  lambda axis: xn.RMSNorm(axis=axis, affine=False)],
                         ids=["L1", "L2", "L3", "RMS"])
def test_a_blank_sample_has_no_gradient(backend, make, axis, dtype):
    rng = np.random.default_rng(0)
    x, dy = (rng.standard_normal((3, 4, 5)).astype(dtype) for _ in range(2))
    x[..., 2] = 0
    layer = make(axis=axis).initialize((3, 4), backend=backend, dtype=dtype)
    y = backend.to_numpy(layer.forward(backend.asarray(x), mode=TRAIN))
    dx = backend.to_numpy(layer.backward(backend.asarray(dy)))
    assert not y[..., 2].any() and not dx[..., 2].any() and dx.dtype == dtype
    others = [0, 1, 3, 4]
    alone = make(axis=axis).initialize((3, 4), backend=backend, dtype=dtype)
    alone.forward(backend.asarray(x[..., others].copy()), mode=TRAIN)
    right = backend.to_numpy(alone.backward(backend.asarray(dy[..., others].copy())))
    np.testing.assert_allclose(dx[..., others], right, rtol=1e-6)
    assert (right != 0).all()


@pytest.mark.parametrize("make", [xn.L1Norm, xn.L2Norm, xn.RMSNorm])
def test_a_sample_with_a_nan_is_not_blank(backend, make):
    layer = make().initialize((3,), backend=backend)
    layer.forward(backend.asarray(np.full((3, 2), np.nan, np.float32)), mode=TRAIN)
    dx = layer.backward(backend.asarray(np.ones((3, 2), np.float32)))
    assert np.isnan(backend.to_numpy(dx)).all()


@pytest.mark.parametrize("make", [xn.L1Norm, xn.L2Norm])
def test_a_network_with_a_blank_sample_learns(backend, make):
    x = np.random.default_rng(0).standard_normal((16, 6)).astype(np.float32)
    x[3] = 0
    net = xn.Sequential([xn.Linear(8), make(), xn.Linear(2)], input_shape=(6,), backend=backend)
    before = np.array(backend.to_numpy(net.parameters))
    net.fit(x, np.arange(16) % 2, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=3,
            verbose=False)
    assert np.abs(backend.to_numpy(net.parameters) - before).max() < 10


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("p", [1, 1.5, 2, 3])
def test_lp_pooling_of_zeros_has_no_gradient(backend, p, dtype):
    layer = xn.LpPool2d(2, p).initialize((2, 4, 4), backend=backend, dtype=dtype)
    layer.forward(backend.asarray(np.zeros((2, 4, 4, 3), dtype)), mode=TRAIN)
    assert not backend.to_numpy(layer.backward(backend.asarray(np.ones((2, 2, 2, 3), dtype)))).any()


# --- what is not finite --------------------------------------------------------------------------

@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("at", [0, 40])
def test_a_channel_with_an_infinity_has_an_infinite_mean(backend, value, at):
    """As in a plain sum, wherever the infinity is, although its differences are NaN."""
    on_a_cpu(backend)
    x = np.random.default_rng(0).standard_normal((2, 3, 7, 11)).astype(np.float32)
    x.reshape(2, -1)[1, at] = value
    with np.errstate(invalid="ignore"):
        results = backend.batch_norm(*on(backend, x, np.ones(2, "f4"), np.zeros(2, "f4")), 1e-5)
    y, mean, _ = map(backend.to_numpy, results)
    np.testing.assert_array_equal(mean[1], value)
    assert np.isfinite(y[0]).all() and np.isnan(y[1]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_in_subtractive_norm_an_infinity_stays_within_the_windows_that_contain_it(backend, value):
    layer = xn.SubtractiveNorm2d(3).initialize((1, 9, 9), backend=backend)
    x = np.random.default_rng(0).standard_normal((1, 9, 9, 2)).astype(np.float32)
    x[0, 4, 4, 1] = value
    with np.errstate(invalid="ignore"):
        y = backend.to_numpy(layer.forward(backend.asarray(x)))
    finite = np.isfinite(y)
    assert finite[..., 0].all() and finite[0, :3, :, 1].all() and not finite[0, 3:6, 3:6, 1].any()
