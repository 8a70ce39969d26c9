"""Mean and standard deviation of predictions with dropout on."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer
from xpnet.graph import Graph
from xpnet.inspect.memory import explained
from xpnet.layer import SAMPLE, Array
from xpnet.training.batches import Batches
from xpnet.training.goals import known_goals, probability
from xpnet.training.prediction import as_given, inputs_of


def predict_samples(net: Graph, x: Any, samples: int = 50, *, lengths: Any = None, loss: Any = None,
                    batch_size: int = 256) -> tuple[Any, Any]:
    """Predictions with a spread: mean = 1/T sum over t of y_t, spread^2 = 1/T sum over t of
    (y_t - mean)^2, T = samples.

    y_t is the prediction with the dropout masks number t. mean and spread are float64 arrays
    (N, ...).

    If the loss includes the softmax (cross entropy) or the sigmoid (binary cross entropy), it is
    applied to each y_t, so that `mean` is a probability distribution. Other outputs are averaged as
    they are.

    Other layers, such as batch norm, work as in a prediction. Each sample of a batch has its own
    masks, which depend on the seed and the step of the network. The network does not change, so
    the same call returns the same numbers. The masks number 1 are those of
    `net(x, mode="sample")`.

    Args:
        x: batch-first samples (N, ...); or a Dataset.
        samples: number of predictions, T.
        loss: that of the last `fit` by default.

    Raises:
        ValueError: `loss` is missing and the network does not know one.

    Source: Gal and Ghahramani 2016, section 4, without the variance of the observation noise.
    """
    who = "predict_samples"
    expect_instance(who, "net", net, Graph, "a Network")
    aims = known_goals(net, loss, None, who)
    xs = inputs_of(net, x, who, lengths)
    samples = expect_integer(who, "samples", samples)
    batch_size = expect_integer(who, "batch_size", batch_size)
    means, spreads = ([np.empty((len(xs[0]), *node.shape)) for node in net.outs.nodes]
                      for _ in range(2))
    with explained(net, who, batch_size, mode=SAMPLE), net.backend.stream():
        batches, before = Batches(net, xs, batch_size), net.counters.copy()
        probabilities = [probability(net.backend, goal) for goal in aims]
        try:
            for number in range(len(batches)):
                found = _moments(net, batches.get(number), samples, probabilities)
                for mean, spread, moments in zip(means, spreads, found, strict=True):
                    for out, figure in zip((mean, spread), moments, strict=True):
                        out[slice(*batches.span(number))] = np.moveaxis(
                            net.backend.to_numpy(figure), -1, 0)
        finally:
            net.counters[...] = before
    nodes = net.outs.nodes
    return (net.outs.pack(as_given(net, xs, nodes, means, lengths)),
            net.outs.pack(as_given(net, xs, nodes, spreads, lengths)))


def samples_of(net: Graph, x: Any, samples: int = 50, *, loss: Any = None) -> Any:
    """The predictions y_t themselves, t = 1 .. T, of which `predict_samples` computes mean and
    spread, with the same masks: (T, N, ...); for several outputs a list or dict.

    Args:
        x: batch-first samples (N, ...), which are one batch: the masks are those of
            `predict_samples` if its batch_size is N or larger.
        samples: number of predictions, T.
        loss: that of the last `fit` by default.

    Raises:
        ValueError: `loss` is missing and the network does not know one.
    """
    who = "samples_of"
    expect_instance(who, "net", net, Graph, "a Network")
    aims = known_goals(net, loss, None, who)
    xs = net.check_inputs(x)
    samples = expect_integer(who, "samples", samples)
    found = [np.empty((samples, len(xs[0]), *node.shape), net.dtype) for node in net.outs.nodes]
    with explained(net, who, len(xs[0]), mode=SAMPLE), net.backend.stream():
        batch, before = Batches(net, xs, len(xs[0])).get(0), net.counters.copy()
        probabilities = [probability(net.backend, goal) for goal in aims]
        try:
            for t in range(samples):
                ys = _drawn(net, batch, probabilities)
                for out, y in zip(found, ys, strict=True):
                    out[t] = np.moveaxis(net.backend.to_numpy(y), -1, 0)
        finally:
            net.counters[...] = before
    return net.outs.pack(found)


def _drawn(net: Graph, xs: Sequence[Array], probabilities: Sequence[Callable[[Array], Array]]
           ) -> list[Array]:
    """One prediction with dropout on, with masks of its own."""
    ys = net.run(xs, net.outs.nodes, SAMPLE)
    net.counters[1] += net.counters.dtype.type(1)
    ys = [function(y) for function, y in zip(probabilities, ys, strict=True)]
    return net.without_padding(xs, net.outs.nodes, ys)


def _moments(net: Graph, xs: Sequence[Array], samples: int,
             probabilities: Sequence[Callable[[Array], Array]]) -> list[tuple[Array, Array]]:
    """Mean and standard deviation of each output for a batch, without keeping the predictions
    (Welford 1962)."""
    shapes = [(*node.shape, xs[0].shape[-1]) for node in net.outs.nodes]
    sums = [(net.backend.zeros(shape, np.float64), net.backend.zeros(shape, np.float64))
            for shape in shapes]
    for t in range(1, samples + 1):
        for (mean, squares), y in zip(sums, _drawn(net, xs, probabilities), strict=True):
            y = y.astype(np.float64)
            difference = y - mean
            mean += difference / t
            squares += difference * (y - mean)
    return [(mean, net.xp.sqrt(squares / samples)) for mean, squares in sums]
