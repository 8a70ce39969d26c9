"""Numbers that are not finite, also after the cast to the network's dtype, are refused before any
work."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from nets import blobs, small, untouched

import xpnet as xn
from xpnet.optim.base import Updater
from xpnet.training.batches import finite_samples

HUGE = [1e39, -1e39, 3.4028236e38, 1e308]           # finite in float64, infinite in float32
LARGEST = float(np.finfo(np.float32).max)
INFINITE = r"Received: -?[\d.]+e\+\d+ among them, which is infinite in float32\."


def refused(net: xn.Network, call: Any, message: str) -> None:
    with untouched(net), pytest.raises(ValueError, match=message):
        call()


# --- samples and targets --------------------------------------------------------------------------

@pytest.mark.parametrize("huge", HUGE)
def test_samples_that_float32_cannot_hold(huge):
    x, y = blobs()
    net, settings = small(), {"loss": "cross_entropy", "optimizer": xn.SGD(0.1), "verbose": False}
    bad = x.astype(np.float64)
    bad[3, 1] = huge
    for call in (lambda: net.fit(bad, y, **settings),
                 lambda: net.fit(x, y, **settings, validation=(bad, y)),
                 lambda: net.evaluate(bad, y, loss="cross_entropy")):
        refused(net, call, rf"expected finite samples\. {INFINITE}")
    small(dtype="float64").fit(bad * 1e-300, y, **settings)
    bad[3, 1] = math.copysign(LARGEST, huge)
    assert finite_samples(net, bad, "fit")[0] is bad


def test_samples_that_float64_cannot_hold():
    x, y = blobs()
    bad = x.astype(np.longdouble)
    bad[3, 1] = np.finfo(np.longdouble).max
    if np.isfinite(float(bad[3, 1])):
        pytest.skip("a long double is a double here")
    net = small(dtype="float64")
    refused(net, lambda: net.evaluate(bad, y, loss="cross_entropy"),
            "among them, which is infinite in float64")


@pytest.mark.parametrize("loss, target", [
    ("mean_squared_error", np.zeros((4, 3))), (xn.PoissonLikelihood(), np.zeros((4, 3))),
    (xn.CrossEntropy(), np.full((4, 3), 1 / 3)), ("binary_cross_entropy", np.zeros((4, 3)))])
@pytest.mark.parametrize("huge", [1e39, math.inf, math.nan])
def test_targets_that_float32_cannot_hold(huge, loss, target):
    net, x = small(), np.zeros((4, 2), np.float32)
    target[1, 2] = huge
    message = INFINITE if huge == 1e39 else r"Received: NaN or infinity among them\."
    for call in (lambda: net.evaluate(x, target, loss=loss),
                 lambda: net.fit(x, target, loss=loss, optimizer=xn.SGD(0.1), verbose=False)):
        refused(net, call, rf"targets: expected finite numbers\. {message}")


def test_fitted_layers():
    x = np.random.default_rng(0).normal(size=(6, 4))
    x[2, 1] = 1e39
    net = xn.Sequential([xn.Whitening(eps=0.1)], input_shape=(4,), backend="numpy")
    refused(net, lambda: net.layers[0].fit(x),
            rf"Whitening.*: expected finite numbers\. {INFINITE}")
    images = np.zeros((2, 1, 6, 6))
    images[0, 0, 3, 3] = 1e39
    net = xn.Sequential([xn.DeconvolutionalNetwork2d(2, 3)], input_shape=(1, 6, 6), backend="numpy")
    refused(net, lambda: net.layers[0].learn(images),
            rf"DeconvolutionalNetwork2d.*: expected finite numbers\. {INFINITE}")
    net = xn.Sequential([xn.BatchNorm2d()], input_shape=(1, 6, 6), backend="numpy")
    refused(net, lambda: net.population_statistics(images),
            rf"population_statistics: expected finite samples\. {INFINITE}")


# --- learning rates -------------------------------------------------------------------------------

@pytest.mark.parametrize("optimizer", [xn.SGD(0.1), xn.Adam(), xn.Regularized(xn.Lion())],
                         ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("lr", [math.nan, -0.1, math.inf, "0.1", None, True])
def test_a_learning_rate_that_is_set_later_is_checked(optimizer, lr):
    before = optimizer.lr
    with pytest.raises(ValueError, match="expected lr to be a number, 0 or larger. Received: lr="):
        optimizer.lr = lr
    assert optimizer.lr == before
    optimizer.lr = np.float32(0.25)
    assert optimizer.lr == 0.25


@pytest.mark.parametrize("lr", [math.nan, -0.1, math.inf])
def test_the_learning_rate_of_one_step_is_checked(lr):
    net = small()
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam())
    x, y = np.zeros((2, 4), np.float32), np.zeros(4, np.int64)
    refused(net, lambda: step(x, y, lr),
            "Adam: expected lr to be a number, 0 or larger. Received: lr=")
    assert set(step.updater.steps.values()) == {0}


class Own(xn.schedules.Schedule):
    """Returns `value` from the middle of the training on, 1 before."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def factor(self, t: float) -> Any:
        return self.value if t > 0.5 else 1.0


@pytest.mark.parametrize("value", [math.nan, -1.0, math.inf, None, "1"])
@pytest.mark.parametrize("around", [False, True])
def test_the_value_of_a_schedule_is_checked(around, value):
    """Before the epoch in which it would be used. A WarmUp returns the value of its schedule."""
    net, (x, y) = small(), blobs()
    schedule = xn.schedules.WarmUp(Own(value), warmup=0.25) if around else Own(value)
    rows: list[Any] = []
    with pytest.raises((ValueError, TypeError),
                       match=r"(WarmUp|Own): expected factor\(t\) to be a finite number, 0 or "
                             r"larger\. Received: factor\(0\.[5-9]\d*\)="):
        net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=4, batch_size=30,
                schedule=schedule, verbose=False, until=rows.append)
    assert len(rows) in (2, 3) and np.isfinite(net.parameters).all()


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_settings_are_finite_in_the_networks_dtype(dtype):
    """1e39 and 1e-50 are finite Python floats; in float32 they are infinity and 0."""
    for optimizer in (xn.SGD(1e39), xn.Adam(weight_decay=1e39), xn.Regularized(xn.RMSprop(1e39))):
        net = small(dtype=dtype)
        updater = Updater(optimizer, net.buffers)
        if dtype == "float64":
            updater.step()
            continue
        refused(net, updater.step, rf"{type(optimizer).__name__}: expected settings that are "
                                   rf"finite in float32. Received: 1e\+39.")
    for optimizer in (xn.Adam(eps=1e-50), xn.Adagrad(eps=1e-46),
                      xn.Regularized(xn.Adadelta(eps=1e-50))):
        net = small(dtype=dtype)
        if dtype == "float64":
            Updater(optimizer, net.buffers).step()
            assert np.isfinite(net.parameters).all()
            continue
        refused(net, lambda net=net, optimizer=optimizer: Updater(optimizer, net.buffers),
                r"expected eps to be 1.2e-38 or larger for parameters of float32, .* Received: "
                r"eps=1e-")
