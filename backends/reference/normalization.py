"""Batch norm in plain array code."""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend


def batch_norm(self: Backend, x: Array, gamma: Array, beta: Array, eps: float, *,
               activation: str | None = None) -> tuple[Array, Array, Array]:
    """y = f(gamma (x - mean) / sqrt(var + eps) + beta) with the batch's statistics.

    x (C, ..., N), gamma and beta (C,) -> y like x, mean (C,), var (C,), the variance with
    divisor n (Ioffe and Szegedy 2015). The mean of equal elements has the same bits as these
    elements, so that a constant channel becomes beta: a rounding error of the mean would be
    divided by the standard deviation, which is 0 there.
    """
    rows = x.reshape(x.shape[0], -1)
    mean = rows.mean(axis=1)
    rest = (rows - mean[:, None]).mean(axis=1)  # it is small, and so are its rounding errors
    mean = mean + self.xp.where(self.xp.isfinite(rest), rest, rest.dtype.type(0))
    centred = rows - mean[:, None]
    var = (centred * centred).mean(axis=1)
    return self.batch_norm_inference(x, gamma, beta, mean, var, eps,
                                     activation=activation), mean, var


def batch_norm_inference(self: Backend, x: Array, gamma: Array, beta: Array, mean: Array,
                         var: Array, eps: float, *, activation: str | None = None) -> Array:
    """batch_norm with given statistics mean and var, both (C,)."""
    rows = x.reshape(x.shape[0], -1)
    scale = gamma / self.xp.sqrt(var + eps)  # (C,)
    y = (rows - mean[:, None]) * scale[:, None] + beta[:, None]
    return self.activate(y, activation).reshape(x.shape)


def batch_norm_backward(self: Backend, dy: Array, x: Array, y: Array, gamma: Array, mean: Array,
                        var: Array, eps: float, *, activation: str | None = None,
                        gamma_grad: Array, beta_grad: Array, accumulate: bool = False) -> Array:
    """The gradient of batch_norm, with x_hat = (x - mean) / std, dz = dy f'(y), n = x.size / C:

        dgamma = sum dz x_hat,  dbeta = sum dz
        dx = gamma / std * (dz - dbeta / n - x_hat dgamma / n)

    Returns dx; dgamma and dbeta go to gamma_grad and beta_grad (C,), added with accumulate.
    """
    dz = self.activation_backward(dy, y, activation).reshape(x.shape[0], -1)
    std = self.xp.sqrt(var + eps)
    x_hat = (x.reshape(dz.shape) - mean[:, None]) / std[:, None]
    dgamma = (dz * x_hat).sum(axis=1)
    dbeta = dz.sum(axis=1)
    self.store(dgamma, gamma_grad, accumulate)
    self.store(dbeta, beta_grad, accumulate)
    n = dz.shape[1]
    dx = (gamma / std)[:, None] * (dz - (dbeta / n)[:, None] - x_hat * (dgamma / n)[:, None])
    return dx.reshape(x.shape)


def update_running(self: Backend, running_mean: Array, running_var: Array, mean: Array, var: Array,
                   momentum: float, n: int) -> None:
    """running += momentum (batch's - running), with the unbiased variance var n / (n - 1).

    All arrays are (C,), for n elements each. If momentum times the difference is too small to
    change the running mean, the mean moves by one unit in its last place. Otherwise it would
    never reach the mean of a constant channel: it would stop 5 of these units away, while the
    running variance goes to 0.
    """
    moved = running_mean + momentum * (mean - running_mean)
    if momentum > 0:
        moved = self.xp.where(moved == running_mean, self.xp.nextafter(running_mean, mean),
                              moved)
    running_mean[...] = moved
    running_var += momentum * (var * (n / (n - 1)) - running_var)
