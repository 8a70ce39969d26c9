"""find_lr: the rates, the losses, the suggestion; and that the network is as it was."""

from __future__ import annotations

import numpy as np
import pytest
from nets import blobs, small, untouched

import xpnet as xn

X, Y = blobs(90)


def test_the_network_and_its_training_are_as_they_were(backend):
    net = xn.Sequential([xn.BatchNorm1d(), xn.Linear(8), xn.Dropout(0.5), xn.Linear(3)],
                        input_shape=(2,), backend=backend)
    net.fit(X, Y, loss="cross_entropy", verbose=False)
    step, grads = net.step, backend.to_numpy(net.grads).copy()
    with untouched(net):
        found = net.find_lr(X, Y, loss="cross_entropy", optimizer=step.optimizer, steps=20)
    assert net.step is step and len(found.rates) <= 20
    assert np.array_equal(backend.to_numpy(net.grads), grads)


def test_rates_grow_by_the_same_factor_and_losses_are_those_before_the_steps():
    found = small().find_lr(X, Y, loss="cross_entropy", optimizer=xn.SGD(), batch_size=30,
                            low=1e-5, high=1e-3, steps=5)
    np.testing.assert_allclose(found.rates, [1e-5, 10**-4.5, 1e-4, 10**-3.5, 1e-3])
    mean, expected = 0.0, []
    for k, loss in enumerate(found.losses):
        mean = 0.9 * mean + 0.1 * loss
        expected.append(mean / (1 - 0.9 ** (k + 1)))
    np.testing.assert_allclose(found.smoothed, expected)
    assert found.losses[0] == found.smoothed[0]


def test_the_suggestion_is_where_a_quadratic_loss_falls():
    """w is one weight, the loss is (w - 1)^2: SGD diverges for rates above 1."""
    x = np.ones((8, 1))
    net = xn.Sequential([xn.Linear(1, bias=False)], input_shape=(1,), backend="numpy")
    found = net.find_lr(x, x, loss="mean_squared_error", optimizer=xn.SGD(), batch_size=8,
                        low=1e-6, high=1e3, steps=90)
    assert found.rates[-1] < 1e3                    # it ended early
    assert 1e-3 < found.suggestion < 1
    axis = found.plot().axes[0]
    assert [line.get_label() for line in axis.lines][:2] == ["loss", "smoothed"]
    assert [list(line.get_ydata()) for line in axis.lines[:2]] == [
        list(found.losses), list(found.smoothed)]
    assert list(axis.lines[2].get_xdata()) == [found.suggestion] * 2


def test_the_same_call_finds_the_same():
    net = small()
    first, second = (net.find_lr(X, Y, loss="cross_entropy", steps=30) for _ in range(2))
    assert first == second


def test_a_loss_that_falls_nowhere_has_no_suggestion():
    net = xn.Sequential([xn.Linear(1, bias=False)], input_shape=(1,), backend="numpy")
    found = net.find_lr(np.zeros((4, 1)), np.ones((4, 1)), loss="mean_squared_error", steps=5)
    assert found.suggestion is None and len(found.rates) == 5


def test_high_has_to_be_above_low():
    with pytest.raises(ValueError, match="find_lr: expected high to be larger than low, 0.1. Rec"):
        small().find_lr(X, Y, loss="cross_entropy", low=0.1, high=0.1)
