"""Settings that are True or False: any other value is refused, such as 1 or "no"."""

from __future__ import annotations

import numpy as np
import pytest
from nets import pictures

import xpnet as xn
from xpnet.training.step import TrainStep

NO_FLAGS = ["no", "False", "", 0, 1, 1.0, None, [], np.array([True, False])]
X, Y = pictures(8, (1, 4, 4), 3)


def network() -> xn.Network:
    return xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(1, 4, 4), backend="numpy")


@pytest.mark.parametrize("value", NO_FLAGS, ids=repr)
def test_other_values_are_refused(value):
    net, sgd = network(), xn.SGD(0.1)

    def freeze():
        net.layers[1].trainable = value

    settings = {"loss": "cross_entropy", "optimizer": sgd}
    for who, name, call in [
            ("Linear 'linear1'", "trainable", freeze),
            ("fit", "shuffle", lambda: net.fit(X, Y, **settings, verbose=False, shuffle=value)),
            ("fit", "verbose", lambda: net.fit(X, Y, **settings, verbose=value)),
            ("fit", "capture", lambda: net.fit(X, Y, **settings, verbose=False, capture=value)),
            ("TrainStep", "capture", lambda: TrainStep(net, xn.CrossEntropy(), sgd, capture=value)),
            ("SGD", "nesterov", lambda: xn.SGD(0.1, momentum=0.9, nesterov=value)),
            ("RMSprop", "centered", lambda: xn.RMSprop(centered=value))]:
        with pytest.raises(ValueError,
                           match=f"^{who}: expected {name} to be True or False. Received: {name}="):
            call()
    assert net.layers[1].trainable is True and net.epochs == 0


def test_numpy_booleans_are_accepted():
    net = network()
    net.layers[1].trainable = np.bool_(False)
    assert net.layers[1].trainable is False
    before = net.parameters.copy()
    net.fit(X, Y, loss="cross_entropy", optimizer=xn.SGD(0.1, momentum=0.9, nesterov=np.True_),
            verbose=np.False_, shuffle=np.True_, capture=np.False_)
    assert np.array_equal(net.parameters, before)
