"""What repr says of an object: the call that makes one like it, or what it is; never an address."""

from __future__ import annotations

import numpy as np
import pytest
from fuzz_calls import CALLS, FILES, X, Y, a_network

import xpnet as xn

MADE = [label for label, call in CALLS.items() if isinstance(call.function, type)
        and issubclass(call.function, xn.Layer | xn.Loss | xn.Optimizer | xn.Schedule
                       | xn.Callback)]


def test_no_repr_is_an_address(monkeypatch, tmp_path):
    monkeypatch.chdir(tmp_path)
    made = {label: repr(call()) for label, call in CALLS.items()
            if label not in {*FILES, "set_num_threads"}}
    assert {label: text for label, text in made.items() if " object at 0x" in text} == {}


@pytest.mark.parametrize("label", MADE)
def test_repr_is_the_call_that_makes_the_same(label):
    """eval(repr(x)) has the settings of x."""
    made = CALLS[label]()
    again = eval(repr(made), dict(vars(xn)))
    assert type(again) is type(made) and repr(again) == repr(made)


def test_what_they_say():
    assert repr(xn.Adam()) == "Adam()" and repr(xn.Adam(0.1)) == "Adam(lr=0.1)"
    assert repr(xn.SGD(0.1, momentum=0.9)) == "SGD(lr=0.1, momentum=0.9)"
    assert repr(xn.Conv2d(8, 3, activation="relu")) == "Conv2d(8, 3, activation='relu')"
    assert repr(xn.CrossEntropy(ignore_index=-1)) == "CrossEntropy(ignore_index=-1)"
    assert repr(xn.Linear(3, init="zeros")) == "Linear(3, init='zeros')"
    net = a_network()
    assert repr(net) == "<Sequential of 5 layers>"
    assert repr(net.layers[0]) == "Conv2d(2, 3, name='conv1')"
    assert repr(net.layers[0].parameters[0]) == "<Parameter W of shape (2, 1, 3, 3)>"
    net.fit(X, Y, loss="cross_entropy", optimizer="adam", batch_size=3, verbose=False)
    assert repr(net.step) == (
        "<TrainStep of <Sequential of 5 layers> with CrossEntropy() and Adam()>")
    assert "digits" not in repr(xn.data.Dataset(np.ones((2, 3))))


def test_a_class_that_keeps_no_arguments_has_a_repr():
    class Mine(xn.Layer):
        def __init__(self, size, other=3):          # keeps nothing, and does not call super()
            pass

    assert repr(Mine(3)) == "Mine()"


def test_a_function_is_shown_by_its_name():
    class Stop(xn.Callback):
        def __init__(self, when):
            self.when = when

    assert repr(Stop(CALLS["Linear"].use)) == "Stop(use_layer)"
    assert repr(Stop(np.ones(1000))) == "Stop(an array of shape (1000,) and dtype float64)"
