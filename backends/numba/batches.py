"""Batches, and columns of matrices, as compiled loops."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import batches
from xpnet.backends.numba.kernels.arrays import FLOAT32, float32, ready
from xpnet.backends.numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


def gather_batch(self: NumbaBackend, samples: Array, index: Array | None, dtype: Any) -> Array:
    fast = (dtype == FLOAT32 and samples.dtype in (FLOAT32, np.uint8) and samples.flags.c_contiguous
            and samples.flags.aligned)
    if fast and samples.size > 0:
        rows = np.arange(len(samples)) if index is None else index
        D, N = samples.size // len(samples), len(rows)
        out = self.empty((*samples.shape[1:], N), FLOAT32)
        if batches.gather(self.threads_for(out.size), ready(np.asarray(samples), (len(samples), D)),
                          ready(rows.astype(np.int64, copy=False), (N,)), out.reshape(D, N)):
            return out
    return NumpyBackend.gather_batch(self, samples, index, dtype)


def take_columns(self: NumbaBackend, m: Array, index: Array) -> Array:
    if not float32(m):
        return NumpyBackend.take_columns(self, m, index)
    out = self.empty((len(m), len(index)), FLOAT32)
    batches.take(self.threads_for(out.size), ready(m, m.shape), ready(index, index.shape), out)
    return out


def put_columns(self: NumbaBackend, m: Array, index: Array, columns: int) -> Array:
    if not float32(m):
        return NumpyBackend.put_columns(self, m, index, columns)
    out = self.empty((len(m), columns), FLOAT32)
    batches.put(self.threads_for(out.size), ready(m, m.shape), ready(index, index.shape), out)
    return out
