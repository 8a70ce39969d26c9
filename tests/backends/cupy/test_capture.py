"""Captured steps on a GPU that is pretended: the bits of steps that were not captured, whatever
comes in between.

The pretended GPU (fake_streams.py) runs nothing while a stream captures, and repeats what was
recorded: numbers that were written into a graph, arrays that were given back and counters that
stand still are seen here. That CUDA accepts the graph is seen only on a real GPU:
test_gpu_parity.py.
"""

from __future__ import annotations

import gc
import signal
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from fake_streams import Gpus
from gpu_cases import (
    LATE,
    ByCublas,
    FromTheHost,
    Looking,
    Waiting,
    learned,
    network,
    pretended,
    samples,
)
from nets import same
from tiers import Number, first

import xpnet as xn

QUIET: dict[str, Any] = {"loss": "cross_entropy", "verbose": False}


def fitted(folder: Path, late: str = "at once", *, capture: bool,
           **settings: Any) -> tuple[Any, ...]:
    """History, everything learned, and (graphs made, graphs launched)."""
    given = {"optimizer": xn.Adam(1e-2, weight_decay=0.01), "epochs": 3,
             "batch_size": 8} | QUIET | settings
    with pretended(folder, LATE[late]) as (backend, gpus):
        net = network(backend)
        x, y = samples(given.pop("samples", 40))
        history = net.fit(x, y, capture=capture, **given)
        rows = [{name: value for name, value in row.items() if name != "seconds"}
                for row in history.rows]
        return rows, learned(net), (gpus.graphs, gpus.launches)


# --- the same bits --------------------------------------------------------------------------------

@pytest.mark.parametrize("late", first(LATE, "late"))
def test_many_steps_are_the_same_captured(late: str, number: Number, folder: Path):
    epochs = number(40)
    settings: dict[str, Any] = {"epochs": epochs, "schedule": "one_cycle"}
    rows, values, _ = fitted(folder, capture=False, **settings)
    captured_rows, captured, graphs = fitted(folder, late, capture=True, **settings)
    assert same(captured, values) and captured_rows == rows
    assert graphs == (1, 5 * epochs - 3)               # one as it comes, two to warm up
    assert len({row["loss"] for row in rows}) == epochs


@pytest.mark.parametrize("late", first(LATE, "late"))
@pytest.mark.parametrize("settings", [
    {"optimizer": xn.SGD(0.05, momentum=0.9, nesterov=True), "epochs": 4},
    {"optimizer": xn.AdamW(1e-2), "schedule": "one_cycle", "shuffle": False},
    {"samples": 43, "epochs": 4},                                               # a short last batch
    {"samples": 5, "epochs": 6},  # one short batch is all there is
    # looking in between changes nothing
    {"validation": samples(13, seed=1), "epochs": 4, "samples": 43},
    {"loss": "half_squared_error", "y": "shares"},
    {"optimizer": xn.Regularized(xn.RMSprop(1e-2), l1=1e-3, clip_value=0.1, clip_norm=0.2,
                                 max_norm=0.5), "epochs": 4,
     "schedule": xn.ReduceOnPlateau(patience=0)},
], ids=["nesterov", "adamw", "short", "one", "validation", "shares", "regularized"])
def test_fits_are_the_same_captured(settings: dict[str, Any], late: str, folder: Path):
    results = []
    for capture in (False, True):
        given = {"optimizer": xn.Adam(1e-2), "epochs": 3, "batch_size": 8} | QUIET | settings
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, gpus):
            net = network(backend)
            x, y = samples(given.pop("samples", 40))
            y = np.eye(4)[y] if given.pop("y", "") == "shares" else y
            history = net.fit(x, y, capture=capture, **given)
            results.append((learned(net), history["loss"], history.rows[-1].get("val_loss")))
            assert gpus.graphs == capture
    assert same(results[0][0], results[1][0]) and results[0][1:] == results[1][1:]


def test_steps_by_hand_with_batches_of_several_sizes(folder: Path):
    """Each size that comes again and again is captured; the steps are those of a loop that captures
    nothing."""
    x, y = samples(48)
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            net = network(backend)
            step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-2), capture=capture)
            losses = []
            for size in [8] * 5 + [3, 6] + [6] * 5 + [8, 3, 8, 6]:
                loss, output = step(net.batch_last(x[:size]), backend.asarray(y[:size]),
                                    1e-2 / len(losses or [1]))
                assert output.shape == (4, size)
                losses.append(float(backend.to_numpy(loss)))
            results.append((learned(net), losses))
            assert (gpus.graphs, gpus.launches) == ((2, 8) if capture else (0, 0))
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]


def test_two_networks_in_turn(folder: Path):
    """Their graphs do not share memory, and what one returned outlives the other's step."""
    x, y = samples(8)
    results = []
    for capture in (False, True):
        with pretended(folder) as (backend, gpus):
            nets = [network(backend, seed) for seed in (1, 2)]
            steps = [xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-2), capture=capture)
                     for net in nets]
            losses = []
            for _ in range(8):
                found = ([step(net.batch_last(x), backend.asarray(y))
                          for net, step in zip(nets, steps, strict=True)])
                losses += [(float(backend.to_numpy(loss)), backend.to_numpy(output).tolist())
                           for loss, output in found]
            results.append((losses, [learned(net) for net in nets]))
            assert gpus.launches == (2 * 5 if capture else 0)
    assert (results[0][0] == results[1][0]
            and all(same(a, b) for a, b in zip(results[0][1], results[1][1], strict=True)))


def test_sizes_that_are_not_used_any_longer_are_forgotten(folder: Path):
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.1))
        x, y = samples(16)
        for size in range(4, 11):
            for _ in range(4):
                step(net.batch_last(x[:size]), backend.asarray(y[:size]))
        assert gpus.graphs == 7 and len(step._captured) == 4
        used = gpus.used
        step.release()
        gc.collect()
        assert gpus.used < used


def test_what_a_captured_step_returns_is_its_own_until_the_next(folder: Path):
    with pretended(folder) as (backend, _):
        net = network(backend)
        step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-2))
        x, y = (backend.asarray(a) for a in samples(8))
        x = net.batch_last(x)
        for _ in range(4):
            loss, output = step(x, y)
        before = backend.to_numpy(loss).copy(), backend.to_numpy(output).copy()
        again, _ = step(x, y)
        assert (again is loss and backend.to_numpy(loss) != before[0]
                and not np.array_equal(backend.to_numpy(output), before[1]))


# --- in between -----------------------------------------------------------------------------------

@pytest.mark.parametrize("late", first(LATE, "late"))
def test_the_network_changes_in_between(late: str, folder: Path, tmp_path: Path):
    """A file is loaded, a layer frozen and set free, the settings of a layer changed, the network
    moved: as without capturing."""
    def fit(capture: bool) -> list[Any]:
        with pretended(folder, LATE[late if capture else "at once"]) as (backend, _):
            net, found = network(backend), []
            net.save(tmp_path / "file")

            def until(row: dict[str, float]) -> bool:
                found.append((row["loss"], learned(net)))
                if row["epoch"] == 2:
                    net.load(tmp_path / "file", architecture=False)     # p was changed
                if row["epoch"] in (3, 4):
                    net.layers[0].trainable = not net.layers[0].trainable
                if row["epoch"] == 6:
                    net.to(type(backend)(tf32="never"))
                return False
            optimizer = xn.Adam(1e-2)
            net.fit(*samples(), **QUIET, optimizer=optimizer, epochs=8, batch_size=8, until=until,
                    capture=capture)
            net.layers[4].p = 0.9
            net.fit(*samples(), **QUIET, optimizer=optimizer, epochs=2, batch_size=8, until=until,
                    capture=capture)
            return found
    eager, captured = fit(False), fit(True)
    assert [loss for loss, _ in captured] == [loss for loss, _ in eager] and len(eager) == 10
    assert all(same(a, b) for (_, a), (_, b) in zip(eager, captured, strict=True))
    filters = [values["parameters"][:27] for _, values in eager]
    # frozen, and free again
    assert np.array_equal(filters[3], filters[2]) and not np.array_equal(filters[4], filters[3])


def test_ctrl_c_between_captured_steps(folder: Path):
    """Pressed while the step is recorded, the only time that a loss is asked from the fourth step
    on."""
    class Interrupting(xn.CrossEntropy):
        calls = 0

        def __call__(self, backend: Any, y: Any, target: Any) -> Any:
            self.calls += 1
            if self.calls == 4:
                signal.raise_signal(signal.SIGINT)
            return super().__call__(backend, y, target)

    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        with pretended(folder) as (backend, gpus):
            net, control = network(backend), network(backend)
            x, y = samples()
            history = net.fit(x, y, loss=Interrupting(), optimizer=xn.Adam(1e-2), batch_size=8,
                              shuffle=False, verbose=False)
            assert history.interrupted and gpus.launches == 1
            control.fit(x[:32], y[:32], **QUIET, optimizer=xn.Adam(1e-2), batch_size=8,
                        shuffle=False, capture=False)
            assert same(learned(net), learned(control))
    finally:
        signal.signal(signal.SIGINT, before)


class Failing(xn.CrossEntropy):
    """Cross entropy that raises an error at one of its calls."""

    def __init__(self, call: int, error: BaseException) -> None:
        self.call, self.error, self.calls = call, error, 0

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        self.calls += 1
        if self.calls == self.call:
            raise self.error
        return super().__call__(backend, y, target)


@pytest.mark.parametrize("call", [1, 2, 4])
def test_a_second_ctrl_c_leaves_a_network_that_can_be_used(call: int, folder: Path):
    """KeyboardInterrupt in the middle of a step, also of one that is being recorded."""
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        optimizer = xn.Adam(1e-2)
        with pytest.raises(KeyboardInterrupt):
            net.fit(*samples(), loss=Failing(call, KeyboardInterrupt()), optimizer=optimizer,
                    batch_size=8, verbose=False)
        assert not any(stream.is_capturing() for stream in gpus.every)
        assert net.step is not None and set(net.step.updater.steps.values()) == {call - 1}
        assert (net.fit(*samples(), **QUIET, optimizer=optimizer, batch_size=8).rows
                and gpus.launches == 2)


def test_an_error_of_the_loss_is_seen(folder: Path):
    with pretended(folder) as (backend, _):
        net = network(backend)
        loss = Failing(1, ZeroDivisionError("in the loss"))
        with pytest.raises(ZeroDivisionError, match="in the loss"):
            net.fit(*samples(), loss=loss, optimizer=xn.SGD(0.1), batch_size=8, verbose=False)


# --- falling back ---------------------------------------------------------------------------------

@pytest.mark.parametrize("loss, why", [
    (FromTheHost(), "RuntimeError: the current stream is capturing, so H2D transfers are "
                    "disallowed"),
    (ByCublas(), "NotImplementedError: calling cuBLAS API during stream capture is currently "
                 "unsupported"),
    (Waiting(), "CUDARuntimeError: cudaErrorStreamCaptureUnsupported"),
    (Looking(), "RuntimeError: the current stream is capturing"),
], ids=lambda value: type(value).__name__)
def test_a_step_that_cannot_be_captured_runs_as_it_did(loss: xn.Loss, why: str, folder: Path):
    rows, values, _ = fitted(folder, capture=False, loss=loss)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        rows_too, values_too, graphs = fitted(folder, capture=True, loss=loss)
    assert [str(w.message).startswith("TrainStep: the step could not be captured and runs launch "
                                      f"by launch from now on ({why}")
            for w in caught] == [True]
    assert rows_too == rows and same(values_too, values) and graphs == (0, 0)


def test_a_failure_in_the_middle_changes_nothing(folder: Path):
    """No memory while the step is recorded, after the forward pass: batch norm's statistics must
    not move twice."""
    rows, values, _ = fitted(folder, capture=False)
    with pytest.warns(UserWarning, match=r"MemoryError: no room\)") as caught:
        rows_too, values_too, graphs = (fitted(folder, capture=True,
                                               loss=Failing(4, MemoryError("no room"))))
    assert len(caught) == 1 and graphs == (0, 0)
    assert rows_too == rows and same(values_too, values)


class GivingBack(xn.CrossEntropy):
    """Cross entropy during whose fourth call, the recorded one, CuPy's pool frees what it has."""

    def __init__(self, gpus: Gpus, frees: bool, takes: int) -> None:
        self.gpus, self.frees, self.takes, self.calls = gpus, frees, takes, 0

    def __call__(self, backend: Any, y: Any, target: Any) -> Any:
        self.calls += 1
        if self.calls == 4:
            if self.frees:
                assert self.gpus.pool is not self.gpus.default_pool     # that of the graph
                self.gpus.pool.free_all_blocks()
            backend.empty((self.takes,), np.uint8)
        return super().__call__(backend, y, target)


@pytest.mark.parametrize("takes", [0, 1 << 20])
@pytest.mark.parametrize("frees", [False, True])
def test_a_graph_whose_memory_was_freed_is_dropped(frees: bool, takes: int, folder: Path):
    """Also if the pool took more afterwards than it had freed."""
    with pretended(folder) as (backend, gpus), warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        net = network(backend)
        net.fit(*samples(), **QUIET | {"loss": GivingBack(gpus, frees, takes)},
                optimizer=xn.Adam(1e-2), epochs=2, batch_size=8)
        assert [("MemoryError: memory became so scarce" in str(w.message)) for w in caught
                ] == [True] * frees
        assert (gpus.launches == 0) == frees
        control = network(backend)
        control.fit(*samples(), **QUIET, optimizer=xn.Adam(1e-2), epochs=2, batch_size=8,
                    capture=False)
        assert same(learned(net), learned(control))


@pytest.mark.parametrize("steps", [1, 2, 3, 6])
def test_a_dropped_step_frees_its_memory_at_once(steps: int, folder: Path):
    """Whether it was recorded or not, without the garbage collector."""
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        x, y = samples(8)
        batch = net.batch_last(x), backend.asarray(y)
        gc.collect()
        gc.disable()
        try:
            used = gpus.used
            step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-2))
            for _ in range(steps):
                step(*batch)
            assert gpus.used > used and gpus.graphs == (steps > 3)
            del step
            assert gpus.used == used
        finally:
            gc.enable()


def test_many_arrays_are_joined_in_a_graph(folder: Path):
    """CuPy's concatenate and stack of more than eight arrays cannot be captured."""
    def fit(capture: bool) -> dict[str, np.ndarray]:
        with pretended(folder) as (backend, gpus):
            x = xn.Input((1, 4, 4))
            parts = [xn.Conv2d(1, 1)(x) for _ in range(9)]
            y = xn.AdaptiveAvgPool2d(9)(xn.Concat()(*parts))
            net = xn.Network(x, xn.Linear(4)(xn.Flatten()(y)), backend=backend, seed=1)
            net.fit(*samples(), **QUIET, optimizer=xn.Adam(1e-2), batch_size=8, capture=capture)
            assert gpus.graphs == capture
            return learned(net)
    assert same(fit(True), fit(False))


def test_a_failure_is_not_tried_again_for_other_sizes(folder: Path):
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        step = xn.TrainStep(net, FromTheHost(), xn.SGD(0.1))
        x, y = samples(16)
        with pytest.warns(UserWarning, match="could not be captured") as caught:
            for size in [8] * 6 + [4] * 6:
                step(net.batch_last(x[:size]), backend.asarray(y[:size]))
        assert len(caught) == 1 and not step.capture and gpus.graphs == 0


def test_no_memory_is_left_behind(folder: Path):
    """The graph, the arrays that it lives in and the samples go when fit ends; the optimizer's
    memory stays."""
    with pretended(folder) as (backend, gpus):
        net = network(backend)
        optimizer = xn.Adam(1e-2)
        net.fit(*samples(), **QUIET, optimizer=optimizer, batch_size=8)
        gc.collect()
        used = gpus.used
        for _ in range(2):
            net.fit(*samples(400), **QUIET, optimizer=optimizer, batch_size=100)
        gc.collect()
        assert gpus.used == used and gpus.graphs == 3


def test_one_stream_for_all(folder: Path):
    """What a user computed before is there in time, and what was trained is there afterwards,
    without a word from them."""
    with pretended(folder, LATE["late"]) as (backend, gpus):
        xp = backend.xp
        net = network(backend)
        x, y = samples()
        stream = xp.cuda.Stream(non_blocking=True)
        with stream:
            halved = xp.asarray(x) // 2
            net.fit(halved, y, **QUIET, optimizer=xn.Adam(1e-2), batch_size=8)
            step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.0))  # nobody waits for its result
            before = net.counters + net.counters.dtype.type(0)
            for _ in range(4):
                step(net.batch_last(halved), backend.asarray(y))
            made = backend.to_numpy(net.counters - before)
        assert made.tolist() == [4, 0] and gpus.graphs == 2
        net = network(backend)
        net.fit(x // 2, y, **QUIET, optimizer=xn.Adam(1e-2), batch_size=8)
        control = network(backend)
        control.fit(x // 2, y, **QUIET, optimizer=xn.Adam(1e-2), batch_size=8, capture=False)
        assert same(learned(net), learned(control))


def test_on_the_cpu_there_is_nothing_to_capture():
    net = network("numpy")
    assert not net.backend.captures
    called = []
    run = net.backend.capture(lambda: called.append(1))
    assert [run() for _ in range(5)] == [None] * 5 and len(called) == 5
    x, y = samples()
    other = network("numpy")
    net.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), capture=True)
    other.fit(x, y, **QUIET, optimizer=xn.Adam(1e-2), capture=False)
    assert same(learned(net), learned(other))
