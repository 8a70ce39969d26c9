"""Results of an NVIDIA GPU on their way to the host, while it computes the next ones."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.feed import Collector

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


SLOTS = 3       # results on their way: one is copied, one is computed, one is read by the host


class Slot:
    """Pinned memory for one result, and the event of its copy."""

    def __init__(self, cuda: Any, size: int) -> None:
        self.memory, self.size = cuda.alloc_pinned_memory(size), size
        self.copied = cuda.Event(disable_timing=True)

    def array(self, shape: tuple[int, ...], dtype: np.dtype[Any]) -> np.ndarray:
        return np.frombuffer(self.memory, dtype, math.prod(shape)).reshape(shape)


class DeviceCollector(Collector):
    """Copies to pinned memory on the stream that computes, so that the result is read before the
    next one overwrites it. The host waits for a copy only if all slots are in use, or at the end.
    """

    backend: CupyBackend

    def __init__(self, backend: CupyBackend) -> None:
        super().__init__(backend)
        self._free: list[Slot] = []
        self._waiting: deque[tuple[Slot, np.ndarray, np.ndarray]] = deque()

    def __exit__(self, *error: Any) -> None:
        while self._waiting:            # after an error, too: the memory is used for other things
            self._take()

    def put(self, y: Array, out: np.ndarray) -> None:
        y = self.backend._contiguous(y)
        if not y.size:
            return
        if len(self._waiting) == SLOTS:
            self._take()
        slot = next((slot for slot in self._free if slot.size >= y.nbytes), None)
        if slot is None:
            slot = Slot(self.backend.xp.cuda, y.nbytes)
        else:
            self._free.remove(slot)
        there = slot.array(y.shape, y.dtype)
        stream = self.backend.xp.cuda.get_current_stream(self.backend.device)
        y.data.copy_to_host_async(there.ctypes.data, y.nbytes, stream)
        stream.record(slot.copied)
        self._waiting.append((slot, there, out))

    def _take(self) -> None:
        """Wait for the oldest copy, and hand its result over."""
        slot, there, out = self._waiting.popleft()
        slot.copied.synchronize()
        out[...] = np.moveaxis(there, -1, 0)
        self._free.append(slot)


def collector(self: CupyBackend) -> Collector:
    return DeviceCollector(self)
