"""Large arrays on their way to an NVIDIA GPU: through two pieces of pinned memory.

CuPy pins as much memory as an array has, and keeps it for good. The pieces have a fixed size: the
host fills one while the other is copied.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


PIECE = 16 << 20        # bytes; an array that is not larger goes through CuPy's own pinned memory


class Piece:
    """Pinned memory, and the event of its last copy."""

    def __init__(self, cuda: Any, size: int) -> None:
        self.memory = np.frombuffer(cuda.alloc_pinned_memory(size), np.uint8, size)
        self.copied = cuda.Event(disable_timing=True)


def is_large(a: Any) -> bool:
    """Whether `upload` is for this array: one of the host, of numbers, larger than a piece."""
    return isinstance(a, np.ndarray) and a.nbytes > PIECE and a.dtype.kind in "biufc"


def upload(self: CupyBackend, a: np.ndarray) -> Array:
    """A copy of a large array of the host; the last pieces may still be on their way."""
    lane, cuda = self._lane, self.xp.cuda
    a = a.astype(a.dtype.newbyteorder("="), copy=False)
    if a.flags.c_contiguous or a[0].nbytes > PIECE:
        a, shape = np.ascontiguousarray(a).reshape(-1), a.shape
    else:
        shape = a.shape                         # row by row, without a copy of the whole
    out = self.empty(a.shape, a.dtype)
    rows = PIECE // (a.nbytes // len(a))
    stream = cuda.get_current_stream(self.device)
    if not lane.pieces:
        lane.pieces = [Piece(cuda, PIECE) for _ in range(2)]
    for start in range(0, len(a), rows):
        part = a[start:start + rows]
        piece = lane.pieces[0]
        lane.pieces = [*lane.pieces[1:], piece]
        piece.copied.synchronize()
        there = piece.memory[:part.nbytes].view(a.dtype).reshape(part.shape)
        there[...] = part
        out[start:start + rows].data.copy_from_host_async(there.ctypes.data, there.nbytes, stream)
        stream.record(piece.copied)
    return out.reshape(shape)
