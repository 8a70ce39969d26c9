"""Ranks that are threads of one process: for tests, and to see how the exchange works."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.checks import expect_integer
from xpnet.parallel.communicator import Aborted, Communicator

TIMEOUT = 600.0         # seconds that a rank waits for the others


class _Board:
    """What the threads share: a place for the array of each rank, and a barrier."""

    def __init__(self, size: int) -> None:
        self.arrays: list[np.ndarray] = [np.empty(0)] * size
        self.barrier = threading.Barrier(size, timeout=TIMEOUT)
        self.errors: list[tuple[int, BaseException]] = []


class ThreadCommunicator(Communicator):
    """A rank of `in_threads`."""

    def __init__(self, rank: int, board: _Board) -> None:
        self.rank, self.size, self._board = rank, len(board.arrays), board
        self.local, self.machine = rank, 0

    def _shown(self, a: np.ndarray, read: Callable[[list[np.ndarray]], Any]) -> Any:
        """read(the arrays of all ranks), which no rank changes meanwhile."""
        board = self._board
        board.arrays[self.rank] = a
        self._wait()
        found = read(board.arrays)
        self._wait()
        return found

    def _wait(self) -> None:
        try:
            self._board.barrier.wait()
        except threading.BrokenBarrierError:
            if not self._board.errors:
                raise Aborted(f"in_threads: expected every rank to exchange within {TIMEOUT:g} "
                              f"seconds. Received: rank {self.rank} waited longer.") from None
            rank, error = self._board.errors[0]
            raise Aborted(f"rank {self.rank}: ended, because rank {rank} failed ({error})"
                          ) from None

    def exchange(self, pieces: np.ndarray) -> np.ndarray:
        return self._shown(pieces, lambda arrays: np.stack([a[self.rank] for a in arrays]))

    def gather(self, a: np.ndarray) -> np.ndarray:
        return self._shown(a, np.stack)

    def broadcast(self, a: np.ndarray, root: int = 0) -> None:
        found = self._shown(a, lambda arrays: arrays[root].copy())
        a[...] = found

    def plain_sum(self, a: np.ndarray) -> None:
        total = self._shown(a, lambda arrays: np.sum(np.stack(arrays), axis=0))
        a[...] = total

    def abort(self, error: BaseException) -> None:
        self._board.errors.append((self.rank, error))
        self._board.barrier.abort()


def in_threads(size: int, work: Callable[[Communicator], Any]) -> list[Any]:
    """Call work(communicator) in `size` threads, one for each rank, and return what they return, in
    the order of the ranks. If a rank fails, its error is raised here, and Aborted if one waits for
    the others longer than 10 minutes.

        import xpnet.parallel
        results = xpnet.parallel.in_threads(4, lambda comm: train(parallel=comm))

    Each call has to make its own network and its own optimizer.
    """
    board = _Board(expect_integer("in_threads", "size", size))
    results: list[Any] = [None] * size

    def run(rank: int) -> None:
        communicator = ThreadCommunicator(rank, board)
        try:
            results[rank] = work(communicator)
        except Aborted as error:
            if not board.errors:        # no other rank has failed: this one waited too long
                communicator.abort(error)
        except BaseException as error:
            communicator.abort(error)

    threads = [threading.Thread(target=run, args=(rank,), name=f"xpnet-rank-{rank}", daemon=True)
               for rank in range(size)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    if board.errors:
        raise board.errors[0][1]
    return results
