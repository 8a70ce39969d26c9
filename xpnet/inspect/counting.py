"""Measuring memory: the bytes of the arrays that a network makes, and the bytes that are free."""

from __future__ import annotations

import copy
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.cpu.memory import MemoryPool
from xpnet.layer import Array

BEFORE = -1             # the number that stands for the time before the first pass


@contextmanager
def counted(backend: Backend) -> Iterator[tuple[Backend, Count]]:
    """A copy of the backend with a memory pool of its own, and the count of the bytes in it."""
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
        # It refers to the twin and the pool. The cycle would keep their memory until the garbage
        # collector runs.
        del twin.empty


class Count:
    """The bytes of the arrays that exist now, in total and for the pass that made them."""

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        """Arrays made in the block belong to pass number `row`."""
        raise NotImplementedError

    def adopt(self, arrays: Any) -> None:
        """Count arrays that a layer returns or keeps, also in tuples, lists and dicts, unless they
        were counted when they were made."""

    def bytes(self, row: int | None = None) -> int:
        """Bytes of all arrays that exist, or of those that one pass made."""
        raise NotImplementedError


class DeviceCount(Count):
    """All arrays on a GPU come from a memory pool; each pass has a pool of its own."""

    def __init__(self, backend: Backend) -> None:
        self.cuda, self.pools = backend.xp.cuda, dict[int, Any]()

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        pool = self.pools.setdefault(row, self.cuda.MemoryPool())
        with self.cuda.using_allocator(pool.malloc):
            yield
        pool.free_all_blocks()          # one pool cannot use the free memory of another

    def bytes(self, row: int | None = None) -> int:
        return sum(pool.used_bytes() for key, pool in self.pools.items() if row in (None, key))


class HostCount(Count):
    """Arrays of the backend are counted when they are made, those of NumPy when a layer returns or
    keeps them."""

    def __init__(self) -> None:
        self.row = BEFORE
        self._sizes: Counter[int] = Counter()
        self._known: set[int] = set()           # ids of the counted arrays that still exist
        # (row, bytes) of each new array, and (row, -bytes) of each deleted one. Appending is safe
        # in any thread without a lock.
        self._changes: deque[tuple[int, int]] = deque()

    def add(self, a: np.ndarray) -> None:
        self._known.add(id(a))
        self._changes.append((self.row, a.nbytes))
        # A view keeps its base array alive.
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
    """Runs tasks one after another but keeps the arrays of the last `size` tasks, as many as
    `size` threads can hold at once."""

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
    """Set attributes (object, name, value) during the block, and restore them afterwards."""
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


# --- free memory ----------------------------------------------------------------------------------

# For versions 2 and 1 of control groups: the controller in /proc/self/cgroup, its folder below the
# mount point, the files of the limit and of the use, and the name of the reclaimable part of it.
GROUPS = (("", "", "memory.max", "memory.current", "inactive_file"),
          ("memory", "memory", "memory.limit_in_bytes", "memory.usage_in_bytes",
           "total_inactive_file"))


def free_memory(proc: Path = Path("/proc"), groups: Path = Path("/sys/fs/cgroup")) -> int | None:
    """Bytes of main memory that this process can still get, or None if unknown (without /proc).

    It is the least that the system, the limits of the process and its control groups leave.
    """
    found = [*_system(proc), *_limits(proc), *_control_groups(proc, groups)]
    return max(0, min(found)) if found else None


def _system(proc: Path) -> Iterator[int]:
    yield from (1024 * size for size in _sizes(proc / "meminfo", "MemAvailable:"))


def _limits(proc: Path) -> Iterator[int]:
    """Bytes that `ulimit -v` (address space) and `ulimit -d` (data) leave."""
    try:
        import resource
    except ImportError:                 # Windows
        return
    for limit, used in ((resource.RLIMIT_AS, "VmSize:"), (resource.RLIMIT_DATA, "VmData:")):
        most, _ = resource.getrlimit(limit)
        if most != resource.RLIM_INFINITY:
            yield from (most - 1024 * size for size in _sizes(proc / "self" / "status", used))


def _control_groups(proc: Path, mount: Path) -> Iterator[int]:
    """Bytes that each control group of the process leaves, and each group above it."""
    for line in _lines(proc / "self" / "cgroup"):
        _, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        for controller, folder, limit, use, idle in GROUPS:
            if controller in controllers.split(","):
                group = mount / folder
                # In a container only the root of this path exists.
                for part in ("", *Path(path.lstrip("/")).parts):
                    group /= part
                    yield from _group(group, limit, use, idle)


def _group(group: Path, limit: str, use: str, idle: str) -> Iterator[int]:
    try:
        most, used = int((group / limit).read_text()), int((group / use).read_text())
    except (OSError, ValueError):       # no such group, or "max"
        return
    yield most - used + sum(_sizes(group / "memory.stat", idle))


def _sizes(file: Path, name: str) -> list[int]:
    """The numbers after `name` in a file of names and numbers."""
    return [int(line.split()[1]) for line in _lines(file) if line.split()[:1] == [name]]


def _lines(file: Path) -> list[str]:
    try:
        return file.read_text(encoding="ascii", errors="replace").splitlines()
    except OSError:
        return []
