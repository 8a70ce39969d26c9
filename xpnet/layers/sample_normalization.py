"""Normalisation by the statistics of each sample alone: the other samples of a batch do not matter,
nor does the mode."""

from __future__ import annotations

import math

import numpy as np

from xpnet.backends import Backend
from xpnet.initializers import ones, zeros
from xpnet.layer import PREDICT, Array, Layer, Shape


def _mean(rows: Array) -> Array:
    """The mean over axis 1, which stays with size 1; added up in float64, since a row can be a
    whole picture."""
    return rows.mean(axis=1, keepdims=True, dtype="float64").astype(rows.dtype)


class SampleNorm(Layer):
    """Base class: X as rows (groups, elements, N); X_hat = (X - mean) / sqrt(var + eps) of each row
    of each sample.

    var has the divisor n and is the mean square of what is left after the mean was taken off. With
    dX_hat = dY gamma: dX = (dX_hat - mean of dX_hat - X_hat mean of (dX_hat X_hat)) / sqrt(var +
    eps).
    """

    kind = "norm"
    centred = True          # False: neither a mean is taken off nor a beta added

    def __init__(self, eps: float, affine: bool, name: str | None) -> None:
        super().__init__(name=name)
        self.eps: float | None = self.expect_number("eps", eps, 0)
        # floor: the eps that is used
        self.floor, self.affine = self.eps, self.expect_flag("affine", affine)

    def plan(self, in_shape: Shape, groups: int, scales: Shape, repeats: int = 1) -> Shape:
        """X as so many rows; gamma and beta of shape `scales`, used again for each of `repeats`
        parts of X.

        Each of their elements stands for a run of elements of X, whose length follows.
        """
        size = math.prod(in_shape)
        self.rows = groups, size // groups
        self.scaled = repeats, math.prod(scales), size // repeats // math.prod(scales)
        if self.centred and self.rows[1] == 1:
            raise ValueError(f"{self.who}: expected more than one element to normalise together, "
                             "or all of them become 0. "
                             f"Received: input shape {in_shape}.")
        self.gamma = self.parameter("gamma", scales, ones, decay=False) if self.affine else None
        self.beta = (self.parameter("beta", scales, zeros, decay=False)
                     if self.affine and self.centred else None)
        return in_shape

    def standardised(self, x: Array) -> tuple[Array, Array | None, Array]:
        """X_hat (groups, elements, N), and mean and standard deviation (groups, 1, N) of the rows
        of x."""
        rows = x.reshape(*self.rows, x.shape[-1])
        if not self.centred:
            squares = _mean(rows * rows)
            std = self.xp.sqrt(squares + self.floor)
            if self.eps is None:  # then 0 / 0 is 0, and has the gradient 0
                std = self.xp.where(squares == 0, std.dtype.type(np.inf), std)
            return rows / std, None, std
        mean = _mean(rows)
        x_hat = rows - mean
        if x_hat.dtype == "float64":  # float32 is added up exactly; see Backend.batch_norm
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
            # (repeats, scales, run, N)
            g, normed = (a.reshape(*self.scaled, -1) for a in (dy, x_hat))
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
    """Layer normalisation: Y = gamma (X - mean) / sqrt(var + eps) + beta, each sample by its own
    mean and var (Ba et al. 2016).

    X and Y of any shape; mean and var are over all axes of a sample, or over those from `axis` on;
    gamma and beta have the shape of these axes, so that every element has its own. `affine=False`
    leaves them out. dX is SampleNorm's. ValueError for an axis that a sample has not, and where a
    single element would be normalised.
    """

    def __init__(self, *, axis: int = 0, eps: float = 1e-5, affine: bool = True,
                 name: str | None = None) -> None:
        super().__init__(eps, affine, name)
        self.axis = self.expect_integer("axis", axis, 0)

    def build(self, in_shape: Shape) -> Shape:
        if self.axis >= len(in_shape):
            raise ValueError(f"{self.who}: expected an axis of a sample of shape {in_shape}. "
                             f"Received: axis={self.axis}.")
        groups = math.prod(in_shape[:self.axis])
        return self.plan(in_shape, groups, in_shape[self.axis:], repeats=groups)


class RMSNorm(LayerNorm):
    """Root mean square normalisation: Y = gamma X / sqrt(mean of X^2 + eps), each sample by itself.

    Zhang and Sennrich 2019, eq. 4. LayerNorm that takes no mean off and adds no beta: shapes,
    `axis` and errors stand there. Without an eps it is the gap of the numbers above 1, 1.2e-7 in
    float32 and 2.2e-16 in float64, as in PyTorch; where all of X are 0 the gradient is then 0, not
    dY / sqrt(eps).
    """

    centred = False

    def __init__(self, *, axis: int = 0, eps: float | None = None, affine: bool = True,
                 name: str | None = None) -> None:
        super().__init__(axis=axis, eps=0.0 if eps is None else eps, affine=affine, name=name)
        self.eps = eps

    def bind(self, backend: Backend, seed: int, index: int, counters: Array) -> None:
        super().bind(backend, seed, index, counters)
        self.floor = float(np.finfo(self.buffers.dtype).eps) if self.eps is None else self.eps


class GroupNorm(SampleNorm):
    """Group normalisation: Y = gamma (X - mean) / sqrt(var + eps) + beta, by groups of channels (Wu
    and He 2018, eq. 1).

    X and Y (C, ..., N), gamma and beta (C,). Each sample's channels form `groups` of C / groups
    neighbours, and mean and var are over all elements of such a group in this sample. One group is
    layer normalisation but for gamma and beta, C groups are instance normalisation. `affine=False`
    leaves gamma and beta out. dX is SampleNorm's. ValueError for groups that do not divide the
    channels, and where a single element would be normalised.
    """

    def __init__(self, groups: int, *, eps: float = 1e-5, affine: bool = True,
                 name: str | None = None) -> None:
        super().__init__(eps, affine, name)
        self.groups = self.expect_integer("groups", groups)

    def build(self, in_shape: Shape) -> Shape:
        if in_shape[0] % self.groups:
            raise ValueError(f"{self.who}: expected groups={self.groups} to divide the channels. "
                             f"Received: input shape {in_shape}.")
        return self.plan(in_shape, self.groups, in_shape[:1])


class InstanceNorm2d(SampleNorm):
    """Instance normalisation: Y = gamma (X - mean) / sqrt(var + eps) + beta, each map by itself
    (Ulyanov et al. 2016, eq. 3).

    X and Y (C, H, W, N); mean and var are over (H, W) of each map of each sample. gamma and beta
    (C,) are there with `affine=True` only. dX is SampleNorm's. ValueError for maps of a single
    element.
    """

    def __init__(self, *, eps: float = 1e-5, affine: bool = False, name: str | None = None) -> None:
        super().__init__(eps, affine, name)

    def build(self, in_shape: Shape) -> Shape:
        C, _, _ = self.expect_axes(in_shape, "channels, height, width")
        return self.plan(in_shape, C, (C,))
