"""One step of training: forward, losses, backward, update."""

from __future__ import annotations

import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import expect_flag, expect_instance, warn_caller
from xpnet.graph import Graph
from xpnet.inputs import batch_last_inputs
from xpnet.inspect.memory import explained
from xpnet.layer import TRAIN, Array, Exchanging
from xpnet.optim import Optimizer, get_optimizer
from xpnet.passes import Hook, backward_pass, forward_pass, result_of
from xpnet.training.batches import Batch, Batches, Layout, NumberedBatch
from xpnet.training.goals import goals
from xpnet.training.groups import Member
from xpnet.training.totals import Totals

# The losses of a batch, the values that they read, the targets, and which steps are real.
Figures = tuple[list[Array], list[Array], Batch, list[Array | None]]

MOST_CAPTURED = 4       # layouts of batches: each holds the memory of a step of its own


class GivenBatch:
    """A batch that a caller passes to a step as arrays. It has the methods of a NumberedBatch."""

    source = None

    def __init__(self, arrays: Batch) -> None:
        self._arrays = arrays

    @property
    def layout(self) -> Layout:
        return tuple([(a.shape, a.dtype) for a in self._arrays])

    def arrays(self) -> Batch:
        return self._arrays

    def write(self, places: Batch) -> None:
        for place, a in zip(places, self._arrays, strict=True):
            place[...] = a

    def done(self) -> None:
        pass


class Captured:
    """A step for batches of one layout: the arrays that it reads, and the function that runs it.

    It holds no reference to itself or to the TrainStep, so that the memory of a graph is freed when
    the last reference to the TrainStep is dropped, and not when the garbage collector runs.
    """

    def __init__(self, layout: Layout, source: Batches | None, grouped: bool, owner: TrainStep,
                 backend: Backend) -> None:
        self.places: Batch = tuple(backend.empty(shape, dtype) for shape, dtype in layout)
        self.failures: list[str] = []           # why it could not be captured
        self.run = backend.capture(partial(_step_of, weakref.ref(owner), self.places, source,
                                           grouped),
                                   self.failures.append)


def _step_of(owner: weakref.ref[TrainStep], places: Batch, source: Batches | None, grouped: bool
             ) -> Any:
    step = owner()
    assert step is not None                     # it is the caller
    return step._step(places, grouped, *(() if source is None else source.gather(places)))


class TrainStep:
    """One step of training: forward, losses, backward, update. It owns the optimizer's state.

    With `capture`, and on a backend that can (a GPU), the step for a shape of batch that comes
    again and again is recorded and from then on run in a single launch, with the same bits. What
    such a step returns may be overwritten by its next call. Python code in layers and losses runs,
    and their settings are read, only while a step is recorded; `release` makes it be recorded
    anew. Without `capture` every kernel is launched by itself.

    A network keeps its last step (`net.step`), so that a second `fit` with the same optimizer
    object continues the first.

    Args:
        net: the network that is trained.
        loss: a loss or its name; for several outputs also a list or dict of them.
        optimizer: an optimizer or its name.
        loss_weights: a factor of the loss of each output, as the outputs are; 1 by default.
        capture: whether steps are captured on a backend that can.
    """

    def __init__(self, net: Graph, loss: Any, optimizer: str | Optimizer, *,
                 loss_weights: Any = None, capture: bool = True) -> None:
        expect_instance("TrainStep", "net", net, Graph, "a Network")
        optimizer = get_optimizer(optimizer, "TrainStep")
        net.expect_whole("TrainStep")
        self.net, self.optimizer = net, optimizer
        self.capture = expect_flag("TrainStep", "capture", capture)
        self.goals = goals(net, loss, loss_weights, "TrainStep")
        self.updater = optimizer.updater(net.buffers)
        self.totals: Totals | None = None       # if there are some, every step adds its figures
        self._shares: Array | None = None       # of a batch in its group, on the backend
        self._sent: tuple[float, ...] = ()      # what they are
        self._captured: dict[tuple[Any, ...], Captured] = {}
        self._last: tuple[Any, ...] = ()
        self.releases = 0                       # calls of `release`

    def __repr__(self) -> str:
        losses = ", ".join(repr(goal.loss) for goal in self.goals)
        return f"<TrainStep of {self.net!r} with {losses} and {self.optimizer!r}>"

    def __call__(self, x: Any, target: Any, lr: float | None = None,
                 sample_weight: Array | None = None, *, lengths: Any = None) -> tuple[Array, Any]:
        """Train on a batch-last batch on the network's backend.

        Args:
            x: an array (..., N), or arrays as the network's inputs are.
            target: an array (..., N), or arrays as the outputs are.
            lr: this step's learning rate, the optimizer's by default.
            sample_weight: (N,), factors of each sample's part of the loss.
            lengths: numbers of steps (1, N), for an Input with lengths; for several a list or dict.

        Returns:
            The loss before the update, and the values that the losses read, as the outputs are.
        """
        net = self.net
        xs, targets = (batch_last_inputs(net, x, lengths, "TrainStep"),
                       net.outs.unpack(target, "TrainStep", "targets"))
        batch = (*xs, *targets) if sample_weight is None else (*xs, *targets, sample_weight)
        with explained(net, "TrainStep", batch[0].shape[-1], self.optimizer):
            loss, ys = self.train(GivenBatch(batch), lr)
        return loss, net.outs.pack(ys)

    def train(self, batch: GivenBatch | NumberedBatch, lr: float | None = None,
              member: Member | None = None) -> tuple[Array, list[Array]]:
        """What a call does: inputs, targets, and weights if there are any.

        The batch may be a member of a group: its gradients are added, and the update comes after
        the last member. It is not part of what is captured, so that all members are the same step.
        """
        grouped, updates = member is not None, member is None or member.last
        with self.updating(lr, updates):
            if member is not None:
                self._enter(member)
            if self.capture and self.net.backend.captures:
                result = self._captured_step(batch, grouped)
            else:
                result = self._step(batch.arrays(), grouped)
            if grouped and updates:
                self.updater.apply()
            return result

    @contextmanager
    def updating(self, lr: float | None, updates: bool) -> Iterator[None]:
        """The work on a batch, after which the parameters are updated or not."""
        net = self.net
        if self.updater.buffers is not net.buffers:
            self.to()
        with net.backend.stream():
            if updates:
                self.updater.begin(lr)
            try:
                yield
            except BaseException:
                if updates:
                    self.updater.cancel()
                net.forget()
                raise

    def part(self, batch: Batch, shares: Array, totals: Totals, hook: Hook | None = None) -> None:
        """Compute the gradients of a part of a batch, without an update, and add its figures to
        `totals`. `shares` (outputs,) are those of the part, on the backend; the hook is for the
        backward pass."""
        self.net.grads.fill(0)
        totals.add(*result_of(self._passes(batch, shares, hook=hook)))

    def shared_part(self, batch: Batch, shares: Array, totals: Totals, hook: Hook
                    ) -> Exchanging[None]:
        """What `part` does, as a generator, for one of several parts that are computed together and
        exchange arrays; the hook is for the backward pass. The gradients have to be 0."""
        figures = yield from self._passes(batch, shares, True, hook)
        totals.add(*figures)

    def _enter(self, member: Member) -> None:
        """Write the shares of a batch where the step reads them."""
        net = self.net
        if member.first:
            with net.backend.scope():
                net.grads.fill(0)
        if self._shares is None:
            self._shares = net.backend.empty((len(self.goals),), np.float64)
        if member.shares != self._sent:
            net.backend.assign(self._shares, member.shares)
            self._sent = member.shares

    def _step(self, batch: Batch, grouped: bool, *position: Any) -> tuple[Array, list[Array]]:
        """The work of a step; `position` is what `Batches.gather` returns."""
        losses, ys, targets, masks = self._gradients(batch, self._shares if grouped else None)
        if not grouped:
            self.updater.apply()
        self.net.backend.advance(self.net.counters[:1], *position)
        if self.totals is not None:
            self.totals.add(losses, ys, targets, masks)
        return self._sum(losses), ys

    def _gradients(self, batch: Batch, shares: Array | None) -> Figures:
        """Forward and backward pass: what `Totals.add` takes. With the shares of the batch in its
        group, (outputs,), its gradients are multiplied by them, and added to those that are there.
        """
        return result_of(self._passes(batch, shares))

    def _passes(self, batch: Batch, shares: Array | None, shared: bool = False,
                hook: Hook | None = None) -> Exchanging[Figures]:
        """What `_gradients` does, as a generator; the hook is for the backward pass."""
        net, count, nodes = self.net, len(self.net.in_nodes), [goal.node for goal in self.goals]
        targets, weights = batch[count:count + len(self.goals)], batch[count + len(self.goals):]
        ys = yield from forward_pass(net, batch[:count], nodes, TRAIN, shared=shared)
        masks = net.masks(batch[:count], nodes)
        losses, gradients = [], []
        for number, (goal, y, target) in enumerate(zip(self.goals, ys, targets, strict=True)):
            loss, dy = goal.gradient(net.backend, y, target, *weights, mask=masks[number])
            losses.append(loss)
            if shares is not None:
                dy = dy * shares[number:number + 1].astype(dy.dtype)
            gradients.append((goal.node, dy))
            del dy
        yield from backward_pass(net, gradients, accumulate=shares is not None, hook=hook,
                                 shared=shared)
        return losses, ys, targets, masks

    def _sum(self, losses: list[Array]) -> Array:
        """The weighted sum of the losses."""
        terms = [loss if goal.weight == 1 else goal.weight * loss
                 for goal, loss in zip(self.goals, losses, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return total

    # --- captured ---------------------------------------------------------------------------------

    def _key(self, batch: GivenBatch | NumberedBatch, grouped: bool) -> tuple[Any, ...]:
        """What a recorded step is good for: a layout, samples, the layers that are trained, and
        which of them as one part; and whether the batch is one of a group."""
        trainable = tuple([layer.trainable for layer in self.net.layers])
        return batch.layout, batch.source, trainable, tuple(self.updater.parts()), grouped

    def _captured_step(self, batch: GivenBatch | NumberedBatch, grouped: bool
                       ) -> tuple[Array, list[Array]]:
        key = self._key(batch, grouped)
        captured, again, self._last = self._captured.get(key), key == self._last, key
        if captured is None:
            if not again:                       # the short last batch of each epoch is not worth it
                return self._step(batch.arrays(), grouped)
            captured = self._prepare(key, batch, grouped)
        batch.write(captured.places)
        result = captured.run()
        batch.done()
        if captured.failures:
            self.capture = False
            self.release()
            warn_caller("TrainStep: the step could not be captured and runs launch by launch "
                        f"from now on ({captured.failures[0]})", UserWarning)
        return result

    def _prepare(self, key: tuple[Any, ...], batch: GivenBatch | NumberedBatch, grouped: bool
                 ) -> Captured:
        if len(self._captured) == MOST_CAPTURED:
            del self._captured[next(iter(self._captured))]
        captured = Captured(batch.layout, batch.source, grouped, self, self.net.backend)
        self._captured[key] = captured
        return captured

    def release(self) -> None:
        """Forget the recorded steps, and free the memory that they run in."""
        self.releases += 1
        self._captured.clear()
        self._last = ()
        self._shares, self._sent = None, ()

    def to(self) -> None:
        """Continue on the backend that the network has moved to."""
        self.release()
        self.updater.to(self.net.buffers)
