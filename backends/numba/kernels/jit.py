"""How kernels are compiled and run in threads: `@kernel` for entry points, `@inline` for the rest.

A kernel is compiled when it is called with new argument types. That takes about a second, so the
compiled code is kept in the user's cache folder (see kept.py).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numba
from numba.core import config

from xpnet.backends.numba.kernels.kept import KernelCache
from xpnet.backends.numba.kernels.layer import TURN, allowed_threads, linking, use_threads

# No fast math. It would let the compiler choose the order of sums and which products to fuse with
# them, and its choice depends on the surrounding code: a process that compiles a kernel and one
# that loads it would get different bits. Where order or fusing matters, it is explicit: in sums.py,
# micro.py and exponential.py.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


class Kernel:
    """kernel(threads, *args): the compiled function; its `prange` loops are shared among
    threads."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.compiled = numba.njit(parallel=True, **OPTIONS)(function)
        self.compiled._cache = KernelCache(function)  # as cache=True does, but with KernelCache
        self.compiled.compile = _linked(self.compiled.compile)
        self.__doc__ = function.__doc__

    def __call__(self, threads: int, *args: Any) -> Any:
        with TURN:
            threads = allowed_threads(threads)
            before = use_threads(threads)
            try:
                return self.compiled(*args)
            finally:
                if before != threads:
                    use_threads(before)


def _linked(method: Callable[..., Any]) -> Callable[..., Any]:
    """A dispatcher's method that compiles or loads code, linked to xpnet_parallel_for."""

    def linked(signature: Any) -> Any:
        with linking():
            return method(signature)

    return linked


def kernel(function: Callable[..., Any]) -> Kernel:
    """Decorator: an entry point. The division of its loops must depend on shapes only, never on the
    number of threads."""
    return Kernel(function)


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: a function that kernels call."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return compiled


def most_threads() -> int:
    """The largest number of threads that a kernel can use."""
    return int(config.NUMBA_NUM_THREADS)
