"""The CPU with NumPy alone: the parts put together."""

from __future__ import annotations

from xpnet.backends.numpy_batches import NumpyBatches
from xpnet.backends.numpy_conv import NumpyConvolution
from xpnet.backends.numpy_elementwise import NumpyElementwise
from xpnet.backends.numpy_optimizers import NumpyOptimizers
from xpnet.backends.numpy_pool import NumpyPooling


class NumpyBackend(NumpyConvolution, NumpyPooling, NumpyElementwise, NumpyOptimizers, NumpyBatches):
    """NumPy on the CPU: tiles that fit the cache, a few threads, recycled memory.

    What is not overridden (softmax, dropout) is fast enough as base.py has it. With `winograd=0`
    3x3 convolutions are direct sums, and a NaN or an infinity reaches only the outputs whose window
    contains it.
    """

    name = "numpy"
