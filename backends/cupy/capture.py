"""Steps captured as CUDA graphs: hundreds of launches are recorded once and then replayed with one
launch."""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


# Calls before the recorded one: they compile kernels and fill the memory pool.
WARM_UP = 2


class Memory:
    """A memory pool that exists as long as a graph and is used by nothing else, because the graph
    writes to the same addresses in every call."""

    def __init__(self, cuda: Any) -> None:
        self._cuda, self._taken = cuda, [0]         # bytes that the pool has taken from the GPU
        taken = self._taken

        def take(size: int) -> Any:
            memory = cuda.Memory(size)
            taken[0] += size
            return cuda.MemoryPointer(memory, 0)

        self._pool = cuda.MemoryPool(take)

    def used(self) -> Any:
        """A context in which all arrays of this thread come from the pool."""
        return self._cuda.using_allocator(self._pool.malloc)

    def given_back(self) -> int:
        """The bytes that the pool has given back to the GPU so far."""
        return int(self._taken[0] - self._pool.total_bytes())


class Captured:
    """A function whose launches are recorded in its third call; each later call is one launch.

    If the function cannot be recorded, `failure` says why, failed(failure) is called once, and the
    function runs without a graph. `agree` is that of Backend.capture. `fn`, `failed` and `agree`
    must not refer to this object: the memory of the graph is to be freed when the last reference is
    dropped.
    """

    def __init__(self, backend: CupyBackend, fn: Callable[[], Any],
                 failed: Callable[[str], None] | None = None,
                 agree: Callable[[str], str] | None = None) -> None:
        self.failure, self._failed, self._agree = "", failed, agree
        self._backend, self._fn, self._calls = backend, fn, 0
        self._graph: Any = None
        self._result: Any = None
        with backend.scope():
            # The pool may hold free memory of earlier steps that were not captured.
            backend.xp.get_default_memory_pool().free_all_blocks()
            self._memory: Memory | None = Memory(backend.xp.cuda)

    def __call__(self) -> Any:
        with self._backend.stream():
            if self._memory is not None and self._graph is None:
                with self._memory.used():
                    self._calls += 1
                    if self._calls <= WARM_UP:
                        return self._fn()
                    self._record(self._memory)
            if self.failure:
                return self._fn()
            self._graph.launch()
            return self._result

    def _record(self, memory: Memory) -> None:
        """Record the function. Recording computes nothing, so if it fails, the call can still run
        without a graph."""
        before, graph, result = memory.given_back(), None, None
        try:
            graph, result = self._backend._recorded(self._fn)
            if memory.given_back() != before:
                # If an array does not fit, CuPy's pool frees what is not in use and tries again.
                # Launches that were recorded before may write there.
                raise MemoryError("memory became so scarce while the step was recorded that "
                                  "arrays of the step were freed")
        except Exception as error:      # raised by CuPy, by CUDA, or by a layer
            self.failure = " ".join(f"{type(error).__name__}: {error}".split())
        if self._agree is not None:
            self.failure = self._agree(self.failure)
        if not self.failure:
            self._graph, self._result = graph, result
            return
        self._memory = None
        if self._failed is not None:
            self._failed(self.failure)


def capture(self: CupyBackend, fn: Callable[[], Any], failed: Callable[[str], None] | None = None,
            agree: Callable[[str], str] | None = None) -> Callable[[], Any]:
    return Captured(self, fn, failed, agree)


def recorded(self: CupyBackend, fn: Callable[[], Any]) -> tuple[Any, Any]:
    """The graph of what fn() launches, ready to be launched, and what fn() returned.

    CuPy raises an error if fn waits for the GPU, or copies an array from or to the host.
    """
    stream = self._lane.compute
    stream.begin_capture()
    try:
        result = fn()
    except BaseException:
        with suppress(Exception):       # its error, an invalid capture, would hide the first
            stream.end_capture()
        raise
    graph = stream.end_capture()
    graph.upload()
    return graph, result
