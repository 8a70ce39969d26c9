"""The gated recurrent unit as in Cho et al. 2014, with the reset gate before the product with U.

Unlike the units of scan.py it needs a second product in each step, because its argument depends on
the first one. So it has steps of its own.
"""

from __future__ import annotations

from typing import Any

from xpnet.initializers import for_activation, zeros
from xpnet.layer import PREDICT, Array, Shape
from xpnet.layers.scan import Scan, inside


class ResetBeforeScan(Scan):
    """h' = (1 - z) n + z h, with r and z the blocks of sigmoid(a + U h), n = tanh(a_n + U_n (r h)).
    """

    def build(self, x_shape: Shape, *state_shapes: Shape) -> Shape:         # type: ignore[override]
        (D, T), H, init = x_shape, self.units, for_activation(self.init, None, self.who)
        self.W = self.parameter("W", (3 * H, D), init, fan_out=H)
        self.U = self.parameter("U", (3 * H, H), init, fan_out=H)
        self.b = self.parameter("b", (3 * H,), zeros) if self.bias else None
        return (H, T) if self.sequences else (H,)

    def through(self, x: Array, *initial: Array, lengths: Array | None = None,
                mode: str = PREDICT) -> tuple[Array, tuple[Array, ...]]:
        (D, T, N), H = x.shape, self.units
        a = self.backend.gemm(self.W.data, x.reshape(D, T * N),
                              bias=self.b.data if self.b else None).reshape(3 * H, T, N)
        U_rz, U_n = self.U.data[:2 * H], self.U.data[2 * H:]
        y, kept = self.backend.empty((H, T, N), x.dtype), []
        h = initial[0] if initial else self.backend.zeros((H, N), x.dtype)
        for t in range(T)[::-1 if self.reverse else 1]:
            r_z = self.backend.activate(a[:2 * H, t] + self.backend.gemm(U_rz, h), "sigmoid")
            r, z = r_z[:H], r_z[H:]
            q = r * h
            n = self.backend.activate(a[2 * H:, t] + self.backend.gemm(U_n, q), "tanh")
            if self.keeps(mode):
                kept.append((r, z, n, q, h))
            new = n + z * (h - n)
            h = new if lengths is None else self.xp.where(t < lengths, new, h)
            y[:, t] = h
        self.remember(mode, x, kept, lengths)
        return inside(self.xp, y, lengths) if self.sequences else h, (h,)

    def backward(self, dy: Array, accumulate: bool = False) -> tuple[Array | None, ...]:
        x, kept, lengths = self.recall()
        (D, T, N), H = x.shape, self.units
        U_rz, U_n = self.U.data[:2 * H], self.U.data[2 * H:]
        da = self.backend.empty((3 * H, T, N), dy.dtype)
        before, reset = (self.backend.empty((H, T, N), dy.dtype) for _ in range(2))
        dh: Any = self.backend.zeros((H, N), dy.dtype) if self.sequences else dy
        if self.sequences:
            dy = inside(self.xp, dy, lengths)
        for t in range(T)[::1 if self.reverse else -1]:
            if self.sequences:
                dh = dh + dy[:, t]
            passed: Any = 0.0                   # to the state before, unchanged
            if lengths is not None:
                zero = dy.dtype.type(0)
                passed = self.xp.where(t < lengths, zero, dh)
                dh = self.xp.where(t < lengths, dh, zero)
            r, z, n, q, h = kept.pop()
            before[:, t], reset[:, t] = h, q
            dn = dh * (1 - z) * (1 - n * n)                                 # of tanh's argument
            dq = self.backend.gemm(U_n, dn, trans_a=True)
            da[:H, t] = dq * h * r * (1 - r)                                # of sigmoid's
            da[H:2 * H, t] = dh * (h - n) * z * (1 - z)
            da[2 * H:, t] = dn
            through_gates = self.backend.gemm(U_rz, self.backend.asarray(da[:2 * H, t]),
                                              trans_a=True)
            dh = dh * z + dq * r + through_gates + passed
        da, x, before, reset = (m.reshape(len(m), T * N) for m in (da, x, before, reset))
        self.backend.gemm(da, x, trans_b=True, out=self.W.grad, accumulate=accumulate)
        self.backend.gemm(da[:2 * H], before, trans_b=True, out=self.U.grad[:2 * H],
                          accumulate=accumulate)
        self.backend.gemm(da[2 * H:], reset, trans_b=True, out=self.U.grad[2 * H:],
                          accumulate=accumulate)
        if self.b:
            self.backend.activation_backward(da, da, None, bias_grad=self.b.grad,
                                             accumulate=accumulate)
        dx = (self.backend.gemm(self.W.data, da, trans_a=True).reshape(D, T, N)
              if self.needs_dx else None)
        return dx, dh

    def multiply_adds(self) -> int:
        return (self.W.size + self.U.size) * self.in_shapes[0][1]
