"""What ranks exchange: the operations of a communicator, and what is made of them.

A rank is one of several processes that train a network together. The arrays are NumPy arrays.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.parallel.overlap import ThreadSender

Add = Callable[[np.ndarray, np.ndarray, int], None]


class Aborted(RuntimeError):            # noqa: N818 - the error is that of another rank
    """Another rank has failed, or does not exchange, so this one cannot go on."""


class Communicator:
    """Base class: `size` ranks, of which this one has the number `rank`, from 0. It has the number
    `local` among the ranks of its machine, of which the first one has the rank `machine`.

    All ranks call the same methods in the same order, with arrays of the same shape and dtype. A
    subclass writes `exchange`, `gather`, `broadcast`, `plain_sum` and `abort`.
    """

    rank: int
    size: int
    local: int
    machine: int
    threads: int | None = None          # of this rank, its share of the cores; None: all
    backend: Backend | None = None      # whose arrays can be exchanged, beside those of NumPy
    captures = False                    # whether a captured step can contain their exchange

    def __repr__(self) -> str:
        return f"<{type(self).__name__}: rank {self.rank} of {self.size}>"

    @property
    def first(self) -> bool:
        """Whether no rank of this machine has a smaller number."""
        return self.local == 0

    def exchange(self, pieces: np.ndarray) -> np.ndarray:
        """(size, n) -> (size, n): row k goes to rank k. Returns the rows for this rank, in the
        order of the ranks that they come from."""
        raise NotImplementedError

    def gather(self, a: np.ndarray) -> np.ndarray:
        """(n,) -> (size, n): the arrays of all ranks in their order, on every rank."""
        raise NotImplementedError

    def broadcast(self, a: np.ndarray, root: int = 0) -> None:
        """Write the array of rank `root` into that of every rank. It has to be contiguous."""
        raise NotImplementedError

    def plain_sum(self, a: np.ndarray) -> None:
        """Write the sum over the ranks into the array of every rank. The order of the additions may
        depend on the number of ranks."""
        raise NotImplementedError

    def sender(self) -> Any:
        """What exchanges arrays while this rank computes, see ThreadSender."""
        return ThreadSender()

    def abort(self, error: BaseException) -> None:
        """End the work of all ranks because of an error of this one. It may end the process."""
        raise NotImplementedError

    # --- made of these ----------------------------------------------------------------------------

    def tree_sum(self, memory: np.ndarray, add: Add) -> None:
        """Write the sum over the ranks into the memory (n,) of every rank, added in a binary tree:
        ((0 + 1) + (2 + 3)) + ... n is a multiple of `size`.

        Each rank adds one piece of the arrays of all ranks, and sends the sum to all. That is
        2 (p - 1) / p of the bytes of the array for p ranks, as in a ring all-reduce.

        Args:
            memory: (n,) bytes.
            add: add(a, b, start): a += b, of the pieces that begin at byte `start`.
        """
        if self.size == 1:
            return
        pieces = self.exchange(memory.reshape(self.size, -1))
        start = self.rank * pieces.shape[1]
        distance = 1
        while distance < self.size:
            for k in range(0, self.size - distance, 2 * distance):
                add(pieces[k], pieces[k + distance], start)
            distance *= 2
        memory[...] = self.gather(pieces[0]).reshape(-1)

    def wait(self) -> None:
        """Return when all ranks have called this."""
        self.gather(np.zeros(1))

    def gather_objects(self, value: Any) -> list[Any]:
        """What json.dumps can write, of all ranks in their order, on every rank."""
        text = json.dumps(value).encode()
        lengths = self.gather(np.array([len(text)], np.int64))[:, 0]
        padded = np.zeros(int(lengths.max()), np.uint8)
        padded[:len(text)] = np.frombuffer(text, np.uint8)
        rows = self.gather(padded)
        return [json.loads(row[:length].tobytes()) for row, length in zip(rows, lengths)]

    def broadcast_object(self, value: Any) -> Any:
        """Rank 0's value, of what json.dumps can write; other ranks pass anything."""
        text = json.dumps(value).encode() if self.rank == 0 else b""
        length = np.array([len(text)], np.int64)
        self.broadcast(length)
        data = np.zeros(int(length[0]), np.uint8)
        if self.rank == 0:
            data[...] = np.frombuffer(text, np.uint8)
        self.broadcast(data)
        return json.loads(data.tobytes())
