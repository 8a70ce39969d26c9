"""Embedding: against products with one-hot columns, in training, and what is no token."""

import numpy as np
import pytest
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn


def one_hot(tokens, count):
    return (np.arange(count).reshape(-1, *(1,) * tokens.ndim) == tokens).astype(float)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_it_is_a_product_with_one_hot_columns(backend, dtype, shape):
    layer = initialized(xn.Embedding(5, 3), shape, backend=backend, dtype=dtype)
    rng = np.random.default_rng(0)
    x, dy = rng.integers(0, 4, (*shape, 4)), rng.standard_normal((3, *shape, 4)).astype(dtype)
    W, hot = backend.to_numpy(layer.W.data).copy(), one_hot(x, 5)
    y = layer.forward(backend.asarray(x, dtype), mode=xn.TRAIN)
    assert_close(backend.to_numpy(y), np.tensordot(W.T, hot, 1))
    layer.W.grad[...] = 7.0                                 # is overwritten, also for token 4
    layer.needs_dx = False
    assert layer.backward(backend.asarray(dy)) is None
    dW = backend.to_numpy(layer.W.grad).copy()
    assert_close(dW, hot.reshape(5, -1) @ dy.reshape(3, -1).T.astype(float), scale=4)
    assert not dW[4].any()
    layer.forward(backend.asarray(x, dtype), mode=xn.TRAIN)
    layer.backward(backend.asarray(dy), accumulate=True)
    assert_close(backend.to_numpy(layer.W.grad), 2 * dW)


def test_the_first_vectors_have_the_variance_1():
    W = xn.Embedding(200, 100).initialize((1,)).W.data
    assert abs(W.mean()) < 0.02 and abs(W.var() - 1) < 0.02


def test_networks_of_tokens_train_from_integers(backend):
    """The sum of two digits' parities, from integers of any type."""
    rng = np.random.default_rng(0)
    x = rng.integers(0, 10, (64, 2))
    y = (x % 2).sum(axis=1)
    net = xn.Sequential([xn.Embedding(10, 4), xn.Flatten(), xn.Linear(16, activation="tanh"),
                         xn.Linear(3)], input_shape=(2,), backend=backend)
    net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(0.02), epochs=60, batch_size=16,
            verbose=False)
    assert net.evaluate(x, y)["accuracy"] == 1
    np.testing.assert_array_equal(net.predict(x), net.predict(x.astype(np.uint8)))
    assert net.memory_report(8).activations > 0
    with pytest.raises(ValueError, match=r"^Embedding 'embedding1': expected tokens from 0 to 9\. "
                                         r"Received: 10 among them\.$"):
        net.fit(x + 1, y, loss="cross_entropy", optimizer="adam")


@pytest.mark.parametrize(("value", "received"), [
    (-1, "tokens from 0 to 4. Received: -1"), (5, "tokens from 0 to 4. Received: 5"),
    (1.5, "tokens, which are whole numbers. Received: 1.5"),
    (np.nan, "tokens from 0 to 4. Received: nan")])
def test_what_is_no_token_is_refused(backend, value, received):
    """By the network, whose input it is, and on the CPU by the layer."""
    layer = xn.Embedding(5, 2)
    net = xn.Sequential([layer, xn.Linear(1)], input_shape=(3,), backend=backend)
    x = np.array([[0, 1, value]])
    calls = [lambda: net.predict(x), lambda: net(x)]
    if backend.xp is np:
        calls.append(lambda: net.forward(np.float32(x.T)))
    for call in calls:
        with pytest.raises(ValueError) as error:
            call()
        assert received in str(error.value) and "\n" not in str(error.value)


def test_the_vocabulary_has_a_bound():
    """float32 does not have all whole numbers above it."""
    with pytest.raises(ValueError, match="Embedding: expected tokens to be an int"):
        xn.Embedding(2**24 + 1, 1)
    assert np.float32(2**24 - 1) + 1 == 2**24
