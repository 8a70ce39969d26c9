"""fit(class_weight=): as factors of the samples' weights; and the default optimizer."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import blobs, same, small, values

import xpnet as xn

X, Y = blobs(60)
Y = np.where(np.arange(60) < 40, Y, 0)          # 34, 13 and 13 samples


def fitted(loss: Any = "cross_entropy", labels: Any = Y, **settings: Any) -> dict[str, np.ndarray]:
    net = small()
    net.fit(X, labels, loss=loss, optimizer=xn.SGD(0.1), epochs=2, verbose=False, **settings)
    return values(net)


@pytest.mark.parametrize("given, weights", [
    ({0: 0.5, 2: 3}, [0.5, 1, 3]), ([1, 0, 2.5], [1, 0, 2.5]), (np.array([1, 2, 3]), [1, 2, 3]),
    ("balanced", [60 / (3 * 34), 60 / (3 * 13), 60 / (3 * 13)]), ({}, [1, 1, 1])])
def test_they_are_weights_of_samples(given, weights):
    assert np.bincount(Y).tolist() == [34, 13, 13]
    own = np.linspace(0.5, 2, 60)
    by_class = np.array(weights)[Y]
    assert same(fitted(class_weight=given), fitted(sample_weight=by_class))
    assert same(fitted(class_weight=given, sample_weight=own),
                fitted(sample_weight=by_class * own.astype(np.float32)))


def test_a_class_that_does_not_occur_is_not_counted():
    two = np.where(Y == 1, 2, Y)
    by_class = np.where(two == 0, 60 / (2 * 34), 60 / (2 * 26))
    assert same(fitted(labels=two, class_weight="balanced"),
                fitted(labels=two, sample_weight=by_class))


def test_ignored_labels_are_not_counted():
    loss = xn.CrossEntropy(ignore_index=1)
    by_class = np.array([47 / (2 * 34), 1, 47 / (2 * 13)])[Y]
    assert same(fitted(loss, class_weight="balanced"), fitted(loss, sample_weight=by_class))


@pytest.mark.parametrize("given, message", [
    ({3: 1.0}, "class_weight to have classes from 0 to 2. Received: class=3"),
    ({"a": 1.0}, "class_weight to have classes"), ({True: 1.0}, "class_weight to have classes"),
    ({0: -1.0}, r"class_weight\[0\] to be a number"),
    ([1, 2], "class_weight to be .* or 3 weights. Received"),
    ("balance", 'class_weight to be "balanced", a dict'),
    ([1, 2, np.nan], r"class_weight\[2\]")])
def test_what_is_refused(given, message):
    with pytest.raises(ValueError, match=f"fit: expected {message}"):
        fitted(class_weight=given)


def test_only_for_labels():
    with pytest.raises(ValueError, match="a label for each sample, for class_weight"):
        fitted("mean_squared_error", np.eye(3)[Y], class_weight="balanced")
    with pytest.raises(ValueError, match="a label for each sample, for class_weight"):
        fitted("cross_entropy", np.eye(3)[Y], class_weight="balanced")


def test_the_default_optimizer_is_adam():
    a, b = small(), small()
    a.fit(X, Y, loss="cross_entropy", verbose=False)
    b.fit(X, Y, loss="cross_entropy", optimizer=xn.Adam(), verbose=False)
    assert same(values(a), values(b))


# --- probabilities --------------------------------------------------------------------------------

def test_probabilities_are_the_softmax_of_the_outputs(backend):
    net = small(backend)
    with pytest.raises(ValueError, match="predict_proba: expected loss"):
        net.predict_proba(X)
    net.fit(X, Y, loss="cross_entropy", verbose=False)
    e = np.exp(net.predict(X).astype(float))
    np.testing.assert_allclose(net.predict_proba(X, batch_size=7),
                               e / e.sum(axis=1, keepdims=True), rtol=1e-5)


def test_probabilities_of_the_other_kinds(backend):
    """A sigmoid in the loss; a softmax that is a layer; and a loss without probabilities."""
    one = small(backend, classes=1)
    np.testing.assert_allclose(one.predict_proba(X, loss=xn.BinaryCrossEntropy(from_logits=True)),
                               1 / (1 + np.exp(-one.predict(X).astype(float))), rtol=1e-5)
    net = xn.Sequential([xn.Linear(3), xn.Softmax()], input_shape=(2,), backend=backend)
    for loss in ("cross_entropy", "mean_squared_error"):
        assert np.array_equal(net.predict_proba(X, loss=loss), net.predict(X))
    with pytest.raises(ValueError, match="predict_proba: expected a loss that includes softmax"):
        one.predict_proba(X, loss="mean_squared_error")


def test_names_of_the_classes_of_a_dataset():
    data = xn.data.Dataset(X, Y, classes=["daisy", "rose", "tulip"], scale=None)
    for given, numbers in (({"rose": 2.5, 0: 0.5}, {1: 2.5, 0: 0.5}), ({"tulip": 3}, {2: 3})):
        for more in ({}, {"validation": 0.2}):
            assert same(fitted_on(data, given, **more), fitted_on(data, numbers, **more))


def fitted_on(data: xn.data.Dataset, class_weight: Any, **more: Any) -> dict[str, np.ndarray]:
    net = small()
    net.fit(data, optimizer=xn.SGD(0.1), class_weight=class_weight, verbose=False, **more)
    return values(net)


@pytest.mark.parametrize("given, message", [
    ({"dasy": 2}, r"class_weight to have names of classes, perhaps \"daisy\". Received: "
                  r"class='dasy'"),
    ({"oak": 2}, r"class_weight to have names of classes among \('daisy', 'rose', 'tulip'\). "),
    ({"rose": 1, 1: 2}, "class_weight to have each class once. Received: class=1"),
    ({"rose": -1}, r"class_weight\['rose'\] to be a number, 0 or larger")])
def test_names_that_are_refused(given, message):
    data = xn.data.Dataset(X, Y, classes=["daisy", "rose", "tulip"], scale=None)
    with pytest.raises(ValueError, match=f"fit: expected {message}"):
        fitted_on(data, given)
    with pytest.raises(ValueError, match="names are known for a Dataset"):
        fitted(class_weight={"rose": 1.0})
