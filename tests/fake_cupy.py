"""A CuPy without a GPU: arrays are NumPy's, RawModule is the shim, and everything that CuPy forbids raises.

    with installed(FakeCupy(folder, gpus=2)): backend = CupyBackend(1)

So the real cupy_backend.py runs, with its launch arithmetic, on the real kernel sources. Stricter than CuPy where
CuPy would silently be slow: a host synchronisation inside a method, and an array of another GPU than the current one.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import shim

from xpnet.backends import cuda_launch
from xpnet.backends.cupy_backend import kernels as backend_kernels

TO_DEVICE = {"array", "asarray", "ascontiguousarray"}       # the functions that may take NumPy arrays


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the memory of a pretended GPU. The host sees it only through `asnumpy`."""

    def __init__(self, cupy: FakeCupy, a: np.ndarray) -> None:
        self._cupy, self._a, self.device = cupy, np.asarray(a), SimpleNamespace(id=cupy.current)

    def _wrap(self, a: Any) -> DeviceArray:
        return DeviceArray(self._cupy, a)

    def _host(self, a: Any) -> Any:
        """What NumPy is to work on: arrays of the current GPU, and scalars."""
        if isinstance(a, DeviceArray):
            if a.device.id != self._cupy.current:
                raise RuntimeError(f"the array is on GPU {a.device.id}, the current one is {self._cupy.current}")
            return a._a
        if isinstance(a, np.ndarray):
            raise TypeError("Unsupported type <class 'numpy.ndarray'>")
        if isinstance(a, tuple | list):
            return type(a)(self._host(item) for item in a)
        if isinstance(a, slice):
            return slice(*(self._host(item) for item in (a.start, a.stop, a.step)))
        return a

    # NumPy functions other than ufuncs, and conversions: as in CuPy, no.
    def __array__(self, *_: Any, **__: Any) -> np.ndarray:
        raise TypeError("Implicit conversion to a NumPy array is not allowed.")

    def __array_function__(self, function: Any, *_: Any) -> Any:
        raise TypeError(f"numpy.{function.__name__} was called with an array of the GPU")

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None, **options: Any) -> Any:
        if out is not None:
            options["out"] = tuple(self._host(a) for a in out)
        result = getattr(ufunc, method)(*(self._host(a) for a in inputs), **options)
        return out[0] if out is not None else self._wrap(result)

    def _synchronises(self, *_: Any) -> Any:
        raise RuntimeError("this waits for the GPU inside a step")

    __bool__ = __float__ = __int__ = __index__ = __complex__ = item = tolist = _synchronises

    # Attributes and methods that CuPy's arrays share with NumPy's.
    shape = property(lambda self: self._a.shape)
    dtype = property(lambda self: self._a.dtype)
    size = property(lambda self: self._a.size)
    ndim = property(lambda self: self._a.ndim)
    itemsize = property(lambda self: self._a.itemsize)
    nbytes = property(lambda self: self._a.nbytes)
    flags = property(lambda self: self._a.flags)
    data = property(lambda self: SimpleNamespace(ptr=self._a.ctypes.data))
    T = property(lambda self: self._view(self._a.T))

    def _view(self, a: np.ndarray) -> DeviceArray:
        view = self._wrap(a)
        view.device = self.device
        return view

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> DeviceArray:
        return self._view(self._a[self._host(key)])

    def __setitem__(self, key: Any, value: Any) -> None:
        self._a[self._host(key)] = self._host(value)

    def __getattr__(self, name: str) -> Any:
        if name not in {"reshape", "transpose", "astype", "sum", "max", "min", "mean", "var", "argmax", "fill", "copy",
                        "ravel", "all", "any"}:
            raise AttributeError(f"the fake CuPy array has no {name}")

        def method(*args: Any, **options: Any) -> Any:
            # a copy may be of an array that lies elsewhere: it is how arrays move
            a = self._a if name == "copy" else self._host(self)
            result = getattr(a, name)(*(self._host(arg) for arg in args), **options)
            return None if result is None else self._wrap(result)
        return method


class FakeCupy:
    """The module. `kernels` restricts what is compiled to the names that contain one of these words; `checks` are the
    sanitizers."""

    ndarray = DeviceArray

    def __init__(self, folder: Path, gpus: int = 1, kernels: Sequence[str] = ("",),
                 checks: Sequence[str] = shim.CHECKS) -> None:
        self.current = 0
        self._families: dict[str, shim.Library] = {}
        fake = self

        class Device:
            def __init__(self, number: int) -> None:
                self.id, self._before = number, []

            def __enter__(self) -> Device:
                self._before.append(fake.current)
                fake.current = self.id
                return self

            def __exit__(self, *_: object) -> None:
                fake.current = self._before.pop()

            def synchronize(self) -> None:
                pass

        class RawModule:
            """One kernel of a family. All of a family, as far as `kernels` lets it, is compiled at once: g++ takes its time."""

            def __init__(self, *, code: str, options: Sequence[str], name_expressions: Sequence[str]) -> None:
                assert "-std=c++17" in options
                if code not in fake._families:
                    names = next(names for family, names in backend_kernels().items() if cuda_launch.source(family) == code)
                    names = tuple(name for name in names if any(word in name for word in kernels))
                    fake._families[code] = shim.Library(code, names, folder, checks)
                self.library = fake._families[code]
                assert set(name_expressions) <= set(self.library.numbers), f"{name_expressions} is not listed"

            def get_function(self, name: str) -> Any:
                def function(grid: Sequence[int], block: Sequence[int], args: Sequence[Any]) -> None:
                    check_limits(grid, block)
                    self.library(name, grid, block, [fake._argument(a) for a in args])
                return function

        class CUDARuntimeError(RuntimeError):
            pass

        class CompileException(Exception):      # noqa: N818 - CuPy's name
            pass

        self.RawModule = RawModule
        self.cuda = SimpleNamespace(Device=Device, compiler=SimpleNamespace(CompileException=CompileException),
                                    runtime=SimpleNamespace(getDeviceCount=lambda: gpus, CUDARuntimeError=CUDARuntimeError))

    @property
    def libraries(self) -> list[shim.Library]:
        return list(self._families.values())

    def _argument(self, a: Any) -> Any:
        """An argument of a kernel as the shim takes it: an array of the GPU, a NumPy scalar, or a struct."""
        if isinstance(a, DeviceArray):
            assert a.flags.c_contiguous, "a kernel was given an array that is not contiguous"
            return a._host(a)
        assert isinstance(a, np.generic) or (isinstance(a, np.ndarray) and a.size == 1), f"argument {a!r} is untyped"
        return a

    def empty(self, shape: Any, dtype: Any = float) -> DeviceArray:
        a = np.empty(shape, dtype)
        a.view(np.uint8 if a.ndim else a.dtype)[...] = 0xA5     # what a kernel forgets to write is seen
        return DeviceArray(self, a)

    def asnumpy(self, a: Any) -> np.ndarray:
        return a._a.copy() if isinstance(a, DeviceArray) else np.asarray(a)

    def __getattr__(self, name: str) -> Any:
        """NumPy's function of that name, on arrays of the GPU."""
        function = getattr(np, name)
        if not callable(function) or isinstance(function, type):
            return function

        def on_device(*args: Any, **options: Any) -> Any:
            probe = DeviceArray(self, np.empty(0))
            host = [a if name in TO_DEVICE and isinstance(a, np.ndarray) else probe._host(a) for a in args]
            result = function(*host, **{key: probe._host(value) for key, value in options.items()})
            if name in TO_DEVICE and isinstance(args[0], DeviceArray) and result is args[0]._a:
                return args[0]
            if name in TO_DEVICE and isinstance(args[0], np.ndarray):
                result = result.copy()                          # a transfer is a copy
            return DeviceArray(self, result)
        return on_device


def check_limits(grid: Sequence[int], block: Sequence[int]) -> None:
    """What every GPU since compute capability 3.0 accepts."""
    assert len(grid) == len(block) == 3 and min(*grid, *block) >= 1
    assert grid[0] < 2**31 and max(grid[1:]) < 2**16
    assert max(block[:2]) <= 1024 and block[2] <= 64 and block[0] * block[1] * block[2] <= 1024


@contextmanager
def installed(cupy: Any) -> Iterator[Any]:
    """`import cupy` gives this while the block lasts; None makes it an ImportError."""
    before = sys.modules.get("cupy", ...)
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        if before is ...:
            del sys.modules["cupy"]
        else:
            sys.modules["cupy"] = before    # type: ignore[assignment]
