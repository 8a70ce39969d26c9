"""A reader of event files that shares no code with the writer: records, checksums bit by bit, and
fields by their numbers."""

from __future__ import annotations

import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np


def crc32c(content: bytes) -> int:
    """The remainder of a division of polynomials over bits, the lowest bit of a byte first."""
    crc = 0xFFFFFFFF
    for byte in content:
        for bit in range(8):
            mixed = (crc ^ byte >> bit) & 1
            crc = crc >> 1 ^ 0x82F63B78 * mixed
    return crc ^ 0xFFFFFFFF


def records(path: Path) -> Iterator[bytes]:
    """The content of each record. One that was cut off at the end is left out, as TensorBoard does.
    """
    content, start = path.read_bytes(), 0
    while start + 12 <= len(content):
        size, = struct.unpack("<Q", content[start:start + 8])
        end = start + 12 + size + 4
        if end > len(content):
            return
        data = content[start + 12:end - 4]
        for part, at in ((content[start:start + 8], start + 8), (data, end - 4)):
            crc = crc32c(part)
            rotated = (crc >> 15) | (crc << 17) & 0xFFFFFFFF
            assert struct.unpack("<I", content[at:at + 4])[0] == (rotated + 0xA282EAD8) % 2**32
        yield data
        start = end


def fields(message: bytes) -> dict[int, list[Any]]:
    """The values of each field of a protobuf message by its number; bytes for what has a length."""
    found: dict[int, list[Any]] = {}
    at = 0

    def varint() -> int:
        nonlocal at
        value = shift = 0
        while True:
            byte = message[at]
            at, value, shift = at + 1, value | (byte & 127) << shift, shift + 7
            if byte < 128:
                return value

    while at < len(message):
        tag = varint()
        kind: int = tag & 7
        if kind == 0:
            value: Any = varint()
        elif kind == 2:
            size = varint()
            value, at = message[at:at + size], at + size
        else:
            size, form = {1: (8, "<d"), 5: (4, "<f")}[kind]
            value, at = struct.unpack(form, message[at:at + size])[0], at + size
        found.setdefault(tag >> 3, []).append(value)
    return found


def events(path: Path) -> list[dict[str, Any]]:
    """All events of a file: time, step, and "version", "start" or "values", a dict by tag of
    numbers, of images (height, width, channels, PNG) and of histograms."""
    found = []
    for data in records(path):
        event = fields(data)
        read: dict[str, Any] = {"time": event[1][0], "step": event.get(2, [0])[0]}
        if 3 in event:
            read["version"] = event[3][0].decode()
        if 7 in event:
            read["start"] = fields(event[7][0]) == {1: [1]}
        if 5 in event:
            values = [fields(value) for value in fields(event[5][0])[1]]
            read["values"] = {value[1][0].decode(): _value(value) for value in values}
            assert len(read["values"]) == len(values)
        found.append(read)
    return found


def _value(value: dict[int, list[Any]]) -> Any:
    if 2 in value:
        return value[2][0]
    if 4 in value:
        image = fields(value[4][0])
        return image[1][0], image[2][0], image[3][0], image[4][0]
    histogram = fields(value[5][0])
    names = {1: "min", 2: "max", 3: "num", 4: "sum", 5: "squares"}
    return {name: histogram[number][0] for number, name in names.items()} | {
        "limits": np.frombuffer(histogram[6][0], "<f8"),
        "counts": np.frombuffer(histogram[7][0], "<f8")}


def displayed(folder: Path) -> dict[str, list[tuple[int, Any]]]:
    """(step, value) of each tag in the files of a run, as TensorBoard shows them: the start of a
    file removes what has its step or a later one."""
    found: dict[str, list[tuple[int, Any]]] = {}
    for path in sorted(folder.iterdir()):
        for event in events(path):
            if event.get("start"):
                found = {tag: [pair for pair in pairs if pair[0] < event["step"]]
                         for tag, pairs in found.items()}
            for tag, value in event.get("values", {}).items():
                found.setdefault(tag, []).append((event["step"], value))
    return {tag: pairs for tag, pairs in found.items() if pairs}


def pixels(png: bytes) -> np.ndarray:
    """The pixels of a PNG file without filters: (H, W) or (H, W, 3)."""
    assert png[:8] == b"\x89PNG\r\n\x1a\n"
    parts, at = {}, 8
    while at < len(png):
        size, = struct.unpack(">I", png[at:at + 4])
        kind, content = png[at + 4:at + 8], png[at + 8:at + 8 + size]
        assert struct.unpack(">I", png[at + 8 + size:at + 12 + size])[0] == zlib.crc32(
            kind + content)
        parts[kind], at = content, at + 12 + size
    assert list(parts) == [b"IHDR", b"IDAT", b"IEND"] and parts[b"IHDR"][8:] in (
        b"\x08\0\0\0\0", b"\x08\x02\0\0\0")
    width, height = struct.unpack(">II", parts[b"IHDR"][:8])
    rows = np.frombuffer(zlib.decompress(parts[b"IDAT"]), np.uint8).reshape(height, -1)
    assert (rows[:, 0] == 0).all()
    return rows[:, 1:].reshape((height, width, 3) if parts[b"IHDR"][9] else (height, width))
