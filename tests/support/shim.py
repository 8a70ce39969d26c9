"""Compiles the CUDA kernels with g++ and runs them on the CPU; see cuda/cuda_shim.h. Replaces
cupy.RawModule."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np

HERE = Path(__file__).parent / "cuda"
ONE = threading.Lock()              # a kernel at a time: the shim has static variables
PLAIN = ("-O1",)
UNOPTIMIZED = ("-O0",)              # for what is compiled to run once
SANITIZERS = ("-fsanitize=address,undefined", "-fno-sanitize-recover=all")
SANITIZED = ("-g1", *SANITIZERS)        # and -O0 or -O1
FLAGS = ("-std=c++17", "-shared", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off",
         "-Wall", "-Wextra", "-Wno-unused-function",
         "-Wno-unknown-pragmas", "-Werror")


def why_not() -> str:
    """Why the shim cannot be used here; empty if it can."""
    if shutil.which("g++") is None:
        return "the CUDA shim needs g++, which is not installed"
    probe = subprocess.run(["g++", "-std=c++17", "-x", "c++", *SANITIZERS, "-shared", "-fPIC", "-o",
                            os.devnull, "-"],
                           input="#include <ucontext.h>\n_Float16 f(float x) { return (_Float16)x; "
                                 "}\n",
                           capture_output=True, text=True)
    if probe.returncode != 0:
        return (f"the CUDA shim needs a g++ with _Float16 and sanitizers (g++ 12 or newer): "
                f"{probe.stderr.strip()[-300:]}")
    return ""


def build(code: str, names: Sequence[str], folder: Path, flags: Sequence[str] = PLAIN) -> Path:
    """The shared library of these kernels, compiled into `folder` unless it is there already.

    Its name is a hash of all sources and flags. A library with sanitizers can be loaded only into a
    process that was started with LD_PRELOAD of libasan.
    """
    import fcntl  # not on Windows, where the shim cannot be used
    files = ("cuda_shim.h", "ptx_shim.h", "cuda_fp16.h", "harness.cpp")
    shim = "".join((HERE / name).read_text(encoding="utf-8") for name in files)
    digest = hashlib.sha256("\0".join((code, shim, *names, *FLAGS, *flags)).encode()).hexdigest()[
        :16]
    library = folder / f"{digest}.so"
    if library.exists():
        return library
    with open(folder / f"{digest}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)            # another worker may be compiling the same
        if library.exists():
            return library
        environment = {name: value for name, value in os.environ.items() if name != "LD_PRELOAD"}
        with tempfile.TemporaryDirectory(dir=folder) as place:
            Path(place, "kernels.cu").write_text(code, encoding="utf-8")
            Path(place, "kernels.inc").write_text(
                "".join(f"KERNEL({k}, {name})\n" for k, name in enumerate(names)), encoding="utf-8")
            subprocess.run(["g++", *FLAGS, *flags, f"-I{HERE}", f"-I{place}", "-o",
                            f"{place}/kernels.so",
                            str(HERE / "harness.cpp")], check=True, env=environment)
            Path(place, "kernels.so").replace(library)
    return library


class Library:
    """Kernels that run on NumPy arrays: `library(name, grid, block, args)`; it records what was
    launched."""

    def __init__(self, code: str, names: Sequence[str], folder: Path,
                 flags: Sequence[str] = PLAIN) -> None:
        self.numbers = {name: k for k, name in enumerate(names)}
        self.launched: set[str] = set()
        self._library = ctypes.CDLL(str(build(code, names, folder, flags)))

    def __call__(self, name: str, grid: Sequence[int], block: Sequence[int], args: Sequence[Any],
                 shared: int = 0) -> None:
        values = [np.uint64(a.ctypes.data) if _is_pointer(a) else np.asarray(a) for a in args]
        # kept alive until the launch has ended
        values = [np.ascontiguousarray(v) for v in values]
        pointers = (ctypes.c_void_p * len(values))(*(v.ctypes.data for v in values))
        types = "".join(f"{'P' if _is_pointer(a) else ''}{_type(a)} " for a in args)
        expected = ctypes.c_char_p()
        with ONE:
            status = self._library.launch(self.numbers[name], (ctypes.c_uint * 3)(*grid),
                                          (ctypes.c_uint * 3)(*block), ctypes.c_uint(shared),
                                          pointers, types.encode(), ctypes.byref(expected))
        if status == 1:
            raise TypeError(f"{name}: expected the arguments {(expected.value or b'').decode()}. "
                            f"Received: {types}")
        if status != 0:
            raise RuntimeError(
                f"{name}: threads of a block wait at a barrier that others never reach")
        self.launched.add(name)

    def note_accesses(self, yes: bool) -> None:
        """Note the accesses to shared memory of the next launches, or no longer."""
        self._library.note_accesses(int(yes))

    def accesses(self, thread: int) -> np.ndarray:
        """The noted accesses of a thread, in its order: (number, 2), where each begins, in bytes,
        and its size."""
        pairs = ctypes.POINTER(ctypes.c_uint)()
        count = self._library.accesses(thread, ctypes.byref(pairs))
        return np.ctypeslib.as_array(pairs, (count, 2)).copy() if count else np.empty((0, 2), int)

    def run_backwards(self, yes: bool) -> None:
        """Run blocks and threads in the opposite order. No kernel's result may depend on it."""
        self._library.run_backwards(int(yes))


def _is_pointer(a: Any) -> bool:
    return isinstance(a, np.ndarray) and a.dtype.kind != "V"        # a struct is passed by value


def _type(a: Any) -> str:
    dtype = np.asarray(a).dtype
    return f"{dtype.kind}{dtype.itemsize}"
