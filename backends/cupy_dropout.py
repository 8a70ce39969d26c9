"""Random bits and dropout on an NVIDIA GPU."""

from __future__ import annotations

import numpy as np

from xpnet.backends import cuda_launch
from xpnet.backends.base import Array
from xpnet.backends.cupy_base import CupyBase


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched from here, by family: the names that the compiler is asked for."""
    return {
        "dropout": ("random_bits", *(f"dropout<{name}, {width}>" for name, width in cuda_launch.types_and_widths())),
    }


class CupyDropout(CupyBase):
    """Random bits and dropout on an NVIDIA GPU."""

    def random_bits(self, n: int, key: tuple[int, int], counter: Array) -> Array:
        bits = self.empty((n,), np.uint32)
        self._launch("dropout", "random_bits", cuda_launch.flat_launch(-(-n // 8)),
                     bits, np.int64(n), np.uint64(key[0]), np.uint64(key[1]), counter)
        return bits

    def dropout(self, x: Array, p: float, key: tuple[int, int], counter: Array) -> tuple[Array, Array]:
        if x.dtype not in cuda_launch.TYPES:
            return super().dropout(x, p, key, counter)
        x = self._contiguous(x)
        y, keep = self.empty(x.shape, x.dtype), self.empty(x.shape, np.bool_)
        V = self._width(x.size, x, y, keep)
        self._launch("dropout", f"dropout<{cuda_launch.TYPES[x.dtype]}, {V}>", cuda_launch.flat_launch(-(-x.size // 8)),
                     x, y, keep, np.int64(x.size), np.uint64(round(p * 2.0**32)), np.float64(1.0 / (1.0 - p)),
                     np.uint64(key[0]), np.uint64(key[1]), counter)
        return y, keep
