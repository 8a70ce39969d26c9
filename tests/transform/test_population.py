"""Population statistics: batch norms with the statistics of a whole data set."""

import re

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn
from tests.layers.test_constant_channels import DTYPES, constant


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(layer, x, mode="predict"):
    return layer.backend.to_numpy(layer.forward(layer.backend.asarray(x), mode=mode))


def two_norms(backend="numpy", dtype="float64"):
    return xn.Sequential([xn.Conv2d(3, 3, bias=False), xn.BatchNorm2d(), xn.Activation("tanh"),
                          xn.Dropout(0.4), xn.Flatten(),
                          xn.Linear(4), xn.BatchNorm1d(), xn.Linear(2)], input_shape=(2, 5, 5),
                         backend=backend, dtype=dtype)


def test_with_equal_batches_they_are_those_of_the_paper(backend):
    """E[mean_B] and m / (m - 1) E[var_B], for each layer after layers that use the statistics of
    the batch."""
    net = two_norms(backend)
    before = net.backend.to_numpy(net.parameters).copy()
    x = 2 + normal((12, 2, 5, 5))
    assert net.population_statistics(x, batch_size=4) is net
    conv, norm, _, _, _, linear, last, _ = net.layers
    means, variances = {norm: [], last: []}, {norm: [], last: []}
    for start in (0, 4, 8):
        z = forward(conv, np.moveaxis(x[start:start + 4], 0, -1).copy())
        mean, var = z.mean(axis=(1, 2, 3)), z.var(axis=(1, 2, 3))
        means[norm].append(mean), variances[norm].append(var)
        mean, var = (a.reshape(3, 1, 1, 1) for a in (mean, var))
        h = np.tanh((z - mean) / np.sqrt(var + 1e-5)).reshape(-1, 4)    # without dropout
        z = backend.to_numpy(linear.W.data) @ h
        means[last].append(z.mean(axis=1)), variances[last].append(z.var(axis=1))
    for layer, m in ((norm, 4 * 9), (last, 4)):
        np.testing.assert_allclose(backend.to_numpy(layer.mean.data), np.mean(means[layer], axis=0),
                                   rtol=1e-9, atol=1e-12)
        np.testing.assert_allclose(backend.to_numpy(layer.var.data),
                                   m / (m - 1) * np.mean(variances[layer], axis=0), rtol=1e-9)
    np.testing.assert_array_equal(net.backend.to_numpy(net.parameters), before)


def test_a_smaller_last_batch(backend):
    """The mean is that of all samples, the variance the pooled one: unbiased, whatever the sizes of
    the batches."""
    net = xn.Sequential([xn.BatchNorm1d()], input_shape=(3,), backend=backend, dtype="float64")
    x = normal((11, 3))
    net.population_statistics(x, batch_size=4)
    layer, batches = net.layers[0], (x[:4], x[4:8], x[8:])
    assert_close(backend.to_numpy(layer.mean.data), x.mean(axis=0))
    assert_close(backend.to_numpy(layer.var.data),
                 sum(((b - b.mean(axis=0)) ** 2).sum(axis=0) for b in batches) / (11 - 3))
    net.population_statistics(x)  # one batch: the statistics of the samples
    assert_close(backend.to_numpy(layer.var.data), x.var(axis=0, ddof=1))


@pytest.mark.parametrize("dtype", DTYPES)
def test_a_constant_channel(backend, dtype):
    net = xn.Sequential([xn.BatchNorm2d()], input_shape=(5, 2, 2), backend=backend, dtype=dtype)
    x = np.moveaxis(constant((5, 2, 2, 37), dtype), -1, 0)
    net.population_statistics(x, batch_size=10)
    assert not np.asarray(net.predict(x)).any()


def test_frozen_layers_are_not_changed():
    net = two_norms()
    net.layers[1].trainable = False
    net.population_statistics(normal((6, 2, 5, 5)))
    assert not net.layers[1].mean.data.any() and net.layers[6].mean.data.any()


@pytest.mark.parametrize("net, x, options, text", [
    (lambda: xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy"), np.zeros((4, 3)),
     {}, "population_statistics: expected a network with a trainable batch norm. Received: none."),
    (two_norms, np.zeros((4, 3)), {},
     "Network: expected input of shape (N, 2, 5, 5). Received: shape (4, 3)."),
    (two_norms, np.full((4, 2, 5, 5), np.nan), {},
     "population_statistics: expected finite samples. Received: NaN or infinity"),
    (two_norms, np.zeros((4, 2, 5, 5)), {"batch_size": 0},
     "population_statistics: expected batch_size to be an int"),
    (two_norms, np.zeros((4, 2, 5, 5)), {"batch_size": 3},
     "BatchNorm1d 'bn2': expected batches of at least 2 in training"),
], ids=lambda value: value[:30] if isinstance(value, str) else "")
def test_refusals(net, x, options, text):
    net = net()
    state = net.state.copy()
    with pytest.raises(ValueError, match=re.escape(text)):
        net.population_statistics(x, **options)
    np.testing.assert_array_equal(net.state, state)
