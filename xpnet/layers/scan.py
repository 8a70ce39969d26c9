"""One recurrent layer in one direction: forward through time, and backward through time.

The layers that people use are made of these: see recurrent.py.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.backends.cells import cell_of
from xpnet.buffers import Parameter
from xpnet.initializers import Initializer, for_activation, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape


class Scan(Layer):
    """Base class: the hidden states h (H, T, N) of a sequence X (D, T, N), or the last one (H, N).

    A step is a cell in backends/cells.py, a function of a = W x + b of this step, of s = U h of the
    step before, both (gates H, N), and of the states. W x is one product of all steps, (gates H, D)
    with (D, T N), or one for several steps; so are the gradients with respect to W, U and X. Only
    U h and its gradient need a product for each step: see `Backend.scan_product`.

    Args:
        units: H.
        reverse: from the last step to the first one.
        sequences: whether all states are the output, or the last one that is computed.
        bias: False leaves out b.
        init: name of the initializer of W and U.
    """

    cell: str                           # its name
    c: Parameter | None = None          # a bias of the cell, (H,)

    def __init__(self, units: int, *, reverse: bool = False, sequences: bool = True,
                 bias: bool = True, init: str | None = None, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units, self.reverse, self.sequences = units, reverse, sequences
        self.bias, self.init = bias, init

    def build(self, x_shape: Shape, *state_shapes: Shape) -> Shape:         # type: ignore[override]
        D, T = x_shape
        H, rows = self.units, self.gates * self.units
        init = for_activation(self.init, None, self.who)
        self.W = self.parameter("W", (rows, D), init, fan_out=H)
        self.U = self.parameter("U", (rows, H), init, fan_out=H)
        self.b = self.parameter("b", (rows,), self.first_bias) if self.bias else None
        return (H, T) if self.sequences else (H,)

    @property
    def gates(self) -> int:
        """The number of blocks of H rows of W, U and b."""
        return cell_of(self.cell).gates

    @property
    def first_bias(self) -> Initializer:
        return zeros

    def forward(self, x: Array, *initial: Array, mode: str = PREDICT) -> Array:   # type: ignore[override]
        return self.through(x, *initial, mode=mode)[0]

    def through(self, x: Array, *initial: Array, lengths: Array | None = None,
                mode: str = PREDICT) -> tuple[Array, tuple[Array, ...]]:
        """The output, and the states after the last step that is computed.

        Args:
            lengths: (1, N), the number of steps of each sample. The states stay as they are in the
                steps beyond its end, and the output is 0 there.
        """
        (_, T, N), H, backend = x.shape, self.units, self.backend
        steps = Steps(backend, T, N, lengths)
        x = steps.columns(x)                                                # (D, P)
        states = (tuple(map(steps.sorted, initial)) if initial else
                  tuple(backend.zeros((H, N), x.dtype) for _ in range(cell_of(self.cell).states)))
        h, states, kept = backend.scan_product(
            self.cell, x, self.W.data, self.b.data if self.b else None, self.U.data, states,
            steps.counts, bias=self.c.data if self.c else None, reverse=self.reverse,
            lengths=steps.masks, keep=self.keeps(mode))
        self.remember(mode, x, kept, steps)
        states = tuple(map(steps.unsorted, states))
        return steps.sequence(h, clean=True) if self.sequences else states[0], states

    def backward(self, dy: Array, accumulate: bool = False, dlast: tuple[Array, ...] = ()
                 ) -> tuple[Array | None, ...]:
        """The gradients with respect to x and to the states before the first step.

        Args:
            dlast: the gradients with respect to the states that `through` returns; 0 by default.
        """
        x, kept, steps = self.recall()
        dstates = [steps.sorted(d) for d in dlast] or [
            self.backend.zeros((self.units, steps.N), dy.dtype)
            for _ in range(cell_of(self.cell).states)]
        if not self.sequences:
            dstates[0] = steps.sorted(dy + dlast[0] if dlast else dy)
        da, ds, dinitial = self.backend.scan_product_backward(
            self.cell, steps.columns(dy) if self.sequences else None, dstates, x, self.U.data, kept,
            steps.counts, self.W.grad, self.U.grad, accumulate=accumulate, reverse=self.reverse,
            lengths=steps.masks)
        self.bias_gradients(da, ds, accumulate)
        dx = (steps.sequence(self.backend.gemm(self.W.data, da, trans_a=True)) if self.needs_dx
              else None)
        return dx, *map(steps.unsorted, dinitial)

    def bias_gradients(self, da: Array, ds: Array, accumulate: bool) -> None:
        """From da and ds (gates H, T N)."""
        if self.b:
            self.backend.activation_backward(da, da, None, bias_grad=self.b.grad,
                                             accumulate=accumulate)

    def multiply_adds(self) -> int:
        return (self.W.size + self.U.size) * self.in_shapes[0][1]


# --- sequences of different lengths ---------------------------------------------------------------

class Steps:
    """Which samples are in each step of sequences (rows, T, N).

    On the CPU the samples are sorted by their numbers of steps, the longest one first. So those in
    a step are the first ones, and the columns of all steps, one after the other, are an array
    (rows, P) without padding. On a GPU the host would have to wait for the lengths, and could not
    follow other lengths in a captured step: there all samples are in all steps, and masks keep the
    states of those that have ended.

    Args:
        lengths: (1, N), the number of steps of each sample; None if all have T.
    """

    def __init__(self, backend: Any, T: int, N: int, lengths: Array | None) -> None:
        self.backend, self.xp, self.T, self.N = backend, backend.xp, T, N
        self.masks = lengths if backend.captures else None
        self.counts = [N] * T
        self.order: Any = None
        if lengths is not None and not backend.captures:
            ends = backend.to_numpy(lengths)[0].astype(np.int64)
            if (ends < T).any():
                self._sort(ends)

    def _sort(self, ends: Array) -> None:
        self.order = np.argsort(-ends, kind="stable")                       # the longest one first
        self.place = np.argsort(self.order)                                 # the inverse
        runs = ends[self.order] > np.arange(self.T)[:, None]                # (T, N)
        self.counts = runs.sum(axis=1).tolist()
        self.index = (np.arange(self.T)[:, None] * self.N + self.order)[runs]

    def columns(self, m: Array) -> Array:
        """(rows, P) of a sequence (rows, T, N), step by step."""
        m = inside(self.xp, m, self.masks).reshape(len(m), self.T * self.N)
        return m if self.order is None else self.backend.take_columns(m, self.index)

    def sequence(self, m: Array, clean: bool = False) -> Array:
        """(rows, T, N) of columns (rows, P), 0 beyond the ends of the samples. `clean` says that m
        is 0 there already."""
        if self.order is None:
            m = m.reshape(len(m), self.T, self.N)
            return m if clean else inside(self.xp, m, self.masks)
        out = self.backend.put_columns(m, self.index, self.T * self.N)
        return out.reshape(len(m), self.T, self.N)

    def sorted(self, state: Array) -> Array:
        """A state (H, N) of samples in the order of the steps."""
        return state if self.order is None else self.backend.asarray(state[:, self.order])

    def unsorted(self, state: Array) -> Array:
        """The inverse of `sorted`."""
        return state if self.order is None else self.backend.asarray(state[:, self.place])

    def replaced(self, state: Array, new: Array) -> Array:
        """A state (rows, N), with `new` (rows, count) in place of its first columns."""
        count = new.shape[1]
        return new if count == self.N else self.backend.joined([new, state[:, count:]], axis=1)


def inside(xp: Any, h: Array, lengths: Array | None) -> Array:
    """h (H, T, N), 0 beyond the ends of the samples; lengths (1, N), or None."""
    if lengths is None:
        return h
    return xp.where(xp.arange(h.shape[1])[:, None] < lengths, h, h.dtype.type(0))


def expect_lengths(layer: Any, shapes: tuple[Shape, ...]) -> tuple[Shape, ...]:
    """The shapes of inputs that follow the sequence, without that of the lengths. Raises ValueError
    if a layer with `lengths` has no such input."""
    if layer.lengths and shapes[:1] != ((1,),):
        raise ValueError(f"{layer.who}: expected a second input of shape (1,), the number of steps "
                         f"of each sample. Received: {shapes[0] if shapes else 'none'}.")
    return shapes[1:] if layer.lengths else shapes


def expect_steps(layer: Any, x: Array, number: int) -> None:
    """Raise ValueError if input 1 of a layer with `lengths` has other numbers than 1 to T."""
    T = layer.in_shapes[0][1]
    if layer.lengths and number == 1 and not 1 <= float(x.min()) <= float(x.max()) <= T:
        raise ValueError(f"{layer.who}: expected numbers of steps from 1 to {T}. Received: numbers "
                         f"from {float(x.min()):g} to {float(x.max()):g}.")


# --- the cells ------------------------------------------------------------------------------------

class SimpleScan(Scan):
    """h' = f(a + s)."""

    def __init__(self, units: int, activation: str = "tanh", *, reverse: bool = False,
                 sequences: bool = True, bias: bool = True, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(units, reverse=reverse, sequences=sequences, bias=bias, init=init,
                         name=name)
        self.activation = activation

    @property
    def cell(self) -> str:                                                  # type: ignore[override]
        return self.activation


class LSTMScan(Scan):
    """c' = f c + i g, h' = o tanh(c'), with i, f, o the blocks of sigmoid(a + s), g that of tanh(a
    + s)."""

    cell = "lstm"

    @property
    def first_bias(self) -> Initializer:
        """1 for the forget gate, so that c is kept at first; else 0."""
        H = self.units

        def of_forget_gate(rng: Any, shape: Shape, fan_in: int, fan_out: int) -> Any:
            b = zeros(rng, shape, fan_in, fan_out)
            b[H:2 * H] = 1
            return b

        return of_forget_gate


class GRUScan(Scan):
    """h' = (1 - z) n + z h, with r and z the blocks of sigmoid(a + s), n = tanh(a_n + r (s_n + c)).
    """

    cell = "gru"

    def build(self, x_shape: Shape, *state_shapes: Shape) -> Shape:         # type: ignore[override]
        shape = super().build(x_shape, *state_shapes)
        self.c = self.parameter("c", (self.units,), zeros) if self.bias else None
        return shape

    def bias_gradients(self, da: Array, ds: Array, accumulate: bool) -> None:
        super().bias_gradients(da, ds, accumulate)
        if self.c:
            dm = ds[2 * self.units:]
            self.backend.activation_backward(dm, dm, None, bias_grad=self.c.grad,
                                             accumulate=accumulate)
