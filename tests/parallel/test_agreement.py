"""Ranks that do not fit together are refused, and what one rank asks for holds for all."""

from __future__ import annotations

import sys
import time
import warnings
from contextlib import suppress
from typing import Any

import numpy as np
import pytest
import trainings
from nets import blobs, small
from processes import run_script
from trainings import X, Y, a_network, options

import xpnet as xn
from xpnet.parallel import DataParallel, in_threads
from xpnet.training.same import network_facts

x, y = blobs(40)


def with_layers(between: xn.Layer | None = None, *, frozen: bool = False, lr_scale: float = 1.0
                ) -> xn.Sequential:
    """The network of `small`, with a difference that no parameter shows."""
    net = xn.Sequential([xn.Linear(16, activation="relu"), between or xn.Dropout(0.1),
                         xn.Linear(3)], input_shape=(2,), backend="numpy")
    net.layers[0].trainable, net.layers[0].lr_scale = not frozen, lr_scale
    return net


def fit(communicator: Any, net: Any = None, sync: bool = False, **changes: Any) -> xn.History:
    if sync:
        communicator = DataParallel(communicator, sync=True)
    return (net or small()).fit(**{"x": x, "y": y, "loss": "cross_entropy", "batch_size": 10,
                                   "verbose": False, "parallel": communicator} | changes)


@pytest.mark.parametrize("change, message", [
    (lambda: {"net": small(seed=1)}, "parameters .* on rank 1 instead of"),
    (lambda: {"x": x + 1}, "samples .* on rank 1"),
    (lambda: {"batch_size": 20}, "batch_size 20 on rank 1 instead of 10"),
    (lambda: {"optimizer": xn.SGD(0.1)}, "optimizer .* on rank 1"),
    (lambda: {"loss": xn.CrossEntropy(label_smoothing=0.1)}, "loss .* on rank 1"),
    (lambda: {"sync": True}, "sync True on rank 1 instead of False"),
    (lambda: {"epochs": 3}, "epochs 3 on rank 1 instead of 1"),
    (lambda: {"net": with_layers(xn.Dropout(0.2))}, r"layer dropout1 .Dropout\(p=0.2.* on rank 1"),
    (lambda: {"net": with_layers(frozen=True)}, "layer linear1 .Linear.*, frozen. on rank 1"),
    (lambda: {"net": with_layers(lr_scale=0.5)}, "layer linear1 .*, lr_scale=0.5. on rank 1"),
    (lambda: {"net": with_layers(xn.Tanh(name="dropout1"))}, "layer dropout1 .Tanh.* on rank 1"),
])
def test_a_difference_is_named_on_every_rank(change, message):
    messages = []

    def run(communicator: Any) -> None:
        try:
            fit(communicator, **(change() if communicator.rank == 1 else {}))
        except ValueError as error:
            messages.append(str(error))

    in_threads(2, run)
    assert len(messages) == 2 and len({*messages}) == 1
    with pytest.raises(ValueError, match=f"fit: expected the same on every rank.*{message}"):
        raise ValueError(messages[0])


def test_the_address_of_an_argument_is_no_difference():
    """Each rank has an object of its own in a layer."""
    class Holds(xn.Dropout):
        def __init__(self, thing: object) -> None:
            super().__init__(0.1)
            self.thing = thing

    found = in_threads(2, lambda communicator: fit(communicator, with_layers(Holds(object()))))
    assert found[0]["loss"] == found[1]["loss"]


@pytest.mark.parametrize("name", ["xpnet", "numpy"])
def test_other_versions_are_refused(name):
    """The ranks are threads, so one is given facts of another version."""
    def run(communicator: Any) -> None:
        parallel = DataParallel(communicator)
        facts = network_facts(small())
        parallel.agree("fit", facts | ({name: "9.9"} if communicator.rank == 1 else {}))

    with pytest.raises(ValueError, match=f"Received: {name} '9.9' on rank 1 instead of '"):
        in_threads(2, run)


def test_an_optimizer_that_was_used_before_on_one_rank_is_refused():
    def run(communicator: Any) -> None:
        net, optimizer = small(), xn.Adam()
        start = net.parameters.copy(), net.counters.copy()
        for fits in range(2):
            if fits or communicator.rank == 1:
                fit(communicator if fits else None, net, optimizer=optimizer)
            net.parameters, net.counters, net.epochs = *start, 0

    with pytest.raises(ValueError, match="the same on every rank. Received: slots"):
        in_threads(2, run)


def test_an_error_before_the_start_reaches_every_rank():
    messages = {}

    def run(communicator: Any) -> None:
        try:
            fit(communicator, batch_size=0 if communicator.rank == 2 else 10)
        except (ValueError, RuntimeError) as error:
            messages[communicator.rank] = str(error)

    in_threads(4, run)
    assert messages[2].startswith("fit: expected batch_size")
    assert all("Received on rank 2: ValueError: fit: expected batch_size" in messages[rank]
               for rank in (0, 1, 3))


def test_an_error_in_the_training_ends_every_rank():
    class Failing(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.parallel.rank == 1 and run.steps == 3:
                raise OSError("no more samples")

    with pytest.raises(OSError, match="no more samples"):
        in_threads(2, lambda communicator: fit(communicator, callbacks=[Failing()]))


@pytest.mark.parametrize("bad_rank", [0, 1])
def test_an_error_of_an_evaluation_in_a_callback_ends_every_rank(bad_rank):
    """Also before the ranks agree on the evaluation: `fit` itself ends all, so none waits."""
    ended = []

    class Evaluates(xn.Callback):
        def on_epoch_end(self, run: xn.Run) -> None:
            size = 0 if run.parallel.rank == bad_rank and run.epoch == 2 else 8
            run.net.evaluate(x, y, batch_size=size, parallel=run.parallel)

    def run(communicator: Any) -> None:
        try:
            fit(communicator, epochs=3, callbacks=[Evaluates()])
        finally:
            ended.append(len(communicator._board.errors))

    with pytest.raises((ValueError, RuntimeError), match="evaluate: expected batch_size"):
        in_threads(2, run)
    assert min(ended) >= 1


@pytest.mark.parametrize("ask, attribute", [("stop", "stopped"), ("interrupt", "interrupted")])
def test_what_one_rank_asks_for_in_a_batch_holds_for_all_after_the_next(ask, attribute):
    class Asks(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.parallel.rank == 1 and run.steps == 2:
                getattr(run, ask)()

    def run(communicator: Any) -> tuple[int, bool, bool]:
        history = fit(communicator, epochs=3, callbacks=[steps := Steps(), Asks()])
        return steps.count, getattr(history, attribute), history.ended

    assert in_threads(2, run) == [(3, True, True)] * 2


class Steps(xn.Callback):
    count = 0

    def on_batch_end(self, run: xn.Run) -> None:
        self.count += 1


def test_ranks_that_end_after_different_epochs_are_noticed():
    class Ends(xn.Callback):
        def on_epoch_end(self, run: xn.Run) -> None:
            if run.parallel.rank == 0:
                run.stop()

    with pytest.raises(RuntimeError, match="the same on every rank after epoch 1. Received: ended"):
        in_threads(2, lambda communicator: fit(communicator, epochs=2, callbacks=[Ends()]))


def test_parameters_that_went_apart_are_noticed():
    class Changes(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.parallel.rank == 1:
                run.net.parameters[0] += 1

    with pytest.raises(RuntimeError, match="same on every rank after epoch 1. Received: parameter"):
        in_threads(2, lambda communicator: fit(communicator, callbacks=[Changes()]))


def test_history_is_the_same_and_files_are_written_once(tmp_path, capfd):
    def run(communicator: Any) -> list[Any]:
        history = fit(communicator, epochs=2, verbose=True, checkpoint=tmp_path / "c",
                      callbacks=[xn.CSVLog(tmp_path / "log.csv"), xn.Timing(),
                                 xn.TensorBoard(tmp_path / "t")])
        return history.rows

    rows = in_threads(4, run)
    assert rows == rows[:1] * 4 and len(rows[0]) == 2       # the times, too
    assert len((tmp_path / "log.csv").read_text().splitlines()) == 3
    out, err = capfd.readouterr()
    assert out.count("training ") == 1 and "4 ranks" in out
    assert err.count("1/2") == 1


def test_a_divergence_is_found_in_the_shard_where_it_begins():
    """Only the last sample of the batch is huge; all ranks stop and have the same parameters."""
    def run(communicator: Any) -> tuple[str, bool, bytes]:
        net = xn.Sequential([xn.Linear(4, name="a"), xn.Linear(1, name="b")], input_shape=(2,),
                            backend="numpy")
        data = np.ones((8, 2), np.float32)
        data[-1] = 1e38
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            history = net.fit(data, np.ones((8, 1)), loss="mean_squared_error", optimizer="sgd",
                              batch_size=8, shuffle=False, verbose=False, parallel=communicator)
        return str(history.divergence), history.diverged, net.parameters.tobytes()

    alone, = in_threads(1, run)
    assert alone[1] and "step 1" in alone[0]
    assert in_threads(4, run) == [alone] * 4


@pytest.mark.parametrize("shards, deterministic, message", [
    (6, True, "DataParallel: expected shards to be a power of two, or deterministic=False"),
    (3, False, "fit: expected shards to be a multiple of the number of ranks"),
    (1, True, "fit: expected shards to be a multiple of the number of ranks"),
    (0, True, "DataParallel: expected shards to be an int from 1"),
])
def test_shards_have_to_fit(shards, deterministic, message):
    with pytest.raises(ValueError, match=message):
        in_threads(2, lambda communicator: fit(DataParallel(
            communicator, shards=shards, deterministic=deterministic)))


def test_three_ranks_need_sums_without_a_fixed_order():
    """No power of two is a multiple of 3; what the error names works."""
    with pytest.raises(ValueError, match="fit: expected 1, 2, 4, 8, ... ranks, or sums without a "
                       r"fixed order, as in .*DataParallel\(shards=12, deterministic=False\)"):
        in_threads(3, fit)
    in_threads(3, lambda communicator: fit(DataParallel(communicator, shards=12,
                                                        deterministic=False)))


def test_three_ranks_can_share_six_shards():
    first, *others = in_threads(3, lambda communicator: fit(
        DataParallel(communicator, shards=6, deterministic=False)).rows)
    assert others == [first] * 2


def test_batch_norm_needs_two_samples_in_each_shard():
    net = xn.Sequential([xn.BatchNorm1d(), xn.Linear(3)], input_shape=(2,), backend="numpy")
    with pytest.raises(ValueError, match="expected shards of at least 2 in training.*the last of 7,"
                                         " cut into 4 shards"):
        in_threads(1, lambda communicator: fit(communicator, net, batch_size=33))


@pytest.mark.parametrize("fails", [False, True])
def test_the_first_rank_of_a_machine_is_before_the_others(fails):
    """Also if it fails: the others do not wait for ever."""
    events = []

    def run(communicator: Any) -> None:
        with suppress(OSError), DataParallel(communicator).in_turn():
            events.append(("begin", communicator.rank))
            time.sleep(0.02)
            events.append(("end", communicator.rank))
            if fails:
                raise OSError("no images")

    in_threads(3, run)
    assert events[:2] == [("begin", 0), ("end", 0)] and len(events) == 6


def test_parallel_is_none_true_or_a_communicator():
    with pytest.raises(TypeError, match="fit: expected parallel to be None, True, a Communicator"):
        a_network().fit(X, Y, **options(parallel=4))
    assert trainings.a_network().fit(X, Y, **options(epochs=1, parallel=False)).rows


def test_a_rank_uses_its_share_of_the_cores_unless_a_number_is_chosen(monkeypatch):
    seen = []

    class Threads(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            seen.append(xn.get_num_threads())

    def run(communicator: Any) -> None:
        communicator.threads = 3
        fit(communicator, batch_size=40, callbacks=[Threads()])

    monkeypatch.delenv("XPNET_NUM_THREADS", raising=False)
    default = xn.get_num_threads()
    in_threads(1, run)
    assert seen == [3] and xn.get_num_threads() == default
    monkeypatch.setenv("XPNET_NUM_THREADS", "2")
    in_threads(1, run)
    assert seen == [3, 2]


def test_without_mpi4py_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "mpi4py", None)
    with pytest.raises(ImportError, match=r'parallel: expected mpi4py; pip install "xpnet\[mpi\]"'):
        fit(True)


def test_importing_xpnet_starts_no_mpi():
    shown = run_script("""
import sys, xpnet, xpnet.parallel
assert "mpi4py" not in sys.modules
assert not xpnet.parallel.launched()
xpnet.parallel.end_all(2, "an error")
""", PMI_SIZE="", PMIX_RANK="", OMPI_COMM_WORLD_SIZE="")
    assert shown == "an error\n"
