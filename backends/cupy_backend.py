"""NVIDIA GPUs through CuPy: the kernels of cuda_kernels/ where CuPy has none, and plain xp for the rest."""

from __future__ import annotations

from xpnet.backends import (
    cupy_batches,
    cupy_capture,
    cupy_conv,
    cupy_elementwise,
    cupy_normalization,
    cupy_optimizers,
    cupy_pool,
    cupy_product,
    cupy_totals,
)


def kernels() -> dict[str, tuple[str, ...]]:
    """Every kernel that can be launched, by family ("im2col": ("im2col<float, 4>", ...)), so that tests can run all of it."""
    modules = (cupy_product, cupy_conv, cupy_pool, cupy_elementwise, cupy_normalization, cupy_optimizers, cupy_batches,
               cupy_totals)
    return {family: names for module in modules for family, names in module.kernels().items()}


class CupyBackend(cupy_conv.CupyConvolution, cupy_pool.CupyPooling, cupy_elementwise.CupyElementwise,
                  cupy_normalization.CupyNormalization, cupy_optimizers.CupyOptimizers, cupy_batches.CupyBatches,
                  cupy_totals.CupyTotals, cupy_capture.CupyCapture):
    """One NVIDIA GPU. Errors: BackendError where it cannot be used.

    Methods that are overridden run on the backend's own device. Plain xp code, inherited or a layer's, runs on
    the current one: put it inside `with backend.scope():` where that may be another GPU.
    CuPy's compiler options make subnormal float32 numbers count as zero in comparisons and sums, here as in CuPy.
    """
