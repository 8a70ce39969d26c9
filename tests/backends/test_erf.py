"""The complementary error function: its accuracy against mpmath, and how its coefficients are
computed."""

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from xpnet.backends.erf import CENTRE, END, P_SINGLE, P, erfc

# with all digits
SMALLEST = {dtype: float(np.finfo(dtype).tiny / np.finfo(dtype).eps)
            for dtype in ("float32", "float64")}


def coefficients(function, nodes: int, terms: int) -> list[float]:
    """The first terms of the Chebyshev series that interpolates the function at `nodes` Chebyshev
    nodes, as a polynomial."""
    angles = [mp.pi * (k + mpf(0.5)) / nodes for k in range(nodes)]
    values = [function(mp.cos(angle)) for angle in angles]
    series = [mpf(2 if j else 1) / nodes * sum(
        v * mp.cos(j * angle) for v, angle in zip(values, angles)) for j in range(nodes)]
    assert max(abs(c) for c in series[terms:]) < (1e-9 if terms < 20 else 1e-17)  # what is left out
    powers = [[mpf(1)], [mpf(0), mpf(1)]]  # of T_k: T_k+1 = 2 t T_k - T_k-1
    while len(powers) < terms:
        last, before = [mpf(0), *(2 * c for c in powers[-1])], powers[-2]
        powers.append([c - (before[i] if i < len(before) else 0) for i, c in enumerate(last)])
    return [float(sum(c * T[i] for c, T in zip(series, powers) if i < len(T)))
            for i in range(terms)]


def scaled_erfc(t):
    """(1 + 2 x) exp(x^2) erfc(x), the function whose series ERFC is."""
    x = CENTRE * (1 + t) / (1 - t)
    if x < 60:
        return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)
    # mpmath's erfc fails before this
    terms = [mp.fac2(2 * k - 1) / (-2 * x * x)**k for k in range(20)]
    return (1 + 2 * x) * sum(terms) / (x * mp.sqrt(mp.pi))


@pytest.mark.parametrize("known", [P, P_SINGLE], ids=len)
def test_the_coefficients(known):
    with mp.workdps(60):
        np.testing.assert_allclose(known, coefficients(scaled_erfc, 60, len(known)), rtol=1e-14)


@pytest.mark.parametrize("dtype, digits", [("float32", 1e-6), ("float64", 1e-15)])
def test_accuracy(plain_backend, dtype, digits):
    x = np.concatenate([np.linspace(-6, 6, 121), np.linspace(-28.3, 28.3, 40),
                        np.logspace(-30, 1, 32)]).astype(dtype)
    with plain_backend.scope():
        y = plain_backend.to_numpy(erfc(plain_backend.xp, plain_backend.asarray(x)))
    assert y.dtype == dtype
    right = [mpmath.erfc(mpf(float(v))) for v in x]
    errors = [abs(mpf(float(a)) - b) / max(abs(b), SMALLEST[dtype]) for a, b in zip(y, right)]
    assert max(errors) < digits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_the_ends(plain_backend, dtype):
    x = plain_backend.asarray(np.array([np.inf, -np.inf, np.nan, 0.0, END, 1e30, -1e30], dtype))
    with plain_backend.scope():
        y = plain_backend.to_numpy(erfc(plain_backend.xp, x))
    np.testing.assert_allclose(y, [0, 2, np.nan, 1, 0, 0, 2], rtol=1e-6, atol=0)
