"""Training, evaluation and prediction over batch-first arrays."""

from __future__ import annotations

import signal
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np

from xpnet.initializers import generator
from xpnet.layer import TRAIN, Array
from xpnet.losses import Loss, get_loss
from xpnet.metrics import correct
from xpnet.network import Network, softmax_below
from xpnet.optim import Optimizer, Updater
from xpnet.schedules import Schedule, get_schedule


class TrainStep:
    """One step of training: forward, loss, backward, update. Owns the optimizer's state.

    A network keeps its last one, so that a second `fit` with the same optimizer object goes on where the first ended.
    """

    def __init__(self, net: Network, loss: Loss, optimizer: Optimizer) -> None:
        if not isinstance(optimizer, Optimizer):
            raise TypeError(f"fit: expected an Optimizer, e.g. Adam(1e-3). Received: {optimizer!r}.")
        self.net, self.loss, self.optimizer = net, loss, optimizer
        self.output = loss_input(net, loss)
        self.updater = Updater(optimizer, net.buffers)

    def __call__(self, x: Array, target: Array, lr: float | None = None) -> tuple[Array, Array]:
        """Train on a batch-last batch on the network's backend; the loss before the update, and the output."""
        net = self.net
        with net.backend.scope():
            y = net.forward(x, TRAIN, self.output)
            loss, dy = self.loss(net.backend, y, target)
            net.backward(dy, self.output)
            self.updater.step(lr)
            net.counters[0] += net.counters.dtype.type(1)
        return loss, y


def loss_input(net: Network, loss: Loss) -> Any:
    """The node that the loss reads: the output, or what a final softmax is applied to where the loss brings its own."""
    if not loss.takes_logits or not softmax_below(net.output):
        return net.output
    if net.output.layer is not None and net.output.layer.kind == "softmax":
        return net.output.parents[0]
    raise ValueError(f"{type(loss).__name__}: expected logits, or a Softmax as the very last layer. "
                     f"Received: a softmax below {net.layers[-1].who}; softmax would be applied twice.")


class History:
    """What happened in a fit: `rows`, a dict per epoch (epoch, loss, accuracy, val_loss, val_accuracy, lr, seconds).

    `history["loss"]` is a column. `stopped` is True where fit's `until` ended it. `interrupted` is True where Ctrl-C did;
    the last row is then of part of an epoch, its validation figures NaN.
    """

    def __init__(self) -> None:
        self.rows: list[dict[str, float]] = []
        self.interrupted = self.stopped = False

    def __getitem__(self, key: str) -> list[float]:
        return [row[key] for row in self.rows]

    def __repr__(self) -> str:
        return (f"<History of {len(self.rows)} epochs{', interrupted' if self.interrupted else ''}"
                f"{', stopped' if self.stopped else ''}>")


def fit(net: Network, x: Any, y: Any, *, loss: str | Loss, optimizer: Optimizer, epochs: int = 1, batch_size: int = 32,
        validation: tuple[Any, Any] | None = None, schedule: str | Schedule = "constant", shuffle: bool = True,
        until: Callable[[dict[str, float]], bool] | None = None, verbose: bool = True) -> History:
    """Train `net` on batch-first x (N, ...) and targets y, and return a History.

    loss: a Loss or "cross_entropy", "mean_squared_error", "half_squared_error"; the learning rate is the optimizer's
    times `schedule`'s factor. Each epoch sees the samples in another order, which follows from the network's seed.
    `until` is asked after each epoch, with its row of the history; True ends the training. Ctrl-C ends it after the
    current batch; the network keeps what it learned. All input is checked before any work.
    """
    loss = get_loss(loss)
    schedule = get_schedule(schedule)
    if until is not None and not callable(until):
        raise TypeError(f"fit: expected until to be a function of an epoch's row. Received: {until!r}.")
    x, target = check_samples(net, x, y, loss, "fit")
    held_out = None
    if validation is not None:
        if not isinstance(validation, tuple | list) or len(validation) != 2:
            raise TypeError(f"fit: expected validation to be a pair (x, y). Received: {type(validation).__name__}.")
        held_out = check_samples(net, *validation, loss, "fit: validation")
    epochs = _count("fit", "epochs", epochs)
    batch_size = _count("fit", "batch_size", batch_size)
    _check_batch_sizes(net, len(x), batch_size)
    step = net._train_step
    if step is None or step.optimizer is not optimizer:
        step = TrainStep(net, loss, optimizer)
    step.loss, step.output = loss, loss_input(net, loss)
    net._train_step = step

    history = History()
    total = epochs * -(-len(x) // batch_size)
    if verbose:
        print(f"training {sum(p.size for layer in net.layers for p in layer.parameters):,} parameters on {len(x):,} samples, "
              f"backend {net.backend.name}{f' ({net.backend.note})' if net.backend.note else ''}")
    with net.backend.scope(), _interruptible(history):
        while len(history.rows) < epochs and not history.interrupted and not history.stopped:
            started = time.perf_counter()
            order = generator(net.seed, f"epoch {net.epochs}").permutation(len(x)) if shuffle else np.arange(len(x))
            batches = [order[i:i + batch_size] for i in range(0, len(x), batch_size)]
            rates = [optimizer.lr * schedule.factor((len(history.rows) * len(batches) + i) / max(total - 1, 1))
                     for i in range(len(batches))]
            with _Bar(f"epoch {len(history.rows) + 1}/{epochs}", len(batches), verbose) as bar:
                row, lr = _epoch(step, x, target, batches, rates, history, bar)
                net.epochs += not history.interrupted
                if held_out is not None:
                    figures = dict.fromkeys(row, np.nan) if history.interrupted else _evaluate(net, *held_out, loss, 256)
                    row |= {f"val_{name}": value for name, value in figures.items()}
                    bar.show(row)
            history.rows.append({"epoch": len(history.rows) + 1, **row, "lr": lr, "seconds": time.perf_counter() - started})
            history.stopped = until is not None and not history.interrupted and bool(until(history.rows[-1]))
    if history.interrupted and verbose:
        print("interrupted: stopped after the current batch; the network keeps what it learned")
    return history


def _epoch(step: TrainStep, x: Any, target: np.ndarray, batches: list[np.ndarray], rates: list[float], history: History,
           bar: _Bar) -> tuple[dict[str, float], float]:
    """Train on each batch of sample numbers with its rate, until all are done or Ctrl-C; the figures, the last rate."""
    net, totals = step.net, Totals(step.net, step.loss)
    gather = net.backend.gather_batch
    for chosen, lr in zip(batches, rates, strict=True):
        batch_target = gather(target, chosen, target.dtype)
        loss, y = step(gather(x, chosen, net.dtype), batch_target, lr)
        totals.add(loss, y, batch_target)
        if bar.due() or chosen is batches[-1] or history.interrupted:
            bar.show(totals.result())
        bar.advance()
        if history.interrupted:
            break
    return totals.result(), lr


def evaluate(net: Network, x: Any, y: Any, *, loss: str | Loss | None = None, batch_size: int = 256) -> dict[str, float]:
    """{"loss": ..., "accuracy": ...} on batch-first x and targets y, accuracy where the loss is about classes."""
    if loss is None:
        if net._train_step is None:
            raise ValueError('evaluate: expected loss, e.g. "cross_entropy", for a network that was not trained here. '
                             "Received: None.")
        loss = net._train_step.loss
    loss = get_loss(loss)
    return _evaluate(net, *check_samples(net, x, y, loss, "evaluate"), loss, _count("evaluate", "batch_size", batch_size))


def _evaluate(net: Network, x: Any, target: np.ndarray, loss: Loss, batch_size: int) -> dict[str, float]:
    output, gather = loss_input(net, loss), net.backend.gather_batch
    with net.backend.scope():
        totals = Totals(net, loss)
        for start in range(0, len(x), batch_size):
            batch_target = gather(target[start:start + batch_size], None, target.dtype)
            y = net.forward(gather(x[start:start + batch_size], None, net.dtype), output=output)
            totals.add(loss(net.backend, y, batch_target)[0], y, batch_target)
        return totals.result()


def predict(net: Network, x: Any, *, batch_size: int = 256) -> np.ndarray:
    """The network's output for batch-first x (N, ...), as a NumPy array (N, ...)."""
    x = net.check_input(x)
    batch_size = _count("predict", "batch_size", batch_size)
    out = np.empty((len(x), *net.output.shape), net.dtype)
    with net.backend.scope():
        for start in range(0, len(x), batch_size):
            y = net.forward(net.backend.gather_batch(x[start:start + batch_size], None, net.dtype))
            out[start:start + batch_size] = np.moveaxis(net.backend.to_numpy(y), -1, 0)
    return out


class Totals:
    """Sums of loss and hits over batches, weighted by their sizes, kept on the backend: no synchronisation per batch."""

    def __init__(self, net: Network, loss: Loss) -> None:
        self.backend, self.classes, self.count = net.backend, loss.takes_logits, 0
        self.sums = net.backend.zeros((2,), np.float64)

    def add(self, loss: Array, y: Array, target: Array) -> None:
        n = y.shape[-1]
        self.count += n
        self.sums[0] += loss.astype(np.float64) * n
        if self.classes:
            self.sums[1] += correct(self.backend, y, target)

    def result(self) -> dict[str, float]:
        loss, hits = self.backend.to_numpy(self.sums) / self.count
        return {"loss": float(loss), "accuracy": float(hits)} if self.classes else {"loss": float(loss)}


def check_samples(net: Network, x: Any, y: Any, loss: Loss, who: str) -> tuple[Any, np.ndarray]:
    """Batch-first samples and targets, checked against the network and against each other."""
    x = net.check_input(x)
    if x.dtype.kind == "f" and not (np if isinstance(x, np.ndarray) else net.xp).isfinite(x).all():
        raise ValueError(f"{who}: expected finite samples: a single NaN would spoil every parameter. "
                         "Received: NaN or infinity among them.")
    y = net.backend.to_numpy(y) if hasattr(y, "__cuda_array_interface__") else y
    target = loss.targets(y, loss_input(net, loss).shape, net.dtype)
    if len(x) != len(target):
        raise ValueError(f"{who}: expected as many targets as samples. Received: {len(x)} samples, {len(target)} targets.")
    return x, target


def _count(who: str, name: str, value: Any) -> int:
    if isinstance(value, bool) or not isinstance(value, int | np.integer) or value < 1:
        raise ValueError(f"{who}: expected {name} to be an int, 1 or larger. Received: {name}={value!r}.")
    return int(value)


def _check_batch_sizes(net: Network, samples: int, batch_size: int) -> None:
    last = samples % batch_size or batch_size
    for layer in net.layers:
        if min(last, samples) < layer.smallest_batch:
            raise ValueError(f"{layer.who}: expected batches of at least {layer.smallest_batch} in training: it normalises "
                             f"over the batch alone. Received: {samples} samples in batches of {batch_size}, "
                             f"the last of {min(last, samples)}.")


@contextmanager
def _interruptible(history: History) -> Iterator[None]:
    """The first Ctrl-C sets history.interrupted, a second one raises KeyboardInterrupt as usual."""
    before = signal.getsignal(signal.SIGINT)
    if threading.current_thread() is not threading.main_thread() or before in (signal.SIG_IGN, None):
        yield       # only the main thread may set handlers; who ignores Ctrl-C, e.g. under nohup, goes on doing so
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
    """A progress bar, or nothing; figures are fetched from the backend only a few times a second."""

    def __init__(self, title: str, batches: int, visible: bool) -> None:
        self.bar: Any = None
        self.shown = 0.0
        if visible:
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
            self.bar.set_postfix({name: f"{value:.4f}" for name, value in figures.items()}, refresh=False)

    def advance(self) -> None:
        if self.bar is not None:
            self.bar.update()
