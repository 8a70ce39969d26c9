"""Callbacks: when they are called, what they receive, and how they end a training."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import same

import xpnet as xn


class Log(xn.Callback):
    """Records every call, with the numbers of the epoch and of the batch."""

    def __init__(self) -> None:
        self.calls: list[Any] = []

    def on_train_begin(self, run: xn.Run) -> None:
        self.calls.append(("begin", run.epoch, run.batch))

    def on_train_end(self, run: xn.Run) -> None:
        self.calls.append(("end", run.epoch, run.batch))

    def on_epoch_begin(self, run: xn.Run) -> None:
        self.calls.append(("epoch", run.epoch, run.batch))

    def on_epoch_end(self, run: xn.Run) -> None:
        self.calls.append(("row", run.history.rows[-1]["epoch"], run.batch))

    def on_batch_begin(self, run: xn.Run) -> None:
        self.calls.append(("batch", run.epoch, run.batch))

    def on_batch_end(self, run: xn.Run) -> None:
        self.calls.append(("done", run.epoch, run.batch))


def net(backend: Any = "numpy") -> xn.Sequential:
    return xn.Sequential([xn.Linear(4, activation="tanh"), xn.Linear(3)], input_shape=(5,),
                         backend=backend)


X, Y = np.random.default_rng(0).random((10, 5)), np.arange(10) % 3


def fit(network: xn.Network, *callbacks: xn.Callback, **settings: Any) -> xn.History:
    return network.fit(X, Y, loss="cross_entropy", optimizer=xn.Adam(0.01), batch_size=5,
                       callbacks=callbacks, **{"epochs": 2, "verbose": False} | settings)


def test_the_order_of_calls():
    log = Log()
    fit(net(), log)
    epochs = [[("epoch", e, 0), ("batch", e, 1), ("done", e, 1), ("batch", e, 2), ("done", e, 2),
               ("row", e, 2)]
              for e in (1, 2)]
    assert log.calls == [("begin", 0, 0), *epochs[0], *epochs[1], ("end", 2, 2)]


def test_several_are_called_in_their_order():
    order: list[str] = []

    class Named(xn.Callback):
        def __init__(self, name: str) -> None:
            self.name = name

        def on_epoch_end(self, run: xn.Run) -> None:
            order.append(self.name)

    fit(net(), Named("a"), Named("b"))
    assert order == ["a", "b", "a", "b"]


def test_they_receive_the_metrics_and_change_no_bit():
    seen: list[dict[str, float]] = []

    class Look(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            seen.append(run.figures() | {"lr": run.lr, "batches": run.batches,
                                         "epochs": run.epochs})

    watched, alone = net(), net()
    history = fit(watched, Look())
    fit(alone)
    assert same({"w": watched.parameters}, {"w": alone.parameters})
    assert seen[1]["loss"] == history["loss"][0] and seen[3]["accuracy"] == history["accuracy"][1]
    assert ([row["lr"] for row in seen] == [0.01] * 4 and seen[0]["batches"] == 2
            and seen[0]["epochs"] == 2)


@pytest.mark.parametrize("when, batches",
                         [("on_batch_end", 1), ("on_epoch_end", 2), ("on_epoch_begin", 1)])
def test_stop_ends_the_training(when: str, batches: int):
    log = Log()

    class Stop(xn.Callback):
        pass

    setattr(Stop, when, lambda self, run: run.stop())
    network = net()
    history = fit(network, log, Stop(), epochs=5)
    assert history.stopped and len(history.rows) == 1
    assert sum(call[0] == "done" for call in log.calls) == batches and log.calls[-1][0] == "end"
    assert network.epochs == (batches == 2)  # an epoch that was not completed does not count


def test_the_end_is_called_after_an_error_too():
    log = Log()

    class Fails(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fit(net(), log, Fails())
    assert log.calls[-1] == ("end", 1, 1)


def test_they_may_set_the_learning_rate():
    class Halve(xn.Callback):
        def on_epoch_end(self, run: xn.Run) -> None:
            run.step.optimizer.lr /= 2

    history = fit(net(), Halve(), epochs=3)
    assert history["lr"] == [0.01, 0.005, 0.0025]


def test_a_callback_may_move_the_network():
    class Move(xn.Callback):
        def on_epoch_end(self, run: xn.Run) -> None:
            run.net.to(xn.Backend())                        # type: ignore[attr-defined]

    network, stayed = net(), net(xn.Backend())
    history = fit(network, Move(), epochs=3)
    fit(stayed, epochs=3)
    assert network.backend.name == "base" and len(history.rows) == 3
    np.testing.assert_allclose(network.parameters, stayed.parameters, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("callbacks", [[3], [Log], "log", [lambda run: None], None])
def test_other_objects_are_refused(callbacks: Any):
    with pytest.raises(TypeError,
                       match="fit: expected callbacks to be a list of Callbacks. Received: "):
        net().fit(X, Y, loss="cross_entropy", optimizer="adam", callbacks=callbacks)
