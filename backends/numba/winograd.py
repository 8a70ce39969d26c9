"""Convolution with 3x3 filters by Winograd's minimal filtering: when it is used, how it is divided.

Errors against float64, ||error|| / ||y||, for 64 to 512 channels, and those of the kernels without
tiles:

                    convolution         input gradient          filter gradient
    without tiles   3e-7 .. 8e-7        4e-7 .. 1.1e-6          1e-7 .. 2.3e-7
    F(2x2, 3x3)     2e-7 .. 7e-7        3e-7 .. 8e-7            5e-7 .. 7e-7
    F(4x4, 3x3)     1.3e-6 .. 4.3e-6    1.7e-6 .. 5.2e-6        1.6e-6 .. 3.6e-6

A NaN or an infinity spreads to its whole tile, and not only to the windows that contain it;
NumbaBackend(winograd=0) uses no tiles.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from xpnet.backends.base import Array
from xpnet.backends.numba.kernels import winograd
from xpnet.backends.numba.kernels.arrays import FLOAT32, ready
from xpnet.backends.numba.kernels.instructions import LANES, VECTOR_BYTES, VECTORS
from xpnet.backends.numba.kernels.micro import FROM_BIAS, FROM_ZERO
from xpnet.backends.numba.pieces import TASKS
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.numba.backend import NumbaBackend


# bytes of transformed input that a task holds at a time: about half of a core's cache
STRIP = 7 << 16
# bytes of both operands of a filter gradient that are transformed at a time
BLOCK = 1 << 22
CHAIN = 512             # elements of a sum; longer ones lose digits, so partial sums are added up
LONGEST = 12            # vectors; longer strips are not faster
SHARE = 64              # filters of a piece at least: each piece transforms its input itself

# When tiles are faster, measured with AVX-512 for 8 to 512 channels, 1x1 to 32x32 outputs, batches
# of 16 to 128.
FEWEST = 16             # channels, and filters; four times the product of both
SHORTEST = 4            # vectors of tiles; with fewer, transforming the filters takes too long
# multiplications without tiles / with tiles, partial tiles and vectors counted as whole ones
LEAST_SAVING = 1.3


def best_tile(self: NumbaBackend, window: Window, groups: int, C: int, F: int, OH: int, OW: int,
              N: int) -> int:
    """The side of the tiles with which F filters on C channels are fastest; 0 if tiles are
    slower."""
    covered = window.kernel == (3, 3) and window.stride == window.dilation == (1, 1) and groups == 1
    if not covered or min(C, F) < FEWEST or C * F < 4 * FEWEST * FEWEST:
        return 0
    best, choice = LEAST_SAVING, 0
    for tile in (2, 4)[:self.winograd // 2]:
        vectors = -(-OH // tile) * -(-OW // tile) * -(-N // LANES)
        saving = 9 * OH * OW * N / ((tile + 2) ** 2 * vectors * LANES)
        if vectors >= SHORTEST and saving > best:
            best, choice = saving, tile
    return choice


def convolve(self: NumbaBackend, x: Array, W: Array, window: Window, *, bias: Array | None = None,
             relu: bool = False, flipped: bool = False, tile: int = 2) -> Array:
    """conv(x, W). If flipped, with flipped filters and their first axes swapped, as the input
    gradient needs them.

    x (C, H, W, N), W (F, C, 3, 3), or (C, F, 3, 3) if flipped -> y (F, OH, OW, N).
    """
    C, H, width, N = x.shape
    F = W.shape[1 if flipped else 0]
    OH, OW = window.output_size(H, width)
    U = self.empty(((tile + 2) ** 2, F, C), FLOAT32)
    winograd.transform_filters(self.size, tile, ready(W, (*W.shape[:2], 9)), flipped, U)
    y: Array = self.empty((F, OH, OW, N), FLOAT32)
    vectors = -(-OH // tile) * -(-OW // tile) * -(-N // LANES)
    strip = min(LONGEST, max(VECTORS, STRIP // (U.shape[0] * C * VECTOR_BYTES)))
    strip_tasks = min(TASKS, -(-vectors // strip))
    filter_tasks = max(1, min(TASKS // strip_tasks, F // SHARE))
    winograd.convolve(self.size, tile, ready(x, x.shape), U, U.reshape(-1) if bias is None
                      else ready(bias, (F,)), FROM_ZERO if bias is None else FROM_BIAS, int(relu),
                      window.padding[0], window.padding[2], y, strip, strip_tasks, filter_tasks)
    return y


def filter_gradient(self: NumbaBackend, x: Array, dy: Array, window: Window, out: Array,
                    accumulate: bool, *, tile: int = 2) -> None:
    """out (F, C, 3, 3) = the gradient of conv(x, W) with respect to W, or out += it. out is
    contiguous and shares no memory with x or dy."""
    (F, OH, OW, N), C = dy.shape, x.shape[0]
    positions, columns = (tile + 2) ** 2, -(-C // LANES) * LANES
    vectors = -(-OH // tile) * -(-OW // tile) * -(-N // LANES)
    block = min(vectors, max(1, BLOCK // ((columns + F) * positions * VECTOR_BYTES)))
    block = -(-vectors // -(-vectors // block))  # equal blocks, no smaller last one
    # One vector or row more than needed, so that rows and positions do not share cache sets.
    V = self.empty((positions, block * LANES, columns + LANES), FLOAT32)
    D = self.empty((positions, F + 1, (block + 1) * LANES), FLOAT32)
    sums, dU = (self.empty((positions, F, columns + LANES), FLOAT32) for _ in range(2))
    winograd.correlate_filters(self.size, tile, ready(x, x.shape), ready(dy, dy.shape),
                               window.padding[0], window.padding[2], V, D, sums,
                               max(1, CHAIN // (block * LANES)), dU, -(-TASKS * LANES // columns),
                               max(1, min(2, F // SHARE)))
    winograd.finish_filters(self.size, tile, dU, accumulate, out.reshape(F, C, 9))
