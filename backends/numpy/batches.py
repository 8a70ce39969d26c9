"""Batches with NumPy: samples are gathered and transposed block by block, within the cache."""

from __future__ import annotations

from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numpy.pieces import spans

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


# elements of a block: transposed at once, 128 float32 images of 3 x 32 x 32 take 6 times as long
BLOCK = 1 << 16
FEWEST = 16             # samples of a block at least: a cache line of the result


def gather_batch(self: NumpyBackend, samples: Array, index: Array | None, dtype: Any) -> Array:
    sample, N = samples.shape[1:], len(samples if index is None else index)
    D = prod(sample)
    out = self.empty((*sample, N), dtype)
    columns = out.reshape(D, N)
    for block in spans(N, -(-N // max(FEWEST, BLOCK // max(D, 1)))):
        rows = samples[block if index is None else index[block]]  # (block, ...)
        columns[:, block] = rows.reshape(len(rows), D).T
    return out


def sums_by_token(self: NumpyBackend, dy: Array, tokens: Array, *, out: Array,
                  accumulate: bool = False) -> None:
    """The columns are sorted by their tokens, in their order if tokens are equal, so that each sum
    is over neighbours."""
    order = np.argsort(tokens, kind="stable")
    found, starts = np.unique(tokens[order], return_index=True)
    sums = np.add.reduceat(dy[:, order], starts, axis=1)                # (D, found)
    if not accumulate:
        out.fill(0)
    out[found] += sums.T
