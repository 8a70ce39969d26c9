"""Captured forward passes on a pretended GPU, and how their results reach the host."""

from __future__ import annotations

import gc
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_streams import Event
from gpu_cases import LATE, Looking, learned, network, pretended, samples
from nets import same
from parity import same_bits

import xpnet as xn
from xpnet.backends import Backend
from xpnet.backends.cupy.collector import SLOTS, DeviceCollector
from xpnet.training.prediction import FEWEST

QUIET: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}


def two_outputs(backend: Any) -> xn.Network:
    x = xn.Input((1, 4, 4))
    h = xn.Conv2d(3, 3, activation="relu")(x)
    flat = xn.Flatten()(h)
    return xn.Network(x, {"map": h, "digit": xn.Linear(4)(flat)}, backend=backend, seed=1)


@pytest.mark.parametrize("late", LATE)
@pytest.mark.parametrize("size", [8, 7, 100])
def test_predictions_have_the_same_bits(size: int, late: str, folder: Path,
                                        monkeypatch: pytest.MonkeyPatch):
    """Captured for many batches of 8 or 7, the last one smaller, and not for the only one of 100;
    twice, and with other parameters."""
    x, y = samples(83)
    found: list[list[np.ndarray]] = []
    for capture in (True, False):
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            monkeypatch.setattr(type(backend), "captures", capture)
            net, results = two_outputs(backend), []
            for change in (0.0, 1.0):
                net.parameters[...] = net.parameters + np.float32(change)
                before = gpus.graphs
                results += [*net.predict(x, batch_size=size).values()]
                assert gpus.graphs - before == (capture and size < 100)
            found.append(results)
    assert all(same_bits(a, b) for a, b in zip(*found, strict=True))
    assert not same_bits(found[0][0], found[0][2])


@pytest.mark.parametrize("late", LATE)
def test_figures_have_the_same_bits(late: str, folder: Path, monkeypatch: pytest.MonkeyPatch):
    """Those of evaluate, with metrics and without, and those of the validation of each epoch."""
    x, y = samples(83)
    found = []
    for capture in (True, False):
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            monkeypatch.setattr(type(backend), "captures", capture)
            monkeypatch.setattr("xpnet.training.loop.EVALUATED", 20)
            net = network(backend)
            history = net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), epochs=3, batch_size=30,
                              validation=(x, y))
            assert gpus.graphs == 2 * capture                   # the step, and the validation
            before = gpus.graphs
            metrics = {"outputs": lambda output, target: output.copy()}
            figures = net.evaluate(x, y, batch_size=8, metrics=metrics)
            assert gpus.graphs - before == capture
            outputs = figures.pop("outputs")
            assert figures == net.evaluate(x, y, batch_size=8)
            found.append((outputs, figures, history["val_loss"], history["val_accuracy"],
                          learned(net)))
    assert same_bits(found[0][0], found[1][0]) and found[0][1:4] == found[1][1:4]
    assert same(found[0][4], found[1][4])


def test_few_batches_are_not_captured(folder: Path):
    x, _ = samples(8 * FEWEST)
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        net.predict(x[:-1], batch_size=8)
        assert gpus.graphs == 0
        net.predict(x, batch_size=8)
        assert gpus.graphs == 1 and gpus.launches == FEWEST - 2


def test_a_forward_pass_that_cannot_be_captured(folder: Path):
    x, y = samples(83)
    with pretended(folder) as (backend, gpus), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = network(backend)
        looking = net.evaluate(x, y, loss=Looking(), batch_size=8)
        assert [str(w.message).partition(" (")[0] for w in caught] == [
            "evaluate: the forward pass could not be captured and runs launch by launch"]
        assert looking == net.evaluate(x, y, loss="cross_entropy", batch_size=8)
        assert gpus.graphs == 1                                 # of the second one


def test_predictions_leave_no_memory_and_counters_behind(folder: Path):
    x, _ = samples(83)
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        net.predict(x, batch_size=8)
        counters = backend.to_numpy(net.counters)
        gc.collect()
        gc.disable()
        try:
            used = gpus.used
            first = net.predict(x, batch_size=8)
            again = net.predict(x[::-1], batch_size=8)
            assert gpus.used == used
        finally:
            gc.enable()
        assert np.array_equal(first[::-1], again) and not np.array_equal(first, again)
        assert np.array_equal(backend.to_numpy(net.counters), counters)


# --- results on their way -------------------------------------------------------------------------

def test_results_of_every_shape_are_collected(folder: Path):
    with pretended(folder, LATE["late"]) as (backend, _):
        shapes = [(3, 5), (5,), (2, 3, 4), (0, 3), (3, 0), (7, 5), (3, 5), (1, 1)] * 2
        ys = [np.random.default_rng(k).random(shape) for k, shape in enumerate(shapes)]
        outs = [np.empty((shape[-1], *shape[:-1])) for shape in shapes]
        for each in (backend, Backend()):
            with backend.stream(), each.collector() as collector:
                assert isinstance(collector, DeviceCollector) == (each is backend)
                for y, out in zip(ys, outs, strict=True):
                    out.fill(-1)
                    collector.put(each.asarray(y), out)
            assert all(same_bits(out, np.moveaxis(y, -1, 0))
                       for y, out in zip(ys, outs, strict=True))


def test_the_host_waits_only_when_all_slots_are_in_use(folder: Path):
    with pretended(folder, LATE["late"]) as (backend, _), backend.stream():
        y, outs = backend.zeros((2, 3), np.float32), np.empty((SLOTS + 1, 3, 2), np.float32)
        compute = backend._lane.compute
        with backend.collector() as collector:
            done = compute.ended
            for out in outs[:SLOTS]:
                collector.put(y, out)
            assert compute.ended == done
            collector.put(y, outs[SLOTS])
            assert compute.ended > done


@pytest.mark.parametrize("mistake", [False, True])
def test_memory_that_is_used_before_its_copy_has_ended_is_noticed(
        mistake: bool, folder: Path, monkeypatch: pytest.MonkeyPatch):
    with pretended(folder, LATE["late"]) as (backend, _), backend.stream():
        ys = [backend.asarray(np.full((2, 3), k, np.float32)) for k in range(9)]
        outs = np.empty((9, 3, 2), np.float32)
        if mistake:
            monkeypatch.setattr(Event, "synchronize", lambda self: None)
        with backend.collector() as collector:
            for y, out in zip(ys, outs, strict=True):
                collector.put(y, out)
        right = np.broadcast_to(np.arange(9.0)[:, None, None], outs.shape)
        assert np.array_equal(outs, right) != mistake
