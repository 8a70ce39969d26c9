"""Masked arrays: the mask would be lost silently, so arrays with masked elements are refused."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import untouched

import xpnet as xn
from xpnet import functional, metrics

REFUSED = (r"expected an array without masked elements; a\.filled\(value\) gives them a value\. "
           r"Received: a ")
X = np.random.default_rng(0).random((6, 1, 4, 4)).astype(np.float32)
Y = np.arange(6) % 3


def masked(a: Any) -> np.ma.MaskedArray:
    mask = np.zeros(np.shape(a), bool)
    mask.flat[0] = True
    return np.ma.array(a, mask=mask)


def network() -> xn.Network:
    return xn.Sequential([xn.BatchNorm2d(), xn.Flatten(), xn.Linear(3)], input_shape=(1, 4, 4),
                         backend="numpy")


ENTROPY: dict[str, Any] = {"loss": "cross_entropy"}
FIT: dict[str, Any] = ENTROPY | {"optimizer": xn.SGD(0.1), "verbose": False}
CALLS = {
    "fit x": lambda net: net.fit(masked(X), Y, **FIT),
    "fit y": lambda net: net.fit(X, masked(Y), **FIT),
    "fit shares": lambda net: net.fit(X, masked(np.eye(3)[Y]), **FIT),
    "fit validation": lambda net: net.fit(X, Y, **FIT, validation=(X, masked(Y))),
    "fit squares": lambda net: net.fit(X, masked(np.eye(3)[Y]),
                                       **FIT | {"loss": "mean_squared_error"}),
    "evaluate x": lambda net: net.evaluate(masked(X), Y, **ENTROPY),
    "evaluate y": lambda net: net.evaluate(X, masked(Y), **ENTROPY),
    "predict": lambda net: net.predict(masked(X)),
    "call": lambda net: net(masked(X)),
    "predict_samples": lambda net: net.predict_samples(masked(X), **ENTROPY),
    "population_statistics": lambda net: net.population_statistics(masked(X)),
    "list": lambda net: net.predict(list(masked(X))),
    "conv2d": lambda net: functional.conv2d(masked(X), np.ones((2, 1, 3, 3), np.float32)),
    "conv2d W": lambda net: functional.conv2d(X, masked(np.ones((2, 1, 3, 3), np.float32))),
    "max_pool2d": lambda net: functional.max_pool2d(masked(X), 2),
    "toeplitz": lambda net: functional.toeplitz(masked(np.ones((2, 2))), (4, 4)),
    "accuracy": lambda net: metrics.accuracy(masked(np.eye(3)[Y]), Y),
    "psnr": lambda net: metrics.psnr(X, masked(X)),
    "layer": lambda net: xn.Linear(2).initialize((3,)).forward(masked(np.ones((3, 5), np.float32))),
    "backward": lambda net: forwarded().backward(masked(np.ones((2, 5), np.float32))),
    "fit a layer": lambda net: xn.Sequential([xn.Whitening()], input_shape=(3,)).layers[0].fit(
        masked(np.ones((4, 3)))),
    "augmented": lambda net: xn.augmented(np, masked(X), [xn.RandomFlip()]),
}


def forwarded() -> xn.Layer:
    layer = xn.Linear(2).initialize((3,))
    layer.forward(np.ones((3, 5), np.float32), mode=xn.TRAIN)
    return layer


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_masked_elements_are_refused(call):
    net = network()
    with untouched(net), pytest.raises(ValueError, match=REFUSED):
        call(net)


def test_a_masked_array_without_masked_elements_is_an_array():
    net = network()
    plain = np.ma.array(X)
    np.testing.assert_array_equal(net.predict(plain), net.predict(X))
    np.testing.assert_array_equal(functional.max_pool2d(plain, 2)[0],
                                  functional.max_pool2d(X, 2)[0])
    assert net.evaluate(plain, np.ma.array(Y), **ENTROPY) == net.evaluate(X, Y, **ENTROPY)
