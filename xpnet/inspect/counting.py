"""Counting the bytes of the arrays that a network makes while it computes."""

from __future__ import annotations

import copy
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.cpu.memory import MemoryPool
from xpnet.layer import Array

BEFORE = -1             # in the place of a pass: what was there before the first one


@contextmanager
def counted(backend: Backend) -> Iterator[tuple[Backend, Count]]:
    """A copy of the backend whose arrays lie apart from all others, and the count of their
    bytes."""
    twin: Any = copy.copy(backend)
    if backend.xp is not np:
        twin.autotune = False           # nothing is timed for a report
        pools = DeviceCount(backend)
        with backend.scope(), pools.of(BEFORE):
            yield twin, pools
        return
    pool, count = MemoryPool(), HostCount()
    if hasattr(backend, "threads"):
        twin.threads = _Together(backend.threads.size)

    def empty(shape: tuple[int, ...], dtype: Any) -> Array:
        a = pool.empty(shape, dtype)
        count.add(a)
        if getattr(twin, "threads", None) and twin.threads.held:
            twin.threads.held[-1].append(a)
        return a

    twin.empty = empty
    try:
        yield twin, count
    finally:
        # it holds the twin and the pool: as a cycle their memory would stay for a while
        del twin.empty


class Count:
    """How many bytes arrays take up, together and by the pass that made them."""

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        """What is made in the block belongs to pass number `row`."""
        raise NotImplementedError

    def adopt(self, arrays: Any) -> None:
        """Count what a layer returns or keeps, in tuples, lists and dicts, if it was not counted
        when it was made."""

    def bytes(self, row: int | None = None) -> int:
        """Bytes of all arrays that there are, or of those that one pass made."""
        raise NotImplementedError


class DeviceCount(Count):
    """Everything on a GPU comes from a memory pool: each pass has one of its own."""

    def __init__(self, backend: Backend) -> None:
        self.cuda, self.pools = backend.xp.cuda, dict[int, Any]()

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        pool = self.pools.setdefault(row, self.cuda.MemoryPool())
        with self.cuda.using_allocator(pool.malloc):
            yield
        pool.free_all_blocks()          # what is free in one pool is of no use to another

    def bytes(self, row: int | None = None) -> int:
        pools = (self.pools.values() if row is None else [self.pools[row]] if row in self.pools
                 else [])
        return sum(pool.used_bytes() for pool in pools)


class HostCount(Count):
    """Arrays are counted when the backend makes them, and those that NumPy made when a layer
    returns or keeps them."""

    def __init__(self) -> None:
        self.row = BEFORE
        self._sizes: Counter[int] = Counter()
        self._known: set[int] = set()           # ids of the arrays that are counted and still there
        # Bytes that came and, negative, went, with their row. An append needs no lock, whatever
        # thread it is in.
        self._changes: deque[tuple[int, int]] = deque()

    def add(self, a: np.ndarray) -> None:
        self._known.add(id(a))
        self._changes.append((self.row, a.nbytes))
        # views keep the array alive that they are of
        weakref.finalize(a, self._gone, id(a), self.row, a.nbytes)

    def _gone(self, number: int, row: int, size: int) -> None:
        self._known.discard(number)
        self._changes.append((row, -size))

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        self.row = row
        yield
        self.row = BEFORE

    def adopt(self, arrays: Any) -> None:
        if isinstance(arrays, dict):
            arrays = list(arrays.values())
        if isinstance(arrays, tuple | list):
            for a in arrays:
                self.adopt(a)
        elif isinstance(arrays, np.ndarray):
            while isinstance(arrays.base, np.ndarray):
                arrays = arrays.base
            if id(arrays) not in self._known:
                self.add(arrays)

    def bytes(self, row: int | None = None) -> int:
        while self._changes:
            of, size = self._changes.popleft()
            self._sizes[of] += size
        return sum(self._sizes.values()) if row is None else self._sizes[row]


class _Together:
    """Runs tasks one after another, and holds their arrays as if `size` threads worked at once: the
    most there can be."""

    def __init__(self, size: int) -> None:
        self.size = size
        self.held: deque[list[Array]] = deque()

    def run(self, task: Callable[[int], object], count: int) -> None:
        around, self.held = self.held, deque(maxlen=self.size)
        try:
            for index in range(count):
                self.held.append([])
                task(index)
        finally:
            self.held = around


@contextmanager
def changed(changes: Sequence[tuple[Any, str, Any]]) -> Iterator[None]:
    """Attributes (of, name, value) that have other values while the block lasts."""
    missing = object()
    before = [(of, name, vars(of).get(name, missing)) for of, name, _ in changes]
    try:
        for of, name, value in changes:
            vars(of)[name] = value  # an assignment to a parameter's array would copy into it
        yield
    finally:
        for of, name, value in before:
            if value is missing:
                del vars(of)[name]
            else:
                vars(of)[name] = value
