"""Fixed linear maps along rows and columns, as gathers: the base of borders and interpolation."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

from xpnet.layer import PREDICT, Array, Layer, Shape

Gather = tuple[Any, Array | None]       # an index, and a factor (None: 1)
MOST_ENTRIES = 1 << 26                  # of a table


@dataclass(frozen=True)
class Sparse:
    """A matrix (rows, columns) by its entries that are not 0, row after row: entry e is weight[e]
    at (row[e], column[e])."""

    shape: tuple[int, int]
    row: np.ndarray
    column: np.ndarray
    weight: np.ndarray

    @classmethod
    def taking(cls, columns: int, taken: np.ndarray, weight: np.ndarray | None = None) -> Sparse:
        """Row r is the sum over k of weight[r, k] times row taken[r, k] of the unit matrix; weights
        are 1 by default."""
        rows, k = taken.shape
        weight = np.ones(taken.shape) if weight is None else weight
        key = (np.arange(rows)[:, None] * columns + taken).ravel()
        order = np.argsort(key, kind="stable")
        key, starts = np.unique(key[order], return_index=True)
        total = np.add.reduceat(weight.ravel()[order], starts)  # several k may take the same row
        key, total = key[total != 0], total[total != 0]
        return cls((rows, columns), key // columns, key % columns, total)

    @property
    def T(self) -> Sparse:              # noqa: N802 - the name that arrays have
        order = np.argsort(self.column, kind="stable")
        return Sparse(self.shape[::-1], self.column[order], self.row[order], self.weight[order])

    @property
    def identity(self) -> bool:
        rows, columns = self.shape
        return (rows == columns == len(self.row)
                and bool((self.row == self.column).all() and (self.weight == 1).all()))

    def dense(self) -> np.ndarray:
        """The matrix with its zeros."""
        matrix = np.zeros(self.shape)
        matrix[self.row, self.column] = self.weight
        return matrix

    def table(self, who: str) -> tuple[np.ndarray, np.ndarray]:
        """Columns and weights (rows, most); `most` is the number of entries of the fullest row."""
        rows = self.shape[0]
        counts = np.bincount(self.row, minlength=rows)
        most = max(int(counts.max()), 1)
        if rows * most > MOST_ENTRIES:
            raise ValueError(f"{who}: expected a table of at most {MOST_ENTRIES:,} entries. "
                             f"Received: {rows:,} rows, one of which is used {most:,} times.")
        position = np.arange(len(self.row)) - (np.cumsum(counts) - counts)[self.row]
        columns, weights = np.zeros((rows, most), int), np.zeros((rows, most))
        columns[self.row, position], weights[self.row, position] = self.column, self.weight
        # A row with fewer entries takes its first one again, times 0: a NaN elsewhere cannot
        # reach it.
        return np.where(np.arange(most) < counts[:, None], columns, columns[:, :1]), weights


class RowsAndColumns(Layer):
    """Base class of fixed linear maps along rows and columns: Y[c] = A X[c] B^T, dX[c] = A^T dY[c]
    B.

    A subclass defines A (OH, H) and B (OW, W), which have few entries in a row. Each of them is a
    gather on the backend: y[r] = sum over k of weight_k[r] x[index_k[r]]. The transposed matrices
    are gathers too, so nothing is scattered.
    """

    def sizes(self, H: int, W: int) -> tuple[int, int]:
        """(OH, OW). Raises ValueError if the input is too small."""
        raise NotImplementedError

    def matrices(self, H: int, W: int) -> tuple[Sparse, Sparse]:
        """A (OH, H) and B (OW, W), on the host."""
        raise NotImplementedError

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self._in_size = self.expect_rows("an input", H, W)
        return C, *self.expect_rows("an output", *self.sizes(H, W))

    @cached_property
    def forth(self) -> list[list[Gather]]:
        A, B = self.matrices(*self._in_size)
        return self.gathers(A, 1) + self.gathers(B, 2)

    @cached_property
    def back(self) -> list[list[Gather]]:
        A, B = self.matrices(*self._in_size)
        return self.gathers(B.T, 2) + self.gathers(A.T, 1)

    def gathers(self, matrix: Sparse, axis: int) -> list[list[Gather]]:
        """One gather along an axis of (C, H, W, N) for each entry of the fullest row of `matrix`.
        """
        if matrix.identity:
            return []
        found: list[Gather] = []
        for index, weight in zip(*(table.T for table in matrix.table(self.who)), strict=True):
            where = (*(slice(None),) * axis, self.backend.asarray(index))
            weight = weight.reshape(-1, *(1,) * (3 - axis))
            found.append((where, None if (weight == 1).all()
                          else self.backend.asarray(weight, self.buffers.dtype)))
        return [found]

    @staticmethod
    def combine(x: Array, maps: list[list[Gather]]) -> Array:
        for first, *others in maps:
            x, source = _taken(x, first), x
            for gather in others:
                x += _taken(source, gather)
        return x

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        self.remember(mode)
        return self.combine(x, self.forth)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        self.recall()
        return self.combine(dy, self.back)


def _taken(x: Array, gather: Gather) -> Array:
    where, weight = gather
    part = x[where]
    if weight is not None:
        part *= weight
    return part
