"""Training, evaluation and prediction over batch-first arrays."""

from __future__ import annotations

import inspect
import math
import signal
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator, Mapping
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.backends.feed import Feed
from xpnet.checks import (
    expect_flag,
    expect_function,
    expect_integer,
    finite_array,
    is_number,
    not_finite,
    shown,
)
from xpnet.initializers import generator
from xpnet.layer import PREDICT, Array
from xpnet.losses import Loss, get_loss
from xpnet.memory import explained
from xpnet.network import Network
from xpnet.optim import Optimizer, get_optimizer
from xpnet.schedules import Schedule, get_schedule
from xpnet.step import Totals, TrainStep, loss_input

EVALUATED = 256         # samples of a batch of the validation


class History:
    """What happened in a fit: `rows`, a dict per epoch (epoch, loss, accuracy, val_loss,
    val_accuracy, lr, seconds).

    `history["loss"]` is a column. `stopped` is True where fit's `until` ended it. `interrupted` is
    True where Ctrl-C did; the last row is then of part of an epoch, its validation figures NaN.
    `diverged` is True where it ended because the parameters were no longer finite.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.interrupted = self.stopped = self.diverged = False

    def __getitem__(self, key: str) -> list[float]:
        return [row[key] for row in self.rows]

    def __repr__(self) -> str:
        return (f"<History of {len(self.rows)} epochs{', interrupted' if self.interrupted else ''}"
                f"{', stopped' if self.stopped else ''}{', diverged' if self.diverged else ''}>")


def fit(net: Network, x: Any, y: Any, *, loss: str | Loss, optimizer: str | Optimizer,
        epochs: int = 1, batch_size: int = 32, validation: tuple[Any, Any] | None = None,
        sample_weight: Any = None, schedule: str | Schedule = "constant", shuffle: bool = True,
        until: Callable[[dict[str, float]], bool] | None = None, verbose: bool = True,
        capture: bool = True) -> History:
    """Train `net` on batch-first x (N, ...) and targets y, and return a History.

    loss: a Loss, or its name in xpnet.losses.LOSSES, e.g. "cross_entropy". optimizer: an Optimizer,
    or its name in xpnet.optim.OPTIMIZERS, e.g. "adamw", which makes a new one with its default
    settings; with the same object a second fit goes on where the first ended. The learning rate is
    the optimizer's times the factor of `schedule`, a Schedule or one of the names in
    schedules.SCHEDULES; where it changes on the way, the fit has a copy of its own. Each epoch sees
    the samples in another order, which follows from the network's seed. sample_weight (N,): a
    number that multiplies each sample's part of the loss, which is still divided by what it was
    divided by; accuracy and validation count every sample once. `until` is asked after each epoch,
    with its row of the history; True ends the training. Ctrl-C ends it after the current batch; the
    network keeps what it learned. A training that diverges ends after the epoch in which a
    parameter became NaN or infinite, with a RuntimeWarning, because nothing can be learned any
    more; a loss that is not finite while the parameters are gives a RuntimeWarning, once, and the
    training goes on. All input is checked before any work. On a GPU the step is captured and
    launched as one, see TrainStep, unless `capture` is False; the bits are the same.
    """
    shuffle, verbose = (expect_flag("fit", "shuffle", shuffle),
                        expect_flag("fit", "verbose", verbose))
    capture = expect_flag("fit", "capture", capture)
    loss = get_loss(loss)
    optimizer = get_optimizer(optimizer, "fit")
    schedule = get_schedule(schedule).start()
    if until is not None:
        expect_function("fit", "until", until, "an epoch's row")
    data = check_samples(net, x, y, loss, "fit")
    if sample_weight is not None:
        data = *data, check_weights(net, sample_weight, len(data[0]), loss)
    samples = len(data[0])
    held_out = None
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise TypeError("fit: expected validation to be a pair (x, y). Received: "
                            f"{type(validation).__name__}.")
        held_out = check_samples(net, *validation, loss, "fit: validation")
    epochs = expect_count("fit", "epochs", epochs)
    batch_size = expect_count("fit", "batch_size", batch_size)
    check_batch_sizes(net, samples, batch_size)
    step = net._train_step
    if step is None or step.optimizer is not optimizer:
        step = TrainStep(net, loss, optimizer)
    (step.output, step.loss), step.capture = loss_input(net, loss), capture
    net._train_step = step

    history = History()
    total = epochs * -(-samples // batch_size)
    if verbose:
        print(f"training {sum(p.size for layer in net.layers for p in layer.parameters):,} "
              f"parameters on {samples:,} samples, "
              f"backend {net.backend.name}{f' ({net.backend.note})' if net.backend.note else ''}")

    # in a frame of its own, so that an error's traceback does not hold the samples on a GPU
    def train() -> None:
        warned = False
        while (len(history.rows) < epochs
               and not (history.interrupted or history.stopped or history.diverged)):
            started = time.perf_counter()
            if step.totals is None:  # at first, and where `until` moved the network
                step.totals = Totals(net, loss)
                batches = _Batches(net, data, batch_size)
                held_out_batches = None if held_out is None else _Batches(net, held_out, EVALUATED)
            batches.arrange(generator(net.seed, f"epoch {net.epochs}").permutation(samples)
                            if shuffle else np.arange(samples))
            done, count = len(history.rows) * len(batches), len(batches)
            rates = [optimizer.lr * _factor(schedule, (done + i) / max(total - 1, 1))
                     for i in range(count)]
            with _Bar(f"epoch {len(history.rows) + 1}/{epochs}", count, verbose) as bar:
                row, lr = _epoch(step, batches, rates, history, bar)
                net.epochs += not history.interrupted
                if held_out_batches is not None:
                    with explained(net, "fit: validation", EVALUATED, mode=PREDICT):
                        figures = (dict.fromkeys(row, np.nan) if history.interrupted
                                   else _evaluate(net, held_out_batches, loss))
                    row |= {f"val_{name}": value for name, value in figures.items()}
                    bar.show(row)
            history.rows.append({"epoch": len(history.rows) + 1, **row, "lr": lr,
                                 "seconds": time.perf_counter() - started})
            history.diverged = not _is_finite(net)
            if history.diverged or not (math.isfinite(row["loss"]) or warned):
                warned = True
                warnings.warn(_divergence(history, len(history.rows) * count), RuntimeWarning,
                              stacklevel=4)
            if not history.interrupted:
                schedule.observe(history.rows[-1])
            history.stopped = (until is not None and not history.interrupted
                               and bool(until(history.rows[-1])))

    with explained(net, "fit", batch_size,
                   optimizer), net.backend.stream(), _interruptible(history), _recording(step):
        train()
    if history.interrupted and verbose:
        print("interrupted: stopped after the current batch; the network keeps what it learned")
    return history


def _is_finite(net: Network) -> bool:
    """Whether everything that training changes is finite: one look at the device for an epoch."""
    finite = net.xp.isfinite
    return all(bool(net.backend.to_numpy(finite(a).all())) for a in (net.parameters, net.state))


def _divergence(history: History, steps: int) -> str:
    """What fit says of an epoch after which the loss or a parameter is not finite."""
    row = history.rows[-1]
    where = f"in epoch {row['epoch']} (by step {steps:,}) of this fit"
    if not history.diverged:
        return (f"fit: the loss became {row['loss']} {where}; the parameters are finite, and the "
                "training goes on")
    return (f"fit: parameters or running statistics became NaN or infinite {where}, the loss "
            f"{row['loss']}; the training ended. "
            "A smaller learning rate, clipped gradients (xn.Regularized) or inputs around 0 may "
            "help")


def _epoch(step: TrainStep, batches: _Batches, rates: list[float], history: History, bar: _Bar
           ) -> tuple[dict[str, float], float]:
    """Train on each batch with its rate, until all are done or Ctrl-C; the figures, the last
    rate."""
    totals = step.totals
    assert totals is not None
    totals.reset()
    for i, lr in enumerate(rates):
        step.train(batches.get(i, step), lr)    # no name holds a batch while the next one is made
        if bar.due() or i == len(rates) - 1 or history.interrupted:
            bar.show(totals.result())
        bar.advance()
        if history.interrupted:
            break
    return totals.result(), lr


def _factor(schedule: Schedule, t: float) -> float:
    """The schedule's factor, checked: it may be a user's own."""
    factor = schedule.factor(t)
    if not is_number(factor) or factor < 0:
        raise ValueError(f"{type(schedule).__name__}: expected factor(t) to be a finite number, 0 "
                         "or larger. "
                         f"Received: factor({t:.3g})={shown(factor)}.")
    return factor


class _Batches:
    """Samples, their targets, and their weights if they have any, batch by batch."""

    def __init__(self, net: Network, data: tuple[Any, ...], size: int) -> None:
        (x, *rest), feed = data, net.backend.feed
        self.samples, self.size = len(x), size
        self.feeds = feed(x, net.dtype, size), *(feed(a, a.dtype, size) for a in rest)
        self.shapes = net.input.shape, *(a.shape[1:] for a in rest)

    def __len__(self) -> int:
        return -(-self.samples // self.size)

    def arrange(self, order: np.ndarray) -> None:
        for feed in self.feeds:
            feed.arrange(order)

    def get(self, number: int, step: TrainStep | None = None) -> tuple[Array, ...]:
        """Batch `number`, where the captured `step` reads it if there is one."""
        start = number * self.size
        stop = min(start + self.size, self.samples)
        places: tuple[Array | None, ...] = (None,) * len(self.feeds)
        if step is not None and step.net.backend.captures:
            places = step.inputs(*((*shape, stop - start) for shape in self.shapes))
        return (tuple(feed.batch(start, stop, place)
                      for feed, place in zip(self.feeds, places, strict=True)))


@contextmanager
def _recording(step: TrainStep) -> Iterator[None]:
    """Each fit records anew, because settings of layers may have changed, and leaves no memory of
    steps behind."""
    step.totals = None
    step.release()
    try:
        yield
    finally:
        step.totals = None
        step.release()


def evaluate(net: Network, x: Any, y: Any, *, loss: str | Loss | None = None, batch_size: int = 256,
             metrics: Mapping[str, Callable[[np.ndarray, np.ndarray], Any]] | None = None
             ) -> dict[str, Any]:
    """{"loss": ..., "accuracy": ...} on batch-first x and targets y, accuracy where the loss is
    about classes.

    metrics: names, and functions of what `predict` gives and of the targets, e.g. {"f1":
    xn.metrics.f1_score}; what they return is added under these names.
    """
    loss = known_loss(net, loss, "evaluate")
    batch_size = expect_count("evaluate", "batch_size", batch_size)
    x, target = check_samples(net, x, y, loss, "evaluate")
    if (metrics is not None
        and not (isinstance(metrics, Mapping)
                 and all(callable(metric) for metric in metrics.values()))):
        raise TypeError("evaluate: expected metrics to be a dict of names and functions. "
                        f"Received: {shown(metrics)}.")
    outputs: Any = np.empty((len(x), *net.output.shape), net.dtype) if metrics else None
    with explained(net, "evaluate", batch_size, mode=PREDICT), net.backend.stream():
        figures = _evaluate(net, _Batches(net, (x, target), batch_size), loss, outputs)
    return figures | {name: metric(outputs, target) for name, metric in (metrics or {}).items()}


def _evaluate(net: Network, batches: _Batches, loss: Loss, outputs: np.ndarray | None = None
              ) -> dict[str, Any]:
    """The figures; the network's outputs go to `outputs`, if there is one."""
    (node, loss), totals = loss_input(net, loss), Totals(net, loss)
    for i in range(len(batches)):
        x, target = batches.get(i)
        y = net.forward(x, output=node)
        totals.add(loss.checked(net.backend, y, target)[0], y, target)
        if outputs is not None:
            if node is not net.output:  # a last softmax or sigmoid, which is part of the loss
                assert net.output.layer is not None
                y = net.output.layer.forward(y)
            outputs[i * batches.size:(i + 1) * batches.size] = np.moveaxis(net.backend.to_numpy(y),
                                                                           -1, 0)
    return totals.result()


def predict(net: Network, x: Any, *, batch_size: int = 256) -> np.ndarray:
    """The network's output for batch-first x (N, ...), as a NumPy array (N, ...)."""
    x = net.check_input(x)
    batch_size = expect_count("predict", "batch_size", batch_size)
    out = np.empty((len(x), *net.output.shape), net.dtype)
    with explained(net, "predict", batch_size, mode=PREDICT), net.backend.stream():
        _predict(net, net.backend.feed(x, net.dtype, batch_size), out, batch_size)
    return out


def _predict(net: Network, feed: Feed, out: np.ndarray, batch_size: int) -> None:
    for start in range(0, len(out), batch_size):
        y = net.forward(feed.batch(start, min(start + batch_size, len(out))))
        out[start:start + batch_size] = np.moveaxis(net.backend.to_numpy(y), -1, 0)


def check_samples(net: Network, x: Any, y: Any, loss: Loss, who: str) -> tuple[Any, ...]:
    """Batch-first samples and targets, checked against the network and against each other."""
    x = finite_samples(net, x, who)
    y = net.backend.to_numpy(y) if hasattr(y, "__cuda_array_interface__") else y
    target = loss.targets(y, loss_input(net, loss)[0].shape, net.dtype)
    if len(x) != len(target):
        raise ValueError(f"{who}: expected as many targets as samples. Received: {len(x)} samples, "
                         f"{len(target)} targets.")
    return x, target


def check_weights(net: Network, sample_weight: Any, samples: int, loss: Loss) -> np.ndarray:
    """The samples' weights, in the network's dtype."""
    if "sample_weight" not in inspect.signature(loss).parameters:
        raise ValueError("fit: expected a loss that takes sample_weight, for weights of samples. "
                         f"Received: {loss.who}, whose "
                         "__call__ does not.")
    weights = finite_array(sample_weight, "fit: sample_weight", net.dtype)
    if weights.shape != (samples,):
        raise ValueError(f"fit: expected sample_weight to have a number for each of the {samples} "
                         "samples. "
                         f"Received: an array of shape {weights.shape}.")
    return weights.astype(net.dtype, copy=False)


def finite_samples(net: Network, x: Any, who: str) -> Any:
    """Batch-first samples, checked; ValueError where one would be NaN or infinite in the network's
    dtype."""
    x = net.check_input(x)
    received = not_finite(x, net.dtype, net.backend.to_numpy)
    if received:
        raise ValueError(f"{who}: expected finite samples. Received: {received}.")
    return x


def known_loss(net: Network, loss: str | Loss | None, who: str) -> Loss:
    """The loss given, or that of the network's last fit; ValueError where there is neither."""
    if loss is None:
        if net._train_step is None:
            raise ValueError(f'{who}: expected loss, e.g. "cross_entropy", for a network that was '
                             'not trained here. '
                             "Received: None.")
        loss = net._train_step.loss
    return get_loss(loss)


def expect_count(who: str, name: str, value: Any) -> int:
    return expect_integer(who, name, value)


def check_batch_sizes(net: Network, samples: int, batch_size: int) -> None:
    last = samples % batch_size or batch_size
    for layer in net.layers:
        if min(last, samples) < layer.smallest_batch:
            raise ValueError(f"{layer.who}: expected batches of at least {layer.smallest_batch} in "
                             "training: it normalises "
                             f"over the batch alone. Received: {samples} samples in batches of "
                             f"{batch_size}, "
                             f"the last of {min(last, samples)}.")


@contextmanager
def _interruptible(history: History) -> Iterator[None]:
    """The first Ctrl-C sets history.interrupted, a second one raises KeyboardInterrupt as usual."""
    before = signal.getsignal(signal.SIGINT)
    if (threading.current_thread() is not threading.main_thread()
        or before in (signal.SIG_IGN, None)):
        # only the main thread may set handlers; who ignores Ctrl-C, e.g. under nohup, goes on doing
        # so
        yield
        return

    def handle(number: int, frame: Any) -> None:
        history.interrupted = True
        signal.signal(signal.SIGINT, before)

    signal.signal(signal.SIGINT, handle)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)


class _Bar:
    """A progress bar, or nothing; figures are fetched from the backend only a few times a
    second."""

    def __init__(self, title: str, batches: int, visible: bool) -> None:
        self.bar: Any = None
        self.shown = 0.0
        if visible and sys.stderr is not None:      # None under pythonw, which has no console
            from tqdm import tqdm
            self.bar = tqdm(total=batches, desc=title, unit="batch")

    def __enter__(self) -> _Bar:
        return self

    def __exit__(self, *exception: object) -> None:
        if self.bar is not None:
            self.bar.close()

    def due(self) -> bool:
        return self.bar is not None and time.perf_counter() - self.shown > 0.2

    def show(self, figures: dict[str, float]) -> None:
        if self.bar is not None:
            self.shown = time.perf_counter()
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items()},
                                 refresh=False)

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()
