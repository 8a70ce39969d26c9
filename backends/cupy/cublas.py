"""Products by NVIDIA's cuBLAS, with a separate handle: CuPy's cannot be used during a capture.

cuBLAS stores a matrix column by column, xpnet row by row. The same memory, read column by column,
is the transpose, and

    C = A B     is computed as      C^T = B^T A^T

so the operands change places, and an operand that is transposed here is transposed for cuBLAS, too.
The same version of the library gives the same bits on the same kind of GPU; another version may
not.
"""

from __future__ import annotations

import ctypes
import threading
import weakref
from typing import Any, NamedTuple

import numpy as np

from xpnet.backends.base import Array

# Numbers of cublas_api.h and library_types.h.
SUCCESS, DEFAULT_ALGORITHM = 0, -1
NO_SUMS_IN_HALF = 16  # a mode: partial sums are added in the compute type
TYPES = {np.dtype(np.float16): 2, np.dtype(np.float32): 0, np.dtype(np.float64): 1}
# {name of a Math: compute type}
COMPUTE = {"Fma<__half>": 68, "Half": 68, "Fma<float>": 68, "Tf32": 77, "Fma<double>": 70}

POINTER, INT, LONG, SIZE = ctypes.c_void_p, ctypes.c_int, ctypes.c_longlong, ctypes.c_size_t
OPERAND = POINTER, INT, INT, LONG  # address, type, elements from line to line and group to group
FUNCTIONS: dict[str, tuple[Any, ...]] = {
    "cublasCreate_v2": (POINTER,),
    "cublasDestroy_v2": (POINTER,),
    "cublasSetMathMode": (POINTER, INT),
    "cublasSetStream_v2": (POINTER, POINTER),
    "cublasSetWorkspace_v2": (POINTER, POINTER, SIZE),
    "cublasGetStatusName": (INT,),
    "cublasGemmStridedBatchedEx": (POINTER, INT, INT, INT, INT, INT, POINTER, *OPERAND, *OPERAND,
                                   POINTER, *OPERAND, INT, INT, INT),
}


class Matrices(NamedTuple):
    """One matrix per group, row by row; `turned` if the product uses its transpose."""

    array: Array
    turned: bool
    line: int
    group: int

    @property
    def operand(self) -> tuple[int, int, int, int]:
        return self.array.data.ptr, TYPES[self.array.dtype], self.line, self.group


class Cublas:
    """A handle for one GPU, which must be the current one when the handle is made or used.

    Each product sets the stream and the workspace, one thread at a time. The workspace comes from
    the current memory pool, so that a product in a CUDA graph uses memory that exists as long as
    the graph.
    """

    def __init__(self, library: Any, cuda: Any, device: int) -> None:
        self._library, self._lock, self._handle = library, threading.Lock(), POINTER()
        self._call("cublasCreate_v2", ctypes.byref(self._handle))
        # Not at the end of the process, when CUDA may be shut down already.
        weakref.finalize(self, _destroy, library, self._handle, cuda, device).atexit = False
        self._call("cublasSetMathMode", self._handle, NO_SUMS_IN_HALF)
        # At least what NVIDIA recommends: 32 MiB from sm_90 on, 4 MiB before.
        self.workspace_bytes = (32 if int(cuda.Device(device).compute_capability) >= 90
                                else 8) << 20

    def multiply(self, math: str, sizes: tuple[int, int, int, int], a: Matrices, b: Matrices,
                 c: Matrices, *, accumulate: bool, stream: int, workspace: Array) -> None:
        """C = A B, or C += A B, for sizes (groups, M, N, K)."""
        groups, M, N, K = sizes
        number = ctypes.c_double if math == "Fma<double>" else ctypes.c_float
        alpha, beta = number(1), number(accumulate)
        about = f"for {groups} products ({M}, {K}) x ({K}, {N}) of {a.array.dtype}, {math}"
        with self._lock:
            # Setting the stream resets the workspace.
            self._call("cublasSetStream_v2", self._handle, stream, about=about)
            self._call("cublasSetWorkspace_v2", self._handle, workspace.data.ptr, workspace.nbytes,
                       about=about)
            self._call("cublasGemmStridedBatchedEx", self._handle, b.turned, a.turned, N, M, K,
                       ctypes.byref(alpha), *b.operand, *a.operand, ctypes.byref(beta), *c.operand,
                       groups, COMPUTE[math], DEFAULT_ALGORITHM, about=about)

    def _call(self, function: str, *arguments: Any, about: str = "") -> None:
        status = getattr(self._library, function)(*arguments)
        if status != SUCCESS:
            name = self._library.cublasGetStatusName(status).decode()
            raise RuntimeError(f"{function}: expected CUBLAS_STATUS_SUCCESS. Received: {name} "
                               f"{about}".rstrip() + ".")


def _destroy(library: Any, handle: Any, cuda: Any, device: int) -> None:
    with cuda.Device(device):
        library.cublasDestroy_v2(handle)


def find(cuda: Any) -> Any:
    """The library that CuPy has loaded, with the arguments of its functions declared; None if CuPy
    has none."""
    try:
        if getattr(cuda, "cublas", None) is None:       # this access makes CuPy load it
            return None
        from cuda.pathfinder import load_nvidia_dynamic_lib
        library = ctypes.CDLL(str(load_nvidia_dynamic_lib("cublas").abs_path))
        for name, arguments in FUNCTIONS.items():
            getattr(library, name).argtypes = arguments
    # There is no module or no file, it is not found, or it is too old.
    except (ImportError, OSError, RuntimeError, AttributeError):
        return None
    library.cublasGetStatusName.restype = ctypes.c_char_p
    return library


def opened(cuda: Any, device: int) -> Cublas | None:
    """A handle for this GPU; None if there is no library or it does not work with this driver."""
    library = find(cuda)
    try:
        with cuda.Device(device):
            return None if library is None else Cublas(library, cuda, device)
    except RuntimeError:
        return None
