"""One recurrent layer in one direction: forward through time, and backward through time.

The layers that people use are made of these: see recurrent.py.
"""

from __future__ import annotations

from typing import Any

from xpnet.backends import activations
from xpnet.initializers import Initializer, for_activation, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape

Step = tuple[tuple[Array, ...], tuple[Array, ...]]      # the new states, and what backward needs


class Scan(Layer):
    """Base class: the hidden states h (H, T, N) of a sequence X (D, T, N), or the last one (H, N).

    A subclass writes one step, with a = W x + b of this step and s = U h of the step before, both
    (gates H, N). W x of all steps is one product, (gates H, D) with (D, T N); so are the gradients
    with respect to W, U and X. Only U h and its gradient need a product for each step.

    Args:
        units: H.
        reverse: from the last step to the first one.
        sequences: whether all states are the output, or the last one that is computed.
        bias: False leaves out b.
        init: name of the initializer of W and U.
    """

    gates = 1               # W, U and b have so many rows for each unit
    carried = 1             # arrays (H, N) that go from step to step; the first one is h
    split = False           # whether the gradients with respect to a and to s differ

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
    def first_bias(self) -> Initializer:
        return zeros

    def step(self, a: Array, s: Array, *states: Array) -> Step:
        """The states after a step, and what `step_backward` needs."""
        raise NotImplementedError

    def step_backward(self, kept: Any, dh: Array, *others: Array
                      ) -> tuple[Array, Array, tuple[Any, ...]]:
        """da, ds and the gradients with respect to the states before the step, that of h without
        the part through s; dh and `others` are those with respect to the states after it."""
        raise NotImplementedError

    def forward(self, x: Array, *initial: Array, mode: str = PREDICT) -> Array:   # type: ignore[override]
        return self.through(x, *initial, mode=mode)[0]

    def through(self, x: Array, *initial: Array, lengths: Array | None = None,
                mode: str = PREDICT) -> tuple[Array, tuple[Array, ...]]:
        """The output, and the states after the last step that is computed.

        Args:
            lengths: (1, N), the number of steps of each sample. The states stay as they are in the
                steps behind its end, and the output is 0 there.
        """
        (D, T, N), H = x.shape, self.units
        a = self.backend.gemm(self.W.data, x.reshape(D, T * N),
                              bias=self.b.data if self.b else None).reshape(-1, T, N)
        h, kept = self.backend.empty((H, T, N), x.dtype), []
        states = initial or tuple(self.backend.zeros((H, N), x.dtype) for _ in range(self.carried))
        first = states[0]
        for t in in_order(T, self.reverse):
            s = self.backend.gemm(self.U.data, states[0])                   # (gates H, N)
            new, needed = self.step(a[:, t], s, *states)
            if lengths is not None:
                new = tuple(self.xp.where(t < lengths, after, before)
                            for after, before in zip(new, states, strict=True))
            states = new
            h[:, t] = states[0]
            if self.keeps(mode):
                kept.append(needed)
        self.remember(mode, x, first, h, kept, lengths)
        return inside(self.xp, h, lengths) if self.sequences else states[0], states

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array | None, ...]:
        x, first, h, kept, lengths = self.recall()
        (D, T, N), H, rows = x.shape, self.units, self.gates * self.units
        da = self.backend.empty((rows, T, N), dy.dtype)
        ds = self.backend.empty((rows, T, N), dy.dtype) if self.split else da
        dstates: tuple[Any, ...] = tuple(self.backend.zeros((H, N), dy.dtype)
                                         for _ in range(self.carried))
        if self.sequences:
            dy = inside(self.xp, dy, lengths)
        else:
            dstates = (dy, *dstates[1:])
        for t in reversed(in_order(T, self.reverse)):
            if self.sequences:
                dstates = (dy[:, t] + dstates[0], *dstates[1:])
            passed: tuple[Any, ...] = (0.0,) * self.carried     # to the states before, unchanged
            if lengths is not None:
                zero = dy.dtype.type(0)
                passed = tuple(self.xp.where(t < lengths, zero, d) for d in dstates)
                dstates = tuple(self.xp.where(t < lengths, d, zero) for d in dstates)
            da[:, t], ds_t, dstates = self.step_backward(kept.pop(), *dstates)
            if self.split:
                ds[:, t] = ds_t
            through_s = self.backend.gemm(self.U.data, ds_t, trans_a=True)  # (H, N)
            dstates = tuple(d + p for d, p in zip((dstates[0] + through_s, *dstates[1:]), passed,
                                                  strict=True))
        before = self.backend.empty((H, T, N), dy.dtype)                    # h of the step before
        if self.reverse:
            before[:, -1], before[:, :-1] = first, h[:, 1:]
        else:
            before[:, 0], before[:, 1:] = first, h[:, :-1]
        da, ds, x, before = (m.reshape(len(m), T * N) for m in (da, ds, x, before))
        self.backend.gemm(da, x, trans_b=True, out=self.W.grad, accumulate=accumulate)
        self.backend.gemm(ds, before, trans_b=True, out=self.U.grad, accumulate=accumulate)
        self.bias_gradients(da, ds, accumulate)
        dx = (self.backend.gemm(self.W.data, da, trans_a=True).reshape(D, T, N)
              if self.needs_dx else None)
        return dx, *dstates

    def bias_gradients(self, da: Array, ds: Array, accumulate: bool) -> None:
        """From da and ds (gates H, T N)."""
        if self.b:
            self.backend.activation_backward(da, da, None, bias_grad=self.b.grad,
                                             accumulate=accumulate)

    def multiply_adds(self) -> int:
        return (self.W.size + self.U.size) * self.in_shapes[0][1]

    def sigmoid(self, z: Array) -> Array:
        return self.backend.activate(z, "sigmoid")

    def tanh(self, z: Array) -> Array:
        return self.backend.activate(z, "tanh")


def in_order(T: int, reverse: bool) -> list[int]:
    """The steps in the order in which they are computed."""
    return list(range(T))[::-1 if reverse else 1]


# --- sequences of different lengths ---------------------------------------------------------------

def inside(xp: Any, h: Array, lengths: Array | None) -> Array:
    """h (H, T, N), 0 behind the ends of the samples; lengths (1, N), or None."""
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


# --- the steps ------------------------------------------------------------------------------------

class SimpleScan(Scan):
    """h' = f(a + s)."""

    def __init__(self, units: int, activation: str = "tanh", *, reverse: bool = False,
                 sequences: bool = True, bias: bool = True, init: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(units, reverse=reverse, sequences=sequences, bias=bias, init=init,
                         name=name)
        self.activation = activation

    def step(self, a: Array, s: Array, *states: Array) -> Step:
        z = a + s
        h = self.backend.activate(z, self.activation)
        return (h,), (z if activations.of_input(self.activation) else h,)

    def step_backward(self, kept: Any, dh: Array, *others: Array
                      ) -> tuple[Array, Array, tuple[Any, ...]]:
        da = self.backend.activation_backward(dh, kept[0], self.activation)
        return da, da, (0.0,)


class LSTMScan(Scan):
    """c' = f c + i g, h' = o tanh(c'), with i, f, o the blocks of sigmoid(a + s), g that of tanh(a
    + s)."""

    gates, carried = 4, 2

    @property
    def first_bias(self) -> Initializer:
        """1 for the forget gate, so that c is kept at first; else 0."""
        H = self.units

        def of_forget_gate(rng: Any, shape: Shape, fan_in: int, fan_out: int) -> Any:
            b = zeros(rng, shape, fan_in, fan_out)
            b[H:2 * H] = 1
            return b

        return of_forget_gate

    def step(self, a: Array, s: Array, *states: Array) -> Step:
        (_, c), H, z = states, self.units, a + s                            # z (4H, N)
        i_f, g, o = (self.sigmoid(z[:2 * H]), self.tanh(z[2 * H:3 * H]), self.sigmoid(z[3 * H:]))
        i, f = i_f[:H], i_f[H:]
        new = f * c + i * g
        tanh_c = self.tanh(new)
        return (o * tanh_c, new), (i, f, g, o, c, tanh_c)

    def step_backward(self, kept: Any, dh: Array, *others: Array
                      ) -> tuple[Array, Array, tuple[Any, ...]]:
        (i, f, g, o, c, tanh_c), (dc,) = kept, others
        dc = dc + dh * o * (1 - tanh_c * tanh_c)
        dz = self.backend.joined([dc * g * i * (1 - i),                     # of i
                                  dc * c * f * (1 - f),                     # of f
                                  dc * i * (1 - g * g),                     # of g
                                  dh * tanh_c * o * (1 - o)], axis=0)       # of o; (4H, N)
        return dz, dz, (0.0, dc * f)


class GRUScan(Scan):
    """h' = (1 - z) n + z h, with r and z the blocks of sigmoid(a + s), n = tanh(a_n + r (s_n + c)).
    """

    gates, split = 3, True

    def build(self, x_shape: Shape, *state_shapes: Shape) -> Shape:         # type: ignore[override]
        shape = super().build(x_shape, *state_shapes)
        self.c = self.parameter("c", (self.units,), zeros) if self.bias else None
        return shape

    def step(self, a: Array, s: Array, *states: Array) -> Step:
        (h,), H = states, self.units
        r_z = self.sigmoid(a[:2 * H] + s[:2 * H])
        r, z = r_z[:H], r_z[H:]
        m = s[2 * H:] + self.c.data[:, None] if self.c else s[2 * H:]
        n = self.tanh(a[2 * H:] + r * m)
        return (n + z * (h - n),), (r, z, m, n, h)

    def step_backward(self, kept: Any, dh: Array, *others: Array
                      ) -> tuple[Array, Array, tuple[Any, ...]]:
        r, z, m, n, h = kept
        dn = dh * (1 - z) * (1 - n * n)                                     # of tanh's argument
        dr, dz = dn * m * r * (1 - r), dh * (h - n) * z * (1 - z)           # of sigmoid's
        return (self.backend.joined([dr, dz, dn], axis=0),
                self.backend.joined([dr, dz, dn * r], axis=0), (dh * z,))

    def bias_gradients(self, da: Array, ds: Array, accumulate: bool) -> None:
        super().bias_gradients(da, ds, accumulate)
        if self.c:
            dm = ds[2 * self.units:]
            self.backend.activation_backward(dm, dm, None, bias_grad=self.c.grad,
                                             accumulate=accumulate)
