"""Ranks with a GPU each, on pretended GPUs: what NCCL is asked for, on which stream, and the sums.

No exchange between real GPUs is tested here.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import fake_nccl
import nccl_checks
import numpy as np
import pytest
from fake_nccl import FakeNccl, in_gpus, pretended_ranks
from gpu_cases import LATE, FromTheHost, network, samples
from tiers import first, full

import xpnet as xn
import xpnet.backends.cupy.backend
from xpnet.backends.cupy.nccl import StreamSender
from xpnet.parallel import Communicator, DataParallel, NCCLCommunicator, in_threads
from xpnet.parallel.sums import Branch, Sums


def pairs(arrays: list[np.ndarray]) -> np.ndarray:
    """((a0 + a1) + (a2 + a3)) + ..., by halves."""
    half = len(arrays) // 2
    return arrays[0] if not half else pairs(arrays[:half]) + pairs(arrays[half:])


@pytest.mark.parametrize("late", first(["no stream", "all streams", "the stream that computes"],
                                       "all streams"))
@pytest.mark.parametrize("ranks", [1, 2, 4])
def test_shards_are_added_in_a_fixed_tree(ranks, late, folder):
    """On streams that run late, so that a missing event is seen in the sums."""
    rng = np.random.default_rng(0)
    shards = [rng.standard_normal(999).astype(np.float32) * 10.0**(k % 5) for k in range(8)]
    computing = set[int]()

    def is_late(stream: Any) -> bool:
        return late == "all streams" or stream.ptr in computing

    with pretended_ranks(folder, ranks, late=is_late) as (backends, _):
        def run(communicator: NCCLCommunicator) -> list[np.ndarray]:
            backend = communicator.backend
            if late == "the stream that computes":
                computing.add(backend._lane.compute.ptr)
            with backend.stream():
                branch = Branch(lambda: Sums(999, 2, np.float32, ranks, backend.zeros))
                for k in range(8 // ranks):
                    place = branch.new()
                    number = 8 // ranks * communicator.rank + k
                    place.values[...] = backend.asarray(shards[number])
                    place.figures[...] = number
                    branch.push(place)
                total, sender = branch.total(), communicator.sender()
                sender.send(lambda: DataParallel(communicator, shards=8).add_ranks(total))
                sender.wait()
                total.values[:1] *= 2           # on the stream that waited
                return [backend.to_numpy(total.values), backend.to_numpy(total.figures)]

        expected = pairs(shards)
        expected[0] *= 2
        for values, figures in in_gpus(backends, run):
            assert np.array_equal(values, expected)
            assert figures.tolist() == [28.0] * 2


@pytest.mark.parametrize("method, late", [("send", "the stream that computes"),
                                          ("wait", "all streams")])
def test_without_an_event_the_sums_are_others(method, late, folder, monkeypatch):
    """So that the test above can fail."""
    def send(self: StreamSender, work: Callable[[], Any]) -> None:
        with self._stream:
            work()

    monkeypatch.setattr(StreamSender, method, send if method == "send" else lambda self: None)
    with pytest.raises(AssertionError):
        test_shards_are_added_in_a_fixed_tree(2, late, folder)


def test_nccl_is_asked_for_messages_of_all_ranks_and_a_gather_on_a_stream_of_its_own(folder):
    with pretended_ranks(folder, 2) as (backends, module):
        def run(communicator: NCCLCommunicator) -> int:
            with communicator.backend.stream():
                sums = Sums(100, 2, np.float32, 2, communicator.backend.zeros)
                sender = communicator.sender()
                sender.send(lambda: communicator.tree_sum(sums.memory, sums.add))
                sender.wait()
                return communicator.backend._lane.compute.ptr

        compute = in_gpus(backends, run)
        assert [call[:2] for call in module.log[0]] == [
            ("group", (("send", 0), ("recv", 0), ("send", 1), ("recv", 1))),
            ("allGather", (208, module.NCCL_UINT8))]        # half of 400 + 2 * 8 bytes
        streams = {call[2] for call in module.log[0]}
        assert len(streams) == 1 and not streams & {0, compute[0]}


def test_rows_come_in_the_order_of_the_ranks(folder):
    with pretended_ranks(folder, 4) as (backends, _):
        def run(communicator: NCCLCommunicator) -> Any:
            backend, rank = communicator.backend, communicator.rank
            a = backend.asarray(10 * rank + np.arange(8).reshape(4, 2))
            return [backend.to_numpy(found).tolist()
                    for found in (communicator.exchange(a), communicator.gather(a[1]))]

        assert in_gpus(backends, run) == [
            [[[10 * k + 2 * rank, 10 * k + 2 * rank + 1] for k in range(4)],
             [[10 * k + 2, 10 * k + 3] for k in range(4)]] for rank in range(4)]


@pytest.mark.parametrize("dtype, name", [("float32", "NCCL_FLOAT32"), ("float64", "NCCL_FLOAT64"),
                                         ("int64", "NCCL_INT64")])
def test_the_plain_sum_is_one_all_reduce(dtype, name, folder):
    with pretended_ranks(folder, 2) as (backends, module):
        def run(communicator: NCCLCommunicator) -> list[float]:
            a = communicator.backend.asarray(np.arange(5, dtype=dtype) + communicator.rank)
            communicator.plain_sum(a)
            return communicator.backend.to_numpy(a).tolist()

        assert in_gpus(backends, run) == [[1, 3, 5, 7, 9]] * 2
        assert [call[:2] for call in module.log[1]] == [("allReduce", (5, getattr(module, name)))]


@pytest.mark.parametrize("check", [
    nccl_checks.check_exchange, pytest.param(nccl_checks.check_training, marks=full)])
def test_a_rank_exchanges_with_itself(check, folder):
    """What test_nccl_gpu.py does on a real GPU."""
    with pretended_ranks(folder, 1) as (backends, _):
        check(backends[0])
        assert backends[0].xp.gpus.graphs == 1


def test_arrays_of_the_host_do_not_go_through_nccl(folder):
    with pretended_ranks(folder, 2) as (backends, module):
        def run(communicator: NCCLCommunicator) -> Any:
            total, sent = np.ones(3), np.full(2, communicator.rank)
            communicator.plain_sum(total)
            communicator.broadcast(sent, 1)
            return communicator.gather_objects(communicator.rank), total.tolist(), sent.tolist()

        assert in_gpus(backends, run) == [([0, 1], [2.0] * 3, [1, 1])] * 2
        assert module.log == [[], []]


# --- trainings ------------------------------------------------------------------------------------

def trained(net: xn.Network, communicator: Any, count: int = 26, **changes: Any
            ) -> tuple[Any, ...]:
    x, y = samples(count)
    options = {"optimizer": xn.SGD(0.01, 0.9), "batch_size": 8, "validation": 0.2}
    options |= {"loss": "cross_entropy"}
    history = net.fit(x / 255, y, verbose=False, parallel=communicator, **options | changes)
    to_numpy = net.backend.to_numpy
    return (to_numpy(net.parameters).tobytes(), to_numpy(net.state).tobytes(),
            [{k: v for k, v in row.items() if k != "seconds"} for row in history.rows])


def on_gpus(folder: Any, ranks: int, **changes: Any) -> tuple[list[tuple[Any, ...]], FakeNccl]:
    with pretended_ranks(folder, ranks) as (backends, module):
        return in_gpus(backends, lambda communicator: trained(
            network(communicator.backend), communicator, **changes)), module


@pytest.mark.parametrize("changes", [
    {}, pytest.param({"accumulate": 2, "epochs": 2}, marks=full)], ids=["batches", "groups"])
def test_1_2_and_4_gpus_train_to_the_same_bits(changes, folder):
    (one,), module = on_gpus(folder, 1, **changes)
    assert module.log == [[]]
    assert on_gpus(folder, 2, **changes)[0] == [one] * 2
    assert on_gpus(folder, 4, **changes)[0] == [one] * 4


def test_the_bits_are_those_of_an_exchange_by_the_host(folder):
    (one,), _ = on_gpus(folder, 1)
    with pretended_ranks(folder, 2) as (backends, module):
        def run(communicator: Communicator) -> tuple[Any, ...]:
            backend = backends[communicator.rank]
            with backend.scope():
                return trained(network(backend), communicator)

        assert in_threads(2, run) == [one] * 2 and module.log == [[], []]


def test_moments_of_batch_norms_go_through_the_host_and_steps_are_not_captured(folder):
    def run(ranks: int) -> tuple[list[Any], list[int]]:
        with pretended_ranks(folder, ranks) as (backends, _):
            found = in_gpus(backends, lambda communicator: trained(
                network(communicator.backend), DataParallel(communicator, sync=True), count=52))
            return found, [backend.xp.gpus.graphs for backend in backends]

    one, _ = run(1)
    assert run(2) == (one * 2, [0, 0])


def captured(folder: Any, ranks: int, capture: bool, pieces: int = 1, **world: Any
             ) -> tuple[Any, ...]:
    """6 batches of 8 samples and a shorter one, with and without graphs; and the pretended GPUs."""
    with pretended_ranks(folder, ranks, **world) as (backends, module):
        found = in_gpus(backends, lambda communicator: trained(
            network(communicator.backend), DataParallel(communicator, pieces=pieces),
            capture=capture, count=52, validation=None))
        return found, [backend.xp.gpus for backend in backends], module


@pytest.fixture(scope="module")
def alone(folder: Any) -> tuple[Any, ...]:
    """The training on one GPU, without graphs."""
    return captured(folder, 1, False)[0][0]


@pytest.mark.parametrize("late", first(LATE, "late"))
def test_captured_steps_contain_the_exchange_and_have_the_same_bits(late, folder, alone):
    found, gpus, module = captured(folder, 2, True, late=LATE[late])
    assert found == [alone] * 2
    for one_gpu in gpus:                # recorded at the fourth batch of this size
        assert one_gpu.graphs == 1 and one_gpu.launches == 3
    assert [call[0] for call in module.log[0] if call[3]] == ["group", "allGather"]


@full
def test_the_batches_of_a_group_are_captured_steps_of_their_own(folder):
    """The first, the second and the last of 3 batches: 3 graphs, from the fourth group on."""
    def found(capture: bool) -> tuple[list[Any], list[int]]:
        with pretended_ranks(folder, 2) as (backends, _):
            bits = in_gpus(backends, lambda communicator: trained(
                network(communicator.backend), communicator, capture=capture, count=48,
                accumulate=3, epochs=3, validation=None))
            return bits, [backend.xp.gpus.graphs for backend in backends]

    (eager, none), (bits, graphs) = found(False), found(True)
    assert bits == eager and none == [0, 0] and graphs == [3, 3]


@pytest.mark.parametrize("capture", first([False, True], True))
def test_pieces_are_sent_on_the_other_stream_and_have_the_same_bits(capture, folder, alone):
    found, gpus, module = captured(folder, 2, capture, 2, late=LATE["late"])
    assert found == [alone] * 2 and [one_gpu.graphs for one_gpu in gpus] == [capture] * 2
    sizes = [call[1][0] for call in module.log[0] if call[0] == "allGather"]
    assert len(sizes) == 3 * (5 if capture else 7)      # 3 eager batches, a graph, and a short one
    assert sizes[:3] == sizes[-3:] and len({call[2] for call in module.log[0]}) == 1


def test_after_a_release_the_step_is_recorded_anew(folder):
    class Releases(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.batch == 4:
                run.step.release()

    with pretended_ranks(folder, 1) as (backends, _):
        in_gpus(backends, lambda communicator: trained(
            network(communicator.backend), communicator, callbacks=[Releases()], count=64,
            validation=None))
        assert backends[0].xp.gpus.graphs == 2


def test_before_2_9_6_nccl_is_not_captured(folder):
    found, gpus, module = captured(folder, 2, True, version=20905)
    assert found[0] == found[1] and [one_gpu.graphs for one_gpu in gpus] == [0, 0]
    assert not any(call[3] for call in module.log[0])


def test_if_one_rank_cannot_capture_its_step_no_rank_does(folder):
    """An exchange that only one rank has captured is an error of the pretended NCCL."""
    class OnSecondGpu(FromTheHost):
        def __call__(self, backend: Any, y: Any, target: Any) -> Any:
            return (super().__call__(backend, y, target) if backend.name == "cupy:1" else
                    xn.CrossEntropy.__call__(self, backend, y, target))

    with pretended_ranks(folder, 2) as (backends, module):
        with pytest.warns(UserWarning, match="could not be captured and runs launch by launch from "
                                             "now on .rank 1: RuntimeError: the current stream is "
                                             "capturing"):
            found = in_gpus(backends, lambda communicator: trained(
                network(communicator.backend), communicator, loss=OnSecondGpu(), validation=None,
                count=52))
        assert found[0] == found[1] and any(call[3] for call in module.log[0])
        assert [backend.xp.gpus.launches for backend in backends] == [0, 0]


def test_the_plain_mode_makes_two_sums_of_each_batch(folder):
    with pretended_ranks(folder, 2) as (backends, module):
        one, two = in_gpus(backends, lambda communicator: trained(
            network(communicator.backend), DataParallel(communicator, deterministic=False),
            validation=None))
        assert one == two and [call[0] for call in module.log[0]] == ["allReduce"] * 2 * 4


def test_if_one_rank_is_interrupted_all_end(folder):
    class Interrupts(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.parallel.rank == 1 and run.batch == 1:
                run.interrupt()

    with pretended_ranks(folder, 2) as (backends, _):
        def run(communicator: NCCLCommunicator) -> bool:
            x, y = samples(40)
            history = network(communicator.backend).fit(
                x / 255, y, loss="cross_entropy", batch_size=8, verbose=False,
                callbacks=[Interrupts()], parallel=communicator)
            return history.interrupted

        assert in_gpus(backends, run) == [True, True]


def test_a_rank_that_fails_ends_all(folder):
    class Fails(xn.Callback):
        def on_batch_end(self, run: xn.Run) -> None:
            if run.parallel.rank == 1:
                raise OSError("the samples are gone")

    with pretended_ranks(folder, 2) as (backends, _), pytest.raises(OSError, match="are gone"):
        in_gpus(backends, lambda communicator: trained(
            network(communicator.backend), communicator, callbacks=[Fails()]))


# --- the pretended NCCL ---------------------------------------------------------------------------

def test_the_pretended_nccl_has_the_signatures_of_cupy():
    pytest.importorskip("cupy", exc_type=ImportError, reason="CuPy is not installed")
    nccl = xpnet.backends.cupy.nccl
    try:
        real = nccl.import_nccl()
    except xn.BackendError as error:
        pytest.skip(str(error))
    for name, method in vars(fake_nccl.NcclCommunicator).items():
        if inspect.isfunction(method) and not name.startswith("_") and name != "launch_group":
            text = getattr(real.NcclCommunicator, name).__doc__.split("\n")[0]
            names = [word.split()[-1].partition("=")[0]
                     for word in text[text.index("(") + 1:text.rindex(")")].split(",")]
            assert list(inspect.signature(method).parameters) == names
    assert real.NcclCommunicator.__doc__.split("\n")[0] == (
        "NcclCommunicator(int ndev, bytes commId, int rank, NcclConfig config=None)")
    assert {name: getattr(real, name) for name in fake_nccl.TYPES} == {
        name: number for name, (number, _) in fake_nccl.TYPES.items()}
    assert real.NCCL_SUM == fake_nccl.SUM and issubclass(real.NcclError, RuntimeError)
    found = real.get_unique_id()
    assert isinstance(found, bytes) and len(found) == fake_nccl.ID
    assert real.get_version() > nccl.CAPTURES
