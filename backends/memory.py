"""Memory for arrays that is used again once nothing references it any longer.

Fresh pages from the operating system cost more than the arithmetic on them, and a training step asks for the same
sizes again and again.
"""

from __future__ import annotations

import itertools
import math
from collections import deque
from typing import Any

import numpy as np

SMALL = 1 << 16         # bytes; below, malloc recycles by itself
ALIGNMENT = 64          # a cache line, and the widest vector
PATIENCE = 4096         # a block that so many calls of `empty` had no use for is given back: many training steps


class MemoryPool:
    """Arrays on recycled blocks.

    Each array stands on a lease of a block. Views keep their array alive and the array its lease, so a block comes back
    exactly when the last view of it has died, and what was handed out never changes. It comes back by one atomic append
    to a list, from whatever thread, possibly in the middle of another call; so nothing here takes a lock.
    """

    def __init__(self) -> None:
        self._free: dict[int, deque[_Block]] = {}                       # by size, the block that came back last at the end
        self._clock = itertools.count(1).__next__

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of unspecified content."""
        dtype, shape = np.dtype(dtype), tuple(map(int, shape))
        size = math.prod(shape) * dtype.itemsize
        if size < SMALL or dtype.kind not in "biufc":
            return np.empty(shape, dtype)
        now = self._clock()
        if now % PATIENCE == 0:
            self.drop_idle(now - PATIENCE)
        size = _round_up(size)
        free = self._free.get(size)
        if free is None:
            free = self._free.setdefault(size, deque())
        try:
            block = free.pop()                                          # the last one: it may still be in the cache
        except IndexError:
            block = _Block(size)
        block.leased_at = now
        return np.asarray(_Lease(block, free, shape, dtype))

    def drop_idle(self, since: float = math.inf) -> None:
        """Give the blocks back to the system that wait here and were not leased after `since`; without it, all."""
        for free in list(self._free.values()):
            try:
                while free[0].leased_at <= since:
                    free.popleft()
            except IndexError:                                          # none is left, or another thread took it
                pass

    def idle_bytes(self) -> int:
        """Bytes that wait here for their next use."""
        return sum(size * len(free) for size, free in list(self._free.items()))


def _round_up(size: int) -> int:
    """Sizes in steps of 1/8 to 1/16, so that nearly equal arrays (a shorter last batch) can share blocks."""
    step = 1 << (size.bit_length() - 4)
    return -(-size // step) * step


class _Block:
    """`size` bytes at an aligned address."""

    __slots__ = ("address", "leased_at", "memory")

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + ALIGNMENT, np.uint8)
        self.address = -(-self.memory.ctypes.data // ALIGNMENT) * ALIGNMENT
        self.leased_at = 0


class _Lease:
    """What an array stands on while it lives; its end brings the block back."""

    __slots__ = ("__array_interface__", "_block", "_free")

    def __init__(self, block: _Block, free: deque[_Block], shape: tuple[int, ...], dtype: np.dtype) -> None:
        self._block = block
        self._free = free
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str, "data": (block.address, False)}

    def __del__(self) -> None:
        self._free.append(self._block)
