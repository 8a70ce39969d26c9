"""Event files, as TensorBoard reads them: records with checksums, each a protobuf message.

Written by hand, because few messages are needed: Event (wall_time = 1, step = 2, file_version = 3,
summary = 5, session_log = 7), Summary.Value (tag = 1, simple_value = 2, image = 4, histo = 5),
Image and HistogramProto. Their names and numbers are those of TensorFlow's event.proto,
summary.proto and histogram.proto, and the records are those of its TFRecord files.
"""

from __future__ import annotations

import os
import re
import struct
import time
import zlib
from collections.abc import Sequence
from functools import cache

import numpy as np

from xpnet.io.files import append

VERSION = b"brain.Event:2"
NAME = re.compile(r"events\.out\.tfevents\.(\d{10})\.xpnet")
BINS = 30           # of a histogram, as many as TensorBoard shows


class EventFile:
    """A new event file in a folder. TensorBoard reads the files of a folder in the order of their
    names.

    Args:
        folder: for the file; both are made by the first `write`.
        step: the first step of this file. TensorBoard shows nothing of older files that has this
            step or a later one: a training that was resumed repeats them.
    """

    def __init__(self, folder: str | os.PathLike[str], step: int) -> None:
        self.folder, self.path = os.fspath(folder), ""
        start = chunk(7, number(1, 1))                  # SessionLog.START
        self._waiting = (record(number(2, 0) + chunk(3, VERSION))
                         + record(number(2, step) + start))             # to be written

    def write(self, step: int, values: Sequence[bytes]) -> None:
        """Append an event with some values, and hand it to the system. If that fails, OSError is
        raised, and the next call writes this event, too."""
        if values:
            summary = b"".join(chunk(1, value) for value in values)
            self._waiting += record(number(2, step) + chunk(5, summary))
        self.path = self.path or _new_file(self.folder)
        append(self.path, self._waiting)
        self._waiting = b""


def _new_file(folder: str) -> str:
    """The path of a new, empty file, which comes after the others."""
    os.makedirs(folder, exist_ok=True)
    last = max([int(found[1]) for found in map(NAME.fullmatch, os.listdir(folder)) if found],
               default=0)
    path = os.path.join(folder, f"events.out.tfevents.{last + 1:010d}.xpnet")
    with open(path, "xb"):
        return path


# --- values ---------------------------------------------------------------------------------------

def scalar(tag: str, value: float) -> bytes:
    """A number, which the format keeps as float32."""
    with np.errstate(over="ignore"):
        return chunk(1, tag.encode()) + key(2, 5) + np.float32(value).astype("<f4").tobytes()


def histogram(tag: str, values: np.ndarray) -> bytes:
    """How often which values occur; NaN and infinity are left out."""
    values = np.asarray(values, np.float64).ravel()
    values = values[np.isfinite(values)]
    low, high = (values.min(), values.max()) if values.size else (0.0, 0.0)
    counts, edges = np.histogram(values, BINS, None if low < high else (low - 0.5, high + 0.5))
    with np.errstate(over="ignore"):
        figures = low, high, values.size, values.sum(), values @ values
    body = b"".join(double(n, float(figure)) for n, figure in enumerate(figures, 1))
    body += chunk(6, edges[1:].astype("<f8").tobytes()) + chunk(7, counts.astype("<f8").tobytes())
    return chunk(1, tag.encode()) + chunk(5, body)


def image(tag: str, pixels: np.ndarray) -> bytes:
    """An image (H, W) or (H, W, 3) of uint8."""
    channels = 1 if pixels.ndim == 2 else 3
    body = (number(1, pixels.shape[0]) + number(2, pixels.shape[1]) + number(3, channels)
            + chunk(4, png(pixels)))
    return chunk(1, tag.encode()) + chunk(4, body)


def png(pixels: np.ndarray) -> bytes:
    """A PNG file of an image (H, W) or (H, W, 3) of uint8."""
    height, width = pixels.shape[:2]
    rows = np.zeros((height, 1 + pixels[0].size), np.uint8)     # each row begins with its filter: 0
    rows[:, 1:] = pixels.reshape(height, -1)
    head = struct.pack(">IIBBBBB", width, height, 8, 0 if pixels.ndim == 2 else 2, 0, 0, 0)
    parts = (b"IHDR" + head, b"IDAT" + zlib.compress(rows.tobytes()), b"IEND")
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(part) - 4) + part + struct.pack(">I", zlib.crc32(part))
        for part in parts)


# --- records and fields ---------------------------------------------------------------------------

def record(event: bytes) -> bytes:
    """An event, with the time, as a record: its length and its content, each with a checksum."""
    event = double(1, time.time()) + event
    length = struct.pack("<Q", len(event))
    return length + masked_crc(length) + event + masked_crc(event)


def key(field: int, kind: int) -> bytes:
    return varint(field << 3 | kind)


def number(field: int, value: int) -> bytes:
    return key(field, 0) + varint(value)


def double(field: int, value: float) -> bytes:
    return key(field, 1) + struct.pack("<d", value)


def chunk(field: int, content: bytes) -> bytes:
    """A field of some length: a string, a message, or packed numbers."""
    return key(field, 2) + varint(len(content)) + content


def varint(value: int) -> bytes:
    """Seven bits a byte, the lowest first; the highest bit says that there are more."""
    found = bytearray()
    while value > 127:
        found.append(value & 127 | 128)
        value >>= 7
    return bytes([*found, value])


def masked_crc(content: bytes) -> bytes:
    """CRC-32C (Castagnoli), rotated and shifted: a checksum of data that contain a checksum."""
    crc, table = 0xFFFFFFFF, _crc_table()
    for byte in content:
        crc = table[(crc ^ byte) & 255] ^ crc >> 8
    crc ^= 0xFFFFFFFF
    return struct.pack("<I", ((crc >> 15 | crc << 17) + 0xA282EAD8) & 0xFFFFFFFF)


@cache
def _crc_table() -> list[int]:
    """The remainder for each byte, of the polynomial 0x1EDC6F41 with its bits reversed."""
    table = list(range(256))
    for _ in range(8):
        table = [crc >> 1 ^ (0x82F63B78 if crc & 1 else 0) for crc in table]
    return table
