"""net.profile: the time of every layer, without a trace in the network."""

from __future__ import annotations

import time

import numpy as np
import pytest

import xpnet as xn
from xpnet.inspect import speed
from xpnet.inspect.profile import Profile, Row


@pytest.fixture(autouse=True)
def quick(monkeypatch):
    monkeypatch.setattr(speed, "PRODUCT", 32)
    monkeypatch.setattr(speed, "COPY", 1 << 12)


def small(backend: str = "numpy") -> xn.Sequential:
    return xn.Sequential([
        xn.Conv2d(4, 3, activation="relu"), xn.BatchNorm2d(), xn.Flatten(), xn.Dropout(0.5),
        xn.Linear(3),
    ], input_shape=(1, 6, 5), backend=backend, seed=1)


X = np.random.default_rng(0).standard_normal((7, 1, 6, 5)).astype(np.float32)


@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_rows(backend):
    profile = small(backend).profile(X, steps=2)
    assert [row.name for row in profile.rows] == ["conv1", "bn1", "flatten1", "dropout1", "linear1"]
    assert all(row.forward > 0 and row.backward > 0 for row in profile.rows[1:])
    assert profile.batch_size == 7 and profile.backend == backend and profile.peak > 0
    conv, linear = profile.rows[0], profile.rows[-1]
    # forward, dW, and dx for all layers but the first; two operations for each multiply-add
    assert conv.operations == 2 * (4 * 9 * 4 * 3) * 7 * 2
    assert linear.operations == 2 * (48 * 3) * 7 * 3
    x, y, W = 48 * 7, 3 * 7, 48 * 3 + 3
    assert linear.bytes == 4 * ((x + W + y) + (y + x + 2 * W + x))
    x, y, W = 30 * 7, 48 * 7, 4 * 9 + 4
    assert conv.bytes == 4 * ((x + W + y) + (y + x + 2 * W))


def test_the_network_is_as_before():
    net, other = small(), small()
    for each in (net, other):
        each.fit(X, np.arange(7) % 3, loss="cross_entropy", optimizer="sgd", verbose=False)
    y = net.forward(net.batch_last(X), "train")
    other.forward(other.batch_last(X), "train")
    before = [a.copy() for a in (net.parameters, net.grads, net.state, net.counters)]
    net.profile(X, steps=1)
    for a, values in zip((net.parameters, net.grads, net.state, net.counters), before):
        assert a.tobytes() == values.tobytes()
    for each in (net, other):       # a forward pass before the profile still has its backward pass
        each.backward(np.ones_like(y))
    assert net.grads.tobytes() == other.grads.tobytes()


def test_a_slow_layer_shows():
    class Slow(xn.Layer):
        def build(self, shape):
            return shape

        def forward(self, x, mode=xn.PREDICT):
            time.sleep(0.02)
            return x

        def backward(self, dy, accumulate=False):
            time.sleep(0.04)
            return dy

    net = xn.Sequential([xn.Flatten(), xn.Linear(4), Slow(), xn.Linear(2)], input_shape=(1, 6, 5),
                        backend="numpy")
    row = net.profile(X, steps=1).rows[2]
    assert row.forward >= 0.02 and row.backward >= 0.04 and row.operations == 0


def test_text_and_html():
    profile = Profile(32, "numpy", 5e10, (Row("conv1", "Conv2d", 1e-3, 3e-3, 80_000_000, 2_500_000),
                                          Row("a<b", "ReLU", 1e-3, 0.0, 0, 1000)))
    assert str(profile).splitlines() == [
        "layer  type    forward ms  backward ms  share    MB  GFLOP/s  of peak",
        "---------------------------------------------------------------------",
        "conv1  Conv2d       1.000        3.000  80.0%  2.50     20.0      40%",
        "a<b    ReLU         1.000        0.000  20.0%  0.00",
        "---------------------------------------------------------------------",
        "2.000 ms forward, 3.000 ms backward, for a batch of 32 on numpy",
        "16.0 GFLOP/s; a large matrix product reaches 50.0 now"]
    html = profile._repr_html_()
    assert html.startswith("<table>") and "a&lt;b" in html and "50.0 now</div>" in html


def test_bad_input():
    with pytest.raises(ValueError, match=r"expected input of shape \(N, 1, 6, 5\)"):
        small().profile(np.zeros((2, 3)))
    with pytest.raises(ValueError, match="profile: expected steps"):
        small().profile(X, steps=0)
