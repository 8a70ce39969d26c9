"""Training over batch-first arrays: the epochs of a fit."""

from __future__ import annotations

import math
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np

from xpnet.checks import expect_flag, expect_function, expect_integer, is_number, shown, warn_caller
from xpnet.graph import Graph
from xpnet.history import History
from xpnet.initializers import generator
from xpnet.inspect.memory import explained
from xpnet.io.files import name_of
from xpnet.layer import PREDICT
from xpnet.optim import Optimizer, get_optimizer
from xpnet.parallel.ranks import in_ranks
from xpnet.schedules import Schedule, get_schedule
from xpnet.training.batches import Batches, check_batch_sizes, count_batches, steps_of
from xpnet.training.callbacks import (
    Callback,
    Callbacks,
    Run,
    ScheduleFeedback,
    Until,
    expect_callbacks,
)
from xpnet.training.checkpoint import Checkpoint, settings
from xpnet.training.checkpoint import resume as resume_training
from xpnet.training.datasets import is_dataset
from xpnet.training.finite import StopOnNaN
from xpnet.training.goals import goals
from xpnet.training.groups import Groups
from xpnet.training.known import expect_known, kept, learned
from xpnet.training.prediction import Evaluation
from xpnet.training.preparation import Data, prepared
from xpnet.training.progress import ProgressBar
from xpnet.training.same import network_facts
from xpnet.training.shards import ShardedBatches, ShardedStep, expect_together
from xpnet.training.step import TrainStep
from xpnet.training.totals import Totals

EVALUATED = 256         # samples of a batch of the validation


@in_ranks
def fit(net: Graph, x: Any, y: Any = None, *, lengths: Any = None, loss: Any = None,
        optimizer: str | Optimizer = "adam", epochs: int | None = None, steps: int | None = None,
        batch_size: int = 32, drop_last: bool = False, accumulate: int = 1, validation: Any = None,
        augment: Any = (), sample_weight: Any = None, class_weight: Any = None,
        loss_weights: Any = None, schedule: str | Schedule = "constant", shuffle: bool = True,
        callbacks: Sequence[Callback] = (),
        until: Callable[[dict[str, float]], bool] | None = None,
        checkpoint: str | os.PathLike[str] | Checkpoint | None = None,
        resume: str | os.PathLike[str] | None = None, verbose: bool = True, capture: bool = True,
        parallel: Any = None) -> History:
    """Train a network and return the History.

    Each epoch sees the samples in another order, which follows from the network's seed. All
    arguments are checked before any work.

    Ctrl-C ends the training after the current batch; the network keeps what it has learned. If a
    parameter becomes NaN or infinite, the training ends with a RuntimeWarning that names the layer,
    and the network has the last good parameters, see StopOnNaN. If only the loss is not finite,
    there is a RuntimeWarning, once, and the training continues.

    Args:
        net: the network.
        x: samples (N, ...), batch-first, as NumPy arrays or those of a library with DLPack; for
            several inputs a list or dict of arrays; or a Dataset, whose samples are divided by its
            scale.
        y: targets; for several outputs a list or dict, as the outputs are; None for a Dataset.
        lengths: numbers of steps (N,), 1 to T, of padded samples (N, D, T) of an Input with
            lengths; for several of these a list or dict. Without it x is a list of arrays (D, T_i),
            and targets of steps may be a list, too. Values beyond the end of a sample have no
            effect on loss, gradients and accuracy.
        loss: a Loss or its name in xpnet.losses.LOSSES, e.g. "cross_entropy", which is the
            default for a Dataset with labels; for several outputs also a list or dict.
        optimizer: an Optimizer, or its name in xpnet.optim.OPTIMIZERS, e.g. "adamw", which makes a
            new one with its default settings. With the same object a second fit continues the
            first.
        epochs: passes over the samples, 1 by default.
        steps: batches to train on, instead of `epochs`. The last epoch then has the batches that
            are left, and ends as every epoch does: with validation, a row of the history, and
            callbacks.
        batch_size: samples of a batch.
        drop_last: leave out the last batch of each epoch if it would be smaller.
        accumulate: batches whose gradients are added before one update of the parameters: the loss
            is that of one batch with all their samples, in the memory of one of them. At the end of
            an epoch there may be fewer. Batch norm normalises each batch by itself.
        validation: a pair (x, y), or (x, y, lengths), or a Dataset, that is evaluated after each
            epoch; or the share of the samples that is split off for it, e.g. 0.2, with the same
            share of each class, see Dataset.split. By default the validation part of a Dataset.
        augment: augmentations of the images of a Dataset, in their order, e.g. [xn.RandomFlip()].
            How an image is changed follows from the network's seed, the epoch and the image.
        sample_weight: (N,), factors of each sample's part of the loss. What the loss is divided by
            stays the same; accuracy and validation count every sample once.
        class_weight: factors of the classes, for labels: a dict of class numbers and weights (other
            classes have 1), for a Dataset also of class names; K weights; or "balanced": N / (K
            n[k]) for a class with n[k] of the N samples that are trained on, K the number of
            classes that occur. They multiply `sample_weight`.
        loss_weights: factors of the losses of the outputs, as the outputs are; 1 by default.
        schedule: a Schedule, or its name in xpnet.schedules.SCHEDULES: the factor of the
            optimizer's learning rate at t, from 0 at the first update to 1 at the last. If its
            state changes in training, the fit uses a copy.
        shuffle: whether the order of the samples changes.
        callbacks: Callbacks, called in this order at the start and at the end of the training, of
            each epoch and of each batch.
        until: a function of an epoch's row of the history; True ends the training.
        checkpoint: a folder, or a Checkpoint: where the training is saved after each epoch.
        resume: a folder of checkpoints. The training continues from the newest one, in the middle
            of an epoch too, to the same bits as without a break, and goes on to save there: after
            each epoch, or as a Checkpoint in `checkpoint` says. All other arguments have to be as
            they were. Without a checkpoint in the folder the training begins.
        verbose: whether a line for each epoch is shown, and on a terminal or in a notebook a
            progress bar.
        capture: whether a GPU's step is captured and launched as one, see TrainStep; the bits are
            the same.
        parallel: True, if mpiexec started several processes that call this function with the same
            arguments: they share the work of each batch. Or a Communicator, or a DataParallel,
            which has the settings. Steps are captured with an NCCLCommunicator only, and not with
            sync=True. If one process fails, all end.
    """
    net.expect_whole("fit")
    shuffle, verbose = (expect_flag("fit", "shuffle", shuffle),
                        expect_flag("fit", "verbose", verbose))
    capture, drop_last = (expect_flag("fit", "capture", capture),
                          expect_flag("fit", "drop_last", drop_last))
    if loss is None and is_dataset(x) and x.labels is not None:
        loss = "cross_entropy"
    aims = goals(net, loss, loss_weights, "fit")
    optimizer = get_optimizer(optimizer, "fit")
    schedule = get_schedule(schedule).start()
    data, held_out = prepared(net, x, y, aims, lengths=lengths, validation=validation,
                              augment=augment, sample_weight=sample_weight,
                              class_weight=class_weight)
    known = learned(net, x, aims)
    if is_dataset(validation):
        expect_known(known, validation, "fit: validation")
    batch_size = expect_integer("fit", "batch_size", batch_size)
    if parallel is not None:
        parallel.expect_fit(net, "fit")
    check_batch_sizes(net, data.samples, batch_size, drop_last,
                      1 if parallel is None or parallel.sync else parallel.shards)
    per_epoch = count_batches(data.samples, batch_size, drop_last)
    total = _total(epochs, steps, per_epoch)
    accumulate = expect_integer("fit", "accumulate", accumulate)
    verbose = verbose and (parallel is None or parallel.leads)
    called: list[Callback] = [ProgressBar()] if verbose else []
    called.append(ScheduleFeedback(schedule))
    if until is not None:
        called.append(Until(expect_function("fit", "until", until, "an epoch's row")))
    called += expect_callbacks("fit", callbacks)
    if not any(isinstance(callback, StopOnNaN) for callback in called):
        called.append(StopOnNaN())
    called.sort(key=lambda callback: not isinstance(callback, StopOnNaN))   # it is called first
    saver = _saver(checkpoint, resume)
    called += [] if saver is None else [saver]      # after the others, whose state it saves

    step = net.step
    if step is None or step.optimizer is not optimizer:
        step = TrainStep(net, loss, optimizer, loss_weights=loss_weights)
    step.goals, step.capture = aims, capture
    net.step = step
    if verbose:
        note = f" ({net.backend.note})" if net.backend.note else ""
        print(f"training {sum(p.size for layer in net.layers for p in layer.parameters):,} "
              f"parameters on {data.samples:,} samples, backend {net.backend.name}{note}"
              + ("" if parallel is None else f", {parallel.size} ranks"), flush=True)
    run = Run(net, step, per_epoch, total, accumulate, verbose, parallel)
    run.callbacks = [callback for callback in called if not isinstance(callback, ProgressBar)]
    if saver is not None or parallel is not None:
        run.settings = settings(
            data=data.arrays, callbacks=run.callbacks,
            held_out=(None if held_out is None else held_out.arrays if held_out.where is None
                      else float(validation)),
            backend=net.backend.name.partition(":")[0], batch_size=batch_size,
            drop_last=drop_last, accumulate=accumulate, epochs=run.epochs, steps=steps,
            loss=[goal.loss for goal in aims], loss_weights=[goal.weight for goal in aims],
            optimizer=optimizer, schedule=schedule, shuffle=shuffle,
            shards=parallel and parallel.shards,
            deterministic=parallel and parallel.deterministic, sync=parallel and parallel.sync)
    if parallel is not None:
        parallel.agree("fit", run.settings | network_facts(net, step.updater.slots)
                       | {"pieces": parallel.pieces})
    mine = [callback for callback in called if run.leads or not callback.leader_only]
    loop = _Loop(run, schedule, Callbacks(mine), data, held_out, batch_size, shuffle, saver,
                 None if resume is None else Path(resume).expanduser())
    with (explained(net, "fit", batch_size, optimizer), net.backend.stream(),
          _interruptible(run), _recording(step), kept(run, known)):
        loop.train()
    if run.history.interrupted and verbose:
        print("interrupted: stopped after the current batch; the network keeps what it learned")
    return run.history


def _total(epochs: Any, steps: Any, per_epoch: int) -> int:
    """How many batches the training has."""
    if epochs is not None and steps is not None:
        raise ValueError("fit: expected epochs or steps, not both. Received: "
                         f"epochs={shown(epochs)} and steps={shown(steps)}.")
    if steps is not None:
        return expect_integer("fit", "steps", steps)
    return expect_integer("fit", "epochs", 1 if epochs is None else epochs) * per_epoch


class _Loop:
    """The epochs of a fit. Its methods hold the batches, so that the traceback of an error in them
    does not hold samples on a GPU."""

    def __init__(self, run: Run, schedule: Schedule, callbacks: Callback, data: Data,
                 held_out: Data | None, batch_size: int, shuffle: bool,
                 saver: Checkpoint | None, resume: Path | None) -> None:
        self.run, self.schedule, self.callbacks = run, schedule, callbacks
        self.data, self.held_out, self.batch_size, self.shuffle = (data, held_out, batch_size,
                                                                   shuffle)
        self.saver, self.resume = saver, resume
        inputs, goals = len(run.net.in_nodes), run.step.goals
        self.groups = (None if run.accumulate == 1 and run.parallel is None else
                       Groups(goals, data.arrays[inputs:inputs + len(goals)], run.accumulate,
                              steps_of(run.net, data.arrays, [goal.node for goal in goals])))
        self.sharded: ShardedStep | None = None

    def train(self) -> None:
        run, net = self.run, self.run.net
        if self.saver is not None and run.leads:
            self.saver.begin(resumed=self.resume == self.saver.folder)
        try:
            self.callbacks.on_train_begin(run)
            backend = net.backend
            batches, held_out = self._sources()
            if self.resume is not None:
                resumed = resume_training(run, self.resume)
                if resumed is not None:
                    resumed.restore_callbacks(run)
                    if run.verbose:
                        print(f"resumed from {resumed.path}: {run.steps:,} of {run.total:,} "
                              "batches are done", flush=True)
            while self._goes_on():
                if net.backend is not backend:      # a callback moved the network
                    backend = net.backend
                    batches, held_out = self._sources()
                self._epoch(batches, held_out)
        finally:
            run.source = None
            self.callbacks.on_train_end(run)

    def _sources(self) -> tuple[Batches, Evaluation | None]:
        """The batches on the network's backend, and the validation; and the sums of an epoch."""
        net, step = self.run.net, self.run.step
        step.totals = Totals(net.backend, step.goals)
        arguments = net, self.data.arrays, self.batch_size, self.data.where
        parallel = self.run.parallel
        source: Batches
        if parallel is None:
            source = self.run.source = Batches(*arguments)
        else:
            assert self.groups is not None
            source = self.run.source = ShardedBatches(*arguments, parallel)
            self.sharded = ShardedStep(self.run, self.groups)
        held_out = None
        if self.held_out is not None:
            arrays, where = self.held_out
            if where is not None:       # of the same arrays, of which a GPU needs one copy
                arrays = [feed.samples for feed in source.feeds[:len(arrays)]]
            held_out = Evaluation(net, Batches(net, arrays, EVALUATED, where), step.goals,
                                  "fit: validation", self.run.epochs,
                                  None if parallel is None else parallel.communicator)
        return source, held_out

    @property
    def _begun(self) -> bool:
        """Whether the current epoch has begun and not ended: it was resumed."""
        return self.run.epoch > len(self.run.history.rows)

    def _goes_on(self) -> bool:
        run = self.run
        return (run.epoch < run.epochs or self._begun) and not run.history.ended

    def _epoch(self, batches: Batches, held_out: Evaluation | None) -> None:
        run, net, history = self.run, self.run.net, self.run.history
        assert run.step.totals is not None
        if not self._begun:
            run.started = time.perf_counter()
            run.epoch += 1
            run.batch = 0
            run.step.totals.reset()
        order = (generator(net.seed, f"epoch {net.epochs}").permutation(batches.samples)
                 if self.shuffle else np.arange(batches.samples))
        batches.arrange(order)
        self.callbacks.on_epoch_begin(run)
        figures = self._batches(batches)
        run.partial = history.interrupted   # Ctrl-C from now on ends the training after this epoch
        net.epochs += run.batch == run.batches and not run.partial
        self.callbacks.on_validation_begin(run)
        if held_out is not None:
            if not run.step.capture:
                held_out.times = 0
            with explained(net, "fit: validation", EVALUATED, mode=PREDICT):
                found = (dict.fromkeys(figures, np.nan) if run.partial or history.diverged
                         else held_out.run())
            figures |= {f"val_{name}": value for name, value in found.items()}
        row = {"epoch": run.epoch, **figures, "lr": run.lr,
               "seconds": time.perf_counter() - run.started, **self.callbacks.columns(run)}
        if run.parallel is not None:            # the times are those of rank 0
            row = run.parallel.communicator.broadcast_object(row)
        history.rows.append(row)
        if history.diverged or not (math.isfinite(figures["loss"]) or run.warned):
            run.warned = True
            if run.leads:
                warn_caller(_divergence(history, run.steps))
        self.callbacks.on_epoch_end(run)
        if run.parallel is not None:
            expect_together(run)

    def _batches(self, batches: Batches) -> dict[str, float]:
        """Train on the batches of an epoch that are left, until all are done or the training is
        stopped."""
        run, step, history = self.run, self.run.step, self.run.history
        assert step.totals is not None
        groups = self.groups
        run.in_batches = True
        for number in range(run.batch, run.batches):
            run.batch = number + 1
            t = (run.updates - 1) / max(run.total_updates - 1, 1)
            run.lr = step.optimizer.lr * _factor(self.schedule, t)
            self.callbacks.on_batch_begin(run)
            if self.sharded is not None:
                assert isinstance(batches, ShardedBatches)
                self.sharded.train(batches, number, run.lr)
            else:
                member = None if groups is None else groups.member(batches, number, run.batches)
                step.train(batches[number], run.lr, member)
            self.callbacks.on_batch_end(run)
            if history.ended:
                break
        run.in_batches = False
        return step.totals.result()


def _saver(checkpoint: Any, resume: Any) -> Checkpoint | None:
    """The Checkpoint that saves the training: the one that was given, or one for the folder that is
    resumed."""
    if isinstance(resume, Checkpoint):
        raise TypeError("fit: expected resume to be a folder; checkpoint= takes the Checkpoint. "
                        f"Received: {resume!r}.")
    if resume is not None:
        name_of(resume, "fit: resume")
    if isinstance(checkpoint, Checkpoint):
        return checkpoint
    folder = resume if checkpoint is None else checkpoint
    return None if folder is None else Checkpoint(folder)


def _divergence(history: History, steps: int) -> str:
    """What fit says of an epoch after which the loss or a parameter is not finite."""
    if history.diverged:
        return (f"fit: {history.divergence}. A smaller learning rate, clipped gradients "
                "(xn.Regularized) or inputs around 0 may help")
    row = history.rows[-1]
    return (f"fit: the loss became {row['loss']} in epoch {row['epoch']} (by step {steps:,}) of "
            "this fit; the parameters are finite, and the training goes on")


def _factor(schedule: Schedule, t: float) -> float:
    """The schedule's factor, checked: it may be a user's own."""
    factor = schedule.factor(t)
    if not is_number(factor) or factor < 0:
        raise ValueError(f"{type(schedule).__name__}: expected factor(t) to be a finite number, 0 "
                         f"or larger. Received: factor({t:.3g})={shown(factor)}.")
    return factor


@contextmanager
def _recording(step: TrainStep) -> Iterator[None]:
    """Each fit records its steps anew, because settings of layers may have changed, and frees the
    memory of its steps at the end."""
    step.totals = None
    step.release()
    try:
        yield
    finally:
        step.totals = None
        step.release()


@contextmanager
def _interruptible(run: Run) -> Iterator[None]:
    """The first Ctrl-C calls run.interrupt(), a second one raises KeyboardInterrupt as usual."""
    before = signal.getsignal(signal.SIGINT)
    if (threading.current_thread() is not threading.main_thread()
            or before in (signal.SIG_IGN, None)):
        # Only the main thread may set handlers, and a process that ignores Ctrl-C (nohup) still
        # should.
        yield
        return

    def handle(number: int, frame: Any) -> None:
        run.interrupt()
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
