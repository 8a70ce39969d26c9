"""Shrinkage, the step of sparse coding for single elements, against bisection and a fine grid."""

import itertools
import math

import numpy as np
import pytest

from xpnet.layers.sparse_coding import Shrinkage


def shrunk(v, p, beta):
    """The minimum by bisection: 0, or the larger root of the derivative, which is to the right of
    the derivative's minimum."""
    size = abs(v)

    def cost(x):
        return beta / 2 * (x - size) ** 2 + x ** p

    def derivative(x):
        return beta * (x - size) + p * x ** (p - 1)

    low, high = (p * (1 - p) / beta) ** (1 / (2 - p)), size
    if low >= high or derivative(low) >= 0:
        return 0.0
    for _ in range(200):
        middle = (low + high) / 2
        low, high = (middle, high) if derivative(middle) < 0 else (low, middle)
    return math.copysign(high, v) if cost(high) < cost(0.0) else 0.0


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


@pytest.mark.parametrize("p", [1.0, 0.8, 0.3])
def test_shrinkage_against_a_fine_grid(p):
    grid = np.linspace(-4, 4, 800001)
    for v, beta in itertools.product((-2.7, -0.9, 0.2, 0.8, 1.4, 3.3), (0.7, 3.0)):
        cost = beta / 2 * (grid - v) ** 2 + np.abs(grid) ** p
        assert abs(Shrinkage(np, p, beta)(np.array([v]))[0] - grid[cost.argmin()]) <= 1e-5


@pytest.mark.parametrize("p", [1.0, 0.8, 0.3])
def test_shrinkage_slope(p):
    shrink, v = Shrinkage(np, p, 2.0), np.array([-5.0, -0.01, 0.0, 0.1, 2.5, 40.0])
    numeric = (shrink(v + 1e-6) - shrink(v - 1e-6)) / 2e-6
    np.testing.assert_allclose(shrink.slope(shrink(v)), numeric, rtol=1e-7)


def test_shrinkage_of_nan():
    for p in (1.0, 0.8):
        assert np.isnan(Shrinkage(np, p, 2.0)(np.array([np.nan])))
