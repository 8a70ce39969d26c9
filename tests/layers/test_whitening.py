"""Whitening: the covariance of its output, saving it in a network, and errors."""

import math

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn
from xpnet.testing import check_gradients


def correlated(samples, shape, seed=0):
    """Data (S, *shape) whose features are correlated, with a mean near 3."""
    rng = np.random.default_rng(seed)
    D = math.prod(shape)
    return (rng.standard_normal((samples, D)) @ rng.standard_normal((D, D)) + 3).reshape(
        samples, *shape)


def fitted(backend, x, dtype="float64", **settings):
    layer = xn.Whitening(**settings).initialize(x.shape[1:], backend=backend, dtype=dtype)
    assert layer.fit(x) is layer
    y = backend.to_numpy(layer.forward(backend.asarray(np.moveaxis(x, 0, -1).copy(), dtype)))
    return layer, y


@pytest.mark.parametrize("method, components", [("zca", None), ("pca", None), ("pca", 5)])
@pytest.mark.parametrize("dtype, exact", [("float64", 1e-9), ("float32", 1e-3)])
def test_the_output_has_mean_0_and_covariance_1(backend, method, components, dtype, exact):
    x = correlated(60, (2, 2, 3))
    layer, y = fitted(backend, x, dtype, method=method, components=components, eps=0)
    assert y.dtype == dtype and y.shape == ((2, 2, 3, 60) if method == "zca"
                                            else (components or 12, 60))
    y = y.reshape(-1, 60)
    np.testing.assert_allclose(y.mean(axis=1), 0, atol=exact)
    np.testing.assert_allclose(np.cov(y), np.eye(len(y)), atol=exact)


def test_zca_is_the_symmetric_one(backend):
    """W is symmetric and positive, and its square the inverse of the covariance (plus eps)."""
    x = correlated(40, (6,))
    layer, y = fitted(backend, x, eps=0.1)
    W = backend.to_numpy(layer.W.data)
    assert_close(W, W.T)
    assert np.linalg.eigvalsh(W).min() > 0
    assert_close(np.linalg.inv(W @ W), np.cov(x.T) + 0.1 * np.eye(6), scale=100)
    assert_close(y, W @ (x - x.mean(axis=0)).T, scale=10)


def test_pca_takes_the_directions_in_order(backend):
    """For uncorrelated features the result is known: the axis with the largest variance comes
    first."""
    rng = np.random.default_rng(1)
    x = np.linalg.qr(rng.standard_normal((50, 4)) - 0.5)[0]
    x -= x.mean(axis=0)
    x = np.linalg.qr(x)[0] * [1.0, 3.0, 0.5, 2.0]           # uncorrelated, mean 0
    _, y = fitted(backend, x, method="pca", components=2, eps=0)
    expected = 7 * np.stack([x[:, 1] / 3.0, x[:, 3] / 2.0])
    assert_close(np.abs(y), np.abs(expected), scale=100)


def test_truncated_zca_keeps_the_first_directions(backend):
    x = correlated(40, (5,))
    layer, _ = fitted(backend, x, components=2)
    assert layer.out_shape == (5,)
    assert np.linalg.matrix_rank(backend.to_numpy(layer.W.data)) == 2


def test_data_of_more_than_one_block(backend, monkeypatch):
    x = correlated(25, (4,))
    whole, _ = fitted(backend, x)
    monkeypatch.setattr("xpnet.layers.preprocessing.SAMPLES", 10)
    parts, _ = fitted(backend, x)
    assert_close(backend.to_numpy(parts.W.data), backend.to_numpy(whole.W.data))


def test_integers_are_accepted(backend):
    x = np.random.default_rng(0).integers(0, 256, (30, 1, 2, 2), np.uint8)
    _, y = fitted(backend, x, eps=0)
    np.testing.assert_allclose(np.cov(y.reshape(4, 30)), np.eye(4), atol=1e-9)


def test_before_fit_it_changes_nothing(backend):
    x = np.random.default_rng(0).standard_normal((2, 3, 2, 4))
    layer = xn.Whitening().initialize((2, 3, 2), backend=backend, dtype="float64")
    assert_close(backend.to_numpy(layer.forward(backend.asarray(x))), x)
    layer = xn.Whitening("pca", components=5).initialize(
        (2, 3, 2), backend=backend, dtype="float64")
    assert_close(backend.to_numpy(layer.forward(backend.asarray(x))), x.reshape(12, 4)[:5])


@pytest.mark.parametrize("settings, shape",
                         [(dict(), (2, 3, 2)), (dict(method="pca", components=3), (2, 3, 2)),
                                             (dict(method="pca"), (5,))], ids=str)
def test_gradients(backend, settings, shape):
    class Fitted(xn.Whitening):
        def initialize(self, *in_shapes, **options):
            return super().initialize(*in_shapes, **options).fit(correlated(30, shape))

    check_gradients(Fitted(**settings), shape, backend=backend)


def test_a_network_keeps_what_was_fitted(tmp_path):
    x = correlated(30, (1, 3, 3)).astype(np.float32)
    net = xn.Sequential([xn.Whitening(), xn.Flatten(), xn.Linear(2)], input_shape=(1, 3, 3),
                        backend="numpy")
    net.layers[0].fit(x)
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    np.testing.assert_array_equal(net.predict(x), again.predict(x))
    assert again.layers[0].config() == net.layers[0].config()
    assert not np.allclose(net.backend.to_numpy(again.layers[0].W.data), np.eye(9))


def test_errors():
    who = "Whitening 'w': expected"
    with pytest.raises(ValueError,
                       match=f'{who} method to be \'zca\' or \'pca\'. Received: method=\'ica\''):
        xn.Whitening("ica", name="w")
    with pytest.raises(ValueError, match=f"{who} eps to be a number, 0 or larger"):
        xn.Whitening(eps=-1, name="w")
    with pytest.raises(ValueError, match=f"{who} components to be an int, 1 or larger"):
        xn.Whitening(components=0, name="w")
    with pytest.raises(
            ValueError,
            match=f"{who} at most 4 components, one for each feature. Received: components=5"):
        xn.Whitening(components=5, name="w").initialize((4,))
    with pytest.raises(ValueError, match=f"{who} to be in a network before fit"):
        xn.Whitening(name="w").fit(np.zeros((5, 4)))
    layer = xn.Whitening(name="w", eps=0).initialize((4,))
    for x in (np.zeros((5, 3)), np.zeros((1, 4)), np.zeros(4)):
        with pytest.raises(
                ValueError,
                match=rf"{who} at least 2 samples of shape \(S, 4\)\. Received: shape \({len(x)},"):
            layer.fit(x)
    with pytest.raises(ValueError, match="Whitening 'w': expected finite numbers"):
        layer.fit(np.full((5, 4), np.nan))
    x = correlated(3, (4,))                                 # three samples vary in two directions
    with pytest.raises(
            ValueError,
            match=f"{who} data that vary in every direction, or eps above 0, or fewer components"):
        layer.fit(x)
    xn.Whitening("pca", components=2, eps=0).initialize((4,)).fit(x)
