"""IDX, the file format of MNIST: a header of a few bytes, then the numbers, all big-endian."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import IO, BinaryIO

import numpy as np

from xpnet.io.files import name_of

# The third byte of a file names its type. The numbers are 08, 09, 0B, 0C, 0D, 0E; there is no 0A.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"
_STEP = 1 << 20         # bytes that are unpacked at a time
_MOST_AXES = 64         # of a NumPy array


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the one array of an IDX file, plain or packed with gzip.

        file = 0 0 type ndim | ndim sizes, each a uint32 | product(sizes) numbers, last axis fastest

    Returns a writable array of the file's shape and dtype, in the byte order of this machine. No
    more is unpacked than the header declares, and memory grows only with the bytes that are read.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is damaged, or has more or fewer bytes than its header declares.

    LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
    """
    path = Path(name_of(path, "read_idx"))
    if path.is_dir():
        raise ValueError(f"read_idx: expected a file. Received: the folder {path}.")
    if not path.is_file():
        raise FileNotFoundError("read_idx: expected an IDX file. "
                                f"Received: {path}, which does not exist.")
    with open(path, "rb") as file:
        return idx_array(file, f"read_idx '{path}'")


def idx_array(packed: BinaryIO, who: str, wanted: tuple[int | None, ...] | None = None
              ) -> np.ndarray:
    """The array of an open IDX file, see `read_idx`; errors begin with `who`.

    Args:
        wanted: the shape that the array must have, of uint8; None for any size of an axis. It is
            checked before anything is unpacked.
    """
    with unpacked(packed, who) as file:
        shape, dtype = read_header(file, who)
        if wanted is not None and (dtype != np.uint8 or len(shape) != len(wanted)
                                   or any(n not in (size, None) for size, n in zip(shape, wanted))):
            sizes = ", ".join("N" if n is None else str(n) for n in wanted)
            comma = "," if len(wanted) == 1 else ""
            raise ValueError(f"{who}: expected shape ({sizes}{comma}) of uint8. "
                             f"Received: {shape} of {dtype.name}.")
        expected = math.prod(shape) * dtype.itemsize
        data = read_at_most(file, expected + 1)     # one more, to see the end and gzip's checksum
        if len(data) != expected:
            more = len(data) > expected
            received = f"more than {expected}" if more else len(data)
            raise ValueError(
                f"{who}: expected {expected} bytes of data for shape {shape} of {dtype.name}. "
                f"Received: {received} bytes; the file is {'too long' if more else 'truncated'}.")
    try:
        return np.frombuffer(data, dtype).reshape(shape).astype(dtype.newbyteorder("="))
    except ValueError as error:         # an empty array whose other sizes are too large for NumPy
        raise ValueError(f"{who}: expected the shape of an array. "
                         f"Received: {shape} ({error}).") from error


def read_header(file: BinaryIO, who: str) -> tuple[tuple[int, ...], np.dtype]:
    """Shape and dtype of the array that follows."""
    start = read_at_most(file, 4)
    if len(start) < 4:
        raise ValueError(f"{who}: expected an IDX file, at least 4 bytes. "
                         f"Received: {len(start)} bytes.")
    zeros, kind, ndim = struct.unpack(">HBB", start)
    if zeros != 0:
        raise ValueError(f"{who}: expected an IDX file, which begins with 00 00. "
                         f"Received: {start.hex(' ')}.")
    if kind not in _TYPES:
        known = ", ".join(f"{k:02x}" for k in _TYPES)
        raise ValueError(f"{who}: expected a type code of IDX ({known}). Received: {kind:02x}.")
    if ndim > _MOST_AXES:
        raise ValueError(f"{who}: expected at most {_MOST_AXES} axes. Received: {ndim}.")
    sizes = read_at_most(file, 4 * ndim)
    if len(sizes) < 4 * ndim:
        raise ValueError(f"{who}: expected a header of {4 + 4 * ndim} bytes for {ndim} axes. "
                         f"Received: {4 + len(sizes)} bytes.")
    return struct.unpack(f">{ndim}I", sizes), np.dtype(_TYPES[kind])


def read_at_most(file: IO[bytes], count: int) -> bytearray:
    """The next `count` bytes, or fewer at the end of the file, step by step."""
    data = bytearray()
    while len(data) < count and (step := file.read(min(_STEP, count - len(data)))):
        data += step
    return data


@contextmanager
def unpacked(file: BinaryIO, who: str) -> Iterator[BinaryIO]:
    """The file itself or, if it is packed with gzip, its content, unpacked as far as it is read.

    Raises ValueError, beginning with `who`, if the file is damaged.
    """
    magic = file.read(len(_GZIP_MAGIC))
    size = file.seek(0, os.SEEK_END)
    file.seek(0)
    try:
        yield gzip.GzipFile(fileobj=file) if magic == _GZIP_MAGIC else file     # type: ignore[misc]
    except EOFError as error:
        raise ValueError(f"{who}: expected a whole gzip file. "
                         f"Received: {size} bytes of one; the file is truncated.") from error
    except (gzip.BadGzipFile, zlib.error, struct.error) as error:
        raise ValueError(f"{who}: expected a sound gzip file. "
                         f"Received: a damaged one ({error}).") from error
