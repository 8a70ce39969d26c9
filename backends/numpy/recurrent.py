"""The steps of recurrent layers with NumPy: in place, in arrays that stay in the cache.

The formulas are those of cells.py. Arrays of all steps are (rows, P), so the rows of one step are
far apart in memory. To copy them step by step took a third of the time of an LSTM's training step
(T = 100, D = H = 128, N = 32). They are copied for several steps at once, from and to contiguous
arrays, in other threads than the one that computes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from itertools import accumulate
from typing import TYPE_CHECKING, Any

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

STEPS = 16      # that are loaded and stored together: fewer wait too often for the other thread


def known(cell: str, lengths: Array | None, *arrays: Array | None) -> bool:
    kinds = {a.dtype for a in arrays if a is not None}
    return (lengths is None and cell in (LSTM, GRU) and len(kinds) == 1
            and kinds <= HIGHEST.keys())


@dataclass
class _Run:
    """Up to STEPS steps with the same samples, and arrays (steps, rows, count) of them, in the
    order in which the steps are computed."""

    columns: slice
    count: int
    steps: int
    reverse: bool
    arrays: list[Array] = field(default_factory=list)

    def allocate(self, backend: NumpyBackend, dtype: Any, *sizes: tuple[int, int]) -> None:
        """An array (steps, rows, count) for each pair (steps, rows), all in one block of memory."""
        ends = [0, *accumulate(steps * rows * self.count for steps, rows in sizes)]
        memory = backend.empty((ends[-1],), dtype)
        self.arrays = [memory[start:end].reshape(*size, self.count)
                       for start, end, size in zip(ends, ends[1:], sizes)]

    def part(self, m: Array) -> Array:
        """The columns of m (rows, P) as a view (steps, rows, count)."""
        part = m[:, self.columns].reshape(len(m), self.steps, self.count).transpose(1, 0, 2)
        return part[::-1] if self.reverse else part


Stage = Callable[[_Run], None]


def _runs(counts: Sequence[int], reverse: bool) -> list[_Run]:
    """All steps that any sample has, in the order in which they are computed."""
    runs: list[_Run] = []
    for _, columns, count in in_order(counts, reverse):
        last = runs[-1] if runs else None
        if last is None or last.count != count or last.steps == STEPS:
            runs.append(_Run(columns, count, 1, reverse))
        else:
            last.columns = slice(min(last.columns.start, columns.start),
                                 max(last.columns.stop, columns.stop))
            last.steps += 1
    return runs


def _pipeline(self: NumpyBackend, runs: list[_Run], rows: int, load: Stage, compute: Stage,
              store: Stage) -> None:
    """Load, compute and store all runs. The arrays of the next steps are loaded, and those of the
    steps before are stored, in other threads, while one computes."""
    chunks: list[list[_Run]] = []
    for run in runs:
        if not chunks or sum(r.steps for r in chunks[-1]) + run.steps > STEPS:
            chunks.append([])
        chunks[-1].append(run)
    for number in range(-1, len(chunks) + 1):
        tasks = [(stage, chunks[n]) for stage, n in (
            (compute, number), (load, number + 1), (store, number - 1)) if 0 <= n < len(chunks)]

        def task(k: int, tasks: list[tuple[Stage, list[_Run]]] = tasks) -> None:
            stage, chunk = tasks[k]
            for run in chunk:
                stage(run)

        work = sum(r.steps * r.count for _, chunk in tasks[1:] for r in chunk) * rows
        self.run(task, len(tasks), work)


def scan(self: NumpyBackend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True
         ) -> tuple[Array, tuple[Array, ...], tuple[Array, ...]]:
    if not known(cell, lengths, a, U, bias, *states):
        return Backend.scan(self, cell, a, U, states, counts, bias=bias, reverse=reverse,
                            lengths=lengths, keep=keep)
    (rows, H), P = U.shape, a.shape[1]
    y, after = self.empty((H, P), a.dtype), [state.copy() for state in states]
    kept = [self.empty((size * H, P), a.dtype)
            for size in (*(1 for _ in states), *cell_of(cell).kept)] if keep else []
    bias = None if bias is None else bias[:, None]

    def load(run: _Run) -> None:
        """The gates, the states before and after each step, and tanh(c) or m."""
        steps = run.steps
        run.allocate(self, a.dtype, (steps, rows), *((steps + 1, H) for _ in states), (steps, H))
        run.arrays[0][...] = run.part(a)

    def compute(run: _Run) -> None:
        z, *moving, third = run.arrays
        s, high = np.empty((2, rows, run.count), a.dtype)
        high.fill(HIGHEST[a.dtype])
        for path, state in zip(moving, after):
            path[0] = state[:, :run.count]
        for k in range(run.steps):
            product(U, moving[0][k], s)
            if cell == LSTM:
                h, c = moving
                z[k] += s
                _lstm(z[k], h[k], c[k], h[k + 1], c[k + 1], third[k], high)
            else:
                h, = moving
                _gru(z[k], s, bias, h[k], h[k + 1], third[k], high)
        for path, state in zip(moving, after):
            state[:, :run.count] = path[-1]

    def store(run: _Run) -> None:
        z, *moving, third = run.arrays
        run.part(y)[...] = moving[0][1:]
        for array, part in zip(kept, (*(path[:-1] for path in moving), z, third)):
            run.part(array)[...] = part
        run.arrays = []

    with single_threaded_blas():
        _pipeline(self, _runs(counts, reverse), rows, load, compute, store)
    return y, tuple(after), tuple(kept)


def scan_backward(self: NumpyBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                  U: Array, kept: Sequence[Array], counts: Sequence[int], *,
                  reverse: bool = False, lengths: Array | None = None
                  ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, lengths, dy, U, *dstates, *kept):
        return Backend.scan_backward(self, cell, dy, dstates, U, kept, counts, reverse=reverse,
                                     lengths=lengths)
    (rows, H), P = U.shape, kept[0].shape[1]
    da, before = self.empty((rows, P), U.dtype), [d.copy() for d in dstates]
    ds = self.empty(da.shape, U.dtype) if cell == GRU else da
    transposed = np.ascontiguousarray(U.T)                              # (H, gates H)
    # the gates, tanh(c) and c of an LSTM, or the gates, m and h of a GRU
    sources = [*kept[-2:], kept[-3]] + ([] if dy is None else [dy])

    def load(run: _Run) -> None:
        more = [rows] if cell == GRU else []                            # ds
        run.allocate(self, U.dtype,
                     *((run.steps, size) for size in (*map(len, sources), *more)))
        for array, source in zip(run.arrays, sources):
            array[...] = run.part(source)

    def compute(run: _Run) -> None:
        gates, third, state = run.arrays[:3]
        d = [np.array(array[:, :run.count], order="C") for array in before]
        one, two = np.empty((2, H, run.count), U.dtype)
        for k in reversed(range(run.steps)):
            if dy is not None:
                d[0] += run.arrays[3][k]
            if cell == LSTM:
                _lstm_backward(gates[k], d[0], d[1], state[k], third[k], one, two)
                product(transposed, gates[k], d[0])
            else:
                s = run.arrays[-1][k]
                _gru_backward(gates[k], d[0], state[k], third[k], one, two)
                s[:2 * H], s[2 * H:] = gates[k, :2 * H], two            # dn r
                product(transposed, s, one)
                d[0] += one
        for array, now in zip(before, d):
            array[:, :run.count] = now

    def store(run: _Run) -> None:
        run.part(da)[...] = run.arrays[0]
        if cell == GRU:
            run.part(ds)[...] = run.arrays[-1]
        run.arrays = []

    with single_threaded_blas():
        _pipeline(self, _runs(counts, reverse)[::-1], rows, load, compute, store)
    return da, ds, tuple(before)


def _sigmoid(z: Array, high: Array) -> None:
    """z = 1 / (1 + exp(-z)). With the minimum of -z and HIGHEST, exp cannot overflow; NumPy's fast
    loop for it needs two arrays."""
    np.negative(z, out=z)
    np.minimum(z, high[:len(z)], out=z)
    np.exp(z, out=z)
    z += 1
    np.divide(1, z, out=z)


def _lstm(z: Array, h: Array, c: Array, new_h: Array, new_c: Array, tanh_c: Array, high: Array
          ) -> None:
    """The states after a step, and z becomes the gates."""
    i, f, g, o = blocks(z, len(h))
    _sigmoid(z[:2 * len(h)], high)
    np.tanh(g, out=g)
    _sigmoid(o, high)
    np.multiply(c, f, out=new_c)
    np.multiply(i, g, out=new_h)
    new_c += new_h                          # f c + i g
    np.tanh(new_c, out=tanh_c)
    np.multiply(o, tanh_c, out=new_h)       # o tanh(c)


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


def _gru(z: Array, s: Array, bias: Array | None, h: Array, new_h: Array, m: Array, high: Array
         ) -> None:
    """The state after a step, m = s_n + bias, and z, the part of the input, becomes the gates."""
    H = len(h)
    r, update, n = blocks(z, H)
    z[:2 * H] += s[:2 * H]
    _sigmoid(z[:2 * H], high)
    m[...] = s[2 * H:]
    if bias is not None:
        m += bias
    np.multiply(r, m, out=s[:H])
    n += s[:H]
    np.tanh(n, out=n)
    np.subtract(h, n, out=new_h)
    new_h *= update
    new_h += n                              # n + z (h - n)


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
