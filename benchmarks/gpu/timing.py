"""Time on the GPU, measured with its events."""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.backends import Backend

Call = Callable[[], object]
Timer = Callable[[Call], float]         # seconds that a call takes on the device

WARM_UP = 3
SAMPLES, FEWEST_SAMPLES = 9, 5
REPEATS = 20            # calls between two events, at most
SAMPLE = 4e-3           # seconds between two events that are enough
HOLD = 4 << 30          # bytes of a copy that keeps the GPU busy while the calls are queued
MOST_HOLDS = 64         # such copies before a sample, at most


def event_timer(new_event: Callable[[], Any], seconds_between: Callable[[Any, Any], float],
                hold: Call, passed: Callable[[Any], bool]) -> Timer:
    """A function that measures the seconds of a call: the median over samples, each of several
    calls between two events.

    Before, `hold` gives the GPU some milliseconds of other work, during which the calls are queued.
    So the time between the events is that of the GPU, and not that of Python, which takes longer to
    launch a small kernel than the kernel runs. If the GPU has `passed` the first event before all
    calls are queued, the sample is repeated after twice as much other work.
    """
    holds = 1

    def sample(call: Call, repeats: int) -> float:
        nonlocal holds
        while True:
            start, stop = new_event(), new_event()
            for _ in range(holds):
                hold()
            start.record()
            for _ in range(repeats):
                call()
            late = passed(start)
            stop.record()
            stop.synchronize()
            if not late or holds >= MOST_HOLDS:
                return seconds_between(start, stop) / repeats
            holds *= 2

    def seconds_of(call: Call) -> float:
        for _ in range(WARM_UP):
            call()
        one = sample(call, 1)
        repeats = max(1, min(REPEATS, round(SAMPLE / max(one, 1e-9))))
        count = SAMPLES if one < SAMPLE else FEWEST_SAMPLES
        return statistics.median(sample(call, repeats) for _ in range(count))
    return seconds_of


def backend_timer(backend: Backend) -> Timer:
    """A timer with CuPy's events; on a CPU, which only the tests use, with a clock."""
    if not backend.name.startswith("cupy"):
        return clock_timer()
    cuda = backend.xp.cuda
    size = min(HOLD, cuda.runtime.memGetInfo()[0] // 8)
    return event_timer(cuda.Event, lambda start, stop: cuda.get_elapsed_time(start, stop) / 1000,
                       copy_on_device(backend, size), lambda event: event.done)


def clock_timer() -> Timer:
    """A timer for devices without events."""
    return event_timer(Clock, lambda start, stop: stop.time - start.time, lambda: None,
                       lambda event: False)


def copy_on_device(backend: Backend, size: int) -> Call:
    """A call that copies `size` bytes from one array to another."""
    source, target = (backend.zeros((size,), np.uint8) for _ in range(2))
    if not backend.name.startswith("cupy"):
        def copy() -> None:
            target[...] = source
        return copy
    stream = backend.xp.cuda.get_current_stream
    return lambda: target.data.copy_from_device_async(source.data, size, stream())


class Clock:
    """An event for devices without events."""

    def record(self) -> None:
        self.time = time.perf_counter()

    def synchronize(self) -> None:
        pass
