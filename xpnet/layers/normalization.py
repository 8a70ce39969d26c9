"""Batch normalisation."""

from __future__ import annotations

from xpnet.initializers import ones, zeros
from xpnet.layer import PREDICT, TRAIN, Array, Shape
from xpnet.layers.activated import Activated


class BatchNorm(Activated):
    """Base class of batch normalisation: each row of X (C, ..., N) by its own mean and variance."""

    kind = "bn"

    def __init__(self, *, momentum: float | None = 0.1, eps: float = 1e-5,
                 activation: str | None = None, name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.momentum = None if momentum is None else self.expect_number("momentum", momentum, 0)
        self.eps = self.expect_number("eps", eps, 0)
        self._alone = False             # whether a sample has a single element of each channel

    def declare(self, channels: int, elements: int) -> None:
        """Parameters and state for so many channels; `elements` is how many of each one a sample
        has."""
        self.gamma = self.parameter("gamma", (channels,), ones)
        self.beta = self.parameter("beta", (channels,), zeros)
        self.mean = self.state("mean", (channels,), zeros)
        self.var = self.state("var", (channels,), ones)
        if self.momentum is None:
            # how many the running statistics are of
            self.batches = self.state("batches", (1,), zeros)
        self._alone = elements == 1

    @property
    def smallest_batch(self) -> int:        # type: ignore[override] # it depends on whether the layer is trainable
        return 2 if self._alone and self.trainable else 1

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        if mode == TRAIN and self.trainable:
            y, kept, mean, var = self.normalised(x)
            self.remember(mode, x, kept, mean, var)
            self._move(mean, var, x.size // x.shape[0])
            return y
        z = self.backend.batch_norm_inference(x, self.gamma.data, self.beta.data, self.mean.data,
                                              self.var.data, self.eps, activation=self.fused)
        y, kept = self.activated(z, self.fused)
        self.remember(mode, x, kept, None, None)
        return y

    def normalised(self, x: Array) -> tuple[Array, Array, Array, Array]:
        """Y by the batch's own statistics, what the activation's derivative reads, and the batch's
        mean and variance."""
        if x.shape[-1] < self.smallest_batch:
            raise ValueError(f"{self.who}: expected more than one element per channel in training. "
                             f"Received: an array of shape {x.shape}.")
        z, mean, var = self.backend.batch_norm(x, self.gamma.data, self.beta.data, self.eps,
                                               activation=self.fused)
        return *self.activated(z, self.fused), mean, var

    def _move(self, mean: Array, var: Array, n: int) -> None:
        """The running statistics after a batch of n elements per channel."""
        if self.momentum is not None:
            self.backend.update_running(self.mean.data, self.var.data, mean, var, self.momentum, n)
            return
        count = self.batches.data  # (1,)
        count += 1
        self.mean.data += (mean - self.mean.data) / count
        # the first batch replaces the 1 that stood there
        self.var.data += (var * (n / (n - 1)) - self.var.data) / count

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x, kept, mean, var = self.recall()
        if mean is None:
            return self._backward_frozen(dy, x, kept, accumulate)
        dz = dy if self.fused else self.backend.activation_backward(dy, kept, self.activation)
        return self.backend.batch_norm_backward(dz, x, kept, self.gamma.data, mean, var, self.eps,
                                                activation=self.fused, gamma_grad=self.gamma.grad,
                                                beta_grad=self.beta.grad, accumulate=accumulate)

    def _backward_frozen(self, dy: Array, x: Array, kept: Array, accumulate: bool) -> Array:
        """With statistics that do not depend on X: dX = dZ gamma / sqrt(var + eps)."""
        dz = self.backend.activation_backward(dy, kept, self.activation, bias_grad=self.beta.grad,
                                              accumulate=accumulate)
        rows = dz.reshape(x.shape[0], -1)  # (C, n)
        std = self.xp.sqrt(self.var.data + self.eps)
        x_hat = (x.reshape(rows.shape) - self.mean.data[:, None]) / std[:, None]
        self.backend.store((rows * x_hat).sum(axis=1), self.gamma.grad, accumulate)
        return (rows * (self.gamma.data / std)[:, None]).reshape(x.shape)


class BatchNorm2d(BatchNorm):
    """Batch normalisation of each channel: Y = f(gamma X_hat + beta), X_hat = (X - mean) / sqrt(var
    + eps).

    X and Y (C, H, W, N), gamma and beta (C,). In training mean and var are the batch's own, over
    (H, W, N), and the running statistics move: running += momentum (batch's - running), with the
    unbiased variance; `momentum=None` makes them the mean over all batches so far. In prediction
    the running ones are used, and in training too while the layer is not `trainable`; then they
    stay as they are. `net.population_statistics` puts those of algorithm 2 in their place. dX =
    gamma / std (dY - sum of dY / m - X_hat sum of (dY X_hat) / m), std = sqrt(var + eps), m
    elements per channel. Some notes print gamma / m as the first factor: it is gamma / std, or
    gamma / (m std) where the sums are not divided by m. Ioffe and Szegedy 2015, algorithms 1 and 2.
    ValueError in training where a channel has a single element: its variance is 0.
    """

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.declare(C, H * W)
        return in_shape


class BatchNorm1d(BatchNorm):
    """Batch normalisation of each feature: Y = f(gamma X_hat + beta), X_hat = (X - mean) / sqrt(var
    + eps).

    X and Y (D, N), gamma and beta (D,), mean and var over the batch: BatchNorm2d for vectors, see
    there. Ioffe and Szegedy 2015, algorithms 1 and 2. ValueError in training for a batch of one
    sample.
    """

    def build(self, in_shape: Shape) -> Shape:
        D, = self.expect_axes(in_shape, "features")
        self.declare(D, 1)
        return in_shape
