"""The base class of optimizers, and the updater that applies one to flat buffers."""

from __future__ import annotations

import math

import numpy as np

from xpnet.backends import Backend
from xpnet.backends.rules import RULES
from xpnet.buffers import Array, Buffers, Part
from xpnet.checks import Checked, is_number, wrong


class Optimizer(Checked):
    """Base class of optimizers. It has settings only: an Updater holds the slots."""

    rule = ""  # a name in backends/rules.py; "" if a class overrides `apply`
    unused: tuple[str, ...] = ()    # slots of the rule that these settings do not need
    first = 0.0                     # the initial value of the slots
    eps: float                      # of the optimizers that divide

    @property
    def slots(self) -> int:
        """The number of slots: arrays like the parameters that the rule keeps between steps."""
        return len(RULES[self.rule].slots) - len(self.unused) if self.rule else 0

    @property
    def lr(self) -> float:
        """The learning rate. It may be set at any time, to a number, 0 or larger."""
        return self._lr

    @lr.setter
    def lr(self, value: float) -> None:
        self._lr = self.expect_number("lr", value, 0.0)

    def hyper(self, step: int, lr: float) -> tuple[float, ...]:
        """The hyper-parameters that the kernel reads, for this learning rate and step = 1, 2, ...
        of the part that it updates."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method hyper(step, lr).")

    def apply(self, backend: Backend, w: Array, g: Array, slots: list[Array], hyper: Array,
              decayed: int) -> None:
        """Change the flat parameters w (n,) in place, given the gradients g. Weight decay applies
        to the first `decayed`."""
        if not self.rule:
            raise NotImplementedError(f"{type(self).__name__}: expected a method apply(backend, w, "
                                      "g, slots, hyper, decayed), or the name of a rule.")
        given = iter(slots)
        every = [None if name in self.unused else next(given) for name in RULES[self.rule].slots]
        backend.update(self.rule, w, g, every, hyper, decayed=decayed)

    def gradients(self, buffers: Buffers) -> Array:
        """The flat gradients that `apply` receives. If they differ from the network's, they are in
        a new array."""
        return buffers.grads

    def constrain(self, buffers: Buffers) -> None:
        """Project the weights onto the constraints after a step; by default there are none."""

    def updater(self, buffers: Buffers) -> Updater:
        """An Updater that applies this optimizer to flat buffers."""
        return Updater(self, buffers)

    def check_for(self, dtype: np.dtype) -> None:
        """Raise ValueError if a setting cannot be used with parameters of `dtype`."""
        eps, least = getattr(self, "eps", None), float(np.finfo(dtype).tiny)
        if eps is not None and eps < least:
            raise ValueError(f"{self.who}: expected eps to be {least:.2g} or larger for parameters "
                             f"of {dtype}, because a gradient of 0 could give 0 / 0. "
                             f"Received: eps={eps:g}.")

    def _check(self, *, below: float = math.inf, **least: float) -> None:
        for name, bound in least.items():
            setattr(self, name, self.expect_number(name, getattr(self, name), bound, below))

    def _check_eps(self) -> None:
        self._check(eps=0.0)
        if not self.eps:
            raise ValueError(f"{type(self).__name__}: expected eps above 0, because a gradient of "
                             "0 would give 0 / 0. Received: eps=0.")

    def _check_flag(self, name: str) -> None:
        setattr(self, name, self.expect_flag(name, getattr(self, name)))

    def _check_betas(self, betas: tuple[float, float]) -> tuple[float, float]:
        if (not isinstance(betas, tuple | list) or len(betas) != 2
            or not all(is_number(b) and 0 <= b < 1 for b in betas)):
            raise wrong(self.who, "two betas from 0 to below 1", "betas", betas)
        return float(betas[0]), float(betas[1])


class Updater:
    """Applies an optimizer to flat buffers: holds its slots, and the hyper-parameters of each step
    on the device.

    Each layer has its own step count. It starts when the layer is trained for the first time, and
    does not change while the layer is frozen; neither do the layer's slots. Layers whose parameters
    are adjacent and that have the same count are updated together, as one part.
    """

    def __init__(self, optimizer: Optimizer, buffers: Buffers) -> None:
        self.optimizer = optimizer
        self.steps = dict.fromkeys(buffers.layers, 0)
        slots = [buffers.backend.zeros(buffers.parameters.shape, buffers.dtype)
                 for _ in range(optimizer.slots)]
        with buffers.backend.scope():
            for slot in slots if optimizer.first else ():
                slot.fill(optimizer.first)
        self._place(buffers, slots)

    def _place(self, buffers: Buffers, slots: list[Array]) -> None:
        self.buffers, self.slots = buffers, slots
        self._trainable: list[bool] = []
        self._lr_scales: list[float] = []
        self._parts: list[Part] = []
        self.largest = float(np.finfo(buffers.dtype).max)
        self.optimizer.check_for(buffers.dtype)
        # One row for each part. Its address must not change: captured steps read from it.
        self.width = len(self.optimizer.hyper(1, self.optimizer.lr))
        self.hyper = buffers.backend.zeros((self.width * len(buffers.placed),), np.float64)
        self._rows, self._sent = self.hyper, list[float]()      # those in use, and what they hold

    def parts(self) -> list[Part]:
        """The (start, stop, first layer) of the flat buffers that the next step changes."""
        trainable = [layer.trainable for layer in self.buffers.layers]
        lr_scales = [layer.lr_scale for layer in self.buffers.layers]
        # Equal step counts remain equal until one of them changes.
        if trainable != self._trainable or lr_scales != self._lr_scales:
            self._trainable, self._lr_scales = trainable, lr_scales
            self._parts = self.buffers.trained(self.steps)
        return self._parts

    def step(self, lr: float | None = None) -> None:
        """One step with the gradients in the buffers. Frozen layers do not change."""
        self.begin(lr)
        self.apply()

    def begin(self, lr: float | None = None) -> None:
        """Count the next step, and copy its hyper-parameters to the device, where `apply` reads
        them.

        Raises ValueError if one of them is not finite in the dtype of the parameters.
        """
        optimizer, dtype = self.optimizer, self.buffers.dtype
        lr = optimizer.expect_number("lr", optimizer.lr if lr is None else lr, 0.0)
        rows = [optimizer.hyper(self.steps[layer] + 1, lr * layer.lr_scale)
                for _, _, layer in self.parts()]
        values = [value for row in rows for value in row]
        unfit = [value for value in values if not abs(value) <= self.largest]
        if unfit:
            raise ValueError(f"{optimizer.who}: expected settings that are finite in {dtype}. "
                             f"Received: {', '.join(f'{value:g}' for value in unfit)}.")
        if values != self._sent:
            if len(values) != len(self._sent):
                self._rows = self.hyper[:len(values)]
            self.buffers.backend.assign(self._rows, values)
            self._sent = values
        self._count(1)

    def cancel(self) -> None:
        """Undo the count of a step that began and failed."""
        self._count(-1)

    def _count(self, steps: int) -> None:
        for layer, trainable in zip(self.buffers.layers, self._trainable, strict=True):
            self.steps[layer] += steps * trainable

    def apply(self) -> None:
        """Change the parameters. Every number that changes from step to step is read on the
        device."""
        buffers = self.buffers
        if not self._parts:
            return
        grads = self.optimizer.gradients(buffers)
        for row, (start, stop, _) in enumerate(self._parts):
            part = slice(start, stop)
            decayed = min(max(buffers.decayed - start, 0), stop - start)
            self.optimizer.apply(buffers.backend, buffers.parameters[part], grads[part],
                                 [slot[part] for slot in self.slots],
                                 self.hyper[row * self.width:(row + 1) * self.width], decayed)
        self.optimizer.constrain(buffers)

    def to(self, buffers: Buffers) -> None:
        """Continue with the same parameters on another backend."""
        self._place(buffers, [buffers.backend.asarray(self.buffers.backend.to_numpy(slot).copy())
                              for slot in self.slots])
