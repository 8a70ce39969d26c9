"""A CuPy without a GPU: arrays are NumPy's, RawModule is the shim, and everything that CuPy forbids
raises.

    with installed(FakeCupy(folder, gpus=2)): backend = CupyBackend(1)

So the real cupy_backend.py runs, with its launch arithmetic, on the real kernel sources. Stricter
than CuPy where CuPy would silently be slow: a host synchronisation inside a method, and an array of
another GPU than the current one. Streams, captures and memory: see fake_streams.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_streams
import numpy as np
import shim
from fake_streams import CUDARuntimeError, Gpus, overwrite, root_of

from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import kernels as backend_kernels

TO_DEVICE = {"array", "asarray", "ascontiguousarray"}  # the functions that may take NumPy arrays
JOINING = {"concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"}
CUBLAS = {"matmul", "dot", "inner", "vdot", "tensordot", "einsum"}


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the memory of a pretended GPU. The host sees it only through `asnumpy`."""

    def __init__(self, cupy: FakeCupy, a: np.ndarray) -> None:
        self._cupy, self._a, self.device = cupy, np.asarray(a), SimpleNamespace(id=cupy.current)
        self._buffer = cupy.gpus.buffer(self._a)

    def _host(self, a: Any) -> Any:
        """What NumPy is to work on: arrays of the current GPU, and scalars."""
        if isinstance(a, DeviceArray):
            if a.device.id != self._cupy.current:
                raise RuntimeError(f"the array is on GPU {a.device.id}, the current one is "
                                   f"{self._cupy.current}")
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

    def __array_ufunc__(self, ufunc: Any, method: str, *inputs: Any, out: Any = None,
                        **options: Any) -> Any:
        if ufunc is np.matmul:
            self._cupy.check_cublas()
        host, to = ([self._host(a) for a in inputs],
                    None if out is None else tuple(self._host(a) for a in out))
        if out is not None:
            self._cupy.change(lambda: getattr(ufunc, method)(*host, out=to, **options), *inputs,
                              *out)
            return out[0]
        return self._cupy.new(lambda: getattr(ufunc, method)(*host, **options), *inputs)

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
    data = (property(lambda self: SimpleNamespace(ptr=self._a.ctypes.data,
                                                  copy_from_host_async=self._copy_from_host,
                                                  copy_to_host_async=self._copy_to_host)))
    T = property(lambda self: self._view(self._a.T))
    __cuda_array_interface__ = (
        property(lambda self: {"shape": self.shape, "typestr": self.dtype.str}))

    def _view(self, a: np.ndarray) -> DeviceArray:
        view = DeviceArray(self._cupy, a)
        view.device = self.device
        return view

    def _copy_from_host(self, address: int, size: int, stream: fake_streams.Stream) -> None:
        source = self._cupy.gpus.pinned_bytes(address, size)  # what is there when the copy is made
        target = self._a.reshape(-1).view(np.uint8)[:size]
        self._cupy.gpus.shipped += size
        stream.do(lambda: np.copyto(target, source), [self._buffer])

    def _copy_to_host(self, address: int, size: int, stream: fake_streams.Stream) -> None:
        if stream.recording is not None:
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        target = self._cupy.gpus.pinned_bytes(address, size)
        source = self._a.reshape(-1).view(np.uint8)[:size]
        stream.do(lambda: np.copyto(target, source), [self._buffer])

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> DeviceArray:
        keys = _arrays(key)
        # a number, too, is a view
        where = self._host(keys if any(k is ... for k in keys) else (*keys, ...))
        if not any(isinstance(k, DeviceArray) for k in keys):
            return self._view(self._a[where])
        somewhere = tuple(np.zeros_like(k) if isinstance(k, np.ndarray) and k.dtype.kind in "iu"
                          else k for k in where)
        return self._cupy.new(lambda: self._a[where], self, *keys,
                              shaped=lambda: self._a[somewhere])

    def __setitem__(self, key: Any, value: Any) -> None:
        where, what = self._host(key), self._host(value)
        self._cupy.change(lambda: self._a.__setitem__(where, what), self, value, *_arrays(key))

    def fill(self, value: Any) -> None:
        self._cupy.change(lambda: self._a.fill(value), self)

    def __getattr__(self, name: str) -> Any:
        if name not in {"reshape", "transpose", "astype", "sum", "max", "min", "mean", "var",
                        "argmax", "copy", "ravel", "all",
                        "any", "view"}:
            raise AttributeError(f"the fake CuPy array has no {name}")

        def method(*args: Any, **options: Any) -> DeviceArray:
            # a copy may be of an array that lies elsewhere: it is how arrays move
            a, host = (self._a if name == "copy" else self._host(self),
                       [self._host(arg) for arg in args])
            return self._cupy.new(lambda: getattr(a, name)(*host, **options), self, *args)
        return method


def _arrays(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


class FakeCupy:
    """The module. `flags` are those of g++, see shim.py.

    `kernels` restricts what is compiled to the names that contain one of these words.
    """

    ndarray = DeviceArray

    def __init__(self, folder: Path, gpus: int = 1, kernels: Sequence[str] = ("",),
                 flags: Sequence[str] = shim.PLAIN, *, memory: int = 1 << 34,
                 late: Callable[[fake_streams.Stream], bool] = lambda stream: False) -> None:
        self.gpus = Gpus(memory, late)
        self._families: dict[str, shim.Library] = {}
        fake, gpus_there = self, gpus

        class Device:
            compute_capability = "90"

            def __init__(self, number: int) -> None:
                self.id, self._before = number, []

            def __enter__(self) -> Device:
                self._before.append(fake.gpus.current)
                fake.gpus.current = self.id
                return self

            def __exit__(self, *_: object) -> None:
                fake.gpus.current = self._before.pop()

            def synchronize(self) -> None:
                for stream in list(fake.gpus.every):
                    stream.synchronize()

            @property
            def mem_info(self) -> tuple[int, int]:
                return fake.gpus.memory - fake.gpus.used, fake.gpus.memory

        class RawModule:
            """One kernel of a family. All of a family, as far as `kernels` lets it, is compiled at
            once: g++ takes its time."""

            def __init__(self, *, code: str, options: Sequence[str], name_expressions: Sequence[str]
                         ) -> None:
                assert "-std=c++17" in options
                if code not in fake._families:
                    names = next(names for family, names in backend_kernels().items()
                                 if cuda_launch.source(family) == code)
                    names = tuple(name for name in names if any(word in name for word in kernels))
                    fake._families[code] = shim.Library(code, names, folder, flags)
                self.library = fake._families[code]
                assert set(name_expressions) <= set(self.library.numbers), (f"{name_expressions} "
                                                                            "is not listed")

            def get_function(self, name: str) -> Any:
                def function(grid: Sequence[int], block: Sequence[int], args: Sequence[Any], *,
                             shared_mem: int = 0) -> None:
                    check_limits(grid, block)
                    most = getattr(function, "max_dynamic_shared_size_bytes", 48 << 10)
                    assert shared_mem <= most <= 99 << 10, (f"{name}: {shared_mem} bytes of shared "
                                                            "memory")
                    # as they are now: a launch keeps copies of numbers
                    values = [fake._argument(a) for a in args]
                    fake.change(lambda: self.library(name, grid, block, values, shared_mem), *args)
                return function

        class CompileException(Exception):      # noqa: N818 - CuPy's name
            pass

        def set_pinned_memory_allocator(allocator: Callable[[int], Any]) -> None:
            gpus.pinned_allocator = allocator

        gpus = self.gpus
        self.RawModule = RawModule
        self.cuda = SimpleNamespace(
            Device=Device, Stream=partial(fake_streams.Stream, gpus),
            Event=partial(fake_streams.Event, gpus), MemoryPool=fake_streams.MemoryPool,
            Memory=lambda size: size, MemoryPointer=lambda memory, offset: memory,
            using_allocator=gpus.using_allocator, get_current_stream=gpus.stream_of,
            alloc_pinned_memory=lambda size: gpus.pinned_allocator(size),
            set_pinned_memory_allocator=set_pinned_memory_allocator,
            compiler=SimpleNamespace(CompileException=CompileException),
            runtime=SimpleNamespace(getDeviceCount=lambda: gpus_there,
                                    CUDARuntimeError=CUDARuntimeError))
        self.get_default_memory_pool = lambda: gpus.pools[0]
        self.get_default_pinned_memory_pool = lambda: SimpleNamespace(malloc=gpus.malloc_pinned)

    @property
    def current(self) -> int:
        return self.gpus.current

    @property
    def libraries(self) -> list[shim.Library]:
        return list(self._families.values())

    def _argument(self, a: Any) -> Any:
        """An argument of a kernel as the shim takes it: an array of the GPU, a NumPy scalar, or a
        struct."""
        if isinstance(a, DeviceArray):
            assert a.flags.c_contiguous, "a kernel was given an array that is not contiguous"
            return a._host(a)
        assert not isinstance(a, np.ndarray), "a NumPy array is slow; pass a struct as np.void"
        assert isinstance(a, np.generic), f"argument {a!r} is untyped"
        return a.copy()

    # --- what is launched -------------------------------------------------------------------------

    def new(self, function: Callable[[], Any], *involved: Any,
            shaped: Callable[[], Any] | None = None) -> DeviceArray:
        """The result of a function of arrays; of one that is launched later only its shape and its
        type are there yet, those of `shaped` where the function looks at numbers."""
        stream = self.gpus.stream
        if not stream.defers:
            return DeviceArray(self, function())
        with np.errstate(all="ignore"):
            known = np.asarray((shaped or function)())
        if id(root_of(known)) in self.gpus.buffers:
            return DeviceArray(self, known)                     # a view of what is there
        result = DeviceArray(self, np.empty_like(known))
        overwrite(result._a)

        def later(out: np.ndarray = result._a) -> None:
            with np.errstate(all="ignore"):
                np.copyto(out, function())
        stream.do(later, [a._buffer for a in (*involved, result) if isinstance(a, DeviceArray)])
        return result

    def change(self, function: Callable[[], Any], *involved: Any) -> None:
        """A function that writes into arrays."""
        self.gpus.stream.do(function, [a._buffer for a in involved if isinstance(a, DeviceArray)])

    def check_cublas(self) -> None:
        if self.gpus.stream.recording is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently "
                                      "unsupported")

    def _to_device(self, a: np.ndarray) -> DeviceArray:
        """A transfer: CuPy copies to pinned memory first, which it lends to others as soon as that
        was copied."""
        stream, result = self.gpus.stream, DeviceArray(self, np.empty_like(a))
        self.gpus.shipped += a.nbytes
        overwrite(result._a)
        if a.ndim and stream.recording is not None:
            raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
        else:
            copy = a.copy()
            self.change(lambda: np.copyto(result._a, copy), result)
        return result

    def empty(self, shape: Any, dtype: Any = float) -> DeviceArray:
        a = np.empty(shape, dtype)
        # what a kernel forgets to write is seen
        a.view(np.uint8 if a.ndim else a.dtype)[...] = 0xA5
        return DeviceArray(self, a)

    def asnumpy(self, a: Any) -> np.ndarray:
        if not isinstance(a, DeviceArray):
            return np.asarray(a)
        if self.gpus.stream.recording is not None:
            raise RuntimeError("the current stream is capturing, so synchronous API calls are "
                               "disallowed")
        self.gpus.stream.synchronize()
        return a._a.copy()

    def __getattr__(self, name: str) -> Any:
        """NumPy's function of that name, on arrays of the GPU."""
        function = getattr(np, name)
        if not callable(function) or isinstance(function, type):
            return function

        def on_device(*args: Any, **options: Any) -> Any:
            if name in CUBLAS:
                self.check_cublas()
            if name in JOINING and len(args[0]) > 8:
                self._to_device(np.zeros(len(args[0])))     # the addresses of the arrays
            if name in TO_DEVICE and not isinstance(args[0], DeviceArray):
                return self._to_device(function(*args, **options))
            probe = DeviceArray(self, np.empty(0))
            host = [probe._host(a) for a in args]
            named = {key: probe._host(value) for key, value in options.items()}
            if name in TO_DEVICE and function(*host, **named) is args[0]._a:
                return args[0]
            return self.new(lambda: function(*host, **named), *args, *options.values())
        return on_device


def check_limits(grid: Sequence[int], block: Sequence[int]) -> None:
    """What every GPU since compute capability 3.0 accepts."""
    assert len(grid) == len(block) == 3 and min(*grid, *block) >= 1
    assert grid[0] < 2**31 and max(grid[1:]) < 2**16
    assert max(block[:2]) <= 1024 and block[2] <= 64 and block[0] * block[1] * block[2] <= 1024


@contextmanager
def installed(cupy: Any) -> Iterator[Any]:
    """`import cupy` gives this while the block lasts; None makes it an ImportError."""
    # The real cupy loads cupyx when one of its attributes is read, and hypothesis reads all
    # modules.
    hidden = {name: module for name, module in sys.modules.items()
              if name == "cupy" or name.partition(".")[0] == "cupyx"}
    for name in hidden:
        del sys.modules[name]
    sys.modules["cupy"] = cupy
    try:
        yield cupy
    finally:
        del sys.modules["cupy"]
        sys.modules.update(hidden)
