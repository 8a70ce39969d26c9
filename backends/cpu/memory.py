"""Memory for arrays that is reused after the last array on it was deleted.

New pages from the operating system cost more than the arithmetic on them, and each training step
needs arrays of the same sizes.
"""

from __future__ import annotations

import math
import os
from bisect import bisect_left, insort
from collections import deque
from itertools import chain
from threading import Lock
from typing import Any
from weakref import WeakSet

import numpy as np

SMALL = 1 << 16         # bytes; malloc recycles smaller arrays itself
# sizes and addresses are multiples of it, so that neighbouring blocks can be merged
PAGE = 1 << 12
# A block is not cut for an array this many times smaller: the rest would not fit the next large
# array.
MAX_RATIO = 32
# a chunk is given back after this many calls of `empty` (many training steps) without use
PATIENCE = 4096


class MemoryPool:
    """Arrays on recycled blocks of memory.

    Each array refers to a lease of a block. Views keep their array alive and the array keeps its
    lease, so a block is returned exactly when its last view is deleted, and memory in use never
    changes. A block is returned by one atomic append to a list, from any thread, possibly in the
    middle of another call; only `empty` takes the lock.

    The next array of the same size gets a returned block as it is: the steps of a training need
    the same sizes again. If there is none of that size, the returned blocks are merged with their
    free neighbours, and a block is cut from the smallest one that is large enough. If there is none
    either, the unused chunks are given back to the system and one new chunk of their total size is
    made. So after a training step or two there are few chunks, and together they are hardly larger
    than the memory in use at one time.
    """

    def __init__(self) -> None:
        self._returned: deque[_Block] = deque()
        self._begin()
        _POOLS.add(self)

    def _begin(self) -> None:
        """Start without free blocks and with a free lock. In a forked process another thread may
        have used both."""
        self._recent: dict[int, list[_Block]] = {}  # by size: returned, and not merged yet
        self._sizes: list[tuple[int, int]] = []  # (size, address) of the free blocks, in order
        self._starts: dict[int, _Block] = {}  # the free blocks by their addresses
        self._ends: dict[int, _Block] = {}                              # and by their ends
        self._clock = 0
        self._lock = Lock()

    def empty(self, shape: tuple[int, ...], dtype: Any) -> np.ndarray:
        """An array with unspecified content."""
        dtype, shape = np.dtype(dtype), tuple(map(int, shape))
        size = math.prod(shape) * dtype.itemsize
        if size < SMALL or dtype.kind not in "biufc":
            return np.empty(shape, dtype)
        with self._lock:
            self._collect()
            self._clock += 1
            if self._clock % PATIENCE == 0:
                self._merge()
                self._drop(lambda block: block.chunk.used_at <= self._clock - PATIENCE)
            block = self._take(-(-size // PAGE) * PAGE)
            block.chunk.used_at = self._clock
        return np.asarray(_Lease(block, self._returned, shape, dtype))

    def drop_idle(self) -> None:
        """Give the unused chunks back to the system."""
        with self._lock:
            self._collect()
            self._merge()
            self._drop(lambda block: True)

    def idle_bytes(self) -> int:
        """Bytes in free blocks."""
        with self._lock:
            self._collect()
            self._merge()
            return sum(size for size, _ in self._sizes)

    def _take(self, size: int) -> _Block:
        """A recent block of `size` bytes; else the smallest free block of at least that size, cut
        to size; a new one if there is none."""
        if same := self._recent.get(size):
            return same.pop()
        self._merge()
        at = bisect_left(self._sizes, (size, 0))
        if at < len(self._sizes) and self._sizes[at][0] < MAX_RATIO * size:
            block = self._remove(self._starts[self._sizes[at][1]])
        else:
            freed = self._drop(lambda block: block.size < MAX_RATIO * size)
            block = _Chunk(max(size, freed)).whole()
        if block.size > size:
            self._add(_Block(block.chunk, block.address + size, block.size - size))
        return _Block(block.chunk, block.address, size)

    def _collect(self) -> None:
        """Sort the returned blocks by their sizes."""
        while self._returned:
            block = self._returned.popleft()
            self._recent.setdefault(block.size, []).append(block)

    def _merge(self) -> None:
        """Add the recent blocks to the free ones, each merged with its free neighbours."""
        recent, self._recent = self._recent, {}
        for block in chain.from_iterable(recent.values()):
            before, after = (self._ends.get(block.address),
                             self._starts.get(block.address + block.size))
            for neighbour in (before, after):
                if neighbour is not None and neighbour.chunk is block.chunk:
                    self._remove(neighbour)
                    block = _Block(block.chunk, min(block.address, neighbour.address),
                                   block.size + neighbour.size)
            self._add(block)

    def _drop(self, chosen: Any) -> int:
        """Give back the chunks that are one free block for which `chosen` is true. Returns their
        total size in bytes."""
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
    """`size` bytes of system memory that start at a page."""

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
    """The base object of an array: when it is deleted, the block is returned."""

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
