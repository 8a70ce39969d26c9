"""The CPU with kernels compiled by Numba: the parts put together."""

from __future__ import annotations

from xpnet.backends.numpy_backend import NumpyBackend


class NumbaBackend(NumpyBackend):
    """Register-blocked kernels for float32; what they do not cover is NumpyBackend's."""

    name = "numba"
