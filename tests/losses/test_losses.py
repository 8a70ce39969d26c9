"""Losses against their definitions as plain loops, their gradients against finite differences, and
errors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import xpnet as xn
from xpnet.losses import LOSSES, get_loss

SMALL = {np.float32: 1e-6, np.float64: 1e-14}


def cross_entropy(z: np.ndarray, t: np.ndarray) -> float:
    """z and t (K, N): -sum over k of t_k (z_k - log sum over j of exp z_j), the mean over the
    batch."""
    terms = []
    for zs, ts in zip(z.T.tolist(), t.T.tolist(), strict=True):
        top = max(zs)
        log_sum = top + math.log(math.fsum(math.exp(v - top) for v in zs))
        terms.append(math.fsum(-share * (v - log_sum) for v, share in zip(zs, ts, strict=True)))
    return math.fsum(terms) / len(terms)


def mean_squared(y: np.ndarray, t: np.ndarray) -> float:
    pairs = zip(y.ravel().tolist(), t.ravel().tolist(), strict=True)
    return math.fsum((a - b) ** 2 for a, b in pairs) / y.size


def half_squared(y: np.ndarray, t: np.ndarray) -> float:
    pairs = zip(y.ravel().tolist(), t.ravel().tolist(), strict=True)
    return math.fsum((a - b) ** 2 / 2 for a, b in pairs) / y.shape[-1]


DEFINITIONS = {"cross_entropy": cross_entropy, "mean_squared_error": mean_squared,
               "half_squared_error": half_squared}


def one_hot(labels: np.ndarray, classes: int) -> np.ndarray:
    return np.array([[float(label == k) for label in labels] for k in range(classes)])  # (K, N)


def distribution(rng: np.random.Generator, shape: tuple[int, ...]) -> np.ndarray:
    t = rng.random(shape)
    return t / t.sum(axis=0)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", DEFINITIONS)
def test_value_and_gradient(name, dtype, backend):
    rng = np.random.default_rng(1)
    y, t = rng.normal(0, 2, (5, 7)).astype(dtype), distribution(rng, (5, 7)).astype(dtype)
    y.flags.writeable = t.flags.writeable = False
    loss, dy = LOSSES[name]()(backend, backend.asarray(y), backend.asarray(t))
    assert loss.shape == () and dy.shape == y.shape
    assert loss.dtype == dy.dtype == dtype                      # float32 stays float32
    expected = DEFINITIONS[name](y.astype(np.float64), t.astype(np.float64))
    assert float(loss) == pytest.approx(expected, rel=4 * SMALL[dtype])
    if dtype is np.float64:                                     # one element after the other
        h = 1e-6
        for index in np.ndindex(y.shape):
            above, below = y.copy(), y.copy()
            above[index] += h
            below[index] -= h
            slope = (DEFINITIONS[name](above, t) - DEFINITIONS[name](below, t)) / (2 * h)
            assert float(backend.to_numpy(dy)[index]) == pytest.approx(slope, rel=1e-6, abs=1e-8)


@given(classes=st.integers(1, 12), samples=st.integers(1, 9), seed=st.integers(0, 99),
       scale=st.sampled_from([1e-3, 1.0, 30.0]))
def test_labels_are_the_one_hot_targets(classes, samples, seed, scale):
    rng = np.random.default_rng(seed)
    z, labels = rng.normal(0, scale, (classes, samples)), rng.integers(0, classes, samples)
    by_label = xn.CrossEntropy()(xn.Backend(), z, labels)
    by_share = xn.CrossEntropy()(xn.Backend(), z, one_hot(labels, classes))
    assert by_label[0] == by_share[0] and np.array_equal(by_label[1], by_share[1])
    assert by_label[0] == pytest.approx(cross_entropy(z, one_hot(labels, classes)), rel=1e-12,
                                        abs=1e-14)
    # a shift of all logits changes nothing
    np.testing.assert_allclose(by_label[1].sum(axis=0), 0, atol=1e-15)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_stable_for_huge_logits(dtype, backend):
    z = np.array([[1000.0, -1000.0, 1000.0, 0.0], [-1000.0, 1000.0, 1000.0, 0.0]], dtype)
    labels = np.array([0, 0, 1, 1])
    loss, dz = xn.CrossEntropy()(backend, backend.asarray(z), backend.asarray(labels))
    # certain and right: 0; certain and wrong: 2000; two equal logits: log 2, twice
    assert float(loss) == pytest.approx((0 + 2000 + 2 * math.log(2)) / 4, rel=SMALL[dtype])
    expected = np.array([[0, -1, 0.5, 0.5], [0, 1, -0.5, -0.5]]) / 4              # softmax - t
    np.testing.assert_allclose(backend.to_numpy(dz), expected, rtol=SMALL[dtype])


def test_half_squared_error_of_one_unit_is_that_of_the_textbooks():
    loss, dy = xn.HalfSquaredError()(xn.Backend(), np.array([[3.0]]), np.array([[1.0]]))
    assert loss == 2 and dy.tolist() == [[2.0]]


# --- types of targets -----------------------------------------------------------------------------

@pytest.mark.parametrize("labels",
                         [[0, 2, 1], np.array([0, 2, 1], np.uint8), np.array([0, 2, 1], np.int64),
                          np.array([0.0, 2.0, 1.0], np.float32), np.array([0, 9, 2, 9, 1, 9])[::2]])
def test_labels_of_any_real_type(labels):
    target = xn.CrossEntropy().targets(labels, (3,), np.dtype(np.float32))
    assert target.dtype.kind == "i" and target.tolist() == [0, 2, 1]


def test_booleans_are_labels_of_two_classes():
    assert xn.CrossEntropy().targets([True, False], (2,), np.dtype(np.float32)).tolist() == [1, 0]


@pytest.mark.parametrize("dtype", [bool, np.uint8, np.int64, np.float32, np.float64])
def test_one_hot_of_any_real_type(dtype):
    target = xn.CrossEntropy().targets(np.eye(3, dtype=dtype), (3,), np.dtype(np.float32))
    assert target.dtype == np.float32 and target.tolist() == np.eye(3).tolist()


def test_targets_of_a_single_output_are_numbers():
    for loss in (xn.MeanSquaredError(), xn.HalfSquaredError()):
        assert loss.targets([1, 2, 3], (1,), np.dtype(np.float32)).tolist() == [[1], [2], [3]]
        assert loss.targets([[1], [2], [3]], (1,), np.dtype(np.float32)).tolist() == [[1], [2], [3]]


NUMBERS = "CrossEntropy: targets: expected real numbers"
FINITE = "CrossEntropy: targets: expected finite numbers"
SHAPE = r"CrossEntropy: expected labels of shape \(N,\) or probabilities \(N, 3\)"
SHARES = "CrossEntropy: expected class probabilities, 0 or larger. Received: -0.5 among the targets"


@pytest.mark.parametrize("target, error, message", [
    ([0, 3], ValueError, "expected labels from 0 to 2. Received: labels from 0 to 3"),
    ([-1, 0], ValueError, "expected labels from 0 to 2. Received: labels from -1 to 0"),
    (np.array([0, 2**63], np.uint64), ValueError,
     "expected labels from 0 to 2. Received: labels from 0 to 9223372036854775808"),
    ([0.0, 1e300], ValueError, "expected labels from 0 to 2"),
    ([0, 1.5], ValueError,
     "expected labels to be whole numbers. Received: 1.5 among float64 labels"),
    ([0, math.nan], ValueError, FINITE),
    ([0, math.inf], ValueError, FINITE),
    ([[1, 0, math.nan]], ValueError, FINITE),
    (2, ValueError, SHAPE),
    ([[0], [1]], ValueError, SHAPE),
    (np.ones((2, 4)) / 4, ValueError, SHAPE),
    (np.ones((2, 3, 1)) / 3, ValueError, SHAPE),
    ([[1.5, -0.5, 0]], ValueError, SHARES),
    (np.array([0, "1"], object), TypeError, NUMBERS),
    ([0, None], TypeError, NUMBERS),
    (["0", "1"], TypeError, NUMBERS),
    ([0j, 1], TypeError, NUMBERS),
    (np.array(["2020-01-01"], "M8[D]"), TypeError, NUMBERS),
    ([[1, 0, 0], [0, 1]], ValueError,
     "CrossEntropy: targets: expected an array of numbers. Received: list"),
])
def test_refusals_of_cross_entropy(target, error, message):
    with pytest.raises(error, match=message):
        xn.CrossEntropy().targets(target, (3,), np.dtype(np.float32))


@pytest.mark.parametrize("target, error, message", [
    (np.zeros((4, 3)), ValueError, r"expected targets of shape \(N, 2\). Received: shape \(4, 3\)"),
    (np.zeros(4), ValueError, r"expected targets of shape \(N, 2\)"),
    (0.0, ValueError, r"expected targets of shape \(N, 2\)"),
    ([[0, math.nan]], ValueError, "expected finite numbers"),
    ([["a", "b"]], TypeError, "expected real numbers"),
    ([[1j, 0]], TypeError, "expected real numbers"),
])
@pytest.mark.parametrize("loss", [xn.MeanSquaredError, xn.HalfSquaredError])
def test_refusals_of_squared_errors(loss, target, error, message):
    with pytest.raises(error, match=f"{loss.__name__}: .*{message}"):
        loss().targets(target, (2,), np.dtype(np.float32))


@pytest.mark.parametrize("target", [[0], np.zeros((1, 3)), np.zeros((1, 3, 2)),
                                    np.zeros((1, 2, 3, 4)), np.zeros((1, 3, 3, 3))])
def test_cross_entropy_of_maps_needs_maps(target):
    with pytest.raises(
            ValueError,
            match=r"expected labels of shape \(N, 3, 3\) or probabilities \(N, 2, 3, 3\)"):
        xn.CrossEntropy().targets(target, (2, 3, 3), np.dtype(np.float32))


def test_losses_by_name():
    assert all(type(get_loss(name)) is kind for name, kind in LOSSES.items())
    mine = xn.CrossEntropy()
    assert get_loss(mine) is mine
    for wrong in ("crossentropy", xn.CrossEntropy, None, ["cross_entropy"]):
        with pytest.raises(ValueError, match="expected a Loss or one of cross_entropy, "
                                             "mean_squared_error, half_squared_error"):
            get_loss(wrong)


def test_a_loss_without_a_formula_raises():
    with pytest.raises(NotImplementedError,
                       match=r"Loss: expected a method terms\(backend, y, target\), or __call__"):
        xn.Loss()(xn.Backend(), np.zeros((1, 1)), np.zeros((1, 1)))


# --- softmax and its loss -------------------------------------------------------------------------

def test_a_last_softmax_is_fused_with_the_loss():
    x, y = np.random.default_rng(0).normal(size=(20, 4)), np.arange(20) % 3
    plain = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend="numpy", dtype="float64")
    fused = xn.Sequential([xn.Linear(3), xn.Softmax()], input_shape=(4,), backend="numpy",
                          dtype="float64")
    for net in (plain, fused):
        net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.5), epochs=3, batch_size=7,
                verbose=False)
    assert np.array_equal(plain.parameters, fused.parameters)
    assert plain.evaluate(x, y) == fused.evaluate(x, y)
    np.testing.assert_allclose(fused.predict(x).sum(axis=1), 1)  # the same output of the last layer
    np.testing.assert_allclose(
        np.log(fused.predict(x)) - plain.predict(x),
        (np.log(fused.predict(x)) - plain.predict(x))[:, :1].repeat(3, axis=1))


def test_logits_of_a_separate_softmax_layer():
    net = xn.Sequential([xn.Softmax()], input_shape=(2,), backend="numpy", dtype="float64")
    result = net.evaluate([[0.0, 0.0], [1.0, 1.0]], [0, 1], loss="cross_entropy")
    assert result["loss"] == pytest.approx(math.log(2)) and result["accuracy"] == 0.5


@pytest.mark.parametrize("last", [[xn.Flatten], [xn.Dropout], [xn.Dropout, xn.Flatten],
                                  [xn.GaussianDropout]])
def test_softmax_twice_by_the_loss(last):
    net = xn.Sequential([xn.Linear(3), xn.Softmax(), *(layer() for layer in last)],
                        input_shape=(4,), backend="numpy")
    before = net.parameters.copy()
    with pytest.raises(ValueError, match="CrossEntropy: expected logits, or a Softmax as the very "
                                         "last layer.*applied twice"):
        net.fit(np.zeros((2, 4)), [0, 1], loss="cross_entropy", optimizer=xn.SGD(0.1),
                verbose=False)
    assert np.array_equal(net.parameters, before)


@pytest.mark.parametrize("between", [[], [xn.Dropout]])
def test_softmax_twice_by_layers(between):
    with pytest.raises(ValueError, match="Softmax 'softmax2': expected softmax to be applied once"):
        xn.Sequential([xn.Linear(3), xn.Softmax(), *(layer() for layer in between), xn.Softmax()],
                      input_shape=(4,), backend="numpy")
