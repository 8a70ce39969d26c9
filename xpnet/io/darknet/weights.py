"""Weights files of Darknet: a header, and the arrays of all layers as 32-bit floats.

    int32 major, minor, revision;  images seen: 64 bits if 10 major + minor >= 2, else 32
    for each [convolutional]: biases, then scales, means, variances with batch norm, then weights
    for each [connected]: biases, weights, then scales, means, variances
    for each [local]: biases, weights;  [batchnorm]: biases, scales, means, variances;
    a weighted [shortcut]: weights;  [lstm] and [gru]: see recurrent.py

The first Darknet and early forks do not write the biases of [batchnorm]; a file of the size without
them is read with biases of 0. Numbers are little-endian. If major or minor is above 1000, the
weights of [connected] are (inputs, outputs) instead of (outputs, inputs).
"""

from __future__ import annotations

import math
import os
import struct
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, BinaryIO

import numpy as np

from xpnet.io.darknet import recurrent
from xpnet.io.darknet.builder import Stored
from xpnet.io.darknet.cfg import WHO
from xpnet.io.files import existing

if TYPE_CHECKING:
    from pathlib import Path

VERSION = 0, 2, 5               # what new files have
FLOAT = np.dtype("<f4")
TRANSPOSED = 1000               # the highest version in which weights are (outputs, inputs)


@dataclass(frozen=True)
class Header:
    """The beginning of a weights file.

    Attributes:
        version: major, minor, revision.
        seen: number of images that the network was trained with.
    """

    version: tuple[int, int, int] = VERSION
    seen: int = 0

    @property
    def transposed(self) -> bool:
        """Whether the weights of [connected] are (inputs, outputs)."""
        return max(self.version[:2]) > TRANSPOSED

    @staticmethod
    def bytes_of_seen(version: Sequence[int]) -> int:
        """The bytes of the number of images seen, in files of this version."""
        return 8 if 10 * version[0] + version[1] >= 2 else 4

    @property
    def size(self) -> int:
        """The bytes of the header."""
        return 12 + self.bytes_of_seen(self.version)

    def packed(self) -> bytes:
        """The bytes of this header, in a version whose weights are not transposed."""
        version = VERSION if self.transposed else self.version
        bits = "Q" if self.bytes_of_seen(version) == 8 else "I"
        seen = min(max(int(self.seen), 0), 2**64 - 1 if bits == "Q" else 2**32 - 1)
        return struct.pack(f"<3i{bits}", *version, seen)

    @classmethod
    def read(cls, file: BinaryIO, path: str) -> Header:
        """The header of an open file. Raises ValueError if the file ends in it."""
        start = file.read(12)
        version = struct.unpack("<3i", start) if len(start) == 12 else VERSION
        rest = file.read(cls.bytes_of_seen(version))
        missing = 12 - len(start) + cls.bytes_of_seen(version) - len(rest)
        if missing:
            raise ValueError(f"{WHO}: expected the header of a weights file. Received: {path}, "
                             f"which ends {missing} bytes before the end of the header.")
        return cls(version, int.from_bytes(rest, "little"))


def bytes_of(stored: Sequence[Stored]) -> int:
    """Size of these arrays in a file."""
    return sum(FLOAT.itemsize * math.prod(array.shape) for array in stored)


def read(path: str | Path, stored: Sequence[Stored], size: int | None = None
         ) -> tuple[Header, dict[str, np.ndarray]]:
    """The header of a file, and the network's arrays by their full names.

    The size of the file is compared before memory is allocated.

    Args:
        size: in bytes, for tests of large files; by default that of the file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: the file is too short or too long. The error names the layer and the array in
            which a short file ends.
    """
    name = existing(path, WHO, "the name of a weights file")
    with open(name, "rb") as file:
        header = Header.read(file, name)
        stored = recurrent.ordered(stored, header.version, name)
        have = os.fstat(file.fileno()).st_size if size is None else size
        stored = _in_file(have - header.size, stored, name)
        values = {array.name: _ours(np.fromfile(file, FLOAT, math.prod(array.shape)), array, header)
                  for array in stored}
    return header, recurrent.joined(values, stored)


def _in_file(have: int, stored: Sequence[Stored], path: str) -> Sequence[Stored]:
    """The arrays in `have` bytes: all, or all but the biases of [batchnorm]. Raises ValueError if
    neither fits."""
    needed = bytes_of(stored)
    if have == needed:
        return stored
    older = [array for array in stored
             if (array.section.kind, array.what) != ("batchnorm", "biases")]
    if have == bytes_of(older):
        return older
    said = f"{abs(have - needed):,} bytes too {'short' if have < needed else 'long'}"
    if have < needed:
        end = 0
        for array in stored:
            end += bytes_of([array])
            if end > have:
                break
        of = f"{array.gate} of " if array.gate else ""
        said += (f"; it ends {end - have:,} bytes before the end of the {array.what} of {of}layer "
                 f"{array.section.index}, [{array.section.kind}]")
    raise ValueError(f"{WHO}: expected a weights file of {needed:,} bytes after its header. "
                     f"Received: {path}, which is {said}.")


def _ours(values: np.ndarray, array: Stored, header: Header) -> np.ndarray:
    """The values of a file in the shape of the network's array."""
    if array.matrix and header.transposed:
        return values.reshape(array.shape[::-1]).T
    values = values.reshape(array.shape)
    return values if array.axes is None else values.transpose(array.axes)


def pieces(header: Header, stored: Sequence[Stored], arrays: Mapping[str, np.ndarray]
           ) -> Iterator[bytes]:
    """The content of a weights file, from the network's arrays by their full names."""
    yield header.packed()
    for array in stored:
        values = arrays[array.name]
        if array.axes is not None:
            values = values.transpose(np.argsort(array.axes))
        yield np.ascontiguousarray(values, FLOAT).tobytes()
