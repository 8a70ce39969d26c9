"""Ranks on a pretended GPU: gradients are exchanged through the memory of the host."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from gpu_cases import network, pretended, samples

import xpnet as xn
from xpnet.parallel import DataParallel, in_threads


def trained(backend: Any, communicator: Any) -> tuple[Any, ...]:
    x, y = samples()
    net = network(backend)
    history = net.fit(x / 255, y, loss="cross_entropy", optimizer=xn.SGD(0.01), batch_size=12,
                      accumulate=2, epochs=2, verbose=False, validation=0.2, parallel=communicator)
    figures = net.evaluate(x / 255, y, batch_size=16, parallel=communicator)
    return (net.backend.to_numpy(net.parameters).copy(), net.backend.to_numpy(net.state).copy(),
            net.predict(x / 255, batch_size=16, parallel=communicator), history.rows, figures)


@pytest.mark.parametrize("sync", [False, True])
def test_a_training_on_a_pretended_gpu_agrees_with_numpy(folder, sync):
    def run(backend: Any) -> tuple[Any, ...]:
        found, = in_threads(1, lambda communicator: trained(
            backend, DataParallel(communicator, sync=sync)))
        return found

    expected = run("numpy")
    with pretended(folder) as (backend, gpus):
        found = run(backend)
        assert gpus.launches == 0               # steps are not captured
    for a, b in zip(found[:3], expected[:3], strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-4, atol=1e-5)
    for row, other in zip(found[3], expected[3], strict=True):
        assert row["loss"] == pytest.approx(other["loss"], rel=1e-5)
        assert row["val_accuracy"] == other["val_accuracy"]
    assert found[4]["loss"] == pytest.approx(expected[4]["loss"], rel=1e-4)
