"""NCCL through CuPy: exchanges between processes that have a GPU each, as work of a stream."""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.errors import BackendError

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


CAPTURES = 20906        # NCCL 2.9.6: the first version whose exchanges can be part of a CUDA graph


def import_nccl() -> Any:
    """CuPy's module. Raises BackendError if CuPy finds no library of NCCL."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)        # the error below says the same
        from cupy.cuda import nccl
    if not nccl.available:
        raise BackendError("cupy: CuPy is installed, but it finds no NCCL",
                           "Install it: pip install nvidia-nccl-cu13 (or nvidia-nccl-cu12)")
    return nccl


class Nccl:
    """One rank of an NCCL communicator. All ranks call the same methods in the same order, with
    contiguous arrays of the same shape and dtype. The methods launch work on the current stream,
    and return before it is done.

    Args:
        backend: the GPU of this rank.
        size: the number of ranks.
        unique_id: what get_unique_id() returned on one of the ranks.
        rank: the number of this rank.
    """

    def __init__(self, backend: CupyBackend, size: int, unique_id: bytes, rank: int) -> None:
        self._nccl, self._backend, self._size = import_nccl(), backend, size
        self._types = {np.dtype(np.float32): self._nccl.NCCL_FLOAT32,
                       np.dtype(np.float64): self._nccl.NCCL_FLOAT64,
                       np.dtype(np.int64): self._nccl.NCCL_INT64}
        with backend.scope():
            self._ranks = self._nccl.NcclCommunicator(size, unique_id, rank)

    @property
    def captures(self) -> bool:
        """Whether a captured step can contain an exchange."""
        return bool(self._nccl.get_version() >= CAPTURES)

    def exchange(self, pieces: Array) -> Array:
        """(size, n) -> (size, n): row k goes to rank k; returns the rows for this rank."""
        out, stream = self._backend.empty(pieces.shape, pieces.dtype), self._stream()
        bytes_, kind = pieces.nbytes // self._size, self._nccl.NCCL_UINT8
        self._nccl.groupStart()         # NCCL makes one launch of all of them
        try:
            for peer in range(self._size):
                self._ranks.send(pieces.data.ptr + peer * bytes_, bytes_, kind, peer, stream)
                self._ranks.recv(out.data.ptr + peer * bytes_, bytes_, kind, peer, stream)
        finally:
            self._nccl.groupEnd()
        return out

    def gather(self, a: Array) -> Array:
        """(n,) -> (size, n): the arrays of all ranks in their order."""
        out = self._backend.empty((self._size, *a.shape), a.dtype)
        self._ranks.allGather(a.data.ptr, out.data.ptr, a.nbytes, self._nccl.NCCL_UINT8,
                              self._stream())
        return out

    def sum(self, a: Array) -> None:
        """Write the sum over the ranks into the array of every rank: float32, float64 or int64."""
        self._ranks.allReduce(a.data.ptr, a.data.ptr, a.size, self._types[a.dtype],
                              self._nccl.NCCL_SUM, self._stream())

    def abort(self) -> None:
        """End the exchanges that wait for other ranks; no exchange is possible afterwards."""
        self._ranks.abort()

    def _stream(self) -> int:
        return int(self._backend.xp.cuda.get_current_stream(self._backend.device).ptr)


class StreamSender:
    """Exchanges on a stream of their own, one after another, while the current stream computes.

    `send` and `wait` launch work and return. They can be called while a step is captured: then the
    stream belongs to the capture until `wait`.
    """

    def __init__(self, backend: CupyBackend) -> None:
        self._backend, cuda = backend, backend.xp.cuda
        with backend.scope():
            self._stream = cuda.Stream(non_blocking=True)
            self._event = cuda.Event(disable_timing=True)

    def send(self, work: Callable[[], object]) -> None:
        """Launch work() after what the current stream has launched so far."""
        self._stream.wait_event(self._current().record(self._event))
        with self._stream:
            work()

    def wait(self) -> None:
        """Let the current stream wait for all that was sent, before its next launch."""
        self._current().wait_event(self._stream.record(self._event))

    def _current(self) -> Any:
        return self._backend.xp.cuda.get_current_stream(self._backend.device)
