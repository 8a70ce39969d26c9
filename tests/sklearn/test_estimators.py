"""xpnet.sklearn: the estimators keep scikit-learn's contract, and work in its tools."""

from __future__ import annotations

import copy
import pickle

import numpy as np
import pytest
from processes import run_script
from tiers import first

import xpnet as xn

pytest.importorskip("sklearn", minversion="1.6", reason="scikit-learn is not installed")
from sklearn.base import clone
from sklearn.compose import TransformedTargetRegressor
from sklearn.exceptions import NotFittedError
from sklearn.model_selection import GridSearchCV, cross_val_score
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler
from sklearn.utils.estimator_checks import check_estimator

from xpnet.sklearn import Classifier, Regressor

ROUNDING = ("float32: the sums of a product are rounded differently in a batch of another size or "
            "order, by about 1e-7")
EXPECTED_FAILURES = {
    "check_sample_weight_equivalence_on_dense_data":
        "training goes by batches: a sample that is there twice is in two batches, a weight of 2 "
        "in one",
    "check_methods_sample_order_invariance": ROUNDING,
    "check_methods_subset_invariance": ROUNDING,
}


@pytest.mark.filterwarnings("default")      # the checks themselves warn
@pytest.mark.parametrize("kind", first([Classifier, Regressor], Classifier))
def test_the_contract_of_scikit_learn(kind):
    results = check_estimator(kind(backend="numpy"), expected_failed_checks=EXPECTED_FAILURES,
                              on_skip=None)
    assert sum(result["status"] == "passed" for result in results) > 50
    failed = {result["check_name"] for result in results if result["status"] == "xfail"}
    assert failed <= EXPECTED_FAILURES.keys() and len(EXPECTED_FAILURES) <= 3


@pytest.mark.filterwarnings("default")
def test_in_float64_batches_do_not_matter():
    """The rounding of float64 is below the tolerance of scikit-learn's checks."""
    by_batches = EXPECTED_FAILURES.keys() - {"check_sample_weight_equivalence_on_dense_data"}
    results = check_estimator(Classifier(backend="numpy", dtype="float64", epochs=10),
                              on_fail=None, on_skip=None)
    found = {result["check_name"]: result["status"] for result in results}
    assert {found[name] for name in by_batches} == {"passed"}


@pytest.fixture(scope="module")
def digits():
    x, y, x_test, y_test = xn.data.digits().arrays()
    return x[:600], y[:600], x_test, y_test


def test_a_pipeline_learns_digits_with_names(digits):
    x, y, x_test, y_test = digits
    names = np.array(["zero", "one", "two", "three", "four", "five", "six", "seven", "eight",
                      "nine"])
    pipe = make_pipeline(StandardScaler(), Classifier(epochs=5, lr=3e-3, backend="numpy"))
    pipe.fit(x.reshape(len(x), -1), names[y])
    flat = x_test.reshape(len(x_test), -1)
    assert pipe.score(flat, names[y_test]) > 0.85
    assert list(pipe.classes_) == sorted(names)
    p = pipe.predict_proba(flat)
    assert p.shape == (len(flat), 10)
    np.testing.assert_allclose(p.sum(axis=1), 1, rtol=1e-6)
    assert (pipe.classes_[p.argmax(axis=1)] == pipe.predict(flat)).all()
    assert pipe[-1].network_.classes == tuple(pipe.classes_)


def test_images_keep_their_shape(digits):
    x, y, x_test, y_test = digits
    found = Classifier(epochs=5, lr=3e-3, backend="numpy").fit(x, y)
    assert [type(layer) for layer in found.network_.layers][:2] == [xn.Conv2d, xn.MaxPool2d]
    assert found.n_features_in_ == 1 and found.score(x_test, y_test) > 0.85
    with pytest.raises(ValueError, match=r"expected input of shape \(N, 1, 8, 8\)"):
        found.predict(x_test[:, :, :4])


def test_a_network_of_ones_own_and_its_bits(digits):
    """The estimator trains what Network.fit trains, to the same bits."""
    x, y, x_test, _ = digits

    def build(input_shape, classes):
        return [xn.Flatten(), xn.Linear(classes), xn.Softmax()]

    found = Classifier(build, optimizer=xn.SGD(0.1), epochs=2, seed=3, backend="numpy").fit(x, y)
    net = xn.Sequential(build((1, 8, 8), 10), input_shape=(1, 8, 8), seed=3, backend="numpy")
    net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, verbose=False)
    np.testing.assert_array_equal(found.network_.predict(x_test), net.predict(x_test))
    np.testing.assert_allclose(found.predict_proba(x_test), net.predict(x_test), atol=1e-6)
    other = Classifier(lambda shape, classes: net, epochs=1).fit(x, y)
    assert other.network_ is net


def test_the_learning_rate_does_not_change_the_optimizer(digits):
    x, y, *_ = digits
    adam = xn.Adam(1e-3)
    found = Classifier(optimizer=adam, lr=0.5, epochs=1, backend="numpy").fit(x, y)
    assert adam.lr == 1e-3 and found.history_["lr"] == [0.5]


@pytest.mark.parametrize("processes", first([1, 2], 1))
def test_grid_search(processes, digits):
    x, y, x_test, y_test = digits
    search = GridSearchCV(Classifier(epochs=2, backend="numpy"), {"lr": [1e-6, 3e-3]}, cv=2,
                          n_jobs=processes)
    search.fit(x, y)
    assert search.best_params_ == {"lr": 3e-3}
    alone = Classifier(epochs=2, lr=3e-3, backend="numpy").fit(x, y)
    np.testing.assert_array_equal(search.predict_proba(x_test), alone.predict_proba(x_test))


@pytest.mark.parametrize("copied", [copy.deepcopy, lambda e: pickle.loads(pickle.dumps(e))])
def test_copies_predict_the_same(copied, digits):
    x, y, x_test, _ = digits
    found = Classifier(epochs=1, callbacks=(xn.EarlyStopping("loss"),), backend="numpy").fit(x, y)
    again = copied(found)
    assert again.network_ is not found.network_
    np.testing.assert_array_equal(again.predict_proba(x_test), found.predict_proba(x_test))


def test_a_clone_is_not_fitted(digits):
    x, y, x_test, _ = digits
    found = Classifier(optimizer=xn.SGD(0.25), epochs=1, backend="numpy").fit(x, y)
    new = clone(found)
    assert new.optimizer is not found.optimizer and new.optimizer.lr == 0.25
    for predict in (new.predict, new.predict_proba, Regressor().predict):
        with pytest.raises(NotFittedError):
            predict(x_test)


def test_regression_of_one_and_of_two_numbers():
    rng = np.random.default_rng(0)
    x = rng.standard_normal((200, 3))
    y = 100 + 10 * (x @ rng.standard_normal((3, 2)))
    make = TransformedTargetRegressor(Regressor(epochs=30, lr=1e-2, backend="numpy"),
                                      transformer=StandardScaler())
    assert cross_val_score(make, x, y[:, 0], cv=2).min() > 0.9
    found = make.fit(x, y)
    assert found.predict(x).shape == (200, 2) and found.score(x, y) > 0.95
    one = Regressor(epochs=1, backend="numpy").fit(x, y[:, 0])
    assert one.predict(x).shape == (200,)


def test_sample_weights_count(digits):
    """With weights of 0 for one class, the network never predicts it."""
    x, y, x_test, _ = digits
    found = Classifier(epochs=5, lr=3e-3, backend="numpy").fit(x, y, sample_weight=(y != 3) * 1.0)
    assert 3 not in found.predict(x_test)


def test_wrong_settings_are_refused(digits):
    x, y, *_ = digits
    for settings in ({"build": 3}, {"loss": "no"}, {"optimizer": "no"}, {"lr": -1.0},
                     {"epochs": 0}, {"backend": "no"}, {"seed": -1}):
        with pytest.raises((ValueError, TypeError, xn.BackendError), match="expected .* Received"):
            Classifier(**{"backend": "numpy"} | settings).fit(x, y)
    scores = Classifier(loss=xn.CrammerSingerHinge(), epochs=1, backend="numpy").fit(x, y)
    assert scores.score(x, y) > 0.1
    with pytest.raises(ValueError, match="expected a loss that includes softmax or sigmoid"):
        scores.predict_proba(x)


def test_without_scikit_learn_the_error_names_the_extra():
    said = run_script("""
import sys
sys.modules["sklearn"] = None           # as if it was not installed
import xpnet
try:
    import xpnet.sklearn
except ImportError as error:
    print(error, file=sys.stderr)
""")
    assert said.startswith("xpnet.sklearn: expected scikit-learn") and "xpnet[data]" in said
