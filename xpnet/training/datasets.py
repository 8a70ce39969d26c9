"""A Dataset as the input of a network: read a batch at a time, scaled, and augmented."""

from __future__ import annotations

import threading
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet.augment.base import Augmentation, augmented, expect_augmentations
from xpnet.augment.draws import Draws
from xpnet.augment.mixing import Mixing
from xpnet.backends import Backend
from xpnet.backends.feed import Feed
from xpnet.checks import shown
from xpnet.graph import Graph
from xpnet.layer import Array
from xpnet.training.goals import Goal
from xpnet.training.same import fingerprint

MOST_SHOWN = 8          # numbers of samples that an error names


def is_dataset(x: Any) -> bool:
    """Whether x is an xpnet.data.Dataset. By its methods, because xpnet.data is imported only when
    it is used."""
    return all(hasattr(type(x), name) for name in ("fingerprint", "scaled", "subset"))


class Samples:
    """The samples of a Dataset, in the place of an array of a network's inputs.

    Args:
        net: the network; its seed and its epochs say how images are changed.
        data: the Dataset.
        augment: augmentations, in their order; one of those that mix must be the last.
        who: the caller, for errors.
    """

    def __init__(self, net: Graph, data: Any, augment: Any = (), who: str = "fit") -> None:
        if len(net.ins) != 1:
            raise ValueError(f"{who}: expected arrays for a network with several inputs. Received: "
                             f"a data set and {len(net.ins)} inputs.")
        if net.ragged is not None:
            raise ValueError(f"{who}: expected arrays, or a list of arrays, for a network with "
                             "lengths. Received: a data set.")
        if data.shape != net.ins.nodes[0].shape:
            raise ValueError(f"{who}: expected samples of shape {net.ins.nodes[0].shape}. "
                             f"Received: {data!r}.")
        self.net, self.data, self.who = net, data, who
        self.augment = expect_augmentations(who, augment)
        self.mixing: Mixing | None = None
        last = self.augment[-1] if self.augment else None
        if isinstance(last, Mixing):
            self.mixing = last
            self.augment = self.augment[:-1]
        if any(isinstance(one, Mixing) for one in self.augment):
            raise ValueError(f"{who}: expected at most one augmentation that mixes samples, as the "
                             f"last one. Received: {shown(augment)}.")
        if (self.augment or self.mixing is not None) and len(data.shape) != 3:
            raise ValueError(f"{who}: expected images (C, H, W) to augment. Received: {data!r}.")
        self.shape, self.dtype = (len(data), *data.shape), data.dtype

    def __len__(self) -> int:
        return len(self.data)

    def feed(self, backend: Backend, dtype: Any, size: int) -> Feed:
        if not self.augment and self.mixing is None and self.data.array is not None:
            return ScaledFeed(backend.feed(self.data.array, dtype, size), self.data.scale)
        return SampleFeed(backend, self, dtype)

    def fingerprint(self) -> str:
        steps = [*self.augment, *([] if self.mixing is None else [self.mixing])]
        return f"{self.data.fingerprint()} {steps}"


class ScaledFeed(Feed):
    """The batches of another batch source, divided by a number."""

    def __init__(self, inner: Feed, scale: float | None) -> None:
        super().__init__(inner.backend, inner.samples, inner.dtype)
        self.inner, self.scale, self.in_graphs = inner, scale, inner.in_graphs

    def arrange(self, order: Array) -> None:
        self.inner.arrange(order)

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        if self.scale is None:
            return self.inner.batch(start, stop, out)
        x = self.inner.batch(start, stop)
        with self.backend.scope():
            return self.backend.store(x / x.dtype.type(self.scale), out)

    def batch_at(self, position: Array, out: Array) -> None:
        self.inner.batch_at(position, out)
        if self.scale is not None:
            with self.backend.scope():
                out /= out.dtype.type(self.scale)


class SampleFeed(Feed):
    """Batches of the samples of a Dataset. The next batch is read by a thread while the network
    computes; what is read is scaled and augmented on the backend."""

    samples: Samples

    def __init__(self, backend: Backend, samples: Samples, dtype: Any) -> None:
        super().__init__(backend, samples, dtype)
        self._next: tuple[tuple[int, int], Reading] | None = None
        self.mixed: tuple[np.ndarray, np.ndarray] | None = None     # partners and shares

    def arrange(self, order: Array) -> None:
        super().arrange(order)
        self._next = None

    def numbers(self, start: int, stop: int) -> np.ndarray:
        """(N,): which samples of the data set are number start to stop - 1."""
        return np.arange(start, stop) if self.order is None else self.order[start:stop]

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        samples, number = self.samples, len(self.samples.augment)
        where, x = self.numbers(start, stop), self._read_ahead(start, stop)
        seed, epoch = samples.net.seed, samples.net.epochs
        with self.backend.scope():
            x = self._changed(x, where)
            if samples.mixing is not None:
                draws = Draws(seed, epoch, where, number)
                partners = samples.mixing.partners(draws, len(samples))
                other = self._changed(self._read(partners), partners)
                x, share = samples.mixing.mix(self.backend.xp, x, other, draws)
                self.mixed = partners, share
        return self.backend.store(x, out)

    def _changed(self, x: Array, where: np.ndarray) -> Array:
        """Batch-first samples -> scaled and augmented on the backend, batch-last."""
        samples = self.samples
        x = self.backend.gather_batch(x, None, self.dtype)
        if samples.data.scale is not None:
            x = x / x.dtype.type(samples.data.scale)
        if not samples.augment:
            return x
        y = self._named("augmentations that change images without an error", where,
                        lambda part: augmented(self.backend.xp, x[..., part], samples.augment,
                                               seed=samples.net.seed, epoch=samples.net.epochs,
                                               samples=where[part]))
        if y.shape != x.shape:
            raise ValueError(f"{samples.who}: expected augmented images of the shape of the "
                             f"others, {x.shape[:-1]}. Received: {y.shape[:-1]}.")
        return y

    def _read_ahead(self, start: int, stop: int) -> Array:
        """The samples of a batch, while the next batch of this size is being read."""
        coming, self._next = self._next, None
        if coming is not None and coming[0] == (start, stop):
            x = coming[1].result()
        else:
            x = self._read(self.numbers(start, stop))
        span = stop, min(2 * stop - start,
                         len(self.samples if self.order is None else self.order))
        if span[0] < span[1]:
            self._next = span, Reading(self._read, self.numbers(*span))
        return x

    def _read(self, where: np.ndarray) -> Array:
        return self._named("samples that can be read", where,
                           lambda part: self.samples.data[where[part]][0])

    def _named(self, expected: str, where: np.ndarray, work: Callable[[slice], Array]) -> Array:
        """work of all samples of a batch. An error of the user's code gets the number of the first
        sample for which it is raised alone."""
        try:
            return work(slice(None))
        except MemoryError:             # fit says which batch size would fit
            raise
        except Exception as error:
            alone = next((k for k in range(len(where)) if _fails(work, slice(k, k + 1))), None)
            if alone is not None:
                listed = f"sample {where[alone]}"
            else:
                listed = "samples " + ", ".join(map(str, where[:MOST_SHOWN].tolist()))
                listed += ", ..." if len(where) > MOST_SHOWN else ""
            raise RuntimeError(f"{self.samples.who}: expected {expected}. Received: "
                               f"{type(error).__name__} for {listed} ({error}).") from error


def _fails(work: Callable[[slice], Array], part: slice) -> bool:
    try:
        work(part)
    except Exception:
        return True
    return False


class Reading:
    """A call in a thread of its own.

    The thread ends with the call, so that nothing has to be closed. It does not keep the process
    alive: Ctrl-C ends a program at once, however long a sample takes.
    """

    def __init__(self, read: Callable[[np.ndarray], Array], where: np.ndarray) -> None:
        self._value: Array = None
        self._error: BaseException | None = None
        self._thread = threading.Thread(target=self._run, args=(read, where), name="xpnet-reader",
                                        daemon=True)
        self._thread.start()

    def _run(self, read: Callable[[np.ndarray], Array], where: np.ndarray) -> None:
        try:
            self._value = read(where)
        except BaseException as error:          # SystemExit too: it must not be lost
            self._error = error

    def result(self) -> Array:
        """What the call returned, or its error."""
        self._thread.join()
        if self._error is not None:
            raise self._error
        return self._value


class MixedTargets:
    """Labels, in the place of an array of targets, that follow the mixing of the samples: the
    probabilities of the classes."""

    def __init__(self, labels: np.ndarray, classes: int, dtype: Any) -> None:
        self.labels, self.dtype = labels, np.dtype(dtype)
        self.shape = (len(labels), classes)
        self.samples: SampleFeed | None = None      # whose batches are mixed, and made before

    def __len__(self) -> int:
        return len(self.labels)

    def feed(self, backend: Backend, dtype: Any, size: int) -> MixedFeed:
        return MixedFeed(backend, self, dtype)

    def fingerprint(self) -> str:
        return f"mixed {fingerprint(self.labels)}"


class MixedFeed(Feed):
    """Batches (K, N) of the probabilities of MixedTargets."""

    samples: MixedTargets

    def batch(self, start: int, stop: int, out: Array | None = None) -> Array:
        source, labels = self.samples.samples, self.samples.labels
        assert source is not None and source.mixed is not None
        partners, share = source.mixed
        mine, columns = labels[source.numbers(start, stop)], np.arange(stop - start)
        target = np.zeros((self.samples.shape[1], stop - start))
        target[mine, columns] = share
        target[labels[partners], columns] += 1 - share
        return self.backend.store(self.backend.asarray(target, self.dtype), out)


def checked_dataset(net: Graph, data: Any, goals: Sequence[Goal], who: str, augment: Any = ()
                    ) -> list[Any]:
    """A Dataset as inputs and targets, in the place of the arrays that `check_samples` returns."""
    samples = Samples(net, data, augment, who)
    if len(goals) != 1:
        raise ValueError(f"{who}: expected arrays for a network with several outputs. Received: a "
                         f"data set and {len(goals)} outputs.")
    goal, raw = goals[0], data.targets
    if raw is None:
        raise ValueError(f"{who}: expected a data set with labels or targets. Received: {data!r}.")
    target = goal.loss.targets(raw, goal.node.shape, net.dtype)
    if samples.mixing is None:
        return [samples, target]
    if target.ndim != 1 or not goal.loss.counts_hits or len(goal.node.shape) != 1:
        raise ValueError(f"{who}: expected labels and a loss of classes for "
                         f"{samples.mixing.who}. Received: {goal.loss.who}.")
    return [samples, MixedTargets(target, goal.node.shape[0], net.dtype)]


def checked_augment(who: str, x: Any, augment: Any) -> list[Augmentation]:
    """The augmentations; ValueError if there are some and x is no data set."""
    found = expect_augmentations(who, augment)
    if found and not is_dataset(x):
        raise ValueError(f"{who}: expected a data set to augment, e.g. xn.data.Dataset(x, y). "
                         f"Received: {type(x).__name__}.")
    return found
