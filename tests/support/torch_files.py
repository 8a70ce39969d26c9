"""Files as torch.save writes them, made without PyTorch: by the pickle module, with stand-ins for
the names that PyTorch's pickles have."""

from __future__ import annotations

import collections
import io
import pickle
import struct
import sys
import types
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pytest

KINDS = {"float32": "FloatStorage", "float64": "DoubleStorage", "float16": "HalfStorage",
         "int64": "LongStorage", "int32": "IntStorage", "uint8": "ByteStorage",
         "bool": "BoolStorage", "bfloat16": "BFloat16Storage"}
MAGIC, VERSION = 0x1950a86a20f9469cfc6c, 1001


class Tensor:
    """A view of a storage, as PyTorch pickles it; of an array by default all of it."""

    def __init__(self, array: Any, shape: Any = None, strides: Any = None, offset: int = 0,
                 dtype: str | None = None, parameter: bool = False) -> None:
        self.array = np.asarray(array)
        self.dtype = dtype or self.array.dtype.name
        self.shape = self.array.shape if shape is None else shape
        self.strides = (tuple(int(step) // self.array.itemsize for step in self.array.strides)
                        if strides is None else strides)
        self.offset, self.parameter = offset, parameter

    def __reduce__(self) -> Any:
        utils = sys.modules["torch._utils"]
        if self.parameter:
            inner = Tensor(self.array, self.shape, self.strides, self.offset, self.dtype)
            return utils._rebuild_parameter, (inner, True, collections.OrderedDict())
        return utils._rebuild_tensor_v2, (Stored(self.array, self.dtype), self.offset, self.shape,
                                          self.strides, False, collections.OrderedDict())


class Stored:
    """The storage of an array; the pickler writes its key."""

    def __init__(self, array: np.ndarray, dtype: str) -> None:
        self.array, self.dtype = array, dtype


def modules() -> dict[str, types.ModuleType]:
    """Modules torch and torch._utils with the names that are pickled."""
    torch, utils = types.ModuleType("torch"), types.ModuleType("torch._utils")
    for kind in KINDS.values():
        setattr(torch, kind, type(kind, (), {"__module__": "torch"}))
    for name in ("_rebuild_tensor_v2", "_rebuild_parameter"):
        function = types.FunctionType((lambda *args: args).__code__, {}, name)
        function.__module__, function.__qualname__ = "torch._utils", name
        setattr(utils, name, function)
    return {"torch": torch, "torch._utils": utils}


@contextmanager
def torch_modules() -> Iterator[None]:
    """What is written here is pickled with the names of PyTorch."""
    with pytest.MonkeyPatch.context() as patch:
        for name, module in modules().items():
            patch.setitem(sys.modules, name, module)
        yield


@pytest.fixture
def torch_names() -> Iterator[None]:
    with torch_modules():
        yield


class Pickler(pickle.Pickler):
    def __init__(self, file: Any, legacy: bool = False) -> None:
        super().__init__(file, 2)
        self.legacy, self.storages = legacy, dict[int, tuple[str, np.ndarray]]()

    def persistent_id(self, thing: Any) -> Any:
        if not isinstance(thing, Stored):
            return None
        key, _ = self.storages.setdefault(id(thing.array), (str(len(self.storages)), thing.array))
        kind = getattr(sys.modules["torch"], KINDS[thing.dtype])
        found = ("storage", kind, key, "cpu", thing.array.size)
        return (*found, None) if self.legacy else found


def pickled(value: Any) -> tuple[bytes, dict[str, bytes]]:
    """The pickle, and the storages by their keys."""
    file = io.BytesIO()
    pickler = Pickler(file)
    pickler.dump(value)
    return file.getvalue(), {key: content(array) for key, array in pickler.storages.values()}


def content(array: np.ndarray) -> bytes:
    """The memory of an array, transposed or not."""
    order = np.argsort(array.strides)[::-1] if array.ndim else ()
    return np.ascontiguousarray(array.transpose(order)).tobytes()


def save(value: Any, path: Path, *, byteorder: str = "little", data: bytes | None = None,
         compression: int = zipfile.ZIP_STORED, leave_out: str = "") -> Path:
    """A file of torch.save; `data` replaces the pickle, and a member may be left out."""
    own, storages = pickled(value)
    members = {"data.pkl": own if data is None else data, "byteorder": byteorder.encode(),
               **{f"data/{key}": memory for key, memory in storages.items()}, "version": b"3\n"}
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, memory in members.items():
            if name != leave_out:
                archive.writestr(f"archive/{name}", memory)
    return path


def save_legacy(value: Any, path: Path) -> Path:
    """A file as PyTorch before 1.6 wrote it."""
    file = io.BytesIO()
    for fact in (MAGIC, VERSION, {"protocol_version": VERSION, "little_endian": True,
                                  "type_sizes": {"short": 2, "int": 4, "long": 4}}):
        pickle.dump(fact, file, 2)
    pickler = Pickler(file, legacy=True)
    pickler.dump(value)
    pickle.dump([key for key, _ in pickler.storages.values()], file, 2)
    for _, array in pickler.storages.values():
        file.write(struct.pack("<q", array.size) + content(array))
    path.write_bytes(file.getvalue())
    return path
