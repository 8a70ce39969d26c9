"""The CPU with kernels that Numba compiles."""

from __future__ import annotations

from typing import Any

from xpnet.backends.base import Array, Backend
from xpnet.backends.numba import (
    batches,
    conv,
    elementwise,
    normalization,
    optimizers,
    pool,
    product,
    recurrent,
    winograd,
)
from xpnet.backends.numba.kernels.jit import most_threads
from xpnet.backends.numpy.backend import NumpyBackend

SERIAL = 1 << 15        # elements; below, threads cost more than they gain


class NumbaBackend(NumpyBackend):
    """Kernels for float32; NumpyBackend computes what they do not cover.

    Args:
        winograd: the side of the largest tiles in 3x3 convolutions: 2 for F(2x2, 3x3) if that is
            faster, 4 also for F(4x4, 3x3) (faster for large layers, with errors about six times as
            large), 0 for none. With tiles, a NaN or an infinity also reaches outputs whose window
            does not contain it.
    """

    name = "numba"
    winograd_tiles = 0, 2, 4

    gemm = product.gemm
    conv2d = conv.conv2d
    conv2d_dx = conv.conv2d_dx
    conv2d_dW = conv.conv2d_dW
    max_pool2d = pool.max_pool2d
    max_pool2d_dx = pool.max_pool2d_dx
    avg_pool2d = pool.avg_pool2d
    avg_pool2d_dx = pool.avg_pool2d_dx
    activate = elementwise.activate
    add = elementwise.add
    activation_backward = elementwise.activation_backward
    softmax = elementwise.softmax
    softmax_cross_entropy = elementwise.softmax_cross_entropy
    random_bits = elementwise.random_bits
    dropout = elementwise.dropout
    dropout_dx = elementwise.dropout_dx
    batch_norm = normalization.batch_norm
    batch_norm_inference = normalization.batch_norm_inference
    batch_norm_backward = normalization.batch_norm_backward
    scan = recurrent.scan
    scan_backward = recurrent.scan_backward
    scan_product = recurrent.scan_product
    scan_product_backward = Backend.scan_product_backward      # large products after all steps
    update = optimizers.update
    gather_batch = batches.gather_batch
    take_columns = batches.take_columns
    put_columns = batches.put_columns

    _multiply = product.multiply
    winograd_tile = winograd.best_tile
    winograd_conv2d = winograd.convolve
    winograd_dW = winograd.filter_gradient

    def _is_direct(self, out: Array | None, dtype: Any, *reads: Array | None) -> bool:
        """Kernels also need an aligned `out`."""
        return (out is not None and bool(out.flags.carray)
                and NumpyBackend._is_direct(self, out, dtype, *reads))

    @property
    def size(self) -> int:
        """The largest number of threads that a kernel uses."""
        return min(self.threads.size, most_threads())

    def threads_for(self, work: int) -> int:
        """The number of threads for a kernel that touches `work` elements."""
        return 1 if work < SERIAL else self.size
