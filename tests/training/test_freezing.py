"""Frozen layers and layers that are trained again: each layer has its own optimizer state and step
count."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import learned, network, pretended, samples
from nets import same
from optimizer_cases import OPTIMIZERS
from tiers import first

import xpnet as xn
from xpnet.optim.base import Optimizer, Updater

COUNTING = ["Adam", "AdamW", "AMSGrad", "NAdam", "Adamax", "Adagrad", "Regularized"]
every_optimizer = pytest.mark.parametrize("make", OPTIMIZERS.values(), ids=OPTIMIZERS)


def three_layers(backend: Any, dtype: str = "float32") -> xn.Network:
    return xn.Sequential([xn.Linear(5), xn.Linear(70), xn.Linear(3)], input_shape=(4,),
                         backend=backend, dtype=dtype)


def own(net: xn.Network, layer: int) -> dict[str, np.ndarray]:
    return {p.name: net.backend.to_numpy(p.data).copy() for p in net.layers[layer].parameters}


def gradients(net: xn.Network, seed: int) -> np.ndarray:
    rng = np.random.default_rng(seed)
    return rng.normal(size=net.grads.shape).astype(net.dtype)


def step(net: xn.Network, updater: Updater, seed: int) -> None:
    net.grads[...] = net.backend.asarray(gradients(net, seed))
    updater.step()


# --- trained again --------------------------------------------------------------------------------

def check_a_thawed_layer(backend: Any, dtype: str, make: Any, layer: int, before: int = 20) -> None:
    """It steps as with a new optimizer, and the other layers as if it had never been frozen."""
    thawed, alone, always = (three_layers(backend, dtype) for _ in range(3))
    updaters = [Updater(make(), net.buffers) for net in (thawed, alone, always)]
    for net in (alone, thawed):
        for i in range(3):
            net.layers[i].trainable = (i != layer) if net is thawed else (i == layer)
    for t in range(before):
        step(thawed, updaters[0], t)
        step(always, updaters[2], t)
    thawed.layers[layer].trainable = True
    for t in range(before, before + 4):
        for net, updater in zip((thawed, alone, always), updaters, strict=True):
            step(net, updater, t)
        for i in range(3):
            assert same(own(thawed, i), own(alone if i == layer else always, i)), (t, i)


@every_optimizer
@pytest.mark.parametrize("layer", [0, 1, 2])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_layer_that_is_trained_again_steps_as_with_a_new_optimizer(dtype, layer, make, backend):
    check_a_thawed_layer(backend, dtype, make, layer)


@pytest.mark.parametrize("name", COUNTING)
def test_a_layer_that_is_trained_again_on_an_emulated_gpu(name: str, folder: Path):
    with pretended(folder) as (backend, _):
        check_a_thawed_layer(backend, "float32", OPTIMIZERS[name], 1, before=5)


@every_optimizer
def test_a_layer_that_is_frozen_for_a_while_continues(make, backend):
    """Its steps are those of a training without the pause."""
    paused, steady = three_layers(backend), three_layers(backend)
    updaters = [Updater(make(), net.buffers) for net in (paused, steady)]
    for t in range(12):
        paused.layers[0].trainable = not 4 <= t < 9
        step(paused, updaters[0], t)
        if paused.layers[0].trainable:
            step(steady, updaters[1], t)
        assert same(own(paused, 0), own(steady, 0))


def test_the_first_step_after_freezing_is_the_learning_rate():
    """Adam's first step is lr g / |g|. With a common step count it would be three times as long."""
    net = three_layers("numpy", "float64")
    net.layers[1].trainable = False
    updater = Updater(xn.Adam(0.01), net.buffers)
    for t in range(1000):
        step(net, updater, t)
    before = net.layers[1].W.data.copy()
    net.layers[1].trainable = True
    step(net, updater, 0)
    np.testing.assert_allclose(abs(net.layers[1].W.data - before), 0.01, rtol=1e-4)


def test_layers_that_step_together_are_one_part():
    net = three_layers("numpy")
    updater = Updater(xn.Adam(), net.buffers)
    size = net.parameters.size
    assert updater.parts() == [(0, size, net.layers[0])]
    step(net, updater, 0)
    net.layers[1].trainable = False
    step(net, updater, 1)
    assert len(updater.parts()) == 3  # W of 0, W of 2 and b of 0 together, b of 2
    net.layers[1].trainable = True
    step(net, updater, 2)
    assert len(updater.parts()) == 5
    assert [updater.steps[layer] for layer in net.layers] == [3, 2, 3]
    for layer in (net.layers[0], net.layers[2]):
        layer.trainable = False
    step(net, updater, 3)
    for layer in (net.layers[0], net.layers[2]):
        layer.trainable = True
    assert [updater.steps[layer] for layer in net.layers] == [3, 3, 3]
    assert updater.parts() == [(0, size, net.layers[0])]        # together again


@pytest.mark.parametrize("name", first(COUNTING, "Adam", "Regularized"))
def test_captured_steps_are_the_same_when_layers_are_frozen_and_trained_again(
        name: str, folder: Path):
    """A step that was captured while all counts were equal must not be used when they are not."""
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            net = network(backend)
            train = xn.TrainStep(net, xn.CrossEntropy(), OPTIMIZERS[name](), capture=capture)
            net.step = train
            x, y = samples(8)
            values = []
            for t in range(25):
                net.layers[0].trainable = t // 5 % 2 == 0           # on, off, on, off, on
                train(net.batch_last(x), backend.asarray(y))
                values.append(learned(net))
            results.append(values)
            # Captured: all as one part, without the first layer, all as several parts.
            assert gpus.graphs == (3 if capture else 0)
    assert all(same(eager, captured) for eager, captured in zip(*results, strict=True))


def test_a_training_that_moves_to_another_backend_keeps_the_counts():
    results = []
    for move in (False, True):
        net = three_layers("numpy", "float64")
        net.layers[0].trainable = False
        train = xn.TrainStep(net, xn.HalfSquaredError(), xn.Adam(0.1))
        net.step = train
        rng = np.random.default_rng(0)
        for t in range(6):
            net.layers[0].trainable = t >= 3
            if move and t == 4:
                net.to(xn.get_backend("numpy"))
            train(rng.normal(size=(4, 8)), rng.normal(size=(3, 8)))
        results.append(learned(net))
    assert same(*results)


def test_a_step_that_fails_is_not_counted():
    class Failing(xn.HalfSquaredError):
        def __call__(self, *args: Any) -> Any:
            raise ZeroDivisionError

    net = three_layers("numpy")
    net.layers[1].trainable = False
    train = xn.TrainStep(net, xn.HalfSquaredError(), xn.Adam())
    x, y = np.ones((4, 2), np.float32), np.ones((3, 2), np.float32)
    train(x, y)
    train.goals = train.goals[0]._replace(loss=Failing()),
    with pytest.raises(ZeroDivisionError):
        train(x, y)
    assert [train.updater.steps[layer] for layer in net.layers] == [1, 0, 1]


# --- frozen ---------------------------------------------------------------------------------------

@every_optimizer
@pytest.mark.parametrize("frozen", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_weight_decay_is_for_the_weights_that_are_trained(frozen, make, backend):
    """Without a gradient, only the weights of trained layers change, and biases do not decay."""
    net = three_layers(backend, "float64")
    for p in net.buffers.arrays.values():
        p.data.fill(0.5)
    for i in frozen:
        net.layers[i].trainable = False
    updater = Updater(make(), net.buffers)
    for _ in range(3):
        net.grads.fill(0)
        updater.step()
    for i in range(3):
        for name, values in own(net, i).items():
            assert (values != 0.5).all() == (name == "W" and i not in frozen), (i, name)
            assert (values == 0.5).all() == (name == "b" or i in frozen), (i, name)


@pytest.mark.parametrize("frozen", [(), (0,), (1,), (2,), (0, 1), (1, 2), (0, 2)])
def test_max_norm_is_for_the_weights_that_are_trained(frozen, backend):
    """Frozen weights may exceed the bound, and those of trained layers may not. Biases are not
    bounded."""
    net = three_layers(backend, "float64")
    net.parameters.fill(10.0)
    for i in frozen:
        net.layers[i].trainable = False
    net.grads.fill(0)
    Updater(xn.Regularized(xn.SGD(0.1), max_norm=2.0), net.buffers).step()
    for i in range(3):
        values = own(net, i)
        assert (values["b"] == 10).all()
        if i in frozen:
            assert (values["W"] == 10).all()
        else:
            np.testing.assert_allclose(np.sqrt((values["W"] ** 2).sum(axis=1)), 2.0)


def test_every_optimizer_is_tested():
    found = {cls for cls in vars(xn).values()
             if isinstance(cls, type) and issubclass(cls, Optimizer)}
    assert {cls.__name__ for cls in found - {Optimizer}} == set(OPTIMIZERS)
