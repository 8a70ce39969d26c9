"""Recurrent layers on an NVIDIA GPU: a product and one kernel for each step, in each direction.

Everything is allocated before the first step. The host does not wait for lengths; the kernels read
them.
"""

from __future__ import annotations

from collections.abc import Sequence
from functools import lru_cache
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cells import CELLS, cell_of, in_order
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K
from xpnet.backends.cupy.product import Operand, math_for
from xpnet.backends.cupy.rows import has_kernels

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend

# The argument `Step p` of the kernels: the fields of the struct in recurrent.cu, in its order.
STEP = np.dtype([("P", np.int64), ("start", np.int64)] + [(name, np.int32) for name in (
    "H", "N", "count", "t", "masked", "keep", "has_bias", "has_dy")])


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {"recurrent": tuple(kernel_name(cell, way, dtype)
                               for dtype in cuda_launch.TYPES for way in ("", "_backward")
                               for cell in (*CELLS, *filter(None, cuda_launch.ACTIVATIONS)))}


def kernel_name(cell: str, way: str, dtype: np.dtype[Any]) -> str:
    name = cuda_launch.TYPES[dtype]
    if cell in CELLS:
        return f"{cell}{way}<{name}>"
    return f"simple{way}<{name}, {cuda_launch.ACTIVATIONS[cell]}>"


def known(cell: str, *arrays: Array | None) -> bool:
    """Whether there is a kernel: arrays of one type, of which none is empty, and a cell of the
    table or an activation of functions.cu."""
    return ((cell in CELLS or cell in cuda_launch.ACTIVATIONS)
            and has_kernels(*(a for a in arrays if a is not None)))


@lru_cache(cuda_launch.REMEMBERED)
def step_struct(*values: int) -> np.void:
    """The argument `Step p`; a training step has the same ones as the one before."""
    return cuda_launch.struct(STEP, values)


def scan(self: CupyBackend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True
         ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    if not known(cell, a, U, bias, lengths, *states):
        return Backend.scan(self, cell, a, U, states, counts, bias=bias, reverse=reverse,
                            lengths=lengths, keep=keep)
    (rows, H), P, N = U.shape, a.shape[1], states[0].shape[1]
    a, U, y = self._contiguous(a), self._contiguous(U), self.empty((H, P), a.dtype)
    now, s = _copies(self, states), self.empty((rows, N), a.dtype)
    kept = tuple(self.empty((blocks * H, P), a.dtype)
                 for blocks in (*(1 for _ in states), *cell_of(cell).kept)) if keep else ()
    # A kernel gets an address for each array, also for one that it does not use.
    biases = () if cell != "gru" else (a if bias is None else self._contiguous(bias),)
    ends = a if lengths is None else self._contiguous(lengths)
    written = kept or (y,) * (len(states) + len(cell_of(cell).kept))
    kernel, math = kernel_name(cell, "", a.dtype), math_for(self, a.dtype, "gemm")
    launch = cuda_launch.row_launch(1, H, 1, N)
    for t, columns, count in in_order(counts, reverse):
        self._product(math, (1, rows, count, H), Operand(U, ALONG_K, H),
                      Operand(now[0], ACROSS_K, N), s, N)
        self._launch("recurrent", kernel, launch, a, s, *biases, *now, y, *written, ends,
                     step_struct(P, columns.start, H, N, count, t, lengths is not None, keep,
                                 bias is not None, 0))
    return y, now, kept


def scan_backward(self: CupyBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                  U: Array, kept: Sequence[Array], counts: Sequence[int], *,
                  reverse: bool = False, lengths: Array | None = None
                  ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, dy, U, lengths, *dstates, *kept):
        return Backend.scan_backward(self, cell, dy, dstates, U, kept, counts, reverse=reverse,
                                     lengths=lengths)
    (rows, H), P, N = U.shape, kept[0].shape[1], dstates[0].shape[1]
    U, da, now = self._contiguous(U), self.empty((rows, P), U.dtype), _copies(self, dstates)
    ds = self.empty((rows, P), U.dtype) if cell_of(cell).split else da
    # Only the backward pass of a GRU needs h of the step before, and only that of an LSTM needs c.
    needed = [self._contiguous(array) for array in (kept if cell == "gru" else kept[1:])]
    above = U if dy is None else self._contiguous(dy)
    ends = U if lengths is None else self._contiguous(lengths)
    written = (da, ds) if ds is not da else (da,)
    kernel, math = kernel_name(cell, "_backward", U.dtype), math_for(self, U.dtype, "gemm")
    launch, line = cuda_launch.row_launch(1, H, 1, N), ds.reshape(-1)
    for t, columns, count in reversed(in_order(counts, reverse)):
        self._launch("recurrent", kernel, launch, above, *now, *needed, ends, *written,
                     step_struct(P, columns.start, H, N, count, t, lengths is not None, 0, 0,
                                 dy is not None))
        # dh += U^T ds: the kernel left what does not go through s in dh
        self._product(math, (1, H, count, rows), Operand(U, ACROSS_K, H),
                      Operand(line[columns.start:], ACROSS_K, P), now[0], N, accumulate=True)
    return da, ds, now


def _copies(self: CupyBackend, states: Sequence[Array]) -> tuple[Array, ...]:
    """The states, to be overwritten by each step."""
    with self.scope():
        return tuple(state.copy() for state in states)
