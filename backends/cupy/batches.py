"""Batches on an NVIDIA GPU: gathered from samples on the GPU, or copied from the host while the GPU
computes.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.feed import Feed

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


SOURCES: dict[np.dtype[Any], str] = {np.dtype(np.uint8): "unsigned char",
                                     np.dtype(np.float32): "float",
                                     np.dtype(np.float64): "double"}
TARGETS: dict[np.dtype[Any], str] = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
LABELS = np.dtype(np.int64)
TILE = cuda_launch.constant("batches", "TILE")
# the argument `Values values`
VALUES = np.dtype([("at", np.float64, cuda_launch.constant("batches", "VALUES"))])

SHARE = 0.25  # of the free memory: larger arrays of samples stay on the host
SLOTS = 3  # batches in flight: one is read, one is copied, one is filled


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    pairs = ([(s, t, source, target) for s, source in SOURCES.items()
              for t, target in TARGETS.items()])
    pairs.append((LABELS, LABELS, "i64", "i64"))
    return {"batches": ("assign", "move_on",
                        *(f"gather_batch<{source}, {target}, {VS}, {VT}>"
                          for s, t, source, target in pairs
                                    for VS in _widths(s) for VT in _widths(t)))}


def _widths(dtype: np.dtype[Any]) -> tuple[int, int]:
    """1, and the number of elements in 16 bytes."""
    return 1, cuda_launch.ACCESS // dtype.itemsize


def _tiles(D: int, N: int) -> tuple[cuda_launch.Grid, cuda_launch.Grid]:
    """(grid, block): one block per tile."""
    along, across = (min(max(-(-size // TILE), 1), most)
                     for size, most in zip((N, D), cuda_launch.MAX_GRID, strict=True))
    return (along, across, 1), (cuda_launch.THREADS, 1, 1)


def native(a: np.ndarray) -> np.ndarray:
    """The same numbers in native byte order, the only one that GPUs have."""
    return a.astype(a.dtype.newbyteorder("="), copy=False)


def gather_batch(self: CupyBackend, samples: Array, index: Array | None, dtype: Any) -> Array:
    with self.scope():
        if isinstance(samples, self.xp.ndarray):
            there = None if index is None else self.asarray(index, LABELS)
            return self._gather(self.asarray(samples), there, np.dtype(dtype))
        rows = samples if index is None else samples[index]         # only these rows are copied
        return self._gather(self.asarray(native(rows)), None, np.dtype(dtype))


def gather(self: CupyBackend, samples: Array, index: Array | None, dtype: np.dtype[Any],
           out: Array | None = None, first: Array | None = None) -> Array:
    """gather_batch of contiguous samples and an index on the GPU, into `out` if it is given.

    With `first` (1,) int64, which needs an `out`, the batch begins at number first[0].
    """
    labels = samples.dtype == dtype == LABELS
    N = len(samples if index is None else index) if out is None else out.shape[-1]
    if not labels and (samples.dtype not in SOURCES or dtype not in TARGETS):
        if first is not None:
            at = first + self.xp.arange(N)
            index = at if index is None else index[at]
        return self.store(Backend.gather_batch(self, samples, index, dtype), out)
    D = math.prod(samples.shape[1:])
    if out is None:
        out = self.empty((*samples.shape[1:], N), dtype)
    types = "i64, i64" if labels else f"{SOURCES[samples.dtype]}, {TARGETS[dtype]}"
    VS, VT = (width if width in _widths(a.dtype) else 1
              for a, width in ((samples, self._width(D, samples)), (out, self._width(N, out))))
    self._launch("batches", f"gather_batch<{types}, {VS}, {VT}>", _tiles(D, N),
                 samples, self._zero if index is None else index,
                 self._zero if first is None else first, out, np.int64(D), np.int32(N),
                 np.int32(index is not None))
    return out


def assign(self: CupyBackend, out: Array, values: Sequence[float]) -> None:
    most = VALUES["at"].shape[0]
    with self.scope():
        for start in range(0, len(values), most):
            part = values[start:start + most]
            at = np.array([*part, *[0.0] * (most - len(part))], np.float64)     # ints, too
            self._launch("batches", "assign", cuda_launch.flat_launch(most),
                         out[start:] if start else out, at.view(VALUES)[0], np.int32(len(part)))


def advance(self: CupyBackend, steps: Array, position: Array | None = None, samples: int = 0
            ) -> None:
    self._launch("batches", "move_on", ((1, 1, 1), (1, 1, 1)), steps,
                 self._zero if position is None else position, np.int64(samples))


def feed(self: CupyBackend, samples: Array, dtype: Any, most: int) -> Feed:
    with self.scope():
        if isinstance(samples, self.xp.ndarray):
            return DeviceFeed(self, self.asarray(samples), dtype)
        free = (
            self.xp.cuda.Device(
                self.device).mem_info[0] + self.xp.get_default_memory_pool().free_bytes())
        if samples.nbytes <= SHARE * free:
            return DeviceFeed(self, self.asarray(native(samples)), dtype)
        return HostFeed(self, samples, dtype, most)


class DeviceFeed(Feed):
    """Samples on the GPU in the type they came in; a kernel gathers and converts each batch."""

    backend: CupyBackend

    in_graphs = True

    def arrange(self, order: Array) -> None:
        with self.backend.scope():
            if self.order is None:
                self.order = self.backend.empty(order.shape, LABELS)
            self.order[...] = self.backend.asarray(order, LABELS)   # captured steps read from it

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        samples, index = self.samples, None
        if self.order is None:
            samples = samples[start:stop]
        else:
            index = self.order[start:stop]
        return self.backend._gather(samples, index, np.dtype(self.dtype), out)

    def batch_at(self, position: Array, out: Array) -> None:
        self.backend._gather(self.samples, self.order, np.dtype(self.dtype), out, position)


class Slot:
    """Memory for the samples of one batch, pinned on the host and on the GPU, with the events of
    its last copy and its last read."""

    def __init__(self, backend: CupyBackend, shape: tuple[int, ...], dtype: np.dtype[Any]) -> None:
        cuda = backend.xp.cuda
        count = math.prod(shape)
        self.host = np.frombuffer(cuda.alloc_pinned_memory(count * dtype.itemsize), dtype,
                                  count).reshape(shape)
        self.there = backend.empty(shape, dtype)
        self.copied, self.read = (cuda.Event(disable_timing=True) for _ in range(2))
        self.read.record()              # earlier work may still use this memory


class HostFeed(Feed):
    """Samples that do not fit on the GPU: each batch is gathered on the host and copied while the
    GPU computes the batches before it.

    The slots are used in turn. The host fills a slot after the last copy from it has ended; the
    slot is copied after its previous batch has been read; and it is read after it has been copied.
    Only for the first of these three does the host wait.
    """

    backend: CupyBackend

    def __init__(self, backend: CupyBackend, samples: np.ndarray, dtype: Any, most: int) -> None:
        super().__init__(backend, samples, dtype)
        shape = (min(most, len(samples)), *samples.shape[1:])
        self.slots = [Slot(backend, shape, samples.dtype.newbyteorder("=")) for _ in range(SLOTS)]

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        copies, compute = self.backend._lane.copies, self.backend.xp.cuda.get_current_stream()
        slot = self.slots[0]
        self.slots = [*self.slots[1:], slot]
        slot.copied.synchronize()
        rows = slot.host[:stop - start]
        self._fill(rows, start, stop)
        copies.wait_event(slot.read)
        slot.there.data.copy_from_host_async(rows.ctypes.data, rows.nbytes, copies)
        compute.wait_event(copies.record(slot.copied))
        batch = self.backend._gather(slot.there[:stop - start], None, np.dtype(self.dtype), out)
        compute.record(slot.read)
        return batch

    def _fill(self, rows: np.ndarray, start: int, stop: int) -> None:
        samples = self.samples
        if self.order is None:
            rows[...] = samples[start:stop]
        elif samples.dtype == rows.dtype and samples.flags.c_contiguous:
            # mode="raise" would need another buffer.
            np.take(samples, self.order[start:stop], axis=0, out=rows, mode="clip")
        else:
            rows[...] = samples[self.order[start:stop]]
