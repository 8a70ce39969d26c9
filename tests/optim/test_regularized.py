"""Bounds on gradients, penalties and bounds on weights with `Regularized`, against loops over all
elements."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nets import blobs, same, small, values

import xpnet as xn
from xpnet.optim.base import Updater


def two_layers(backend="numpy", dtype="float64", frozen=()):
    """Two linear layers with given weights, biases and gradients; all other gradients are 0."""
    net = xn.Sequential([xn.Linear(3, name="a"), xn.Linear(4, name="b")], input_shape=(2,),
                        backend=backend, dtype=dtype)
    rng = np.random.default_rng(0)
    for p in net.buffers.arrays.values():
        p.data[...] = net.backend.asarray(rng.normal(size=p.shape), dtype)
        p.grad[...] = net.backend.asarray(rng.normal(size=p.shape), dtype)
    for i in frozen:
        net.layers[i].trainable = False
    return net


def arrays_of(net, which="data"):
    return {name: net.backend.to_numpy(getattr(p, which)).astype(float)
            for name, p in net.buffers.arrays.items()}


def after_a_step(net, **settings):
    """What a step with learning rate 1 subtracts from the weights: the gradients that the optimizer
    receives."""
    before, gradients = arrays_of(net), arrays_of(net, "grad")
    Updater(xn.Regularized(xn.SGD(1.0), **settings), net.buffers).step()
    after = arrays_of(net)
    for name, g in arrays_of(net, "grad").items():
        # the gradients of the network do not change
        np.testing.assert_array_equal(g, gradients[name])
    return before, gradients, {name: before[name] - after[name] for name in after}


NEAR = {"float32": {"rtol": 1e-5, "atol": 1e-6}, "float64": {"rtol": 1e-12, "atol": 1e-14}}
every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])


@every_float
@pytest.mark.parametrize("frozen", [(), (0,), (1,)])
def test_the_norm_of_all_trained_gradients_is_bounded(frozen, dtype, backend):
    for bound in (0.5, 100.0):
        net = two_layers(backend, dtype, frozen)
        _, gradients, steps = after_a_step(net, clip_norm=bound)
        trained = [name for name in gradients if net.layers["ab".index(name[0])].trainable]
        norm = math.sqrt(sum(g * g for name in trained for g in gradients[name].flat))
        for name, step in steps.items():
            expected = gradients[name] * min(1, bound / norm) if name in trained else 0 * step
            np.testing.assert_allclose(step, expected, **NEAR[dtype])


def test_a_gradient_whose_squares_overflow_is_bounded_too(backend):
    net = two_layers(backend, "float32")
    net.grads *= 1e25
    _, gradients, steps = after_a_step(net, clip_norm=1.0)
    total = math.sqrt(sum((step**2).sum() for step in steps.values()))
    assert total == pytest.approx(1, rel=1e-5)


def test_a_gradient_of_zero_stays_zero(backend):
    net = two_layers(backend)
    net.grads.fill(0)
    _, _, steps = after_a_step(net, clip_norm=1.0, clip_value=1.0)
    assert not any(step.any() for step in steps.values())


@every_float
def test_each_element_of_a_gradient_is_bounded(dtype, backend):
    net = two_layers(backend, dtype)
    _, gradients, steps = after_a_step(net, clip_value=0.3)
    for name, step in steps.items():
        np.testing.assert_allclose(step, [max(-0.3, min(g, 0.3)) for g in gradients[name].flat]
                                   if step.ndim == 1 else
                                   [[max(-0.3, min(g, 0.3)) for g in row]
                                    for row in gradients[name]], **NEAR[dtype])


@every_float
def test_l1_is_added_to_the_clipped_gradients_of_weights(dtype, backend):
    net = two_layers(backend, dtype)
    net.layers[0].W.data[0, 0] = 0
    before, gradients, steps = after_a_step(net, l1=0.25, clip_value=0.3)
    for name, step in steps.items():
        penalty = 0.25 * np.sign(before[name]) if name.endswith("W") else 0
        np.testing.assert_allclose(step, np.clip(gradients[name], -0.3, 0.3) + penalty,
                                   **NEAR[dtype])


def test_l1_makes_weights_of_little_use_zero():
    """min (w - a)^2 / 2 + l1 |w| is at sign(a) max(|a| - l1, 0), the soft threshold; a fit comes as
    near as a step is long."""
    a = np.array([2.0, -1.0, 0.3, -0.1, 0.0])
    layer = xn.Linear(1, bias=False).initialize((5,), dtype="float64")
    optimizer = xn.Regularized(xn.SGD(0.01), l1=0.5)
    for _ in range(2000):
        layer.W.grad[...] = layer.W.data - a
        layer.update(optimizer)
    np.testing.assert_allclose(layer.W.data[0], np.sign(a) * np.maximum(np.abs(a) - 0.5, 0),
                               atol=0.0051)


@every_float
@pytest.mark.parametrize("frozen", [(), (0,)])
def test_the_norm_of_each_units_weights_is_bounded(frozen, dtype, backend):
    net = two_layers(backend, dtype, frozen)
    before = arrays_of(net)
    Updater(xn.Regularized(xn.SGD(0.0), max_norm=1.0), net.buffers).step()
    changed = 0
    for name, after in arrays_of(net).items():
        expected = before[name].copy()
        if name.endswith("W") and net.layers["ab".index(name[0])].trainable:
            for row in expected:
                norm = math.sqrt(sum(w * w for w in row))
                row *= min(1, 1 / norm)
                changed += norm > 1
        np.testing.assert_allclose(after, expected, **NEAR[dtype])
    assert changed


@pytest.mark.parametrize("layer", [xn.Conv2d, xn.LocallyConnected2d])
def test_filters_are_units(layer, backend):
    """Also if each position has its own filters."""
    net = xn.Sequential([layer(4, 3), xn.Flatten()], input_shape=(2, 5, 5), backend=backend)
    W = net.layers[0].W
    W.data *= 10
    before = net.backend.to_numpy(W.data).copy()
    Updater(xn.Regularized(xn.SGD(0.0), max_norm=2.0), net.buffers).step()
    # channels, rows, columns
    norms = np.sqrt((before.astype(float)**2).sum(axis=(-3, -2, -1), keepdims=True))
    assert (norms > 2).all()
    np.testing.assert_allclose(net.backend.to_numpy(W.data), before * 2 / norms, rtol=1e-5)


def test_biases_and_scales_are_not_bounded(backend):
    """Also those of several axes: max-norm applies to the same arrays as weight decay."""
    net = xn.Sequential([xn.LocallyConnected2d(4, 3), xn.LayerNorm(), xn.Flatten(), xn.Linear(2)],
                        input_shape=(2, 5, 5), backend=backend)
    others = {name for name, p in net.buffers.arrays.items() if p.grad is not None and not p.decay}
    assert any(len(net.buffers.arrays[name].shape) > 1 for name in others)
    net.parameters.fill(10.0)
    Updater(xn.Regularized(xn.SGD(0.0), max_norm=2.0), net.buffers).step()
    for name, after in arrays_of(net).items():
        if name in others:
            assert (after == 10).all(), name
        elif net.buffers.arrays[name].decay:
            assert (after < 10).all(), name


def test_all_bounds_in_their_order(backend):
    """Value, norm, l1, the step of the optimizer, max-norm. A Regularized of a Regularized does the
    same."""
    results = []
    for make in (lambda: xn.Regularized(xn.SGD(0.5, weight_decay=0.1), clip_value=0.8,
                                        clip_norm=1.5, l1=0.2, max_norm=1.0),
                 lambda: xn.Regularized(
                     xn.Regularized(xn.SGD(0.5, weight_decay=0.1), clip_value=0.8, max_norm=1.0),
                     clip_norm=1.5, l1=0.2)):
        net = two_layers(backend)
        before, gradients = arrays_of(net), arrays_of(net, "grad")
        Updater(make(), net.buffers).step()
        results.append(arrays_of(net))
    clipped = {name: np.clip(g, -0.8, 0.8) for name, g in gradients.items()}
    scale = min(1, 1.5 / math.sqrt(sum((g**2).sum() for g in clipped.values())))
    for name, w in before.items():
        if name.endswith("W"):
            w = w - 0.5 * (scale * clipped[name] + 0.2 * np.sign(w) + 0.1 * w)
            w *= np.minimum(1, 1 / np.sqrt((w**2).sum(axis=1, keepdims=True)))
        else:
            w = w - 0.5 * scale * clipped[name]
        for result in results:
            np.testing.assert_allclose(result[name], w, rtol=1e-12)


def test_all_other_attributes_are_those_of_the_optimizer():
    inner = xn.Adagrad(0.5, initial_accumulator_value=2.0)
    outer = xn.Regularized(inner, clip_norm=1.0)
    outer.lr = 0.25
    assert (outer.slots, outer.first, inner.lr, outer.lr) == (1, 2.0, 0.25, 0.25)
    x, y = blobs()
    results = []
    for optimizer in (xn.Adam(1e-2), xn.Regularized(xn.Adam(1e-2)),
                      xn.Regularized(xn.Adam(1e-2), clip_norm=1e9, max_norm=1e9)):
        net = small(dtype="float64")
        net.fit(x, y, loss="cross_entropy", optimizer=optimizer, schedule="cosine", verbose=False)
        results.append(values(net))
    assert same(results[0], results[1]) and same(results[0], results[2])
    assert (net.memory_report(4, xn.Regularized(xn.Adam())).optimizer
            == net.memory_report(4, xn.Adam()).optimizer > 0)


def test_if_everything_is_frozen_nothing_is_done(backend):
    net = two_layers(backend, frozen=(0, 1))
    before = arrays_of(net)
    Updater(xn.Regularized(xn.SGD(1.0), l1=0.1, clip_norm=1.0, max_norm=0.1), net.buffers).step()
    for name, after in arrays_of(net).items():
        np.testing.assert_array_equal(after, before[name])


@pytest.mark.parametrize("settings, message", [
    ({"l1": -1}, "Regularized: expected l1 to be a number, 0 or larger. Received: l1=-1"),
    ({"clip_norm": 0}, "Regularized: expected clip_norm above 0, or None. Received: clip_norm=0"),
    ({"clip_value": "1"},
     "Regularized: expected clip_value to be a number, 0 or larger. Received: clip_value='1'"),
    ({"max_norm": math.inf}, "Regularized: expected max_norm to be a number"),
])
def test_refusals_of_regularized(settings, message):
    with pytest.raises(ValueError, match=message):
        xn.Regularized(xn.SGD(0.1), **settings)


def test_regularized_needs_an_optimizer():
    with pytest.raises(ValueError, match=r"Regularized: expected an Optimizer, e.g. Adam\(1e-3\), "
                                         r"or one of .*Received: 0.1"):
        xn.Regularized(0.1)
