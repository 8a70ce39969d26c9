"""The tensors of a file of PyTorch or safetensors, by their names. Nothing is unpickled.

A file of torch.save is a ZIP archive with a pickle, data.pkl, and a member for each storage, or in
versions before 1.6 a row of pickles and the storages behind them.
"""

from __future__ import annotations

import json
import mmap
import os
import struct
import zipfile
import zlib
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.arguments import bare
from xpnet.buffers import Shape
from xpnet.io import formats
from xpnet.io.files import existing
from xpnet.io.imports.pickled import Machine, RefusedError, Storage, View

if TYPE_CHECKING:
    from pathlib import Path

WHO = "load_torch"
MOST_PICKLE = 1 << 26           # bytes of a pickle; that of a network with 1,000 arrays has 100 KB
LEGACY = 0x1950a86a20f9469cfc6c         # the first pickle of files before PyTorch 1.6
VERSION = 1001
# What zipfile raises, besides its own error
DAMAGED = (zipfile.BadZipFile, OSError, EOFError, RuntimeError, ValueError, LookupError,
           OverflowError, struct.error, zlib.error)
NESTED = "state_dict", "model_state_dict", "model", "net", "network"
SAFE = {"F16": "float16", "F32": "float32", "F64": "float64", "BF16": "bfloat16", "I64": "int64",
        "I32": "int32", "I16": "int16", "I8": "int8", "U8": "uint8", "BOOL": "bool"}


@dataclass(frozen=True)
class Tensor:
    """An array of a file, which is read when it is needed."""

    shape: Shape
    dtype: str
    read: Callable[[], np.ndarray]


@dataclass(frozen=True)
class Tensors:
    """The tensors of a file, and whether they are in the order in which the network has them."""

    named: dict[str, Tensor]
    ordered: bool


@contextmanager
def opened(path: str | Path) -> Iterator[Tensors]:
    """The tensors of a file. They can be read while it is open.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is no safetensors file and no file of torch.save with a dict of tensors, or
            it is damaged, or it has objects of other classes.
    """
    name = existing(path, WHO, "the name of a .safetensors or .pth file")
    with open(name, "rb") as file:
        start = file.read(16)
    safe = start[8:9] == b"{"           # after the length of the header, which may be anything
    reader = (_safetensors if safe else _archive if start.startswith(b"PK\x03\x04")
              else _legacy if start[:1] == b"\x80" else _safetensors)
    try:
        with reader(name) as found:
            yield Tensors(found, reader is not _safetensors)
    except RefusedError as error:
        raise ValueError(f"{WHO}: expected a file of tensors by their names. Received: {name}, "
                         f"which has {error}.") from error


@contextmanager
def _safetensors(path: str) -> Iterator[dict[str, Tensor]]:
    from safetensors import SafetensorError, safe_open
    try:
        file = safe_open(path, framework="numpy")
    except SafetensorError as error:
        raise ValueError(f"{WHO}: expected a complete .safetensors or .pth file. Received: {path}, "
                         f"which is {formats.of_content(path)} ({str(error):.200}).") from error
    with file:
        found = {}
        for name in file.keys():
            part = file.get_slice(name)
            dtype = SAFE.get(part.get_dtype(), part.get_dtype())

            def read(name: str = name, dtype: str = dtype) -> np.ndarray:
                if dtype == "bfloat16":
                    return _bfloat16(path, name)
                array: np.ndarray = file.get_tensor(name)
                return array

            found[name] = Tensor(tuple(part.get_shape()), dtype, read)
        yield found


def _bfloat16(path: str, name: str) -> np.ndarray:
    """An array of a safetensors file, whose header was checked when it was opened."""
    with open(path, "rb") as file:
        size = int.from_bytes(file.read(8), "little")
        about = json.loads(file.read(size))[name]
        start, stop = about["data_offsets"]
        file.seek(8 + size + start)
        return _widened(np.frombuffer(file.read(stop - start), "<u2")).reshape(about["shape"])


def _widened(halves: np.ndarray) -> np.ndarray:
    """bfloat16, given as uint16, as float32."""
    return (halves.astype(np.uint32) << 16).view(np.float32)


# --- torch.save -----------------------------------------------------------------------------------

@contextmanager
def _archive(path: str) -> Iterator[dict[str, Tensor]]:
    try:
        archive = zipfile.ZipFile(path)
    except DAMAGED as error:
        raise RefusedError(f"a damaged ZIP archive ({str(error):.100})") from error
    with archive:
        root = next((name.removesuffix("data.pkl") for name in archive.namelist()
                     if name.endswith("/data.pkl") and name.count("/") == 1), None)
        if root is None:
            raise RefusedError("no data.pkl, as " + formats.of_content(path))
        members = {info.filename.removeprefix(root): info for info in archive.infolist()
                   if info.filename.startswith(root)}

        def member(name: str, most: int) -> bytes:
            info = members.get(name)
            if info is None:
                raise RefusedError(f"no member {bare(name)}")
            # zipfile asks for memory of the size before decompression, which may be any number
            if (info.compress_type != zipfile.ZIP_STORED or info.file_size > most
                    or info.compress_size != info.file_size):
                raise RefusedError(f"a member {name} that is compressed or too large")
            try:
                return archive.read(info)
            except DAMAGED as error:
                raise RefusedError(f"a damaged member {name} ({str(error):.100})") from error

        order = member("byteorder", 16) if "byteorder" in members else b"little"
        least = min(MOST_PICKLE, os.path.getsize(path))
        value = Machine().run(member("data.pkl", least))

        def read(storage: Storage) -> np.ndarray:
            content = member(f"data/{storage.key}", os.path.getsize(path))
            return _numbers(content, storage, order == b"big")

        yield _tensors(value, read)


@contextmanager
def _legacy(path: str) -> Iterator[dict[str, Tensor]]:
    """A file of PyTorch before 1.6: the pickles of a magic number, a version, facts of the system,
    the object and the keys of its storages; then each storage with its number of elements."""
    with open(path, "rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as content:
        if Machine().run(content) != LEGACY:        # type: ignore[arg-type]
            raise RefusedError("a pickle that torch.save did not write")
        if Machine().run(content) != VERSION:       # type: ignore[arg-type]
            raise RefusedError("a version of torch.save's format that is not known")
        facts = Machine().run(content)              # type: ignore[arg-type]
        if not (isinstance(facts, dict) and facts.get("little_endian") is True):
            raise RefusedError("numbers in another order of bytes")
        machine = Machine()
        value, storages = machine.run(content), machine.storages        # type: ignore[arg-type]
        keys = Machine().run(content)               # type: ignore[arg-type]
        if not (isinstance(keys, list) and all(isinstance(key, str) for key in keys)):
            raise RefusedError("no list of storages")
        places, at = {}, content.tell()
        for key in keys:
            if key not in storages:
                raise RefusedError("a storage that no tensor uses, whose size is not known")
            bytes_of = _itemsize(storages[key].dtype) * storages[key].size
            if int.from_bytes(content[at:at + 8], "little") != storages[key].size or (
                    at + 8 + bytes_of > len(content)):
                raise RefusedError(f"a storage {bare(key)} that is cut off, or has another "
                                   "size than its tensors")
            places[key], at = (at + 8, at + 8 + bytes_of), at + 8 + bytes_of

        def read(storage: Storage) -> np.ndarray:
            if storage.key not in places:
                raise RefusedError(f"no storage {bare(storage.key)}")
            start, stop = places[storage.key]
            return _numbers(content[start:stop], storage)

        yield _tensors(value, read)


def _named(value: Any) -> Mapping[str, View]:
    """The dict of tensors: the value itself, or what a checkpoint has under a usual name."""
    for _ in range(2):
        if isinstance(value, dict):
            found = {key: view for key, view in value.items()
                     if isinstance(view, View) and isinstance(key, str)}
            if found:
                return found
            value = next((value[key] for key in NESTED if isinstance(value.get(key), dict)), None)
    raise RefusedError("no dict of tensors by their names, not even under " + ", ".join(NESTED))


def _tensors(value: Any, read: Callable[[Storage], np.ndarray]) -> dict[str, Tensor]:
    def make(view: View) -> Tensor:
        return Tensor(view.shape, view.storage.dtype, lambda: _part(read(view.storage), view))

    return {name: make(view) for name, view in _named(value).items()}


def _itemsize(dtype: str) -> int:
    return 2 if dtype == "bfloat16" else np.dtype(dtype).itemsize


def _numbers(content: bytes, storage: Storage, big_endian: bool = False) -> np.ndarray:
    """The elements of a storage."""
    if len(content) < storage.size * _itemsize(storage.dtype):
        raise RefusedError(f"a storage {bare(storage.key)} that is cut off")
    dtype = np.dtype("u2" if storage.dtype == "bfloat16" else storage.dtype).newbyteorder(
        ">" if big_endian else "<")
    numbers = np.frombuffer(content, dtype, storage.size)
    return _widened(numbers) if storage.dtype == "bfloat16" else numbers


def _part(numbers: np.ndarray, view: View) -> np.ndarray:
    """The tensor as an array; that it lies within its storage was checked."""
    if 0 in view.shape:
        return np.empty(view.shape, numbers.dtype)
    steps = tuple(step * numbers.itemsize for step in view.strides)
    strided = np.lib.stride_tricks.as_strided(numbers[view.offset:], view.shape, steps,
                                              writeable=False)
    return np.array(strided)
