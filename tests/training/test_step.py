"""TrainStep: single training steps."""

from __future__ import annotations

import numpy as np
import pytest
from nets import blobs, same, small, values

import xpnet as xn

QUIET = {"loss": "cross_entropy", "verbose": False}


def test_train_step_is_what_fit_repeats():
    x, y = blobs(20)
    by_fit, by_hand = small(), small()
    row = by_fit.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), batch_size=20, shuffle=False).rows[-1]
    step = xn.TrainStep(by_hand, xn.CrossEntropy(), xn.Adam(1e-2))
    loss, output = step(by_hand.batch_last(x), y)
    assert np.array_equal(by_fit.parameters, by_hand.parameters)
    assert float(loss) == pytest.approx(row["loss"]) and output.shape == (3, 20)
    assert by_hand.counters.tolist() == [1, 0]


def test_a_step_moves_with_its_network():
    """A TrainStep notices that its network has moved, and moves the optimizer's slots too."""
    x, y = blobs(20)
    stayed, moved = small(dtype="float64"), small(dtype="float64")
    steps = [xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-2)) for net in (stayed, moved)]
    for k in range(6):
        if k == 3:
            moved.to(xn.Backend())
        for net, step in zip((stayed, moved), steps, strict=True):
            step(net.batch_last(x), y)
    np.testing.assert_allclose(moved.parameters, stayed.parameters, rtol=1e-9)
    assert steps[1].updater.buffers is moved.buffers and moved.counters.tolist() == [6, 0]


def test_a_step_that_failed_does_not_count():
    """Adam's bias corrections count the completed steps."""
    class Broken(xn.CrossEntropy):
        broken = True

        def __call__(self, backend, y, target):
            if self.broken:
                raise ZeroDivisionError("in the loss")
            return super().__call__(backend, y, target)

    x, y = blobs(20)
    net, control, loss = small(), small(), Broken()
    step = xn.TrainStep(net, loss, xn.Adam(1e-2))
    with pytest.raises(ZeroDivisionError):
        step(net.batch_last(x), y)
    loss.broken = False
    step(net.batch_last(x), y)
    xn.TrainStep(control, xn.CrossEntropy(), xn.Adam(1e-2))(control.batch_last(x), y)
    assert same(values(net), values(control))


def test_metrics_are_computed_before_the_update():
    """The loss of a row is that of the outputs before each step, not of the network after the
    epoch."""
    x, y = blobs(20)
    net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy", dtype="float64")
    before = net.evaluate(x, y, loss="cross_entropy")
    row = net.fit(x, y, **QUIET, optimizer=xn.SGD(1.0), batch_size=20).rows[-1]
    assert row["loss"] == pytest.approx(before["loss"]) and row["accuracy"] == before["accuracy"]
    assert net.evaluate(x, y)["loss"] < before["loss"]
