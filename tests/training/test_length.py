"""How long a fit is: epochs or batches, with the last batch of an epoch or without it."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import blobs, same, small, values

import xpnet as xn

X, Y = blobs(30)        # 4 batches of 8, the last of 6
SETTINGS: dict[str, Any] = {"loss": "cross_entropy", "batch_size": 8, "verbose": False}


class Watch(xn.Callback):
    """Writes down what happens."""

    def __init__(self) -> None:
        self.rates: list[float] = []
        self.sizes: list[int] = []
        self.seen: list[tuple[int, ...]] = []
        self.last: list[np.ndarray] = []

    def on_batch_end(self, run):
        self.rates.append(run.lr)
        batch = run.repeat()
        self.sizes.append(batch[0].shape[-1])
        self.seen.append((run.epoch, run.batch, run.batches, run.epochs, run.steps))
        self.last.append(batch[0])


def fitted(**settings: Any) -> tuple[Any, xn.History, Watch]:
    net, watch = small(), Watch()
    history = net.fit(X, Y, optimizer=xn.SGD(0.1), callbacks=[watch], **SETTINGS | settings)
    return net, history, watch


def test_one_epoch_is_the_default():
    assert len(fitted()[1].rows) == 1


@pytest.mark.parametrize("drop_last", [False, True])
@pytest.mark.parametrize("steps", [1, 3, 4, 6, 9])
def test_steps(steps, drop_last):
    """The last epoch has the batches that are left. They are those of a training by epochs, and
    the learning rate ends at the end of the schedule."""
    per_epoch = 3 if drop_last else 4
    epochs = -(-steps // per_epoch)
    net, history, watch = fitted(steps=steps, drop_last=drop_last, schedule="polynomial",
                                 validation=(X, Y))
    _, _, whole = fitted(epochs=epochs, drop_last=drop_last)
    assert len(watch.rates) == steps and len(history.rows) == epochs
    assert all(map(np.array_equal, watch.last, whole.last))
    np.testing.assert_allclose(watch.rates, 0.1 * (1 - np.arange(steps) / max(steps - 1, 1)),
                               atol=1e-12)
    left = steps - (epochs - 1) * per_epoch
    assert watch.seen[-1] == (epochs, left, left, epochs, steps)
    assert history.rows[-1]["val_loss"] > 0 and net.epochs == epochs
    assert net.counters[0] == steps


def test_as_many_steps_as_epochs_have():
    by_epochs, by_steps = fitted(epochs=2, schedule="cosine"), fitted(steps=8, schedule="cosine")
    assert same(values(by_epochs[0]), values(by_steps[0]))


def test_the_row_of_a_part_of_an_epoch():
    """Its figures are those of the batches that it had."""
    net = small()
    whole = net.fit(X, Y, optimizer=xn.SGD(0.0), **SETTINGS)        # nothing is learned
    assert len(whole.rows) == 1
    _, history, watch = fitted(steps=2)
    figures: list[float] = []

    class Figures(xn.Callback):
        def on_batch_end(self, run):
            figures.append(run.figures()["loss"])

    net = small()
    net.fit(X, Y, optimizer=xn.SGD(0.1), callbacks=[Figures()], **SETTINGS)
    assert history["loss"] == [figures[1]] and watch.sizes == [8, 8]


def test_the_next_fit_sees_another_order():
    """A second fit of a few steps does not see the same few samples."""
    net, first, second = small(), Watch(), Watch()
    for watch in (first, second):
        net.fit(X, Y, optimizer=xn.SGD(0.1), steps=2, callbacks=[watch], **SETTINGS)
    assert not np.array_equal(first.last[0], second.last[0])


def test_drop_last_leaves_out_other_samples_in_each_epoch():
    _, history, watch = fitted(drop_last=True, epochs=2)
    assert watch.sizes == [8] * 6 and len(history.rows) == 2
    seen = [{tuple(x) for batch in watch.last[start:start + 3] for x in batch.T}
            for start in (0, 3)]
    everything = {tuple(x) for x in X}
    assert everything - seen[0] != everything - seen[1]
    assert len(seen[0]) == len(seen[1]) == 24


def test_drop_last_and_layers_that_need_several_samples():
    """Without the last batch, of one sample, batch norm has no batch that is too small."""
    def net():
        return xn.Sequential([xn.Linear(3), xn.BatchNorm1d()], input_shape=(2,), backend="numpy")

    with pytest.raises(ValueError, match="expected batches of at least 2"):
        net().fit(X[:25], Y[:25], **SETTINGS)
    net().fit(X[:25], Y[:25], drop_last=True, **SETTINGS)


@pytest.mark.parametrize("settings, message", [
    ({"epochs": 1, "steps": 3}, "fit: expected epochs or steps, not both. Received: epochs=1 and "
                                "steps=3."),
    ({"steps": 0}, "fit: expected steps to be an int, 1 or larger. Received: steps=0."),
    ({"epochs": 0}, "fit: expected epochs to be an int, 1 or larger. Received: epochs=0."),
    ({"steps": 2.5}, "fit: expected steps to be an int"),
    ({"drop_last": 1}, "fit: expected drop_last"),
    ({"drop_last": True, "batch_size": 31}, "fit: expected at least one whole batch, with "
                                            "drop_last=True. Received: 30 samples in batches of "
                                            "31."),
])
def test_what_is_refused(settings, message):
    with pytest.raises(ValueError) as error:
        fitted(**settings)
    assert str(error.value).startswith(message)
