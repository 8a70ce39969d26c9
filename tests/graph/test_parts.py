"""Networks as parts of networks."""

from __future__ import annotations

import numpy as np
import pytest

import xpnet as xn


def encoder(name: str | None = None) -> xn.Sequential:
    return xn.Sequential([xn.Linear(4, activation="tanh"), xn.Linear(3)], input_shape=(5,),
                         backend="numpy", seed=3, name=name)


def test_a_sequential_as_a_part_is_the_same_as_its_layers():
    inner = encoder()
    net = xn.Sequential([inner, xn.ReLU(), xn.Linear(2)], input_shape=(5,), backend="numpy")
    assert [node.name for node in net.nodes] == ["sequential1.linear1", "sequential1.linear2",
                                                 "relu1", "linear1"]
    assert "sequential1.linear1.W" in net.arrays and len(net.layers) == 4
    np.testing.assert_array_equal(net.arrays["sequential1.linear1.W"].data,
                                  encoder().layers[0].W.data)


def test_a_part_keeps_its_parameters_and_can_still_predict():
    """An autoencoder is trained, and its encoder used alone."""
    x = xn.Input((5,))
    inner = encoder("encoder")
    decoder = xn.Sequential([xn.Linear(5)], input_shape=(3,), backend="numpy", name="decoder")
    data = np.random.default_rng(0).random((20, 5))
    before = inner.predict(data)
    net = xn.Network(x, decoder(inner(x)), backend="numpy")
    np.testing.assert_array_equal(inner.predict(data), before)
    net.fit(data, data, loss="mean_squared_error", optimizer="adam", epochs=2, verbose=False)
    assert (inner.predict(data) != before).any()
    np.testing.assert_array_equal(decoder.predict(inner.predict(data)), net.predict(data))
    np.testing.assert_array_equal(net.output_of("encoder.linear2", data), inner.predict(data))


def test_a_part_can_only_be_trained_as_a_part(tmp_path):
    inner = encoder()
    net = xn.Sequential([inner, xn.Linear(2)], input_shape=(5,), backend="numpy")
    x, y = np.ones((4, 5)), np.ones((4, 3))
    for call in (lambda: inner.fit(x, y, loss="mean_squared_error", optimizer="sgd", verbose=False),
                 lambda: xn.TrainStep(inner, "mean_squared_error", "sgd"),
                 lambda: inner.to("numpy")):
        with pytest.raises(ValueError, match="expected a network that is no part of another one"):
            call()
    with pytest.raises(ValueError, match="expected parts that are in no other network"):
        xn.Sequential([inner, xn.Linear(2)], input_shape=(5,), backend="numpy")
    inner.save(tmp_path / "inner")
    np.testing.assert_array_equal(xn.load(tmp_path / "inner", backend="numpy").predict(x),
                                  inner.predict(x))
    assert net.to(xn.Backend()) is net and inner.backend is net.backend
    np.testing.assert_allclose(inner.predict(x), encoder().predict(x), rtol=1e-6)


def test_a_part_used_twice_is_shared(tmp_path):
    inner = encoder("twin")
    a, b = xn.Input((5,)), xn.Input((5,))
    net = xn.Network([a, b], xn.Subtract()(inner(a), inner(b)), backend="numpy")
    assert [node.name for node in net.nodes] == ["twin.linear1", "twin.linear2", "twin.linear1:2",
                                                 "twin.linear2:2",
                                                 "subtract1"]
    x = np.random.default_rng(0).random((6, 5))
    assert (net.predict([x, x]) == 0).all()
    net.save(tmp_path / "file")
    again = xn.load(tmp_path / "file", backend="numpy")
    np.testing.assert_array_equal(again.predict([x, 2 * x]), net.predict([x, 2 * x]))
    assert [node.name for node in again.nodes] == [node.name for node in net.nodes]
    net.load(tmp_path / "file")


def test_parts_within_parts():
    middle = xn.Sequential([encoder("in"), xn.ReLU()], input_shape=(5,), backend="numpy",
                           name="middle")
    net = xn.Sequential([middle, xn.Linear(2)], input_shape=(5,), backend="numpy")
    assert [node.name for node in net.nodes] == ["middle.in.linear1", "middle.in.linear2",
                                                 "middle.relu1", "linear1"]
    assert net.predict(np.ones((1, 5))).shape == (1, 2)


def test_freezing_a_part():
    inner = encoder("base")
    net = xn.Sequential([inner, xn.Linear(2)], input_shape=(5,), backend="numpy")
    inner.trainable = False
    before = net.arrays["base.linear1.W"].data.copy()
    net.fit(np.ones((4, 5)), np.ones((4, 2)), loss="mean_squared_error", optimizer="adam",
            verbose=False)
    np.testing.assert_array_equal(net.arrays["base.linear1.W"].data, before)
    assert not inner.trainable and not net.trainable


def test_refusals():
    with pytest.raises(ValueError,
                       match=r"expected inputs of shapes \[\(5,\)\]. Received: \[\(4,\)\]"):
        encoder()(xn.Input((4,)))
    x = xn.Input((5,))
    with pytest.raises(ValueError,
                       match="expected parts of dtype float64. Received: .* of float32"):
        xn.Network(x, encoder()(x), backend="numpy", dtype="float64")
