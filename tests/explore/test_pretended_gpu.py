"""On an emulated GPU, whose streams run only when something waits for them, the page shows what it
shows on the NumPy backend."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from gpu_cases import LATE, network, pretended, samples
from tiers import full

import xpnet as xn
from xpnet.explore.session import Session
from xpnet.explore.trace import traced

X, Y = samples(6)


def found(backend: Any) -> dict[str, np.ndarray]:
    """Values, gradients, traces and parameters before and after some steps of training."""
    net = network("numpy").to(backend)
    session = Session(net, xn.data.Dataset(X, Y))
    results: dict[str, np.ndarray] = {}
    for when in "before", "after":
        session.set_sample(2)
        session.set_target(1)
        side = session.differentiated()
        for k, node in enumerate(side.nodes):
            results[f"{when}: {k}"] = side.array(node)
            results[f"{when}: gradient {k}"] = side.array(node, True)
            found = traced(side, node, tuple(n // 2 for n in node.shape))
            results[f"{when}: trace {k}"] = np.array(found.get("result") or 0.0)
        for name in net.arrays:
            results[f"{when}: {name}"] = session.parameter(name, "a", False)
        session.trainer.settings(lr=1e-4, batch=3)
        for _ in range(4):
            session.trainer.act("step")
        assert session.trainer.error is None
    results["losses"] = np.array([loss for _, loss in session.trainer.losses])
    moved = results["after: linear1.W"] - results["before: linear1.W"]
    assert 2e-4 < np.abs(moved).max() < 5e-4        # four steps of the rate
    return results


@full
def test_on_an_emulated_gpu(folder: Path):
    expected = found("numpy")
    with pretended(folder, LATE["late"]) as (backend, _):
        results = found(backend)
    assert results.keys() == expected.keys()
    # The gradient of conv1.b is rounding noise, because a batch norm follows. Adam makes steps of
    # the size of the rate of it.
    for name, values in expected.items():
        bound = 1e-5 if name.startswith("before") else 2e-3
        np.testing.assert_allclose(results[name], values, rtol=bound, atol=bound, err_msg=name)
