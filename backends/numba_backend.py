"""The CPU with kernels compiled by Numba: the parts put together."""

from __future__ import annotations

from xpnet.backends.numba_conv import NumbaConvolution
from xpnet.backends.numba_elementwise import NumbaElementwise
from xpnet.backends.numba_pool import NumbaPooling


class NumbaBackend(NumbaConvolution, NumbaPooling, NumbaElementwise):
    """Register-blocked kernels for float32; what they do not cover is NumpyBackend's."""

    name = "numba"
