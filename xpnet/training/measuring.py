"""Callbacks that add figures to the history: norms of gradients, and where the time goes."""

from __future__ import annotations

import time
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import Checked
from xpnet.layer import Array
from xpnet.training.callbacks import Callback, Run


class GradientNorms(Checked, Callback):
    """Add the norm of the gradients to each epoch's row: grad_norm = root of the mean over
    updates of the sum of g^2, over all parameters.

    The squares are added up on the backend, and read at the end of an epoch. The norm of an
    update's gradients is what `Regularized(clip_norm=)` compares with.

    Args:
        every: the norms of updates number `every`, 2 `every`, ... of each epoch are measured, and
            that of its last update.
        layers: whether there is a column for each layer with parameters, too: conv1_grad_norm.
    """

    def __init__(self, every: int = 1, layers: bool = False) -> None:
        self.every = self.expect_integer("every", every)
        self.layers = self.expect_flag("layers", layers)
        self._squares: Array | None = None      # of everything, then of each layer
        self._backend: Backend | None = None
        self._steps = 0

    def state(self) -> dict[str, Any]:
        squares = None if self._squares is None or self._backend is None else (
            self._backend.to_numpy(self._squares).tolist())
        return {"squares": squares, "steps": self._steps}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        if state["squares"] is not None:
            self._backend, self._steps = run.net.backend, state["steps"]
            self._squares = self._backend.asarray(np.array(state["squares"], np.float64))

    def on_epoch_begin(self, run: Run) -> None:
        self._names = ["", *self._layers(run)]
        if run.batch == 0:                      # else the epoch was resumed
            self._backend, self._steps = run.net.backend, 0
            self._squares = self._backend.zeros((len(self._names),), np.float64)

    def on_batch_end(self, run: Run) -> None:
        number = -(-run.batch // run.accumulate)    # of the update in its epoch
        if not run.updated or number % self.every and run.batch < run.batches:
            return
        assert self._squares is not None
        self._steps += 1
        self._squares[:1] += _square(run.net.grads)
        for place, grads in enumerate(self._layers(run).values(), 1):
            for g in grads:
                self._squares[place:place + 1] += _square(g)

    def columns(self, run: Run) -> dict[str, float]:
        assert self._squares is not None
        with np.errstate(invalid="ignore", divide="ignore"):
            norms = np.sqrt(run.net.backend.to_numpy(self._squares) / np.float64(self._steps))
        return {f"{name}_grad_norm" if name else "grad_norm": float(norm)
                for name, norm in zip(self._names, norms)}

    def _layers(self, run: Run) -> dict[str, list[Array]]:
        if not self.layers:
            return {}
        return {name: [p.grad for p in layer.parameters]
                for name, layer in run.net.layer_names.items() if layer.parameters}


def _square(g: Array) -> Array:
    """Sum of squares, without overflow in float32."""
    with np.errstate(over="ignore", invalid="ignore"):
        return (g.astype(np.float64) ** 2).sum()


class Timing(Callback):
    """Add to each epoch's row where its time went, in seconds: train_seconds for the steps with
    their batches, validation_seconds, and callback_seconds for the calls of callbacks between
    batches.

    On a GPU the host is ahead of the steps until it reads the figures of the epoch, at its end;
    that wait is part of train_seconds.
    """

    def on_epoch_begin(self, run: Run) -> None:
        self._started = self._ended = time.perf_counter()
        self._between = 0.0

    def on_batch_begin(self, run: Run) -> None:
        self._between += time.perf_counter() - self._ended

    def on_batch_end(self, run: Run) -> None:
        self._ended = time.perf_counter()

    def on_validation_begin(self, run: Run) -> None:
        self._validation = time.perf_counter()

    def columns(self, run: Run) -> dict[str, float]:
        now = time.perf_counter()
        return {"train_seconds": self._validation - self._started - self._between,
                "callback_seconds": self._between,
                "validation_seconds": now - self._validation}
