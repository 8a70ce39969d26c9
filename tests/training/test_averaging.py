"""ExponentialMovingAverage: the averages against a loop in float64, and when they are in use."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import network, pretended, samples
from nets import blobs, same, small, values

import xpnet as xn

DECAY = 0.9


class Trace(xn.Callback):
    """Keeps the parameters: of each step, and at each end of an epoch."""

    def __init__(self) -> None:
        self.steps: list[np.ndarray] = []
        self.ends: list[np.ndarray] = []

    def on_train_begin(self, run: xn.Run) -> None:
        self.steps.append(values(run.net)["parameters"])

    def on_batch_end(self, run: xn.Run) -> None:
        self.steps.append(values(run.net)["parameters"])

    def on_epoch_end(self, run: xn.Run) -> None:
        self.ends.append(values(run.net)["parameters"])


def fitted(net: xn.Network, *callbacks: xn.Callback, **settings: Any) -> xn.History:
    x, y = blobs(60)
    return net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=20, epochs=2,
                   validation=blobs(30, seed=1), callbacks=callbacks, verbose=False, **settings)


def test_the_averages(backend):
    net, trace = small(backend), Trace()
    history = fitted(net, xn.ExponentialMovingAverage(DECAY), trace)
    average = trace.steps[0].astype(float)
    for step, w in enumerate(trace.steps[1:], 1):
        average = DECAY * average + (1 - DECAY) * w
        if step % 3 == 0:
            np.testing.assert_allclose(trace.ends[step // 3 - 1], average, rtol=0, atol=1e-6)
    assert len(trace.steps) == 7 and np.array_equal(values(net)["parameters"], trace.ends[-1])
    assert net.evaluate(*blobs(30, seed=1))["loss"] == history["val_loss"][-1]


@pytest.mark.parametrize("stop", [False, True])
def test_the_training_is_that_without_averages(stop, backend):
    """Also if the training ends early; with use=False the same parameters are left."""
    until = (lambda row: True) if stop else None
    net, control = small(backend), small(backend)
    fitted(net, xn.ExponentialMovingAverage(DECAY, use=False), until=until)
    fitted(control, until=until)
    assert same(values(net), values(control))


def test_early_stopping_keeps_the_averages_of_the_best_epoch():
    for order in (1, -1):
        net, trace = small(), Trace()
        stopping = xn.EarlyStopping("loss", mode="max", patience=1)        # the first is the best
        fitted(net, *[xn.ExponentialMovingAverage(DECAY), stopping][::order], trace)
        assert stopping.best_epoch == 1 and np.array_equal(values(net)["parameters"], trace.ends[0])


def test_after_an_error_the_averages_are_left():
    class Fails(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.batch == 2:
                raise RuntimeError("mine")

    net, trace = small(), Trace()
    with pytest.raises(RuntimeError, match="mine"):
        fitted(net, xn.ExponentialMovingAverage(DECAY), trace, Fails())
    a, b, c = (w.astype(float) for w in trace.steps)
    expected = DECAY**2 * a + DECAY * (1 - DECAY) * b + (1 - DECAY) * c
    np.testing.assert_allclose(values(net)["parameters"], expected, rtol=0, atol=1e-6)


def test_captured_steps_of_an_emulated_gpu(folder: Path):
    """The same averages whether steps are captured or not."""
    left = []
    with pretended(folder) as (backend, gpus):
        for capture in (False, True):
            net = network(backend)
            net.fit(*samples(40), loss="cross_entropy", optimizer=xn.SGD(0.01), batch_size=8,
                    epochs=2, capture=capture, verbose=False,
                    callbacks=[xn.ExponentialMovingAverage(DECAY),
                               xn.GradientNorms(every=2, layers=True)])
            left.append(values(net))
        assert gpus.graphs and same(*left)


@pytest.mark.parametrize("batch", [2, 3])
def test_a_resumed_training_has_the_same_averages_and_norms(batch, tmp_path):
    """The training ends by an error in the second epoch, in its middle or at its end."""
    class Fails(xn.Callback):
        fails = True

        def on_batch_begin(self, run: xn.Run) -> None:
            if self.fails and (run.epoch, run.batch) == (2, batch):
                raise RuntimeError("mine")

    def callbacks() -> list[xn.Callback]:
        return [xn.ExponentialMovingAverage(DECAY), xn.GradientNorms(layers=True)]

    failing, control, net = Fails(), small(), small()
    expected = fitted(control, *callbacks())
    with pytest.raises(RuntimeError, match="mine"):
        fitted(net, *callbacks(), failing, checkpoint=xn.Checkpoint(tmp_path / "a", steps=1))
    failing.fails = False
    again = small()
    history = fitted(again, *callbacks(), failing, resume=tmp_path / "a")
    assert same(values(again), values(control))
    for row, other in zip(history.rows, expected.rows, strict=True):
        del row["seconds"], other["seconds"]
        assert row == other
