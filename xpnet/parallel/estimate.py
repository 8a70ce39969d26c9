"""How long a step takes with several ranks, computed by a formula."""

from __future__ import annotations

import math
from typing import NamedTuple

from xpnet.checks import expect_instance, expect_integer, expect_number, expect_positive
from xpnet.graph import Graph
from xpnet.inspect.speed import product_speed

MEASURED = 0.2          # seconds in which the speed of a product is measured


class Estimate(NamedTuple):
    """A step with `ranks` ranks: seconds of computing and of exchange, their sum, the bytes that
    each rank sends, the efficiency, and the number of ranks with the shortest step."""

    ranks: int
    compute: float
    exchange: float
    seconds: float
    bytes: float
    efficiency: float
    best_ranks: float

    def __str__(self) -> str:
        best = ("more ranks are always faster" if math.isinf(self.best_ranks) else
                f"the shortest step is that of {self.best_ranks:,.0f} ranks")
        return (f"{self.ranks:,} ranks: {1e3 * self.seconds:.3g} ms for a step, "
                f"{1e3 * self.compute:.3g} ms of them computing; {self.bytes / 1e6:,.1f} MB sent "
                f"by each rank; efficiency {100 * self.efficiency:.0f} %; {best}")


def estimate(net: Graph, batch: int, ranks: int, bandwidth: float, latency: float, *,
             seconds: float | None = None) -> Estimate:
    """The time of a step whose batch is shared by p ranks, without overlap of computing and
    exchange:

        T(p) = T(1) / p + 2 (p - 1) / p B / bandwidth + 2 (p - 1) latency
        efficiency = T(1) / (p T(p))

    B are the bytes of the gradients and the state. Each rank sends 2 (p - 1) messages of B / p
    bytes, as in a ring all-reduce; no all-reduce can send fewer bytes. T(p) is smallest at
    p = sqrt((T(1) - 2 B / bandwidth) / (2 latency)).

    Args:
        net: the network.
        batch: samples of the whole batch.
        ranks: p.
        bandwidth: bytes per second that one rank can send while it receives as many.
        latency: seconds that a message takes in addition.
        seconds: T(1), a measured time of a step with the whole batch on one rank. By default 6
            operations for each multiply-add of the network and sample, at the speed of a large
            matrix product, which is measured. That is a lower bound.

    Patarasuk and Yuan 2009, "Bandwidth optimal all-reduce algorithms for clusters of workstations".
    """
    who = "estimate"
    expect_instance(who, "net", net, Graph, "a Network")
    batch, ranks = expect_integer(who, "batch", batch), expect_integer(who, "ranks", ranks)
    bandwidth = expect_positive(who, "bandwidth", bandwidth)
    latency = expect_number(who, "latency", latency, 0)
    if seconds is None:
        operations = sum(node.layer.multiply_adds() for node in net.nodes if node.layer)
        seconds = 6 * operations * batch / product_speed(net.backend, net.dtype, MEASURED)
    whole = expect_number(who, "seconds", seconds, 0)
    size = (net.grads.size + net.state.size) * net.dtype.itemsize
    sent = 2 * (ranks - 1) / ranks * size
    exchange = sent / bandwidth + 2 * (ranks - 1) * latency
    compute = whole / ranks
    gain = whole - 2 * size / bandwidth         # of infinitely many ranks without latency
    best = 1.0 if gain <= 0 else max(1.0, math.sqrt(gain / (2 * latency)) if latency else math.inf)
    efficiency = compute / (compute + exchange) if whole else 0.0
    return Estimate(ranks, compute, exchange, compute + exchange, sent, efficiency, best)
