"""Streams, events, graphs and memory of a pretended GPU: see fake_cupy.py.

What is launched on a stream waits in its queue. Usually it runs at once; on a stream that is `late`
only when somebody waits for it, which a GPU may do too: a missing event is then seen in the
results. While a stream captures nothing runs: the launches go into a graph, results are garbage
until it is launched, and what CUDA forbids raises and spoils the capture. A graph knows addresses
only: launching it fails where one of its arrays is gone.
"""

from __future__ import annotations

import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np

GARBAGE = 0xA5
Work = Callable[[], Any]


class CUDARuntimeError(RuntimeError):
    pass


class OutOfMemoryError(MemoryError):
    pass


class Buffer:
    """A piece of a GPU's memory, for as long as an array lies in it."""

    def __init__(self, gpu: Gpus, root: np.ndarray, pool: MemoryPool) -> None:
        if gpu.used + root.nbytes > gpu.memory:
            raise OutOfMemoryError(f"Out of memory allocating {root.nbytes:,} bytes (allocated so "
                                   f"far: {gpu.used:,} bytes).")
        self.gpu, self.root, self.pool = gpu, root, weakref.ref(pool)
        gpu.used += root.nbytes
        gpu.allocations += 1
        self.number = gpu.allocations
        pool.add(self)

    def __del__(self) -> None:
        if hasattr(self, "number"):
            self.gpu.used -= self.root.nbytes
            pool = self.pool()
            if pool is not None:
                pool.used -= self.root.nbytes


class MemoryPool:
    """Where arrays come from. Its memory is kept while the pool lives, also what no array needs at
    the moment; `allocator` is called for each piece that the pool takes from the GPU."""

    def __init__(self, allocator: Callable[[int], Any] = lambda size: None) -> None:
        self.buffers: weakref.WeakSet[Buffer] = weakref.WeakSet()
        self.allocator, self.used, self.total = allocator, 0, 0

    def malloc(self, size: int) -> None:
        raise NotImplementedError("the fake only asks to which pool this method belongs")

    def add(self, buffer: Buffer) -> None:
        self.buffers.add(buffer)
        self.used += buffer.root.nbytes
        if self.used > self.total:
            self.allocator(self.used - self.total)
            self.total = self.used

    def free_all_blocks(self) -> None:
        self.total = self.used

    def free_bytes(self) -> int:
        return 0            # what no array needs is free on the pretended GPU

    def total_bytes(self) -> int:
        return self.total

    def used_bytes(self) -> int:
        return self.used


class Recording:
    """What a stream captures."""

    def __init__(self, pool: MemoryPool) -> None:
        self.pool, self.valid = weakref.ref(pool), True
        self.work: list[Work] = []
        self.arrays: dict[int, weakref.ref[Buffer]] = {}
        self.last = 0

    def add(self, work: Work, buffers: Sequence[Buffer]) -> None:
        self.work.append(work)
        self.arrays |= {buffer.number: weakref.ref(buffer) for buffer in buffers
                        if buffer.pool() is not self.pool()}


class Stream:
    """A queue of work, done in order."""

    def __init__(self, gpus: Gpus, non_blocking: bool = False, null: bool = False) -> None:
        self.gpus, self.device_id, self.non_blocking = gpus, gpus.current, non_blocking
        self.ptr = 0 if null else id(self)
        self.recording: Recording | None = None
        self.queue: deque[Work] = deque()
        self.asked = self.done = 0
        gpus.every.add(self)

    # --- what the fake itself asks for ------------------------------------------------------------

    @property
    def defers(self) -> bool:
        return (self.recording is not None or bool(self.queue)
                or (self.ptr != 0 and self.gpus.late(self)))

    def do(self, work: Work, buffers: Sequence[Buffer] = ()) -> None:
        if self.recording is not None:
            self.recording.add(work, buffers)
            return
        self.queue.append(work)
        self.asked += 1
        if not (self.ptr != 0 and self.gpus.late(self)):
            self.run(self.asked)

    def run(self, upto: int) -> None:
        """Everything up to the launch of that number."""
        while self.done < upto:
            self.done += 1
            self.queue.popleft()()

    def refuse(self, error: str, what: str) -> None:
        """An error that spoils a capture, where there is one."""
        if self.recording is not None:
            self.recording.valid = False
        raise CUDARuntimeError(f"{error}: {what}")

    # --- what CuPy's streams have -----------------------------------------------------------------

    def __enter__(self) -> Stream:
        if self.ptr and self.device_id != self.gpus.current:
            raise RuntimeError(f"The device that the stream is created on ({self.device_id}) does "
                               "not match with the current "
                               f"device ({self.gpus.current})")
        self.gpus.streams.setdefault(self.gpus.current, [self.gpus.null]).append(self)
        return self

    def __exit__(self, *_: object) -> None:
        assert self.gpus.streams[self.gpus.current].pop() is self

    def record(self, event: Event | None = None) -> Event:
        event = event or Event(self.gpus)
        event.captured = self.recording is not None
        event.place = (self, self.asked)
        return event

    def wait_event(self, event: Event) -> None:
        if event.place is None:
            return
        if (self.recording is not None) != event.captured:
            self.refuse("cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work "
                                                           "in another stream")
        if event.captured:
            assert event.place[0] is self, "the fake's captures have one stream"
            return
        other, number = event.place
        self.do(lambda: other.run(number))

    def synchronize(self) -> None:
        if self.recording is not None:
            self.refuse("cudaErrorStreamCaptureUnsupported", "operation not permitted when stream "
                                                             "is capturing")
        self.run(self.asked)

    def begin_capture(self, mode: int | None = None) -> None:
        if self.ptr == 0:
            raise RuntimeError("cannot capture on the default (legacy) stream")
        if not self.non_blocking:
            raise AssertionError("while this stream captured, nobody could use the default one")
        if self.recording is not None:
            self.refuse("cudaErrorIllegalState", "the operation cannot be performed in the present "
                                                 "state")
        self.recording = Recording(self.gpus.pools[-1])

    def end_capture(self) -> Graph:
        recording, self.recording = self.recording, None
        if recording is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in "
                                   "the present state")
        if not recording.valid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a "
                                   "previous error during capture")
        recording.last = self.gpus.allocations
        return Graph(self.gpus, recording)

    def is_capturing(self) -> bool:
        return self.recording is not None


class Event:
    def __init__(self, gpus: Gpus, block: bool = False, disable_timing: bool = False) -> None:
        self.gpus, self.captured = gpus, False
        self.place: tuple[Stream, int] | None = None

    def record(self, stream: Stream | None = None) -> None:
        (stream or self.gpus.stream).record(self)

    def synchronize(self) -> None:
        if self.captured:
            raise CUDARuntimeError("cudaErrorCapturedEvent: the event was last recorded in a "
                                   "capturing stream")
        if self.place is not None:
            self.place[0].run(self.place[1])


class Graph:
    def __init__(self, gpus: Gpus, recording: Recording) -> None:
        self.gpus, self.recording = gpus, recording

    def upload(self, stream: Stream | None = None) -> None:
        assert (stream or self.gpus.stream).recording is None
        self.gpus.graphs += 1

    def launch(self, stream: Stream | None = None) -> None:
        stream = stream or self.gpus.stream
        if stream.recording is not None:
            stream.refuse("cudaErrorStreamCaptureUnsupported", "operation not permitted when "
                                                               "stream is capturing")
        if (self.recording.pool() is None
            or any(buffer() is None for buffer in self.recording.arrays.values())):
            raise RuntimeError("the graph reads or writes memory that was given back")
        self.gpus.launches += 1
        stream.do(self._replay)

    def _replay(self) -> None:
        pool = self.recording.pool()
        for buffer in (pool.buffers if pool is not None else ()):
            if buffer.number > self.recording.last:  # it may lie where the graph has its own arrays
                overwrite(buffer.root)
        with np.errstate(all="ignore"):
            for work in self.recording.work:
                work()


class PinnedMemory(bytearray):
    """Memory of the host that stays where it is. The fake never gives any back: a late copy may
    still read it."""


class Gpus:
    """All that the pretended GPUs have in common."""

    def __init__(self, memory: int, late: Callable[[Stream], bool]) -> None:
        self.memory, self.late = memory, late
        self.current = self.used = self.allocations = self.graphs = self.launches = 0
        self.shipped = 0            # bytes that came from the host
        self.every: weakref.WeakSet[Stream] = weakref.WeakSet()
        self.null = Stream(self, null=True)
        self.streams: dict[int, list[Stream]] = {}
        self.pools = [MemoryPool()]
        self.buffers: weakref.WeakValueDictionary[int, Buffer] = weakref.WeakValueDictionary()
        self.pinned: dict[int, PinnedMemory] = {}
        self.pinned_allocator: Callable[[int], Any] = self.malloc_pinned

    @property
    def stream(self) -> Stream:
        return self.streams.get(self.current, [self.null])[-1]

    def stream_of(self, device: int = -1) -> Stream:
        """The current stream of a device; of the current one for -1."""
        return self.streams.get(self.current if device < 0 else device, [self.null])[-1]

    def buffer(self, a: np.ndarray) -> Buffer:
        """The memory in which an array lies."""
        root = root_of(a)
        buffer = self.buffers.get(id(root))
        if buffer is None:
            buffer = self.buffers[id(root)] = Buffer(self, root, self.pools[-1])
        return buffer

    @contextmanager
    def using_allocator(self, allocator: Callable[[int], Any]) -> Iterator[None]:
        self.pools.append(allocator.__self__)       # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.pools.pop()

    def malloc_pinned(self, size: int) -> PinnedMemory:
        memory = PinnedMemory(size)
        self.pinned[np.frombuffer(memory, np.uint8).ctypes.data] = memory
        return memory

    def pinned_bytes(self, address: int, size: int) -> np.ndarray:
        for start, memory in self.pinned.items():
            if start <= address and address + size <= start + len(memory):
                return np.frombuffer(memory, np.uint8)[address - start:address - start + size]
        raise AssertionError("an asynchronous copy out of memory that is not pinned waits for it, "
                             "or reads what is there later")


def root_of(a: np.ndarray) -> np.ndarray:
    while isinstance(a.base, np.ndarray):
        a = a.base
    return a


def overwrite(a: np.ndarray) -> None:
    """Garbage, as memory has it that nobody wrote to."""
    if a.dtype == bool:
        a[...] = True
    else:
        a[...] = np.frombuffer(bytes([GARBAGE]) * a.itemsize, a.dtype)[0]
