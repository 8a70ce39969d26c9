"""Numba's threading layer, which shares the pieces of a kernel among threads.

Numba's OpenMP layer ends a forked process that calls it, even for one thread, because GNU's OpenMP
would hang there. So compiled kernels do not call the layer but `xpnet_parallel_for`: with one
thread it runs all pieces in the caller, with more it calls the layer. In a forked process each
kernel uses one thread. The machine code of the pieces is the same, and so are all bits of the
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

# One parallel kernel at a time in a process: Numba's workqueue layer requires it, and two teams of
# threads would compete for the same cores.
TURN = RLock()

SYMBOL = "numba_parallel_for"       # the name under which compiled code calls the layer
SPINS = "5000"                      # checks for work by a thread of GNU's OpenMP before it sleeps

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
    """The state of the layer in this process."""

    def __init__(self) -> None:
        self.started = False
        # Whether the layer ran in the process that this one was forked from. If other code started
        # it before this import, it is not known in which process; in a child of multiprocessing it
        # may have been the parent.
        self.forked = _runs() and multiprocessing.parent_process() is not None
        self.address = 0                        # of the layer's own function
        self.ours: int | None = None            # of xpnet_parallel_for
        self._code: Any = None                  # keeps the code in memory

    def start(self) -> None:
        """Start the threads, unless other code of this process has done so."""
        with _short_spins():
            numba.get_num_threads()
        address = binding.address_of_symbol(SYMBOL)
        if address is not None:         # without the symbol, kernels cannot run after a fork
            self.address, self.ours = address, self._compile(address)
        self.started = True

    def _compile(self, layer: int) -> int:
        """The address of a compiled xpnet_parallel_for that calls the layer."""
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
    """How many threads a kernel may use: 1 in a process forked from one whose layer ran.

    The first call starts the layer. The caller must hold TURN.
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
    """Set the number of threads for the kernels that this Python thread calls. Returns the previous
    number.

    Numba's functions for it take two locks at each call, one of them shared between processes,
    which takes longer than a small kernel. They call two functions of the threading layer, which
    exist after it was started and are called here.
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
    """Code compiled or loaded inside calls xpnet_parallel_for; other code calls the layer."""
    if _LAYER.ours is not None:
        binding.add_symbol(SYMBOL, _LAYER.ours)
    try:
        yield
    finally:
        if _LAYER.ours is not None:
            binding.add_symbol(SYMBOL, _LAYER.address)


@contextlib.contextmanager
def _short_spins() -> Iterator[None]:
    """Let a waiting thread of GNU's OpenMP sleep earlier, unless the user has set this.

    By default it checks 300,000 times whether there is work. On a machine that also does other
    work, these loops take the cores away from the threads that it waits for. The library reads the
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


# A fork waits until other threads have compiled or run their kernels: otherwise their locks would
# be held in the child forever.
if hasattr(os, "register_at_fork"):
    os.register_at_fork(before=TURN.acquire, after_in_parent=TURN.release,
                        after_in_child=_after_fork)
