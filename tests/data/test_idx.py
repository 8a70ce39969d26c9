"""IDX files: they are read correctly, and damaged ones are refused."""

import gzip
import struct
from pathlib import Path

import numpy as np
import pytest

from xpnet.data import read_idx

CODES = {"uint8": 0x08, "int8": 0x09, "int16": 0x0B, "int32": 0x0C, "float32": 0x0D,
         "float64": 0x0E}


def idx_bytes(array: np.ndarray) -> bytes:
    header = struct.pack(f">HBB{array.ndim}I", 0, CODES[array.dtype.name], array.ndim, *array.shape)
    return header + array.astype(array.dtype.newbyteorder(">")).tobytes()


def save(path: Path, content: bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content)
    return path


def test_a_file_written_by_hand(tmp_path):
    # Two axes, 2 x 3, int16: written byte by byte, so that the reader is not only tested against
    # the writer of these tests.
    raw = bytes.fromhex(
        "00 00 0b 02  00 00 00 02  00 00 00 03  00 01 00 02 00 03  ff ff 01 00 80 00")
    array = read_idx(save(tmp_path / "file", raw))
    np.testing.assert_array_equal(array, [[1, 2, 3], [-1, 256, -32768]])
    assert array.dtype == np.int16 and array.dtype.isnative and array.flags.writeable


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("dtype", CODES)
@pytest.mark.parametrize("shape", [(7,), (3, 4, 5), (0, 28, 28)])
def test_every_type_comes_back_in_native_order(tmp_path, dtype, shape, packed):
    array = np.random.default_rng(0).uniform(-100, 100, shape).astype("int64").astype(dtype)
    raw = idx_bytes(array)
    read = read_idx(save(tmp_path / "file", gzip.compress(raw) if packed else raw))
    np.testing.assert_array_equal(read, array, strict=True)
    assert read.dtype.isnative


GOOD = idx_bytes(np.arange(24, dtype=np.uint8).reshape(2, 3, 4))
PACKED = gzip.compress(GOOD, mtime=0)


@pytest.mark.parametrize(("raw", "message"), [
    (b"", r"expected an IDX file, at least 4 bytes. Received: 0 bytes"),
    (b"PK\x03\x04" + GOOD[4:], r"begins with 00 00. Received: 50 4b 03 04"),
    (b"\x00\x00\x0a" + GOOD[3:],
     r"expected a type code of IDX \(08, 09, 0b, 0c, 0d, 0e\). Received: 0a"),
    (GOOD[:10], r"expected a header of 16 bytes for 3 axes. Received: 10 bytes"),
    (GOOD[:-1],
     r"expected 24 bytes of data for shape \(2, 3, 4\) of uint8. Received: 23 bytes; .* truncated"),
    (GOOD + b"\x00",
     r"expected 24 bytes of data .* Received: more than 24 bytes; the file is too long"),
    (b"\x00\x00\x08\x02" + b"\xff" * 8,
     r"expected 18446744065119617025 bytes .* Received: 0 bytes; .* truncated"),
    (PACKED[:-9], r"expected a whole gzip file. Received: \d+ bytes of one; the file is truncated"),
    (PACKED[:3], r"expected a whole gzip file"),
    (PACKED[:20] + bytes([PACKED[20] ^ 0xFF]) + PACKED[21:], r"expected a sound gzip file"),
    (PACKED[:-5] + bytes([PACKED[-5] ^ 1]) + PACKED[-4:], r"expected a sound gzip file. .*CRC"),
    (PACKED + b"tail", r"expected a sound gzip file"),
])
def test_damaged_files_are_refused(tmp_path, raw, message):
    path = save(tmp_path / "some-file", raw)
    with pytest.raises(ValueError, match=message) as caught:
        read_idx(path)
    assert "read_idx '" in str(caught.value) and "some-file'" in str(caught.value)


def test_every_truncation_is_noticed(tmp_path):
    for raw in (GOOD, PACKED):
        for length in range(len(raw)):
            with pytest.raises(ValueError):
                read_idx(save(tmp_path / "file", raw[:length]))


def test_not_a_file(tmp_path):
    with pytest.raises(ValueError, match="expected a file. Received: the folder"):
        read_idx(tmp_path)
    with pytest.raises(FileNotFoundError,
                       match="expected an IDX file. Received: .*nothing, which does not exist"):
        read_idx(tmp_path / "nothing")
