"""A factor of the learning rate for single layers."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

import xpnet as xn
from xpnet.optim import OPTIMIZERS

every_optimizer = pytest.mark.parametrize("name", list(OPTIMIZERS))


def net(backend: Any = "numpy") -> xn.Sequential:
    return xn.Sequential([xn.Linear(4, activation="tanh", name="a"),
                          xn.Linear(6, activation="tanh", name="b"),
                          xn.Linear(3, name="c")], input_shape=(5,), backend=backend,
                         dtype="float64")


def steps(network: xn.Network, optimizer: xn.Optimizer, count: int = 3) -> None:
    updater = optimizer.updater(network.buffers)
    for t in range(count):
        network.grads[...] = np.random.default_rng(t).standard_normal(network.grads.shape)
        updater.step()


@every_optimizer
@pytest.mark.parametrize("scales", [(0.1, 1.0, 1.0), (1.0, 0.5, 2.0), (0.25, 0.25, 1.0)])
def test_a_layer_is_updated_as_with_another_learning_rate(
        name: str, scales: tuple[float, float, float]):
    scaled = net()
    for layer, scale in zip(scaled.layers, scales, strict=True):
        layer.lr_scale = scale
    steps(scaled, OPTIMIZERS[name]())
    for layer, scale in zip("abc", scales, strict=True):
        alone, optimizer = net(), OPTIMIZERS[name]()
        optimizer.lr *= scale
        steps(alone, optimizer)
        for array in (f"{layer}.W", f"{layer}.b"):
            np.testing.assert_allclose(scaled.arrays[array].data, alone.arrays[array].data,
                                       rtol=1e-12)


def test_it_may_change_during_training():
    network, optimizer = net(), xn.SGD(1.0)
    updater = optimizer.updater(network.buffers)
    assert len(updater.parts()) == 1
    network.layers[1].lr_scale = 0.0
    network.grads[...] = 1.0
    before = network.parameters.copy()
    updater.step()
    assert len(updater.parts()) == 5  # W of a, W of b, W of c and b of a together, b of b, b of c
    moved = {name: bool((p.data != q).any()) for (name, p), q in
             zip(network.arrays.items(), _views(network, before), strict=True)}
    assert moved == {"a.W": True, "a.b": True, "b.W": False, "b.b": False, "c.W": True, "c.b": True}


def _views(network: xn.Network, flat: np.ndarray) -> list[np.ndarray]:
    """The arrays of the network, with the values of `flat`."""
    other = net()
    other.parameters[...] = flat
    return [p.data for p in other.arrays.values()]


def test_it_is_saved(tmp_path):
    network = net()
    network.layers[1].lr_scale = 0.5
    network.save(tmp_path / "file")
    assert ([layer.lr_scale for layer in xn.load(tmp_path / "file", backend="numpy").layers]
            == [1.0, 0.5, 1.0])


def test_it_applies_to_children():
    network = xn.Sequential([xn.SeparableConv2d(3, 2)], input_shape=(2, 4, 4), backend="numpy")
    layer = network.layers[0]
    layer.lr_scale, layer.trainable = 0.5, False
    assert [(child.lr_scale, child.trainable) for child in layer.children] == [(0.5, False)] * 2


@pytest.mark.parametrize("value", [-1, np.nan, "0.1", None, True, np.inf])
def test_factors_that_are_refused(value: Any):
    layer = xn.Linear(2)
    with pytest.raises(
            ValueError,
            match="Linear: expected lr_scale to be a number, 0 or larger. Received: lr_scale="):
        layer.lr_scale = value
    assert layer.lr_scale == 1.0
