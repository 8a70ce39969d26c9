"""What a backend reaches now: multiply-adds in a matrix product, and bytes in a copy."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Any

from xpnet.backends import Backend

PRODUCT = 1024          # rows and columns of the matrices: their product is not bound by memory
COPY = 1 << 26          # bytes of the array that is copied: larger than caches
FEWEST = 3              # calls that are timed, however long they take


def product_speed(backend: Backend, dtype: Any, seconds: float) -> float:
    """Floating-point operations per second of the largest part of a network's work, a product of
    two matrices of 1024 x 1024 (2 x 1024^3 operations); the best of the calls in some seconds."""
    with backend.scope():
        a, b = (_ones(backend, (PRODUCT, PRODUCT), dtype) for _ in range(2))
    return 2 * PRODUCT**3 / best_time(backend, lambda: backend.gemm(a, b), seconds)


def copy_speed(backend: Backend, seconds: float) -> float:
    """Bytes per second, read and written, of a copy of 64 MiB in the memory of the backend, by one
    thread on a CPU; the best of the calls in some seconds."""
    with backend.scope():
        a, b = (_ones(backend, (COPY // 4,), "float32") for _ in range(2))

    def copy() -> None:
        b[...] = a

    return 2 * COPY / best_time(backend, copy, seconds)


def best_time(backend: Backend, call: Callable[[], object], seconds: float) -> float:
    """The shortest time of a call, in seconds: after one that is not counted, it is called until
    the time is over, at least `FEWEST` times."""
    times: list[float] = []
    with backend.scope():
        timed(backend, call)
        end = time.perf_counter() + seconds
        while len(times) < FEWEST or time.perf_counter() < end:
            times.append(timed(backend, call))
    return min(times)


def timed(backend: Backend, call: Callable[[], object]) -> float:
    """The seconds of one call. On a GPU, from the end of earlier work to the end of its own."""
    backend.synchronize()
    start = time.perf_counter()
    call()
    backend.synchronize()
    return time.perf_counter() - start


def _ones(backend: Backend, shape: tuple[int, ...], dtype: Any) -> Any:
    a = backend.empty(shape, dtype)
    a.fill(1)
    return a
