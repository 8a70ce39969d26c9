"""GradientNorms and Timing: their columns."""

from __future__ import annotations

import time

import numpy as np
import pytest
from nets import blobs, small

import xpnet as xn


class Norms(xn.Callback):
    """The norms of each step's gradients, of everything and of the last layer."""

    def __init__(self) -> None:
        self.all: list[tuple[float, float]] = []

    def on_batch_end(self, run: xn.Run) -> None:
        g = np.concatenate([run.net.backend.to_numpy(p.grad).ravel().astype(float)
                            for layer in run.net.layers for p in layer.parameters])
        last = np.concatenate([run.net.backend.to_numpy(p.grad).ravel().astype(float)
                               for p in run.net.layers[-1].parameters])
        self.all.append((float(np.linalg.norm(g)), float(np.linalg.norm(last))))


@pytest.mark.parametrize("every, steps", [(1, [0, 1, 2, 3, 4]), (2, [1, 3, 4]), (9, [4])])
def test_norms_of_gradients(every, steps, backend):
    (x, y), norms = blobs(100), Norms()
    history = small(backend).fit(
        x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=20, epochs=2, verbose=False,
        callbacks=[xn.GradientNorms(every, layers=True), norms])
    for epoch in (0, 1):
        chosen = np.array(norms.all[5 * epoch:5 * epoch + 5])[steps]
        row = history.rows[epoch]
        np.testing.assert_allclose([row["grad_norm"], row["linear2_grad_norm"]],
                                   np.sqrt((chosen**2).mean(axis=0)), rtol=1e-6)
    assert "linear1_grad_norm" in history.rows[0] and "dropout1_grad_norm" not in history.rows[0]


def test_the_seconds_of_an_epoch(monkeypatch):
    """The clock is that of the test: training and validation take what the callbacks say."""
    now = [0.0]

    class Clock(xn.Callback):
        """Runs after Timing."""

        def on_batch_begin(self, run: xn.Run) -> None:
            now[0] += 1             # part of the step: Timing is called before

        def on_batch_end(self, run: xn.Run) -> None:
            now[0] += 10            # between two batches

        def on_validation_begin(self, run: xn.Run) -> None:
            now[0] += 100

    monkeypatch.setattr(time, "perf_counter", lambda: now[0])
    x, y = blobs(60)
    history = small().fit(x, y, loss="cross_entropy", optimizer="adam", batch_size=20, epochs=2,
                          verbose=False, callbacks=[xn.Timing(), Clock()])
    for row in history.rows:
        assert row["callback_seconds"] == 20 and row["validation_seconds"] == 100
        assert row["train_seconds"] == 3 + 10       # what follows the last batch is in it
        assert row["seconds"] == 133
