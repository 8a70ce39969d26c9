"""Captured steps of graphs with shared layers, several inputs and outputs, and learning rates by
layer."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import LATE, learned, pretended
from nets import same
from tiers import first

import xpnet as xn


def two_outputs(backend: Any) -> xn.Network:
    """Two images through the same convolution -> a class and three numbers."""
    a, b = xn.Input((1, 4, 4)), xn.Input((1, 4, 4))
    conv, drop = xn.Conv2d(3, 3, padding="half", activation="relu"), xn.Dropout(0.3)
    left, right = (drop(xn.Flatten()(conv(x))) for x in (a, b))
    conv.lr_scale = 0.25
    both = xn.Concat()(left, right)
    return xn.Network({"a": a, "b": b}, {"digit": xn.Linear(4)(both), "place": xn.Linear(3)(both)},
                      backend=backend, seed=1)


def data(n: int) -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    return ({name: rng.random((n, 1, 4, 4), np.float32) for name in "ab"},
            {"digit": rng.integers(0, 4, n), "place": rng.random((n, 3), np.float32)})


LOSSES = {"digit": "cross_entropy", "place": "mean_squared_error"}


@pytest.mark.parametrize("late", first(["at once", "late"], "late"))
@pytest.mark.parametrize("weighted", [False, True], ids=["", "weights"])
def test_the_same_bits(weighted: bool, late: str, folder: Path):
    x, y = data(43)
    results = []
    for capture in (False, True):
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            net = two_outputs(backend)
            weight = np.linspace(0, 1, 43) if weighted else None
            history = net.fit(x, y, loss=LOSSES, loss_weights={"digit": 1, "place": 0.5},
                              optimizer=xn.Adam(1e-2), epochs=4, batch_size=8, sample_weight=weight,
                              capture=capture, verbose=False)
            results.append((learned(net), history["loss"], history["digit_accuracy"],
                            history["place_loss"]))
            assert gpus.graphs == capture
    assert same(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


def test_a_factor_that_changes_between_steps_is_read_at_each(folder: Path):
    x, y = data(8)
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, _):
            net = two_outputs(backend)
            step = xn.TrainStep(net, LOSSES, xn.Adam(1e-2), capture=capture)
            xs = {name: backend.asarray(np.moveaxis(a, 0, -1)) for name, a in x.items()}
            ys = {"digit": backend.asarray(y["digit"]), "place": backend.asarray(y["place"].T)}
            for scale in [0.25] * 5 + [0.5] * 3 + [1.0] * 4 + [0.25] * 4:
                net.layers[0].lr_scale = scale
                step(xs, ys)
            net.step = step
            results.append(learned(net))
    assert same(*results)


def test_a_captured_step_has_the_learning_rate_of_its_call(folder: Path):
    x, y = data(8)
    rates = [0.1] * 5 + [0.0, 0.1, 0.0, 0.0, 0.1]
    changed = []
    with pretended(folder) as (backend, gpus):
        net = two_outputs(backend)
        step = xn.TrainStep(net, LOSSES, xn.SGD(0.1))
        xs = {name: backend.asarray(np.moveaxis(a, 0, -1)) for name, a in x.items()}
        ys = {"digit": backend.asarray(y["digit"]), "place": backend.asarray(y["place"].T)}
        for lr in rates:
            before = backend.to_numpy(net.parameters)
            step(xs, ys, lr)
            changed.append(not np.array_equal(backend.to_numpy(net.parameters), before))
        assert gpus.graphs == 1
    assert changed == [lr > 0 for lr in rates]
