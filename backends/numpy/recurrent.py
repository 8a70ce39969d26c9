"""The steps of recurrent layers with NumPy: in place, in arrays that stay in the cache.

The formulas are those of cells.py. Arrays of all steps are (rows, P), so the rows of one step are
far apart in memory; everything else is contiguous.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cells import blocks, cell_of, in_order
from xpnet.backends.cpu.threads import single_threaded_blas
from xpnet.backends.numpy.product import product

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend

LSTM, GRU = "lstm", "gru"
# -log of the smallest normal number, rounded towards 0
HIGHEST = {np.dtype(kind): np.dtype(kind).type(int(-100 * np.log(np.finfo(kind).tiny)) / 100)
           for kind in (np.float32, np.float64)}


def known(cell: str, lengths: Array | None, *arrays: Array | None) -> bool:
    kinds = {a.dtype for a in arrays if a is not None}
    return (lengths is None and cell in (LSTM, GRU) and len(kinds) == 1
            and kinds <= HIGHEST.keys())


def scan(self: NumpyBackend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True
         ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    if not known(cell, lengths, a, U, bias, *states):
        return Backend.scan(self, cell, a, U, states, counts, bias=bias, reverse=reverse,
                            lengths=lengths, keep=keep)
    (rows, H), P = U.shape, a.shape[1]
    y, all_states = self.empty((H, P), a.dtype), [state.copy() for state in states]
    kept = [self.empty((size * H, P), a.dtype)
            for size in (*(1 for _ in states), *cell_of(cell).kept)] if keep else []
    bias = None if bias is None else bias[:, None]
    before: list[Array] = []
    with single_threaded_blas():
        for _, columns, count in in_order(counts, reverse):
            if not before or before[0].shape[1] != count:
                before = _narrowed(before, all_states, count)
                gates, scratch = (np.empty((size, count), a.dtype) for size in (rows, H))
            for array, state in zip(kept, before):
                array[:, columns] = state
            product(U, before[0], gates)
            if cell == LSTM:
                gates += a[:, columns]
                needed = _lstm(gates, before[0], before[1], scratch)
            else:
                needed = _gru(a[:, columns], gates, bias, before[0], scratch)
            y[:, columns] = before[0]
            for array, part in zip(kept[len(before):], needed):
                array[:, columns] = part
    _narrowed(before, all_states, 0)
    return y, tuple(all_states), tuple(kept)


def scan_backward(self: NumpyBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                  U: Array, kept: Sequence[Array], counts: Sequence[int], *,
                  reverse: bool = False, lengths: Array | None = None
                  ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, lengths, dy, U, *dstates, *kept):
        return Backend.scan_backward(self, cell, dy, dstates, U, kept, counts, reverse=reverse,
                                     lengths=lengths)
    (rows, H), P = U.shape, kept[0].shape[1]
    da, all_states = self.empty((rows, P), U.dtype), [d.copy() for d in dstates]
    ds = self.empty(da.shape, U.dtype) if cell == GRU else da
    transposed = np.ascontiguousarray(U.T)                              # (H, gates H)
    d: list[Array] = []
    with single_threaded_blas():
        for _, columns, count in reversed(in_order(counts, reverse)):
            if not d or d[0].shape[1] != count:
                d = _narrowed(d, all_states, count)
                gates, one, two = (np.empty((size, count), U.dtype) for size in (rows, H, H))
            if dy is not None:
                d[0] += dy[:, columns]
            if cell == LSTM:
                _, c, all_gates, tanh_c = kept
                gates[...] = all_gates[:, columns]
                _lstm_backward(gates, d[0], d[1], c[:, columns], tanh_c[:, columns], one, two)
                da[:, columns] = gates
                product(transposed, gates, d[0])
            else:
                h, all_gates, m = kept
                gates[...] = all_gates[:, columns]
                _gru_backward(gates, d[0], h[:, columns], m[:, columns], one, two)
                da[:, columns] = gates
                gates[2 * H:] = two                                     # dn r
                ds[:, columns] = gates
                product(transposed, gates, one)
                d[0] += one
    _narrowed(d, all_states, 0)
    return da, ds, tuple(all_states)


def _narrowed(now: list[Array], states: list[Array], count: int) -> list[Array]:
    """Put `now`, those of the samples in a step, back into the states (H, N), and take out those of
    the first `count` samples."""
    for part, state in zip(now, states):
        state[:, :part.shape[1]] = part
    return [np.array(state[:, :count], order="C") for state in states]


def _sigmoid(z: Array) -> None:
    """z = 1 / (1 + exp(-z)), where exp cannot overflow."""
    np.negative(z, out=z)
    np.minimum(z, HIGHEST[z.dtype], out=z)
    np.exp(z, out=z)
    z += 1
    np.divide(1, z, out=z)


def _lstm(z: Array, h: Array, c: Array, tanh_c: Array) -> tuple[Array, Array]:
    """h and c become those after the step, and z the gates."""
    i, f, g, o = blocks(z, len(h))
    _sigmoid(z[:2 * len(h)])
    np.tanh(g, out=g)
    _sigmoid(o)
    c *= f
    np.multiply(i, g, out=h)
    c += h                                  # f c + i g
    np.tanh(c, out=tanh_c)
    np.multiply(o, tanh_c, out=h)           # o tanh(c)
    return z, tanh_c


def _lstm_backward(gates: Array, dh: Array, dc: Array, c: Array, tanh_c: Array, one: Array,
                   two: Array) -> None:
    """dc becomes that before the step, and the gates dz."""
    i, f, g, o = blocks(gates, len(dh))
    np.multiply(tanh_c, tanh_c, out=one)
    np.subtract(1, one, out=one)
    one *= o
    one *= dh
    dc += one                               # dc + dh o (1 - tanh_c^2)
    np.subtract(1, o, out=one)
    one *= o
    one *= tanh_c
    np.multiply(one, dh, out=o)             # dh tanh_c o (1 - o)
    np.multiply(g, g, out=one)
    np.subtract(1, one, out=one)
    one *= i
    np.subtract(1, i, out=two)
    i *= two
    i *= g
    i *= dc                                 # dc g i (1 - i)
    np.multiply(one, dc, out=g)             # dc i (1 - g^2)
    np.subtract(1, f, out=two)
    two *= f
    two *= c
    two *= dc                               # dc c f (1 - f)
    dc *= f
    f[...] = two


def _gru(a: Array, s: Array, bias: Array | None, h: Array, n: Array) -> tuple[Array, Array]:
    """h becomes that after the step; s becomes the gates."""
    H = len(h)
    r, z, last = blocks(s, H)
    s[:2 * H] += a[:2 * H]
    _sigmoid(s[:2 * H])
    m = last.copy() if bias is None else last + bias
    np.multiply(r, m, out=n)
    n += a[2 * H:]
    np.tanh(n, out=last)
    h -= last
    h *= z
    h += last                               # n + z (h - n)
    return s, m


def _gru_backward(gates: Array, dh: Array, h: Array, m: Array, one: Array, dn_r: Array) -> None:
    """dh becomes that before the step without the part through s, and the gates da."""
    r, z, n = blocks(gates, len(dh))
    np.subtract(h, n, out=one)
    one *= z
    one *= dh
    np.multiply(n, n, out=n)
    np.subtract(1, n, out=n)
    n *= dh
    dh *= z
    np.subtract(1, z, out=z)
    n *= z                                  # dn = dh (1 - z) (1 - n^2)
    z *= one                                # dh (h - n) z (1 - z)
    np.multiply(n, r, out=dn_r)
    np.subtract(1, r, out=one)
    one *= dn_r
    np.multiply(one, m, out=r)              # dn m r (1 - r)
