"""The CPU with kernels compiled by Numba: the parts put together."""

from __future__ import annotations

from xpnet.backends.numba_conv import NumbaConvolution
from xpnet.backends.numba_elementwise import NumbaElementwise
from xpnet.backends.numba_optimizers import NumbaOptimizers
from xpnet.backends.numba_pool import NumbaPooling


class NumbaBackend(NumbaConvolution, NumbaPooling, NumbaElementwise, NumbaOptimizers):
    """Register-blocked kernels for float32; what they do not cover is NumpyBackend's.

    `winograd` says which tiles 3x3 convolutions may use where they pay: 2, or 4 too (faster for large layers, with
    errors about six times as large), or 0 for none: then a NaN or an infinity reaches only the
    outputs whose window contains it.
    """

    name = "numba"
