"""The table of recurrent cells: one step of each, and its gradient.

A step gets a = W x + b of this step and s = U h of the step before, both (gates H, N), and the
states before it, (H, N) each, h first. `Backend.scan` runs all steps of a sequence. The formulas
with their sources are in the docstrings of the layers in xpnet/layers/recurrent.py.

An entry of the table is enough for a cell to work on every backend. Faster versions are in the
files recurrent.py of the backends.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import lru_cache
from typing import Any, NamedTuple

from xpnet.backends import activations

Array = Any
Step = tuple[tuple[Array, ...], tuple[Array, ...]]      # the new states, and what backward needs


class Cell(NamedTuple):
    """An entry of the table.

    forward: (backend, a, s, c, *states) -> the states after the step, and what backward needs.
    backward: (backend, *dstates, *states, *kept) -> da, ds, and the gradients with respect to the
        states before the step, that of h without the part through s. dstates are those with respect
        to the states after the step, `states` those before it.
    gates: rows of a and s, in blocks of H.
    states: how many go from step to step.
    kept: rows of each array that backward needs, in blocks of H.
    split: whether ds is another array than da.
    """

    forward: Callable[..., Step]
    backward: Callable[..., tuple[Array, Array, tuple[Any, ...]]]
    gates: int
    states: int
    kept: tuple[int, ...]
    split: bool = False


def blocks(m: Array, H: int) -> list[Array]:
    """The blocks of H rows of an array (gates H, N)."""
    return [m[start:start + H] for start in range(0, len(m), H)]


# --- LSTM: c' = f c + i g, h' = o tanh(c') --------------------------------------------------------

def lstm(backend: Any, a: Array, s: Array, bias: Array | None, h: Array, c: Array) -> Step:
    """i, f, o = sigmoid(a + s) and g = tanh(a + s) of their blocks of rows."""
    H, z = len(h), a + s
    gates = backend.joined([backend.activate(z[:2 * H], "sigmoid"),
                            backend.activate(z[2 * H:3 * H], "tanh"),
                            backend.activate(z[3 * H:], "sigmoid")], axis=0)
    i, f, g, o = blocks(gates, H)
    new = f * c + i * g
    tanh_c = backend.activate(new, "tanh")
    return (o * tanh_c, new), (gates, tanh_c)


def lstm_backward(backend: Any, dh: Array, dc: Array, h: Array, c: Array, gates: Array,
                  tanh_c: Array) -> tuple[Array, Array, tuple[Any, ...]]:
    i, f, g, o = blocks(gates, len(h))
    dc = dc + dh * o * (1 - tanh_c * tanh_c)
    dz = backend.joined([dc * g * i * (1 - i),                          # of i
                         dc * c * f * (1 - f),                          # of f
                         dc * i * (1 - g * g),                          # of g
                         dh * tanh_c * o * (1 - o)], axis=0)            # of o; (4H, N)
    return dz, dz, (0.0, dc * f)


# --- GRU: h' = (1 - z) n + z h --------------------------------------------------------------------

def gru(backend: Any, a: Array, s: Array, bias: Array | None, h: Array) -> Step:
    """r, z = sigmoid(a + s) and n = tanh(a + r (s + bias)) of their blocks of rows."""
    H = len(h)
    r_z = backend.activate(a[:2 * H] + s[:2 * H], "sigmoid")
    r, z = blocks(r_z, H)
    m = s[2 * H:] if bias is None else s[2 * H:] + bias[:, None]
    n = backend.activate(a[2 * H:] + r * m, "tanh")
    return (n + z * (h - n),), (backend.joined([r_z, n], axis=0), m)


def gru_backward(backend: Any, dh: Array, h: Array, gates: Array, m: Array
                 ) -> tuple[Array, Array, tuple[Any, ...]]:
    r, z, n = blocks(gates, len(h))
    dn = dh * (1 - z) * (1 - n * n)                                     # of tanh's argument
    dr, dz = dn * m * r * (1 - r), dh * (h - n) * z * (1 - z)           # of sigmoid's
    return (backend.joined([dr, dz, dn], axis=0), backend.joined([dr, dz, dn * r], axis=0),
            (dh * z,))


# --- the cell of a simple recurrent layer: h' = f(a + s) ------------------------------------------

def simple(activation: str) -> Cell:
    """The cell with this activation f."""

    def forward(backend: Any, a: Array, s: Array, bias: Array | None, h: Array) -> Step:
        z = a + s
        y = backend.activate(z, activation)
        return (y,), (z if activations.of_input(activation) else y,)

    def backward(backend: Any, dh: Array, h: Array, y: Array
                 ) -> tuple[Array, Array, tuple[Any, ...]]:
        da = backend.activation_backward(dh, y, activation)
        return da, da, (0.0,)

    return Cell(forward, backward, gates=1, states=1, kept=(1,))


CELLS = {"lstm": Cell(lstm, lstm_backward, gates=4, states=2, kept=(4, 1)),
         "gru": Cell(gru, gru_backward, gates=3, states=1, kept=(3, 1), split=True)}


@lru_cache(maxsize=64)
def cell_of(name: str) -> Cell:
    """The cell with a name of the table, or for the name of an activation f that of h' = f(a + s).
    """
    return CELLS.get(name) or simple(name)


def in_order(counts: Sequence[int], reverse: bool) -> list[tuple[int, slice, int]]:
    """(t, its columns, their number) of each step that any sample has, in the order in which they
    are computed."""
    steps, start = [], 0
    for t, count in enumerate(counts):
        if count:
            steps.append((t, slice(start, start + count), count))
        start += count
    return steps[::-1] if reverse else steps
