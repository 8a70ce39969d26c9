"""Ctrl-C: fit stops after the batch, and the network keeps its parameters. A second Ctrl-C raises
KeyboardInterrupt."""

from __future__ import annotations

import math
import signal
import threading

import numpy as np
import pytest
from nets import blobs, same, small, untouched, values

import xpnet as xn

QUIET = {"loss": "cross_entropy", "verbose": False}


class Interrupting(xn.CrossEntropy):
    """Cross entropy that presses Ctrl-C when it is called for the n-th time, n in `at`, `times`
    times."""

    def __init__(self, *at: int, times: int = 1) -> None:
        self.at, self.times, self.calls = at, times, 0

    def __call__(self, backend, y, target):
        self.calls += 1
        if self.calls in self.at:
            for _ in range(self.times):
                signal.raise_signal(signal.SIGINT)
        return super().__call__(backend, y, target)


@pytest.fixture
def handler():
    """A handler other than the default one, to see that it is restored. It counts its calls."""
    class Count:
        hits = 0

        def __call__(self, number, frame):
            self.hits += 1

    count, before = Count(), signal.getsignal(signal.SIGINT)
    signal.signal(signal.SIGINT, count)
    yield count
    assert signal.getsignal(signal.SIGINT) is count
    signal.signal(signal.SIGINT, before)


def test_ctrl_c_stops_after_the_batch_and_keeps_the_model(handler, capsys):
    x, y = blobs(120)
    net, control = small(), small()
    loss = Interrupting(3)
    history = net.fit(x, y, loss=loss, optimizer=xn.Adam(1e-2), epochs=5, batch_size=30,
                      shuffle=False, validation=(x, y))
    assert history.interrupted and loss.calls == 3 and handler.hits == 0
    assert "interrupted: stopped after the current batch" in capsys.readouterr().out
    assert repr(history) == "<History of 1 epochs, interrupted>"
    row, = history.rows                                 # the part of the epoch that was trained
    control_row, = control.fit(x[:90], y[:90], **QUIET, optimizer=xn.Adam(1e-2), batch_size=30,
                               shuffle=False).rows
    assert np.array_equal(net.parameters, control.parameters) and row["loss"] == control_row["loss"]
    assert math.isnan(history["val_loss"][0]) and math.isnan(history["val_accuracy"][0])
    assert net.epochs == 0  # the epoch does not count: the next fit uses its order


def test_fit_continues_after_ctrl_c(handler):
    x, y = blobs()
    net, optimizer = small(), xn.Adam(1e-2)
    assert net.fit(x, y, loss=Interrupting(2), optimizer=optimizer, verbose=False).interrupted
    assert net.predict(x).shape == (120, 3)
    history = net.fit(x, y, **QUIET, optimizer=optimizer, epochs=30)
    assert not history.interrupted and history["accuracy"][-1] > 0.98 and net.epochs == 30


def test_ctrl_c_in_a_later_epoch_and_during_validation(handler):
    x, y = blobs(60)
    history = small().fit(x, y, loss=Interrupting(4), optimizer=xn.SGD(0.1), epochs=9,
                          batch_size=20, verbose=False)
    # in the first batch of the second epoch
    assert history["epoch"] == [1, 2] and history.interrupted
    net = small()
    loss = Interrupting(4)  # three batches, then validation
    history = net.fit(x, y, loss=loss, optimizer=xn.SGD(0.1), epochs=9, batch_size=20,
                      validation=(x, y), verbose=False)
    assert history["epoch"] == [1] and history.interrupted and net.epochs == 1
    assert math.isfinite(history["val_loss"][0])  # the validation was finished


@pytest.fixture
def pythons_own_handler():
    """Also if the tests were started in the background of a shell, which makes them ignore
    Ctrl-C."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield signal.default_int_handler
    signal.signal(signal.SIGINT, before)


def test_a_second_ctrl_c_raises_keyboard_interrupt(pythons_own_handler):
    x, y = blobs()
    net = small()
    with pytest.raises(KeyboardInterrupt):
        net.fit(x, y, loss=Interrupting(2, times=2), optimizer=xn.SGD(0.1), verbose=False)
    assert signal.getsignal(signal.SIGINT) is pythons_own_handler
    assert np.isfinite(net.predict(x)).all()


def test_an_ignored_ctrl_c_is_still_ignored():
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        x, y = blobs()
        history = small().fit(x, y, loss=Interrupting(1), optimizer=xn.SGD(0.1), epochs=2,
                              verbose=False)
        assert not history.interrupted and len(history.rows) == 2
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)


def test_an_error_in_a_batch_restores_the_handler(handler):
    class Broken(xn.CrossEntropy):
        def __call__(self, backend, y, target):
            raise ZeroDivisionError("in the loss")

    net = small()
    with untouched(net), pytest.raises(ZeroDivisionError):
        net.fit(*blobs(), loss=Broken(), optimizer=xn.SGD(0.1), verbose=False)
    net.fit(*blobs(), **QUIET, optimizer=xn.SGD(0.1))          # the fixture checks the handler


def test_fit_in_another_thread(handler):
    found = {}

    def train():
        net = small()
        net.fit(*blobs(), **QUIET, optimizer=xn.Adam(1e-2))
        return net

    def work():
        found["net"] = train()

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert same(values(found["net"]), values(train()))
