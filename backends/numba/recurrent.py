"""All steps of a recurrent layer in one compiled call, for float32.

Arrays of all steps, (rows, P), are transposed here, as on NumPy: a step is then one piece of
memory. What is kept for the backward pass is returned as transposed views.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cells import cell_of
from xpnet.backends.numba.kernels import recurrent as kernels
from xpnet.backends.numba.kernels.arrays import FLOAT32, float32, ready
from xpnet.backends.numba.kernels.matrix import PANEL
from xpnet.backends.numba.product import rows_of
from xpnet.backends.numpy.backend import NumpyBackend

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend

LINE = 16                       # floats in a cache line
SHORT = {4: 8, 3: 7, 1: 2}      # gates -> blocks of (width, H) in the short arrays of a kernel

Scanned = tuple[Array, tuple[Array, ...], tuple[Array, ...]]


def known(cell: str, lengths: Array | None, *arrays: Array | None) -> bool:
    return (lengths is None and (cell in ("lstm", "gru") or cell in kernels.NUMBERS)
            and float32(*(a for a in arrays if a is not None)))


@lru_cache(maxsize=64)
def division(counts: tuple[int, ...], samples: int) -> tuple[np.ndarray, np.ndarray, int]:
    """Where each step begins, and where the last one ends; the first sample of each block, in the
    order of the tasks; and the number of samples in a block.

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


def transposed(self: NumbaBackend, m: Array) -> Array:
    """m^T in C order, to be read only: a copy, unless m is a transposed view."""
    if m.T.flags.carray:
        return m.T
    out = self.empty(m.T.shape, FLOAT32)
    kernels.transposed(self.threads_for(m.size), ready(m, m.shape), out)
    return out


def copied(states: Sequence[Array]) -> tuple[Array, ...]:
    """The transpose of each state, a new array in C order."""
    return tuple(np.array(state.T, order="C") for state in states)


def vector(b: Array | None, size: int) -> Array:
    """b (size,), or zeros."""
    return np.zeros(size, FLOAT32) if b is None else ready(b, (size,))


def scan(self: NumbaBackend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True) -> Scanned:
    if not known(cell, lengths, a, U, bias, *states):
        return NumpyBackend.scan(self, cell, a, U, states, counts, bias=bias, reverse=reverse,
                                 lengths=lengths, keep=keep)
    return _scan(self, cell, transposed(self, a), None, U, states, counts, bias, reverse, keep)


def scan_product(self: NumbaBackend, cell: str, x: Array, W: Array, b: Array | None, U: Array,
                 states: Sequence[Array], counts: Sequence[int], *, bias: Array | None = None,
                 reverse: bool = False, lengths: Array | None = None, keep: bool = True
                 ) -> Scanned:
    if not known(cell, lengths, x, W, b, U, bias, *states):
        return Backend.scan_product(self, cell, x, W, b, U, states, counts, bias=bias,
                                    reverse=reverse, lengths=lengths, keep=keep)
    a = self.gemm(x, W, trans_a=True, trans_b=True)                         # (P, gates H)
    return _scan(self, cell, a, b, U, states, counts, bias, reverse, keep)


def _scan(self: NumbaBackend, cell: str, a: Array, b: Array | None, U: Array,
          states: Sequence[Array], counts: Sequence[int], bias: Array | None, reverse: bool,
          keep: bool) -> Scanned:
    """scan of a + b, for a (P, gates H)."""
    (rows, H), P = U.shape, len(a)
    y, after = self.empty((P, H), FLOAT32), copied(states)                  # (N, H) each
    sizes = *(1 for _ in states), *cell_of(cell).kept
    kept = [self.empty((P, gates * H) if keep else (0, gates * H), FLOAT32) for gates in sizes]
    starts, firsts, size = division(tuple(counts), len(after[0]))
    threads = min(self.threads_for(rows * H * P // 16), max(1, len(firsts)))
    scratch = self.empty((len(firsts), SHORT[rows // H] * H * size), FLOAT32)
    turned = self.empty((rows // H * -(-H // PANEL), H * PANEL), FLOAT32)
    first = a, vector(b, rows), ready(U, U.shape), turned, rows_of(H, PANEL), *after
    last = starts, firsts, size, scratch, reverse, y, *kept, keep
    if cell == "lstm":
        kernels.lstm(threads, *first, *last)
    elif cell == "gru":
        kernels.gru(threads, *first, vector(bias, H), *last)
    else:
        kernels.simple(threads, *first, kernels.NUMBERS[cell], *last)
    return transposed(self, y), copied(after), tuple(m.T for m in kept) if keep else ()


def scan_backward(self: NumbaBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                  U: Array, kept: Sequence[Array], counts: Sequence[int], *,
                  reverse: bool = False, lengths: Array | None = None
                  ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, lengths, dy, U, *dstates, *kept):
        return NumpyBackend.scan_backward(self, cell, dy, dstates, U, kept, counts,
                                          reverse=reverse, lengths=lengths)
    (rows, H), P = U.shape, kept[0].shape[1]
    dy = np.empty((0, H), FLOAT32) if dy is None else transposed(self, dy)
    kept = [transposed(self, m) for m in kept]
    da, before = self.empty((rows, P), FLOAT32), copied(dstates)            # (N, H) each
    ds = self.empty((rows, P), FLOAT32) if cell == "gru" else da
    starts, firsts, size = division(tuple(counts), len(before[0]))
    threads = min(self.threads_for(rows * H * P // 16), max(1, len(firsts)))
    scratch = self.empty((len(firsts), SHORT[rows // H] * H * size), FLOAT32)
    first = dy, ready(U, U.shape), rows_of(H, H), *before
    steps = starts, firsts, size, scratch, reverse
    if cell == "lstm":
        kernels.lstm_backward(threads, *first, *steps, *kept[1:], da)
    elif cell == "gru":
        kernels.gru_backward(threads, *first, *steps, *kept, da, ds)
    else:
        kernels.simple_backward(threads, *first, kernels.NUMBERS[cell], *steps, kept[1], da)
    return da, ds, copied(before)
