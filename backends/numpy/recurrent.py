"""The steps of recurrent layers with NumPy: in place, in arrays that stay in the cache.

The formulas are those of cells.py. In arrays of all steps, (rows, P), the elements of one step are
far apart in memory. So these arrays are transposed here, (P, rows): a step is then one piece of
memory. What comes in is transposed once; what is kept for the backward pass and the gradients are
returned as transposed views, which BLAS multiplies as they are. The arithmetic of a step is done in
arrays (gates, n, H) for its n samples, in which each gate is contiguous.

One thread computes the steps: two threads that share the samples would wait for each other at every
small operation in Python. While it computes some steps, a second thread multiplies the inputs of
the steps after them, or the gradients of the steps before. These are few large products.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cells import in_order
from xpnet.backends.cpu.threads import single_threaded_blas
from xpnet.backends.numpy.product import product

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend

LSTM, GRU = "lstm", "gru"
STEPS = 16              # of a chunk: with fewer, the threads wait for each other too often
MANY = 8                # steps that are worth a transposed copy of U

Scanned = tuple[Array, tuple[Array, ...], tuple[Array, ...]]


def known(cell: str, lengths: Array | None, *arrays: Array | None) -> bool:
    kinds = {a.dtype for a in arrays if a is not None}
    return (lengths is None and cell in (LSTM, GRU) and len(kinds) == 1
            and kinds <= {np.dtype(np.float32), np.dtype(np.float64)})


# --- chunks of steps ------------------------------------------------------------------------------

class _Chunk(NamedTuple):
    """Up to STEPS steps in the order in which they are computed: the columns of each and the number
    of its samples, and the columns of all of them."""

    steps: list[tuple[slice, int]]
    columns: slice


def _chunks(counts: Sequence[int], reverse: bool) -> list[_Chunk]:
    steps = [(columns, n) for _, columns, n in in_order(counts, reverse)]
    parts = [steps[start:start + STEPS] for start in range(0, len(steps), STEPS)]
    return [_Chunk(part, slice(min(columns.start for columns, _ in part),
                               max(columns.stop for columns, _ in part))) for part in parts]


def _beside(self: NumpyBackend, chunks: Sequence[_Chunk], rows: int,
            compute: Callable[[_Chunk], None], products: Sequence[Callable[[slice], None]],
            shift: int) -> None:
    """compute(chunk) of one chunk after the other, and at the same time the products of the columns
    of the chunk `shift` places after it."""
    work = rows * max((sum(n for _, n in chunk.steps) for chunk in chunks), default=0)
    for at in range(min(0, -shift), len(chunks) + max(0, -shift)):
        tasks: list[Callable[[], None]] = []
        if 0 <= at < len(chunks):
            tasks.append(partial(compute, chunks[at]))
        if 0 <= at + shift < len(chunks):
            tasks += [partial(task, chunks[at + shift].columns) for task in products]
        self.run(lambda k, tasks=tasks: tasks[k](), len(tasks), work)          # type: ignore[misc]


def _transposed(self: NumpyBackend, m: Array) -> Array:
    """A contiguous copy of m^T."""
    copy = self.empty(m.T.shape, m.dtype)
    self.over_rows(lambda rows: np.copyto(copy[rows], m.T[rows]), *copy.shape)
    return copy


def _room(gates: int, most: int, H: int, kind: Any) -> Callable[[int], Array]:  # noqa: N803
    """A function of n that returns an array (gates, n, H), always in the same memory."""
    memory = np.empty(gates * most * H, kind)
    return lambda n: memory[:gates * n * H].reshape(gates, n, H)


# --- forward --------------------------------------------------------------------------------------

def scan(self: NumpyBackend, cell: str, a: Array, U: Array, states: Sequence[Array],
         counts: Sequence[int], *, bias: Array | None = None, reverse: bool = False,
         lengths: Array | None = None, keep: bool = True) -> Scanned:
    if not known(cell, lengths, a, U, bias, *states):
        return Backend.scan(self, cell, a, U, states, counts, bias=bias, reverse=reverse,
                            lengths=lengths, keep=keep)
    return _scan(self, cell, _transposed(self, a), (), U, states, counts, bias, reverse, keep)


def scan_product(self: NumpyBackend, cell: str, x: Array, W: Array, b: Array | None, U: Array,
                 states: Sequence[Array], counts: Sequence[int], *, bias: Array | None = None,
                 reverse: bool = False, lengths: Array | None = None, keep: bool = True
                 ) -> Scanned:
    if not known(cell, lengths, x, W, b, U, bias, *states):
        return Backend.scan_product(self, cell, x, W, b, U, states, counts, bias=bias,
                                    reverse=reverse, lengths=lengths, keep=keep)
    a = self.empty((x.shape[1], len(W)), x.dtype)                           # (P, gates H)

    def inputs(columns: slice) -> None:
        product(x[:, columns].T, W.T, a[columns])
        if b is not None:
            a[columns] += b

    return _scan(self, cell, a, (inputs,), U, states, counts, bias, reverse, keep)


def _scan(self: NumpyBackend, cell: str, gates: Array, inputs: Sequence[Callable[[slice], None]],
          U: Array, states: Sequence[Array], counts: Sequence[int], bias: Array | None,
          reverse: bool, keep: bool) -> Scanned:
    """scan, where `gates` (P, gates H) is a at first, or the functions `inputs` write it there."""
    (rows, H), P, N, kind = U.shape, len(gates), states[0].shape[1], U.dtype
    chunks, G = _chunks(counts, reverse), rows // H
    now = [_transposed(self, state) for state in states]                    # (N, H) each
    turned = U.reshape(G, H, H).transpose(0, 2, 1)                          # U^T of each gate
    turned = np.ascontiguousarray(turned) if len(counts) > MANY else turned
    y, by_gate = self.empty((P, H), kind), gates.reshape(P, G, H)
    third = self.empty((P, H), kind)                                        # tanh(c), or m of a GRU
    before = [self.empty((P, H), kind) for _ in states] if keep else []
    room = _room(G, N, H, kind)

    def compute(chunk: _Chunk) -> None:
        with np.errstate(over="ignore", under="ignore"):        # of exp
            for columns, n in chunk.steps:
                s, a = room(n), by_gate[columns].transpose(1, 0, 2)
                of_step = [state[:n] for state in now]
                for path, state in zip(before, of_step):
                    path[columns] = state
                np.matmul(of_step[0], turned, out=s)
                if cell == LSTM:
                    _lstm(a, s, of_step[0], of_step[1], third[columns])
                else:
                    _gru(a, s, bias, of_step[0], third[columns])
                y[columns] = of_step[0]
                if keep:
                    a[...] = s

    with single_threaded_blas():
        _beside(self, chunks, rows, compute, inputs, 1)
    kept = (*before, gates, third) if keep else ()
    return (_transposed(self, y), tuple(_transposed(self, state) for state in now),
            tuple(m.T for m in kept))


# --- backward -------------------------------------------------------------------------------------

def scan_backward(self: NumpyBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                  U: Array, kept: Sequence[Array], counts: Sequence[int], *,
                  reverse: bool = False, lengths: Array | None = None
                  ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, lengths, dy, U, *dstates, *kept):
        return Backend.scan_backward(self, cell, dy, dstates, U, kept, counts, reverse=reverse,
                                     lengths=lengths)
    return _scan_backward(self, cell, dy, dstates, (), U, kept, counts, reverse)


def scan_product_backward(self: NumpyBackend, cell: str, dy: Array | None,
                          dstates: Sequence[Array], x: Array, U: Array, kept: Sequence[Array],
                          counts: Sequence[int], dW: Array, dU: Array, *,
                          accumulate: bool = False, reverse: bool = False,
                          lengths: Array | None = None
                          ) -> tuple[Array, Array, tuple[Array, ...]]:
    if not known(cell, lengths, dy, x, U, dW, dU, *dstates, *kept):
        return Backend.scan_product_backward(self, cell, dy, dstates, x, U, kept, counts, dW, dU,
                                             accumulate=accumulate, reverse=reverse,
                                             lengths=lengths)
    if not accumulate:
        dW[...] = dU[...] = 0
    return _scan_backward(self, cell, dy, dstates, (x.T, dW, dU), U, kept, counts, reverse)


def _scan_backward(self: NumpyBackend, cell: str, dy: Array | None, dstates: Sequence[Array],
                   for_weights: tuple[Array, ...], U: Array, kept: Sequence[Array],
                   counts: Sequence[int], reverse: bool
                   ) -> tuple[Array, Array, tuple[Array, ...]]:
    """scan_backward. `for_weights`: x^T, dW and dU, to which the gradients are added; or ()."""
    (rows, H), P, N, kind = U.shape, kept[0].shape[1], dstates[0].shape[1], U.dtype
    G = rows // H
    now = [_transposed(self, d) for d in dstates]                           # (N, H) each
    *before, gates, third = (m.T if m.T.flags.c_contiguous else _transposed(self, m) for m in kept)
    dy = None if dy is None else _transposed(self, dy)
    da = self.empty((P, rows), kind)
    ds = self.empty((P, rows), kind) if cell == GRU else da
    by_gate, da_by_gate, ds_by_gate = (m.reshape(P, G, H) for m in (gates, da, ds))
    room, parts, room_of_two = _room(G, N, H, kind), _room(G, N, H, kind), _room(2, N, H, kind)
    of_gates = U.reshape(G, H, H)

    def compute(chunk: _Chunk) -> None:
        with np.errstate(under="ignore"):
            for columns, n in reversed(chunk.steps):
                z, (one, two) = room(n), room_of_two(n)
                d = [state[:n] for state in now]
                if dy is not None:
                    d[0] += dy[columns]
                z[...] = by_gate[columns].transpose(1, 0, 2)
                if cell == LSTM:
                    _lstm_backward(z, d[0], d[1], before[1][columns], third[columns], one, two)
                    da_by_gate[columns].transpose(1, 0, 2)[...] = z
                    np.add.reduce(np.matmul(z, of_gates, out=parts(n)), out=d[0])
                else:
                    _gru_backward(z, d[0], before[0][columns], third[columns], one, two)
                    da_by_gate[columns].transpose(1, 0, 2)[...] = z
                    z[2] = two                                  # dn r
                    ds_by_gate[columns].transpose(1, 0, 2)[...] = z
                    d[0] += np.add.reduce(np.matmul(z, of_gates, out=parts(n)), out=one)

    def adding(total: Array, left: Array, right: Array) -> Callable[[slice], None]:
        """total += left^T right, of some columns at a time."""
        part = np.empty_like(total)

        def add(columns: slice) -> None:
            np.matmul(left[columns].T, right[columns], out=part)
            np.add(total, part, out=total)

        return add

    products = []
    if for_weights:
        x, dW, dU = for_weights
        products = [adding(dW, da, x), adding(dU, ds, before[0])]
    with single_threaded_blas():
        _beside(self, _chunks(counts, reverse)[::-1], rows, compute, products, -1)
    return da.T, ds.T, tuple(_transposed(self, d) for d in now)


# --- the cells ------------------------------------------------------------------------------------

def _sigmoid(z: Array) -> None:
    """z = 1 / (1 + exp(-z)); where exp(-z) is infinite, 0."""
    np.negative(z, out=z)
    np.exp(z, out=z)
    z += 1
    np.divide(1, z, out=z)


def _lstm(a: Array, s: Array, h: Array, c: Array, tanh_c: Array) -> None:
    """h and c become those after the step, s the gates."""
    s += a
    i, f, g, o = s
    _sigmoid(s[:2])
    np.tanh(g, out=g)
    _sigmoid(o)
    c *= f
    np.multiply(i, g, out=h)
    c += h                                  # f c + i g
    np.tanh(c, out=tanh_c)
    np.multiply(o, tanh_c, out=h)           # o tanh(c)


def _lstm_backward(gates: Array, dh: Array, dc: Array, c: Array, tanh_c: Array, one: Array,
                   two: Array) -> None:
    """dc becomes that before the step, and the gates dz."""
    i, f, g, o = gates
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


def _gru(a: Array, s: Array, bias: Array | None, h: Array, m: Array) -> None:
    """h becomes that after the step, m = s_n + bias, and s the gates."""
    r, update, n = s
    s[:2] += a[:2]
    _sigmoid(s[:2])
    np.add(n, 0 if bias is None else bias, out=m)
    np.multiply(r, m, out=n)
    n += a[2]
    np.tanh(n, out=n)
    h -= n
    h *= update
    h += n                                  # n + z (h - n)


def _gru_backward(gates: Array, dh: Array, h: Array, m: Array, one: Array, dn_r: Array) -> None:
    """dh becomes that before the step without the part through s, and the gates da."""
    r, z, n = gates
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
