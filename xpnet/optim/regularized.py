"""Clipping, an l1 penalty and weight norm bounds around an optimizer."""

from __future__ import annotations

import math

import numpy as np

from xpnet.backends import Backend
from xpnet.buffers import Array, Buffers
from xpnet.optim.base import Optimizer
from xpnet.optim.names import get_optimizer


class Regularized(Optimizer):
    """Bounds and penalties around an optimizer: its step with g' = clip(g) + l1 sign(w), then |w|
    <= max_norm for each unit.

    The settings are constants in a captured step: call TrainStep.release after changing them.

    Args:
        optimizer: an Optimizer, or its name.
        l1: the factor of the sum of |w| over weights, not biases (Tibshirani 1996). Neither it nor
            the optimizer's weight decay is clipped.
        clip_value: bounds each element: g = max(-clip_value, min(g, clip_value)).
        clip_norm: bounds all elements together, after clip_value: g *= min(1, clip_norm / |g|),
            where |g|^2 is the sum over all trained parameters (Pascanu et al. 2013, algorithm 1;
            PyTorch divides by |g| + 1e-6).
        max_norm: bounds the norm of the incoming weights of each unit, the rows W[i] of a Linear or
            the filters of a convolution: w *= min(1, max_norm / |w|) (Srivastava et al. 2014,
            section 5.1). For a ConvTranspose2d these are the weights of each input channel, for a
            TableConv2d those of each connection.

    Raises ValueError if l1 is negative, or if a bound is not above 0.
    """

    def __init__(self, optimizer: str | Optimizer, *, l1: float = 0.0,
                 clip_value: float | None = None, clip_norm: float | None = None,
                 max_norm: float | None = None) -> None:
        self.optimizer, self.l1 = get_optimizer(optimizer, "Regularized"), l1
        self.clip_value, self.clip_norm, self.max_norm = clip_value, clip_norm, max_norm
        self._check(l1=0.0)
        for name in ("clip_value", "clip_norm", "max_norm"):
            if getattr(self, name) is not None:
                self._check(**{name: 0.0})
                if not getattr(self, name):
                    raise ValueError(f"Regularized: expected {name} above 0, or None. Received: "
                                     f"{name}=0.")
        self.first = self.optimizer.first

    @property
    def slots(self) -> int:
        return self.optimizer.slots

    @property
    def lr(self) -> float:
        return self.optimizer.lr

    @lr.setter
    def lr(self, value: float) -> None:
        self.optimizer.lr = value

    def check_for(self, dtype: np.dtype) -> None:
        self.optimizer.check_for(dtype)

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return self.optimizer.hyper(step, lr)

    def apply(self, backend: Backend, w: Array, g: Array, slots: list[Array], hyper: Array,
              decayed: int) -> None:
        self.optimizer.apply(backend, w, g, slots, hyper, decayed)

    def gradients(self, buffers: Buffers) -> Array:
        xp, g = buffers.backend.xp, self.optimizer.gradients(buffers)
        if self.clip_value is not None:
            g = xp.clip(g, -self.clip_value, self.clip_value)
        if self.clip_norm is not None:
            # In float64, so that no square overflows. The device compares |g| with clip_norm.
            parts = buffers.trained(dict.fromkeys(buffers.layers, 0))
            norm = xp.sqrt(
                sum(xp.square(g[start:stop], dtype=np.float64).sum() for start, stop, _ in parts))
            g = g * (self.clip_norm / xp.maximum(norm, self.clip_norm)).astype(g.dtype)
        if self.l1:
            g = g.copy()
            g[:buffers.decayed] += self.l1 * xp.sign(buffers.parameters[:buffers.decayed])
        return g

    def constrain(self, buffers: Buffers) -> None:
        self.optimizer.constrain(buffers)
        if self.max_norm is None:
            return
        xp = buffers.backend.xp
        for layer, p in buffers.placed:
            if layer.trainable and p.decay and len(p.shape) > p.units:
                W = p.data.reshape(math.prod(p.shape[:p.units]), -1)  # (units, inputs)
                norm = xp.sqrt((W * W).sum(axis=1))  # (units,)
                W *= (self.max_norm / xp.maximum(norm, self.max_norm))[:, None]
