"""Conversion of arrays for kernels: C-contiguous, aligned and writeable.

Numba compiles a kernel again for every other kind of array: another number of axes, strides, or
read-only memory. So arrays are converted before the call.
"""

from __future__ import annotations

from typing import Any

import numpy as np

FLOAT32 = np.dtype(np.float32)


def float32(*arrays: np.ndarray) -> bool:
    return all(a.dtype == FLOAT32 for a in arrays)


def writable(*arrays: np.ndarray) -> bool:
    """Whether kernels can write directly into these arrays."""
    return all(a.dtype == FLOAT32 and a.flags.carray for a in arrays)


def ready(a: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
    """`a` in C order as an array of `shape` that a kernel accepts; a copy only if it is not
    contiguous.

    A read-only array becomes a view that claims to be writeable: for arguments that the kernel does
    not write.
    """
    flags = a.flags
    if not flags.carray:
        if not (flags.c_contiguous and flags.aligned):
            a = np.array(a, order="C")
        elif not flags.writeable:
            a = np.asarray(_Writeable(a))
    return a if a.shape == shape else a.reshape(shape)


class _Writeable:
    """The memory of a read-only array, without that flag."""

    __slots__ = ("__array_interface__", "_owner")

    def __init__(self, a: np.ndarray) -> None:
        self.__array_interface__: dict[str, Any] = a.__array_interface__
        self.__array_interface__["data"] = (self.__array_interface__["data"][0], False)
        self._owner = a
