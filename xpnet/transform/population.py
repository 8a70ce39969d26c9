"""Population statistics: batch norms with the statistics of a whole data set instead of running
ones."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np

from xpnet.checks import expect_instance, expect_integer
from xpnet.graph import Graph
from xpnet.inspect.memory import explained
from xpnet.layer import Array
from xpnet.layers.normalization import BatchNorm
from xpnet.node import Node
from xpnet.training.batches import Batches, check_batch_sizes, finite_samples


def population_statistics(net: Graph, x: Any, *, batch_size: int = 256) -> None:
    """Batch norm's population statistics: E[x] = E[mean_B], Var[x] = m / (m - 1) E[var_B] over the
    batches B.

    They replace the running statistics of all trainable batch norms. m is the number of elements
    per channel in a batch (pixels times samples). If it differs between batches,
    E[x] = sum of m mean_B / sum of m and Var[x] = sum of m var_B / sum of (m - 1).

    In one pass over x, the network normalises with the statistics of each batch, as in training,
    and dropout is off, as in predictions. Parameters do not change.

    Args:
        x: batch-first samples.

    Raises:
        ValueError: the network has no trainable batch norm, or x is not finite or does not fit it.

    Source: Ioffe and Szegedy 2015, algorithm 2.
    """
    expect_instance("population_statistics", "net", net, Graph, "a Network")
    layers = [layer for layer in net.layers if isinstance(layer, BatchNorm) and layer.trainable]
    if not layers:
        raise ValueError("population_statistics: expected a network with a trainable batch norm. "
                         "Received: none.")
    xs = finite_samples(net, x, "population_statistics")
    batch_size = expect_integer("population_statistics", "batch_size", batch_size)
    check_batch_sizes(net, len(xs[0]), batch_size)
    totals = {layer: _Totals(net, layer) for layer in layers}

    def normalise(node: Node, forward: Callable[..., Array], inputs: tuple[Array, ...]) -> Array:
        """Batch norms use and sum up the statistics of the batch; other layers predict."""
        layer = node.layer
        if not isinstance(layer, BatchNorm) or layer not in totals:
            return forward(*inputs)
        y, _, mean, var = layer.normalised(*inputs)
        totals[layer].add(mean, var, inputs[0].size // len(inputs[0]))
        return y

    with explained(net, "population_statistics", batch_size), net.backend.stream():
        batches = Batches(net, xs, batch_size)
        for number in range(len(batches)):
            net.run(batches.get(number), net.outs.nodes, hook=normalise)
        for layer, total in totals.items():
            layer.mean.data[...] = total.first + total.means / total.elements
            layer.var.data[...] = total.variances / (total.elements - total.batches)


class _Totals:
    """Sums over the batches for one layer: of m (mean_B - first) and m var_B in float64, of m and
    of 1.

    `first` is the mean of the first batch. So the mean of a constant channel is exact.
    """

    first: Array

    def __init__(self, net: Graph, layer: BatchNorm) -> None:
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
