"""Streams, events and graphs of a pretended GPU: see fake_cupy.py.

What is launched on a stream waits in its queue. Usually it runs at once; on a stream that is `late`
only when somebody waits for it, which a GPU may do too: a missing event is then seen in the
results. While a stream captures nothing runs: the launches go into a graph, results are garbage
until it is launched, and what CUDA forbids raises and spoils the capture. A graph knows addresses
only: launching it fails where one of its arrays is gone.
"""

from __future__ import annotations

import time
import weakref
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import numpy as np
from fake_memory import Block, CUDARuntimeError, Memory, MemoryPool, PinnedMemoryPool, overwrite

Work = Callable[[], Any]


class Recording:
    """What a stream captures, with other streams that waited for one of its events."""

    def __init__(self, pool: MemoryPool, origin: Stream) -> None:
        self.pool, self.valid, self.origin = weakref.ref(pool), True, origin
        self.work: list[Work] = []
        self.launched = {origin: 0}     # work by stream
        self.joined: dict[Stream, int] = {}     # how much of it the first stream waited for
        self.arrays: dict[int, weakref.ref[Memory]] = {}
        self.blocks: dict[int, Block] = {}
        self.last = 0

    def add(self, stream: Stream, work: Work, memories: Sequence[Memory]) -> None:
        self.work.append(work)
        self.launched[stream] += 1
        self.blocks |= {id(memory.block): memory.block for memory in memories}
        self.arrays |= {memory.number: weakref.ref(memory) for memory in memories
                        if memory.pool() is not self.pool()}


class Stream:
    """A queue of work, done in order."""

    OF_THE_FAKE = {"gpus", "defers", "do", "run", "refuse"}
    gpus: Gpus              # of the class that FakeCupy makes

    def __init__(self, null: bool = False, non_blocking: bool = False) -> None:
        self.device_id, self.non_blocking = self.gpus.current, non_blocking
        self.ptr = 0 if null else id(self)
        self.recording: Recording | None = None
        self.queue: deque[Work] = deque()
        self.asked = self.ended = self.launched = 0
        self.gpus.every.add(self)

    # --- what the fake itself asks for ------------------------------------------------------------

    @property
    def defers(self) -> bool:
        return (self.recording is not None or bool(self.queue)
                or (self.ptr != 0 and self.gpus.late(self)))

    def do(self, work: Work, memories: Sequence[Memory] = (), *, launch: bool = True) -> None:
        """Put work into the queue; without `launch` it is nothing that a GPU would be told."""
        self.launched += launch
        if self.recording is not None:
            self.recording.add(self, work, memories)
            return
        self.queue.append(work)
        self.asked += 1
        if not (self.ptr != 0 and self.gpus.late(self)):
            self.run(self.asked)

    def run(self, upto: int) -> None:
        """Everything up to the launch of that number."""
        while self.ended < upto:
            self.ended += 1
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
        event = event or self.gpus.new_event()
        if event.device_id != self.device_id and self.ptr:
            self.refuse("cudaErrorInvalidResourceHandle", "invalid resource handle")
        event.captured = self.recording is not None
        if self.recording is not None:
            event.launched = self.recording.launched[self]
        event.place, event.seconds = (self, self.asked), time.perf_counter()
        return event

    def wait_event(self, event: Event) -> None:
        if event.place is None:
            return
        other, number = event.place
        if event.captured and self.recording is None and other.recording is not None:
            self.recording = other.recording            # it belongs to the capture from now on
            self.recording.launched[self] = 0
        if (self.recording is not None) != event.captured:
            self.refuse("cudaErrorStreamCaptureIsolation", "dependency created on uncaptured work "
                                                           "in another stream")
        if self.recording is None:
            self.do(lambda: other.run(number))
        elif self is self.recording.origin:
            self.recording.joined[other] = event.launched

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
        self.recording = Recording(self.gpus.pool, self)

    def end_capture(self) -> Graph:
        recording = self.recording
        if recording is None:
            raise CUDARuntimeError("cudaErrorIllegalState: the operation cannot be performed in "
                                   "the present state")
        if self is not recording.origin:
            self.refuse("cudaErrorStreamCaptureUnmatched", "the capture was not initiated in this "
                                                           "stream")
        for stream in recording.launched:
            stream.recording = None
        if any(recording.joined.get(stream) != count for stream, count in
               recording.launched.items() if stream is not self):
            raise CUDARuntimeError("cudaErrorStreamCaptureUnjoined: capturing stream has unjoined "
                                   "work")
        if not recording.valid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a "
                                   "previous error during capture")
        recording.last = self.gpus.allocations
        return Graph.__new__(Graph).recorded(self.gpus, recording)

    def is_capturing(self) -> bool:
        return self.recording is not None


class Event:
    OF_THE_FAKE = {"gpus"}
    gpus: Gpus

    def __init__(self, block: bool = False, disable_timing: bool = False,
                 interprocess: bool = False) -> None:
        if interprocess and not disable_timing:
            raise ValueError("Timing must be disabled for interprocess events")
        self.ptr, self.device_id, self.captured = id(self), self.gpus.current, False
        self.timing, self.launched = not disable_timing, 0
        self.place: tuple[Stream, int] | None = None
        self.seconds = 0.0

    def record(self, stream: Stream | None = None) -> None:
        (stream or self.gpus.stream).record(self)

    @property
    def done(self) -> bool:
        return self.place is None or self.place[0].ended >= self.place[1]

    def synchronize(self) -> None:
        if self.captured:
            raise CUDARuntimeError("cudaErrorCapturedEvent: the event was last recorded in a "
                                   "capturing stream")
        if self.place is not None:
            self.place[0].run(self.place[1])


def elapsed_time(start_event: Event, end_event: Event) -> float:
    """Milliseconds of the host between two events: the pretended GPU has no time of its own."""
    for event in (start_event, end_event):
        if event.place is None or not event.timing:
            raise CUDARuntimeError("cudaErrorInvalidResourceHandle: invalid resource handle")
        if event.place[0].ended < event.place[1]:
            raise CUDARuntimeError("cudaErrorNotReady: device not ready")
    return 1000 * (end_event.seconds - start_event.seconds)


class Graph:
    OF_THE_FAKE = {"recorded"}

    def __init__(self) -> None:
        raise NotImplementedError("currently this class cannot be initiated by the user and must "
                                  "be created via stream capture")

    def recorded(self, gpus: Gpus, recording: Recording) -> Graph:
        self.gpus, self.recording = gpus, recording
        return self

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
        if any(block.freed for block in self.recording.blocks.values()):
            raise CUDARuntimeError("cudaErrorIllegalAddress: an illegal memory access was "
                                   "encountered")
        self.gpus.launches += 1
        stream.do(self._replay)

    def _replay(self) -> None:
        pool = self.recording.pool()
        for memory in list(pool.memories if pool is not None else ()):
            if memory.number > self.recording.last:  # it may lie where the graph has its own arrays
                overwrite(memory.bytes)
        with np.errstate(all="ignore"):
            for work in self.recording.work:
                work()


class Gpus:
    """All that the pretended GPUs have in common."""

    def __init__(self, memory: int, late: Callable[[Stream], bool], *, reuses: bool = True) -> None:
        self.memory, self.late, self.reuses = memory, late, reuses
        self.current = self.allocations = self.graphs = self.launches = 0
        self.used = self.reserved = 0       # bytes that arrays have, and that the driver gave
        self.without_gaps = False           # only what arrays have counts
        self.shipped = 0                    # bytes that came from the host
        self.hooks: list[Any] = []
        self.every: weakref.WeakSet[Stream] = weakref.WeakSet()
        # CuPy's classes have no argument for what they belong to.
        self.stream_class = type("Stream", (Stream,), {"gpus": self})
        self.new_event = type("Event", (Event,), {"gpus": self})
        self.null = self.stream_class(null=True)
        self.streams: dict[int, list[Stream]] = {}
        self.default_pool = self.allocator = MemoryPool()
        self.pools: list[MemoryPool] = []   # of `using_allocator`
        self.blocks: weakref.WeakValueDictionary[int, Block] = weakref.WeakValueDictionary()
        self.pinned = PinnedMemoryPool()
        self.pinned_allocator: Callable[[int], Any] = self.pinned.malloc

    @property
    def taken(self) -> int:
        return self.used if self.without_gaps else self.reserved

    @property
    def pool(self) -> MemoryPool:
        """Where an array comes from now."""
        return self.pools[-1] if self.pools else self.allocator

    @property
    def stream(self) -> Stream:
        return self.streams.get(self.current, [self.null])[-1]

    def stream_of(self, device_id: int = -1) -> Stream:
        """The current stream of a device; of the current one for -1."""
        return self.streams.get(self.current if device_id < 0 else device_id, [self.null])[-1]

    @contextmanager
    def using_allocator(self, allocator: Callable[[int], Any]) -> Iterator[None]:
        self.pools.append(allocator.__self__)       # type: ignore[attr-defined]
        try:
            yield
        finally:
            self.pools.pop()
