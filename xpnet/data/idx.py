"""IDX, the file format of MNIST: a header of a few bytes, then the numbers, all big-endian."""

from __future__ import annotations

import gzip
import math
import os
import struct
import zlib
from pathlib import Path

import numpy as np

# The third byte of a file names its type. The numbers are 08, 09, 0B, 0C, 0D, 0E; there is no 0A.
_TYPES = {0x08: ">u1", 0x09: ">i1", 0x0B: ">i2", 0x0C: ">i4", 0x0D: ">f4", 0x0E: ">f8"}
_GZIP_MAGIC = b"\x1f\x8b"


def read_idx(path: str | os.PathLike[str]) -> np.ndarray:
    """Read the one array of an IDX file, plain or packed with gzip.

        file = 0 0 type ndim | ndim sizes, each a uint32 | product(sizes) numbers, last axis fastest

    Returns a writable array of the file's shape and type, in this machine's byte order.
    Raises FileNotFoundError, or ValueError where the file is not exactly such a file (no more bytes, and no fewer).
    Source: LeCun, Cortes, Burges, "The MNIST database of handwritten digits", section "file formats".
    """
    path = Path(path)
    if path.is_dir():
        raise ValueError(f"read_idx: expected a file. Received: the folder {path}.")
    if not path.is_file():
        raise FileNotFoundError(f"read_idx: expected an IDX file. Received: {path}, which does not exist.")
    who = f"read_idx '{path}'"

    raw = unpack(path.read_bytes(), who)
    if len(raw) < 4:
        raise ValueError(f"{who}: expected an IDX file, at least 4 bytes. Received: {len(raw)} bytes.")
    zeros, kind, ndim = struct.unpack(">HBB", raw[:4])
    if zeros != 0:
        raise ValueError(f"{who}: expected an IDX file, which begins with 00 00. Received: {raw[:4].hex(' ')}.")
    if kind not in _TYPES:
        known = ", ".join(f"{k:02x}" for k in _TYPES)
        raise ValueError(f"{who}: expected a type code of IDX ({known}). Received: {kind:02x}.")

    start = 4 + 4 * ndim
    if len(raw) < start:
        raise ValueError(f"{who}: expected a header of {start} bytes for {ndim} axes. Received: {len(raw)} bytes.")
    shape = struct.unpack(f">{ndim}I", raw[4:start])
    dtype = np.dtype(_TYPES[kind])
    expected, received = math.prod(shape) * dtype.itemsize, len(raw) - start
    if received != expected:
        state = "truncated" if received < expected else "too long"
        raise ValueError(
            f"{who}: expected {expected} bytes of data for shape {shape} of {dtype.name}. "
            f"Received: {received} bytes; the file is {state}."
        )
    return np.frombuffer(raw, dtype, offset=start).reshape(shape).astype(dtype.newbyteorder("="))


def unpack(raw: bytes, who: str) -> bytes:
    """The bytes themselves, or what gzip packed into them; a ValueError in the name of `who` where that is damaged."""
    if not raw.startswith(_GZIP_MAGIC):
        return raw
    try:
        return gzip.decompress(raw)
    except EOFError as error:
        message = f"{who}: expected a whole gzip file. Received: {len(raw)} bytes of one; the file is truncated."
        raise ValueError(message) from error
    except (OSError, zlib.error, struct.error) as error:
        raise ValueError(f"{who}: expected a sound gzip file. Received: a damaged one ({error}).") from error
