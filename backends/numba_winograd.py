"""Convolution with 3x3 filters by Winograd's minimal filtering, on the compiled kernels: when it pays, and how it is cut."""

from __future__ import annotations

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.numba_kernels import winograd
from xpnet.backends.numba_kernels.arrays import ready
from xpnet.backends.numba_kernels.jit import most_threads
from xpnet.backends.numba_kernels.micro import FROM_BIAS, FROM_ZERO, LANES, VECTOR_BYTES, VECTORS
from xpnet.backends.numpy_backend import NumpyBackend
from xpnet.backends.window import Window

STRIP = 7 << 16         # bytes of transformed input that a task has at a time: about half of a core's cache
LONGEST = 12            # vectors; longer strips win nothing
TASKS = 16              # pieces of a call, whatever the number of threads
SHARE = 64              # filters of a piece at least: each piece transforms its input itself

FLOAT32 = np.dtype(np.float32)


class NumbaWinograd(NumpyBackend):
    """The convolution of 3x3 filters with stride 1 in float32, and its gradients.

    `winograd` is the side of the tiles: 2 for F(2x2, 3x3) where it pays, 4 for F(4x4, 3x3), which is faster and less
    accurate, 0 for neither.
    """

    def __init__(self, note: str = "", *, winograd: int = 2) -> None:
        if winograd not in (0, 2, 4):
            raise ValueError(f"NumbaBackend: expected winograd to be 0, 2 or 4. Received: {winograd!r}.")
        super().__init__(note)
        self.size = min(self.threads.size, most_threads())
        self.winograd = winograd

    def winograd_tile(self, window: Window, groups: int, C: int, F: int, OH: int, OW: int, N: int) -> int:
        """The side of the tiles with which F filters on C channels take the least time; 0: without tiles."""
        covered = window.kernel == (3, 3) and window.stride == window.dilation == (1, 1) and groups == 1
        return self.winograd if covered and min(C, F) >= 32 and N >= LANES else 0

    def winograd_conv2d(self, x: Array, W: Array, window: Window, *, bias: Array | None = None, relu: bool = False,
                        turned: bool = False, tile: int = 2) -> Array:
        """conv(x, W); `turned`: with the filters turned round and their axes swapped, as the gradient by x needs it.

        x (C, H, W, N), W (F, C, 3, 3), or (C, F, 3, 3) if turned -> y (F, OH, OW, N).
        """
        C, H, width, N = x.shape
        F = W.shape[1 if turned else 0]
        OH, OW = window.output_size(H, width)
        U = self.empty(((tile + 2) ** 2, F, C), FLOAT32)
        winograd.transform_filters(self.size, tile, ready(W, (*W.shape[:2], 9)), turned, U)
        y: Array = self.empty((F, OH, OW, N), FLOAT32)
        vectors = -(-OH // tile) * -(-OW // tile) * -(-N // LANES)
        strip = min(LONGEST, max(VECTORS, STRIP // (U.shape[0] * C * VECTOR_BYTES)))
        strip_tasks = min(TASKS, -(-vectors // strip))
        filter_tasks = max(1, min(TASKS // strip_tasks, F // SHARE))
        winograd.convolve(self.size, tile, ready(x, x.shape), U, U.reshape(-1) if bias is None else ready(bias, (F,)),
                          FROM_ZERO if bias is None else FROM_BIAS, int(relu), window.padding[0], window.padding[2], y, strip,
                          strip_tasks, filter_tasks)
        return y
