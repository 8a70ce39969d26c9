"""What the layers share that make new rows and columns of old ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import PREDICT, Array, Layer, Shape

Gather = tuple[Any, Array | None]       # where to take from, and times what (None: times 1)


class RowsAndColumns(Layer):
    """Base class of fixed linear maps along rows and columns: Y[c] = A X[c] B^T, dX[c] = A^T dY[c] B.

    A subclass says what A (OH, H) and B (OW, W) are. They have few entries in a row; each of them is a gather on the backend:
    rows y[r] = sum over k of weight_k[r] x[index_k[r]]. The transposed matrices give gathers just so, and nothing is scattered.
    """

    def matrices(self, H: int, W: int) -> tuple[np.ndarray, np.ndarray]:
        """A (OH, H) and B (OW, W), on the host."""
        raise NotImplementedError

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.A, self.B = self.matrices(H, W)
        return C, len(self.A), len(self.B)

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        super().bind(backend, seed, index, counters)
        self.forth = self.gathers(self.A, 1) + self.gathers(self.B, 2)
        self.back = self.gathers(self.B.T, 2) + self.gathers(self.A.T, 1)

    def gathers(self, matrix: np.ndarray, axis: int) -> list[list[Gather]]:
        """One gather for each entry that the fullest row of `matrix` has, along an axis of (C, H, W, N)."""
        if matrix.shape[0] == matrix.shape[1] and (matrix == np.eye(len(matrix))).all():
            return []
        places = np.argsort(matrix == 0, axis=1, kind="stable")         # of each row, its entries first
        most = max(int((matrix != 0).sum(axis=1).max()), 1)
        found: list[Gather] = []
        for k in range(most):
            weight = np.take_along_axis(matrix, places[:, k:k + 1], axis=1)
            # A row with fewer entries takes its first one again, times 0: what it does not see cannot reach it.
            index = np.where(weight[:, 0] != 0, places[:, k], places[:, 0])
            on_device = self.backend.asarray(index)
            found.append(((slice(None), on_device) if axis == 1 else (slice(None), slice(None), on_device),
                          None if (weight == 1).all() else
                          self.backend.asarray(weight.reshape(-1, *(1,) * (3 - axis)), self.buffers.dtype)))
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
