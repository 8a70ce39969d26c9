"""The gated recurrent unit as in Cho et al. 2014, with the reset gate before the product with U.

Unlike the units of scan.py it needs a second product in each step, because its argument depends on
the first one.
"""

from __future__ import annotations

from typing import Any

from xpnet.layer import PREDICT, Array
from xpnet.layers.scan import Scan, in_order, inside


class ResetBeforeScan(Scan):
    """h' = (1 - z) n + z h, with r and z the blocks of sigmoid(a + U h), n = tanh(a_n + U_n (r h)).
    """

    gates = 3

    def through(self, x: Array, *initial: Array, lengths: Array | None = None,
                mode: str = PREDICT) -> tuple[Array, tuple[Array, ...]]:
        (D, T, N), H = x.shape, self.units
        a = self.backend.gemm(self.W.data, x.reshape(D, T * N),
                              bias=self.b.data if self.b else None).reshape(3 * H, T, N)
        U_rz, U_n = self.U.data[:2 * H], self.U.data[2 * H:]
        y, kept = self.backend.empty((H, T, N), x.dtype), []
        h = initial[0] if initial else self.backend.zeros((H, N), x.dtype)
        for t in in_order(T, self.reverse):
            r_z = self.sigmoid(a[:2 * H, t] + self.backend.gemm(U_rz, h))
            r, z = r_z[:H], r_z[H:]
            q = r * h
            n = self.tanh(a[2 * H:, t] + self.backend.gemm(U_n, q))
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
        for t in reversed(in_order(T, self.reverse)):
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
        self.bias_gradients(da, da, accumulate)
        dx = (self.backend.gemm(self.W.data, da, trans_a=True).reshape(D, T, N)
              if self.needs_dx else None)
        return dx, dh
