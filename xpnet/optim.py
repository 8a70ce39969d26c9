"""Optimizers on flat buffers. The update rules themselves are backend kernels: Backend.sgd, Backend.adam."""

from __future__ import annotations

import numpy as np

from xpnet.backends import Backend
from xpnet.layer import Array, Buffers

__all__ = ["SGD", "Adam", "AdamW", "Optimizer"]


class Optimizer:
    """Base class: settings only. What an optimizer remembers between steps lives in an Updater."""

    slots = 0           # arrays like the parameters that the update rule keeps
    lr: float

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        """What the kernel reads, for step = 1, 2, ... and this learning rate."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method hyper(step, lr).")

    def apply(self, backend: Backend, w: Array, g: Array, slots: list[Array], hyper: Array, decayed: int) -> None:
        """Change the flat parameters w (n,) in place, given the gradients g; the first `decayed` feel weight decay."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method apply(backend, w, g, slots, hyper, decayed).")

    def _check(self, **least: float) -> None:
        for name, bound in least.items():
            value = getattr(self, name)
            if not _number(value) or not bound <= value < float("inf"):
                raise ValueError(f"{type(self).__name__}: expected {name} to be a number, {bound:g} or larger. "
                                 f"Received: {name}={value!r}.")
            setattr(self, name, float(value))


def _number(value: object) -> bool:
    return isinstance(value, int | float | np.integer | np.floating) and not isinstance(value, bool)


class SGD(Optimizer):
    """Stochastic gradient descent: v = momentum v + g, w -= lr v; with nesterov, w -= lr (g + momentum v).

    g includes weight_decay * w (for weights, not biases). Sutskever et al. 2013.
    """

    def __init__(self, lr: float, momentum: float = 0.0, nesterov: bool = False, weight_decay: float = 0.0) -> None:
        self.lr, self.momentum, self.nesterov, self.weight_decay = lr, momentum, nesterov, weight_decay
        self._check(lr=0.0, momentum=0.0, weight_decay=0.0)
        if nesterov and not momentum:
            raise ValueError("SGD: expected a momentum above 0 with nesterov. Received: momentum=0.")
        self.slots = 1 if momentum else 0

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        return lr, self.momentum, self.weight_decay

    def apply(self, backend: Backend, w: Array, g: Array, slots: list[Array], hyper: Array, decayed: int) -> None:
        backend.sgd(w, g, slots[0] if slots else None, hyper, nesterov=self.nesterov, decayed=decayed)


class Adam(Optimizer):
    """Adam: w -= lr m_hat / (sqrt(v_hat) + eps), running means m of g and v of g^2 without their bias towards 0.

    weight_decay * w is added to g. Kingma and Ba 2015, algorithm 1.
    """

    slots = 2
    decoupled = False

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.0) -> None:
        self.lr, self.eps, self.weight_decay = lr, eps, weight_decay
        self._check(lr=0.0, eps=0.0, weight_decay=0.0)
        if not self.eps:
            raise ValueError(f"{type(self).__name__}: expected eps above 0, or a weight without a gradient is divided by 0. "
                             "Received: eps=0.")
        if not isinstance(betas, tuple | list) or len(betas) != 2 or not all(_number(b) and 0 <= b < 1 for b in betas):
            raise ValueError(f"{type(self).__name__}: expected two betas from 0 to below 1. Received: betas={betas!r}.")
        self.betas = float(betas[0]), float(betas[1])

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        b1, b2 = self.betas
        return lr, b1, b2, self.eps, self.weight_decay, 1 - b1**step, 1 - b2**step

    def apply(self, backend: Backend, w: Array, g: Array, slots: list[Array], hyper: Array, decayed: int) -> None:
        m, v = slots
        backend.adam(w, g, m, v, hyper, decoupled=self.decoupled, decayed=decayed)


class AdamW(Adam):
    """Adam with decoupled weight decay: w -= lr weight_decay w, beside Adam's step (Loshchilov and Hutter 2019, algorithm 2)."""

    decoupled = True

    def __init__(self, lr: float = 1e-3, betas: tuple[float, float] = (0.9, 0.999), eps: float = 1e-8,
                 weight_decay: float = 0.01) -> None:
        super().__init__(lr, betas, eps, weight_decay)


class Updater:
    """An optimizer at work on flat buffers: its slots, the number of steps made, hyper-parameters on the device."""

    def __init__(self, optimizer: Optimizer, buffers: Buffers) -> None:
        self.optimizer, self.steps = optimizer, 0
        self._place(buffers, [buffers.backend.zeros(buffers.parameters.shape, buffers.dtype) for _ in range(optimizer.slots)])

    def _place(self, buffers: Buffers, slots: list[Array]) -> None:
        self.buffers, self.slots = buffers, slots
        self.hyper = buffers.backend.zeros((len(self.optimizer.hyper(1, self.optimizer.lr)),), np.float64)

    def step(self, lr: float | None = None) -> None:
        """One step with the gradients that are in the buffers; frozen layers stay as they are."""
        self.begin(lr)
        self.apply()

    def begin(self, lr: float | None = None) -> None:
        """Count the next step, and bring its learning rate and corrections to where `apply` reads them."""
        self.steps += 1
        self.buffers.backend.assign(self.hyper, self.optimizer.hyper(self.steps, self.optimizer.lr if lr is None else lr))

    def apply(self) -> None:
        """Change the parameters; every number that differs from step to step is read on the device."""
        buffers = self.buffers
        for start, stop in buffers.trained():
            part = slice(start, stop)
            decayed = min(max(buffers.decayed - start, 0), stop - start)
            self.optimizer.apply(buffers.backend, buffers.parameters[part], buffers.grads[part],
                                 [slot[part] for slot in self.slots], self.hyper, decayed)

    def to(self, buffers: Buffers) -> None:
        """Go on with the same parameters on another backend."""
        self._place(buffers, [buffers.backend.asarray(self.buffers.backend.to_numpy(slot).copy()) for slot in self.slots])
