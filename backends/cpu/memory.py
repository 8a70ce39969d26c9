"""Memory for arrays that is used again when no array uses it any longer.

New pages from the operating system cost more than the arithmetic on them, and each training step
needs arrays of the same sizes.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, insort
from collections import deque
from threading import Lock
from typing import Any
from weakref import WeakSet

import numpy as np

SMALL = 1 << 16         # bytes; below, malloc recycles by itself
# sizes are multiples of it, and addresses, so that what comes back fits together again
PAGE = 1 << 12
# a block is not cut for an array so many times smaller: what is left would not fit the next large
# one
SPARING = 32
# a chunk that so many calls of `empty` had no use for is given back: many training steps
PATIENCE = 4096


class MemoryPool:
    """Arrays on recycled blocks of memory.

    Each array stands on a lease of a block. Views keep their array alive and the array its lease,
    so a block comes back exactly when the last view of it has died, and what was handed out never
    changes. It comes back by one atomic append to a list, from whatever thread, possibly in the
    middle of another call; `empty` alone takes the lock.

    Blocks are cut from chunks, the smallest that fits, and grow together again with their
    neighbours. Where none fits, the chunks that are not used are given back and one is made that is
    as large as all of them: after a training step or two there are few, and what they hold is
    hardly more than what is in use at one time.
    """

    def __init__(self) -> None:
        self._returned: deque[_Block] = deque()
        self._begin()
        _POOLS.add(self)

    def _begin(self) -> None:
        """No free blocks, and a free lock. In a forked process another thread may have used
        both."""
        self._sizes: list[tuple[int, int]] = []  # (size, address) of the free blocks, in order
        self._starts: dict[int, _Block] = {}  # the free blocks by their addresses
        self._ends: dict[int, _Block] = {}                              # and by where they end
        self._clock = 0
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array of unspecified content."""
        dtype, shape = np.dtype(dtype), tuple(map(int, shape))
        size = math.prod(shape) * dtype.itemsize
        if size < SMALL or dtype.kind not in "biufc":
            return np.empty(shape, dtype)
        with self._lock:
            self._collect()
            self._clock += 1
            if self._clock % PATIENCE == 0:
                self._drop(lambda block: block.chunk.used_at <= self._clock - PATIENCE)
            block = self._take(-(-size // PAGE) * PAGE)
            block.chunk.used_at = self._clock
        return np.asarray(_Lease(block, self._returned, shape, dtype))

    def drop_idle(self) -> None:
        """Give the chunks back to the system that are not used."""
        with self._lock:
            self._collect()
            self._drop(lambda block: True)

    def idle_bytes(self) -> int:
        """Bytes that wait here for their next use."""
        with self._lock:
            self._collect()
            return sum(size for size, _ in self._sizes)

    def _take(self, size: int) -> _Block:
        """The smallest free block of at least that many bytes, cut to size; a new one where there
        is none."""
        at = bisect_left(self._sizes, (size, 0))
        if at < len(self._sizes) and self._sizes[at][0] < SPARING * size:
            block = self._remove(self._starts[self._sizes[at][1]])
        else:
            freed = self._drop(lambda block: block.size < SPARING * size)
            block = _Chunk(max(size, freed)).whole()
        if block.size > size:
            self._add(_Block(block.chunk, block.address + size, block.size - size))
        return _Block(block.chunk, block.address, size)

    def _collect(self) -> None:
        """Take back what was returned, each block together with its free neighbours."""
        while self._returned:
            block = self._returned.popleft()
            before, after = (self._ends.get(block.address),
                             self._starts.get(block.address + block.size))
            for neighbour in (before, after):
                if neighbour is not None and neighbour.chunk is block.chunk:
                    self._remove(neighbour)
                    block = _Block(block.chunk, min(block.address, neighbour.address),
                                   block.size + neighbour.size)
            self._add(block)

    def _drop(self, chosen: Any) -> int:
        """Give back the chunks that are one free block which is `chosen`; how many bytes they
        were."""
        idle = [block for block in self._starts.values() if block.size == block.chunk.size
                and chosen(block)]
        return sum(self._remove(block).size for block in idle)

    def _add(self, block: _Block) -> None:
        insort(self._sizes, (block.size, block.address))
        self._starts[block.address] = self._ends[block.address + block.size] = block

    def _remove(self, block: _Block) -> _Block:
        del self._sizes[bisect_left(self._sizes, (block.size, block.address))]
        del self._starts[block.address], self._ends[block.address + block.size]
        return block


class _Chunk:
    """`size` bytes of the system's, at the address of a page."""

    def __init__(self, size: int) -> None:
        self.memory = np.empty(size + PAGE, np.uint8)
        self.size = size
        self.used_at = 0

    def whole(self) -> _Block:
        return _Block(self, -(-self.memory.ctypes.data // PAGE) * PAGE, self.size)


class _Block:
    """A part of a chunk."""

    __slots__ = ("address", "chunk", "size")

    def __init__(self, chunk: _Chunk, address: int, size: int) -> None:
        self.chunk, self.address, self.size = chunk, address, size


class _Lease:
    """What an array stands on while it lives; its end brings the block back."""

    __slots__ = ("__array_interface__", "_block", "_returned")

    def __init__(self, block: _Block, returned: deque[_Block], shape: tuple[int, ...],
                 dtype: np.dtype) -> None:
        self._block = block
        self._returned = returned
        self.__array_interface__ = {"version": 3, "shape": shape, "typestr": dtype.str,
                                    "data": (block.address, False)}

    def __del__(self) -> None:
        self._returned.append(self._block)


_POOLS: WeakSet[MemoryPool] = WeakSet()


def _after_fork() -> None:
    for pool in list(_POOLS):
        pool._begin()


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
