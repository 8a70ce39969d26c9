"""A recurrent layer around a cell of one's own, and a cell."""

from __future__ import annotations

from inspect import signature
from typing import Any

from xpnet.backends import Window
from xpnet.backends.cells import in_order
from xpnet.checks import expect_instance, shape_or_type
from xpnet.initializers import glorot_uniform, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape
from xpnet.layers.scan import Steps, expect_lengths, expect_steps
from xpnet.layers.states import Stateful
from xpnet.lengths import LENGTHS

__all__ = ["RNN", "ElmanCell"]


class ElmanCell(Layer):
    """One step of a recurrent layer: H' = tanh(W X + U H + b) (Elman 1990).

    X (D, N), H and H' (units, N), W (units, D), U (units, units), b (units,).
    dZ = dH' (1 - H'^2), dW = dZ X^T, dU = dZ H^T, db = sum over N of dZ; dX = W^T dZ, dH = U^T dZ.
    RNN(ElmanCell(units)) computes what SimpleRNN(units) computes. It is a model for cells of your
    own.

    Args:
        units: number of elements of the state.
    """

    kind = "cell"

    def __init__(self, units: int, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.units = self.expect_integer("units", units)

    def build(self, x_shape: Shape, state_shape: Shape) -> Shape:           # type: ignore[override]
        D, = self.expect_axes(x_shape, "features")
        if state_shape != (self.units,):
            raise ValueError(f"{self.who}: expected a state of shape {(self.units,)}. "
                             f"Received: {state_shape}.")
        self.W = self.parameter("W", (self.units, D), glorot_uniform)
        self.U = self.parameter("U", (self.units, self.units), glorot_uniform)
        self.b = self.parameter("b", (self.units,), zeros)
        return state_shape

    def forward(self, x: Array, state: Array, mode: str = PREDICT) -> Array:    # type: ignore[override]
        z = self.backend.gemm(self.W.data, x, bias=self.b.data)
        z += self.backend.gemm(self.U.data, state)
        h = self.backend.activate(z, "tanh")
        self.remember(mode, x, state, h)
        return h

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array, Array]:
        x, state, h = self.recall()
        dz = self.backend.activation_backward(dy, h, "tanh", bias_grad=self.b.grad,
                                              accumulate=accumulate)
        self.backend.gemm(dz, x, trans_b=True, out=self.W.grad, accumulate=accumulate)
        self.backend.gemm(dz, state, trans_b=True, out=self.U.grad, accumulate=accumulate)
        return (self.backend.gemm(self.W.data, dz, trans_a=True),
                self.backend.gemm(self.U.data, dz, trans_a=True))

    def multiply_adds(self) -> int:
        return self.W.size + self.U.size


class RNN(Stateful):
    """Recurrent layer around a cell: state[t] = cell(x[t], state[t-1]) (Rumelhart et al. 1986).

    X (D, T, N). With return_sequences Y (units, T, N) is the state at each step, else Y (units, N)
    the last one. The state before the first step is 0, or a second input of the layer.

    The cell is a Layer of two inputs, of which one step is written:

        cell.units                              rows of the output
        cell.build((D,), (S,)) -> (S,)          S = cell.units, or cell.state_size if it has one
        cell.forward(x, state, mode) -> state   x (D, N), state (S, N)
        cell.backward(dstate, accumulate) -> dx, dstate

    A cell with several vectors, as c and h of an LSTM, has them one below the other in its state;
    the first `units` rows are the output. Going back through time the layer gives each step what it
    kept, the gradient with respect to its state from the step after it and from Y, and adds up the
    gradients of the parameters. ElmanCell is such a cell. SimpleRNN, LSTM and GRU are faster: they
    multiply all steps by W at once.

    Args:
        cell: the layer of one step. It is copied, and its parameters are "cell.W", ...
        reverse: from the last step to the first one.
        return_sequences: whether Y has the states of all steps.
        return_state: whether the final state (S, N) is an output, too: a call in a graph returns
            (y, state).
        lengths: whether the second input of the layer, before a first state, is the number of steps
            of each sample, as in Recurrent.

    Raises:
        TypeError: the cell is not a Layer.
        ValueError: the cell has no attribute `units`, does not take two inputs, or returns arrays
            of other shapes.
    """

    kind = "rnn"
    steps = LENGTHS

    def __init__(self, cell: Layer, *, reverse: bool = False, return_sequences: bool = False,
                 return_state: bool = False, lengths: bool = False, name: str | None = None
                 ) -> None:
        super().__init__(name=name)
        expect_instance(self.who, "cell", cell, Layer, "a Layer")
        self.units = self.expect_integer("cell.units", getattr(cell, "units", None))
        self.state_size = self.expect_integer(
            "cell.state_size", getattr(cell, "state_size", self.units), self.units)
        self.cell = _copy(cell)
        self.reverse = self.expect_flag("reverse", reverse)
        self.return_sequences = self.expect_flag("return_sequences", return_sequences)
        self.return_state = self.expect_flag("return_state", return_state)
        self.lengths = self.expect_flag("lengths", lengths)

    def config(self) -> dict[str, Any]:
        return super().config() | {"cell": _copy(self.cell)}

    def build(self, in_shape: Shape, *more: Shape) -> Shape:                # type: ignore[override]
        D, T = self.expect_axes(in_shape, "features, steps")
        state, state_shapes = (self.state_size,), expect_lengths(self, more)
        if state_shapes not in ((), (state,)):
            raise ValueError(f"{self.who}: expected a sequence, and perhaps a first state of shape "
                             f"{state}. Received: first states of shapes {list(state_shapes)}.")
        takes = signature(self.cell.build).parameters.values()
        if len(takes) != 2 and not any(p.kind is p.VAR_POSITIONAL for p in takes):
            raise ValueError(f"{self.who}: expected a cell that takes two inputs, a step and the "
                             f"state. Received: {self.cell.who}, which takes {len(takes)}.")
        out = self.child("cell", self.cell, (D,), state)
        if out != state:
            raise ValueError(f"{self.who}: expected a cell whose output has the shape of its "
                             f"state, {state}. Received: {out}.")
        self.window = Window((1, T))            # a state depends on all steps, or on those before
        return self.packed_shape((self.units, T) if self.return_sequences else (self.units,),
                                 [state])

    def forward(self, x: Array, *initial: Array, mode: str = PREDICT) -> Array:   # type: ignore[override]
        if self.lengths:
            return self.through(x, *initial[1:], lengths=initial[0], mode=mode)[0]
        return self.through(x, *initial, mode=mode)[0]

    def expect_values(self, x: Array, number: int = 0) -> None:
        expect_steps(self, x, number)

    def through(self, x: Array, *initial: Array, lengths: Array | None = None,
                mode: str = PREDICT) -> tuple[Array, tuple[Array, ...]]:
        """The output, and the state after the last step."""
        _, T, N = x.shape
        steps, backend = Steps(self.backend, T, N, lengths), self.backend
        state = (steps.sorted(initial[0]) if initial else
                 backend.zeros((self.state_size, N), x.dtype))
        columns, kept = steps.columns(x), []                                # (D, P)
        y = backend.empty((self.units, columns.shape[1]), x.dtype)
        for t, now, count in in_order(steps.counts, self.reverse):
            before = backend.asarray(state[:, :count])
            new = self.cell.forward(backend.asarray(columns[:, now]), before, mode=mode)
            self._expect_state(new, before)
            if self.keeps(mode):
                kept.append(self.cell.take())
            if steps.masks is not None:
                new = self.xp.where(t < steps.masks, new, before)
            state = steps.replaced(state, new)
            y[:, now] = new[:self.units]
        self.remember(mode, kept, columns.shape, bool(initial), steps, lengths)
        y, state = steps.sequence(y), steps.unsorted(state)
        if not self.return_sequences:
            y = backend.asarray(state[:self.units])
        return self.packed(y, (state,)), (state,)

    def backward(self, dy: Array, accumulate: bool = False) -> Any:
        kept, x_shape, given, steps, lengths = self.recall()
        dx = self.backend.empty(x_shape, dy.dtype)
        dstate = self.backend.zeros((self.state_size, steps.N), dy.dtype)
        dy, *dlast = self.unpacked(dy)
        if self.return_sequences:
            dy = steps.columns(dy)
        else:
            dstate[:self.units] = steps.sorted(dy)
        if dlast:
            dstate += steps.sorted(dlast[0])
        order = in_order(steps.counts, self.reverse)
        for t, now, count in reversed(order):
            d = dstate[:, :count].copy()        # dstate belongs to the cell
            if self.return_sequences:
                d[:self.units] += dy[:, now]
            self.cell.give(kept.pop())
            if steps.masks is None:
                dx[:, now], before = self._gradients(d, accumulate)
            else:                               # beyond the end the state passes unchanged
                zero = dy.dtype.type(0)
                passed = self.xp.where(t < steps.masks, zero, d)
                dx[:, now], before = self._gradients(self.xp.where(t < steps.masks, d, zero),
                                                     accumulate)
                before = before + passed
            dstate = steps.replaced(dstate, before)
            accumulate = True                   # the steps share their parameters
        if not order and not accumulate:        # no sample has any step
            for p in self.cell.parameters:
                p.grad.fill(0)
        others = [] if lengths is None else [self.backend.zeros(lengths.shape, dy.dtype)]
        others += [steps.unsorted(dstate)] if given else []
        dx = steps.sequence(dx)
        return (dx, *others) if others else dx

    def _expect_state(self, new: Any, state: Array) -> None:
        """ValueError if a step of the cell did not return a state."""
        if getattr(new, "shape", None) != state.shape:
            raise ValueError(f"{self.who}: expected forward of the cell to return the new state, "
                             f"({self.state_size}, N). Received: {shape_or_type(new)}.")

    def _gradients(self, dstate: Array, accumulate: bool) -> tuple[Array, Array]:
        """(dx, dstate) of a step back through the cell."""
        found = self.cell.backward(dstate, accumulate)
        (D, _), n = self.in_shapes[0], dstate.shape[-1]
        if (not isinstance(found, tuple | list)
                or [getattr(d, "shape", None) for d in found] != [(D, n), dstate.shape]):
            received = ([shape_or_type(d) for d in found] if isinstance(found, tuple | list)
                        else [shape_or_type(found)])
            raise ValueError(f"{self.who}: expected backward of the cell to return two gradients, "
                             f"dx ({D}, N) and dstate ({self.state_size}, N). Received: "
                             f"{', '.join(received)}.")
        dx, dstate = found
        return dx, dstate

    def multiply_adds(self) -> int:
        return self.cell.multiply_adds() * self.in_shapes[0][1]


def _copy(cell: Layer) -> Layer:
    """A new cell with the same settings."""
    return type(cell)(**cell.config())
