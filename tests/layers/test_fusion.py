"""Layers that fit and weigh the values that are added: outputs against loops, gradients, errors."""

import math

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn
from xpnet.testing import check_gradients


def expected_weights(w: list[float], rule: str | None) -> list[float]:
    """The factors of the inputs, from the formulas of the docstring."""
    if rule is None:
        return w
    r = [max(v, 0.0) for v in w] if rule == "relu" else [math.exp(v - max(w)) for v in w]
    return [v / (0.0001 + math.fsum(r)) for v in r]


@pytest.mark.parametrize("rule", [None, "relu", "softmax"])
@pytest.mark.parametrize("per_channel", [False, True])
@pytest.mark.parametrize("shape", [(3, 2, 4), (3,)])
def test_weighted_sum(plain_backend, rule, per_channel, shape):
    rng = np.random.default_rng(0)
    layer = xn.WeightedSum(per_channel=per_channel, normalization=rule)
    layer.initialize(*[shape] * 3, backend=plain_backend, dtype="float64")
    layer.w.data = rng.normal(0, 1, layer.w.shape)
    xs = [rng.normal(size=(*shape, 2)) for _ in range(3)]
    y = plain_backend.to_numpy(layer.forward(*map(plain_backend.asarray, xs)))
    w = plain_backend.to_numpy(layer.w.data)
    for at in np.ndindex(y.shape):
        own = w[:, at[0]] if per_channel else w
        factors = expected_weights([float(v) for v in own], rule)
        assert_close(y[at], math.fsum(a * x[at] for a, x in zip(factors, xs)))


@pytest.mark.parametrize("rule", [None, "relu", "softmax"])
@pytest.mark.parametrize("per_channel", [False, True])
def test_gradients_of_a_weighted_sum(plain_backend, rule, per_channel):
    layer = xn.WeightedSum(per_channel=per_channel, normalization=rule)
    check_gradients(layer, *[(3, 2, 2)] * 3, backend=plain_backend)


def test_weights_below_0_have_no_gradient_with_relu():
    layer = xn.WeightedSum(normalization="relu").initialize((2,), (2,), backend="numpy",
                                                            dtype="float64")
    layer.w.data = [-1.0, 2.0]
    x = np.array([[1.0], [3.0]])
    np.testing.assert_allclose(layer.forward(x, -x, mode="train"), -x * 2 / 2.0001)
    dx, other = layer.backward(np.ones((2, 1)))
    assert (dx == 0).all() and (other > 0.99).all()
    assert layer.w.grad[0] == 0 and layer.w.grad[1] != 0


def test_channels_of_zeros(plain_backend):
    layer = xn.PadChannels(5).initialize((2, 3, 2), backend=plain_backend, dtype="float64")
    x = np.random.default_rng(0).normal(size=(2, 3, 2, 4))
    y = plain_backend.to_numpy(layer.forward(plain_backend.asarray(x), mode="train"))
    assert np.array_equal(y[:2], x) and y.shape == (5, 3, 2, 4) and not y[2:].any()
    dx = layer.backward(plain_backend.asarray(np.arange(120.0).reshape(5, 3, 2, 4)))
    assert np.array_equal(plain_backend.to_numpy(dx), np.arange(48.0).reshape(2, 3, 2, 4))
    same = xn.PadChannels(2).initialize((2, 2), backend=plain_backend, dtype="float64")
    assert np.array_equal(plain_backend.to_numpy(same.forward(plain_backend.asarray(x[:, 0]))),
                          x[:, 0])


def test_refusals():
    with pytest.raises(ValueError, match="expected two or more inputs of one shape"):
        xn.WeightedSum().initialize((2, 3), backend="numpy")
    with pytest.raises(ValueError, match="inputs of one shape. Received: .*, "):
        xn.WeightedSum().initialize((2, 3), (3, 2), backend="numpy")
    with pytest.raises(ValueError, match="expected an input of at most 2 channels"):
        xn.PadChannels(2).initialize((3, 4), backend="numpy")
