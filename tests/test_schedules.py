"""Schedules at the points where their values are known."""

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
    factor = xn.OneCycle(warmup=0.4, div=10, final_div=100).factor
    assert factor(0.0) == pytest.approx(1 / 10)
    assert factor(0.2) == pytest.approx((1 + 1 / 10) / 2)               # half way up a half cosine
    assert factor(0.4) == pytest.approx(1)
    assert factor(0.7) == pytest.approx((1 + 1 / 1000) / 2)             # half way down
    assert factor(1.0) == pytest.approx(1 / 1000)


@given(warmup=st.floats(0.01, 0.99), div=st.floats(1, 1e3), final_div=st.floats(1, 1e6))
def test_one_cycle_goes_up_then_down_without_a_jump(warmup, div, final_div):
    factor = xn.OneCycle(warmup, div, final_div).factor
    up = [factor(warmup * i / 20) for i in range(21)]
    down = [factor(warmup + (1 - warmup) * i / 20) for i in range(21)]
    assert up == sorted(up) and down == sorted(down, reverse=True)
    assert up[-1] == pytest.approx(1) and down[0] == pytest.approx(1)
    assert all(0 < f <= 1 + 1e-12 for f in up + down)


def test_fit_uses_the_whole_cycle():
    """5 epochs of 4 batches: the rates of the last steps of each epoch, the very last one that of t = 1."""
    x, y = blobs(120)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=5, batch_size=30,
                          schedule=xn.OneCycle(div=10, final_div=10), verbose=False)
    factor = xn.OneCycle(div=10, final_div=10).factor
    assert history["lr"] == pytest.approx([0.1 * factor(step / 19) for step in (3, 7, 11, 15, 19)])
    assert history["lr"][-1] == pytest.approx(0.1 / 100)


def test_a_single_step_starts_the_cycle():
    x, y = blobs(8)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.5), batch_size=8, schedule="one_cycle", verbose=False)
    assert history["lr"] == pytest.approx([0.5 / 25])


def test_a_schedule_of_your_own():
    class Halves(xn.Schedule):
        def factor(self, t: float) -> float:
            return 1.0 if t < 0.5 else 0.5

    x, y = blobs(8)
    history = small().fit(x, y, loss="cross_entropy", optimizer=xn.SGD(1.0), epochs=4, batch_size=8, schedule=Halves(),
                          verbose=False)
    assert history["lr"] == [1.0, 1.0, 0.5, 0.5]


def test_by_name():
    assert all(type(get_schedule(name)) is kind for name, kind in SCHEDULES.items())
    mine = xn.OneCycle()
    assert get_schedule(mine) is mine
    for wrong in ("onecycle", xn.OneCycle, None, ["constant"]):
        with pytest.raises(ValueError, match="expected a Schedule or one of constant, one_cycle. Received"):
            get_schedule(wrong)


@pytest.mark.parametrize("settings, message", [
    ({"warmup": 0}, "expected 0 < warmup < 1. Received: warmup=0"),
    ({"warmup": 1}, "expected 0 < warmup < 1"),
    ({"warmup": math.nan}, "expected 0 < warmup < 1"),
    ({"warmup": "0.3"}, "expected 0 < warmup < 1. Received: warmup='0.3'"),
    ({"div": 0}, "expected div to be a number, 1 or larger. Received: div=0"),
    ({"div": "25"}, "expected div to be a number"),
    ({"final_div": -1.0}, "expected final_div to be a number, 1 or larger. Received: final_div=-1.0"),
    ({"final_div": math.inf}, "expected final_div to be a number"),
])
def test_one_cycle_refuses(settings, message):
    with pytest.raises(ValueError, match=f"OneCycle: {message}"):
        xn.OneCycle(**settings)


def test_a_schedule_without_a_formula_says_so():
    with pytest.raises(NotImplementedError, match=r"Schedule: expected a method factor\(t\)"):
        xn.Schedule().factor(0.0)
