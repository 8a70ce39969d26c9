"""Batch norm and its gradient."""

from __future__ import annotations

import math

from xpnet.backends import Backend
from xpnet.checks import expect_number
from xpnet.functional.call import Array, Call


def batch_norm(x: Array, gamma: Array, beta: Array, *, eps: float = 1e-5, layout: str = "NCHW",
               backend: str | Backend = "auto") -> tuple[Array, Array, Array]:
    """Batch norm in training: y = gamma x_hat + beta, x_hat = (x - mean) / sqrt(var + eps).

    x (N, C, H, W), gamma and beta (C,) -> y like x, mean (C,), var (C,). Each channel has the
    batch's own mean and variance over (N, H, W), the variance with divisor n = N H W. Running
    statistics are up to the caller: running_mean += momentum (mean - running_mean), running_var +=
    momentum (var n / (n - 1) - running_var).

    Raises:
        ValueError: a channel has a single element.

    Ioffe and Szegedy 2015, algorithm 1.
    """
    call = Call("batch_norm", layout, backend, {"x": x},
                {"gamma": (gamma, "C"), "beta": (beta, "C")}, half=False)
    eps = expect_number(call.who, "eps", eps, 0)
    call.expect_per_channel(x, {"gamma": gamma, "beta": beta})
    if math.prod(call.sizes(x)[1:]) == 1:
        raise ValueError(f"{call.who}: expected more than one element per channel, whose variance "
                         f"is to be 1. Received: x of shape {tuple(x.shape)}.")
    with call.backend.scope():
        y, mean, var = call.backend.batch_norm(call.inward(x), call.ready(gamma), call.ready(beta),
                                               eps)
        return call.outward(y), mean, var


def batch_norm_inference(x: Array, gamma: Array, beta: Array, mean: Array, var: Array, *,
                         eps: float = 1e-5, layout: str = "NCHW", backend: str | Backend = "auto"
                         ) -> Array:
    """Batch norm in prediction: y = gamma (x - mean) / sqrt(var + eps) + beta, with given
    statistics.

    x (N, C, H, W), gamma, beta, mean and var (C,) -> y like x.
    """
    vectors = {"gamma": gamma, "beta": beta, "mean": mean, "var": var}
    call = Call("batch_norm_inference", layout, backend, {"x": x},
                {name: (a, "C") for name, a in vectors.items()}, half=False)
    eps = expect_number(call.who, "eps", eps, 0)
    call.expect_per_channel(x, vectors)
    with call.backend.scope():
        gamma, beta, mean, var = (call.ready(a) for a in vectors.values())
        return call.outward(
            call.backend.batch_norm_inference(call.inward(x), gamma, beta, mean, var, eps))


def batch_norm_backward(dy: Array, x: Array, gamma: Array, mean: Array, var: Array, *,
                        eps: float = 1e-5, layout: str = "NCHW", backend: str | Backend = "auto"
                        ) -> tuple[Array, Array, Array]:
    """Gradient of batch_norm: dgamma = sum of dy x_hat, dbeta = sum of dy, dx = gamma / sqrt(var +
    eps) (dy - dbeta / n - x_hat dgamma / n).

    The last two terms are there because mean and var depend on x. dy and x (N, C, H, W), mean and
    var (C,) from batch_norm -> dx like x, dgamma (C,), dbeta (C,).
    """
    vectors = {"gamma": gamma, "mean": mean, "var": var}
    call = Call("batch_norm_backward", layout, backend, {"dy": dy, "x": x},
                {name: (a, "C") for name, a in vectors.items()}, half=False)
    eps = expect_number(call.who, "eps", eps, 0)
    call.expect_per_channel(x, vectors)
    call.expect("dy", dy, tuple(x.shape))
    with call.backend.scope():
        gamma, mean, var = (call.ready(a) for a in vectors.values())
        dgamma, dbeta = (call.backend.empty(gamma.shape, gamma.dtype) for _ in range(2))
        dy, x = call.inward(dy), call.inward(x)
        # without an activation the kernel does not read y, so x can be passed for it
        dx = call.backend.batch_norm_backward(dy, x, x, gamma, mean, var, eps,
                                              gamma_grad=dgamma, beta_grad=dbeta)
        return call.outward(dx), dgamma, dbeta
