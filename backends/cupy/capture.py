"""Steps captured as CUDA graphs: hundreds of launches are recorded once and then replayed with one
launch."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


# Calls before the recorded one: they compile kernels and fill the memory pool.
WARM_UP = 2


class Captured:
    """A function whose launches are recorded in its third call; each later call is one launch.

    Its arrays come from a memory pool that exists as long as the graph and is used by nothing else,
    because the graph writes to the same addresses in every call. If the function cannot be
    recorded, `failure` says why, failed(failure) is called once, and the function runs without a
    graph.
    """

    def __init__(self, backend: CupyBackend, fn: Callable[[], Any],
                 failed: Callable[[str], None] | None = None) -> None:
        self.failure, self._failed = "", failed
        self._backend, self._fn, self._calls = backend, fn, 0
        self._graph: Any = None
        self._result: Any = None
        with backend.scope():
            # The pool may hold free memory of earlier steps that were not captured.
            backend.xp.get_default_memory_pool().free_all_blocks()
            self._pool = backend.xp.cuda.MemoryPool(partial(_memory, backend))

    def __call__(self) -> Any:
        with self._backend.stream():
            if self._graph is None and not self.failure:
                with self._backend.xp.cuda.using_allocator(self._pool.malloc):
                    self._calls += 1
                    if self._calls <= WARM_UP:
                        return self._fn()
                    self._record()
            if self.failure:
                return self._fn()
            self._graph.launch()
            return self._result

    def _record(self) -> None:
        """Record the function. Recording computes nothing, so if it fails, the call can still run
        without a graph."""
        try:
            self._graph, self._result = self._backend._recorded(self._fn)
        except Exception as error:      # raised by CuPy, by CUDA, or by a layer
            self.failure = " ".join(f"{type(error).__name__}: {error}".split())
            self._pool = None
            if self._failed is not None:
                self._failed(self.failure)


def _memory(backend: CupyBackend, size: int) -> Any:
    """Memory of the GPU for a pool. If there is none during a recording, the recording ends: CuPy
    would free the unused blocks of the pool and try again, but the graph writes to them."""
    cuda = backend.xp.cuda
    try:
        return cuda.MemoryPointer(cuda.Memory(size), 0)
    except cuda.runtime.CUDARuntimeError as error:
        if not backend._is_capturing():
            raise
        raise MemoryError("too little memory to record the step") from error


def capture(self: CupyBackend, fn: Callable[[], Any], failed: Callable[[str], None] | None = None
            ) -> Callable[[], Any]:
    return Captured(self, fn, failed)


def recorded(self: CupyBackend, fn: Callable[[], Any]) -> tuple[Any, Any]:
    """The graph of what fn() launches, ready to be launched, and what fn() returned."""
    stream = self._lane.compute
    stream.begin_capture()
    try:
        with _no_transfers(self):
            result = fn()
    except BaseException:
        with suppress(Exception):       # its error, an invalid capture, would hide the first
            stream.end_capture()
        raise
    graph = stream.end_capture()
    graph.upload()
    return graph, result


@contextmanager
def _no_transfers(self: CupyBackend) -> Iterator[None]:
    """Raise RuntimeError inside if this thread copies an array from the host.

    CuPy would record a copy from pinned memory that it gives to another array before the graph is
    launched.
    """
    pool, thread = self.xp.get_default_pinned_memory_pool(), threading.get_ident()

    def allocate(size: int) -> Any:
        if threading.get_ident() == thread:
            raise RuntimeError("an array was brought from the host while the step was recorded")
        return pool.malloc(size)

    self.xp.cuda.set_pinned_memory_allocator(allocate)
    try:
        yield
    finally:
        self.xp.cuda.set_pinned_memory_allocator(pool.malloc)
