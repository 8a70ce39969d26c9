"""Batches for NumPy alone: samples are gathered and turned block by block, while they are in the cache."""

from __future__ import annotations

from typing import Any

from xpnet.backends.base import Array
from xpnet.backends.numpy_base import NumpyBase, spans

BLOCK = 1 << 15         # elements that are gathered and then turned
FEWEST = 8              # samples of a block: rows that lie a power of two apart share 8 places of the nearest cache


class NumpyBatches(NumpyBase):
    """Batch-first samples to batch-last batches."""

    def gather_batch(self, samples: Array, index: Array | None, dtype: Any) -> Array:
        N = len(samples if index is None else index)
        out = self.empty((*samples.shape[1:], N), dtype)
        columns = out.reshape(-1, N)                                                            # (D, N)
        D = len(columns)
        blocks = spans(N, -(-N // max(FEWEST, BLOCK // max(D, 1))))

        def task(k: int) -> None:
            chosen = blocks[k]
            rows = samples[chosen if index is None else index[chosen]]
            columns[:, chosen] = rows.reshape(-1, D).T

        self.run(task, len(blocks), out.size)
        return out
