"""Dropout: the mask depends only on (seed, layer, step, use), bit for bit, on every backend."""

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import dropout_keep, philox

from xpnet import SAMPLE, TRAIN, Dropout

words = st.one_of(st.integers(0, 9), st.integers(0, 2**64 - 1))


def bound(p, backend, *, layer=Dropout, seed=0, index=0, step=0, use=0, shape=(3, 5, 4),
          dtype="float32"):
    """A dropout layer as in a network: with number `index`, and the counters of the network."""
    layer = layer(p)
    layer.initialize(shape, backend=backend, dtype=dtype)
    layer.bind(backend, seed, backend.asarray(np.array([step, use], np.uint64)))
    layer.enter(index)
    return layer


def mask(layer, shape, dtype="float32"):
    """Which elements of an array of ones are kept."""
    x = layer.backend.asarray(np.ones(shape, dtype))
    return layer.backend.to_numpy(layer.forward(x, mode=SAMPLE)) != 0


def test_the_oracle_agrees_with_numpys_philox():
    """The oracle against NumPy's generator, which increments its counter before the first block."""
    for counter, key in ((0, (0, 0)), (2**192 * 7 + 2**128 * 5, (2**64 - 1, 3)),
                         (2**256 - 2, (1, 2**63))):
        limbs = np.array([counter >> shift & 2**64 - 1 for shift in (0, 64, 128, 192)], np.uint64)
        expected = np.random.Philox(key=np.array(key, np.uint64), counter=limbs).random_raw(4)
        assert philox(counter + 1, key) == expected.tolist()


@given(st.integers(1, 40), st.integers(1, 3), st.sampled_from([0.0, 0.1, 0.5, 0.75, 0.999]), words,
       st.integers(0, 99), words, words)
def test_the_mask_has_the_bits_of_philox(backend, features, batch, p, seed, index, step, use):
    layer = bound(p, backend, seed=seed, index=index, step=step, use=use, shape=(features,))
    keep = dropout_keep((features, batch), p, seed, index, step, use)
    np.testing.assert_array_equal(mask(layer, (features, batch)), keep)


@pytest.mark.parametrize("offset, kept", [(-0.4, True), (0, True), (0.4, True), (0.6, False)])
def test_an_element_stays_if_its_bits_are_at_least_the_rounded_threshold(backend, offset, kept):
    bits = philox(1, (0, 0))[0] & 0xFFFFFFFF            # of the first element
    layer = bound((bits + offset) / 2**32, backend)
    assert mask(layer, (3, 5, 4, 6)).flat[0] == kept


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_what_is_kept_is_scaled_and_what_is_dropped_is_zero(backend, dtype):
    layer = bound(0.25, backend, seed=3, dtype=dtype)
    x, dy = np.random.default_rng(0).standard_normal((2, 3, 5, 4, 6)).astype(dtype)
    keep = dropout_keep(x.shape, 0.25, 3, 0, 0, 0)
    y = backend.to_numpy(layer.forward(backend.asarray(x), mode=TRAIN))
    dx = backend.to_numpy(layer.backward(backend.asarray(dy)))
    assert y.dtype == dx.dtype == dtype
    np.testing.assert_allclose(y, np.where(keep, x / 0.75, 0), rtol=1e-6)
    np.testing.assert_allclose(dx, np.where(keep, dy / 0.75, 0), rtol=1e-6)


def test_each_of_seed_layer_step_and_use_changes_the_mask(backend):
    masks = {mask(bound(0.5, backend, **{which: value}), (3, 5, 4, 6)).tobytes()
             for which in ("seed", "index", "step", "use") for value in (1, 2, 2**40)}
    assert len(masks) == 12
    assert mask(bound(0.5, backend), (3, 5, 4, 6)).tobytes() not in masks


def test_the_mask_is_the_same_until_a_counter_moves(backend):
    layer = bound(0.5, backend)
    first = mask(layer, (3, 5, 4, 6))
    np.testing.assert_array_equal(mask(layer, (3, 5, 4, 6)), first)
    layer.counters[0] += 1
    assert (mask(layer, (3, 5, 4, 6)) != first).any()


def test_a_larger_batch_only_adds_bits(backend):
    """Element i takes word i, whatever the shape."""
    layer = bound(0.5, backend, shape=(1,))
    np.testing.assert_array_equal(mask(layer, (1, 100))[:, :37], mask(layer, (1, 37)))


@pytest.mark.parametrize("p", [0.0, 0.1, 0.5, 0.9])
def test_the_fraction_that_is_kept(backend, p):
    kept = mask(bound(p, backend, shape=(100, 10, 10)), (100, 10, 10, 10)).mean()
    assert abs(kept - (1 - p)) <= 4 * (p * (1 - p) / 100_000) ** 0.5      # four standard deviations


def test_prediction_is_the_identity(backend):
    layer = bound(0.9, backend)
    x = np.random.default_rng(0).standard_normal((3, 5, 4, 6)).astype(np.float32)
    np.testing.assert_array_equal(backend.to_numpy(layer.forward(backend.asarray(x))), x)


def test_a_dropped_nan_is_zero_and_a_kept_one_stays(backend):
    layer = bound(0.5, backend)
    y = backend.to_numpy(
        layer.forward(backend.asarray(np.full((3, 5, 4, 6), np.nan, np.float32)), mode=SAMPLE))
    keep = dropout_keep(y.shape, 0.5, 0, 0, 0, 0)
    assert np.isnan(y[keep]).all() and not y[~keep].any()
