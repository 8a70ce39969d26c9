"""All steps of a recurrent layer in one compiled call, for float32."""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.cells import cell_of
from xpnet.backends.numba.kernels import recurrent as kernels
from xpnet.backends.numba.kernels.arrays import FLOAT32, float32, ready
from xpnet.backends.numba.kernels.matrix import PANEL
from xpnet.backends.numba.product import rows_of
from xpnet.backends.numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend

NOTHING = np.empty((1, 0), FLOAT32)
LINE = 16                       # floats in a cache line
SHORT = {4: 8, 3: 7, 1: 2}      # gates -> blocks of (width, H) in the short arrays of a kernel


def known(cell: str, lengths: Array | None, *arrays: Array | None) -> bool:
    return (lengths is None and (cell in ("lstm", "gru") or cell in kernels.NUMBERS)
            and float32(*(a for a in arrays if a is not None)))


@lru_cache(maxsize=64)
def division(counts: tuple[int, ...], samples: int) -> tuple[np.ndarray, np.ndarray, int]:
    """The first column of each step and their number; the first sample of each block, in the order
    of the tasks; and the number of samples in a block.

    Neighbouring tasks run on one thread. If later samples are in fewer steps, the longest block is
    followed by the shortest one, and so on, so that all threads have about the same work.
    """
    starts = np.concatenate([[0], np.cumsum(counts, dtype=np.int64)])
    size = max(1, min(samples, LINE if counts[-1:] == (samples,) else LINE // 2))
    firsts = np.arange(0, samples, size)
    if size < LINE:
        half = -(-firsts.size // 2)
        firsts[::2], firsts[1::2] = firsts[:half].copy(), firsts[half:][::-1].copy()
    return starts, firsts, size


def scan(self: NumbaBackend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True
         ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    if not known(cell, lengths, a, U, bias, *states):
        return NumpyBackend.scan(self, cell, a, U, states, counts, bias=bias, reverse=reverse,
                                 lengths=lengths, keep=keep)
    (rows, H), P = U.shape, a.shape[1]
    y, after = self.empty((H, P), FLOAT32), tuple(np.array(state, order="C") for state in states)
    sizes = *(1 for _ in states), *cell_of(cell).kept
    kept = (tuple(self.empty((blocks * H, P), FLOAT32) for blocks in sizes) if keep
            else (NOTHING,) * len(sizes))
    starts, firsts, size = division(tuple(counts), after[0].shape[1])
    threads = min(self.threads_for(rows * H * P // 16), max(1, len(firsts)))
    scratch = self.empty((len(firsts), SHORT[rows // H] * H * size), FLOAT32)
    turned = self.empty((rows // H * -(-H // PANEL), H * PANEL), FLOAT32)
    first = ready(a, a.shape), ready(U, U.shape), turned, rows_of(H, PANEL), *after
    last = starts, firsts, size, scratch, reverse, y, *kept, keep
    if cell == "lstm":
        kernels.lstm(threads, *first, *last)
    elif cell == "gru":
        c = np.zeros(H, FLOAT32) if bias is None else ready(bias, (H,))
        kernels.gru(threads, *first, c, *last)
    else:
        kernels.simple(threads, *first, kernels.NUMBERS[cell], *last)
    return y, after, kept if keep else ()


def scan_backward(self: NumbaBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                  U: Array, kept: Sequence[Array], counts: Sequence[int], *,
                  reverse: bool = False, lengths: Array | None = None
                  ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, lengths, dy, U, *dstates, *kept):
        return NumpyBackend.scan_backward(self, cell, dy, dstates, U, kept, counts,
                                          reverse=reverse, lengths=lengths)
    (rows, H), P = U.shape, kept[0].shape[1]
    dy = np.empty((H, 0), FLOAT32) if dy is None else ready(dy, (H, P))
    da, before = self.empty((rows, P), FLOAT32), tuple(np.array(d, order="C") for d in dstates)
    starts, firsts, size = division(tuple(counts), before[0].shape[1])
    threads = min(self.threads_for(rows * H * P // 16), max(1, len(firsts)))
    scratch = self.empty((len(firsts), SHORT[rows // H] * H * size), FLOAT32)
    first = dy, ready(U, U.shape), rows_of(H, H), *before
    steps = starts, firsts, size, scratch, reverse
    kept = [ready(array, array.shape) for array in kept]
    if cell == "lstm":
        kernels.lstm_backward(threads, *first, *steps, *kept[1:], da)
    elif cell == "gru":
        ds = self.empty(da.shape, FLOAT32)
        kernels.gru_backward(threads, *first, *steps, *kept, da, ds)
        return da, ds, before
    else:
        kernels.simple_backward(threads, *first, kernels.NUMBERS[cell], *steps, kept[1], da)
    return da, da, before
