"""The sums of losses and hits of an epoch on an NVIDIA GPU, with one or two launches per step."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import launch as cuda_launch

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


TYPES = {np.dtype(np.float32): "float", np.dtype(np.float64): "double"}
LABELS = np.dtype(np.int64)


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    return {"totals": (*(f"tally<{name}, {target}>" for name in TYPES.values()
                         for target in ("i64", name)),
                       *(f"add_hits<{name}>" for name in TYPES.values()))}


def tally(self: CupyBackend, sums: Array, loss: Array, y: Array, target: Array | None) -> None:
    wanted = None if target is None else LABELS if target.ndim == 1 else y.dtype
    if (y.dtype not in TYPES or loss.dtype != y.dtype
        or (target is not None and target.dtype != wanted)):
        with self.scope():
            Backend.tally(self, sums, loss, y, target)
        return
    N = y.shape[-1]
    K = math.prod(y.shape[:-1])
    threads, length = tally_launch(K, 1 if target is None else N)
    pieces = 1 if target is None else -(-N // length)
    y, loss = self._contiguous(y), self._contiguous(loss)
    there = y if target is None else self._contiguous(target)
    hits = self.empty((pieces if pieces > 1 else 0,), np.int32)
    kind = "i64" if there.dtype == LABELS else TYPES[y.dtype]
    self._launch("totals", f"tally<{TYPES[y.dtype]}, {kind}>",
                 ((min(pieces, cuda_launch.MAX_GRID[0]), 1, 1), threads), sums, loss, y, there,
                 hits, np.int32(K), np.int32(N), np.int32(length), np.int32(pieces),
                 np.int32(target is not None))
    if pieces > 1:
        self._launch("totals", f"add_hits<{TYPES[y.dtype]}>", cuda_launch.flat_launch(1), sums,
                     loss, hits, np.int32(pieces), np.int32(N))


def tally_launch(K: int, N: int) -> tuple[cuda_launch.Grid, int]:
    """(block, samples of a piece). A small batch is one piece, for one large block."""
    most = 4 * cuda_launch.THREADS          # MOST in totals.cu
    x = min(cuda_launch.power_of_two(N), most if N <= most else cuda_launch.THREADS)
    turns = -(-N // x)
    length = -(-turns // cuda_launch.BLOCKS) * x
    return (x, min(cuda_launch.power_of_two(K), most // x), 1), length
