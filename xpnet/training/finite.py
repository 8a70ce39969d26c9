"""Trainings that diverge: noticed early, explained, and taken back to the last good parameters."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count
from typing import Any

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import Checked
from xpnet.graph import Graph
from xpnet.history import Divergence
from xpnet.layer import TRAIN, Array, Exchanging
from xpnet.node import Node, layer_of
from xpnet.passes import Hook, backward_pass, forward_pass, result_of
from xpnet.training.batches import Batch
from xpnet.training.callbacks import Callback, Run
from xpnet.training.goals import Goal
from xpnet.training.together import SHARD, compute_together

# Where something is found: at which look of a pass; in words; and the layer.
Place = tuple[int, str, str | None]


class StopOnNaN(Checked, Callback):
    """End the training when a parameter or a running statistic has become NaN or infinite, find the
    layer in which that began, and leave the last good parameters.

    `fit` always uses one, by default `StopOnNaN()`. What it found is `history.divergence`, and a
    RuntimeWarning says it. To find the layer, the batches of the last update are run again with the
    last good parameters, forward and backward, and every value is looked at. The state of the
    optimizer is dropped, because it may be NaN, too: the next `fit` with the same optimizer starts
    anew.

    On a CPU each step is checked, by the sum of all parameters. On a GPU a check has to wait, so
    that there is one every `every` steps, and one at the end of each epoch. A copy of the
    parameters and of the state is kept of the last check of this kind that was good, in the memory
    of the backend.

    Args:
        every: steps between two copies and, on a GPU, between two checks.
        restore: whether the network has the last good parameters and state at the end. False needs
            no memory for the copy, but the layer is not looked for.
    """

    def __init__(self, every: int = 100, restore: bool = True) -> None:
        self.every = self.expect_integer("every", every)
        self.restore = self.expect_flag("restore", restore)
        self._begin()

    def _begin(self) -> None:
        self._kept: list[Array] = []            # good parameters and state,
        self._backend: Backend | None = None    # on this backend,
        self._kept_at = self._checked_at = 0    # after these steps

    def on_train_begin(self, run: Run) -> None:
        self._begin()
        if is_finite(run.net):
            self._keep(run.net, 0)

    def load_state(self, run: Run, state: dict[str, Any]) -> None:
        """A training was resumed: its parameters are good."""
        self._keep(run.net, run.steps)
        self._checked_at = run.steps

    def on_batch_end(self, run: Run) -> None:
        due = run.steps % self.every == 0
        if due or run.net.backend.xp is np:
            self._check(run, due)

    def on_validation_begin(self, run: Run) -> None:
        if not run.history.diverged:
            self._check(run, keep=True)

    def on_train_end(self, run: Run) -> None:
        self._begin()

    def _check(self, run: Run, keep: bool) -> None:
        if not is_finite(run.net):
            self._diverged(run)
            return
        self._checked_at = run.steps
        if keep and self.restore:
            self._keep(run.net, self._checked_at)

    def _keep(self, net: Graph, step: int) -> None:
        if not self.restore:
            return
        if self._backend is not net.backend:
            self._backend = net.backend
            self._kept = [net.xp.empty_like(a) for a in (net.parameters, net.state)]
        for kept, a in zip(self._kept, (net.parameters, net.state)):
            kept[...] = a
        self._kept_at = step

    def _diverged(self, run: Run) -> None:
        net, step = run.net, run.steps
        where, layer = "", None
        if self._kept and self._backend is not None:
            for a, kept in zip((net.parameters, net.state), self._kept):
                a[...] = net.backend.asarray(self._backend.to_numpy(kept))
            run.step.release()                  # memory for running the batch again
            where, layer = self._find(run)
            net.state[...] = net.backend.asarray(self._backend.to_numpy(self._kept[1]))
            run.step.updater = run.step.optimizer.updater(net.buffers)
        run.history.diverged = True
        run.history.divergence = Divergence(run.epoch, step, self._checked_at, where, layer,
                                            self._kept_at if self._kept else None)

    def _find(self, run: Run) -> tuple[str, str | None]:
        """Where the first value that is not finite appears, in words, and the layer."""
        net, parallel = run.net, run.parallel
        found: list[tuple[int, Place]] = []     # with the batch, counted from the last one
        before = net.counters.copy()
        group = (run.batch - 1) % run.accumulate + 1
        try:
            for back in reversed(range(group)):
                # the masks of the batch that is run again
                by = np.array([-back - 1, 0], np.int64).astype(np.uint64)
                net.counters[...] = before + net.backend.asarray(by)
                found += [(-back, place) for place in _search(run, back)]
        except MemoryError:
            if parallel is not None and parallel.sync:
                raise                       # the other ranks wait for what this one has
            found.append((-group, (0, "in a layer that is not known, for lack of memory to run the "
                                   "batch again", None)))
        finally:
            net.counters[...] = before
            net.forget()
        if parallel is not None:            # each rank has looked at its shards
            found = [(back, tuple(place)) for of_rank in parallel.communicator.gather_objects(found)
                     for back, place in of_rank]
        if not found:
            return ("in the update of the parameters: with those of step "
                    f"{self._kept_at:,} all values of the batch are finite"), None
        _, (_, where, layer) = min(found, key=lambda one: (one[0], one[1][0]))
        return where, layer


@np.errstate(all="ignore")
def _search(run: Run, back: int) -> list[Place]:
    """Run a training step without its update, and return where the first value that is not finite
    appears in each part of the batch, if there is one.

    The gradients and the running statistics are those of the batch afterwards.
    """
    net, goals, parallel, found = run.net, run.step.goals, run.parallel, list[Place]()
    if parallel is not None and parallel.sync:
        compute_together(net, parallel, [goal.node for goal in goals], {
            shift // SHARD: _passes(net, goals, batch, found, True)
            for shift, batch in run.parts(back)}, lambda s: None)
        return found
    before = net.counters.copy()
    for shift, batch in run.parts(back):
        net.counters[...] = before
        net.counters[1:2] += before.dtype.type(shift)
        result_of(_passes(net, goals, batch, found, False))
    return found


def _passes(net: Graph, goals: tuple[Goal, ...], batch: Batch, places: list[Place], shared: bool
            ) -> Exchanging[None]:
    """The passes of a part of a batch: adds to `places` where the first value that is not finite
    appears. Only those of a shared batch go on then, because other shards wait for them."""
    found: list[Place] = []
    looks = count()

    def look(text: str, layer: str | None, *arrays: Array | None) -> None:
        number = next(looks)
        if not found and not all(a is None or _all_finite(net, a) for a in arrays):
            found.append((number, text, layer))

    def watch(side: str) -> Hook:
        def hook(node: Node, compute: Callable[..., Any], arrays: tuple[Array, ...]) -> Any:
            result = compute(*arrays)
            values = result if isinstance(result, tuple) else (result,)
            if side == "backward":
                values += tuple(p.grad for p in layer_of(node).parameters)
            look(f"in the {side} pass of {node.name}", node.name, *values)
            return result
        return hook

    inputs, outputs = len(net.in_nodes), len(goals)
    targets, weights = batch[inputs:inputs + outputs], batch[inputs + outputs:]
    xs, nodes = batch[:inputs], [goal.node for goal in goals]
    ys = yield from forward_pass(net, xs, nodes, TRAIN, hook=watch("forward"), shared=shared)
    masks, gradients = net.masks(xs, nodes), []
    for goal, y, target, mask in zip(goals, ys, targets, masks, strict=True):
        loss, dy = goal.gradient(net.backend, y, target, *weights, mask=mask)
        look("in the loss", None, loss)
        look("in the gradient of the loss", None, dy)
        gradients.append((goal.node, dy))
    if shared or not found:
        yield from backward_pass(net, gradients, hook=watch("backward"), shared=shared)
    places += found


def is_finite(net: Graph) -> bool:
    """Whether everything that training changes is finite."""
    with np.errstate(all="ignore"):
        return all(_all_finite(net, a) for a in (net.parameters, net.state))


def _all_finite(net: Graph, a: Array) -> bool:
    """Whether no element is NaN or infinite, by a sum, which reads the array once and needs no
    memory. It can also overflow: then each element is looked at."""
    if isinstance(a, np.ndarray):
        flat = a.reshape(-1)
        total = np.dot(flat, flat)      # of squares: by BLAS, in a quarter of the time of a.sum()
    else:
        total = net.backend.to_numpy(a.sum())
    return bool(np.isfinite(total)) or bool(net.backend.to_numpy(net.xp.isfinite(a).all()))
