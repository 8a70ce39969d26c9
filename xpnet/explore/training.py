"""Training a step at a time, between the requests of the page."""

from __future__ import annotations

import math
from collections import deque
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import expect_integer, expect_positive
from xpnet.explore.parts import finite
from xpnet.graph import Graph
from xpnet.initializers import generator
from xpnet.inspect.memory import explained
from xpnet.optim import Adam
from xpnet.training.batches import Batches, check_batch_sizes, check_samples
from xpnet.training.finite import is_finite
from xpnet.training.goals import goals, known_goals
from xpnet.training.known import learned
from xpnet.training.step import TrainStep
from xpnet.training.totals import Totals

if TYPE_CHECKING:
    from xpnet.data import Dataset

WHO = "explore"
LR, BATCH = 1e-3, 32
MOST_LOSSES = 500       # that the page draws
RECENT = 20             # batches whose accuracy is shown


class Trainer:
    """Trains a network by Adam on a data set: what `net.fit(data)` does, with a constant learning
    rate that may be changed, and without validation.

    The loss is cross entropy if the data set has labels, else that of the network's last fit.

    Attributes:
        reason: why the network cannot be trained; None if it can.
        changes: how often the parameters were changed.
        error: why the training has stopped by itself.
    """

    def __init__(self, net: Graph, data: Dataset | None) -> None:
        self.net, self.data = net, data
        self.lr, self.batch_size = LR, BATCH
        self.changes = 0
        self.running = False
        self._beginning: list[np.ndarray] | None = None     # what `reset` brings back
        self._begin()
        self.reason = self._reason()

    def _begin(self) -> None:
        self.steps = self.epoch = 0
        self.losses: list[tuple[int, float]] = []
        self._accuracies: deque[float] = deque(maxlen=RECENT)
        self.error: str | None = None
        self._step: TrainStep | None = None
        self._batches: Batches | None = None
        self._next = 0                  # the batch of the epoch that comes next

    def _reason(self) -> str | None:
        if self.data is None:
            return "there is no data set; --data names one"
        try:
            self._prepare()
        except (ValueError, TypeError) as error:
            return str(error)
        self._step = self._batches = None       # no memory before the training starts
        return None

    def _prepare(self) -> None:
        net, data = self.net, self.data
        assert data is not None
        loss = "cross_entropy" if data.labels is not None else None
        aims = goals(net, loss, None, WHO) if loss else known_goals(net, None, None, WHO)
        arrays = check_samples(net, data, None, aims, WHO)
        check_batch_sizes(net, len(data), self.batch_size)
        self._known = learned(net, data, aims)
        step = TrainStep(net, net.outs.pack([goal.loss for goal in aims]), Adam(self.lr),
                         loss_weights=net.outs.pack([goal.weight for goal in aims]))
        step.totals = Totals(net.backend, step.goals)
        self._step, self._batches = step, Batches(net, arrays, self.batch_size)

    # --- what the page asks for -------------------------------------------------------------------

    def settings(self, lr: Any = None, batch: Any = None) -> None:
        """Change the learning rate or the samples of a batch, which begins a new epoch."""
        if lr is not None:
            lr = expect_positive(WHO, "lr", lr)
        if batch is not None:
            batch = expect_integer(WHO, "batch", batch, 1, 1 << 16)
            if self.data is not None and self.reason is None:
                check_batch_sizes(self.net, len(self.data), batch)
            if batch != self.batch_size:
                self.batch_size, self._next = batch, 0
                if self._batches is not None:
                    self._prepare_again()
        self.lr = lr or self.lr

    def _prepare_again(self) -> None:
        """New batches for the same step, with the state of the optimizer."""
        step = self._step
        self._prepare()
        self._step = step

    def act(self, action: str) -> None:
        """Start, pause, make one step, or go back to the beginning."""
        if self.reason is not None:
            raise ValueError(f"{WHO}: expected a network that can be trained here. Received: "
                             f"{self.reason.rstrip('.')}.")
        self.running = action == "start"
        if action == "start":
            self.error = None
        elif action == "step":
            self.error = None
            self._train()
        elif action == "reset":
            self.reset()

    def reset(self) -> None:
        """The parameters, the state and the random numbers of the beginning."""
        if self._beginning is None:
            return
        net = self.net
        with net.backend.scope():
            for name, values in zip(("parameters", "state", "counters"), self._beginning,
                                    strict=True):
                getattr(net, name)[...] = net.backend.asarray(values)
        net.epochs = self._first_epoch
        self._begin()
        self.changes += 1

    def step(self) -> bool:
        """Make a step if the training runs; whether it goes on."""
        if self.running:
            self._train()
        return self.running

    def _train(self) -> None:
        try:
            self._one_step()
        except Exception as error:      # shown in the page; the thread goes on
            self.running = False
            self.error = " ".join(str(error).split()) or type(error).__name__

    def _one_step(self) -> None:
        net = self.net
        if self._beginning is None:
            self._beginning = [np.array(net.backend.to_numpy(getattr(net, name)))
                               for name in ("parameters", "state", "counters")]
            self._first_epoch = net.epochs
        if self._step is None:
            self._prepare()
            net.trained = self._known
        step, batches = self._step, self._batches
        assert step is not None and batches is not None and step.totals is not None
        if self._next == 0:
            order = generator(net.seed, f"epoch {net.epochs}").permutation(batches.samples)
            batches.arrange(order)
        with explained(net, WHO, self.batch_size, step.optimizer), net.backend.stream():
            step.train(batches[self._next], self.lr)
            figures = step.totals.result()
            step.totals.reset()
        self.steps += 1
        self.changes += 1
        self._next += 1
        if self._next == len(batches):
            self._next, self.epoch = 0, self.epoch + 1
            net.epochs += 1
        self.losses.append((self.steps, figures["loss"]))
        if "accuracy" in figures:
            self._accuracies.append(figures["accuracy"])
        if not (math.isfinite(figures["loss"]) and is_finite(net)):
            self.running = False
            self.error = (f"the training diverged in step {self.steps}: the loss or a parameter is "
                          "NaN or infinite. Reset, and try a smaller learning rate.")

    def as_json(self) -> dict[str, Any]:
        """What the page shows of the training."""
        some = np.unique(np.linspace(0, len(self.losses) - 1, MOST_LOSSES).round().astype(int)
                         if len(self.losses) > MOST_LOSSES else np.arange(len(self.losses)))
        losses = [[step, finite(loss)] for step, loss in (self.losses[k] for k in some)]
        accuracy = finite(np.mean(self._accuracies)) if self._accuracies else None
        return {"running": self.running, "step": self.steps, "epoch": self.epoch, "lr": self.lr,
                "batch": self.batch_size, "losses": losses,
                "accuracy": accuracy, "error": self.error}
