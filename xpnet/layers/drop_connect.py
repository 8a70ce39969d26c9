"""DropConnect."""

from __future__ import annotations

from xpnet.layer import PREDICT, Array
from xpnet.layers.linear import Linear


class DropConnect(Linear):
    """DropConnect: in training Y = f(W keep / (1 - p) X + b), each weight kept with probability 1 -
    p; else Y = f(W X + b).

    X (D, N), W and keep (units, D), b (units,), Y (units, N). dZ = dY f'(Y), dW = dZ X^T keep / (1
    - p), dX = (W keep / (1 - p))^T dZ. ValueError for p outside 0 <= p < 1. Wan et al. 2013, with
    three differences: one mask for a batch, where the paper draws one for each sample, which N
    products of matrices would take; biases stay; and prediction uses the mean weights, where the
    paper draws Z from a normal distribution of the same mean and variance. (Its p is the share that
    is kept.)
    """

    kind = "drop_connect"

    def __init__(self, units: int, p: float = 0.5, *, bias: bool = True,
                 activation: str | None = None, init: str | None = None, name: str | None = None
                 ) -> None:
        super().__init__(units, bias=bias, activation=activation, init=init, name=name)
        self.p = self.expect_number("p", p, 0, below=1)

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == PREDICT:
            return super().forward(x, mode)
        # (units, D)
        W, keep = self.backend.dropout(self.W.data, self.p, (self.seed, self.index), self.counters)
        # (units, N)
        z = self.backend.gemm(W, x, bias=self.b.data if self.b else None, activation=self.fused)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, x, kept, W, keep)
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array | None:
        x, kept, W, keep = self.recall()
        dz = self.backend.activation_backward(dy, kept, self.activation,
                                              bias_grad=self.b.grad if self.b else None,
                                              accumulate=accumulate)
        dW = self.backend.gemm(dz, x, trans_b=True)  # (units, D)
        self.backend.store(self.backend.dropout_dx(dW, self.p, keep), self.W.grad, accumulate)
        return self.backend.gemm(W, dz, trans_a=True) if self.needs_dx else None  # (D, N)
