"""Pieces of the gradients that are exchanged during the backward pass: the bits of one exchange."""

from __future__ import annotations

import threading
import time
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from shared_trainings import CASES, train
from tiers import first

import xpnet as xn
from xpnet.parallel import Communicator, DataParallel, MPICommunicator, in_threads
from xpnet.parallel.overlap import Piece, ThreadSender, pieces_of
from xpnet.parallel.sums import Branch, Sums

FIRST = ("groups of batches, class weights", "mix-up, few samples in the last batch",
         "a frozen layer, early stopping")


@pytest.mark.parametrize("name", first(CASES, *FIRST))
def test_pieces_change_no_bit(name):
    """With 4 and 2 shards for each rank, and one; 5 samples leave the last shards empty."""
    one, = in_threads(1, lambda communicator: train(name, communicator))
    for ranks, pieces in (1, 2), (2, 3), (4, 4):
        found = in_threads(ranks, lambda communicator: train(
            name, DataParallel(communicator, pieces=pieces)))       # noqa: B023
        assert found == [one] * ranks


def test_the_plain_sum_of_pieces_agrees():
    def run(communicator: Communicator) -> list[str]:
        return [train("dropout, batch norm", DataParallel(
            communicator, deterministic=False, pieces=pieces)) for pieces in (1, 3)]

    for one, three in in_threads(2, run):       # a + b = b + a: of 2 ranks the bits are equal
        assert one == three


def deep(width: int = 32) -> xn.Sequential:
    return xn.Sequential([xn.Linear(width) for _ in range(4)] + [xn.Linear(2)],
                         input_shape=(width,), backend="numpy")


@pytest.mark.parametrize("ranks", [1, 2, 8, 256])
@pytest.mark.parametrize("count", [2, 3, 4, 9])
def test_pieces_cover_the_buffer_and_end_between_layers(count, ranks):
    """4 weights of 1,024 values and one of 64: pieces begin at layers, up to the unit of 8 bytes
    for each rank."""
    net = deep()
    size = len(Sums(net.grads.size, 7, net.dtype, ranks).memory)
    pieces = pieces_of(net, count, ranks, size)
    spans = sorted((piece.start, piece.stop) for piece in pieces)
    assert spans[0][0] == 0 and spans[-1][1] == size
    assert [stop for _, stop in spans[:-1]] == [start for start, _ in spans[1:]]
    assert all((stop - start) % (8 * ranks) == 0 < stop - start for start, stop in spans)
    assert pieces[-1].stop == size and pieces[-1].node == -1
    numbers = [piece.node for piece in pieces]
    assert numbers == sorted(numbers, reverse=True)
    assert len(pieces) == min(count, 5 if ranks < 256 else 4) + 1   # 256 units are 2,048 bytes
    for piece in pieces[:-1]:       # every weight in it belongs to this layer or a later one
        for number, layer in enumerate(net.layers):
            start = layer.W.data.ctypes.data - net.parameters.ctypes.data
            if start < piece.stop and piece.start < start + layer.W.data.nbytes:
                assert number >= piece.node


def test_a_layer_that_is_used_twice_is_done_at_its_first_use():
    x = xn.Input((32,))
    shared, second = xn.Linear(32), xn.Linear(32)
    net = xn.Network(x, xn.Linear(32)(shared(second(shared(x)))), backend="numpy")
    pieces = pieces_of(net, 3, 1, 4 * net.grads.size)
    assert pieces[:-1] == [Piece(8192, 12288, 3), Piece(4096, 8192, 1), Piece(0, 4096, 0)]


def test_a_network_without_weights_is_one_piece():
    net = xn.Sequential([xn.BatchNorm1d(), xn.Gain()], input_shape=(3,), backend="numpy")
    assert pieces_of(net, 4, 2, 64) == [Piece(0, 64, -1)]


def test_pieces_are_sent_before_the_backward_pass_ends(monkeypatch):
    """The first layer's backward pass waits until the pieces of the others are there."""
    sent = list[str]()
    original = DataParallel.add_ranks
    last_pieces = threading.Event()

    def add_ranks(self: DataParallel, sums: Sums, start: int = 0, stop: int | None = None) -> None:
        original(self, sums, start, stop)
        sent.append(threading.current_thread().name)
        if len(sent) == 4:
            last_pieces.set()

    class Waits(xn.Linear):
        def backward(self, dy: Any, accumulate: bool = False) -> Any:
            if shards[0] == 4:
                assert last_pieces.wait(30)
            shards[0] += 1
            return super().backward(dy, accumulate)

    shards = [1]
    monkeypatch.setattr(DataParallel, "add_ranks", add_ranks)
    net = xn.Sequential([Waits(32), *(xn.Linear(32) for _ in range(3)), xn.Linear(2)],
                        input_shape=(32,), backend="numpy")
    in_threads(1, lambda communicator: net.fit(
        np.ones((8, 32)), np.zeros(8, int), loss="cross_entropy", batch_size=8, verbose=False,
        parallel=DataParallel(communicator, pieces=9)))
    assert len(sent) == 6 and all(name.startswith("xpnet-exchange") for name in sent)


def test_the_sender_keeps_the_order_and_raises_errors():
    sender, done = ThreadSender(), list[int]()
    for k in range(5):
        sender.send(lambda k=k: (time.sleep(0.01 * (k == 0)), done.append(k)))
    sender.wait()
    assert done == [0, 1, 2, 3, 4]
    sender.send(lambda: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        sender.wait()
    sender.wait()                       # the error came once


def test_an_mpi_that_only_one_thread_may_call_is_refused():
    communicator = object.__new__(MPICommunicator)
    communicator._mpi = SimpleNamespace(Query_thread=lambda: 1, THREAD_SERIALIZED=2)
    with pytest.raises(RuntimeError, match="expected pieces=1, or an MPI that any thread may call"):
        communicator.sender()
    communicator._mpi.Query_thread = lambda: 2
    assert isinstance(communicator.sender(), ThreadSender)


def test_an_error_of_a_rank_ends_the_exchange_of_the_others():
    class Fails(xn.Linear):
        def backward(self, dy: Any, accumulate: bool = False) -> Any:
            if fails[self]:
                raise OSError("the layer is gone")
            return super().backward(dy, accumulate)

    fails = dict[Fails, bool]()

    def run(communicator: Communicator) -> None:
        layer = Fails(32)
        fails[layer] = communicator.rank == 1
        net = xn.Sequential([layer, xn.Linear(32), xn.Linear(2)], input_shape=(32,),
                            backend="numpy")
        net.fit(np.ones((8, 32)), np.zeros(8, int), loss="cross_entropy", batch_size=8,
                verbose=False, parallel=DataParallel(communicator, shards=2, pieces=3))

    with pytest.raises(OSError, match="the layer is gone"):
        in_threads(2, run)


def test_a_last_shard_can_be_added_in_parts():
    rng = np.random.default_rng(0)
    shards = [rng.standard_normal(40).astype(np.float32) for _ in range(7)]
    for count in range(1, 8):
        totals = []
        for parts in ([(0, 160)], [(120, 160), (0, 64), (64, 120)]):
            branch = Branch(lambda: Sums(40, 0, np.float32, 1))
            for shard in shards[:count - 1]:
                place = branch.new()
                place.values[:] = shard
                branch.push(place)
            place = branch.new()
            total, add = branch.last(place)
            for start, stop in parts:
                place.values[start // 4:stop // 4] = shards[count - 1][start // 4:stop // 4]
                add(start, stop)
            totals.append(total.values.copy())
        assert np.array_equal(*totals)


@pytest.mark.parametrize("settings, text", [
    ({"pieces": 0}, "expected pieces to be an int, 1 or larger"),
    ({"pieces": 2, "sync": True}, "expected pieces=1 with sync=True")])
def test_pieces_are_checked(settings, text):
    with pytest.raises(ValueError, match=f"DataParallel: {text}"):
        in_threads(1, lambda communicator: DataParallel(communicator, **settings))
