"""Stochastic pooling: which element is drawn, how often, and where the gradient goes."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close, philox
from tiers import examples

import xpnet as xn
from tests.layers.test_pooling import few_values, forward, normal, pools
from tests.layers.test_pooling_family import seen_by_windows
from xpnet import SAMPLE, TRAIN

dtypes = st.sampled_from(["float32", "float64"])
few = examples(40)


def uniforms(count, seed, layer, step, use):
    """The upper 24 bits of the random words 0, 1, .. as numbers below 1."""
    counter = (use << 192) + (step << 128)
    blocks = [philox(counter + 1 + block, (seed, layer)) for block in range(-(-count // 8))]
    words = [half for block in blocks for word in block for half in (word & 0xFFFFFFFF, word >> 32)]
    return [(word >> 8) / 2**24 for word in words[:count]]


@few
@given(pools(dilated=True), st.booleans(), dtypes, st.integers(0, 9))
def test_the_element_that_is_drawn(backend, drawn, ceil, dtype, step):
    """In a loop over windows: training takes the first element at which the running sum of max(x,
    0) exceeds u times the sum."""
    kernel, stride, padding, dilation, shape = drawn
    layer = xn.StochasticPool2d(kernel, stride=stride, padding=padding, dilation=dilation,
                                ceil_mode=ceil)
    layer.initialize(shape[:3], backend=backend, dtype=dtype)
    layer.bind(backend, 3, backend.asarray(np.array([step, 1], np.uint64)))
    layer.enter(2)
    # whole numbers: sums are exact
    x = np.random.default_rng(step).integers(-2, 5, shape).astype(dtype)
    y, predicted = forward(layer, x, TRAIN), forward(layer, x)
    assert y.dtype == predicted.dtype == dtype
    dy = np.random.default_rng(1).integers(-9, 10, y.shape).astype(dtype)
    dx = backend.to_numpy(layer.backward(backend.asarray(dy)))

    expected, mean, gradient = np.zeros(y.shape), np.zeros(y.shape), np.zeros(shape)
    rows, columns = (range(-before, size, s)
                     for before, size, s in zip(padding[::2], shape[1:3], stride))
    for u, (at, seen) in zip(uniforms(y.size, 3, 2, step, 1),
                             seen_by_windows(x, kernel, stride, padding, dilation, ceil)):
        weights = [max(value or 0, 0) for _, _, value in seen]
        mean[at] = sum(w * w for w in weights) / max(sum(weights), 1)
        so_far = 0
        for (i, j, value), w in zip(seen, weights):
            so_far += w
            if so_far > u * sum(weights):
                expected[at] = value
                gradient[at[0], rows[at[1]] + i * dilation[0], columns[at[2]] + j * dilation[1],
                         at[3]] += dy[at]
                break
    np.testing.assert_array_equal(y, expected)
    np.testing.assert_array_equal(dx, gradient)
    assert_close(predicted, mean)


def test_how_often_an_element_is_drawn(backend):
    """20,000 windows of 1, 2, 3, -5 and 4: they are drawn with probability 0.1, 0.2, 0.3, 0 and
    0.4. The prediction is the mean."""
    layer = xn.StochasticPool2d((1, 5)).initialize((1, 1, 5), backend=backend)
    x = np.repeat(np.array([1, 2, 3, -5, 4], np.float32).reshape(1, 1, 5, 1), 20_000, axis=3)
    values, counts = np.unique(forward(layer, x, TRAIN), return_counts=True)
    assert values.tolist() == [1, 2, 3, 4]
    np.testing.assert_allclose(counts / 20_000, [0.1, 0.2, 0.3, 0.4], atol=0.01)
    np.testing.assert_allclose(forward(layer, x), (1 + 4 + 9 + 16) / 10, rtol=1e-6)


def test_windows_without_anything_above_zero_and_large_values(backend):
    layer = xn.StochasticPool2d(2).initialize((1, 2, 4), backend=backend)
    x = np.array([[-1, -2, 3e30, 0], [0, -3, 0, 0]], np.float32).reshape(1, 2, 4, 1)
    for mode in ("predict", TRAIN, SAMPLE):
        np.testing.assert_array_equal(forward(layer, x, mode).ravel(),
                                      np.array([0, 3e30], np.float32))


def test_a_nan_is_not_hidden(backend):
    layer = xn.StochasticPool2d(2).initialize((1, 2, 4), backend=backend, dtype="float64")
    x = few_values((1, 2, 4, 200), "float64")
    x[~np.isfinite(x)] = np.nan
    lost = np.isnan(x.reshape(2, 2, 2, 200)).any(axis=(0, 2))
    for mode in ("predict", TRAIN):
        np.testing.assert_array_equal(np.isnan(forward(layer, x, mode))[0, 0], lost)


def test_each_step_draws_other_elements_and_predictions_do_not_draw():
    net = xn.Sequential([xn.StochasticPool2d(2)], input_shape=(2, 6, 6), backend="numpy", seed=1)
    x = np.abs(normal((5, 2, 6, 6), "float32"))
    first, second = (net(x, mode="sample") for _ in range(2))
    assert (first != second).mean() > 0.3
    np.testing.assert_array_equal(net(x), net(x))


def test_errors():
    with pytest.raises(
            ValueError,
            match=r"StochasticPool2d: expected kernel_size to be an int or a pair of ints"):
        xn.StochasticPool2d(0)
