"""Optimizer updates on an NVIDIA GPU: one pass over the flat buffers."""

from __future__ import annotations

import numpy as np

from xpnet.backends import cuda_launch
from xpnet.backends.base import Array
from xpnet.backends.cupy_rows import CupyRows


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched from here, by family: the names that the compiler is asked for."""
    return {"optimizers": tuple(f"{kernel}<{name}, {width}>" for kernel in ("sgd", "adam")
                                for name, width in cuda_launch.types_and_extreme_widths())}


class CupyOptimizers(CupyRows):
    """SGD and Adam on an NVIDIA GPU. Plain xp where types are mixed, or a buffer is not contiguous."""

    def sgd(self, w: Array, g: Array, v: Array | None, hyper: Array, *, nesterov: bool, decayed: int) -> None:
        velocity = w if v is None else v
        if not self._updates(w, g, velocity, hyper=hyper):
            return super().sgd(w, g, v, hyper, nesterov=nesterov, decayed=decayed)
        types, launch = self._array(2, w, g, velocity)
        self._launch("optimizers", f"sgd<{types}>", launch, w, g, velocity, hyper, np.bool_(v is not None),
                     np.bool_(nesterov), np.int64(decayed), np.int64(w.size))

    def adam(self, w: Array, g: Array, m: Array, v: Array, hyper: Array, *, decoupled: bool, decayed: int) -> None:
        if not self._updates(w, g, m, v, hyper=hyper):
            return super().adam(w, g, m, v, hyper, decoupled=decoupled, decayed=decayed)
        types, launch = self._array(2, w, g, m, v)
        self._launch("optimizers", f"adam<{types}>", launch, w, g, m, v, hyper, np.bool_(decoupled), np.int64(decayed),
                     np.int64(w.size))

    def _updates(self, *arrays: Array, hyper: Array) -> bool:
        return self._has_kernels(*arrays) and hyper.dtype == np.float64 and all(
            a.flags.c_contiguous for a in (*arrays, hyper))
