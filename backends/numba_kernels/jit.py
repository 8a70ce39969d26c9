"""How kernels are compiled, kept on disk, and run in threads: `@kernel` for entry points, `@inline` for what they call.

A kernel is compiled when it is called with types that it has not seen. That takes about a second, so what comes out
is kept in the user's cache folder, under a stamp of the sources of all kernels: Numba's own stamp covers one file only,
and a kernel would survive a change in a function that it calls.
"""

from __future__ import annotations

import contextlib
import hashlib
import sys
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import llvmlite
import numba
from numba.core import config
from numba.core.caching import CompileResultCacheImpl, FunctionCache, _CacheLocator

from xpnet.backends.numba_kernels.layer import TURN, allowed_threads, linking, use_threads
from xpnet.backends.user_cache import cache_folder

# No fast math. It would let the compiler choose the order of sums and which products to fuse with them, and the compiler
# chooses by what surrounds the code: a process that compiles a kernel and one that loads it would get other bits. Where order
# or fusing matters, it is written down, in sums.py, micro.py and exponential.py.
OPTIONS: dict[str, Any] = {"nogil": True, "error_model": "numpy"}


class Kernel:
    """kernel(threads, *args): the compiled function, its `prange` loops shared among threads."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self.compiled = numba.njit(parallel=True, **OPTIONS)(function)
        self.compiled._cache = _Cache(function)                         # what cache=True does, with our folder and stamp
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
    """A dispatcher's method that compiles or loads, with what it links to being ours."""

    def linked(signature: Any) -> Any:
        with linking():
            return method(signature)

    return linked


def kernel(function: Callable[..., Any]) -> Kernel:
    """Decorator: an entry point. How its loops are cut must follow from shapes alone, never from the number of threads."""
    return Kernel(function)


def inline(function: Callable[..., Any]) -> Callable[..., Any]:
    """Decorator: a function that kernels call."""
    compiled: Callable[..., Any] = numba.njit(**OPTIONS)(function)
    return compiled


def most_threads() -> int:
    """The largest number of threads that a kernel may be given."""
    return int(config.NUMBA_NUM_THREADS)


@cache
def _sources() -> str:
    """A stamp of everything that compiled code follows from and Numba does not look at by itself."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__}".encode())
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()


class _Folder(_CacheLocator):
    """Where compiled kernels lie: NUMBA_CACHE_DIR, or else this user's cache folder."""

    def __init__(self, function: Callable[..., Any]) -> None:
        self._function = function
        self._py_file = function.__code__.co_filename                   # Numba names it where it has something to say

    @classmethod
    def from_function(cls, py_func: Callable[..., Any], py_file: str) -> _Folder:
        return cls(py_func)

    def get_cache_path(self) -> str:
        return str(Path(config.CACHE_DIR or cache_folder()) / "kernels")

    def get_source_stamp(self) -> str:
        return _sources()

    def get_disambiguator(self) -> str:
        return str(self._function.__code__.co_firstlineno)


class _Files(CompileResultCacheImpl):
    _locator_classes = [_Folder]


class _Cache(FunctionCache):
    """Compiled kernels on disk. A folder that cannot be read or written, or a full disk, only means compiling again."""

    _impl_class = _Files
    _announced = False

    def load_overload(self, sig: Any, target_context: Any) -> Any:
        found = None
        try:
            found = super().load_overload(sig, target_context)
        except Exception:                                               # a damaged file can raise anything
            with contextlib.suppress(OSError):
                self.flush()                                            # an empty index, which the next save fills
        if found is None and not _Cache._announced:
            _Cache._announced = True
            print("xpnet: compiling CPU kernels for this machine, 10 to 20 seconds the first time; they are kept in "
                  f"{self.cache_path}", file=sys.stderr, flush=True)
        return found

    def save_overload(self, sig: Any, data: Any) -> None:
        with contextlib.suppress(OSError):
            super().save_overload(sig, data)
