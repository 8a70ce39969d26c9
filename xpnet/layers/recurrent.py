"""Recurrent layers: layers of units with a state that goes from step to step of a sequence.

The equations of one step and their gradients are in backends/cells.py.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.backends import Window, activations
from xpnet.initializers import for_activation
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.dropout import Dropout
from xpnet.layers.reset_before import ResetBeforeScan
from xpnet.layers.scan import (
    GRUScan,
    LSTMScan,
    Scan,
    SimpleScan,
    expect_lengths,
    expect_steps,
)
from xpnet.layers.states import Stateful
from xpnet.lengths import LENGTHS

__all__ = ["GRU", "LSTM", "SimpleRNN"]


class Recurrent(Stateful):
    """Base class: recurrent layers one above the other, each in one direction or in both.

    X (D, T, N). With return_sequences Y (H, T, N) is the last layer's state at each step, else Y
    (H, N) its last state. With bidirectional Y has 2 H rows: those of the states from the first
    step to the last, then those of the states from the last step to the first (Schuster and Paliwal
    1997). With reverse Y has only the latter. The parameters are W (gates H, D), U (gates H, H)
    and b (gates H,) of each layer and direction: "forward1.W", "reverse1.W", "forward2.W", ...

    The states before the first step are 0, or further inputs of the layer, batch-last (H, N) each.
    Of several layers or directions each of these inputs is (layers, H, N), or (layers * 2, H, N):
    layer by layer, and forward before reverse, as in PyTorch.

    With return_state a call in a graph returns (y, h), or (y, h, c) of an LSTM: also the states
    after the last step, in reverse those after step 0. They have the shapes and the order of the
    first states, so those of an encoder can be inputs of a decoder:

        y, h, c = LSTM(64, return_sequences=True, return_state=True)(x)

    Args:
        units: H.
        layers: number of layers.
        bidirectional: a second set of weights reads the sequence in reverse.
        reverse: read from the last step to the first; the output of a step stays at this step.
        dropout: probability with which elements between two layers are dropped in training.
        return_sequences: whether Y has the states of all steps.
        return_state: whether the final states are outputs, too. What `forward` returns is then a
            vector for each sample, of which `unpacked` makes Y and the states.
        lengths: whether the second input of the layer, before first states, is the number of steps
            of each sample, (1, N). Later steps are padding: they change no state, Y is 0 there, and
            the last state of a sample is the one at its end. In reverse a sample begins there.
        bias: False leaves out the biases.
        init: name of the initializer of W and U; "glorot_uniform" by default.

    Raises:
        ValueError: both bidirectional and reverse are True, a sample does not have the axes
            features, steps, or the first states do not have the shapes above.
    """

    kind = "rnn"
    steps = LENGTHS
    carried = 1             # states that go from step to step

    def __init__(self, units: int, layers: int, bidirectional: bool, reverse: bool,
                 dropout: float, return_sequences: bool, return_state: bool, lengths: bool,
                 bias: bool, init: str | None, name: str | None) -> None:
        super().__init__(name=name)
        self.units = self.expect_integer("units", units)
        self.layers = self.expect_integer("layers", layers, 1, 64)
        self.bidirectional = self.expect_flag("bidirectional", bidirectional)
        self.reverse = self.expect_flag("reverse", reverse)
        if bidirectional and reverse:
            raise ValueError(f"{self.who}: expected bidirectional or reverse, not both. Received: "
                             "bidirectional=True, reverse=True.")
        self.dropout = self.expect_share("dropout", dropout)
        self.return_sequences = self.expect_flag("return_sequences", return_sequences)
        self.return_state = self.expect_flag("return_state", return_state)
        self.lengths = self.expect_flag("lengths", lengths)
        self.bias, self.init = self.expect_flag("bias", bias), init
        for_activation(init, None, self.who)

    @property
    def ways(self) -> tuple[str, ...]:
        """The directions: "forward", "reverse" or both, as in the names of the parameters."""
        if self.bidirectional:
            return "forward", "reverse"
        return ("reverse",) if self.reverse else ("forward",)

    def scan(self, **options: Any) -> Scan:
        """One layer in one direction."""
        raise NotImplementedError

    def build(self, in_shape: Shape, *more: Shape) -> Shape:                # type: ignore[override]
        _, T = shape = self.expect_axes(in_shape, "features, steps")
        state_shapes = expect_lengths(self, more)
        self._expect_states(state_shapes)
        self.scans: list[list[Scan]] = []       # by layers
        self.drops: list[Dropout] = []          # after each layer but the last one
        for number in range(1, self.layers + 1):
            sequences = self.return_sequences or number < self.layers
            scans = [self.scan(reverse=way == "reverse", sequences=sequences, bias=self.bias,
                               init=self.init) for way in self.ways]
            given = [(self.units,)] * len(state_shapes)
            for way, scan in zip(self.ways, scans, strict=True):
                out = self.child(f"{way}{number}", scan, shape, *given)
            self.scans.append(scans)
            shape = (len(scans) * self.units, *out[1:])
            if self.dropout and number < self.layers:
                self.drops.append(Dropout(self.dropout))
                self.child(f"dropout{number}", self.drops[-1], shape)
        self.window = Window((1, T))            # a state depends on all steps, or on those before
        return self.packed_shape(shape, [self._state_shape] * self.carried)

    @property
    def _state_shape(self) -> Shape:
        """Of a first or a final state: h, or c."""
        scans = self.layers * len(self.ways)
        return (self.units,) if scans == 1 else (scans, self.units)

    def _expect_states(self, shapes: tuple[Shape, ...]) -> None:
        expected = self._state_shape
        if shapes and shapes != (expected,) * self.carried:
            raise ValueError(f"{self.who}: expected a sequence, alone or with {self.carried} first "
                             f"state(s) of shape {expected}. Received: first states of shapes "
                             f"{', '.join(map(str, shapes))}.")

    def forward(self, x: Array, *initial: Array, mode: str = PREDICT) -> Array:   # type: ignore[override]
        lengths, initial = (initial[0], initial[1:]) if self.lengths else (None, initial)
        y, last = self._through(x, initial, mode, lengths)
        return self.packed(y, self._by_kind(last)) if self.return_state else y

    def expect_values(self, x: Array, number: int = 0) -> None:
        expect_steps(self, x, number)

    def through(self, x: Array, *initial: Array, mode: str = PREDICT
                ) -> tuple[Array, tuple[Array, ...]]:
        """The output, and the last states in the form of first states."""
        y, last = self._through(x, initial, mode)
        states = self._by_kind(last)
        return self.packed(y, states), states

    def _through(self, x: Array, initial: tuple[Array, ...], mode: str,
                 lengths: Array | None = None) -> tuple[Array, list[tuple[Array, ...]]]:
        """Y, and the last states of each scan."""
        self.remember(mode, len(initial))
        number, last = 0, list[tuple[Array, ...]]()
        for level, scans in enumerate(self.scans):
            outs = []
            for scan in scans:
                out, states = scan.through(x, *(self._of(state, number) for state in initial),
                                           lengths=lengths, mode=mode)
                outs.append(out)
                last.append(states)
                number += 1
            x = outs[0] if len(outs) == 1 else self.backend.joined(outs, axis=0)
            if level < len(self.drops):
                x = self.drops[level].forward(x, mode=mode)
        return x, last

    def _of(self, state: Array, number: int) -> Array:
        """The state (H, N) of a scan."""
        return state if state.ndim == 2 else state[number]

    def _by_kind(self, states: Sequence[tuple[Array, ...]]) -> tuple[Array, ...]:
        """The states of each scan as (h, c): h of all scans, and c of all scans."""
        return tuple(self._stacked(of_kind) for of_kind in zip(*states, strict=True))

    def backward(self, dy: Array, accumulate: bool = False) -> Any:
        given, = self.recall()
        dinitial: list[tuple[Array, ...]] = []  # of the last scan first
        dx, *dlast = self.unpacked(dy)
        scans = len(self.scans) * len(self.scans[0])
        for level in reversed(range(self.layers)):
            if level < len(self.drops):
                dx = self.drops[level].backward(dx)
            above, parts = dx, []
            for number, scan in reversed(list(enumerate(self.scans[level]))):
                scan.needs_dx = self.needs_dx or level > 0
                scans -= 1
                part = above[number * self.units:(number + 1) * self.units]
                mine = tuple(self._of(dstate, scans) for dstate in dlast)
                dpart, *dstates = scan.backward(part, accumulate, mine)
                parts.append(dpart)
                dinitial.append(tuple(dstates))
            dx = parts[0] if len(parts) == 1 or parts[0] is None else parts[1] + parts[0]
        others = [*self._by_kind(dinitial[::-1])] if given else []
        if self.lengths:                        # numbers of steps have no gradient
            others.insert(0, self.backend.zeros((1, dy.shape[-1]), dy.dtype))
        return (dx, *others) if others else dx

    def _stacked(self, states: tuple[Array, ...]) -> Array:
        """States (H, N), or gradients with respect to them, as (scans, H, N) if there are several.
        """
        return states[0] if len(states) == 1 else self.backend.joined([s[None] for s in states],
                                                                      axis=0)

    def multiply_adds(self) -> int:
        return sum(scan.multiply_adds() for scans in self.scans for scan in scans)


class SimpleRNN(Recurrent):
    """Elman's recurrent layer: h[t] = f(W x[t] + b + U h[t-1]) (Elman 1990).

    X (D, T, N), W (H, D), U (H, H), b (H,). With da[t] = dh[t] f'(h[t]) and dh[t] = dY[t] + U^T
    da[t+1]: dW = sum over t of da[t] x[t]^T, dU = sum over t of da[t] h[t-1]^T, dx[t] = W^T da[t].
    Other arguments, the shape of Y and the first state h[0] are described at Recurrent.

    Args:
        units: H.
        activation: name of f.
        return_sequences: whether Y has the states of all steps.

    Werbos 1990 (backpropagation through time).
    """

    def __init__(self, units: int, *, activation: str = "tanh", layers: int = 1,
                 bidirectional: bool = False, reverse: bool = False, dropout: float = 0.0,
                 return_sequences: bool = False, return_state: bool = False, lengths: bool = False,
                 bias: bool = True, init: str | None = None, name: str | None = None) -> None:
        super().__init__(units, layers, bidirectional, reverse, dropout, return_sequences,
                         return_state, lengths, bias, init, name)
        if activation is None:
            raise ValueError(f"{self.who}: expected the name of an activation. Received: None.")
        self.activation = activations.check(activation, self.who)

    def scan(self, **options: Any) -> Scan:
        return SimpleScan(self.units, self.activation or "tanh", **options)


class LSTM(Recurrent):
    """Long short-term memory: c[t] = f c[t-1] + i g, h[t] = o tanh(c[t]) (Hochreiter and
    Schmidhuber 1997).

    X (D, T, N), W (4H, D), U (4H, H), b (4H,), whose rows are those of i, f, g, o, as in PyTorch:
    i, f, o = sigmoid(W x[t] + b + U h[t-1]), g = tanh(W x[t] + b + U h[t-1]).
    Backward: dc[t] = dh[t] o (1 - tanh(c[t])^2) + f[t+1] dc[t+1]; di = dc g, df = dc c[t-1], dg =
    dc i, do = dh tanh(c[t]); times the derivatives of sigmoid and tanh they are da[t] (4H, N), and
    dh[t] = dY[t] + U^T da[t+1]. PyTorch adds two biases, whose sum is b. The bias of the forget
    gate is 1 at first, so that the memory is kept (Jozefowicz et al. 2015). Other arguments, the
    shape of Y and the first states h[0] and c[0] are described at Recurrent.

    Args:
        units: H.
        return_sequences: whether Y has the states of all steps.

    The forget gate: Gers et al. 2000; both directions and several layers: Graves et al. 2013.
    """

    kind = "lstm"
    carried = 2

    def __init__(self, units: int, *, layers: int = 1, bidirectional: bool = False,
                 reverse: bool = False, dropout: float = 0.0, return_sequences: bool = False,
                 return_state: bool = False, lengths: bool = False, bias: bool = True,
                 init: str | None = None, name: str | None = None) -> None:
        super().__init__(units, layers, bidirectional, reverse, dropout, return_sequences,
                         return_state, lengths, bias, init, name)

    def scan(self, **options: Any) -> Scan:
        return LSTMScan(self.units, **options)


class GRU(Recurrent):
    """Gated recurrent unit: h[t] = (1 - z) n + z h[t-1] (Cho et al. 2014).

    X (D, T, N), W (3H, D), U (3H, H), b (3H,), whose rows are those of r, z, n, as in PyTorch; c
    (H,): r, z = sigmoid(W x[t] + b + U h[t-1]), n = tanh(W x[t] + b + r (U h[t-1] + c)). The reset
    gate r applies after the product with U, as in PyTorch and cuDNN. PyTorch adds two biases: b is
    their sum for r and z, and the first of them for n; c is the second one for n. Backward:
    dn = dh (1 - z), dz = dh (h[t-1] - n), dr = dn (1 - n^2) (U h[t-1] + c), and dh[t-1] has the
    part dh z in addition to that through U.

    With reset="before", as in the paper, n = tanh(W x[t] + b + U (r h[t-1])), and there is no c:
    dr = h[t-1] U^T (dn (1 - n^2)). Each step then has two products, one after the other.

    Other arguments, the shape of Y and the first state h[0] are described at Recurrent.

    Args:
        units: H.
        reset: "after" or "before", whether r applies to the product with U or to h[t-1].
        return_sequences: whether Y has the states of all steps.
    """

    kind = "gru"

    def __init__(self, units: int, *, reset: str = "after", layers: int = 1,
                 bidirectional: bool = False, reverse: bool = False, dropout: float = 0.0,
                 return_sequences: bool = False, return_state: bool = False, lengths: bool = False,
                 bias: bool = True, init: str | None = None, name: str | None = None) -> None:
        super().__init__(units, layers, bidirectional, reverse, dropout, return_sequences,
                         return_state, lengths, bias, init, name)
        self.reset = self.expect_choice("reset", reset, ("after", "before"))

    def scan(self, **options: Any) -> Scan:
        if self.reset == "before":
            return ResetBeforeScan(self.units, **options)
        return GRUScan(self.units, **options)
