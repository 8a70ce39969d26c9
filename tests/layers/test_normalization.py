"""Normalisation over batches and over samples against loops, and running statistics."""

import math
import re

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import initialized
from oracles import assert_close
from tiers import examples

import xpnet as xn
from xpnet import TRAIN
from xpnet.testing import check_gradients

dtypes = st.sampled_from(["float32", "float64"])
sizes = st.integers(1, 4)
maps = st.tuples(sizes, sizes, sizes, sizes)        # (C, H, W, N)
few = examples(40)


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(layer, x, mode="predict"):
    return layer.backend.to_numpy(layer.forward(layer.backend.asarray(x), mode=mode))


def standardised(values, eps, centred=True):
    """The numbers minus their mean, divided by the root of the mean square of the differences."""
    mean = math.fsum(values) / len(values) if centred else 0.0
    var = math.fsum((v - mean) ** 2 for v in values) / len(values)
    return [(v - mean) / math.sqrt(var + eps) for v in values]


def of_groups(x, groups, eps, centred=True):
    """x (..., N): the elements of each sample in `groups` groups of equal length, each
    standardised."""
    y = np.zeros(x.shape)
    for n in range(x.shape[-1]):
        runs = x[..., n].astype(np.float64).reshape(groups, -1)
        y[..., n] = np.array([standardised(list(run), eps, centred) for run in runs]).reshape(
            x.shape[:-1])
    return y


# --- by samples -----------------------------------------------------------------------------------

@few
@given(maps.filter(lambda s: math.prod(s[:3]) > 1), st.booleans(), dtypes)
def test_layer_norm(backend, shape, affine, dtype):
    layer = initialized(xn.LayerNorm(eps=1e-3, affine=affine), shape[:3], backend=backend,
                        dtype=dtype)
    x = 2 + 3 * normal(shape, dtype)
    gamma, beta = ((backend.to_numpy(p.data)[..., None] for p in layer.parameters) if affine
                   else (1, 0))
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, gamma * of_groups(x, 1, 1e-3) + beta)


@pytest.mark.parametrize("axis", [None, 0, 1, 2, (0, 1), (1, 2), [0, 1, 2]])
@pytest.mark.parametrize("make", [xn.LayerNorm, xn.RMSNorm])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_layer_norm_along_some_axes(backend, make, axis, dtype):
    """Each position of the other axes is normalised by itself, with the same gamma and beta."""
    shape = (2, 3, 4)
    layer = initialized(make(axis=axis, eps=0.1), shape, backend=backend, dtype=dtype)
    x = 2 + normal((*shape, 5), dtype)
    axes = [0, 1, 2] if axis is None else [axis] if isinstance(axis, int) else list(axis)
    assert layer.gamma.shape == tuple(shape[a] for a in axes)
    others = [a for a in range(4) if a not in axes]
    right = np.zeros(x.shape)
    for position in np.ndindex(*(x.shape[a] for a in others)):
        part = tuple(position[others.index(a)] if a in others else slice(None) for a in range(4))
        values = list(x[part].astype(float).ravel())
        right[part] = np.reshape(standardised(values, 0.1, make is xn.LayerNorm),
                                 layer.gamma.shape)
    gamma, beta = ((backend.to_numpy(p.data).reshape([
        size if a in axes else 1 for a, size in enumerate(shape)] + [1]) if p else 0)
        for p in (layer.gamma, layer.beta))
    assert_close(forward(layer, x), gamma * right + beta)


@few
@given(maps, st.booleans(), dtypes)
def test_rms_norm(backend, shape, affine, dtype):
    layer = initialized(xn.RMSNorm(affine=affine), shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    gamma = backend.to_numpy(layer.gamma.data)[..., None] if affine else 1
    assert layer.beta is None
    assert_close(forward(layer, x), gamma * of_groups(x, 1, np.finfo(dtype).eps, centred=False))


def test_rms_norm_of_zeros_is_zero(backend):
    layer = xn.RMSNorm().initialize((3,), backend=backend)
    assert not forward(layer, np.zeros((3, 2), np.float32)).any()


@few
@given(st.sampled_from([1, 2, 3]), sizes, st.tuples(sizes, sizes, sizes), st.booleans(), dtypes)
def test_group_norm(backend, groups, each, rest, affine, dtype):
    shape = groups * each, *rest
    if each * rest[0] * rest[1] == 1:
        return
    layer = initialized(xn.GroupNorm(groups, eps=1e-3, affine=affine), shape[:3], backend=backend,
                        dtype=dtype)
    x = 2 + 3 * normal(shape, dtype)
    gamma, beta = ((backend.to_numpy(p.data)[:, None, None, None] for p in layer.parameters)
                   if affine else (1, 0))
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, gamma * of_groups(x, groups, 1e-3) + beta)


def test_group_norm_includes_layer_and_instance_norm(backend):
    x = normal((4, 3, 5, 2))

    def normalised(layer):
        return forward(layer.initialize((4, 3, 5), backend=backend, dtype="float64"), x)

    assert_close(normalised(xn.GroupNorm(1)), normalised(xn.LayerNorm()))
    assert_close(normalised(xn.GroupNorm(4)), normalised(xn.InstanceNorm2d(affine=True)))
    assert_close(normalised(xn.GroupNorm(4, affine=False)), normalised(xn.InstanceNorm2d()))
    assert xn.InstanceNorm2d().initialize((4, 3, 5)).parameters == []
    x = normal((6, 2))
    assert_close(forward(xn.GroupNorm(2).initialize((6,), backend=backend, dtype="float64"), x),
                 of_groups(x, 2, 1e-5))


@few
@given(maps.filter(lambda s: s[1] * s[2] > 1), dtypes)
def test_instance_norm2d(backend, shape, dtype):
    layer = initialized(xn.InstanceNorm2d(affine=True), shape[:3], backend=backend, dtype=dtype)
    gamma, beta = (backend.to_numpy(p.data)[:, None, None, None] for p in layer.parameters)
    x = normal(shape, dtype)
    assert_close(forward(layer, x), gamma * of_groups(x, shape[0], 1e-5) + beta)


@pytest.mark.parametrize("make, groups", [(xn.LayerNorm, 1), (lambda **o: xn.GroupNorm(2, **o), 2),
                                          (xn.InstanceNorm2d, 2)])
def test_a_large_mean_does_not_hide_the_variance(backend, make, groups):
    """E[x^2] - E[x]^2 would be noise here, and sums of 20,000 numbers near 3000 in float32 would
    shift the mean."""
    x = (3000 + normal((2, 100, 200, 3))).astype(np.float32)
    y = forward(make(affine=False).initialize((2, 100, 200), backend=backend), x)
    assert np.abs(y - of_groups(x, groups, 1e-5)).max() < 1e-3


@pytest.mark.parametrize("make", [
    lambda: xn.LayerNorm(affine=False), lambda: xn.LayerNorm(axis=2),
    lambda: xn.LayerNorm(axis=0), lambda: xn.LayerNorm(axis=(0, 1)),
    lambda: xn.RMSNorm(affine=False, eps=0.1),
    lambda: xn.RMSNorm(axis=1), lambda: xn.GroupNorm(4, affine=False), lambda: xn.GroupNorm(1),
    xn.InstanceNorm2d])
def test_gradients_by_samples(backend, make):
    check_gradients(make(), (4, 3, 5), backend=backend)


# --- norms of vectors -----------------------------------------------------------------------------

@few
@given(maps, st.sampled_from([0, 1, 2, -1, None]), st.sampled_from([1, 2, 2.5]), dtypes)
def test_lp_normalize(backend, shape, axis, p, dtype):
    layer = xn.LpNormalize(p, axis=axis).initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    along = (0, 1, 2) if axis is None else axis % 3
    assert_close(y,
                 x / (np.abs(x.astype(np.float64)) ** p).sum(axis=along, keepdims=True) ** (1 / p))
    assert_close((np.abs(y) ** p).sum(axis=along), np.ones(np.sum(x, axis=along).shape))


def test_l1_and_l2_norm(backend):
    x = normal((5, 3))
    for layer, p in ((xn.L1Norm(), 1), (xn.L2Norm(), 2)):
        assert_close(forward(layer.initialize((5,), backend=backend, dtype="float64"), x),
                     x / np.linalg.norm(x, p, axis=0))


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_normalising_zeros_and_large_values(backend, dtype):
    layer = xn.L2Norm(eps=1e-6).initialize((2,), backend=backend, dtype=dtype)
    x = np.array([[0, 3e30, 3e-9], [0, 4e30, 4e-9]], dtype)
    np.testing.assert_allclose(forward(layer, x, TRAIN), [[0, 0.6, 3e-3], [0, 0.8, 4e-3]],
                               rtol=1e-6)
    dx = backend.to_numpy(layer.backward(backend.asarray(np.ones((2, 3), dtype))))
    np.testing.assert_allclose(dx[:, 2], 1e6, rtol=1e-6)  # below eps X is divided by a constant
    assert not dx[:, 0].any() and np.isfinite(dx).all()


@pytest.mark.parametrize("p", [1, 2, 3.5])
@pytest.mark.parametrize("axis", [0, -2, None])
def test_gradients_of_lp_normalize(backend, p, axis):
    away = (np.random.default_rng(1).choice([-1, 1], (3, 4, 2, 3))
            * np.random.default_rng(2).uniform(0.2, 1, (3, 4, 2, 3)))
    check_gradients(xn.LpNormalize(p, axis=axis), (3, 4, 2), inputs=(away,), backend=backend)


# --- by batches -----------------------------------------------------------------------------------

@few
@given(st.integers(1, 5), st.integers(2, 6), st.sampled_from([None, "relu", "tanh"]), dtypes)
def test_batch_norm1d(backend, features, batch, activation, dtype):
    layer = xn.BatchNorm1d(momentum=0.25, eps=1e-3, activation=activation)
    initialized(layer, (features,), backend=backend, dtype=dtype)
    gamma, beta = (backend.to_numpy(p.data) for p in layer.parameters)
    x = 3 + 2 * normal((features, batch), dtype)
    mean, var = oracles.channel_statistics(x)
    assert_close(forward(layer, x, TRAIN),
                 oracles.activation(oracles.batch_norm(x, gamma, beta, mean, var, 1e-3),
                                    activation))
    assert_close(backend.to_numpy(layer.mean.data), 0.25 * np.array(mean))
    assert_close(backend.to_numpy(layer.var.data),
                 0.75 + 0.25 * np.array(var) * batch / (batch - 1))
    kept = backend.to_numpy(layer.mean.data), backend.to_numpy(layer.var.data)
    assert_close(forward(layer, x),
                 oracles.activation(oracles.batch_norm(x, gamma, beta, *kept, 1e-3), activation))


def test_cumulative_statistics_are_the_means_over_the_batches(backend):
    layer = xn.BatchNorm2d(momentum=None).initialize((2, 3, 4), backend=backend, dtype="float64")
    batches = [3 + normal((2, 3, 4, n), seed=n) for n in (5, 2, 3)]
    for x in batches:
        layer.forward(backend.asarray(x), mode=TRAIN)
    assert_close(backend.to_numpy(layer.mean.data),
                 np.mean([x.mean(axis=(1, 2, 3)) for x in batches], axis=0))
    assert_close(backend.to_numpy(layer.var.data),
                 np.mean([x.var(axis=(1, 2, 3), ddof=1) for x in batches], axis=0))


def test_cumulative_statistics_continue_after_loading(tmp_path):
    x = normal((8, 2, 3, 3))
    net = xn.Sequential([xn.BatchNorm2d(momentum=None), xn.Flatten(), xn.Linear(2)],
                        input_shape=(2, 3, 3), backend="numpy")
    net.fit(x, np.arange(8) % 2, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=2,
            verbose=False)
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    assert float(again.layers[0].batches.data[0]) == 4
    np.testing.assert_array_equal(again.layers[0].var.data, net.layers[0].var.data)


@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
def test_a_frozen_batch_norm_predicts_in_training_too(backend, activation):
    """Its statistics do not change, samples do not affect each other, and the gradient is that of a
    fixed affine function."""
    layer = initialized(xn.BatchNorm2d(activation=activation), (2, 3, 4), backend=backend,
                        dtype="float64")
    layer.trainable = False
    layer.mean.data[...], layer.var.data[...] = (backend.asarray([0.5, -1.0]),
                                                 backend.asarray([2.0, 0.3]))
    x, dy = normal((2, 3, 4, 5)), normal((2, 3, 4, 5), seed=1)
    y = forward(layer, x, TRAIN)
    np.testing.assert_array_equal(y, forward(layer, x))
    dx = backend.to_numpy(layer.backward(backend.asarray(dy)))
    np.testing.assert_array_equal(backend.to_numpy(layer.mean.data), [0.5, -1.0])
    h = 1e-6
    for value, gradient in ((x, dx), *((p.data, backend.to_numpy(p.grad))
                                       for p in layer.parameters)):
        direction = normal(value.shape, seed=2)
        step = h * (direction if value is x else backend.asarray(direction))
        moved = []
        for sign in (1, -1):
            value += sign * step
            moved.append((forward(layer, x, TRAIN) * dy).sum())
            value -= sign * step
        assert (moved[0] - moved[1]) / (2 * h) == pytest.approx(
            (gradient * direction).sum(), rel=1e-6)


def test_a_frozen_batch_norm_trains_on_batches_of_one():
    net = xn.Sequential([xn.BatchNorm1d(), xn.Linear(2)], input_shape=(3,), backend="numpy")
    x, labels = normal((5, 3)), np.array([0, 1, 0, 1, 1])
    with pytest.raises(ValueError, match="expected batches of at least 2 in training"):
        net.fit(x, labels, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=4, verbose=False)
    net.layers[0].trainable = False
    net.fit(x, labels, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=4, verbose=False)
    assert not net.layers[0].mean.data.any() and (net.layers[0].var.data == 1).all()


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("action, text", [
    (lambda: xn.LayerNorm(eps=-1),
     "LayerNorm: expected eps to be a number, 0 or larger. Received: eps=-1."),
    (lambda: xn.LayerNorm(axis=-1),
     "LayerNorm: expected axis to be an int, 0 or larger. Received: axis=-1."),
    (lambda: xn.LayerNorm(axis=(0, 2)),
     "LayerNorm: expected axis to be an int, 0 or larger, None, or neighbouring axes in their "
     "order. Received: axis=(0, 2)."),
    (lambda: xn.RMSNorm(axis=[1, 0]), "RMSNorm: expected axis to be an int, 0 or larger, None, or"),
    (lambda: xn.LayerNorm(axis=()), "LayerNorm: expected axis to be an int, 0 or larger, None, or"),
    (lambda: xn.LayerNorm(axis=(1, 2)).initialize((2, 3)),
     "LayerNorm: expected an axis of a sample of shape (2, 3). Received: axis=[1, 2]."),
    (lambda: xn.LayerNorm(axis=3).initialize((2, 3, 4)),
     "LayerNorm: expected an axis of a sample of shape (2, 3, 4). Received: axis=3."),
    (lambda: xn.LayerNorm(axis=2).initialize((2, 3, 1)),
     "LayerNorm: expected more than one element to normalise together, or all of them become 0. "
     "Received: input shape (2, 3, 1)."),
    (lambda: xn.InstanceNorm2d(name="i").initialize((2, 1, 1)),
     "InstanceNorm2d 'i': expected more than one element to "),
    (lambda: xn.InstanceNorm2d().initialize((8,)),
     "InstanceNorm2d: expected an input of shape (channels, height, width)"),
    (lambda: xn.RMSNorm(eps="small"),
     "RMSNorm: expected eps to be a number, 0 or larger. Received: eps='small'."),
    (lambda: xn.GroupNorm(0),
     "GroupNorm: expected groups to be an int, 1 or larger. Received: groups=0."),
    (lambda: xn.GroupNorm(3).initialize((4, 2, 2)),
     "GroupNorm: expected groups=3 to divide the channels. Received: input shape (4, 2, 2)."),
    (lambda: xn.BatchNorm1d().initialize((3, 4, 4)),
     "BatchNorm1d: expected an input of shape (features) or (channels, steps) per sample."),
    (lambda: xn.BatchNorm1d(momentum=-1),
     "BatchNorm1d: expected momentum to be a number, 0 or larger. Received: momentum=-1."),
    (lambda: xn.BatchNorm1d(name="b").initialize((3,)).forward(np.ones((3, 1), np.float32),
                                                               mode=TRAIN),
     "BatchNorm1d 'b': expected more than one element per channel in training. Received: an array "
     "of shape (3, 1)."),
    (lambda: xn.LpNormalize(0.5),
     "LpNormalize: expected p to be a number, 1 or larger. Received: p=0.5."),
    (lambda: xn.L2Norm(eps=0),
     "L2Norm: expected eps to be a number, 1e-30 or larger. Received: eps=0."),
    (lambda: xn.L1Norm(axis=1).initialize((5,)),
     "L1Norm: expected an axis of a sample of shape (5,). Received: axis=1."),
    (lambda: xn.L1Norm(axis=-2).initialize((5,)),
     "L1Norm: expected axis to be an int, -1 or larger. Received: axis=-2."),
], ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_errors(action, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        action()
