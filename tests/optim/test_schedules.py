"""Schedules at points where their values are known."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from nets import blobs, small

import xpnet as xn
from xpnet.schedules import SCHEDULES, get_schedule


def test_constant():
    assert [xn.Constant().factor(t) for t in (0.0, 0.3, 1.0)] == [1.0, 1.0, 1.0]


def test_one_cycle_at_known_points():
    factor = xn.OneCycle(pct_start=0.4, div_factor=10, final_div_factor=100).factor
    assert factor(0.0) == pytest.approx(1 / 10)
    assert factor(0.2) == pytest.approx((1 + 1 / 10) / 2)               # halfway up a half cosine
    assert factor(0.4) == pytest.approx(1)
    assert factor(0.7) == pytest.approx((1 + 1 / 1000) / 2)             # halfway down
    assert factor(1.0) == pytest.approx(1 / 1000)


def test_step_decay_at_known_points():
    factor = xn.StepDecay(every=0.25, gamma=0.5).factor
    assert ([factor(t) for t in (0.0, 0.2499, 0.25, 0.5, 0.7499, 0.75, 1.0)]
            == [1, 1, 0.5, 0.25, 0.25, 0.125, 0.125])
    assert xn.StepDecay(every=1).factor(1.0) == 1
    # 0.7 / 0.1 is a bit less than 7
    assert xn.StepDecay(every=0.1).factor(0.7) == pytest.approx(1e-7)
    assert xn.StepDecay(every=0.3).factor(1.0) == pytest.approx(1e-3)        # a short fourth period


@pytest.mark.parametrize("epochs, batches", [(30, 1), (30, 7), (9, 64), (90, 3)])
def test_step_decay_drops_between_epochs(epochs, batches):
    """The default in `fit`: the first step of an epoch is the first with the lower learning rate.
    """
    steps = epochs * batches
    factors = [xn.StepDecay().factor(step / (steps - 1)) for step in range(steps)]
    expected = [0.1 ** (step // (steps // 3)) for step in range(steps)]
    assert factors == pytest.approx(expected)


def test_multi_step_at_known_points():
    factor = xn.MultiStep([0.2, 0.7], gamma=0.5).factor
    assert [factor(t) for t in (0.0, 0.1999, 0.2, 0.6999, 0.7, 1.0)] == [1, 1, 0.5, 0.5, 0.25, 0.25]
    assert xn.MultiStep([]).factor(1.0) == 1
    assert (xn.MultiStep().factor(0.6) == pytest.approx(0.1)
            and xn.MultiStep().factor(0.8) == pytest.approx(0.01))


def test_exponential_decay_is_the_same_factor_each_epoch():
    """gamma^e after e of 10 epochs."""
    gamma = 0.8
    factor = xn.ExponentialDecay(final=gamma**10).factor
    assert [factor(e / 10) for e in range(11)] == pytest.approx([gamma**e for e in range(11)])


def test_cosine_decay_at_known_points():
    factor = xn.CosineDecay(final=0.2).factor
    assert ([factor(t) for t in (0.0, 1 / 3, 0.5, 2 / 3, 1.0)]
            == pytest.approx([1.0, 0.8, 0.6, 0.4, 0.2]))
    assert xn.CosineDecay().factor(1.0) == 0
    again = xn.CosineDecay(final=0.2, cycles=4).factor
    assert ([again(t) for t in (0.0, 0.125, 0.249999, 0.25, 0.625, 1.0)]
            == pytest.approx([1, 0.6, 0.2, 1, 0.6, 0.2], rel=1e-4))


def test_inverse_time_decay_at_known_points():
    factor = xn.InverseTimeDecay(decay_rate=4).factor
    assert [factor(t) for t in (0.0, 0.25, 0.5, 1.0)] == pytest.approx([1, 1 / 2, 1 / 3, 1 / 5])


def test_polynomial_decay_at_known_points():
    assert [xn.PolynomialDecay().factor(t) for t in (0.0, 0.25, 1.0)] == [1, 0.75, 0]
    factor = xn.PolynomialDecay(power=2, final=0.5).factor
    assert [factor(t) for t in (0.0, 0.5, 1.0)] == [1, 0.625, 0.5]


def test_warm_up_at_known_points():
    factor = xn.WarmUp(xn.CosineDecay(), warmup=0.2, start_factor=0.5).factor
    assert ([factor(t) for t in (0.0, 0.1, 0.2, 0.6, 1.0)]
            == pytest.approx([0.5, 0.75, 1.0, 0.5, 0.0]))
    assert xn.WarmUp("exponential", warmup=0.5).factor(1.0) == pytest.approx(0.01)
    assert xn.WarmUp().factor(0.0) == pytest.approx(1 / 3) and xn.WarmUp().factor(0.1) == 1
    of_a_cycle = xn.WarmUp(xn.OneCycle(div_factor=10), warmup=0.5, start_factor=0.0)
    assert (of_a_cycle.factor(0.25) == pytest.approx(0.05)
            and of_a_cycle.factor(0.5) == pytest.approx(0.1))


@given(warmup=st.floats(0.01, 0.99), start_factor=st.floats(0, 1), final=st.floats(0, 1),
       t=st.lists(st.floats(0, 1), min_size=2))
def test_warm_up_rises_to_one_and_then_falls(warmup, start_factor, final, t):
    factor = xn.WarmUp(xn.CosineDecay(final), warmup, start_factor).factor
    up, down = sorted(u for u in t if u < warmup), sorted(u for u in t if u >= warmup)
    for ts, direction in ((up, 1), (down, -1)):
        values = [direction * factor(u) for u in ts]
        assert values == sorted(values)
    assert all(0 <= factor(u) <= 1 for u in t)


@given(t=st.lists(st.floats(0, 1), min_size=2), gamma=st.floats(0.01, 1), every=st.floats(0.01, 1))
def test_decays_start_at_one_and_never_rise(t, gamma, every):
    for schedule in (xn.StepDecay(every, gamma), xn.MultiStep([every / 2], gamma),
                     xn.ExponentialDecay(gamma), xn.CosineDecay(gamma),
                     xn.InverseTimeDecay(1 / gamma), xn.PolynomialDecay(every, gamma)):
        falling = [schedule.factor(u) for u in sorted(t)]
        assert falling == sorted(falling, reverse=True)
        assert schedule.factor(0.0) == 1 and 0 < schedule.factor(1.0) <= 1


def plateau(figures, monitor="loss", **settings):
    """The factor after each epoch with these metrics."""
    schedule = xn.ReduceOnPlateau(monitor=monitor, **settings).start()
    factors = []
    for figure in figures:
        schedule.observe({"epoch": 1, monitor: figure})
        factors.append(schedule.factor(0.5))
    return factors


def test_a_plateau_is_more_than_patience_epochs_without_a_better_one():
    assert plateau([5, 4, 4, 4, 4, 3], patience=2, gamma=0.5) == [1, 1, 1, 1, 0.5, 0.5]
    assert plateau([5, 6, 6, 6, 6, 4, 4], patience=0,
                   gamma=0.5) == [1, 0.5, 0.25, 0.125, 0.0625, 0.0625, 0.03125]
    # a better epoch resets the counter
    assert plateau([5, 6, 7, 4, 5, 5, 5], patience=2, gamma=0.5) == [1, 1, 1, 1, 1, 1, 0.5]
    assert (plateau([1] * 5, patience=0, gamma=0.1, min_factor=0.05)
            == pytest.approx([1, 0.1, 0.05, 0.05, 0.05]))


def test_an_accuracy_should_rise():
    assert plateau([0.5, 0.6, 0.7, 0.7], "val_accuracy", patience=0, gamma=0.5) == [1, 1, 1, 0.5]
    assert plateau([0.5, 0.4], "accuracy", patience=0, gamma=0.5) == [1, 0.5]


def test_better_by_less_than_the_threshold_is_not_better():
    assert plateau([1.0, 0.95], patience=0, gamma=0.5, threshold=0.1) == [1, 0.5]
    assert plateau([1.0, 0.85], patience=0, gamma=0.5, threshold=0.1) == [1, 1]
    # relative to the metric
    assert plateau([-1.0, -1.05], patience=0, gamma=0.5, threshold=0.1) == [1, 0.5]
    assert plateau([-1.0, -1.15], patience=0, gamma=0.5, threshold=0.1) == [1, 1]


def test_a_nan_is_never_the_best():
    assert plateau([math.nan, 2, math.nan, 1], patience=0, gamma=0.5) == [0.5, 0.5, 0.25, 0.25]


@pytest.mark.parametrize("wrap",
                         [lambda s: s, lambda s: xn.WarmUp(s, warmup=0.01, start_factor=1.0)],
                         ids=["alone", "warmed up"])
def test_fit_follows_a_plateau_and_each_fit_starts_again(wrap):
    """With a learning rate of 0 no epoch is better than the first."""
    x, y = blobs(8)
    schedule = wrap(xn.ReduceOnPlateau(gamma=0.5, patience=0))
    for _ in range(2):
        net = xn.Sequential([xn.Linear(3)], input_shape=(2,), backend="numpy")
        seen = []

        class Recording(xn.SGD):
            def hyper(self, step, lr, seen=seen):
                seen.append(lr)
                return 0.0, 0.0, 0.0

        net.fit(x, y, loss="cross_entropy", optimizer=Recording(1.0), epochs=4, batch_size=8,
                schedule=schedule, verbose=False)
        assert seen[-4:] == [1.0, 1.0, 0.5, 0.25]
        assert schedule.factor(0.5) == 1.0              # the object itself is unchanged


def test_a_plateau_of_a_missing_column():
    x, y = blobs(8)
    with pytest.raises(ValueError, match="ReduceOnPlateau: expected monitor to be one of epoch, "
                                         "loss, .*monitor='val_loss'"):
        small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(1.0),
                    schedule=xn.ReduceOnPlateau(monitor="val_loss"), verbose=False)


@given(pct_start=st.floats(0.01, 0.99), div_factor=st.floats(1, 1e3),
       final_div_factor=st.floats(1, 1e6))
def test_one_cycle_rises_and_falls_without_a_jump(pct_start, div_factor, final_div_factor):
    factor = xn.OneCycle(pct_start, div_factor, final_div_factor).factor
    up = [factor(pct_start * i / 20) for i in range(21)]
    down = [factor(pct_start + (1 - pct_start) * i / 20) for i in range(21)]
    assert up == sorted(up) and down == sorted(down, reverse=True)
    assert up[-1] == pytest.approx(1) and down[0] == pytest.approx(1)
    assert all(0 < f <= 1 + 1e-12 for f in up + down)


def test_fit_uses_the_whole_cycle():
    """5 epochs of 4 batches: the learning rates of the last step of each epoch. The last one is
    that of t = 1."""
    x, y = blobs(120)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=5,
                          batch_size=30, schedule=xn.OneCycle(div_factor=10, final_div_factor=10),
                          verbose=False)
    factor = xn.OneCycle(div_factor=10, final_div_factor=10).factor
    assert history["lr"] == pytest.approx([0.1 * factor(step / 19) for step in (3, 7, 11, 15, 19)])
    assert history["lr"][-1] == pytest.approx(0.1 / 100)


def test_a_single_step_starts_the_cycle():
    x, y = blobs(8)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.5), batch_size=8,
                          schedule="one_cycle", verbose=False)
    assert history["lr"] == pytest.approx([0.5 / 25])


def test_a_schedule_of_your_own():
    class Halves(xn.Schedule):
        def factor(self, t: float) -> float:
            return 1.0 if t < 0.5 else 0.5

    x, y = blobs(8)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(1.0), epochs=4, batch_size=8,
                          schedule=Halves(), verbose=False)
    assert history["lr"] == [1.0, 1.0, 0.5, 0.5]


def test_by_name():
    assert all(type(get_schedule(name)) is kind for name, kind in SCHEDULES.items())
    mine = xn.OneCycle()
    assert get_schedule(mine) is mine
    for wrong in ("onecycle", xn.OneCycle, None, ["constant"]):
        with pytest.raises(
                ValueError,
                match=f"expected a Schedule or one of {', '.join(SCHEDULES)}.*. Received"):
            get_schedule(wrong)


@pytest.mark.parametrize("make, settings, message", [
    (xn.OneCycle, {"pct_start": 0}, "expected 0 < pct_start < 1. Received: pct_start=0"),
    (xn.OneCycle, {"pct_start": 1}, "expected 0 < pct_start < 1"),
    (xn.OneCycle, {"pct_start": math.nan}, "expected 0 < pct_start < 1"),
    (xn.OneCycle, {"pct_start": "0.3"}, "expected 0 < pct_start < 1. Received: pct_start='0.3'"),
    (xn.OneCycle, {"div_factor": 0},
     "expected div_factor to be a number, 1 or larger. Received: div_factor=0"),
    (xn.OneCycle, {"div_factor": "25"}, "expected div_factor to be a number"),
    (xn.OneCycle, {"final_div_factor": -1.0},
     "expected final_div_factor to be a number, 1 or larger. Received: final_div_factor=-1.0"),
    (xn.OneCycle, {"final_div_factor": math.inf}, "expected final_div_factor to be a number"),
    (xn.StepDecay, {"every": 0}, "expected 0 < every <= 1. Received: every=0"),
    (xn.StepDecay, {"every": 30}, "expected 0 < every <= 1. Received: every=30"),
    (xn.StepDecay, {"every": True}, "expected 0 < every <= 1. Received: every=True"),
    (xn.StepDecay, {"gamma": 0}, "expected 0 < gamma <= 1. Received: gamma=0"),
    (xn.MultiStep, {"milestones": 0.5},
     "expected rising milestones between 0 and 1. Received: milestones=0.5"),
    (xn.MultiStep, {"milestones": [0.5, 0.5]}, "expected rising milestones"),
    (xn.MultiStep, {"milestones": [30, 60]}, "expected rising milestones"),
    (xn.MultiStep, {"gamma": 2}, "expected 0 < gamma <= 1"),
    (xn.ExponentialDecay, {"final": 0}, "expected 0 < final <= 1. Received: final=0"),
    (xn.CosineDecay, {"final": -0.1}, "expected 0 <= final <= 1. Received: final=-0.1"),
    (xn.CosineDecay, {"cycles": 0},
     "expected cycles to be an int, 1 or larger. Received: cycles=0"),
    (xn.CosineDecay, {"cycles": 1.5}, "expected cycles to be an int"),
    (xn.InverseTimeDecay, {"decay_rate": -1},
     "expected decay_rate to be a number, 0 or larger. Received: decay_rate=-1"),
    (xn.InverseTimeDecay, {"decay_rate": math.inf}, "expected decay_rate to be a number"),
    (xn.PolynomialDecay, {"power": 0}, "expected power to be a number above 0. Received: power=0"),
    (xn.PolynomialDecay, {"final": 2}, "expected 0 <= final <= 1. Received: final=2"),
    (xn.WarmUp, {"warmup": 1}, "expected 0 < warmup < 1. Received: warmup=1"),
    (xn.WarmUp, {"start_factor": 1.5},
     "expected 0 <= start_factor <= 1. Received: start_factor=1.5"),
    (xn.ReduceOnPlateau, {"gamma": 1}, "expected 0 < gamma < 1. Received: gamma=1"),
    (xn.ReduceOnPlateau, {"patience": 1.5},
     "expected patience to be an int, 0 or larger. Received: patience=1.5"),
    (xn.ReduceOnPlateau, {"patience": -1}, "expected patience to be an int"),
    (xn.ReduceOnPlateau, {"monitor": None},
     "expected monitor to be a column of the history. Received: monitor=None"),
    (xn.ReduceOnPlateau, {"threshold": 1}, "expected 0 <= threshold < 1. Received: threshold=1"),
    (xn.ReduceOnPlateau, {"min_factor": -1},
     "expected 0 <= min_factor <= 1. Received: min_factor=-1"),
])
def test_refusals(make, settings, message):
    with pytest.raises(ValueError, match=f"{make.__name__}: {message}"):
        make(**settings)


def test_warm_up_needs_a_schedule():
    with pytest.raises(ValueError, match="get_schedule: expected a Schedule or one of"):
        xn.WarmUp("warm")


def test_a_schedule_without_a_formula_raises():
    with pytest.raises(NotImplementedError, match=r"Schedule: expected a method factor\(t\)"):
        xn.Schedule().factor(0.0)
