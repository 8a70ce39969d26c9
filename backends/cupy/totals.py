"""The sums of losses and hits of an epoch on an NVIDIA GPU, with one launch per step."""

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
    return ({"totals": tuple(f"tally<{name}, {target}>" for name in TYPES.values()
                             for target in ("i64", name))})


def tally(self: CupyBackend, sums: Array, loss: Array, y: Array, target: Array | None) -> None:
    wanted = None if target is None else LABELS if target.ndim == 1 else y.dtype
    if (y.dtype not in TYPES or loss.dtype != y.dtype
        or (target is not None and target.dtype != wanted)):
        with self.scope():
            Backend.tally(self, sums, loss, y, target)
        return
    N = y.shape[-1]
    K = math.prod(y.shape[:-1])
    x = min(cuda_launch.power_of_two(N), 4 * cuda_launch.THREADS)
    threads = x, min(cuda_launch.power_of_two(K), 4 * cuda_launch.THREADS // x), 1
    y = self._contiguous(y)
    there = y if target is None else self._contiguous(target)
    kind = "i64" if there.dtype == LABELS else TYPES[y.dtype]
    self._launch("totals", f"tally<{TYPES[y.dtype]}, {kind}>", ((1, 1, 1), threads),
                 sums, self._contiguous(loss), y, there, np.int32(K), np.int32(N),
                 np.int32(target is not None))
