"""The statistics of a whole data set in place of batch normalisation's running ones."""

from __future__ import annotations

from typing import Any

import numpy as np

from xpnet.checks import expect_instance
from xpnet.layer import Array, Node
from xpnet.layers.normalization import BatchNorm
from xpnet.memory import explained
from xpnet.network import Network
from xpnet.training import check_batch_sizes, expect_count, finite_samples


def population_statistics(net: Network, x: Any, *, batch_size: int = 256) -> None:
    """Batch norm's population statistics: E[x] = E[mean_B], Var[x] = m / (m - 1) E[var_B] over the
    batches B.

    Ioffe and Szegedy 2015, algorithm 2. Every batch norm that is trainable gets those of
    batch-first x: the network normalises with the statistics of each batch, as in training, in one
    pass over x. m counts the elements that a channel's mean is of, its pixels among them. A last
    batch that is smaller weighs less: E[x] = sum m mean_B / sum m, and Var[x] = sum m var_B / sum
    (m - 1), which for equal m are the paper's. Dropout is off, as it will be in predictions.
    Parameters stay as they are, and so does everything else where x is refused.
    """
    expect_instance("population_statistics", "net", net, Network, "a Network")
    layers = [layer for layer in net.layers if isinstance(layer, BatchNorm) and layer.trainable]
    if not layers:
        raise ValueError("population_statistics: expected a network with a batch norm that is "
                         "trainable. Received: none.")
    x = finite_samples(net, x, "population_statistics")
    batch_size = expect_count("population_statistics", "batch_size", batch_size)
    check_batch_sizes(net, len(x), batch_size)
    totals = {layer: _Totals(net, layer) for layer in layers}
    with explained(net, "population_statistics", batch_size), net.backend.stream():
        feed = net.backend.feed(x, net.dtype, batch_size)
        for start in range(0, len(x), batch_size):
            _pass(net, feed.batch(start, min(start + batch_size, len(x))), totals)
        for layer, total in totals.items():
            layer.mean.data[...] = total.first + total.means / total.elements
            layer.var.data[...] = total.variances / (total.elements - total.batches)


class _Totals:
    """Of one layer: the sums over the batches of m (mean_B - first) and of m var_B, in float64, of
    m and of 1.

    `first` is the first batch's mean. A channel that is constant has exactly this one.
    """

    first: Array

    def __init__(self, net: Network, layer: BatchNorm) -> None:
        self.means, self.variances = (net.backend.zeros(layer.mean.shape, np.float64)
                                      for _ in range(2))
        self.elements = self.batches = 0

    def add(self, mean: Array, var: Array, m: int) -> None:
        mean = mean.astype(np.float64)
        self.first = self.first if self.batches else mean
        self.means += (mean - self.first) * m
        self.variances += var.astype(np.float64) * m
        self.elements += m
        self.batches += 1


def _pass(net: Network, x: Array, totals: dict[BatchNorm, _Totals]) -> None:
    """One batch through the network; batch norms use its statistics and add them to `totals`,
    everything else predicts."""
    values: dict[Node, Array] = {net.input: x}
    for node in net.nodes:
        layer, inputs = node.layer, [values[parent] for parent in node.parents]
        assert layer is not None
        if isinstance(layer, BatchNorm) and layer in totals:
            values[node], _, mean, var = layer.normalised(*inputs)
            totals[layer].add(mean, var, inputs[0].size // len(inputs[0]))
        else:
            values[node] = layer.forward(*inputs)
