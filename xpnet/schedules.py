"""Learning-rate schedules: functions of the progress t = step / steps, 0 <= t <= 1, that scale the
optimizer's learning rate.

Everything is a fraction of the training: a drop at t = 1/3 comes after 10 of 30 epochs, and after
30 of 90.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Mapping, Sequence

from xpnet.checks import Checked, expect_named, is_number, wrong

__all__ = [
    "Constant", "CosineDecay", "ExponentialDecay", "InverseTimeDecay", "MultiStep", "OneCycle",
    "PolynomialDecay", "ReduceOnPlateau", "Schedule", "StepDecay", "WarmUp",
]

ROUNDING = 1e-9         # 0.7 / 0.1 is 6.999999999999999, which has to count as 7


class Schedule(Checked):
    """Base class: `factor(t)` multiplies the optimizer's learning rate."""

    def factor(self, t: float) -> float:
        """The factor of the learning rate at the progress t, 0 <= t <= 1."""
        raise NotImplementedError(f"{type(self).__name__}: expected a method factor(t).")

    def start(self) -> Schedule:
        """The schedule that one `fit` uses: itself, or a fresh copy if it changes during training.
        """
        return self

    def observe(self, row: Mapping[str, float]) -> None:
        """`fit` calls this after each whole epoch, with the epoch's row of the history."""

    def _expect(self, what: str, name: str, value: object, right: bool) -> None:
        if not right:
            raise wrong(self.who, what, name, value)


def _number(value: object, least: float, most: float) -> bool:
    return is_number(value) and least <= value <= most      # type: ignore[operator]


def _between(value: object, low: float, high: float) -> bool:
    return _number(value, low, high) and value not in (low, high)


def rises(column: str) -> bool:
    """Whether more is better in a column of the history: in those whose names end in "accuracy".
    """
    return column.endswith("accuracy")


def _half_cosine(start: float, stop: float, part: float) -> float:
    return stop + (start - stop) * (1 + math.cos(math.pi * part)) / 2


class Constant(Schedule):
    """The optimizer's own learning rate: factor = 1."""

    def factor(self, t: float) -> float:
        return 1.0


class StepDecay(Schedule):
    """Step decay: factor = gamma^k, k = floor(t / every).

    The last step, t = 1, still has the k before it. The default drops the learning rate to a tenth
    after each third, like 90 epochs with a drop every 30.

    Args:
        every: 0 < every <= 1.
        gamma: 0 < gamma <= 1.

    Szegedy et al. 2015, section 6, with a decrease of 4 % every 8 epochs.
    """

    def __init__(self, every: float = 1 / 3, gamma: float = 0.1) -> None:
        self._expect("0 < every <= 1", "every", every, _number(every, 0, 1) and every > 0)
        self._expect("0 < gamma <= 1", "gamma", gamma, _number(gamma, 0, 1) and gamma > 0)
        self.every, self.gamma = every, gamma

    def factor(self, t: float) -> float:
        last = math.ceil(1 / self.every - ROUNDING) - 1
        return float(self.gamma ** min(math.floor(t / self.every + ROUNDING), last))


class MultiStep(Schedule):
    """Drops at milestones: factor = gamma^k, k the number of milestones up to t.

    The default drops the learning rate to a tenth after a half and after three quarters.

    Args:
        milestones: rising numbers between 0 and 1.
        gamma: 0 < gamma <= 1.

    He et al. 2016, section 4.2, who trained for 64,000 steps and dropped at 32,000 and 48,000.
    """

    def __init__(self, milestones: Sequence[float] = (0.5, 0.75), gamma: float = 0.1) -> None:
        right = (isinstance(milestones, tuple | list)
                 and all(_between(m, 0, 1) for m in milestones)
                 and all(a < b for a, b in zip(milestones, milestones[1:])))
        self._expect("rising milestones between 0 and 1", "milestones", milestones, right)
        self._expect("0 < gamma <= 1", "gamma", gamma, _number(gamma, 0, 1) and gamma > 0)
        self.milestones, self.gamma = tuple(milestones), gamma

    def factor(self, t: float) -> float:
        return float(self.gamma ** sum(milestone <= t + ROUNDING for milestone in self.milestones))


class ExponentialDecay(Schedule):
    """Exponential decay: factor = final^t, from 1 to `final`, by the same factor in each step.

    A decay by gamma in each of E epochs is final = gamma^E.

    Args:
        final: 0 < final <= 1.

    Senior et al. 2013.
    """

    def __init__(self, final: float = 0.01) -> None:
        self._expect("0 < final <= 1", "final", final, _number(final, 0, 1) and final > 0)
        self.final = final

    def factor(self, t: float) -> float:
        return float(self.final**t)


class InverseTimeDecay(Schedule):
    """Inverse time decay: factor = 1 / (1 + decay_rate t), from 1 to 1 / (1 + decay_rate).

    Args:
        decay_rate: 0 or larger.

    Robbins and Monro 1951, whose learning rates fall like 1 / step.
    """

    def __init__(self, decay_rate: float = 9.0) -> None:
        self._expect("decay_rate to be a number, 0 or larger", "decay_rate", decay_rate,
                     _number(decay_rate, 0, math.inf) and decay_rate < math.inf)
        self.decay_rate = decay_rate

    def factor(self, t: float) -> float:
        return 1 / (1 + self.decay_rate * t)


class PolynomialDecay(Schedule):
    """Polynomial decay: factor = final + (1 - final) (1 - t)^power, from 1 to `final`, in a
    straight line for power 1.

    Args:
        power: above 0.
        final: 0 <= final <= 1.

    Chen et al. 2018, with power = 0.9.
    """

    def __init__(self, power: float = 1.0, final: float = 0.0) -> None:
        self._expect("power to be a number above 0", "power", power, _between(power, 0, math.inf))
        self._expect("0 <= final <= 1", "final", final, _number(final, 0, 1))
        self.power, self.final = power, final

    def factor(self, t: float) -> float:
        return float(self.final + (1 - self.final) * (1 - t) ** self.power)


class CosineDecay(Schedule):
    """Cosine annealing: factor = final + (1 - final) (1 + cos(pi u)) / 2, from 1 at u = 0 to
    `final` at u = 1.

    u = t, or with `cycles` the fraction of the current cycle.

    Args:
        final: 0 <= final <= 1.
        cycles: number of equal cycles, each of which begins at 1 again.

    Loshchilov and Hutter 2017, eq. 5, with T_mult = 1.
    """

    def __init__(self, final: float = 0.0, cycles: int = 1) -> None:
        self._expect("0 <= final <= 1", "final", final, _number(final, 0, 1))
        self.final, self.cycles = final, self.expect_integer("cycles", cycles)

    def factor(self, t: float) -> float:
        # t = 1 ends the last cycle
        done = min(math.floor(t * self.cycles + ROUNDING), self.cycles - 1)
        return _half_cosine(1.0, self.final, max(0.0, t * self.cycles - done))


class OneCycle(Schedule):
    """Up and down along half cosines: factor = 1 / div_factor at t = 0, 1 at t = pct_start, 1 /
    (div_factor final_div_factor) at t = 1.

    The optimizer's learning rate is the peak.

    Args:
        pct_start: 0 < pct_start < 1.
        div_factor: 1 or larger.
        final_div_factor: 1 or larger.

    Smith and Topin 2018 ("Super-convergence"), with cosines for the sides of their triangle.
    """

    def __init__(self, pct_start: float = 0.3, div_factor: float = 25.0,
                 final_div_factor: float = 1e4) -> None:
        self._expect("0 < pct_start < 1", "pct_start", pct_start, _between(pct_start, 0, 1))
        for name, value in (("div_factor", div_factor), ("final_div_factor", final_div_factor)):
            self._expect(f"{name} to be a number, 1 or larger", name, value,
                         _number(value, 1, math.inf) and value < math.inf)
        self.pct_start, self.div_factor = pct_start, div_factor
        self.final_div_factor = final_div_factor

    def factor(self, t: float) -> float:
        if t < self.pct_start:
            return _half_cosine(1 / self.div_factor, 1.0, t / self.pct_start)
        return _half_cosine(1.0, 1 / (self.div_factor * self.final_div_factor),
                            (t - self.pct_start) / (1 - self.pct_start))


class WarmUp(Schedule):
    """Linear warm-up: factor = (start_factor + (1 - start_factor) t / warmup) s(0) up to t =
    warmup, then s((t - warmup) / (1 - warmup)).

    Args:
        schedule: s, an object or a name, for the rest of the training.
        warmup: fraction of the training, 0 < warmup < 1.
        start_factor: 0 <= start_factor <= 1.

    Goyal et al. 2017, section 2.2.
    """

    def __init__(self, schedule: str | Schedule = "constant", warmup: float = 0.1,
                 start_factor: float = 1 / 3) -> None:
        self._expect("0 < warmup < 1", "warmup", warmup, _between(warmup, 0, 1))
        self._expect("0 <= start_factor <= 1", "start_factor", start_factor,
                     _number(start_factor, 0, 1))
        self.schedule, self.warmup, self.start_factor = get_schedule(schedule), warmup, start_factor

    def factor(self, t: float) -> float:
        if t < self.warmup:
            return (self.start_factor + (1 - self.start_factor) * t
                    / self.warmup) * self.schedule.factor(0.0)
        return self.schedule.factor((t - self.warmup) / (1 - self.warmup))

    def start(self) -> Schedule:
        return WarmUp(self.schedule.start(), self.warmup, self.start_factor)

    def observe(self, row: Mapping[str, float]) -> None:
        self.schedule.observe(row)


class ReduceOnPlateau(Schedule):
    """Reduce on a plateau: factor = gamma^k, k the number of plateaus of a figure of the history so
    far.

    An epoch is better than the best one before if it beats it by the relative `threshold`. More
    than `patience` epochs in a row without a better one are a plateau, after which the count begins
    again. (Keras waits for `patience` epochs, not for one more.) Each `fit` starts anew.

    Args:
        gamma: 0 < gamma < 1.
        patience: 0 or larger.
        monitor: a column of the history. If its name ends in "accuracy" it should rise, else fall.
        threshold: 0 <= threshold < 1.
        min_factor: lower bound of the factor, from 0 to 1.

    Raises:
        ValueError: after the first epoch, the history has no column `monitor`.

    He et al. 2016, section 3.4; Krizhevsky et al. 2012, section 5, by hand.
    """

    def __init__(self, gamma: float = 0.1, patience: int = 10, monitor: str = "loss",
                 threshold: float = 1e-4, min_factor: float = 0.0) -> None:
        self._expect("0 < gamma < 1", "gamma", gamma, _between(gamma, 0, 1))
        patience = self.expect_integer("patience", patience, 0)
        self._expect("monitor to be a column of the history", "monitor", monitor,
                     isinstance(monitor, str))
        self._expect("0 <= threshold < 1", "threshold", threshold, _number(threshold, 0, 1)
                     and threshold < 1)
        self._expect("0 <= min_factor <= 1", "min_factor", min_factor, _number(min_factor, 0, 1))
        self.gamma, self.patience, self.monitor = gamma, patience, monitor
        self.threshold, self.min_factor = threshold, min_factor
        self._now, self._worse = 1.0, 0
        self._best: float | None = None

    def factor(self, t: float) -> float:
        return self._now

    def start(self) -> Schedule:
        fresh = copy.copy(self)
        fresh._now, fresh._worse, fresh._best = 1.0, 0, None
        return fresh

    def observe(self, row: Mapping[str, float]) -> None:
        self._expect(f"monitor to be one of {', '.join(row)}", "monitor", self.monitor,
                     self.monitor in row)
        sign = -1 if rises(self.monitor) else 1         # now less is better
        figure = sign * row[self.monitor]
        better = self._best is None or figure < self._best - self.threshold * abs(self._best)
        if better and not math.isnan(figure):
            self._best, self._worse = figure, 0
            return
        self._worse += 1
        if self._worse > self.patience:
            self._now, self._worse = max(self._now * self.gamma, self.min_factor), 0


SCHEDULES: dict[str, type[Schedule]] = {
    "constant": Constant, "step": StepDecay, "multi_step": MultiStep,
    "exponential": ExponentialDecay,
    "inverse_time": InverseTimeDecay, "polynomial": PolynomialDecay, "cosine": CosineDecay,
    "one_cycle": OneCycle, "warm_up": WarmUp, "reduce_on_plateau": ReduceOnPlateau}


def get_schedule(schedule: str | Schedule) -> Schedule:
    """The schedule with this name in SCHEDULES; a Schedule is returned as it is."""
    found: Schedule = expect_named("get_schedule", "a Schedule", schedule, Schedule, SCHEDULES)
    return found
