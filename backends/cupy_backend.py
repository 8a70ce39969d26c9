"""NVIDIA GPUs through CuPy: the kernels of cuda_kernels/ where CuPy has none, and plain xp for the rest.

The only file that imports cupy, and only when a GPU is asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xpnet.backends import BackendError, cuda_launch
from xpnet.backends.base import Array, Backend
from xpnet.backends.window import Window

INSTALL = 'pip install "xpnet[cuda13]" (or "xpnet[cuda12]" for drivers before 580)'


def device_count() -> int:
    """Number of GPUs, at least 1; a BackendError with reason and remedy where CuPy or the GPU cannot be used."""
    cupy = _import_cupy()
    try:
        count = cupy.cuda.runtime.getDeviceCount()
    except cupy.cuda.runtime.CUDARuntimeError as error:
        raise BackendError(f"cupy: CuPy is installed, but there is no usable NVIDIA driver ({error})",
                           "Install or update the driver until the command nvidia-smi lists a GPU, "
                           'or use the backend "numpy"') from error
    if count == 0:
        raise BackendError("cupy: CuPy and the NVIDIA driver are installed, but there is no GPU",
                           "Look for it with the command nvidia-smi and in CUDA_VISIBLE_DEVICES, "
                           'or use the backend "numpy"')
    return count


def _import_cupy() -> Any:
    try:
        import cupy
    except ImportError as error:
        reason = " ".join(str(error).split())
        raise BackendError(f"cupy: CuPy cannot be imported ({reason})", f"Install it: {INSTALL}") from error
    return cupy


class CupyBackend(Backend):
    """One NVIDIA GPU. Errors: BackendError where it cannot be used.

    Methods that are overridden here run on the backend's own device. Plain xp code, inherited or a layer's, runs on
    the current one: put it inside `with backend.scope():` where that may be another GPU.
    CuPy's compiler options make subnormal float32 numbers count as zero in comparisons and sums, here as in CuPy.
    """

    name = "cupy"

    def __init__(self, device: int = 0, note: str = "") -> None:
        count = device_count()
        if not 0 <= device < count:
            raise BackendError(f"cupy:{device}: there is no such GPU",
                               f"Use one of these: {', '.join(f'cupy:{d}' for d in range(count))}")
        super().__init__(_import_cupy(), note)
        self.name = f"cupy:{device}"
        self.device = device
        self._functions: dict[str, Any] = {}
        self._check()

    def _check(self) -> None:
        """Compiles and runs a kernel, so that a GPU that does nothing is found now and not in the first epoch."""
        try:
            self.random_bits(1, (0, 0), self.asarray(np.zeros(2, np.uint64)))
        except (RuntimeError, MemoryError, self.xp.cuda.compiler.CompileException) as error:
            reason = " ".join(str(error).split())[:500]
            raise BackendError(f"{self.name}: the GPU is there, but cannot compile and run a kernel ({reason})",
                               f"Install CuPy together with its CUDA components: {INSTALL}") from error

    # --- device and memory ----------------------------------------------------------------------------------------

    def scope(self) -> AbstractContextManager[Any]:
        return self.xp.cuda.Device(self.device)

    def empty(self, shape: tuple[int, ...], dtype: Any) -> Array:
        with self.scope():
            return self.xp.empty(shape, dtype)

    def asarray(self, a: Any, dtype: Any = None) -> Array:
        with self.scope():
            if isinstance(a, self.xp.ndarray) and a.device.id != self.device:
                a = a.copy()                            # CuPy copies to the current device
            return super().asarray(a, dtype)

    def to_numpy(self, a: Array) -> np.ndarray:
        with self.scope():
            return self.xp.asnumpy(a)

    def synchronize(self) -> None:
        self.xp.cuda.Device(self.device).synchronize()

    # --- launching ------------------------------------------------------------------------------------------------

    def _launch(self, kernel: str, launch: tuple[cuda_launch.Grid, cuda_launch.Grid], *args: Any) -> None:
        """Runs a kernel; the first one of a family compiles all of the family (CuPy keeps the result on the disk)."""
        with self.scope():
            if kernel not in self._functions:
                family, names = next(item for item in cuda_launch.kernels().items() if kernel in item[1])
                module = self.xp.RawModule(code=cuda_launch.source(family), options=cuda_launch.OPTIONS,
                                           name_expressions=names)
                self._functions |= {name: module.get_function(name) for name in names}
            self._functions[kernel](*launch, args)

    def _contiguous(self, a: Array) -> Array:
        with self.scope():
            return self.xp.ascontiguousarray(a)

    @staticmethod
    def _width(n: int, *arrays: Array) -> int:
        return cuda_launch.vector_width(n, [(a.data.ptr, a.itemsize) for a in arrays])

    # --- convolution ----------------------------------------------------------------------------------------------

    def im2col(self, x: Array, window: Window) -> Array:
        if window.pointwise or x.dtype not in cuda_launch.TYPES:
            return super().im2col(x, window)
        C, H, W, N = x.shape
        OH, OW = window.output_size(H, W)
        x = self._contiguous(x)
        cols = self.empty((C * window.taps, OH * OW * N), x.dtype)
        V = self._width(N, x, cols)
        self._launch(f"im2col<{cuda_launch.TYPES[x.dtype]}, {V}>",
                     cuda_launch.row_launch(C, window.taps * OH, OW, N // V),
                     x, cols, np.int32(C), cuda_launch.window_struct(x.shape, window))
        return cols

    def col2im(self, cols: Array, x_shape: tuple[int, ...], window: Window) -> Array:
        if window.pointwise or cols.dtype not in cuda_launch.TYPES:
            return super().col2im(cols, x_shape, window)
        C, H, W, N = x_shape
        cols = self._contiguous(cols)
        x = self.empty(x_shape, cols.dtype)
        V = self._width(N, cols, x)
        self._launch(f"col2im<{cuda_launch.TYPES[x.dtype]}, {V}>", cuda_launch.row_launch(C, H, W, N // V),
                     cols, x, np.int32(C), cuda_launch.window_struct(x_shape, window))
        return x

    # --- pooling --------------------------------------------------------------------------------------------------

    def max_pool2d(self, x: Array, window: Window) -> tuple[Array, Array]:
        if x.dtype not in cuda_launch.TYPES:
            return super().max_pool2d(x, window)
        C, H, W, N = x.shape
        OH, OW = window.output_size(H, W)
        x = self._contiguous(x)
        y = self.empty((C, OH, OW, N), x.dtype)
        argmax = self.empty(y.shape, self.argmax_dtype(window))
        V = self._width(N, x, y, argmax)
        types = f"{cuda_launch.TYPES[x.dtype]}, {cuda_launch.INDEX_TYPES[argmax.dtype]}"
        self._launch(f"max_pool<{types}, {V}>", cuda_launch.row_launch(C, OH, OW, N // V),
                     x, y, argmax, np.int32(C), cuda_launch.window_struct(x.shape, window))
        return y, argmax

    def max_pool2d_dx(self, dy: Array, argmax: Array, x_shape: tuple[int, ...], window: Window) -> Array:
        if dy.dtype not in cuda_launch.TYPES:
            return super().max_pool2d_dx(dy, argmax, x_shape, window)
        C, H, W, N = x_shape
        dy, argmax = self._contiguous(dy), self._contiguous(argmax)
        dx = self.empty(x_shape, dy.dtype)
        V = self._width(N, dy, dx, argmax)
        types = f"{cuda_launch.TYPES[dy.dtype]}, {cuda_launch.INDEX_TYPES[argmax.dtype]}"
        self._launch(f"max_pool_dx<{types}, {V}>", cuda_launch.row_launch(C, H, W, N // V),
                     dy, argmax, dx, np.int32(C), cuda_launch.window_struct(x_shape, window))
        return dx

    # --- dropout --------------------------------------------------------------------------------------------------

    def random_bits(self, n: int, key: tuple[int, int], counter: Array) -> Array:
        bits = self.empty((n,), np.uint32)
        self._launch("random_bits", cuda_launch.flat_launch(-(-n // 8)),
                     bits, np.int64(n), np.uint64(key[0]), np.uint64(key[1]), counter)
        return bits

    def dropout(self, x: Array, p: float, key: tuple[int, int], counter: Array) -> tuple[Array, Array]:
        if x.dtype not in cuda_launch.TYPES:
            return super().dropout(x, p, key, counter)
        x = self._contiguous(x)
        y, keep = self.empty(x.shape, x.dtype), self.empty(x.shape, np.bool_)
        V = self._width(x.size, x, y, keep)
        self._launch(f"dropout<{cuda_launch.TYPES[x.dtype]}, {V}>", cuda_launch.flat_launch(-(-x.size // 8)),
                     x, y, keep, np.int64(x.size), np.uint64(round(p * 2.0**32)), np.float64(1.0 / (1.0 - p)),
                     np.uint64(key[0]), np.uint64(key[1]), counter)
        return y, keep
