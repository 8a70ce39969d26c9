"""Batch norms folded into the layers before them."""

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def with_random_values(net):
    """Change every parameter and statistic of the network, so that none has its initial value."""
    rng = np.random.default_rng(5)
    with net.backend.scope():
        net.parameters += net.backend.asarray(0.3 * rng.standard_normal(net.parameters.shape),
                                              net.dtype)
        net.state += net.backend.asarray(rng.uniform(0.1, 2, net.state.shape), net.dtype)
    return net


def convolutions(backend="numpy", dtype="float64"):
    return with_random_values(xn.Sequential([
        xn.Conv2d(6, 3, padding=1, groups=2, name="first"), xn.BatchNorm2d(activation="relu"),
        xn.TrueConv2d(4, 2, bias=False),
        xn.BatchNorm2d(eps=0.1), xn.Activation("tanh"), xn.DepthwiseConv2d(3, depth_multiplier=2),
        xn.BatchNorm2d(),
        xn.SeparableConv2d(4, 2), xn.BatchNorm2d(activation="tanh"),
        xn.ConvTranspose2d(6, 3, stride=2, groups=2),
        xn.BatchNorm2d(), xn.Flatten(), xn.Linear(5), xn.BatchNorm1d(activation="sigmoid"),
        xn.Linear(3),
    ], input_shape=(4, 8, 7), backend=backend, dtype=dtype))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_folded_network_predicts_the_same(backend, dtype, tmp_path):
    net = convolutions(backend, dtype)
    x, before = normal((5, 4, 8, 7), dtype), net.backend.to_numpy(net.parameters).copy()
    folded = net.folded()
    assert [type(layer) for layer in folded.layers] == [
        type(layer) for layer in net.layers if "Norm" not in type(layer).__name__]
    assert (folded.layers[0].name == "first" and folded.layers[0].activation == "relu"
            and folded.dtype == net.dtype)
    assert_close(folded.predict(x), net.predict(x), scale=10)
    np.testing.assert_array_equal(net.backend.to_numpy(net.parameters), before)
    assert sum(isinstance(layer, xn.BatchNorm2d) for layer in net.layers) == 5
    folded.save(tmp_path / "folded.safetensors")
    loaded = xn.load(tmp_path / "folded.safetensors", backend=net.backend)
    np.testing.assert_array_equal(loaded.predict(x), folded.predict(x))


def test_a_bias_map_is_folded():
    """b[f, y, x] is scaled and shifted with the batch norm of its filter."""
    net = with_random_values(xn.Sequential([
        xn.Conv2d(3, 3, bias="map"), xn.BatchNorm2d(activation="tanh"),
        xn.ConvTranspose2d(2, 2, stride=2, bias="map"), xn.BatchNorm2d(),
        xn.SeparableConv2d(3, 2, bias="map"), xn.BatchNorm2d(),
    ], input_shape=(2, 6, 5), backend="numpy", dtype="float64"))
    folded, x = net.folded(), normal((4, 2, 6, 5))
    assert [layer.bias for layer in folded.layers] == ["map"] * 3
    assert_close(folded.predict(x), net.predict(x), scale=10)


def test_other_batch_norms_are_kept():
    """A batch norm before the weights, after an activation, or of a value that is used twice."""
    x = xn.Input((2, 6, 6))
    h = xn.Conv2d(3, 3, activation="relu", name="bent")(xn.BatchNorm2d(name="before")(x))
    twice = xn.Conv2d(3, 1, name="twice")(xn.BatchNorm2d(name="behind")(h))
    once = xn.Conv2d(3, 1, name="once")(twice)
    y = xn.Add()(xn.BatchNorm2d(name="one of two")(twice), xn.BatchNorm2d(name="gone")(once))
    net = with_random_values(xn.Network(x, y, backend="numpy", dtype="float64"))
    folded = net.folded()
    assert ({layer.name for layer in net.layers} - {layer.name for layer in folded.layers}
            == {"gone"})
    pictures = normal((4, 2, 6, 6))
    assert_close(folded.predict(pictures), net.predict(pictures))


def test_a_network_without_batch_norm_is_copied():
    net = with_random_values(xn.Sequential([xn.Linear(4, bias=False), xn.RBF([[1, 0, 1, 0]])],
                                   input_shape=(3,), backend="numpy"))
    folded = net.folded()
    x = normal((4, 3))
    np.testing.assert_array_equal(folded.predict(x), net.predict(x))
    folded.parameters[...] = 0
    assert net.parameters.any()
