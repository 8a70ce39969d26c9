"""Shrinkage, the step of sparse coding for single elements, against bisection and a fine grid."""

import itertools
import math

import numpy as np
import pytest

from xpnet.layers.sparse_coding import Shrinkage, SmoothShrinkage


def shrunk(v, p, beta):
    """The minimum by bisection: 0, or the larger root of the derivative, which is to the right of
    the derivative's minimum. For p > 1 it has one root."""
    size = abs(v)

    def cost(x):
        return beta / 2 * (x - size) ** 2 + x ** p

    def derivative(x):
        return beta * (x - size) + p * x ** (p - 1)

    low, high = 0.0 if p > 1 else (p * (1 - p) / beta) ** (1 / (2 - p)), size
    if low >= high or derivative(low) >= 0:
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) < 0 else (low, middle)
    return math.copysign(high, v) if p > 1 or cost(high) < cost(0.0) else 0.0


@pytest.mark.parametrize("p", [1.0, 0.999, 0.9, 0.8, 0.5, 0.2, 0.01])
@pytest.mark.parametrize("beta", [0.1, 1.0, 16.0, 1e4])
def test_shrinkage(p, beta):
    shrink = Shrinkage(np, p, beta)
    # the most difficult values
    beyond = [shrink.jump * (1 + step) for step in (-1e-9, 1e-9, 1e-6, 1e-3, 0.1, 1.0, 10.0)]
    v = np.array([0.0, *beyond, *np.linspace(-3.01, 3.02, 41), -50.0, 1e4])
    x = shrink(v)
    np.testing.assert_allclose(x, [shrunk(value, p, beta) if value else 0.0 for value in v],
                               rtol=1e-12, atol=1e-14)
    assert shrink(v.astype(np.float32)).dtype == np.float32
    np.testing.assert_allclose(shrink(v[9:].astype(np.float32)), x[9:], rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("p", [1.001, 1.01, 1.1, 1.5, 1.9, 2.0, 2.5, 4.0, 20.0])
@pytest.mark.parametrize("beta", [0.1, 1.0, 16.0, 1e4])
def test_shrinkage_of_smooth_penalties(p, beta):
    shrink = SmoothShrinkage(np, p, beta)
    # v near p / beta, where the root turns from small to large, takes the most steps
    near = p / beta * np.linspace(0.5, 2, 61)
    v = np.array([0.0, *np.geomspace(1e-6, 1e4, 61), *near, -0.3, -50])
    x = shrink(v)
    assert x[0] == 0
    # x is the power 1 / (p - 1) of what the steps find; bisection ends at 1e-60
    rounding = 5e-15 * max(1.0, 1 / (p - 1))
    np.testing.assert_allclose(x, [shrunk(value, p, beta) for value in v], rtol=rounding,
                               atol=1e-50)
    small = shrink(v.astype(np.float32))
    assert small.dtype == np.float32
    np.testing.assert_allclose(small, x, rtol=5e8 * rounding, atol=1e-30)


@pytest.mark.parametrize("v", [-1.7, 0.0, 0.4])
def test_the_quadratic_penalty_is_shrunk_by_a_factor(v):
    """beta / 2 (x - v)^2 + x^2 is least at beta v / (beta + 2)."""
    assert SmoothShrinkage(np, 2.0, 3.0)(np.array([v]))[0] == pytest.approx(0.6 * v, rel=1e-15)


def shrinkage(p, beta):
    return (Shrinkage if p <= 1 else SmoothShrinkage)(np, p, beta)


@pytest.mark.parametrize("p", [1.0, 0.8, 0.3, 1.2, 2.0, 3.0])
def test_shrinkage_against_a_fine_grid(p):
    grid = np.linspace(-4, 4, 800001)
    for v, beta in itertools.product((-2.7, -0.9, 0.2, 0.8, 1.4, 3.3), (0.7, 3.0)):
        cost = beta / 2 * (grid - v) ** 2 + np.abs(grid) ** p
        assert abs(shrinkage(p, beta)(np.array([v]))[0] - grid[cost.argmin()]) <= 1e-5


@pytest.mark.parametrize("p", [1.0, 0.8, 0.3, 1.2, 1.5, 2.0, 3.0])
def test_shrinkage_slope(p):
    shrink, v = shrinkage(p, 2.0), np.array([-5.0, -0.01, 0.0, 0.1, 2.5, 40.0])
    numeric = (shrink(v + 1e-6) - shrink(v - 1e-6)) / 2e-6
    np.testing.assert_allclose(shrink.slope(shrink(v)), numeric, rtol=1e-7, atol=1e-5)


def test_shrinkage_of_nan():
    for p in (1.0, 0.8, 1.5, 3.0):
        assert np.isnan(shrinkage(p, 2.0)(np.array([np.nan])))
