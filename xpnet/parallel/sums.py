"""What the shards of a batch add up to: one flat buffer, added in a fixed tree.

The buffer has two parts: values in the network's dtype (gradients, and the changes of the state),
and behind them figures in float64 (losses, hits, counts). Shards are added in a binary tree,

    ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)),

of which each rank adds the branch of its own shards, and the ranks then add their branches, see
Communicator.tree_sum. So the sum has the same bits whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Generic, TypeVar

import numpy as np

Array = Any     # of NumPy, or of the array module of a GPU
Join = Callable[[np.ndarray, np.ndarray], None]

UNIT = 8        # bytes: every piece begins at an element of either part


class Sums:
    """A flat buffer.

    Args:
        values: the number of values of `dtype`.
        figures: the number of figures in float64.
        dtype: of the values.
        pieces: into how many pieces of equal length the buffer can be cut.
        zeros: makes its memory; `zeros` of a backend makes it on a GPU.
    """

    def __init__(self, values: int, figures: int, dtype: Any, pieces: int,
                 zeros: Callable[[tuple[int, ...], Any], Array] = np.zeros) -> None:
        size = values * np.dtype(dtype).itemsize
        self.dtype = np.dtype(dtype)
        self.cut = -(-size // UNIT) * UNIT              # where the figures begin
        piece = -(-(self.cut + UNIT * figures) // (UNIT * pieces)) * UNIT
        self.memory = zeros((pieces * piece,), np.uint8)
        self.values = self.memory[:size].view(dtype)
        self.figures = self.memory[self.cut:self.cut + UNIT * figures].view(np.float64)

    def add(self, a: Array, b: Array, start: int = 0) -> None:
        """a += b, of bytes that begin at byte `start` of the buffer."""
        with np.errstate(over="ignore", invalid="ignore"):
            for total, more in zip(self.numbers(a, start), self.numbers(b, start), strict=True):
                total += more

    def numbers(self, memory: Array, start: int) -> tuple[Array, Array]:
        """The values and the figures in bytes that begin at byte `start` of the buffer."""
        cut = min(max(self.cut - start, 0), len(memory))
        return memory[:cut].view(self.dtype), memory[cut:].view(np.float64)


class Table:
    """A small table that shards exchange in the middle of a pass, as a buffer like Sums.

    Args:
        shape: (rows, columns), of float64.
        join: join(a, b) writes the sum of two tables, of any rows, to the first one.
        pieces: into how many pieces of whole rows the buffer can be cut.
    """

    def __init__(self, shape: tuple[int, int], join: Join, pieces: int) -> None:
        rows, self._columns, self._join = -(-shape[0] // pieces) * pieces, shape[1], join
        self.memory = np.zeros(rows * self._columns * UNIT, np.uint8)
        self.values = self._table(self.memory)[:shape[0]]

    def _table(self, memory: np.ndarray) -> np.ndarray:
        return memory.view(np.float64).reshape(-1, self._columns)

    def add(self, a: np.ndarray, b: np.ndarray, start: int = 0) -> None:
        """a += b, of the bytes of some rows."""
        with np.errstate(over="ignore", invalid="ignore"):
            self._join(self._table(a), self._table(b))


Buffer = TypeVar("Buffer", Sums, Table)


def add_sums(a: np.ndarray, b: np.ndarray) -> None:
    a += b


def add_moments(a: np.ndarray, b: np.ndarray) -> None:
    """Moments of two sets of numbers become those of all: (rows, 3), the count n, the mean, and the
    sum S of squared distances from the mean. With d = mean[b] - mean[a]:

        n = n[a] + n[b],  mean = mean[a] + d n[b] / n,  S = S[a] + S[b] + d^2 n[a] n[b] / n

    If the two means are equal, the result has the same bits. Chan, Golub and LeVeque 1979, eq. 2.1.
    """
    n = a[:, 0] + b[:, 0]
    share = b[:, 0] / np.maximum(n, 1)
    d = b[:, 1] - a[:, 1]
    a[:, 2] += b[:, 2] + d * d * a[:, 0] * share
    a[:, 1] += d * share
    a[:, 0] = n


class Branch(Generic[Buffer]):
    """The sum of the shards of one rank, in the order of the tree.

    Shards are added as they come. Two sums of equally many shards become one, so that k shards take
    log2(k) + 1 buffers. If k is not a power of two, the sums that are left are added at the end.
    """

    def __init__(self, make: Callable[[], Buffer]) -> None:
        self._make: Callable[[], Buffer] = make         # makes a buffer
        self._free: list[Buffer] = []
        self._sums: list[Buffer] = []   # of more and more shards from the last one to the first
        self._count = 0

    def new(self) -> Buffer:
        """A buffer for the next shard; all of it has to be written."""
        return self._free.pop() if self._free else self._make()

    def push(self, shard: Buffer) -> None:
        """Add the next shard."""
        self._count += 1
        count = self._count
        while count % 2 == 0:
            total = self._sums.pop()
            total.add(total.memory, shard.memory)
            self._free.append(shard)
            shard, count = total, count // 2
        self._sums.append(shard)

    def total(self) -> Buffer:
        """The sum of all shards; it is valid until the next `new`."""
        total, add = self.last(self._sums.pop())
        add(0, len(total.memory))
        return total

    def last(self, shard: Buffer) -> tuple[Buffer, Callable[[int, int], None]]:
        """For a last shard that is written in parts: the buffer of the sum of all, and a function
        add(start, stop) that computes these bytes of it, once they are written in the shard."""
        chain = self._sums[::-1]                # the shard is added to the first one, and so on
        chain.insert(0, shard)
        self._sums, self._count = [], 0
        self._free += chain

        def add(start: int, stop: int) -> None:
            for a, b in zip(chain, chain[1:]):
                b.add(b.memory[start:stop], a.memory[start:stop], start)

        return chain[-1], add
