"""The error function: its digits against mpmath, and where its coefficients come from."""

import mpmath
import numpy as np
import pytest
from mpmath import mp, mpf

from xpnet.backends.erf import CENTRE, END, ERF, ERFC, erf, erfc

SMALLEST = {dtype: float(np.finfo(dtype).tiny / np.finfo(dtype).eps) for dtype in ("float32", "float64")}   # with all digits


def coefficients(function, nodes: int) -> list[float]:
    """Of the Chebyshev series that equals the function at so many Chebyshev nodes."""
    angles = [mp.pi * (k + mpf(0.5)) / nodes for k in range(nodes)]
    values = [function(mp.cos(angle)) for angle in angles]
    return [float(mpf(2 if j else 1) / nodes * sum(v * mp.cos(j * angle) for v, angle in zip(values, angles)))
            for j in range(nodes)]


def scaled_erfc(t):
    """(1 + 2 x) exp(x^2) erfc(x), the function whose series ERFC is."""
    x = CENTRE * (1 + t) / (1 - t)
    if x < 60:
        return (1 + 2 * x) * mp.exp(x * x) * mp.erfc(x)
    terms = [mp.fac2(2 * k - 1) / (-2 * x * x)**k for k in range(20)]      # mpmath's erfc ends before
    return (1 + 2 * x) * sum(terms) / (x * mp.sqrt(mp.pi))


def scaled_erf(t):
    x = mp.sqrt((1 + t) / 2)
    return mp.erf(x) / x


@pytest.mark.parametrize("known, function, nodes", [(ERFC, scaled_erfc, 60), (ERF, scaled_erf, 30)])
def test_the_coefficients(known, function, nodes):
    with mp.workdps(40):
        computed = coefficients(function, nodes)
    np.testing.assert_allclose(known, computed[:len(known)], rtol=1e-14, atol=1e-30)
    assert max(abs(c) for c in computed[len(known):]) < 1e-17        # what is left out


@pytest.mark.parametrize("dtype, digits", [("float32", 1e-6), ("float64", 1e-15)])
@pytest.mark.parametrize("name", ["erf", "erfc"])
def test_every_digit(backend, name, dtype, digits):
    x = np.concatenate([np.linspace(-6, 6, 121), np.linspace(-28.3, 28.3, 40), np.logspace(-30, 1, 32)]).astype(dtype)
    with backend.scope():
        y = backend.to_numpy({"erf": erf, "erfc": erfc}[name](backend.xp, backend.asarray(x)))
    assert y.dtype == dtype
    right = [getattr(mpmath, name)(mpf(float(v))) for v in x]
    errors = [abs(mpf(float(a)) - b) / max(abs(b), SMALLEST[dtype]) for a, b in zip(y, right)]
    assert max(errors) < digits


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_at_the_ends(backend, dtype):
    x = backend.asarray(np.array([np.inf, -np.inf, np.nan, 0.0, END, 1e30, -1e30], dtype))
    with backend.scope():
        results = [backend.to_numpy(f(backend.xp, x)) for f in (erf, erfc)]
    np.testing.assert_allclose(results, [[1, -1, np.nan, 0, 1, 1, -1], [0, 2, np.nan, 1, 0, 0, 2]], rtol=1e-6, atol=0)
