"""The exchange between ranks, and the fixed tree of its sums."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from xpnet.parallel import Aborted, Communicator, in_threads
from xpnet.parallel.mpi import cores_of
from xpnet.parallel.sums import Branch, Sums

SIZES = 1, 2, 4, 8


def pairs(arrays: list[np.ndarray]) -> np.ndarray:
    """((a0 + a1) + (a2 + a3)) + ..., by halves."""
    half = len(arrays) // 2
    return arrays[0] if not half else pairs(arrays[:half]) + pairs(arrays[half:])


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("values, figures", [(1, 1), (7, 3), (1001, 6), (0, 2)])
def test_shards_are_added_in_a_fixed_tree(values, figures, dtype):
    """Of numbers whose sum depends on the order, also where a piece has values and figures."""
    rng = np.random.default_rng(0)
    shards = [(rng.standard_normal(values) * 10.0**rng.integers(-6, 6, values),
               rng.standard_normal(figures)) for _ in range(8)]
    expected = [pairs([v.astype(dtype) for v, _ in shards]), pairs([f for _, f in shards])]

    def run(communicator: Communicator) -> list[np.ndarray]:
        branch = Branch(lambda: Sums(values, figures, dtype, communicator.size))
        each = 8 // communicator.size
        for v, f in shards[communicator.rank * each:][:each]:
            place = branch.new()
            place.values[:], place.figures[:] = v, f
            branch.push(place)
        total = branch.total()
        communicator.tree_sum(total.memory, total.add)
        return [total.values.copy(), total.figures.copy()]

    for ranks in SIZES:
        for found in in_threads(ranks, run):
            assert all(np.array_equal(a, b) for a, b in zip(found, expected, strict=True))


def test_a_branch_needs_few_buffers():
    made: list[Sums] = []
    branch = Branch(lambda: made.append(Sums(4, 1, "float32", 1)) or made[-1])
    for _ in range(3):
        for number in range(16):
            place = branch.new()
            place.memory.fill(0)
            place.figures[:] = number
            branch.push(place)
        assert branch.total().figures[0] == 120
    assert len(made) == 5                   # log2(16) + 1


def test_a_branch_adds_any_number_of_shards():
    """Twice, so that nothing is left of the first sum."""
    for shards in range(1, 10):
        branch = Branch(lambda: Sums(3, 1, "float32", 1))
        for _ in range(2):
            for number in range(shards):
                place = branch.new()
                place.values[:] = place.figures[:] = 2**number
                branch.push(place)
            total = branch.total()
            assert total.values.tolist() == [2**shards - 1] * 3, shards
            assert total.figures.tolist() == [2**shards - 1], shards


def test_objects_and_arrays_are_exchanged():
    def run(communicator: Communicator) -> Any:
        rank = communicator.rank
        total = np.full(3, rank + 1.0)
        communicator.plain_sum(total)
        sent = np.full((2, 2), rank)
        communicator.broadcast(sent, 1)
        return (communicator.gather_objects("x" * rank), communicator.broadcast_object([rank]),
                total.tolist(), sent.tolist(),
                communicator.exchange(10 * rank + np.arange(3)[:, None]).tolist())

    assert in_threads(3, run) == [
        (["", "x", "xx"], [0], [6.0] * 3, [[1, 1], [1, 1]], [[k], [10 + k], [20 + k]])
        for k in range(3)]


def test_the_error_of_a_rank_ends_all():
    ended = []

    def run(communicator: Communicator) -> None:
        if communicator.rank == 1:
            raise ZeroDivisionError("of rank 1")
        try:
            communicator.gather(np.zeros(1))
        except Aborted as error:
            ended.append(str(error))
            raise

    with pytest.raises(ZeroDivisionError, match="of rank 1"):
        in_threads(3, run)
    assert len(ended) == 2 and all("rank 1 failed (of rank 1)" in text for text in ended)


def test_a_rank_that_waits_too_long_is_an_error(monkeypatch):
    """Rank 1 returns without the exchange that rank 0 waits for."""
    monkeypatch.setattr("xpnet.parallel.threads.TIMEOUT", 0.05)
    with pytest.raises(Aborted, match="in_threads: expected every rank to exchange within 0.05 "
                                      "seconds. Received: rank 0 waited longer."):
        in_threads(2, lambda communicator: communicator.wait() if communicator.rank == 0 else None)


@pytest.mark.parametrize("mine, masks, threads", [
    ([0, 1, 2, 3], [[0, 1, 2, 3]] * 2, 2), ([0, 1], [[0, 1]] * 4, 1), ([2, 3], [[0, 1], [2, 3]], 2),
    ([0, 1, 2], [[0, 1, 2]] * 3, 1), ([0, 1, 2, 3], [[0, 1, 2, 3], [3]], 3), ([5], [[5]], 1),
])
def test_ranks_share_the_cores_of_their_machine(mine, masks, threads):
    assert cores_of(mine, masks) == threads
