"""Every layer across settings, on every backend: backward against finite differences, float32
against float64."""

import numpy as np
import pytest

import xpnet as xn
from xpnet.testing import check_gradients, check_precision

# fused, or computed in a separate pass, from the output or from the input
ACTIVATIONS = ["relu", "sigmoid", "tanh", "scaled_tanh", "softplus", "gelu"]


def check(layer, *in_shapes, backend, **options):
    # most kernels are for float32; a GPU adds in another order
    bound = 1e-6 if backend.xp is np else 2e-6
    assert check_precision(layer, *in_shapes, backend=backend, **options) < bound
    assert check_gradients(layer, *in_shapes, backend=backend, **options) < 1e-6


def spaced(*shape):
    """Distinct values 0.1 apart, none closer than 0.05 to 0, in random order: no step of 1e-5
    crosses a kink."""
    n = np.prod(shape)
    values = 0.1 * (np.arange(n) - n // 2) + 0.05
    return np.random.default_rng(0).permutation(values).reshape(shape)


# --- convolution ----------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [
    {},
    {"stride": 2},
    {"stride": (3, 1)},
    {"padding": "half"},
    {"padding": "full"},
    {"padding": (1, 2)},
    {"padding": (0, 2, 1, 0)},
    {"dilation": (2, 1)},
    {"dilation": 2, "padding": "half", "stride": 2},
    {"groups": 2},
    {"groups": 4, "stride": 2, "padding": 1},           # depthwise, one filter for each channel
    {"bias": False},
    {"bias": False, "activation": "tanh", "groups": 2},
    {"padding": (2, 0, 0, 1), "stride": (2, 3), "dilation": (1, 2), "groups": 4,
     "activation": "sigmoid"},
], ids=str)
def test_conv2d(backend, settings):
    check(xn.Conv2d(8, 3, **settings), (4, 7, 8), backend=backend)


@pytest.mark.parametrize("kernel, settings", [
    (1, {}), (1, {"stride": 2}), (1, {"groups": 2}), (1, {"activation": "tanh"}), ((1, 4), {}),
    ((4, 1), {"padding": "half"}),
    ((7, 8), {}), ((2, 3), {"padding": "full", "stride": 2}),
], ids=str)
def test_conv2d_kernels(backend, kernel, settings):
    check(xn.Conv2d(6, kernel, **settings), (4, 7, 8), backend=backend)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_fused_activations(backend, activation):
    check(xn.Conv2d(4, 3, activation=activation), (2, 6, 5), backend=backend)
    check(xn.TableConv2d([[0], [0, 1]], 3, activation=activation), (2, 6, 5), backend=backend)
    check(xn.Linear(5, activation=activation), (7,), backend=backend)
    check(xn.Linear(5, activation=activation, bias=False), (7,), backend=backend)
    check(xn.BatchNorm2d(activation=activation), (3, 4, 5), backend=backend)
    check(xn.Subsampling2d(2, activation=activation), (3, 5, 4), backend=backend)


@pytest.mark.parametrize("settings", [
    {}, {"stride": 2}, {"padding": "full"}, {"padding": (0, 1, 2, 0), "stride": (1, 2)},
], ids=str)
def test_table_conv2d(backend, settings):
    check(xn.TableConv2d([[0, 1, 2], [2], [1, 3], [0, 1, 2, 3]], 3, **settings), (4, 6, 7),
          backend=backend)


# --- pooling --------------------------------------------------------------------------------------

@pytest.mark.parametrize("kernel, settings", [
    (2, {}), ((3, 2), {"stride": 1}), (3, {"stride": 2, "padding": 1}), (2, {"stride": 3}),
    (2, {"dilation": 2, "stride": 1}),
    (3, {"stride": 2, "padding": (2, 0, 1, 2)}), (3, {"stride": 2, "ceil_mode": True}),
    (3, {"padding": "full", "stride": 1}),
    (1, {"stride": 2}), ((7, 8), {}),
], ids=str)
def test_max_pool2d(backend, kernel, settings):
    check(xn.MaxPool2d(kernel, **settings), (2, 7, 8), backend=backend,
          inputs=(spaced(2, 7, 8, 3),))


@pytest.mark.parametrize("inside", [True, False])
@pytest.mark.parametrize("kernel, settings", [
    (2, {}), ((3, 2), {"stride": 1}), (3, {"stride": 2, "padding": 1}), (2, {"stride": 3}),
    (3, {"padding": "full", "stride": 1}),
    (3, {"stride": (2, 1), "padding": (2, 0, 1, 2)}), ((7, 8), {}),
], ids=str)
def test_avg_pool2d(backend, kernel, settings, inside):
    check(xn.AvgPool2d(kernel, **settings, count_include_pad=not inside), (2, 7, 8),
          backend=backend)


@pytest.mark.parametrize("shape", [(2, 7, 8), (3, 1, 1), (1, 1, 5)])
def test_global_avg_pool2d(backend, shape):
    check(xn.GlobalAvgPool2d(), shape, backend=backend)


@pytest.mark.parametrize("kernel", [1, 2, (3, 2)])
def test_subsampling2d(backend, kernel):
    check(xn.Subsampling2d(kernel), (3, 7, 5), backend=backend)


# --- the others -----------------------------------------------------------------------------------

@pytest.mark.parametrize("settings", [{}, {"bias": False}], ids=str)
@pytest.mark.parametrize("batch", [1, 4])
def test_linear(backend, settings, batch):
    check(xn.Linear(5, **settings), (7,), backend=backend, batch=batch)
    check(xn.Linear(1, **settings), (1,), backend=backend, batch=batch)


@pytest.mark.parametrize("shape, batch", [((3, 4, 5), 3), ((1, 2, 2), 1), ((4, 1, 1), 6)])
@pytest.mark.parametrize("eps", [1e-5, 0.1])
def test_batch_norm2d(backend, shape, batch, eps):
    check(xn.BatchNorm2d(eps=eps), shape, backend=backend, batch=batch)


@pytest.mark.parametrize("shape", [(5,), (3, 4, 2)])
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_activations(backend, activation, shape):
    check(xn.Activation(activation), shape, backend=backend, inputs=(spaced(*shape, 3),))


@pytest.mark.parametrize("make", [xn.ReLU, xn.Sigmoid, xn.Tanh, xn.ScaledTanh])
def test_activation_classes(backend, make):
    check(make(), (4, 3), backend=backend, inputs=(spaced(4, 3, 2),))


def test_rbf(backend):
    check(xn.RBF([[1, -1, 0.5], [-1, 1, 1], [2, 0, 0], [0, 0, 0]]), (3,), backend=backend)


@pytest.mark.parametrize("shape", [(5,), (2,), (4, 3, 2)])
def test_softmax(backend, shape):
    check(xn.Softmax(), shape, backend=backend)


@pytest.mark.parametrize("p", [0.0, 0.3, 0.8])
def test_dropout(backend, p):
    check(xn.Dropout(p), (4, 3, 2), backend=backend)


def test_flatten(backend):
    check(xn.Flatten(), (4, 3, 2), backend=backend)


@pytest.mark.parametrize("count", [2, 3])
def test_add(backend, count):
    check(xn.Add(), *count * [(4, 3, 2)], backend=backend)


def test_concat(backend):
    check(xn.Concat(), (4, 3, 2), (1, 3, 2), (2, 3, 2), backend=backend)
    check(xn.Concat(), (4,), (1,), backend=backend)
