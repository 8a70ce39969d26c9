"""Convolution with 3x3 filters by Winograd's minimal filtering: 16 instead of 36 products for 4
outputs.

F(2x2, 3x3) of Lavin and Gray 2016, section 4.1. For a 4x4 tile d of the input and a filter g,

    y = A^T [ (G g G^T) * (B^T d B) ] A,            y is 2x2

and summing the products over channels makes a matrix product of each of the 16 positions.
The filter gradient is the adjoint: dg = G^T [ (A dy A^T) * (B^T d B) ] G. The transforms contain
only 0, 1, -1, 1/2 and 1/4: in float32 errors stay below 1e-6 (64 to 512 channels: outputs 3e-7 to
5e-7, plain sums 3e-7; dW 3e-7 to 6e-7, plain 1e-7 to 3e-7). A NaN or an infinity spreads to its
whole tile, and not only to the windows that contain it; NumpyBackend(winograd=0) uses no tiles.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array
from xpnet.backends.cpu.threads import single_threaded_blas
from xpnet.backends.numpy.pieces import partial_sums, spans
from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


G = np.array([[1, 0, 0], [0.5, 0.5, 0.5], [0.5, -0.5, 0.5], [0, 0, 1]])
A = np.array([[1, 0], [1, 1], [1, -1], [0, -1]])
FILTERS = np.kron(G, G)             # (16, 9): G g G^T of a filter as a vector
OUTPUTS = np.kron(A, A)             # (16, 4): A dy A^T; its transpose is A^T m A

COLUMNS = 512                       # tiles times samples in one set of 16 products


def winograd_pays(window: Window, groups: int, C: int, F: int, OH: int, OW: int, N: int,
                  *dtypes: np.dtype) -> bool:
    """Whether tiles save more time in the products than the transforms take, for F filters on C
    channels (measured)."""
    return (window.kernel == (3, 3) and window.stride == window.dilation == (1, 1) and groups == 1
            and C * F >= 64 * 64 and min(C, F) >= 32 and N >= 8
            and -(-OH // 2) * -(-OW // 2) * N >= 128
            and set(dtypes) in ({np.dtype(np.float32)}, {np.dtype(np.float64)}))


@dataclass(frozen=True)
class Part:
    """Tiles that are computed together: rows of tiles, and part of a row of (tiles, N) elements."""

    rows: slice
    part: slice


def make_parts(TH: int, TW: int, N: int) -> list[Part]:
    """TH x TW tiles of N samples in parts of about COLUMNS columns; for threads in at least four
    parts, if these have 64 columns."""
    columns = min(COLUMNS, max(64, TH * TW * N // 4))
    across = spans(TW, min(TW, -(-TW * N // columns)))
    rows = max(1, columns // (across[-1].stop - across[-1].start) // N)
    return [Part(r, slice(c.start * N, c.stop * N)) for r in spans(TH, -(-TH // rows))
            for c in across]


def convolve(self: NumpyBackend, x: Array, W: Array, window: Window, *, bias: Array | None = None,
             activation: str | None = None, flipped: bool = False) -> Array:
    """conv(x, W). If flipped, with flipped filters and their first axes swapped, as the input
    gradient needs them."""
    N, taps = x.shape[3], FILTERS[:, ::-1] if flipped else FILTERS
    # (16, F, C)
    U = self.gemm(taps.astype(W.dtype), W.reshape(-1, 9), trans_b=True).reshape(16, *W.shape[:2])
    U = U.swapaxes(1, 2) if flipped else U
    F = U.shape[1]
    OH, OW = window.output_size(*x.shape[1:3])
    TH, TW = -(-OH // 2), -(-OW // 2)
    columns = _split_columns(self, x, window, TH, TW)
    parts = make_parts(TH, TW, N)
    y = self.empty((F, TH, 2, TW, 2, N), x.dtype)
    rows = y.reshape(F, TH, 2, TW * 2 * N)
    transform = OUTPUTS.T.astype(x.dtype)

    def task(k: int) -> None:
        at = parts[k]
        V = _transform_input(self, columns, at, N)  # (16, C, n)
        M = self.empty((16, F, V.shape[2]), x.dtype)
        np.matmul(U, V, out=M)
        block = y[:, at.rows, :, at.part.start // N:at.part.stop // N]  # (F, th, 2, tw, 2, N)
        out = self.empty((2, 2, F, *block.shape[1::2]), x.dtype)  # (2, 2, F, th, tw, N)
        np.matmul(transform, M.reshape(16, -1), out=out.reshape(4, -1))
        np.copyto(block, out.transpose(2, 3, 0, 4, 1, 5))
        pixels = rows[:, at.rows, :, 2 * at.part.start:2 * at.part.stop]
        if bias is not None:
            pixels += bias[:, None, None, None]
        self.activate_in_place(pixels, activation)

    with single_threaded_blas():
        self.run(task, len(parts), y.size * x.shape[0] // 4)
    y = y.reshape(F, 2 * TH, 2 * TW, N)
    return y if (2 * TH, 2 * TW) == (OH, OW) else self.contiguous(y[:, :OH, :OW])


def filter_gradient(self: NumpyBackend, x: Array, dy: Array, window: Window) -> Array:
    """The gradient of conv(x, W) with respect to W, (F, C, 3, 3)."""
    (F, OH, OW, N), C = dy.shape, x.shape[0]
    TH, TW = -(-OH // 2), -(-OW // 2)
    columns = _split_columns(self, x, window, TH, TW)
    dy = self._pad(dy, Window((3, 3), padding=(0, OH % 2, 0, OW % 2))).reshape(F, TH, 2, TW, 2, N)
    parts = make_parts(TH, TW, N)
    jobs = partial_sums(len(parts), 16 * F * C)
    partial = self.empty((len(jobs), 16, F, C), x.dtype)

    def task(k: int) -> None:
        partial[k] = 0
        for at in parts[jobs[k]]:
            V = _transform_input(self, columns, at, N)  # (16, C, n)
            block = dy[:, at.rows, :, at.part.start // N:at.part.stop // N]  # (F, th, 2, tw, 2, N)
            D = _transform_gradient(self, block.transpose(2, 4, 0, 1, 3, 5))  # (16, F, n)
            dU = self.empty((16, F, C), x.dtype)
            np.matmul(D, V.swapaxes(1, 2), out=dU)
            partial[k] += dU

    with single_threaded_blas():
        self.run(task, len(jobs), dy.size * C // 4)
    return self.gemm(self.add_up(partial).reshape(16, F * C), FILTERS.astype(x.dtype),
                     trans_a=True).reshape(F, C, 3, 3)


def _split_columns(self: NumpyBackend, x: Array, window: Window, TH: int, TW: int) -> Array:
    """x (C, H, W, N) with its padding, (C, 2 TH + 2, 2, (TW + 1) N): even columns, then odd ones.

    So the elements at one of the four columns of all tiles in a row are contiguous.
    """
    C, H, W, N = x.shape
    top, _, left, _ = window.padding
    split = self.empty((C, 2 * TH + 2, 2, TW + 1, N), x.dtype)

    def task(channels: slice) -> None:
        s = split[channels]
        s[:, :top] = s[:, top + H:] = 0
        for odd in (0, 1):
            s_odd = s[:, top:top + H, odd]
            first = (left - odd + 1) // 2  # 2 first + odd is the first column inside x
            count = len(range(2 * first + odd - left, W, 2))
            s_odd[:, :, :first] = s_odd[:, :, first + count:] = 0
            s_odd[:, :, first:first + count] = x[channels, :, 2 * first + odd - left::2]

    self.over_rows(task, C, split[0].size)
    return split.reshape(C, 2 * TH + 2, 2, (TW + 1) * N)


def _transform_input(self: NumpyBackend, columns: Array, at: Part, N: int) -> Array:
    """B^T d B of these tiles, (16, C, n): B^T d = (d0 - d2, d1 + d2, d2 - d1, d1 - d3), by rows,
    then by columns."""
    C, th, n = columns.shape[0], at.rows.stop - at.rows.start, at.part.stop - at.part.start
    strip = columns[:, :, :, at.part.start:at.part.stop + N]
    d = [strip[:, 2 * at.rows.start + i:2 * at.rows.stop + i - 1:2] for i in range(4)]
    R = self.empty((4, C, th, 2, n + N), columns.dtype)
    np.subtract(d[0], d[2], out=R[0])
    np.add(d[1], d[2], out=R[1])
    np.subtract(d[2], d[1], out=R[2])
    np.subtract(d[1], d[3], out=R[3])
    d0, d1, d2, d3 = (R[:, :, :, i % 2, i // 2 * N:i // 2 * N + n] for i in range(4))
    V = self.empty((4, 4, C, th, n), columns.dtype)
    np.subtract(d0, d2, out=V[:, 0])
    np.add(d1, d2, out=V[:, 1])
    np.subtract(d2, d1, out=V[:, 2])
    np.subtract(d1, d3, out=V[:, 3])
    return V.reshape(16, C, th * n)


def _transform_gradient(self: NumpyBackend, dy: Array) -> Array:
    """A dy A^T of these tiles (2, 2, F, th, tw, N), as (16, F, n): A dy = (dy0, dy0 + dy1, dy0 -
    dy1, -dy1)."""
    F = dy.shape[2]
    R = self.empty((4, *dy.shape[1:]), dy.dtype)
    D = self.empty((4, 4, *dy.shape[2:]), dy.dtype)
    for source, target in ((dy, R), (R.swapaxes(0, 1), D.swapaxes(0, 1))):
        np.copyto(target[0], source[0])
        np.add(source[0], source[1], out=target[1])
        np.subtract(source[0], source[1], out=target[2])
        np.negative(source[1], out=target[3])
    return D.reshape(16, F, -1)
