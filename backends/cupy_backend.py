"""NVIDIA GPUs through CuPy: the kernels of cuda_kernels/ where CuPy has none, and plain xp for the rest."""

from __future__ import annotations

from xpnet.backends import cupy_conv, cupy_dropout, cupy_pool


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched, by family ("im2col": ("im2col<float, 4>", ...)), so that tests can run all of it."""
    return cupy_conv.kernels() | cupy_pool.kernels() | cupy_dropout.kernels()


class CupyBackend(cupy_conv.CupyConvolution, cupy_pool.CupyPooling, cupy_dropout.CupyDropout):
    """One NVIDIA GPU. Errors: BackendError where it cannot be used.

    Methods that are overridden run on the backend's own device. Plain xp code, inherited or a layer's, runs on
    the current one: put it inside `with backend.scope():` where that may be another GPU.
    CuPy's compiler options make subnormal float32 numbers count as zero in comparisons and sums, here as in CuPy.
    """
