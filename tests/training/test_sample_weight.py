"""Sample weights in training: what they multiply, their order, and captured steps."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import LATE, learned, network, pretended, samples
from nets import same
from tiers import first

import xpnet as xn

RNG = np.random.default_rng(0)
X, Y = RNG.standard_normal((23, 4)).astype(np.float32), RNG.integers(0, 3, 23)
SETTINGS: dict[str, Any] = {"optimizer": xn.SGD(0.1), "epochs": 3, "batch_size": 8,
                            "verbose": False}


def trained(backend: xn.Backend, x: np.ndarray, y: np.ndarray,
            loss: xn.Loss | str = "cross_entropy", **settings: Any) -> Any:
    net = xn.Sequential([xn.Linear(6, activation="tanh"), xn.Linear(3)], input_shape=(4,),
                        backend=backend, seed=1)
    history = net.fit(x, y, loss=loss, **SETTINGS | settings)
    return history, net.backend.to_numpy(net.parameters).copy()


def test_a_weight_of_two_is_the_sample_twice(backend):
    """For losses that are summed, with all samples in one batch."""
    weights = np.arange(23) % 3
    twice = np.repeat(np.arange(23), weights)
    whole: dict[str, Any] = {"loss": xn.CrossEntropy(reduction="sum"), "batch_size": 64,
                             "optimizer": xn.SGD(0.01)}
    _, weighted = trained(backend, X, Y, sample_weight=weights, **whole)
    _, repeated = trained(backend, X[twice], Y[twice], **whole)
    np.testing.assert_allclose(weighted, repeated, rtol=2e-5, atol=1e-6)


def test_weights_stay_with_their_samples_when_these_are_shuffled(backend):
    """A sample of weight 0 may have any label, because it is not learned."""
    weights = (np.arange(23) % 4 > 0).astype(np.float64)
    other = np.where(weights == 0, (Y + 1) % 3, Y)
    (_, a), (_, b), (_, c) = (trained(backend, X, y, sample_weight=w)
                              for y, w in ((Y, weights), (other, weights), (other, None)))
    assert a.tobytes() == b.tobytes() != c.tobytes()


def test_weights_of_one_change_nothing_but_rounding(backend):
    (_, weighted), (_, plain) = trained(backend, X, Y, sample_weight=np.ones(23)), trained(
        backend, X, Y)
    np.testing.assert_allclose(weighted, plain, rtol=1e-5, atol=1e-6)


def test_weights_do_not_change_the_divisor(backend):
    """The loss of a batch is the sum of w f over N, and not over the sum of w."""
    history, _ = trained(backend, X, Y, sample_weight=np.full(23, 0.5), epochs=1, batch_size=23)
    plain, _ = trained(backend, X, Y, epochs=1, batch_size=23)
    np.testing.assert_allclose(history["loss"], [0.5 * loss for loss in plain["loss"]], rtol=1e-6)
    assert history["accuracy"] == plain["accuracy"]


def test_the_weights_are_not_written_to(backend):
    weights = np.ones(23, np.float32)
    weights.flags.writeable = False
    trained(backend, X, Y, sample_weight=weights)


@pytest.mark.parametrize("late", first(LATE, "late"))
def test_captured_steps_give_the_same_bits(late: str, folder: Path):
    """A captured step uses the weights of its batch."""
    x, y = samples(43)
    weights = np.random.default_rng(1).uniform(0, 2, 43)
    results = []
    for capture in (False, True):
        with pretended(folder, LATE[late]) as (backend, gpus):
            net = network(backend)
            net.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-2), epochs=4, batch_size=8,
                    verbose=False, capture=capture, sample_weight=weights)
            results.append(learned(net))
            assert (gpus.launches > 0) is capture
    assert same(*results)


class Old(xn.CrossEntropy):
    """A user's loss that does not take sample weights."""

    def __call__(self, backend, y, target):
        return super().__call__(backend, y, target)


@pytest.mark.parametrize("settings, error, text", [
    ({"sample_weight": np.ones(22)}, ValueError,
     r"fit: expected sample_weight to have a number for each of the 23 samples\. Received: an "
     r"array of shape \(22,\)\."),
    ({"sample_weight": np.ones((23, 1))}, ValueError, r"Received: an array of shape \(23, 1\)\."),
    ({"sample_weight": np.full(23, np.nan)}, ValueError,
     "fit: sample_weight: expected finite numbers"),
    ({"sample_weight": np.full(23, 1e39)}, ValueError,
     "fit: sample_weight: expected finite numbers"),
    ({"sample_weight": ["a"] * 23}, TypeError, "fit: sample_weight: expected real numbers"),
    ({"sample_weight": np.ones(23), "loss": Old()}, ValueError,
     r"fit: expected a loss that takes sample_weight, for weights of samples\. Received: Old, "
     r"whose __call__ does not\."),
], ids=["fewer", "axes", "nan", "large", "words", "loss"])
def test_errors(settings: dict[str, Any], error: type[Exception], text: str):
    with pytest.raises(error, match=text):
        trained(xn.get_backend("numpy"), X, Y, **settings)


def test_a_single_step_with_weights():
    net = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend="numpy", seed=1)
    step = xn.TrainStep(net, "cross_entropy", xn.SGD(0.1))
    before = net.parameters.copy()
    loss, _ = step(net.batch_last(X), Y, None, np.zeros(23, np.float32))
    assert loss == 0 and np.array_equal(net.parameters, before)
    step(net.batch_last(X), Y, sample_weight=np.ones(23, np.float32))
    assert not np.array_equal(net.parameters, before)
