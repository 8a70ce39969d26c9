"""NVIDIA GPUs through CuPy: the device, its memory, and the functions that are the methods.

Only this file and nccl.py import cupy, and only when a GPU is used.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.backends.arguments import TF32, expect_choice
from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import (
    batches,
    capture,
    collector,
    conv,
    depthwise,
    elementwise,
    normalization,
    optimizers,
    pool,
    product,
    recurrent,
    streams,
    totals,
    tuning,
    uploads,
    warpgroups,
)
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.errors import BackendError

INSTALL = 'pip install "xpnet[cuda13]" (or "xpnet[cuda12]" for drivers before 580)'

USUAL_SHARED = 48 << 10         # bytes of shared memory that a block gets without asking for more


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels by family, {"im2col": ("im2col<float, 4>", ...), ...}, so that tests
    can run each of them."""
    modules = (product, conv, warpgroups, depthwise, pool, elementwise, normalization, optimizers,
               batches, totals, recurrent)
    return {family: names for module in modules for family, names in module.kernels().items()}


def device_count() -> int:
    """Number of GPUs, at least 1. Raises BackendError with reason and remedy if CuPy or the GPU
    cannot be used."""
    cupy = import_cupy()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError("cupy: CuPy is installed, but there is no usable NVIDIA driver "
                           f"({str(error).partition(':')[0]})",
                           "Install or update the driver until the command nvidia-smi lists a GPU, "
                           'or use the backend "numpy"') from error
    if count == 0:
        raise BackendError("cupy: CuPy and the NVIDIA driver are installed, but there is no GPU",
                           "Look for it with the command nvidia-smi and in CUDA_VISIBLE_DEVICES, "
                           'or use the backend "numpy"')
    return count


def import_cupy() -> Any:
    """The module. Raises BackendError if it cannot be imported."""
    try:
        import cupy
    except ImportError as error:
        reason = ("CuPy is not installed" if getattr(error, "name", None) == "cupy"
                  else f"CuPy cannot be imported ({' '.join(str(error).split())})")
        raise BackendError(f"cupy: {reason}", f"Install it: {INSTALL}") from error
    return cupy


class CupyBackend(Backend):
    """One NVIDIA GPU. Raises BackendError if it cannot be used.

    The methods in this class run on the device of the backend. Plain array code, inherited or in a
    layer, runs on the current device: put it into `with backend.scope():` if that may be another
    GPU. The kernels are compiled with CuPy's options: as in CuPy, subnormal float32 numbers count
    as zero in comparisons and sums.

    Args:
        device: the number of the GPU.
        tf32: which products round float32 operands to TF32, the format of the matrix units with 10
            bits of fraction: "never", those of "convolutions", or "always". Depthwise convolutions
            are no products and never do.
        autotune: whether to measure which of several alternatives is fastest for a new shape.
    """

    name = "cupy"
    captures = True

    gemm = product.gemm
    products = product.products
    im2col = conv.im2col
    col2im = conv.col2im
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
    softmax_dx = elementwise.softmax_dx
    softmax_cross_entropy = elementwise.softmax_cross_entropy
    random_bits = elementwise.random_bits
    dropout = elementwise.dropout
    dropout_dx = elementwise.dropout_dx
    batch_norm = normalization.batch_norm
    batch_norm_inference = normalization.batch_norm_inference
    batch_norm_backward = normalization.batch_norm_backward
    update_running = normalization.update_running
    update = optimizers.update
    tally = totals.tally
    argmax = elementwise.argmax
    scan = recurrent.scan
    scan_backward = recurrent.scan_backward
    gather_batch = batches.gather_batch
    assign = batches.assign
    advance = batches.advance
    feed = batches.feed
    collector = collector.collector
    stream = streams.stream
    _recorded = capture.recorded
    capture = capture.capture

    _product = product.multiply
    _gpu = cached_property(product.gpu)
    _warpgroups = cached_property(warpgroups.usable)
    _cublas = cached_property(product.open_cublas)
    _cublas_now = product.cublas_now
    _faster = conv.faster
    _gather = batches.gather
    _upload = uploads.upload
    _lane = cached_property(streams.lane)
    _way = tuning.way
    _seconds = tuning.seconds
    _is_capturing = tuning.is_capturing
    _table = cached_property(tuning.table)
    _remembered = tuning.remembered
    _memory_file = tuning.memory_file

    def __init__(self, device: int = 0, note: str = "", *, tf32: str = "convolutions",
                 autotune: bool = False) -> None:
        tf32 = expect_choice("CupyBackend", "tf32", tf32, TF32)
        count = device_count()
        if not 0 <= device < count:
            raise BackendError(f"cupy:{device}: there is no such GPU",
                               f"Use one of these: {', '.join(f'cupy:{d}' for d in range(count))}")
        super().__init__(import_cupy(), note)
        self.name = f"cupy:{device}"
        self.device = device
        self.tf32 = tf32
        self.matrix_units = int(self.xp.cuda.Device(device).compute_capability) >= 80
        self._scope = self.xp.cuda.Device(device)
        self._functions: dict[str, Any] = {}
        self.autotune = autotune
        if autotune:
            self.tuning |= self._remembered()
        self._zero = self.zeros((1,), np.int64)     # for pointers that a kernel does not use
        self._check()

    def _check(self) -> None:
        """Compile and run a kernel, so that a GPU that does not work is noticed now and not in the
        first epoch."""
        try:
            self.random_bits(1, (0, 0), self.asarray(np.zeros(2, np.uint64)))
            self.synchronize()          # errors of a kernel are reported when it has ended
        except (RuntimeError, MemoryError, self.xp.cuda.compiler.CompileException) as error:
            reason = " ".join(str(error).split())[:500]
            raise BackendError(f"{self.name}: the GPU is there, but cannot compile and run a "
                               f"kernel ({reason})",
                               f"Install CuPy together with its CUDA components: {INSTALL}"
                               ) from error

    def scope(self) -> AbstractContextManager[Any]:
        return self._scope              # CuPy keeps the devices to return to by thread

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self._scope:
            return self.xp.empty(shape, dtype)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        with self.scope():
            if isinstance(a, self.xp.ndarray) and a.device.id != self.device:
                a = a.copy()                            # CuPy copies to the current device
            if uploads.is_large(a):
                return self._upload(a if dtype is None else a.astype(dtype, copy=False))
            return super().asarray(a, dtype)

    def _overlap(self, a: Array, b: Array) -> bool:
        return bool(a.data.ptr < b.data.ptr + b.nbytes and b.data.ptr < a.data.ptr + a.nbytes)

    def to_numpy(self, a: Array) -> np.ndarray:
        with self.scope():
            return self.xp.asnumpy(a)

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.device).synchronize()

    def _launch(self, family: str, kernel: str, launch: tuple[cuda_launch.Grid, cuda_launch.Grid],
                *args: Any, shared: int = 0) -> None:
        """Run a kernel of kernels/<family>.cu. Its first launch compiles it; CuPy keeps the result
        on the disk.

        `shared` is the number of bytes of shared memory per block, the same in all launches of a
        kernel.
        """
        with self._scope:
            function = self._functions.get(kernel)
            if function is None:
                module = self.xp.RawModule(code=cuda_launch.source(family),
                                           options=cuda_launch.options(family),
                                           name_expressions=(kernel,))
                function = self._functions[kernel] = module.get_function(kernel)
                if shared > USUAL_SHARED:
                    function.max_dynamic_shared_size_bytes = shared
            function(*launch, args, shared_mem=shared)

    def _contiguous(self, a: Array) -> Array:
        if a.flags.c_contiguous:
            return a
        with self._scope:
            return self.xp.ascontiguousarray(a)

    @staticmethod
    def _width(n: int, *arrays: Array) -> int:
        return cuda_launch.vector_width(n, [(a.data.ptr, a.itemsize) for a in arrays])
