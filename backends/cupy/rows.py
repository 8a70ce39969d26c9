"""Launches of the kernels that loop over long arrays or rows; see kernels/rows.cu."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.cupy import launch as cuda_launch

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


def has_kernels(*arrays: Array) -> bool:
    """Whether all arrays have one type that there are kernels for, and none is empty."""
    return (arrays[0].dtype in cuda_launch.TYPES
            and all(a.dtype == arrays[0].dtype and a.size > 0 for a in arrays))


def along_rows(*arrays: Array) -> tuple[str, tuple[cuda_launch.Grid, cuda_launch.Grid], np.void]:
    """(type and width, launch, struct Pieces) for kernels that loop over the rows of arrays of one
    shape and type."""
    a = arrays[0]
    size = a.size // a.shape[0]
    width = cuda_launch.extreme_width(size, accesses(arrays))
    return (f"{cuda_launch.TYPES[a.dtype]}, {width}",
            *cuda_launch.row_pieces(a.shape[0], size, width))


def along_array(turn: int, *arrays: Array) -> tuple[str, tuple[cuda_launch.Grid, cuda_launch.Grid]]:
    """(type and width, launch) for kernels that loop over arrays of one size; a thread loads `turn`
    vectors of each array at a time. The type is that of the first array."""
    a = arrays[0]
    width = cuda_launch.extreme_width(a.size, accesses(arrays))
    return (f"{cuda_launch.TYPES[a.dtype]}, {width}",
            cuda_launch.flat_launch(-(-a.size // (width * turn))))


def accesses(arrays: tuple[Array, ...]) -> list[tuple[int, int]]:
    return [(a.data.ptr, a.itemsize) for a in arrays]


def add_parts(self: CupyBackend, parts: Array, sums: Array, accumulate: bool) -> None:
    """sums = or += the sum of each row of parts (rows, per_row), for as many rows as there are
    sums."""
    rows, per_row = sums.size, parts.size // sums.size
    # one block adds all parts of a row
    ((_, groups, _), block), _ = cuda_launch.row_pieces(rows, per_row, 1)
    pieces = cuda_launch.struct(cuda_launch.PIECES, (per_row, per_row, rows, per_row))
    self._launch("activation", f"add_parts<{cuda_launch.TYPES[sums.dtype]}>",
                 ((1, groups, 1), block), parts, sums, np.bool_(accumulate), pieces)


def room_for_parts(self: CupyBackend, pieces: np.void | None, dtype: Any,
                   sums: int = 1) -> Array:
    """An empty array for the sums over each piece, in the type of the sums; size 0 without
    pieces."""
    count = 0 if pieces is None else int(pieces["rows"]) * int(pieces["per_row"]) * sums
    return self.empty((count,), np.promote_types(dtype, np.float32))
