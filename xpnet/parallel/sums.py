"""What the shards of a batch add up to: one flat buffer, added in a fixed tree.

The buffer has two parts: values in the network's dtype (gradients, and the changes of the state),
and behind them figures in float64 (losses, hits, counts). Shards are added in a binary tree,

    ((s0 + s1) + (s2 + s3)) + ((s4 + s5) + (s6 + s7)),

of which each rank adds the branch of its own shards, and the ranks then add their branches, see
Communicator.tree_sum. So the sum has the same bits whatever the number of ranks.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

Array = Any     # of NumPy, or of the array module of a GPU

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
        cut = min(max(self.cut - start, 0), len(a))
        with np.errstate(over="ignore", invalid="ignore"):
            for part, dtype in ((slice(cut), self.dtype), (slice(cut, None), np.float64)):
                total = a[part].view(dtype)
                total += b[part].view(dtype)


class Branch:
    """The sum of the shards of one rank, in the order of the tree.

    Shards are added as they come. Two sums of equally many shards become one, so that k shards take
    log2(k) + 1 buffers. If k is not a power of two, the sums that are left are added at the end.
    """

    def __init__(self, make: Any) -> None:
        self._make = make               # makes a buffer
        self._free: list[Sums] = []
        self._sums: list[Sums] = []     # of more and more shards from the last one to the first
        self._count = 0

    def new(self) -> Sums:
        """A buffer for the next shard; all of it has to be written."""
        return self._free.pop() if self._free else self._make()

    def push(self, shard: Sums) -> None:
        """Add the next shard."""
        self._count += 1
        count = self._count
        while count % 2 == 0:
            total = self._sums.pop()
            total.add(total.memory, shard.memory)
            self._free.append(shard)
            shard, count = total, count // 2
        self._sums.append(shard)

    def total(self) -> Sums:
        """The sum of all shards; it is valid until the next `new`."""
        total = self._sums.pop()
        while self._sums:
            larger = self._sums.pop()
            larger.add(larger.memory, total.memory)
            self._free.append(total)
            total = larger
        self._count = 0
        self._free.append(total)
        return total
