"""What the parts of the Numba backend share: into how many pieces work is cut, and how many threads a kernel gets."""

from __future__ import annotations

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba_kernels.jit import most_threads
from xpnet.backends.numpy_backend import NumpyBackend

FLOAT32 = np.dtype(np.float32)
TASKS = 16              # pieces of a call: enough for many cores, and always the same number, whatever their count
SERIAL = 1 << 15        # elements; below, threads cost more than they do


def writable(*arrays: Array) -> bool:
    """True where kernels can write straight into these arrays."""
    return all(a.dtype == FLOAT32 and a.flags.carray for a in arrays)


class NumbaBase(NumpyBackend):
    """Threads for kernels; all that has no kernel is NumpyBackend's."""

    def __init__(self, note: str = "", *, winograd: int = 2) -> None:
        super().__init__(note, winograd=winograd)

    @property
    def size(self) -> int:
        """The most threads that a kernel gets."""
        return min(self.threads.size, most_threads())

    def crew(self, work: int) -> int:
        """How many threads to give a kernel that touches so many elements."""
        return 1 if work < SERIAL else self.size
