"""The gated recurrent unit as in Cho et al. 2014, with the reset gate before the product with U.

Unlike the cells of backends/cells.py it needs a second product in each step, because its argument
depends on the first one. So it has steps of its own.
"""

from __future__ import annotations

from typing import Any

from xpnet.backends.cells import in_order
from xpnet.layer import PREDICT, Array
from xpnet.layers.scan import Scan, Steps


class ResetBeforeScan(Scan):
    """h' = (1 - z) n + z h, with r and z the blocks of sigmoid(a + U h), n = tanh(a_n + U_n (r h)).
    """

    @property
    def gates(self) -> int:
        return 3

    def through(self, x: Array, *initial: Array, lengths: Array | None = None,
                mode: str = PREDICT) -> tuple[Array, tuple[Array, ...]]:
        (_, T, N), H, backend = x.shape, self.units, self.backend
        steps = Steps(backend, T, N, lengths)
        x = steps.columns(x)                                                # (D, P)
        a = backend.gemm(self.W.data, x, bias=self.b.data if self.b else None)
        U_rz, U_n = self.U.data[:2 * H], self.U.data[2 * H:]
        y, kept = backend.empty((H, x.shape[1]), x.dtype), []
        state = steps.sorted(initial[0]) if initial else backend.zeros((H, N), x.dtype)
        for t, now, count in in_order(steps.counts, self.reverse):
            h = backend.asarray(state[:, :count])
            r_z = backend.activate(a[:2 * H, now] + backend.gemm(U_rz, h), "sigmoid")
            r, z = r_z[:H], r_z[H:]
            q = r * h
            n = backend.activate(a[2 * H:, now] + backend.gemm(U_n, q), "tanh")
            if self.keeps(mode):
                kept.append((r, z, n, q, h))
            new = n + z * (h - n)
            if steps.masks is not None:
                new = self.xp.where(t < steps.masks, new, h)
            y[:, now] = new
            state = steps.replaced(state, new)
        self.remember(mode, x, kept, steps)
        state = steps.unsorted(state)
        return steps.sequence(y) if self.sequences else state, (state,)

    def backward(self, dy: Array, accumulate: bool = False, dlast: tuple[Array, ...] = ()
                 ) -> tuple[Array | None, ...]:
        x, kept, steps = self.recall()
        P, H, backend = x.shape[1], self.units, self.backend
        U_rz, U_n = self.U.data[:2 * H], self.U.data[2 * H:]
        da = backend.empty((3 * H, P), dy.dtype)
        before, reset = (backend.empty((H, P), dy.dtype) for _ in range(2))
        dstate: Any = (steps.sorted(dlast[0]) if dlast else
                       backend.zeros((H, steps.N), dy.dtype))
        if self.sequences:
            dy = steps.columns(dy)
        else:
            dstate = dstate + steps.sorted(dy)
        for t, now, count in reversed(in_order(steps.counts, self.reverse)):
            dh = dstate[:, :count] + dy[:, now] if self.sequences else dstate[:, :count]
            passed: Any = 0.0                   # to the state before, unchanged
            if steps.masks is not None:
                zero = dy.dtype.type(0)
                passed = self.xp.where(t < steps.masks, zero, dh)
                dh = self.xp.where(t < steps.masks, dh, zero)
            r, z, n, q, h = kept.pop()
            before[:, now], reset[:, now] = h, q
            dn = dh * (1 - z) * (1 - n * n)                                 # of tanh's argument
            dq = backend.gemm(U_n, dn, trans_a=True)
            da[:H, now] = dq * h * r * (1 - r)                              # of sigmoid's
            da[H:2 * H, now] = dh * (h - n) * z * (1 - z)
            da[2 * H:, now] = dn
            through_gates = backend.gemm(U_rz, backend.asarray(da[:2 * H, now]), trans_a=True)
            dh = dh * z + dq * r + through_gates + passed
            dstate = steps.replaced(dstate, dh)
        backend.gemm(da, x, trans_b=True, out=self.W.grad, accumulate=accumulate)
        backend.gemm(da[:2 * H], before, trans_b=True, out=self.U.grad[:2 * H],
                     accumulate=accumulate)
        backend.gemm(da[2 * H:], reset, trans_b=True, out=self.U.grad[2 * H:],
                     accumulate=accumulate)
        self.bias_gradients(da, da, accumulate)
        dx = steps.sequence(backend.gemm(self.W.data, da, trans_a=True)) if self.needs_dx else None
        return dx, steps.unsorted(dstate)
