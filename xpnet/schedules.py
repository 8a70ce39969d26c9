"""Learning-rate schedules: functions of the progress t = step / steps, 0 <= t <= 1, that scale the optimizer's rate."""

from __future__ import annotations

import math

__all__ = ["Constant", "OneCycle", "Schedule"]


class Schedule:
    """Base class: `factor(t)` multiplies the optimizer's learning rate."""

    def factor(self, t: float) -> float:
        raise NotImplementedError(f"{type(self).__name__}: expected a method factor(t).")


class Constant(Schedule):
    """The optimizer's own rate: factor = 1."""

    def factor(self, t: float) -> float:
        return 1.0


class OneCycle(Schedule):
    """Up and down along half cosines: from 1 / div to 1 at t = warmup, then down to 1 / (div * final_div) at t = 1.

    Smith and Topin 2018 ("Super-convergence"); their triangle with cosines for its sides. The optimizer's rate is the peak.
    """

    def __init__(self, warmup: float = 0.3, div: float = 25.0, final_div: float = 1e4) -> None:
        if not isinstance(warmup, int | float) or not 0 < warmup < 1:
            raise ValueError(f"OneCycle: expected 0 < warmup < 1. Received: warmup={warmup!r}.")
        for name, value in (("div", div), ("final_div", final_div)):
            if not isinstance(value, int | float) or not 1 <= value < math.inf:
                raise ValueError(f"OneCycle: expected {name} to be a number, 1 or larger. Received: {name}={value!r}.")
        self.warmup, self.div, self.final_div = warmup, div, final_div

    def factor(self, t: float) -> float:
        if t < self.warmup:
            start, stop, part = 1 / self.div, 1.0, t / self.warmup
        else:
            start, stop, part = 1.0, 1 / (self.div * self.final_div), (t - self.warmup) / (1 - self.warmup)
        return stop + (start - stop) * (1 + math.cos(math.pi * part)) / 2


SCHEDULES: dict[str, type[Schedule]] = {"constant": Constant, "one_cycle": OneCycle}


def get_schedule(schedule: str | Schedule) -> Schedule:
    """The schedule called by one of the names in SCHEDULES; a Schedule is returned as it is."""
    if isinstance(schedule, Schedule):
        return schedule
    if not isinstance(schedule, str) or schedule not in SCHEDULES:
        raise ValueError(f"get_schedule: expected a Schedule or one of {', '.join(SCHEDULES)}. Received: {schedule!r}.")
    return SCHEDULES[schedule]()
