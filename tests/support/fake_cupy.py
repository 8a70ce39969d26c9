"""A CuPy without a GPU: arrays are NumPy's, RawModule is the shim, and everything that CuPy forbids
raises.

    with installed(FakeCupy(folder, gpus=2)): backend = CupyBackend(1)

So the real cupy_backend.py runs, with its launch arithmetic, on the real kernel sources. It has the
names and parameters that cupy_api.py lists. Stricter than CuPy where CuPy would silently be slow: a
host synchronisation inside a method, and an array of another GPU than the current one. Streams and
captures: see fake_streams.py; memory: see fake_memory.py.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any
from unittest import mock

import cupy_api
import fake_memory
import fake_streams
import numpy as np
import shim
from fake_memory import GARBAGE, CUDARuntimeError, Memory, memory_of
from fake_streams import Gpus

from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import warpgroups
from xpnet.backends.cupy.backend import kernels as backend_kernels

TO_DEVICE = {"array", "asarray", "ascontiguousarray"}  # the functions that may take NumPy arrays
# Methods of arrays; more are added when they are used.
METHODS = {"all", "any", "argmax", "astype", "copy", "max", "mean", "min", "ravel", "reshape",
           "sum", "transpose", "var", "view"}
JOINING = {"concatenate", "stack", "hstack", "vstack", "dstack", "column_stack"}
CUBLAS = {"matmul", "dot", "inner", "vdot", "tensordot", "einsum"}
# The size of the result follows from numbers on the GPU, which CuPy waits for.
WAITING = {"nonzero", "flatnonzero", "argwhere", "unique", "bincount", "histogram", "extract"}
TYPES = "?bhilqBHILQefdFD"          # of arrays
SHARED = 99 << 10                   # bytes that a block gets on every GPU from sm_80 on
SHARED_OF_HOPPER = 227 << 10


class DeviceArray(np.lib.mixins.NDArrayOperatorsMixin):
    """An array in the memory of a pretended GPU. The host sees it only through `asnumpy`."""

    OF_THE_FAKE = set[str]()

    def __init__(self, cupy: FakeCupy, a: np.ndarray, memory: Memory) -> None:
        """Use `FakeCupy.kept` or `allocated`, which give an array its memory."""
        self._cupy, self._a, self.device = cupy, a, SimpleNamespace(id=cupy.current)
        self._memory = memory

    def _host(self, a: Any) -> Any:
        return host_of(self._cupy, a)

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
    strides = property(lambda self: self._a.strides)
    flags = property(lambda self: SimpleNamespace(c_contiguous=self._a.flags.c_contiguous,
                                                  f_contiguous=self._a.flags.f_contiguous))
    data = property(lambda self: MemoryPointer(self))
    T = property(lambda self: self._view(self._a.T))
    __cuda_array_interface__ = (
        property(lambda self: {"shape": self.shape, "typestr": self.dtype.str}))

    def __dlpack__(self, **_: Any) -> DeviceArray:
        return self

    def __dlpack_device__(self) -> tuple[int, int]:
        return 2, self.device.id

    def _view(self, a: np.ndarray) -> DeviceArray:
        view = DeviceArray(self._cupy, a, self._memory)
        view.device = self.device
        return view

    def __len__(self) -> int:
        return len(self._a)

    def __iter__(self) -> Iterator[DeviceArray]:
        return (self[k] for k in range(len(self)))

    def __getitem__(self, key: Any) -> DeviceArray:
        keys = _arrays(key)
        # a number, too, is a view
        where = self._key(keys if any(k is ... for k in keys) else (*keys, ...))
        if any(isinstance(k, np.ndarray) and k.dtype == bool for k in where):
            self._synchronises()
        if not any(isinstance(k, np.ndarray) for k in where):
            return self._view(self._a[where])
        somewhere = tuple(np.zeros_like(k) if isinstance(k, np.ndarray) else k for k in where)
        a = self._a
        return self._cupy.new(lambda: a[where], self, *keys, shaped=lambda: a[somewhere])

    def __setitem__(self, key: Any, value: Any) -> None:
        a, where, what = self._a, self._key(_arrays(key)), self._host(value)
        self._cupy.change(lambda: a.__setitem__(where, what), self, value, *_arrays(key))

    def _key(self, keys: tuple[Any, ...]) -> tuple[Any, ...]:
        """Lists are sent to the GPU, as in CuPy."""
        return tuple(self._cupy.to_device(np.array(k))._a if isinstance(k, list) else self._host(k)
                     for k in keys)

    def fill(self, value: Any) -> None:
        a = self._a
        self._cupy.change(lambda: a.fill(value), self)

    def __getattr__(self, name: str) -> Any:
        cupy_api.require("cupy.ndarray", name)
        if name not in METHODS:
            raise AttributeError(f"the fake CuPy array has no {name}")

        def method(*args: Any, **options: Any) -> DeviceArray:
            cupy_api.check("cupy.ndarray", name, args, options)
            # a copy may be of an array that lies elsewhere: it is how arrays move
            a, host = (self._a if name == "copy" else self._host(self),
                       [self._host(arg) for arg in args])
            return self._cupy.new(lambda: getattr(a, name)(*host, **options), self, *args)
        return method


def _arrays(key: Any) -> tuple[Any, ...]:
    return key if isinstance(key, tuple) else (key,)


class MemoryPointer:
    """The address of an array."""

    OF_THE_FAKE = set[str]()

    def __init__(self, array: DeviceArray) -> None:
        self._array, self.ptr, self.device_id = array, array._a.ctypes.data, array.device.id
        if array.size == 0:
            self.ptr = 0

    def copy_from_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        gpus = self._array._cupy.gpus
        source = gpus.pinned.find(mem, size)        # what is there when the copy is made
        target = self._bytes()[:size]
        gpus.shipped += size
        (stream or gpus.stream).do(lambda: np.copyto(target, source), [self._array._memory])

    def copy_to_host_async(self, mem: int, size: int, stream: Any = None) -> None:
        gpus = self._array._cupy.gpus
        stream = stream or gpus.stream
        if stream.recording is not None:
            raise RuntimeError("the current stream is capturing, so D2H transfers are disallowed")
        target, source = gpus.pinned.find(mem, size), self._bytes()[:size]
        stream.do(lambda: np.copyto(target, source), [self._array._memory])

    def copy_from_device_async(self, src: MemoryPointer, size: int, stream: Any = None) -> None:
        source, target = src._bytes()[:size], self._bytes()[:size]
        (stream or self._array._cupy.gpus.stream).do(
            lambda: np.copyto(target, source), [src._array._memory, self._array._memory])

    def _bytes(self) -> np.ndarray:
        return self._array._a.reshape(-1).view(np.uint8)


class FakeCupy:
    """The module. `flags` are those of g++, see shim.py.

    `kernels` restricts what is compiled to the names that contain one of these words.
    """

    ndarray = DeviceArray
    __version__ = cupy_api.table()["version"]

    def __init__(self, folder: Path, gpus: int = 1, kernels: Sequence[str] = ("",),
                 flags: Sequence[str] = shim.PLAIN, *, memory: int = 1 << 34,
                 late: Callable[[fake_streams.Stream], bool] = lambda stream: False) -> None:
        # AddressSanitizer sees the end of an array only where its memory ends there.
        self.gpus = Gpus(memory, late, reuses=flags == shim.PLAIN)
        self._families: dict[str, shim.Library] = {}
        self._folder, self._kernels, self._flags = folder, kernels, flags
        of_this = {"fake": self}
        self.RawModule = type("RawModule", (RawModule,), of_this)
        self.cuda = SimpleNamespace(
            Device=type("Device", (Device,), of_this),
            MemoryHook=type("MemoryHook", (MemoryHook,), of_this),
            Stream=self.gpus.stream_class, Event=self.gpus.new_event, Graph=fake_streams.Graph,
            Memory=lambda size: fake_memory.Block(self.gpus, size, exact=not self.gpus.reuses),
            MemoryPointer=lambda mem, offset: SimpleNamespace(mem=mem, offset=offset),
            MemoryPool=fake_memory.MemoryPool, using_allocator=self.gpus.using_allocator,
            get_current_stream=self.gpus.stream_of,
            get_elapsed_time=fake_streams.elapsed_time,
            alloc_pinned_memory=lambda size: self.gpus.pinned_allocator(size),
            set_pinned_memory_allocator=self._set_pinned_memory_allocator,
            set_allocator=self._set_allocator,
            compiler=SimpleNamespace(CompileException=CompileException),
            nvrtc=SimpleNamespace(getVersion=lambda: (13, 0)),
            runtime=SimpleNamespace(
                getDeviceCount=lambda: gpus, getDevice=lambda: self.gpus.current,
                CUDARuntimeError=CUDARuntimeError,
                runtimeGetVersion=lambda: 13000, driverGetVersion=lambda: 13000,
                memGetInfo=lambda: (memory - self.gpus.taken - self.gpus.default_pool.free_bytes()
                                    * self.gpus.without_gaps, memory),
                getDeviceProperties=lambda device: {"name": b"Pretended GPU"}))
        self.get_default_memory_pool = lambda: self.gpus.default_pool
        self.get_default_pinned_memory_pool = lambda: self.gpus.pinned

    def _set_pinned_memory_allocator(self, allocator: Callable[[int], Any] | None = None) -> None:
        self.gpus.pinned_allocator = allocator or self.gpus.pinned.malloc

    def _set_allocator(self, allocator: Callable[[int], Any] | None = None) -> None:
        if self.gpus.pools:
            raise ValueError("Can't change the global allocator inside `using_allocator` context "
                             "manager")
        self.gpus.allocator = (fake_memory.NoPool() if allocator is None
                               else allocator.__self__)     # type: ignore[attr-defined]

    @property
    def current(self) -> int:
        return self.gpus.current

    @property
    def libraries(self) -> list[shim.Library]:
        return list(self._families.values())

    def library_of(self, code: str) -> shim.Library:
        """All kernels of a family, as far as `kernels` lets them, compiled at once: g++ takes its
        time."""
        if code not in self._families:
            names = next(names for family, names in backend_kernels().items()
                         if cuda_launch.source(family) == code)
            names = tuple(name for name in names if any(word in name for word in self._kernels))
            self._families[code] = shim.Library(code, names, self._folder, self._flags)
        return self._families[code]

    # --- what is launched -------------------------------------------------------------------------

    def kept(self, a: Any) -> DeviceArray:
        """An array with these numbers in memory of the GPU: a new one, except for a view of what is
        there."""
        a = np.asarray(a)
        memory = memory_of(self.gpus, a)
        if memory is not None:
            return DeviceArray(self, a, memory)
        there = self.allocated(a)
        np.copyto(there._a, a)
        return there

    def allocated(self, like: np.ndarray) -> DeviceArray:
        if like.dtype.char not in TYPES:
            raise ValueError(f"Unsupported dtype {like.dtype}")
        memory = Memory(self.gpus, like.nbytes)
        return DeviceArray(self, memory.array(like), memory)

    def new(self, function: Callable[[], Any], *involved: Any,
            shaped: Callable[[], Any] | None = None) -> DeviceArray:
        """The result of a function of arrays; of one that is launched later only its shape and its
        type are there yet, those of `shaped` where the function looks at numbers."""
        stream = self.gpus.stream
        if not stream.defers:
            return self.kept(function())
        with np.errstate(all="ignore"):
            known = np.asarray((shaped or function)())
        memory = memory_of(self.gpus, known)
        if memory is not None:
            return DeviceArray(self, known, memory)             # a view of what is there
        result = self.allocated(known)

        def later(out: np.ndarray = result._a) -> None:
            with np.errstate(all="ignore"):
                np.copyto(out, function())
        stream.do(later, memories(*involved, result))
        return result

    def change(self, function: Callable[[], Any], *involved: Any) -> None:
        """A function that writes into arrays."""
        self.gpus.stream.do(function, memories(*involved))

    def check_cublas(self) -> None:
        if self.gpus.stream.recording is not None:
            raise NotImplementedError("calling cuBLAS API during stream capture is currently "
                                      "unsupported")

    def to_device(self, a: np.ndarray) -> DeviceArray:
        """A transfer: CuPy copies to pinned memory first, which it lends to others as soon as that
        was copied."""
        stream, result = self.gpus.stream, self.allocated(a)
        out = result._a
        self.gpus.shipped += a.nbytes
        if a.size and a.ndim and stream.recording is not None:
            raise RuntimeError("the current stream is capturing, so H2D transfers are disallowed")
        copy = a.copy()
        self.change(lambda: np.copyto(out, copy), result)
        return result

    def empty(self, shape: Any, dtype: Any = float, order: str = "C") -> DeviceArray:
        result = self.allocated(np.empty(shape, dtype, order))
        out = result._memory.bytes
        # What a kernel forgets to write is seen.
        self.gpus.stream.do(lambda: out.fill(GARBAGE), memories(result), launch=False)
        return result

    def from_dlpack(self, array: Any) -> DeviceArray:
        cupy_api.check("cupy", "from_dlpack", (array,), {})
        found = array.__dlpack__()
        assert isinstance(found, DeviceArray), "CuPy refuses memory of the host"
        return found

    def asnumpy(self, a: Any, stream: Any = None, order: str = "C") -> np.ndarray:
        if not isinstance(a, DeviceArray):
            return np.asarray(a)
        stream = stream or self.gpus.stream
        if stream.recording is not None:
            raise RuntimeError("the current stream is capturing, so synchronous API calls are "
                               "disallowed")
        stream.synchronize()
        return a._a.copy(order)

    def __getattr__(self, name: str) -> Any:
        """NumPy's function of that name, on arrays of the GPU, if CuPy has it."""
        cupy_api.require("cupy", name)
        function = getattr(np, name)
        if isinstance(function, ModuleType):
            raise AttributeError(f"the fake CuPy has no module {name}")
        if not callable(function) or isinstance(function, type):
            return function

        def on_device(*args: Any, **options: Any) -> Any:
            cupy_api.check("cupy", name, args, options)
            if name in CUBLAS:
                self.check_cublas()
            if name in JOINING and len(args[0]) > 8:
                self.to_device(np.zeros(len(args[0])))      # the addresses of the arrays
            if name in WAITING or name == "where" and len(args) == 1:
                raise RuntimeError("this waits for the GPU inside a step")
            if name in TO_DEVICE and not isinstance(args[0], DeviceArray):
                return self.to_device(function(*args, **options))
            host = [host_of(self, a) for a in args]
            named = {key: host_of(self, value) for key, value in options.items()}
            if name in TO_DEVICE and function(*host, **named) is args[0]._a:
                return args[0]
            involved, to = (*args, *options.values()), options.get("out")
            if to is not None:      # it writes: `new` would take the result for a view
                self.change(lambda: function(*host, **named), *involved)
                return to
            return self.new(lambda: function(*host, **named), *involved)
        return on_device


def host_of(cupy: FakeCupy, a: Any) -> Any:
    """What NumPy is to work on: arrays of the current GPU, and scalars."""
    if isinstance(a, DeviceArray):
        if a.device.id != cupy.current:
            raise RuntimeError(f"the array is on GPU {a.device.id}, the current one is "
                               f"{cupy.current}")
        return a._a
    if isinstance(a, np.ndarray):
        raise TypeError("Unsupported type <class 'numpy.ndarray'>")
    if isinstance(a, tuple | list):
        return type(a)(host_of(cupy, item) for item in a)
    if isinstance(a, slice):
        return slice(*(host_of(cupy, item) for item in (a.start, a.stop, a.step)))
    return a


def argument(cupy: FakeCupy, a: Any) -> Any:
    """An argument of a kernel as the shim takes it: an array of the GPU, a NumPy scalar, or a
    struct. CuPy would pass a number of Python in 64 bits."""
    if isinstance(a, DeviceArray):
        assert a.flags.c_contiguous, "a kernel was given an array that is not contiguous"
        return host_of(cupy, a)
    assert not isinstance(a, np.ndarray), "a NumPy array is slow; pass a struct as np.void"
    assert isinstance(a, np.generic), f"argument {a!r} is untyped"
    return a.copy()


def memories(*arrays: Any) -> list[Memory]:
    return [a._memory for a in arrays if isinstance(a, DeviceArray)]


# --- the classes of cupy and cupy.cuda; each FakeCupy has subclasses with `fake` ------------------

class Device:
    OF_THE_FAKE = {"fake", "compute_capability"}        # in CuPy it is there after the constructor
    fake: FakeCupy
    compute_capability = "90"

    def __init__(self, device: int | None = None) -> None:
        self.id: int = self.fake.gpus.current if device is None else device
        self._before: list[int] = []

    def __enter__(self) -> Device:
        self._before.append(self.fake.gpus.current)
        self.fake.gpus.current = self.id
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.gpus.current = self._before.pop()

    def synchronize(self) -> None:
        for stream in list(self.fake.gpus.every):
            if stream.ptr == 0 or stream.device_id == self.id:
                stream.synchronize()

    @property
    def pci_bus_id(self) -> str:
        return f"0000:{self.id + 1:02X}:00.0"

    @property
    def mem_info(self) -> tuple[int, int]:
        return self.fake.cuda.runtime.memGetInfo()


class MemoryHook:
    OF_THE_FAKE = {"fake"}
    fake: FakeCupy

    def __enter__(self) -> Any:
        self.fake.gpus.hooks.append(self)
        return self

    def __exit__(self, *_: object) -> None:
        self.fake.gpus.hooks.remove(self)

    def alloc_postprocess(self, **kwargs: Any) -> None:
        pass

    malloc_postprocess = free_postprocess = alloc_postprocess


class RawModule:
    """Some kernels of a family."""

    OF_THE_FAKE = {"fake"}
    fake: FakeCupy

    def __init__(self, *, code: str, options: tuple[str, ...] = (),
                 name_expressions: Sequence[str] = ()) -> None:
        assert "-std=c++17" in options and isinstance(options, tuple)
        self._library, self._names = self.fake.library_of(code), name_expressions
        unknown = set(name_expressions) - set(self._library.numbers)
        assert not unknown, f"{unknown} are not listed"

    def get_function(self, name: str) -> RawKernel:
        if name not in self._names:
            raise AttributeError(f"{name} is not in name_expressions")
        return RawKernel(self.fake, self._library, name)


class RawKernel:
    OF_THE_FAKE = set[str]()

    def __init__(self, fake: FakeCupy, library: shim.Library, name: str) -> None:
        self._fake, self._library, self._name = fake, library, name
        self._shared: dict[int, int] = {}       # CuPy has a kernel of its own for each GPU

    @property
    def max_dynamic_shared_size_bytes(self) -> int:
        return self._shared.get(self._fake.current, 48 << 10)

    @max_dynamic_shared_size_bytes.setter
    def max_dynamic_shared_size_bytes(self, size: int) -> None:
        assert size <= (SHARED_OF_HOPPER if self._name.startswith("warpgroup") else SHARED)
        self._shared[self._fake.current] = size

    def __call__(self, grid: tuple[int, ...], block: tuple[int, ...], args: Sequence[Any], *,
                 shared_mem: int = 0) -> None:
        check_limits(grid, block)
        assert shared_mem <= self.max_dynamic_shared_size_bytes, (
            f"{self._name}: {shared_mem} bytes of shared memory")
        # as they are now: a launch keeps copies of numbers
        values = [argument(self._fake, a) for a in args]
        library, name = self._library, self._name
        self._fake.change(lambda: library(name, grid, block, values, shared_mem), *args)


class CompileException(Exception):      # noqa: N818 - CuPy's name
    pass


CLASSES: dict[str, Any] = {
    "cupy.ndarray": DeviceArray, "cupy.RawModule": RawModule, "cupy.RawKernel": RawKernel,
    "cupy.cuda.Device": Device, "cupy.cuda.Stream": fake_streams.Stream,
    "cupy.cuda.Event": fake_streams.Event, "cupy.cuda.Graph": fake_streams.Graph,
    "cupy.cuda.MemoryPool": fake_memory.MemoryPool, "cupy.cuda.MemoryPointer": MemoryPointer,
    "cupy.cuda.MemoryHook": MemoryHook, "cupy.cuda.PinnedMemoryPool": fake_memory.PinnedMemoryPool,
}


def check_limits(grid: Sequence[int], block: Sequence[int]) -> None:
    """What every GPU since compute capability 3.0 accepts."""
    assert isinstance(grid, tuple) and isinstance(block, tuple)
    assert len(grid) == len(block) == 3 and min(*grid, *block) >= 1
    assert grid[0] < 2**31 and max(grid[1:]) < 2**16
    assert max(block[:2]) <= 1024 and block[2] <= 64 and block[0] * block[1] * block[2] <= 1024


def plain_map(kind: int, address: int, *numbers: tuple[int, ...]) -> np.void:
    """What the driver would encode, as it is: the struct BoxMap of ptx_shim.h."""
    return cuda_launch.struct(warpgroups.BOX_MAP, ((address, *sum(numbers, ()), kind),))


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
        with mock.patch.object(warpgroups, "encoded", plain_map):
            yield cupy
    finally:
        del sys.modules["cupy"]
        sys.modules.update(hidden)
