"""Predictions with a spread: the mean and the standard deviation of many forward passes with
dropout on."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.checks import expect_instance
from xpnet.layer import SAMPLE, Array
from xpnet.losses import Loss
from xpnet.memory import explained
from xpnet.network import Network
from xpnet.step import loss_input
from xpnet.training import expect_count, known_loss


def predict_samples(net: Network, x: Any, samples: int = 50, *, loss: str | Loss | None = None,
                    batch_size: int = 256
                    ) -> tuple[np.ndarray, np.ndarray]:
    """Predictions with a spread: mean = 1/T sum over t of y_t, spread^2 = 1/T sum over t of (y_t -
    mean)^2, T = samples.

    y_t are the predictions for batch-first x (N, ...) with dropout's masks number t; mean and
    spread are float64 arrays (N, ...). Where the loss includes the softmax (cross entropy) or the
    sigmoid (binary cross entropy), y_t are probabilities: it is applied to each y_t, so that `mean`
    is a distribution, too. Other outputs are averaged as they are. `loss` is that of the last fit
    by default; ValueError for a network that was not trained here, which needs it. Gal and
    Ghahramani 2016, section 4, without the variance of the data's own noise, which they add.

    Batch norm and the like are as in a prediction. Each sample of a batch has masks of its own,
    which follow from the network's seed and step; nothing of the network changes, so that the same
    call gives the same figures. The first sample is what `net(x, mode="sample")` would give.
    """
    expect_instance("predict_samples", "net", net, Network, "a Network")
    probability = _probability(net, known_loss(net, loss, "predict_samples"))
    x = net.check_input(x)
    samples = expect_count("predict_samples", "samples", samples)
    batch_size = expect_count("predict_samples", "batch_size", batch_size)
    mean, spread = np.empty((2, len(x), *net.output.shape))
    with explained(net, "predict_samples", batch_size, mode=SAMPLE), net.backend.stream():
        feed, before = net.backend.feed(x, net.dtype, batch_size), net.counters.copy()
        try:
            for start in range(0, len(x), batch_size):
                stop = min(start + batch_size, len(x))
                figures = _moments(net, feed.batch(start, stop), samples, probability)
                for out, figure in zip((mean, spread), figures, strict=True):
                    out[start:stop] = np.moveaxis(net.backend.to_numpy(figure), -1, 0)
        finally:
            net.counters[...] = before
    return mean, spread


def _probability(net: Network, loss: Loss) -> Callable[[Array], Array]:
    """What makes a prediction of the network's output: softmax, sigmoid, or nothing."""
    # or the last layer does it
    if not loss.takes_logits or loss_input(net, loss)[0] is not net.output:
        return lambda y: y
    if loss.takes_logits == "softmax":
        return net.backend.softmax
    return lambda y: net.backend.activate(y, "sigmoid")


def _moments(net: Network, x: Array, samples: int, probability: Callable[[Array], Array]
             ) -> tuple[Array, Array]:
    """Mean and standard deviation of this number of predictions for a batch, without keeping them
    (Welford 1962)."""
    shape = (*net.output.shape, x.shape[-1])
    mean, squares = net.backend.zeros(shape, np.float64), net.backend.zeros(shape, np.float64)
    for t in range(1, samples + 1):
        y = probability(net.forward(x, SAMPLE)).astype(np.float64)
        net.counters[1] += net.counters.dtype.type(1)
        difference = y - mean
        mean += difference / t
        squares += difference * (y - mean)
    return mean, net.xp.sqrt(squares / samples)
