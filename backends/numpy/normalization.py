"""Batch normalisation with NumPy: chunk by chunk of whole channels, in threads."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends import activations
from xpnet.backends.base import Array

if TYPE_CHECKING:
    from xpnet.backends.numpy.backend import NumpyBackend


# The rounding error of the mean is a few units in its last place. If the standard deviation is less
# than this many units, the error matters and the mean is corrected by another pass over the
# channel.
NEAR = 4096


def batch_norm(self: NumpyBackend, x: Array, gamma: Array, beta: Array, eps: float, *,
               activation: str | None = None
               ) -> tuple[Array, Array, Array]:
    C = x.shape[0]
    rows = np.ascontiguousarray(x).reshape(C, -1)
    n = rows.shape[1]
    y = self.empty(rows.shape, x.dtype)
    mean, var = np.empty(C, x.dtype), np.empty(C, x.dtype)
    near = NEAR * np.finfo(x.dtype).eps

    def task(c: slice) -> None:
        z = y[c]
        np.add.reduce(rows[c], axis=1, out=mean[c])
        mean[c] /= n
        np.subtract(rows[c], mean[c, None], out=z)
        np.vecdot(z, z, out=var[c])
        var[c] /= n
        for k in c.start + np.flatnonzero(np.sqrt(var[c]) < near * abs(mean[c])):
            mean[k] += y[k].mean()  # the mean distance from the mean is its rounding error
            np.subtract(rows[k], mean[k], out=y[k])
            var[k] = np.vecdot(y[k], y[k]) / n
        z *= (gamma[c] / np.sqrt(var[c] + eps))[:, None]
        z += beta[c, None]
        self.activate_in_place(z, activation)

    self.over_rows(task, C, n)
    return y.reshape(x.shape), mean, var


def batch_norm_inference(self: NumpyBackend, x: Array, gamma: Array, beta: Array, mean: Array,
                         var: Array, eps: float, *, activation: str | None = None) -> Array:
    C = x.shape[0]
    rows = np.ascontiguousarray(x).reshape(C, -1)
    y = self.empty(rows.shape, x.dtype)
    scale = gamma / np.sqrt(var + eps)                                                      # (C,)

    def task(c: slice) -> None:
        z = y[c]
        np.subtract(rows[c], mean[c, None], out=z)
        z *= scale[c, None]
        z += beta[c, None]
        self.activate_in_place(z, activation)

    self.over_rows(task, C, rows.shape[1])
    return y.reshape(x.shape)


def batch_norm_backward(self: NumpyBackend, dy: Array, x: Array, y: Array, gamma: Array,
                        mean: Array, var: Array, eps: float, *,
                        activation: str | None = None, gamma_grad: Array, beta_grad: Array,
                        accumulate: bool = False) -> Array:
    C = x.shape[0]
    dy2, x2, y2 = (np.ascontiguousarray(a).reshape(C, -1) for a in (dy, x, y))
    n = x2.shape[1]
    dx = self.empty(x2.shape, dy.dtype)
    dgamma, dbeta = np.empty(C, dy.dtype), np.empty(C, dy.dtype)
    std = np.sqrt(var + eps)

    def task(c: slice) -> None:
        dz = dx[c]
        centred = self.empty(dz.shape, dz.dtype)
        if activation is None:
            np.copyto(dz, dy2[c])
        else:
            np.multiply(dy2[c], activations.derivative(np, y2[c], activation), out=dz)
        np.subtract(x2[c], mean[c, None], out=centred)
        np.add.reduce(dz, axis=1, out=dbeta[c])
        dgamma[c] = np.vecdot(dz, centred) / std[c]
        # dx = gamma / std * (dz - (dbeta + x_hat dgamma) / n)
        centred *= (dgamma[c] / (n * std[c]))[:, None]
        centred += (dbeta[c] / n)[:, None]
        dz -= centred
        dz *= (gamma[c] / std[c])[:, None]

    self.over_rows(task, C, n)
    self.store(dgamma, gamma_grad, accumulate)
    self.store(dbeta, beta_grad, accumulate)
    return dx.reshape(x.shape)
