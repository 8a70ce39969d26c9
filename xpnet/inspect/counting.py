"""Measuring memory: the bytes of the arrays that a network makes, and the bytes that are free."""

from __future__ import annotations

import copy
import tracemalloc
import weakref
from collections import Counter, deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array

BEFORE = -1             # the number that stands for the time before the first pass
OBJECTS = 1 << 14       # bytes of Python's own objects that a pass makes: a few kilobytes


@contextmanager
def counted(backend: Backend) -> Iterator[tuple[Backend, Count]]:
    """A copy of the backend, and the count of the bytes of all arrays that are made with it."""
    twin: Any = copy.copy(backend)
    if backend.xp is not np:
        twin.autotune = False           # nothing is timed for a report
        with backend.scope(), device_count(backend.xp.cuda) as on_device:
            yield twin, on_device
        return
    count = HostCount()
    if hasattr(backend, "threads"):
        twin.threads = _Together(backend.threads.size)

    def empty(shape: tuple[int, ...], dtype: Any) -> Array:
        a = np.empty(shape, dtype)      # not of a pool, which would hide it from tracemalloc
        count.add(a)
        if getattr(twin, "threads", None) and twin.threads.held:
            twin.threads.held[-1].append(a)
        return a

    twin.empty = empty
    try:
        with traced():
            yield twin, count
    finally:
        # It refers to the twin. The cycle would keep its arrays until the garbage collector runs.
        del twin.empty


@contextmanager
def traced() -> Iterator[None]:
    """tracemalloc sees all memory that Python and NumPy allocate in the block."""
    if tracemalloc.is_tracing():
        yield
        return
    tracemalloc.start()
    try:
        yield
    finally:
        tracemalloc.stop()


class Count:
    """The bytes of the arrays that exist now, in total and for the pass that made them.

    `most` is the largest number of bytes in use during the latest pass. `beyond` says that in some
    pass more than the counted arrays was in use: temporaries of NumPy, or objects that exist once,
    for example a kernel that was compiled.
    """

    def __init__(self) -> None:
        self.row, self.most, self.beyond = BEFORE, 0, False
        # (row, bytes) of each new array, and (row, -bytes) of each deleted one. Appending is safe
        # in any thread without a lock.
        self._changes: deque[tuple[int, int]] = deque()
        self._sizes: Counter[int] = Counter()

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        """Arrays made in the block belong to pass number `row`."""
        self.row, self.most = row, self.bytes()
        yield
        self.row = BEFORE

    def adopt(self, arrays: Any) -> None:
        """Count arrays that a layer returns or keeps, also in tuples, lists and dicts, unless they
        were counted when they were made."""

    def bytes(self, row: int | None = None) -> int:
        """Bytes of all arrays that exist, or of those that one pass made."""
        while self._changes:
            of, size = self._changes.popleft()
            self._sizes[of] += size
        return sum(self._sizes.values()) if row is None else self._sizes[row]

    def _made(self, size: int) -> None:
        self._changes.append((self.row, size))
        self.most = max(self.most, self.bytes())


@contextmanager
def device_count(cuda: Any) -> Iterator[Count]:
    """The count of all arrays that CuPy makes in the block: its hooks report each of them."""
    count, rows = Count(), dict[int, tuple[int, int]]()

    class Hook(cuda.MemoryHook):                        # type: ignore[name-defined,misc]
        name = "xpnet: bytes of each pass"

        def malloc_postprocess(self, *, mem_size: int, pmem_id: int, **_: Any) -> None:
            if pmem_id:                                 # 0 if there was too little memory
                rows[pmem_id] = count.row, mem_size
                count._made(mem_size)

        def free_postprocess(self, *, pmem_id: int, **_: Any) -> None:
            row, size = rows.pop(pmem_id, (BEFORE, 0))
            count._changes.append((row, -size))

    # A pool of its own gives its memory back when it is deleted.
    with cuda.using_allocator(cuda.MemoryPool().malloc), Hook():
        yield count


class HostCount(Count):
    """Arrays of the backend are counted when they are made, those of NumPy when a layer returns or
    keeps them. tracemalloc sees the temporaries of NumPy during a pass."""

    def __init__(self) -> None:
        super().__init__()
        self._known: set[int] = set()           # ids of the counted arrays that still exist

    def add(self, a: np.ndarray) -> None:
        self._known.add(id(a))
        # A view keeps its base array alive.
        weakref.finalize(a, self._gone, id(a), self.row, a.nbytes)
        self._made(a.nbytes)

    def _gone(self, number: int, row: int, size: int) -> None:
        self._known.discard(number)
        self._changes.append((row, -size))

    @contextmanager
    def of(self, row: int) -> Iterator[None]:
        before, (already, _) = self.bytes(), tracemalloc.get_traced_memory()
        tracemalloc.reset_peak()
        with super().of(row):
            yield
        _, most = tracemalloc.get_traced_memory()
        seen = before + most - already - OBJECTS
        self.beyond |= seen > self.most
        self.most = max(self.most, seen)

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
