"""Random damage of files: of their bytes, and of what formats consist of (lines, nodes, numbers,
operations of a pickle)."""

from __future__ import annotations

import io
import math
import re
import struct
import zipfile
from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.io.darknet.table import HEAD_KEYS, KINDS, NET_KEYS, TRAINING, UNTRAINED
from xpnet.io.onnx.fold import FOLD
from xpnet.io.onnx.load import READ

Rng = np.random.Generator
NUMBERS = [0, 1, -1, 2, 3, 7, 255, 1 << 16, 10**6, (1 << 24) + 1, 1 << 30, (1 << 31) - 1, 1 << 31,
           1 << 40, 1 << 62, (1 << 63) - 1, -(1 << 63), -2, -(1 << 31)]
TEXTS = ["nan", "inf", "-inf", "1e308", "-1e-320", "0x10", "", "9" * 400, "1_000", "\u0663", "-",
         "3.5", "null", "[]", "{}", '"', "true", *map(str, NUMBERS)]


def bytes_changed(content: bytes, rng: Rng) -> bytes:
    """One to three changes, of any kind."""
    raw = bytearray(content)
    for _ in range(rng.integers(1, 4)):
        at = int(rng.integers(len(raw) + 1))
        if rng.random() < 0.5:          # headers are at the beginning
            at = min(at, int(rng.integers(200)))
        part = raw[at:at + int(rng.integers(1, 40))]
        stop = at + len(part)
        what = rng.integers(9)
        if what == 0:
            raw[at:at + 1] = bytes([(raw[at] if part else 0) ^ 1 << rng.integers(8)])
        elif what == 1:
            raw[at:at + 1] = rng.bytes(1)
        elif what == 2 and rng.random() < 0.3:
            del raw[at:]
        elif what == 3:
            raw[at:at] = pick((rng.bytes(int(rng.integers(1, 9))), b"\n", b"\0"), rng)
        elif what == 4:
            del raw[at:stop]
        elif what == 5:
            raw[at:at] = part * int(rng.integers(1, 9))
        elif what == 6:                 # two parts change places
            to = int(rng.integers(len(raw) + 1))
            del raw[at:stop]
            raw[to:to] = part
        elif what == 7:
            number, bits = pick(NUMBERS, rng) % 2**64, pick("BHIQ", rng)
            size = struct.calcsize(bits)
            raw[at:at + size] = (number % 2**(8 * size)).to_bytes(size, pick(("little", "big"),
                                                                              rng))
        else:
            raw = number_changed(raw, rng)
    return bytes(raw)


def number_changed(raw: bytearray, rng: Rng) -> bytearray:
    """Digits in the file become another text."""
    places = [*re.finditer(rb"-?\d+(\.\d+)?", bytes(raw[:1 << 14]))]
    if places:
        place = pick(places, rng)
        raw[place.start():place.end()] = pick(TEXTS, rng).encode()
    return raw


def pick(things: Sequence[Any], rng: Rng) -> Any:
    return things[int(rng.integers(len(things)))]


def lines_changed(content: bytes, rng: Rng) -> bytes:
    """Lines of a cfg file: taken away, repeated, moved, with other values, options and sections."""
    lines = content.decode().splitlines()
    keys = [key for kind in KINDS.values() for key in (kind.keys + " " + kind.without_effect)
            .split()] + " ".join([*HEAD_KEYS.values(), *NET_KEYS, TRAINING, UNTRAINED]).split()
    sections = [f"[{name}]" for name in (*KINDS, *HEAD_KEYS, "net", "lstm", "")]
    for _ in range(rng.integers(1, 4)):
        at, what = int(rng.integers(len(lines))), rng.integers(7)
        key, _, value = lines[at].partition("=")
        if what == 0 and len(lines) > 1:
            del lines[at]
        elif what == 1:
            lines.insert(int(rng.integers(len(lines))), lines[at])
        elif what in (2, 3) and value:
            lines[at] = f"{key}={pick(TEXTS, rng)}"
        elif what == 4:
            lines.insert(at + 1, f"{pick(keys, rng).partition('=')[0]}={pick(TEXTS, rng)}")
        elif what == 5:
            lines.insert(at, pick(sections, rng))
        else:
            lines[at] = bytes_changed(lines[at].encode(), rng).decode("utf-8", "replace")
    return "\n".join(lines).encode()


def graph_changed(content: bytes, rng: Rng) -> bytes:
    """An ONNX file that is well formed, with other nodes, attributes, sizes, names and types."""
    import onnx
    model = onnx.ModelProto.FromString(content)
    graph = model.graph
    names = [name for node in graph.node for name in (*node.input, *node.output)]
    names += ["", "two\nlines", "long" * 999]
    for _ in range(rng.integers(1, 4)):
        node, what = pick(graph.node, rng), rng.integers(13)
        if what == 0:
            graph.node.remove(node)
        elif what == 1:
            graph.node.add().CopyFrom(node)
        elif what == 2 and node.input:
            node.input[int(rng.integers(len(node.input)))] = pick(names, rng)
        elif what == 3:
            side = pick((node.input, node.output), rng)
            side.append(pick(names, rng)) if rng.integers(2) or not side else side.pop()
        elif what == 4:
            node.op_type = pick(sorted({*READ, *FOLD}), rng)
        elif what == 5 and node.attribute:
            pick(node.attribute, rng).type = int(rng.integers(15))
        elif what == 6 and node.attribute:
            attribute = pick(node.attribute, rng)
            attribute.i, attribute.f = pick(NUMBERS, rng), pick([math.nan, 1e38, -1.0], rng)
            attribute.s = pick([b"", b"\xff", b"tanh"], rng)
            for number in range(len(attribute.ints)):
                if rng.integers(2):
                    attribute.ints[number] = pick(NUMBERS, rng)
        elif what == 7 and node.attribute:
            attribute = pick(node.attribute, rng)
            attribute.CopyFrom(onnx.helper.make_attribute(attribute.name or "axis", pick(
                [3, -1.5, "text", [1] * 9, [0.5], [1 << 40], ["a"], 1 << 62,
                 onnx.numpy_helper.from_array(np.ones((2, 0)))], rng)))
        elif what == 8 and graph.initializer:
            tensor = pick(graph.initializer, rng)
            if rng.integers(2) and tensor.dims:
                tensor.dims[int(rng.integers(len(tensor.dims)))] = pick(NUMBERS, rng)
            elif rng.integers(2):
                tensor.dims[:] = pick([[1, *tensor.dims], [*tensor.dims][::-1], [], [0],
                                       [1 << 31, 0], [1] * 70], rng)
            else:
                tensor.data_type = int(rng.integers(26))
        elif what == 9 and graph.initializer:
            tensor = pick(graph.initializer, rng)
            if tensor.data_type == onnx.TensorProto.INT64 and (
                    len(tensor.raw_data) == 8 * math.prod(tensor.dims)):
                values = np.array(onnx.numpy_helper.to_array(tensor))
                values.reshape(-1)[:] = [pick(NUMBERS, rng) for _ in range(values.size)]
                tensor.CopyFrom(onnx.numpy_helper.from_array(values, tensor.name))
            elif rng.integers(2):
                tensor.data_location = onnx.TensorProto.EXTERNAL
                tensor.external_data.add(key="location", value=pick(["../a", "x.onnx", "/", ""],
                                                                    rng))
            else:
                tensor.name = pick(names, rng)
        elif what == 10 and graph.input:
            shape = pick(graph.input, rng).type.tensor_type.shape
            if shape.dim and rng.integers(3):
                pick(shape.dim, rng).dim_value = pick(NUMBERS, rng)
            else:
                shape.dim.add()
        elif what == 11 and node.input:     # an array of one number, perhaps a large one
            sizes = [pick([1, 2, 4, 1 << 12, 1 << 24, 1 << 30], rng)
                     for _ in range(rng.integers(1, 4))]
            made, number = f"made{len(graph.node)}", pick([1, 0, 1.0, -1.5], rng)
            graph.initializer.append(onnx.numpy_helper.from_array(np.array(sizes), f"{made}:n"))
            graph.node.insert(0, onnx.helper.make_node(
                "ConstantOfShape", [f"{made}:n"], [made],
                value=onnx.numpy_helper.from_array(np.array([number]))))
            node.input[int(rng.integers(len(node.input)))] = made
        else:
            port = pick([*graph.input, *graph.output], rng)
            port.name = pick(names, rng)
        if not graph.node:
            break
    return model.SerializeToString()


def in_archive(content: bytes, rng: Rng) -> bytes:
    """A file of torch.save whose members are changed, and whose checksums are right."""
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    name = "archive/data.pkl" if rng.random() < 0.8 else pick([*members], rng)
    change = pick((bytes_changed, operations_changed), rng)
    members[name] = (change if name.endswith(".pkl") else bytes_changed)(members[name], rng)
    made, kind = io.BytesIO(), zipfile.ZIP_STORED if rng.random() < 0.95 else zipfile.ZIP_DEFLATED
    with zipfile.ZipFile(made, "w", kind) as archive:
        for member, memory in members.items():
            archive.writestr(member, memory)
    return made.getvalue()


def operations_changed(content: bytes, rng: Rng) -> bytes:
    """A pickle with whole operations taken away, repeated, moved or replaced."""
    import pickletools
    places = [place for _, _, place in pickletools.genops(content)] + [len(content)]
    parts = [content[a:b] for a, b in zip(places, places[1:])]
    new = [code.code.encode("latin-1") for code in pickletools.opcodes if code.arg is None] + [
        b"K\xff", b"J\xff\xff\xff\x7f", b"\x8a\x09" + b"\xff" * 8 + b"\0", b"cos\nsystem\n",
        b"ctorch\nFloatStorage\n", b"X\x01\0\0\0a", b"h\0", b"q\1", b"\x8b\xff\xff\xff\x7f"]
    for _ in range(rng.integers(1, 5)):
        at, what = int(rng.integers(len(parts))), rng.integers(4)
        if what == 0 and len(parts) > 1:
            del parts[at]
        elif what == 1:
            parts[at] = pick(new, rng)
        else:
            parts.insert(at, pick(new if what == 2 else parts, rng))
    return b"".join(parts)


def about_changed(content: bytes, rng: Rng) -> bytes:
    """Numbers in the JSON header, whose length stays right."""
    length, = struct.unpack("<Q", content[:8])
    header = bytearray(content[8:8 + length])
    for _ in range(rng.integers(1, 4)):
        header = number_changed(header, rng)
    return struct.pack("<Q", len(header)) + bytes(header) + content[8 + length:]
