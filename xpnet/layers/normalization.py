"""Batch normalisation."""

from __future__ import annotations

from xpnet.initializers import ones, zeros
from xpnet.layer import PREDICT, SAMPLE, Array, Shape
from xpnet.layers.activated import Activated


class BatchNorm2d(Activated):
    """Batch normalisation of each channel: Y = f(gamma X_hat + beta), X_hat = (X - mean) / sqrt(var + eps).

    X and Y (C, H, W, N), gamma and beta (C,). In training mean and var are the batch's own, over (H, W, N), and the
    running statistics move: running += momentum (batch's - running), with the unbiased variance; in prediction the
    running ones are used. dX is Backend.batch_norm_backward's. Ioffe and Szegedy 2015, algorithms 1 and 2.
    ValueError in training where a channel has a single element: its variance is 0.
    """

    kind = "bn"

    def __init__(self, *, momentum: float = 0.1, eps: float = 1e-5, activation: str | None = None,
                 name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.momentum, self.eps = self.expect_number("momentum", momentum, 0), self.expect_number("eps", eps, 0)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.gamma = self.parameter("gamma", (C,), ones)
        self.beta = self.parameter("beta", (C,), zeros)
        self.mean = self.state("mean", (C,), zeros)
        self.var = self.state("var", (C,), ones)
        self.smallest_batch = 2 if H * W == 1 else 1
        return in_shape

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        gamma, beta = self.gamma.data, self.beta.data
        if mode in (PREDICT, SAMPLE):
            return self.activated(self.backend.batch_norm_inference(x, gamma, beta, self.mean.data, self.var.data, self.eps,
                                                                    activation=self.fused), self.fused)[0]
        if x.shape[-1] < self.smallest_batch:
            raise ValueError(f"{self.who}: expected more than one element per channel in training. "
                             f"Received: an array of shape {x.shape}.")
        z, mean, var = self.backend.batch_norm(x, gamma, beta, self.eps, activation=self.fused)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, x, kept, mean, var)
        self.backend.update_running(self.mean.data, self.var.data, mean, var, self.momentum, x.size // x.shape[0])
        return y

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x, kept, mean, var = self.recall()
        dz = dy if self.fused else self.backend.activation_backward(dy, kept, self.activation)
        return self.backend.batch_norm_backward(dz, x, kept, self.gamma.data, mean, var, self.eps, activation=self.fused,
                                                gamma_grad=self.gamma.grad, beta_grad=self.beta.grad, accumulate=accumulate)
