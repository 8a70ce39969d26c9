"""Normalisation with a trained scale and shift: over the batch, or over each sample alone."""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import MOST_AXES, is_integer, items, wrong
from xpnet.initializers import ones, zeros
from xpnet.layer import PREDICT, TRAIN, Array, Exchanging, Layer, Shape
from xpnet.layers.activations import Activated
from xpnet.lengths import CAUSAL

__all__ = ["BatchNorm1d", "BatchNorm2d", "GroupNorm", "InstanceNorm2d", "LayerNorm", "RMSNorm"]


class BatchNorm(Activated):
    """Base class of batch normalisation: each row of X (C, ..., N) with its own mean and variance.
    """

    kind = "bn"

    def __init__(self, *, momentum: float | None = 0.1, eps: float = 1e-5,
                 activation: str | None = None, name: str | None = None) -> None:
        super().__init__(activation, name=name)
        self.momentum = None if momentum is None else self.expect_number("momentum", momentum, 0)
        self.eps = self.expect_number("eps", eps, 0)
        self._alone = False             # whether a sample has a single element of each channel

    def declare(self, channels: int, elements: int) -> None:
        """Declare parameters and state; a sample has `elements` elements of each of the channels.
        """
        self.gamma = self.parameter("gamma", (channels,), ones)
        self.beta = self.parameter("beta", (channels,), zeros)
        self.mean = self.state("mean", (channels,), zeros)
        self.var = self.state("var", (channels,), ones)
        if self.momentum is None:
            # the number of batches in the running statistics
            self.batches = self.state("batches", (1,), zeros)
        self._alone = elements == 1

    @property
    def smallest_batch(self) -> int:        # type: ignore[override] # depends on `trainable`
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
        """Y with the batch's own statistics, what the activation's derivative reads, and the
        batch's mean and variance."""
        if x.shape[-1] < self.smallest_batch:
            raise ValueError(f"{self.who}: expected more than one element per channel in training. "
                             f"Received: an array of shape {x.shape}.")
        z, mean, var = self.backend.batch_norm(x, self.gamma.data, self.beta.data, self.eps,
                                               activation=self.fused)
        return *self.activated(z, self.fused), mean, var

    def _move(self, mean: Array, var: Array, n: int) -> None:
        """Update the running statistics after a batch of n elements per channel."""
        if self.momentum is not None:
            self.backend.update_running(self.mean.data, self.var.data, mean, var, self.momentum, n)
            return
        count = self.batches.data  # (1,)
        count += 1
        self.mean.data += (mean - self.mean.data) / count
        # the first batch replaces the initial 1
        self.var.data += (var * (n / (n - 1)) - self.var.data) / count

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x, kept, mean, var = self.recall()
        if mean is None:
            return self._backward_frozen(dy, x, kept, accumulate)
        dz = dy if self.fused else self.backend.activation_backward(dy, kept, self.activation)
        return self.backend.batch_norm_backward(dz, x, kept, self.gamma.data, mean, var, self.eps,
                                                activation=self.fused, gamma_grad=self.gamma.grad,
                                                beta_grad=self.beta.grad, accumulate=accumulate)

    # --- one of the shards of a batch, with mean and variance of the whole batch ------------------

    @property
    def over_batch(self) -> bool:           # type: ignore[override] # depends on `trainable`
        return self.trainable

    def forward_shared(self, x: Array) -> Exchanging[Array]:
        n, to_host = x.size // x.shape[0], self.backend.to_numpy
        _, mean, var = self.backend.batch_norm(x, self.gamma.data, self.beta.data, self.eps)
        mean, var = (to_host(a).astype(np.float64) for a in (mean, var))
        whole = yield np.stack([np.full_like(mean, n), mean, n * var], axis=1)          # (C, 3)
        n = int(whole[0, 0])
        mean, var = (self.backend.asarray(a, x.dtype) for a in (whole[:, 1], whole[:, 2] / n))
        z = self.backend.batch_norm_inference(x, self.gamma.data, self.beta.data, mean, var,
                                              self.eps, activation=self.fused)
        y, kept = self.activated(z, self.fused)
        self.remember(TRAIN, x, kept, mean, var, n)
        self._move(mean, var, n)
        return y

    def backward_shared(self, dy: Array, accumulate: bool = False) -> Exchanging[Array]:
        """dX = gamma / std (dZ - dbeta / n - X_hat dgamma / n), with the sums dgamma and dbeta over
        the n elements of the batch. The kernel computes it with those of the shard, and the
        difference is added."""
        x, kept, mean, var, n = self.recall()
        backend, xp, to_host = self.backend, self.xp, self.backend.to_numpy
        dgamma, dbeta = xp.empty_like(mean), xp.empty_like(mean)
        dz = dy if self.fused else backend.activation_backward(dy, kept, self.activation)
        dx = backend.batch_norm_backward(dz, x, kept, self.gamma.data, mean, var, self.eps,
                                         activation=self.fused, gamma_grad=dgamma, beta_grad=dbeta)
        own = np.stack([to_host(dgamma), to_host(dbeta)], axis=1).astype(np.float64)    # (C, 2)
        whole = yield own
        backend.store(dgamma, self.gamma.grad, accumulate)
        backend.store(dbeta, self.beta.grad, accumulate)
        rest = own / (x.size // x.shape[0]) - whole / n
        std = xp.sqrt(var + self.eps)
        of_gamma, of_beta = (backend.asarray(a, x.dtype) * self.gamma.data / std for a in rest.T)
        rows, dx_rows = (a.reshape(x.shape[0], -1) for a in (x, dx))                    # (C, n)
        dx_rows += (rows - mean[:, None]) * (of_gamma / std)[:, None] + of_beta[:, None]
        return dx

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

    X and Y (C, H, W, N), gamma and beta (C,). In training, mean and var are those of the batch,
    over (H, W, N), and the running statistics move: running += momentum (batch's - running), with
    the unbiased variance. In prediction the running statistics are used; also in training if the
    layer is not `trainable`, and then they stay as they are. `net.population_statistics` replaces
    them by those of algorithm 2.
    dX = gamma / std (dY - sum of dY / m - X_hat sum of (dY X_hat) / m), std = sqrt(var + eps), m
    elements per channel. Some notes print gamma / m as the first factor: it is gamma / std, or
    gamma / (m std) if the sums are not divided by m. If several ranks share a batch, mean and var
    are those of each shard by default, see DataParallel.

    Args:
        momentum: None makes the running statistics the mean over all batches so far.
        activation: name of f; None is the identity.

    Raises:
        ValueError: in training, a channel has a single element, whose variance is 0.

    Ioffe and Szegedy 2015, algorithms 1 and 2.
    """

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        self.declare(C, H * W)
        return in_shape


class BatchNorm1d(BatchNorm):
    """Batch normalisation of each feature: Y = f(gamma X_hat + beta), X_hat = (X - mean) / sqrt(var
    + eps).

    X and Y (D, N), mean and var over the batch; or signals (D, T, N), mean and var over the steps
    and the batch. gamma and beta (D,). It is BatchNorm2d for vectors and signals: gradients,
    arguments and statistics are described there.

    Raises:
        ValueError: in training, a feature has a single element, whose variance is 0.

    Ioffe and Szegedy 2015, algorithms 1 and 2.
    """

    def build(self, in_shape: Shape) -> Shape:
        if len(in_shape) > 2:
            raise ValueError(f"{self.who}: expected an input of shape (features) or (channels, "
                             f"steps) per sample. Received: input shape {in_shape}.")
        self.declare(in_shape[0], math.prod(in_shape[1:]))
        return in_shape


def _mean(rows: Array) -> Array:
    """Mean over axis 1, which stays with size 1; summed in float64, since a row can be a whole
    image."""
    return rows.mean(axis=1, keepdims=True, dtype="float64").astype(rows.dtype)


class SampleNorm(Layer):
    """Base class: X as rows (groups, elements, N); X_hat = (X - mean) / sqrt(var + eps) of each row
    of each sample. Axes of a sample behind the rows are like samples, so N counts them, too.

    var has the divisor n and is the mean square after the mean was subtracted.
    With dX_hat = dY gamma: dX = (dX_hat - mean of dX_hat - X_hat mean of (dX_hat X_hat)) / sqrt(var
    + eps).

    Args:
        affine: False leaves out gamma and beta.

    Raises:
        ValueError: a row has a single element, which would become 0.
    """

    kind = "norm"
    centred = True          # False: the mean is not subtracted, and there is no beta

    def __init__(self, eps: float, affine: bool, name: str | None) -> None:
        super().__init__(name=name)
        self.eps: float | None = self.expect_number("eps", eps, 0)
        self.floor = self.eps           # the eps that is used
        self.affine = self.expect_flag("affine", affine)

    def plan(self, in_shape: Shape, groups: int, elements: int, scales: Shape, repeats: int = 1
             ) -> Shape:
        """Split X into `groups` rows of `elements`; gamma and beta of shape `scales` are used for
        each of `repeats` parts of X.

        Each element of gamma and beta applies to a run of elements of X, whose length follows.
        """
        size = math.prod(in_shape)
        self.rows = groups, elements
        self.scaled = repeats, math.prod(scales), size // repeats // math.prod(scales)
        if self.centred and self.rows[1] == 1:
            raise ValueError(f"{self.who}: expected more than one element to normalise together, "
                             "or all of them become 0. Received: input shape "
                             f"{self.in_shapes[0]}.")
        self.gamma = self.parameter("gamma", scales, ones, decay=False) if self.affine else None
        self.beta = (self.parameter("beta", scales, zeros, decay=False)
                     if self.affine and self.centred else None)
        return in_shape

    def standardised(self, x: Array) -> tuple[Array, Array | None, Array]:
        """X_hat (groups, elements, N), and mean and standard deviation (groups, 1, N) of the rows
        of x."""
        rows = x.reshape(*self.rows, -1)
        if not self.centred:
            squares = _mean(rows * rows)
            std = self.xp.sqrt(squares + self.floor)
            if self.eps is None:        # 0 / 0 is 0 and has the gradient 0
                std = self.xp.where(squares == 0, std.dtype.type(np.inf), std)
            return rows / std, None, std
        mean = _mean(rows)
        x_hat = rows - mean
        if x_hat.dtype == "float64":    # float32 is summed exactly; see Backend.batch_norm
            x_hat -= _mean(x_hat)
        std = self.xp.sqrt(_mean(x_hat * x_hat) + self.floor)
        x_hat /= std
        return x_hat, mean, std

    def forward(self, x: Array, mode: str = PREDICT) -> Array:
        x_hat, _, std = self.standardised(x)
        self.remember(mode, x_hat, std)
        y = x_hat
        if self.gamma is not None:
            y = x_hat.reshape(*self.scaled, -1) * self.gamma.data.reshape(1, -1, 1, 1)
        if self.beta is not None:
            y += self.beta.data.reshape(1, -1, 1, 1)
        return y.reshape(x.shape)

    def backward(self, dy: Array, accumulate: bool = False) -> Array:
        x_hat, std = self.recall()
        dx_hat = dy.reshape(x_hat.shape)
        if self.gamma is not None:
            g, normed = (a.reshape(*self.scaled, -1)                    # (repeats, scales, run, N)
                         for a in (dy, x_hat))
            self.backend.store((g * normed).sum(axis=(0, 2, 3)).reshape(self.gamma.shape),
                               self.gamma.grad, accumulate)
            if self.beta is not None:
                self.backend.store(g.sum(axis=(0, 2, 3)).reshape(self.beta.shape), self.beta.grad,
                                   accumulate)
            dx_hat = (g * self.gamma.data.reshape(1, -1, 1, 1)).reshape(x_hat.shape)
        dx = x_hat * -_mean(dx_hat * x_hat)
        dx += dx_hat
        if self.centred:
            dx -= _mean(dx_hat)
        dx /= std
        return dx.reshape(dy.shape)


class LayerNorm(SampleNorm):
    """Layer normalisation: Y = gamma (X - mean) / sqrt(var + eps) + beta, each sample with its own
    mean and var (Ba et al. 2016).

    X and Y of any shape. Mean and var are over all elements of a sample, or over those along `axis`
    at each position of the other axes: LayerNorm(axis=0) normalises the features of each step of a
    sequence (D, T), as in Vaswani et al. 2017, and the channels of each pixel of (C, H, W). gamma
    and beta have the shape of the axes that are normalised. dX is that of SampleNorm.

    Args:
        axis: an axis of a sample, several neighbouring ones, e.g. (1, 2), or None for all of them.
        affine: False leaves out gamma and beta.

    Raises:
        ValueError: a sample does not have these axes, or a single element would be normalised.
    """

    def __init__(self, *, axis: int | Sequence[int] | None = None, eps: float = 1e-5,
                 affine: bool = True, name: str | None = None) -> None:
        super().__init__(eps, affine, name)
        axes = items(axis)
        self.axis: int | list[int] | None
        if axis is None or axes is None:
            self.axis = None if axis is None else self.expect_integer("axis", axis, 0)
        elif (axes and len(axes) <= MOST_AXES and all(is_integer(a) for a in axes)
                and [a - axes[0] for a in axes] == [*range(len(axes))]):
            self.axis = [int(a) for a in axes]
        else:
            raise wrong(self.who, "axis to be an int, 0 or larger, None, or neighbouring axes in "
                        "their order", "axis", axis)

    def build(self, in_shape: Shape) -> Shape:
        axes = [self.axis] if isinstance(self.axis, int) else self.axis or [*range(len(in_shape))]
        if axes[-1] >= len(in_shape):
            raise ValueError(f"{self.who}: expected an axis of a sample of shape {in_shape}. "
                             f"Received: axis={self.axis}.")
        normalised = in_shape[axes[0]:axes[-1] + 1]
        before = math.prod(in_shape[:axes[0]])
        self.steps = CAUSAL if axes == [0] else None
        return self.plan(in_shape, before, math.prod(normalised), normalised, repeats=before)


class RMSNorm(LayerNorm):
    """Root mean square normalisation: Y = gamma X / sqrt(mean of X^2 + eps), each sample by itself.

    LayerNorm without subtracting the mean and without beta; shapes, `axis` and errors are described
    there.

    Args:
        eps: by default the gap between 1 and the next number, 1.2e-7 in float32 and 2.2e-16 in
            float64, as in PyTorch. With this default, the gradient is 0 where all of X are 0, not
            dY / sqrt(eps).

    Zhang and Sennrich 2019, eq. 4.
    """

    centred = False

    def __init__(self, *, axis: int | Sequence[int] | None = None, eps: float | None = None,
                 affine: bool = True, name: str | None = None) -> None:
        super().__init__(axis=axis, eps=0.0 if eps is None else eps, affine=affine, name=name)
        self.eps = eps

    def bind(self, backend: Backend, seed: int, counters: Array) -> None:
        super().bind(backend, seed, counters)
        self.floor = float(np.finfo(self.buffers.dtype).eps) if self.eps is None else self.eps


class GroupNorm(SampleNorm):
    """Group normalisation: Y = gamma (X - mean) / sqrt(var + eps) + beta, by groups of channels (Wu
    and He 2018, eq. 1).

    X and Y (C, ..., N), gamma and beta (C,). The channels of each sample form `groups` groups of C
    / groups neighbours; mean and var are over all elements of a group in one sample. One group is
    layer normalisation except for gamma and beta; C groups are instance normalisation. dX is that
    of SampleNorm.

    Args:
        affine: False leaves out gamma and beta.

    Raises:
        ValueError: groups does not divide the channels, or a single element would be normalised.
    """

    def __init__(self, groups: int, *, eps: float = 1e-5, affine: bool = True,
                 name: str | None = None) -> None:
        super().__init__(eps, affine, name)
        self.groups = self.expect_integer("groups", groups)

    def build(self, in_shape: Shape) -> Shape:
        if in_shape[0] % self.groups:
            raise ValueError(f"{self.who}: expected groups={self.groups} to divide the channels. "
                             f"Received: input shape {in_shape}.")
        return self.plan(in_shape, self.groups, math.prod(in_shape) // self.groups, in_shape[:1])


class InstanceNorm2d(SampleNorm):
    """Instance normalisation: Y = gamma (X - mean) / sqrt(var + eps) + beta, each feature map by
    itself (Ulyanov et al. 2016, eq. 3).

    X and Y (C, H, W, N), gamma and beta (C,); mean and var are over (H, W) of each feature map of
    each sample. dX is that of SampleNorm.

    Args:
        affine: True adds gamma and beta.

    Raises:
        ValueError: a feature map has a single element.
    """

    def __init__(self, *, eps: float = 1e-5, affine: bool = False, name: str | None = None) -> None:
        super().__init__(eps, affine, name)

    def build(self, in_shape: Shape) -> Shape:
        C, H, W = self.expect_axes(in_shape, "channels, height, width")
        return self.plan(in_shape, C, H * W, (C,))
