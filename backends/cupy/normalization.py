"""Batch normalisation on an NVIDIA GPU: two passes over memory in each direction."""

from __future__ import annotations

from typing import TYPE_CHECKING

import numpy as np

from xpnet.backends.base import Array, Backend
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.rows import along_rows, has_kernels, room_for_parts

if TYPE_CHECKING:
    from xpnet.backends.cupy.backend import CupyBackend


def kernels() -> dict[str, tuple[str, ...]]:
    """The names of all kernels launched here, by family, as they are passed to the compiler."""
    types = cuda_launch.types_and_extreme_widths()
    return {
        "normalization": (
            *(f"batch_norm_moments<{name}, {width}>" for name, width in types),
            *(f"{kernel}<{name}, {width}, {activation}>"
              for kernel in ("batch_norm", "batch_norm_sums", "batch_norm_dx")
              for name, width in types for activation in cuda_launch.ACTIVATIONS.values()),
            *(f"update_running<{name}>" for name in cuda_launch.TYPES.values()),
        ),
    }


def batch_norm(self: CupyBackend, x: Array, gamma: Array, beta: Array, eps: float, *,
               activation: str | None = None
               ) -> tuple[Array, Array, Array]:
    if activation not in cuda_launch.ACTIVATIONS or not has_kernels(x, gamma, beta):
        return Backend.batch_norm(self, x, gamma, beta, eps, activation=activation)
    x = self._contiguous(x)
    y, mean, var = (self.empty(shape, x.dtype) for shape in (x.shape, gamma.shape, gamma.shape))
    types, launch, pieces = along_rows(x, y)
    parts = room_for_parts(self, pieces, x.dtype, 2)
    self._launch("normalization", f"batch_norm_moments<{types}>", launch, x, parts, pieces)
    _normalise(self, x, y, gamma, beta, mean, var, eps, activation, parts)
    return y, mean, var


def batch_norm_inference(self: CupyBackend, x: Array, gamma: Array, beta: Array, mean: Array,
                         var: Array, eps: float, *, activation: str | None = None) -> Array:
    if activation not in cuda_launch.ACTIVATIONS or not has_kernels(x, gamma, beta, mean, var):
        return Backend.batch_norm_inference(self, x, gamma, beta, mean, var, eps,
                                            activation=activation)
    x = self._contiguous(x)
    y = self.empty(x.shape, x.dtype)
    _normalise(self, x, y, gamma, beta, self._contiguous(mean), self._contiguous(var), eps,
               activation,
                    room_for_parts(self, None, x.dtype))
    return y


def _normalise(self: CupyBackend, x: Array, y: Array, gamma: Array, beta: Array, mean: Array,
               var: Array, eps: float, activation: str | None, parts: Array) -> None:
    """Compute y from x. mean and var are computed from `parts` and written, or given if `parts` is
    empty."""
    types, launch, pieces = along_rows(x, y)
    self._launch("normalization", f"batch_norm<{types}, {cuda_launch.ACTIVATIONS[activation]}>",
                 launch, x, y, self._contiguous(gamma), self._contiguous(beta), mean, var,
                 np.float64(eps), np.bool_(parts.size > 0), parts, pieces)


def batch_norm_backward(self: CupyBackend, dy: Array, x: Array, y: Array, gamma: Array, mean: Array,
                        var: Array, eps: float, *, activation: str | None = None, gamma_grad: Array,
                        beta_grad: Array, accumulate: bool = False) -> Array:
    if (activation not in cuda_launch.ACTIVATIONS
            or not has_kernels(dy, x, y, gamma, mean, var, gamma_grad, beta_grad)
            or not (gamma_grad.flags.c_contiguous and beta_grad.flags.c_contiguous)):
        return Backend.batch_norm_backward(self, dy, x, y, gamma, mean, var, eps,
                                           activation=activation, gamma_grad=gamma_grad,
                                           beta_grad=beta_grad, accumulate=accumulate)
    dy, x, y, gamma, mean, var = (self._contiguous(a) for a in (dy, x, y, gamma, mean, var))
    dx = self.empty(x.shape, x.dtype)
    types, launch, pieces = along_rows(dy, x, y, dx)
    types = f"{types}, {cuda_launch.ACTIVATIONS[activation]}"
    parts = room_for_parts(self, pieces, x.dtype, 2)
    self._launch("normalization", f"batch_norm_sums<{types}>", launch, dy, x, y, mean, parts,
                 pieces)
    self._launch("normalization", f"batch_norm_dx<{types}>", launch, dy, x, y, dx, gamma, mean, var,
                 np.float64(eps), gamma_grad, beta_grad, np.bool_(accumulate), parts, pieces)
    return dx


def update_running(self: CupyBackend, running_mean: Array, running_var: Array, mean: Array,
                   var: Array, momentum: float, n: int) -> None:
    if (not has_kernels(running_mean, running_var, mean, var)
            or not (running_mean.flags.c_contiguous and running_var.flags.c_contiguous)):
        return Backend.update_running(self, running_mean, running_var, mean, var, momentum, n)
    C = running_mean.size
    self._launch("normalization", f"update_running<{cuda_launch.TYPES[mean.dtype]}>",
                 cuda_launch.flat_launch(C), running_mean, running_var, self._contiguous(mean),
                 self._contiguous(var), np.float64(momentum), np.float64(n / (n - 1)), np.int64(C))
