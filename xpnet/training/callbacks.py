"""Callbacks: what is done at the start and at the end of training, of epochs and of batches."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from xpnet.checks import described, shown
from xpnet.history import History
from xpnet.schedules import Schedule

if TYPE_CHECKING:
    from xpnet.graph import Graph
    from xpnet.parallel.ranks import DataParallel
    from xpnet.training.batches import Batch, Batches
    from xpnet.training.step import TrainStep


class Run:
    """A training under way, as callbacks see it.

    `net` is the network, `history` the History with a row for each epoch that has ended, `epoch`
    and `batch` the numbers of the current ones, from 1, `epochs` how many epochs there are, the
    last one perhaps in part, and `batches` how many batches the current one has. `steps` is the
    number of batches so far, in all epochs, and `total` that of the whole training. `lr` is the
    learning rate of the current batch, `verbose` whether fit prints what it does. At the end of an
    epoch, `partial` says whether Ctrl-C ended its batches, so that its figures do not compare.

    The parameters are updated after each group of `accumulate` batches, and after the last batch of
    an epoch. `updated` says whether the current batch is the last one of its group, and `updates`
    counts the groups so far, with the current one.

    `parallel` is the DataParallel of a training with several ranks, else None. Each rank calls the
    callbacks; after a batch and after an epoch all ranks have the same parameters and the same row.
    """

    def __init__(self, net: Graph, step: TrainStep, per_epoch: int, total: int, accumulate: int = 1,
                 verbose: bool = False, parallel: DataParallel | None = None) -> None:
        self.net, self.step = net, step
        self.per_epoch, self.total = per_epoch, total       # batches
        self.epochs = -(-total // per_epoch)
        self.accumulate, self.verbose, self.parallel = accumulate, verbose, parallel
        self.asked: set[str] = set()    # what all ranks do after the next batch
        self.in_batches = False         # not at the end of an epoch
        self.history = History()
        self.epoch = self.batch = 0
        self.lr = 0.0
        self.partial = False
        self.warned = False             # that the loss is not finite
        self.started = 0.0              # when the epoch began, by time.perf_counter()
        # For checkpoints: what makes it the same training, and what may have a state of its own.
        self.settings: dict[str, Any] = {}
        self.callbacks: Sequence[Callback] = ()
        self.source: Batches | None = None      # during the training

    @property
    def batches(self) -> int:
        """How many batches the current epoch has."""
        return min(self.per_epoch, self.total - max(self.epoch - 1, 0) * self.per_epoch)

    @property
    def steps(self) -> int:
        """How many batches this training has seen, in all epochs."""
        return max(self.epoch - 1, 0) * self.per_epoch + self.batch

    @property
    def updates(self) -> int:
        """The number of groups so far, with the current one."""
        return self._updates(max(self.epoch - 1, 0), self.batch)

    @property
    def total_updates(self) -> int:
        """The number of updates of the whole training."""
        return self._updates(self.epochs - 1, self.total - (self.epochs - 1) * self.per_epoch)

    def _updates(self, epochs: int, batches: int) -> int:
        return epochs * -(-self.per_epoch // self.accumulate) + -(-batches // self.accumulate)

    @property
    def updated(self) -> bool:
        """Whether the current batch is the last one of its group."""
        return self.batch % self.accumulate == 0 or self.batch == self.batches

    def figures(self) -> dict[str, float]:
        """Loss and accuracy of the current epoch so far. It waits for the GPU."""
        return {} if self.step.totals is None else self.step.totals.result()

    def repeat(self, back: int = 0) -> Batch:
        """The arrays of the current batch, or of one before it, once more: inputs, targets, and
        weights if any."""
        assert self.source is not None
        return self.source.get(self.batch - 1 - back)

    def parts(self, back: int) -> Iterator[tuple[int, Batch]]:
        """The parts of a batch that this rank computes, see Batches.parts."""
        assert self.source is not None
        return self.source.parts(self.batch - 1 - back)

    def stop(self) -> None:
        """End the training: after the current batch, or after the epoch if that has ended. With
        several ranks, a call by one of them ends it after the next batch; at the end of an epoch
        all have to call this."""
        if self.parallel is not None and self.in_batches:
            self.asked.add("stopped")
        else:
            self.history.stopped = True

    def interrupt(self) -> None:
        """End the training after the current batch because of Ctrl-C; with several ranks, after
        the next one."""
        if self.parallel is not None:
            self.asked.add("interrupted")
        else:
            self.history.interrupted = True

    @property
    def leads(self) -> bool:
        """Whether this is the only rank, or rank 0."""
        return self.parallel is None or self.parallel.leads


class Callback:
    """Base class of callbacks: a subclass writes those of the methods that it needs.

    `run` is the training under way, see Run. A callback may read everything, change the learning
    rate of the optimizer, and end the training with `run.stop()`. With several ranks, all of them
    must do the same, except that a callback with `leader_only` is called by rank 0 alone.
    """

    leader_only = False         # True: it writes files or shows something

    def __repr__(self) -> str:
        return described(self)

    def state(self) -> dict[str, Any]:
        """What a checkpoint has to keep of this callback: numbers, strings, lists and dicts of
        them, and NumPy arrays."""
        return {}

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        """Continue from what `state` returned; called after `on_train_begin`, when `run` is where
        it was."""

    def on_train_begin(self, run: Run) -> None:
        """Before the first epoch."""

    def on_train_end(self, run: Run) -> None:
        """After the last epoch, and also after an error."""

    def on_epoch_begin(self, run: Run) -> None:
        """Before the first batch of an epoch; also when an epoch is resumed, with `run.batch` the
        number of batches that were done."""

    def on_validation_begin(self, run: Run) -> None:
        """After the last batch of an epoch, before its validation; also if there is none."""

    def columns(self, run: Run) -> dict[str, float]:
        """Figures for the row of the epoch, after its validation and before `on_epoch_end`."""
        return {}

    def on_epoch_end(self, run: Run) -> None:
        """After an epoch and its validation; its row is `run.history.rows[-1]`."""

    def on_batch_begin(self, run: Run) -> None:
        """Before a batch."""

    def on_batch_end(self, run: Run) -> None:
        """After a batch. On a GPU it may not have been computed yet."""


class Callbacks(Callback):
    """Several callbacks as one, called in their order."""

    def __init__(self, callbacks: Sequence[Callback]) -> None:
        self.callbacks = callbacks

    def on_train_begin(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_train_begin(run)

    def on_train_end(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_train_end(run)

    def on_epoch_begin(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_epoch_begin(run)

    def on_validation_begin(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_validation_begin(run)

    def columns(self, run: Run) -> dict[str, float]:
        return {name: value for callback in self.callbacks
                for name, value in callback.columns(run).items()}

    def on_epoch_end(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_epoch_end(run)

    def on_batch_begin(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_batch_begin(run)

    def on_batch_end(self, run: Run) -> None:
        for callback in self.callbacks:
            callback.on_batch_end(run)


def expect_callbacks(who: str, value: Any) -> list[Callback]:
    """A list of callbacks; TypeError for anything else."""
    several = isinstance(value, Iterable) and not isinstance(value, str | np.ndarray)
    callbacks = list(value) if several else [value]
    for callback in callbacks:
        if not isinstance(callback, Callback):
            raise TypeError(f"{who}: expected callbacks to be a list of Callbacks. Received: "
                            f"{shown(callback)}.")
    return callbacks


class Until(Callback):
    """Ends the training after an epoch for whose row of the history condition(row) is true."""

    def __init__(self, condition: Callable[[dict[str, float]], bool]) -> None:
        self.condition = condition

    def on_epoch_end(self, run: Run) -> None:
        if not run.partial and self.condition(run.history.rows[-1]):
            run.stop()


class ScheduleFeedback(Callback):
    """Tells a schedule the figures of each epoch, e.g. Plateau, which lowers the learning rate."""

    def __init__(self, schedule: Schedule) -> None:
        self.schedule = schedule

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        for row in run.history.rows:            # its state follows from them
            self.schedule.observe(row)

    def on_epoch_end(self, run: Run) -> None:
        if not run.partial:
            self.schedule.observe(run.history.rows[-1])
