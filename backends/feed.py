"""Batch sources and collectors: samples are batch-first outside, batches are batch-last inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend


class Feed:
    """Batches of batch-first samples (S, ...), in their order or in the order of a permutation.

    This class leaves the samples where they are. GPUs have their own feeds, in cupy/batches.py.
    """

    in_graphs = False           # whether a captured step can contain `batch_at`

    def __init__(self, backend: Backend, samples: Array, dtype: Any) -> None:
        self.backend, self.samples, self.dtype = backend, samples, dtype
        self.order: Array | None = None

    def arrange(self, order: Array) -> None:
        """From now on, sample number i is samples[order[i]], order (S,) int64 on the host."""
        self.order = order

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Samples number start to stop - 1 -> (..., stop - start) of dtype, written into `out` if
        it is given."""
        if self.order is None:
            batch = self.backend.gather_batch(self.samples[start:stop], None, self.dtype)
        else:
            batch = self.backend.gather_batch(self.samples, self.order[start:stop], self.dtype)
        return self.backend.store(batch, out)

    def batch_at(self, position: Array, out: Array) -> None:
        """Write the samples that start at number position[0] to out (..., N), for feeds that are
        `in_graphs`: the position (1,) int64 is read on the backend when the batch is made."""
        raise NotImplementedError(f"{type(self).__name__}: expected batches whose number the host "
                                  "knows. Received: a position on the backend.")


class Collector:
    """Copies batch-last results to batch-first arrays of the host. They are complete when the block
    ends: `with backend.collector() as collector: collector.put(y, out)`.

    This class copies at once. A GPU's collector is in cupy/collector.py.
    """

    def __init__(self, backend: Backend) -> None:
        self.backend = backend

    def __enter__(self) -> Collector:
        return self

    def __exit__(self, *error: Any) -> None:
        pass

    def put(self, y: Array, out: np.ndarray) -> None:
        """out (N, ...) = y (..., N), which may be overwritten by what is launched next."""
        out[...] = np.moveaxis(self.backend.to_numpy(y), -1, 0)
