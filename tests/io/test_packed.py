"""Our writer of safetensors files writes the bytes of the package's own writer."""

from __future__ import annotations

import numpy as np
import pytest
from safetensors.numpy import save

from xpnet.io.packed import DTYPES, packed

rng = np.random.default_rng(0)
# Names that are not in the order of the dtypes, and shapes with no element and with no axis.
ARRAYS = {f"{number * 7 % 5}.{dtype}.{number}": rng.integers(0, 2, shape).astype(dtype)
          for number, dtype in enumerate(DTYPES)
          for shape in [[(2, 3), (), (0, 4), (5,)][number % 4]]}


@pytest.mark.parametrize("arrays", [
    ARRAYS, {}, {"a": np.zeros((3, 4), np.float32)[:, ::2]}, {"ü\n\"\\\x01\x7f/": np.ones(3, bool)},
    dict(reversed(ARRAYS.items())), {f"{k}": np.full(k, k, np.uint8) for k in range(12)},
], ids=["every dtype", "none", "strided", "odd name", "another order", "sizes"])
@pytest.mark.parametrize("metadata", [{"xpnet": "{\"a\": \"ü\\n\", \"b\": [1, 2.5e-300]}\n\t\x1f€"},
                                      {"xpnet": ""}], ids=["text", "empty"])
def test_the_same_bytes(arrays, metadata):
    assert b"".join(packed(arrays, metadata)) == save(arrays, metadata)


def test_big_endian_arrays():
    a = np.arange(5, dtype=">f4")
    assert b"".join(packed({"a": a}, {"x": "y"})) == save({"a": a.astype("<f4")}, {"x": "y"})


def test_nothing_is_copied():
    a = np.zeros((4, 5), np.float32)
    header, piece = packed({"a": a}, {"x": "y"})
    a[0, 0] = 1
    assert bytes(piece) == a.tobytes() and np.shares_memory(np.frombuffer(piece, np.uint8), a)


@pytest.mark.parametrize("a", [np.zeros(2, complex), np.array(["text"]), np.array([None])],
                         ids=lambda a: str(a.dtype))
def test_dtypes_that_the_format_lacks(a):
    with pytest.raises(TypeError, match=r"^save: expected arrays of uint64, .*Received: a of "):
        packed({"a": a}, {})
