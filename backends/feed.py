"""Sources of batches: samples are batch-first outside, batches are batch-last inside."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend


class Feed:
    """Batches of batch-first samples (S, ...), as they stand or in the order of a permutation.

    Here the samples stay where they are. A GPU has feeds of its own, in cupy_batches.py.
    """

    def __init__(self, backend: Backend, samples: Array, dtype: Any) -> None:
        self.backend, self.samples, self.dtype = backend, samples, dtype
        self.order: Array | None = None

    def arrange(self, order: Array) -> None:
        """From now on sample number i is samples[order[i]], order (S,) int64 on the host."""
        self.order = order

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        """Samples number start to stop - 1 -> (..., stop - start) of dtype, in `out` if there is
        one."""
        if self.order is None:
            batch = self.backend.gather_batch(self.samples[start:stop], None, self.dtype)
        else:
            batch = self.backend.gather_batch(self.samples, self.order[start:stop], self.dtype)
        return self.backend.store(batch, out)
