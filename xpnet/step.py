"""One step of training, and the sums that it adds its figures to."""

from __future__ import annotations

import math
import warnings
from collections.abc import Callable
from contextlib import nullcontext
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import expect_flag, expect_instance
from xpnet.layer import TRAIN, Array
from xpnet.layers import Activation, Softmax
from xpnet.losses import Loss, get_loss
from xpnet.memory import explained
from xpnet.network import Network, softmax_below
from xpnet.optim import Optimizer, get_optimizer
from xpnet.optim.base import Updater

MOST_CAPTURED = 4       # shapes of batches: each holds the memory of a step of its own

Batch = tuple[Array, ...]       # x, the targets, and the samples' weights if they have any


@dataclass
class Captured:
    """A step for batches of one shape: where it reads them, and the function that makes it."""

    batch: Batch
    run: Callable[[], tuple[Array, Array]]


class TrainStep:
    """One step of training: forward, loss, backward, update. Owns the optimizer's state.

    With `capture`, and on a backend that can (a GPU), the step for a shape of batch that comes
    again and again is recorded and from then on made in a single launch, with the same bits. What
    such a step returns is its own until its next call. Python code in layers and losses runs, and
    their settings are looked at, only while a step is recorded: `release` makes it be recorded
    anew. Without `capture` every kernel is launched by itself. A network keeps its last one, so
    that a second `fit` with the same optimizer object goes on where the first ended.
    """

    def __init__(self, net: Network, loss: str | Loss, optimizer: str | Optimizer, *,
                 capture: bool = True) -> None:
        expect_instance("TrainStep", "net", net, Network, "a Network")
        loss, optimizer = get_loss(loss), get_optimizer(optimizer, "TrainStep")
        self.net, self.optimizer = net, optimizer
        self.capture = expect_flag("TrainStep", "capture", capture)
        self.output, self.loss = loss_input(net, loss)
        self.updater = Updater(optimizer, net.buffers)
        self.totals: Totals | None = None       # fit's; every step adds to them
        self._captured: dict[tuple[Any, ...], Captured] = {}
        self._last: tuple[Any, ...] = ()

    def __call__(self, x: Array, target: Array, lr: float | None = None,
                 sample_weight: Array | None = None
                 ) -> tuple[Array, Array]:
        """Train on a batch-last batch on the network's backend; the loss before the update, and the
        output.

        lr is this step's learning rate, the optimizer's by default. sample_weight (N,) multiplies
        each sample's part of the loss.
        """
        return self.train((x, target) if sample_weight is None else (x, target, sample_weight), lr)

    def train(self, batch: Batch, lr: float | None = None) -> tuple[Array, Array]:
        """Train on a batch, x, the targets and the samples' weights if they have any, as a call of
        the step does."""
        net = self.net
        if self.updater.buffers is not net.buffers:
            self.to()
        fitting = self.totals is not None       # then it is fit that explains
        explaining = (nullcontext() if fitting
                      else explained(net, "TrainStep", batch[0].shape[-1], self.optimizer))
        with explaining, net.backend.stream():
            self.updater.begin(lr)
            try:
                if self.capture and net.backend.captures:
                    return self._captured_step(batch)
                return self._step(batch)
            except BaseException:
                self.updater.cancel()
                raise

    def _step(self, batch: Batch) -> tuple[Array, Array]:
        net, (x, target, *weight) = self.net, batch
        y = net.forward(x, TRAIN, self.output)
        loss, dy = self.loss.checked(net.backend, y, target, *weight)
        net.backward(dy, self.output)
        self.updater.apply()
        steps = net.counters[:1]
        steps += steps.dtype.type(1)
        if self.totals is not None:
            self.totals.add(loss, y, target)
        return loss, y

    # --- captured ---------------------------------------------------------------------------------

    def inputs(self, *shapes: tuple[int, ...]) -> tuple[Array | None, ...]:
        """The arrays from which a captured step for a batch of these shapes reads, to be filled in
        place, or Nones."""
        captured = self._captured.get(self._key(shapes))
        return (None,) * len(shapes) if captured is None else captured.batch

    def _key(self, shapes: tuple[tuple[int, ...], ...]) -> tuple[Any, ...]:
        """What a recorded step is good for: shapes, and the layers that learn, and which of them as
        one part."""
        return (shapes, tuple([layer.trainable for layer in self.net.layers]),
                tuple(self.updater.parts()))

    def _captured_step(self, batch: Batch) -> tuple[Array, Array]:
        key = self._key(tuple(a.shape for a in batch))
        captured, again, self._last = self._captured.get(key), key == self._last, key
        if captured is None or [a.dtype for a in captured.batch] != [a.dtype for a in batch]:
            if not again:  # once is not worth it: the short last batch of each epoch
                return self._step(batch)
            captured = self._prepare(key, batch)
        for mine, a in zip(captured.batch, batch, strict=True):
            if a is not mine:
                mine[...] = a
        result = captured.run()
        failure = captured.run.failure          # type: ignore[attr-defined]
        if failure:
            self.capture = False
            self.release()
            warnings.warn("TrainStep: the step could not be captured and runs launch by launch "
                          f"from now on ({failure})",
                          stacklevel=4)
        return result

    def _prepare(self, key: tuple[Any, ...], batch: Batch) -> Captured:
        backend = self.net.backend
        if len(self._captured) == MOST_CAPTURED:
            del self._captured[next(iter(self._captured))]
        mine = tuple(backend.empty(a.shape, a.dtype) for a in batch)
        captured = self._captured[key] = Captured(mine, backend.capture(lambda: self._step(mine)))
        return captured

    def release(self) -> None:
        """Forget the recorded steps, and give back the memory that they run in."""
        self._captured.clear()
        self._last = ()

    def to(self) -> None:
        """Go on where the network has moved to."""
        self.release()
        self.totals = None
        self.updater.to(self.net.buffers)


def loss_input(net: Network, loss: Loss) -> tuple[Any, Loss]:
    """The node that the loss reads, and the loss of it.

    That is the output, or where the loss has its own softmax or sigmoid, what the last layer
    applies it to.
    """
    if loss.reduction == "none":
        raise ValueError(f"{loss.who}: expected reduction 'mean', 'batch' or 'sum', for training "
                         "and evaluation. "
                         "Received: reduction='none'.")
    last, own = net.output.layer, loss.takes_logits
    sigmoid = getattr(last, "activation", None) in ("sigmoid", "logistic")
    if loss.of_logits is not None and sigmoid and isinstance(last, Activation):
        return net.output.parents[0], loss.of_logits
    below = {"": False, "softmax": softmax_below(net.output), "sigmoid": sigmoid}
    if last is None or not below[own]:
        return net.output, loss
    if isinstance(last, Activation) or isinstance(last, Softmax) and last.of_logits:
        return net.output.parents[0], loss
    raise ValueError(f"{type(loss).__name__}: expected logits, or a {own.capitalize()} as the very "
                     "last layer. "
                     f"Received: a {own} "
                     f"{'in' if isinstance(last, Softmax) or own == 'sigmoid' else 'below'} "
                     f"{last.who}; "
                     f"{own} would be applied twice.")


class Totals:
    """Sums of loss and hits over batches, weighted by their sizes, kept on the backend: no
    synchronisation per batch.

    Of maps each place counts. Targets that the loss ignores are neither hits nor misses. Where the
    loss is NaN, the accuracy is NaN, too.
    """

    def __init__(self, net: Network, loss: Loss) -> None:
        self.backend, self.classes, self.ignore = net.backend, loss.counts_hits, loss.ignore_index
        self.sums = net.backend.zeros((3,), np.float64)         # loss, hits, samples
        self.ignored = net.backend.zeros((1,), np.float64)      # samples

    def reset(self) -> None:
        self.sums.fill(0)
        self.ignored.fill(0)

    def add(self, loss: Array, y: Array, target: Array) -> None:
        if not self.classes:
            self.backend.tally(self.sums, loss, y, None)
            return
        labels = target.ndim < y.ndim
        target = target.reshape(-1) if labels else target.reshape(len(y), -1)  # (P,) or (K, P)
        if labels and self.ignore is not None:
            self.ignored += (target == self.ignore).sum()
            target = self.backend.xp.where(target == self.ignore, -1, target)
        self.backend.tally(self.sums, loss, y.reshape(len(y), -1), target)

    def result(self) -> dict[str, float]:
        loss, hits, count = self.backend.to_numpy(self.sums)
        if not self.classes:
            return {"loss": float(loss / count)}
        known = count - self.backend.to_numpy(self.ignored)[0]
        some = known and not math.isnan(loss)       # of scores that are NaN none is the largest
        return {"loss": float(loss / count), "accuracy": float(hits / known) if some else math.nan}
