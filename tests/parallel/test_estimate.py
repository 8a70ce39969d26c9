"""The estimated time of a step with several ranks."""

from __future__ import annotations

import math
import sys

import pytest
from nets import small

from xpnet.parallel import estimate


def ring(sizes: list[int], bandwidth: float, latency: float) -> tuple[float, int]:
    """Seconds and bytes per rank of a ring all-reduce, step by step: p - 1 steps that add pieces,
    and p - 1 that pass them on; the largest piece decides."""
    seconds, sent = 0.0, 0
    for _ in range(2 * (len(sizes) - 1)):
        seconds += latency + max(sizes) / bandwidth
        sent += max(sizes)
    return seconds, sent


@pytest.mark.parametrize("ranks", [1, 2, 4, 8])
def test_the_exchange_is_a_ring_all_reduce(ranks):
    net = small()
    size = net.grads.nbytes
    found = estimate(net, 64, ranks, 1e6, 1e-4, seconds=0.5)
    seconds, sent = ring([size // ranks] * ranks, 1e6, 1e-4)
    assert found.bytes == pytest.approx(sent)
    assert found.exchange == pytest.approx(seconds)
    assert found.seconds == pytest.approx(0.5 / ranks + seconds)
    assert found.efficiency == pytest.approx(0.5 / ranks / found.seconds)


def test_the_shortest_step_is_that_of_the_best_number_of_ranks():
    net = small()
    best = estimate(net, 64, 1, 1e6, 1e-4, seconds=0.5).best_ranks
    times = {p: estimate(net, 64, p, 1e6, 1e-4, seconds=0.5).seconds for p in range(1, 200)}
    assert abs(min(times, key=times.__getitem__) - best) < 1
    assert estimate(net, 64, 2, 1e6, 0.0, seconds=0.5).best_ranks == math.inf
    assert estimate(net, 64, 2, 1e3, 1e-4, seconds=1e-3).best_ranks == 1
    assert "the shortest step is that of" in str(estimate(net, 64, 2, 1e6, 1e-4, seconds=0.5))


def test_by_default_the_step_is_as_fast_as_a_product(monkeypatch):
    """6 operations for each of 2 x 16 + 16 x 3 multiply-adds and each sample."""
    monkeypatch.setattr(sys.modules["xpnet.parallel.estimate"], "product_speed",
                        lambda backend, dtype, seconds: 1e6)
    assert estimate(small(), 1_000, 2, 1e9, 0.0).compute == pytest.approx(6 * 80 * 1e3 / 1e6 / 2)


@pytest.mark.parametrize("name, values", [("ranks", (64, 0, 1e9, 0.0)),
                                          ("bandwidth", (64, 2, 0, 0.0)),
                                          ("latency", (64, 2, 1e9, -1)), ("batch", (0, 2, 1e9, 0))])
def test_numbers_are_checked(name, values):
    with pytest.raises(ValueError, match=f"estimate: expected {name}"):
        estimate(small(), *values, seconds=1.0)
