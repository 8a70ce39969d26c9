"""The learning rate finder: a short training with growing learning rates."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np

from xpnet.checks import expect_integer, expect_positive, wrong
from xpnet.graph import Graph
from xpnet.initializers import generator
from xpnet.inspect.memory import explained
from xpnet.optim import Optimizer, get_optimizer
from xpnet.training.batches import Batches, check_batch_sizes, check_samples
from xpnet.training.step import TrainStep

SMOOTHING = 0.9         # of the running mean of the losses
TOO_LARGE = 4.0         # times the smallest loss: the training diverges


@dataclass(frozen=True)
class LearningRates:
    """What `find_lr` measured.

    `rates`: the learning rate of each step.
    `losses`: the loss before each step.
    `smoothed`: their running mean, with its bias corrected.
    `suggestion`: the learning rate at which the smoothed loss falls most steeply over log(rate);
        None if it falls nowhere.
    """

    rates: tuple[float, ...]
    losses: tuple[float, ...]
    smoothed: tuple[float, ...]
    suggestion: float | None

    def plot(self, *, ax: Any = None) -> Any:
        """A matplotlib Figure of the losses over the rates, with the suggestion as a vertical line;
        see xpnet.viz.show_rates."""
        from xpnet.viz.curves import show_rates
        return show_rates(self, ax=ax)


def find_lr(net: Graph, x: Any, y: Any, *, loss: Any, optimizer: str | Optimizer = "adam",
            batch_size: int = 32, low: float = 1e-7, high: float = 10.0, steps: int = 100
            ) -> LearningRates:
    """Train for some steps with the learning rates low (high / low)^(k / (steps - 1)), k = 0, 1,
    ..., and suggest one (Smith 2017, section 3.3).

    It ends early if the smoothed loss is more than 4 times its smallest value, or not finite. The
    running mean of the losses is m = 0.9 m + 0.1 L, divided by 1 - 0.9^(k + 1). Parameters, state,
    counters and the network's last training are afterwards as they were. Each step waits for a
    GPU.

    Args:
        net: the network.
        x: samples (N, ...), batch-first; for several inputs a list or dict of arrays.
        y: targets, as for `fit`.
        loss: as for `fit`.
        optimizer: as for `fit`; its own learning rate is not used, and its state starts anew.
        batch_size: samples of a step.
        low: the first learning rate.
        high: the last one, above `low`.
        steps: how many steps, 2 or more.
    """
    who = "find_lr"
    net.expect_whole(who)
    optimizer = get_optimizer(optimizer, who)
    step = TrainStep(net, loss, optimizer, capture=False)
    data = check_samples(net, x, y, step.goals, who)
    batch_size, steps = (expect_integer(who, "batch_size", batch_size),
                         expect_integer(who, "steps", steps, 2))
    low, high = expect_positive(who, "low", low), expect_positive(who, "high", high)
    if low >= high:
        raise wrong(who, f"high to be larger than low, {low:g}", "high", high)
    check_batch_sizes(net, len(data[0]), batch_size)
    rates: list[float] = []
    losses: list[float] = []
    smoothed: list[float] = []
    mean = 0.0
    with explained(net, who, batch_size, optimizer), net.backend.stream():
        before = [(a, a.copy()) for a in (net.parameters, net.grads, net.state, net.counters)]
        batches = Batches(net, data, batch_size)
        try:
            for k in range(steps):
                turn, number = divmod(k, len(batches))
                if number == 0:
                    order = generator(net.seed, f"find_lr {turn}").permutation(batches.samples)
                    batches.arrange(order)
                rate = low * (high / low) ** (k / (steps - 1))
                with np.errstate(all="ignore"):
                    found, _ = step.train(batches[number], rate)
                value = float(net.backend.to_numpy(found))
                first = losses[0] if losses else value      # so that equal losses stay equal
                mean = SMOOTHING * mean + (1 - SMOOTHING) * (value - first)
                now = first + mean / (1 - SMOOTHING ** (k + 1))
                if not math.isfinite(now) or smoothed and now > TOO_LARGE * abs(min(smoothed)):
                    break
                rates.append(rate)
                losses.append(value)
                smoothed.append(now)
        finally:
            for a, values in before:
                a[...] = values
    return LearningRates(tuple(rates), tuple(losses), tuple(smoothed), _steepest(rates, smoothed))


def _steepest(rates: list[float], smoothed: list[float]) -> float | None:
    """The rate where the smoothed loss falls most steeply over log(rate)."""
    if len(rates) < 2:
        return None
    slopes = np.gradient(np.array(smoothed), np.log(rates))
    k = int(slopes.argmin())
    return rates[k] if slopes[k] < 0 else None
