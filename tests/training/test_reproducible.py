"""The same seed gives the same bits, whatever ran before, and another seed gives others."""

from __future__ import annotations

import numpy as np
import pytest
from nets import blobs, branches, pictures, same, small, values

import xpnet as xn

QUIET = {"loss": "cross_entropy", "verbose": False}


def trained(seed: int = 0, epochs: int = 3, **settings) -> xn.Sequential:
    net = small(seed=seed)
    net.fit(*blobs(), **QUIET, optimizer=xn.Adam(1e-2), epochs=epochs, **settings)
    return net


@pytest.mark.parametrize("build", [small, branches], ids=["small", "branches"])
def test_the_same_seed_gives_the_same_bits(build, backend):
    x, y = blobs() if build is small else pictures(24, (2, 6, 6), 5)
    nets = [build(backend, seed=seed) for seed in (0, 0, 1)]
    losses = [net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=2, batch_size=10)["loss"]
              for net in nets]
    assert same(values(nets[0]), values(nets[1])) and losses[0] == losses[1]
    assert not same(values(nets[0]), values(nets[2]))


def test_the_seed_orders_the_samples_too():
    """Two networks with the same weights and without dropout, but with other seeds, are trained
    with the samples in another order."""
    x, y = blobs()
    nets = [xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy", seed=seed)
            for seed in (0, 1)]
    nets[1].parameters[...] = nets[0].parameters
    for shuffle, equal in ((False, True), (True, False)):
        for net in nets:
            net.fit(x, y, **QUIET, optimizer=xn.SGD(0.1), shuffle=shuffle)
        assert np.array_equal(nets[0].parameters, nets[1].parameters) == equal


def test_each_epoch_has_another_order():
    class Recorded(xn.CrossEntropy):
        def __init__(self):
            self.orders = []

        def __call__(self, backend, y, target):
            self.orders.append(target.tolist())
            return super().__call__(backend, y, target)

    x, y = blobs(40, classes=3)
    loss = Recorded()
    small().fit(x, y, loss=loss, optimizer=xn.SGD(0.1), epochs=2, batch_size=40, verbose=False)
    # every sample once
    assert sorted(loss.orders[0]) == sorted(loss.orders[1]) == sorted(y.tolist())
    assert loss.orders[0] != loss.orders[1] != y.tolist()


def test_the_global_random_state_does_not_matter():
    np.random.seed(1)  # noqa: NPY002 - the state that must not matter
    before = np.random.get_state()[1].copy()            # noqa: NPY002
    one = trained()
    assert np.array_equal(np.random.get_state()[1], before)         # noqa: NPY002
    np.random.seed(2)                                   # noqa: NPY002
    assert same(values(one), values(trained()))


def test_a_second_fit_continues_the_first():
    x, y = blobs()
    whole, parts, anew = trained(epochs=4), small(), small()
    optimizer = xn.Adam(1e-2)
    for _ in range(2):
        parts.fit(x, y, **QUIET, optimizer=optimizer, epochs=2)
        anew.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=2)
    assert same(values(whole), values(parts))
    assert not same(values(whole), values(anew))        # a new object starts without momentum


def test_a_second_fit_may_have_another_loss():
    x, y = blobs(classes=2)
    net = small(classes=2)
    optimizer = xn.SGD(0.1, momentum=0.9)
    net.fit(x, y, **QUIET, optimizer=optimizer)
    net.fit(x, np.eye(2)[y], loss="mean_squared_error", optimizer=optimizer, verbose=False)
    assert set(net.evaluate(x, np.eye(2)[y])) == {"loss"}  # evaluate uses the loss of the last fit
