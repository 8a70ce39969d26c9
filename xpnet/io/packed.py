"""The content of a safetensors file, in pieces: the arrays are written from where they are, without
a copy in memory."""

from __future__ import annotations

import json
from collections.abc import Mapping

import numpy as np

Piece = bytes | memoryview

# The format's names of dtypes, in the order of the arrays in a file: those of large elements come
# first, so that each array is aligned.
DTYPES = {"uint64": "U64", "int64": "I64", "float64": "F64", "float32": "F32", "uint32": "U32",
          "int32": "I32", "float16": "F16", "uint16": "U16", "int16": "I16", "int8": "I8",
          "uint8": "U8", "bool": "BOOL"}
ORDER = list(DTYPES)
ALIGNED = 8             # bytes: the arrays begin at a multiple


def packed(arrays: Mapping[str, np.ndarray], metadata: Mapping[str, str]) -> list[Piece]:
    """The header, then the elements of each array; the same bytes as `safetensors.numpy.save`.

    The pieces are views of the arrays, which must not change until they are written.

    Raises:
        TypeError: an array has a dtype that the format lacks.
    """
    for name, a in arrays.items():
        if a.dtype.name not in DTYPES:
            raise TypeError(f"save: expected arrays of {', '.join(DTYPES)}. Received: {name} of "
                            f"{a.dtype.name}.")
    names = sorted(arrays, key=lambda name: (ORDER.index(arrays[name].dtype.name), name))
    header: dict[str, object] = {"__metadata__": dict(metadata)}
    pieces: list[Piece] = []
    start = 0
    for name in names:
        a = arrays[name]
        header[name] = {"dtype": DTYPES[a.dtype.name], "shape": list(a.shape),
                        "data_offsets": [start, start + a.nbytes]}
        start += a.nbytes
        little = a.astype(a.dtype.newbyteorder("<"), copy=False)
        pieces.append(np.ascontiguousarray(little).reshape(-1).view(np.uint8).data)
    text = json.dumps(header, separators=(",", ":"), ensure_ascii=False).encode()
    text += b" " * (-len(text) % ALIGNED)
    return [len(text).to_bytes(8, "little") + text, *pieces]
