"""What the parts of the CuPy backend share: the device, its memory, and the launch of kernels.

The only file that imports cupy, and only when a GPU is asked for.
"""

from __future__ import annotations

from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from xpnet.backends import TF32, BackendError, cuda_launch
from xpnet.backends.arguments import expect_choice
from xpnet.backends.base import Array, Backend

INSTALL = 'pip install "xpnet[cuda13]" (or "xpnet[cuda12]" for drivers before 580)'

USUAL_SHARED = 48 << 10         # bytes of shared memory that a block gets without asking for more


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


class CupyBase(Backend):
    """Device, memory and launches of one GPU."""

    name = "cupy"

    def __init__(self, device: int = 0, note: str = "", *, tf32: str = "convolutions") -> None:
        tf32 = expect_choice("CupyBackend", "tf32", tf32, TF32)
        count = device_count()
        if not 0 <= device < count:
            raise BackendError(f"cupy:{device}: there is no such GPU",
                               f"Use one of these: {', '.join(f'cupy:{d}' for d in range(count))}")
        super().__init__(_import_cupy(), note)
        self.name = f"cupy:{device}"
        self.device = device
        self.tf32 = tf32
        self.matrix_units = int(self.xp.cuda.Device(device).compute_capability) >= 80
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

    def _launch(self, family: str, kernel: str, launch: tuple[cuda_launch.Grid, cuda_launch.Grid], *args: Any,
                shared: int = 0) -> None:
        """Runs a kernel of cuda_kernels/<family>.cu. Its first launch compiles it (CuPy keeps the result on the disk).

        `shared` is a number of bytes of shared memory for each block, the same in every launch of a kernel.
        """
        with self.scope():
            function = self._functions.get(kernel)
            if function is None:
                module = self.xp.RawModule(code=cuda_launch.source(family), options=cuda_launch.OPTIONS,
                                           name_expressions=(kernel,))
                function = self._functions[kernel] = module.get_function(kernel)
                if shared > USUAL_SHARED:
                    function.max_dynamic_shared_size_bytes = shared
            function(*launch, args, shared_mem=shared)

    def _contiguous(self, a: Array) -> Array:
        with self.scope():
            return self.xp.ascontiguousarray(a)

    @staticmethod
    def _width(n: int, *arrays: Array) -> int:
        return cuda_launch.vector_width(n, [(a.data.ptr, a.itemsize) for a in arrays])
