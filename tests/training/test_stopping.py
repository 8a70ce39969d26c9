"""EarlyStopping: when it ends the training, and which parameters are left."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from nets import blobs, same, small, values

import xpnet as xn


class Figures(xn.Callback):
    """Adds a column with given figures, and keeps the network's values after each epoch."""

    def __init__(self, *figures: float) -> None:
        self.figures, self.kept = figures, []       # type: ignore[var-annotated]

    def columns(self, run: xn.Run) -> dict[str, float]:
        return {"figure": self.figures[run.epoch - 1]}

    def on_epoch_end(self, run: xn.Run) -> None:
        self.kept.append(values(run.net))


def fitted(figures: tuple[float, ...], backend: Any = "numpy", verbose: bool = False,
           **settings: Any) -> tuple[xn.History, xn.EarlyStopping, xn.Network, Figures]:
    x, y = blobs(30)
    net = xn.Sequential([xn.BatchNorm1d(), xn.Linear(3)], input_shape=(2,), backend=backend)
    stopping, column = xn.EarlyStopping("figure", **settings), Figures(*figures)
    history = net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=len(figures),
                      callbacks=[stopping, column], verbose=verbose)
    return history, stopping, net, column


@pytest.mark.parametrize("figures, settings, epochs, best", [
    ((3, 2, 2.5, 2, 1, 0), {"patience": 2}, 4, 2),              # equal is not better
    ((3, 2, 2.5, 1, 2, 2, 0), {"patience": 2}, 6, 4),           # the count begins again
    ((3, 2, 1, 0), {"patience": 1}, 4, 4),
    ((1, 2, 3, 2, 2, 9), {"patience": 2, "mode": "max"}, 5, 3),
    ((3, 2.9, 2.8, 2.4, 1), {"patience": 2, "min_delta": 0.5}, 3, 1),
    ((3, 2.75, 2.25, 2.0, 1), {"patience": 2, "min_delta": 0.5}, 5, 5),
    ((math.nan, math.nan, 1), {"patience": 2}, 2, 0),
    ((2, math.nan, 1, 1, 1), {"patience": 2}, 5, 3),
])
def test_when_it_stops(figures, settings, epochs, best, backend):
    history, stopping, net, column = fitted(figures, backend, **settings)
    assert len(history.rows) == epochs and stopping.best_epoch == best
    assert history.stopped == (epochs < len(figures) or epochs - best == settings["patience"])
    left = values(net)
    expected = column.kept[best - 1 if best else -1]
    for name in "parameters", "state":
        assert np.array_equal(left[name], expected[name]), name


def test_without_restore_the_last_parameters_stay():
    _, stopping, net, column = fitted((1, 2, 3, 4), patience=2, restore=False)
    assert stopping.best_epoch == 1 and same(values(net), column.kept[-1])


def test_auto_knows_accuracies():
    x, y = blobs(60)
    stopping = xn.EarlyStopping("val_accuracy", patience=2)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.Adam(0.01), epochs=30,
                          validation=(x, y), callbacks=[stopping], verbose=False)
    assert stopping.best == max(history["val_accuracy"])
    assert history.best("val_accuracy")["epoch"] == stopping.best_epoch


def test_a_column_that_is_missing():
    x, y = blobs(30)
    received = ("EarlyStopping: expected monitor to be one of epoch, loss, accuracy, lr, seconds. "
                "Received: monitor='val_loss'.")
    with pytest.raises(ValueError, match=received):
        small().fit(x, y, loss="cross_entropy", optimizer="adam", verbose=False,
                    callbacks=[xn.EarlyStopping()])


def test_a_callback_serves_a_second_training():
    x, y = blobs(30)
    stopping, column = xn.EarlyStopping("figure", patience=1), Figures(2, 3)
    for figures in ((2, 3), (9, 10)):
        column.figures = figures
        small().fit(x, y, loss="cross_entropy", optimizer="adam", epochs=2, verbose=False,
                    callbacks=[stopping, column])
        assert stopping.best == figures[0]


def test_one_line_says_which_epoch(capsys):
    fitted((2, 1, 3), verbose=True, patience=1)
    assert capsys.readouterr().out.splitlines()[-1] == (
        "EarlyStopping: the best figure, 1, was that of epoch 2 of 3, whose parameters the network "
        "has")
