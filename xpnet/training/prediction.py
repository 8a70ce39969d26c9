"""Evaluation and prediction over batch-first arrays."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any

import numpy as np

from xpnet.checks import expect_integer, shown, warn_caller
from xpnet.graph import Graph
from xpnet.graph_checks import softmax_below
from xpnet.inspect.memory import explained
from xpnet.layer import PREDICT, Array
from xpnet.losses import Loss
from xpnet.node import Node
from xpnet.parallel.communicator import Communicator
from xpnet.parallel.ranks import DataParallel, block, in_ranks
from xpnet.ragged import cut, expect_no_lengths, real_steps
from xpnet.training.batches import Batch, Batches, check_samples, steps_of
from xpnet.training.datasets import Samples, is_dataset
from xpnet.training.goals import Goal, known_goals, probability
from xpnet.training.known import expect_known
from xpnet.training.same import fingerprint, network_facts
from xpnet.training.totals import SUMS, Totals

FEWEST = 8      # full batches for which a forward pass is captured: recording it takes time, too


class Forward:
    """Calls work(batch) for batches of one size, captured on a GPU if there are enough of them.

    What a call returns is overwritten by the next one.

    Args:
        batches: where the batches come from.
        work: computes in prediction mode, e.g. a forward pass, and returns arrays.
        who: the caller's name, for a warning.
        times: how often all batches are computed; 0 to capture nothing.
    """

    def __init__(self, batches: Batches, work: Callable[[Batch], Any], who: str, times: int = 1
                 ) -> None:
        self.batches, self._work, self._who = batches, work, who
        self._failures: list[str] = []
        self._captured: Callable[[], Any] | None = None
        backend, full = batches.backend, batches.samples // batches.size
        if backend.captures and full * times >= FEWEST:
            self._places: Batch = tuple(backend.empty(shape, dtype)
                                        for shape, dtype in batches[0].layout)
            self._captured = backend.capture(
                partial(_gathered, work, batches, self._places, backend.zeros((1,), np.uint64)),
                self._failures.append)

    def __call__(self, number: int) -> Any:
        batch = self.batches[number]
        if self._captured is None or batch.stop - batch.start < self.batches.size:
            return self._work(batch.arrays())
        batch.write(self._places)
        result = self._captured()
        batch.done()
        if self._failures:
            self._captured = None
            warn_caller(f"{self._who}: the forward pass could not be captured and runs launch by "
                        f"launch ({self._failures[0]})", UserWarning)
        return result


def _gathered(work: Callable[[Batch], Any], batches: Batches, places: Batch, passes: Array) -> Any:
    """The work on the batch at the position of `batches`, which moves on; `passes` is counted."""
    position = batches.gather(places)
    result = work(places)
    batches.backend.advance(passes, *position)
    return result


class Evaluation:
    """The figures of a network on batches of samples and targets.

    Args:
        net: the network.
        batches: samples and targets.
        aims: the goals.
        who: the caller's name, for a warning.
        times: how often `run` will be called; 0 to capture nothing.
        communicator: of the ranks that share the batches.
    """

    def __init__(self, net: Graph, batches: Batches, aims: Sequence[Goal], who: str,
                 times: int = 1, communicator: Communicator | None = None) -> None:
        self.net, self.batches, self.aims = net, batches, aims
        self.who, self.times, self.communicator = who, times, communicator
        self.totals = Totals(net.backend, aims)
        self._forward: Forward | None = None

    def run(self, outputs: Sequence[np.ndarray] = ()) -> dict[str, float]:
        """The figures; the network's outputs are written to `outputs`, if there are some. All
        calls pass outputs or none does, because a captured pass computes them or does not."""
        if self._forward is None:
            nodes = self.net.outs.nodes if outputs else ()
            self._forward = Forward(self.batches, partial(_evaluated, self.net, self.aims, nodes,
                                                          self.totals), self.who, self.times)
        self.totals.reset()
        if self.communicator is None:
            _collect(self._forward, outputs)
        else:
            self._collect_in_ranks(self._forward, self.communicator, outputs)
        return self.totals.result()

    def _collect_in_ranks(self, forward: Forward, communicator: Communicator,
                          outputs: Sequence[np.ndarray]) -> None:
        """The sums of each batch are added in the order of the batches, as one process does it."""
        totals, sums = self.totals, list[np.ndarray]()

        def one_batch(number: int) -> Any:
            totals.reset()
            found = forward(number)
            sums.append(np.stack(totals.values()))
            return found

        _collect(forward, outputs, communicator, one_batch)
        most = -(-len(self.batches) // communicator.size)
        own = np.zeros((most, len(self.aims), SUMS))
        own[:len(sums)] = np.stack(sums) if sums else 0
        every = communicator.gather(own.reshape(-1)).reshape(-1, *own.shape[1:])
        totals.reset()
        for values in every[:len(self.batches)]:
            totals.add_table(self.net.backend.asarray(values))


def _evaluated(net: Graph, aims: Sequence[Goal], nodes: Sequence[Node], totals: Totals,
               batch: Batch) -> list[Array]:
    """Add a batch to the totals; the values of some nodes."""
    count, reads = len(net.in_nodes), [goal.node for goal in aims]
    xs, targets = batch[:count], batch[count:]
    values, masks = net.run(xs, [*reads, *nodes]), net.masks(xs, reads)
    ys = values[:len(reads)]
    losses = [goal.loss.checked(net.backend, y, target, mask=mask)[0]
              for goal, y, target, mask in zip(aims, ys, targets, masks, strict=True)]
    totals.add(losses, ys, targets, masks)
    return values[len(reads):]


def _collect(forward: Forward, outs: Sequence[np.ndarray],
             communicator: Communicator | None = None,
             compute: Callable[[int], Any] | None = None) -> None:
    """Compute all batches, and write what that returns to the host's arrays `outs`. Ranks compute
    different batches, and have all of the arrays afterwards."""
    batches, compute = forward.batches, compute or forward
    numbers = (range(len(batches)) if communicator is None else
               block(len(batches), communicator.rank, communicator.size))
    with batches.backend.collector() as collector:
        for number in numbers:
            for out, y in zip(outs, compute(number), strict=True):
                collector.put(y, out[slice(*batches.span(number))])
    if communicator is not None:
        for root in range(communicator.size):
            own = block(len(batches), root, communicator.size)
            if own:
                part = slice(batches.span(own[0])[0], batches.span(own[-1])[1])
                for out in outs:
                    communicator.broadcast(out[part], root)


@in_ranks
def evaluate(net: Graph, x: Any, y: Any = None, *, lengths: Any = None,
             loss: str | Loss | Any = None, loss_weights: Any = None, batch_size: int = 256,
             metrics: Mapping[str, Callable[[Any, Any], Any]] | None = None,
             parallel: Any = None) -> dict[str, Any]:
    """Loss and, for classes, accuracy: {"loss": ..., "accuracy": ...}.

    For several outputs there are the figures of each, too: {"loss", "digit_loss",
    "digit_accuracy", ...}.

    Args:
        net: the network.
        x: samples (N, ...), batch-first; for several inputs a list or dict of arrays; or a Dataset.
        y: targets; for several outputs a list or dict; None for a Dataset.
        lengths: see `fit`.
        loss: see `fit`; by default the loss of the last fit.
        loss_weights: see `fit`.
        batch_size: samples of a forward pass.
        metrics: names, and functions of what `predict` returns and of the targets, e.g.
            {"f1": xn.metrics.f1_score}. What they return is added under these names. Of an output
            with lengths they are given the real steps of all samples: (P, K), and targets (P, ...).
        parallel: see `fit`: the processes compute different batches. Each returns the figures, with
            the bits of one process.

    Raises:
        ValueError: a Dataset has other classes or another scale than the network was trained with,
            or `loss` is missing and the network was not trained.
    """
    aims = known_goals(net, loss, loss_weights, "evaluate")
    batch_size = expect_integer("evaluate", "batch_size", batch_size)
    if is_dataset(x):
        expect_known(net.trained, x, "evaluate")
    data = check_samples(net, x, y, aims, "evaluate", lengths)
    if (metrics is not None
            and not (isinstance(metrics, Mapping)
                     and all(callable(metric) for metric in metrics.values()))):
        raise TypeError("evaluate: expected metrics to be a dict of names and functions. "
                        f"Received: {shown(metrics)}.")
    communicator = _agreed(parallel, net, data, batch_size, "evaluate")
    outputs = _host_arrays(net, net.outs.nodes, len(data[0])) if metrics else None
    with explained(net, "evaluate", batch_size, mode=PREDICT), net.backend.stream():
        evaluation = Evaluation(net, Batches(net, data, batch_size), aims, "evaluate",
                                communicator=communicator)
        figures: dict[str, Any] = dict(evaluation.run(outputs or ()))
    if metrics and outputs is not None:
        packed, targets = (net.outs.pack([a if numbers is None else real_steps(a, numbers[:, 0])
                                          for a, numbers in zip(arrays, steps_of(
                                              net, data, net.outs.nodes), strict=True)])
                           for arrays in (outputs, data[len(net.in_nodes):]))
        figures |= {name: metric(packed, targets) for name, metric in metrics.items()}
    return figures


def _agreed(parallel: DataParallel | None, net: Graph, data: Sequence[Any], batch_size: int,
            who: str) -> Communicator | None:
    """The communicator, once all ranks are known to have the same network and data."""
    if parallel is None:
        return None
    parallel.agree(who, network_facts(net) | {"batch_size": batch_size,
                                              "samples": [fingerprint(a) for a in data]})
    return parallel.communicator


@in_ranks
def predict(net: Graph, x: Any, *, lengths: Any = None, batch_size: int = 256,
            parallel: Any = None) -> Any:
    """The network's output as a batch-first NumPy array; for several outputs a list or dict.

    An output with lengths is a list of arrays (D, T_i) if x is one, and else padded with 0.

    Args:
        net: the network.
        x: samples (N, ...), batch-first; for several inputs a list or dict of arrays; or a Dataset.
        lengths: see `fit`.
        batch_size: samples of a forward pass.
        parallel: see `fit`: the processes compute different batches. Each returns all of the
            output, with the bits of one process.
    """
    return net.outs.pack(values_of(net, x, net.outs.nodes, batch_size, "predict", lengths,
                                   parallel))


def predict_proba(net: Graph, x: Any, *, lengths: Any = None, loss: Any = None,
                  batch_size: int = 256) -> Any:
    """Probabilities for x, batch-first: softmax or sigmoid of the output if the loss includes it,
    or the output itself if the last layer is one of them. For several outputs a list or dict.

    Args:
        net: the network.
        x: samples (N, ...), batch-first; for several inputs a list or dict of arrays; or a Dataset.
        lengths: see `fit`; outputs are as those of `predict`.
        loss: that of the last `fit` by default.
        batch_size: samples of a forward pass.

    Raises:
        ValueError: neither the loss nor the last layer is about probabilities, or `loss` is missing
            and the network was not trained.
    """
    who = "predict_proba"
    aims = known_goals(net, loss, None, who)
    for goal in aims:
        if not (goal.loss.takes_logits or softmax_below(goal.output)):
            raise ValueError(f"{who}: expected a loss that includes softmax or sigmoid. Received: "
                             f"{goal.loss.who}; predict returns the output.")
    return net.outs.pack(changed_outputs(
        net, x, [probability(net.backend, goal) for goal in aims], batch_size, who, lengths))


def changed_outputs(net: Graph, x: Any, functions: Sequence[Callable[[Array], Array]],
                    batch_size: Any, who: str, lengths: Any = None) -> list[Any]:
    """Functions of the outputs, one for each, for batch-first x, as batch-first NumPy arrays, or as
    lists of arrays, see `predict`."""
    return _predicted(net, x, net.outs.nodes, partial(_changed, net, functions), batch_size, who,
                      lengths)


def _changed(net: Graph, functions: Sequence[Callable[[Array], Array]], batch: Batch
             ) -> list[Array]:
    ys = net.run(batch, net.outs.nodes)
    ys = [function(y) for function, y in zip(functions, ys, strict=True)]
    return net.without_padding(batch, net.outs.nodes, ys)


def inputs_of(net: Graph, x: Any, who: str, lengths: Any = None) -> Sequence[Any]:
    """What Batches make the inputs of: checked arrays, or the samples of a Dataset."""
    if not is_dataset(x):
        return net.check_inputs(x, lengths)
    expect_no_lengths(lengths, who)
    expect_known(net.trained, x, who)
    return [Samples(net, x, who=who)]


def values_of(net: Graph, x: Any, nodes: Sequence[Node], batch_size: int, who: str,
              lengths: Any = None, parallel: DataParallel | None = None) -> list[Any]:
    """The values of some nodes for batch-first x, as batch-first NumPy arrays, or as lists of
    arrays, see `predict`."""
    return _predicted(net, x, nodes, partial(_values, net, nodes), batch_size, who, lengths,
                      parallel)


def _values(net: Graph, nodes: Sequence[Node], batch: Batch) -> list[Array]:
    return net.without_padding(batch, nodes, net.run(batch, nodes))


def _predicted(net: Graph, x: Any, nodes: Sequence[Node], work: Callable[[Batch], list[Array]],
               batch_size: Any, who: str, lengths: Any, parallel: DataParallel | None = None
               ) -> list[Any]:
    """What `work` makes of all batches, for some nodes."""
    xs, batch_size = inputs_of(net, x, who, lengths), expect_integer(who, "batch_size", batch_size)
    communicator = _agreed(parallel, net, xs, batch_size, who)
    outs = _host_arrays(net, nodes, len(xs[0]))
    with explained(net, who, batch_size, mode=PREDICT), net.backend.stream():
        _collect(Forward(Batches(net, xs, batch_size), work, who), outs, communicator)
    return as_given(net, xs, nodes, outs, lengths)


def as_given(net: Graph, xs: Sequence[Any], nodes: Sequence[Node], arrays: Sequence[np.ndarray],
             lengths: Any) -> list[Any]:
    """Batch-first values of nodes: lists of arrays without padding, if x was such a list."""
    return [a if lengths is not None or numbers is None else cut(a, numbers[:, 0])
            for a, numbers in zip(arrays, steps_of(net, xs, nodes), strict=True)]


def _host_arrays(net: Graph, nodes: Sequence[Node], samples: int) -> list[np.ndarray]:
    return [np.empty((samples, *node.shape), net.dtype) for node in nodes]
