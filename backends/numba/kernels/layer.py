"""Numba's threading layer, which shares the pieces of a kernel among threads.

Numba's OpenMP layer ends a forked process that calls it, even for one thread, because GNU's OpenMP
would hang there. So compiled kernels do not call the layer but `xpnet_parallel_for`: with one
thread it runs all pieces in the caller, with more it goes on to the layer. A forked process gives
each kernel one thread. The machine code of the pieces is the same, and so are all bits of the
results.
"""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import sys
from collections.abc import Iterator
from threading import RLock
from typing import Any

import numba
from llvmlite import binding
from numba.np.ufunc import parallel

from xpnet.backends.errors import BackendError

# One parallel kernel at a time in a process: Numba's workqueue layer demands it, and two teams of
# threads on the same cores would fight for them.
TURN = RLock()

SYMBOL = "numba_parallel_for"       # the name under which compiled code calls the layer
SPINS = "5000"                      # how often a thread of GNU's OpenMP looks before it sleeps

# A piece is a gufunc's inner loop, which makes `dimensions[0]` steps by itself.
_PARALLEL_FOR = """
define void @xpnet_parallel_for(i8* %loop, i8* %arrays, i64* %dimensions, i8* %steps, i8* %data,
                                i64 %axes, i64 %count, i64 %threads) {{
  %alone = icmp eq i64 %threads, 1
  br i1 %alone, label %serial, label %parallel
serial:
  %inner = bitcast i8* %loop to void (i8*, i64*, i8*, i8*)*
  call void %inner(i8* %arrays, i64* %dimensions, i8* %steps, i8* %data)
  ret void
parallel:
  %layer = inttoptr i64 {layer} to void (i8*, i8*, i64*, i8*, i8*, i64, i64, i64)*
  call void %layer(i8* %loop, i8* %arrays, i64* %dimensions, i8* %steps, i8* %data,
                   i64 %axes, i64 %count, i64 %threads)
  ret void
}}
"""


def _runs() -> bool:
    """Whether any code has started the layer, in this process or in one that it was forked from."""
    try:
        numba.threading_layer()
    except ValueError:
        return False
    return True


class _Layer:
    """The state of this process."""

    def __init__(self) -> None:
        self.started = False
        # From a process in which the layer ran. If other code has started it before this import,
        # nothing tells in which process; in a child of multiprocessing it may have been the parent.
        self.forked = _runs() and multiprocessing.parent_process() is not None
        self.address = 0                        # of the layer's own function
        self.ours: int | None = None            # of xpnet_parallel_for
        self._code: Any = None                  # keeps it in memory

    def start(self) -> None:
        """Start the threads, unless other code of this process has done so."""
        with _short_spins():
            numba.get_num_threads()
        address = binding.address_of_symbol(SYMBOL)
        if address is not None:         # with another name, kernels run, but not after a fork
            self.address, self.ours = address, self._compile(address)
        self.started = True

    def _compile(self, layer: int) -> int:
        """The address of xpnet_parallel_for in front of a layer."""
        binding.initialize_native_target()
        binding.initialize_native_asmprinter()
        module = binding.parse_assembly(_PARALLEL_FOR.format(layer=layer))
        module.verify()
        machine = binding.Target.from_default_triple().create_target_machine()
        self._code = binding.create_mcjit_compiler(module, machine)
        self._code.finalize_object()
        return int(self._code.get_function_address("xpnet_parallel_for"))


_LAYER = _Layer()


def allowed_threads(wanted: int) -> int:
    """How many threads a kernel may get: 1 in a process forked from one whose layer ran.

    The first call starts the layer. Only for the holder of TURN.
    """
    if not _LAYER.started:
        _LAYER.start()
    if not _LAYER.forked:
        return wanted
    if _LAYER.ours is None:
        raise BackendError(
            "numba: this process was forked from one that had run kernels, and this version of "
            f"Numba ({numba.__version__}) cannot run any after that",
            'Start processes with the method "spawn": multiprocessing.get_context("spawn")')
    return 1


def use_threads(count: int) -> int:
    """Give this number of threads to the kernels that this Python thread calls.

    Returns the number before.

    Numba's functions for it take two locks at each call, one of them shared between processes:
    longer than a small kernel. Behind them are two of the threading layer's, which are there once
    it has started.
    """
    try:
        before, set_count = parallel._get_num_threads(), parallel._set_num_threads
    except AttributeError:
        before, set_count = numba.get_num_threads(), numba.set_num_threads
    if before != count:
        set_count(count)
    return int(before)


@contextlib.contextmanager
def linking() -> Iterator[None]:
    """What is compiled or loaded inside calls xpnet_parallel_for; other code keeps the layer."""
    if _LAYER.ours is not None:
        binding.add_symbol(SYMBOL, _LAYER.ours)
    try:
        yield
    finally:
        if _LAYER.ours is not None:
            binding.add_symbol(SYMBOL, _LAYER.address)


@contextlib.contextmanager
def _short_spins() -> Iterator[None]:
    """A waiting thread of GNU's OpenMP goes to sleep earlier, unless the user has set it.

    By default it looks 300,000 times whether there is work. On a machine that does other work too,
    these loops take the cores away from the threads that are waited for. The library reads the
    variable when it is loaded. Afterwards the variable is removed, so that no child inherits it.
    """
    if sys.platform != "linux" or {"GOMP_SPINCOUNT", "OMP_WAIT_POLICY"} & os.environ.keys():
        yield
        return
    os.environ["GOMP_SPINCOUNT"] = SPINS
    try:
        yield
    finally:
        os.environ.pop("GOMP_SPINCOUNT", None)


def _after_fork() -> None:
    """In the child, which has none of the layer's threads."""
    _LAYER.forked = _LAYER.forked or _runs()
    TURN.release()


# A fork waits for the kernel that another thread compiles or runs: the child would find its locks
# taken for ever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=TURN.acquire, after_in_parent=TURN.release,
                        after_in_child=_after_fork)
