"""Where the samples of a data set come from: an array, or an object of the user. Only read."""

from __future__ import annotations

from typing import Any, Protocol

import numpy as np

from xpnet.checks import expect_no_mask, real_array, wrong
from xpnet.dlpack import from_dlpack

Array = Any


class Source(Protocol):
    """Samples (N, ...). `read` returns those at some positions, in this order."""

    shape: tuple[int, ...]          # of one sample
    dtype: np.dtype

    def __len__(self) -> int: ...

    def read(self, where: np.ndarray | slice) -> Array: ...


class ArraySource:
    """An array (N, ...), perhaps a memory map or on a GPU. A slice of it is a view, read-only on
    the host."""

    def __init__(self, array: Array) -> None:
        if isinstance(array, np.ndarray):
            array = array.view()
            array.flags.writeable = False
        self.array, self.shape, self.dtype = array, tuple(array.shape[1:]), np.dtype(array.dtype)

    def __len__(self) -> int:
        return len(self.array)

    def read(self, where: np.ndarray | slice) -> Array:
        return self.array[where]


class ObjectSource:
    """An object of the user with `__len__` and `__getitem__(indices)`.

    It gets a NumPy array of int64 that increases, so that files can be read in order and HDF5 and
    Zarr arrays work as they are: they refuse other orders. `read` puts the samples into the order
    that was asked for. The first sample is read once for shape and dtype.
    """

    def __init__(self, samples: Any, who: str) -> None:
        self.samples, self.who = samples, who
        count = len(samples)
        if count < 1:
            raise ValueError(f"{who}: expected at least one sample. "
                             f"Received: {type(samples).__name__} of length {count}.")
        first = self._get(np.zeros(1, np.int64), None)
        self._count, self.shape, self.dtype = count, first.shape[1:], first.dtype

    def __len__(self) -> int:
        return self._count

    def read(self, where: np.ndarray | slice) -> np.ndarray:
        if isinstance(where, slice):
            where = np.arange(self._count)[where]
        if len(where) == 0:
            return np.empty((0, *self.shape), self.dtype)
        if (np.diff(where) > 0).all():
            return self._get(where, self.shape)
        increasing, back = np.unique(where, return_inverse=True)
        return self._get(increasing, self.shape)[back]

    def _get(self, where: np.ndarray, shape: tuple[int, ...] | None) -> np.ndarray:
        batch = real_array(self.samples[where], f"{self.who}: samples[indices]")
        wanted = (len(where), *(batch.shape[1:] if shape is None else shape))
        if batch.shape != wanted:
            expected = "(indices, ...)" if batch.ndim == 0 else str(wanted)
            raise ValueError(f"{self.who}: expected samples[indices] of shape {expected} for "
                             f"{len(where)} indices. Received: shape {batch.shape}.")
        return batch


def source(a: Any, who: str, xp: Any = np) -> Source:
    """A Source of arrays, nested lists, DLPack arrays in the memory of `xp`, or the user's object.

    No array is copied. Raises TypeError or ValueError for anything else.
    """
    expect_no_mask(who, a)
    if not all(callable(getattr(xp, name, None)) for name in ("from_dlpack", "empty")):
        raise wrong(who, "xp to be an array module, numpy or net.xp", "xp", xp)
    if hasattr(a, "__dlpack__") and not isinstance(a, np.ndarray):
        remedy = "; pass xp=net.xp for arrays of the network's GPU" if xp is np else ""
        a = from_dlpack(a, who, xp, f"as xp={xp.__name__} needs{remedy}")
    elif not isinstance(a, np.ndarray | list | tuple | range) and all(
            hasattr(a, name) for name in ("__len__", "__getitem__")) and not isinstance(
            a, str | bytes | dict):
        return ObjectSource(a, who)
    elif xp is not np:
        raise TypeError(f"{who}: expected arrays of {xp.__name__}, because of xp. "
                        f"Received: {type(a).__name__}.")
    if xp is np:
        a = real_array(a, who)
    if a.ndim == 0 or len(a) == 0:
        raise ValueError(f"{who}: expected an array (N, ...) of at least one sample. "
                         f"Received: shape {tuple(a.shape)}.")
    return ArraySource(a)
