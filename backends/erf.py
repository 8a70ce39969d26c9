"""The complementary error function, which NumPy lacks, in plain array code for any array module.

    erfc(x) = exp(-x^2) p(t) / (1 + 2 x)    for x >= 0, t = (x - 15/4) / (x + 15/4)

The change of variable, from x >= 0 to -1 .. 1, is that of Shepherd and Laframboise 1981. p is the
Chebyshev series that equals the function at 60 Chebyshev nodes, truncated where the rest is below
the array's last digit, and written as a polynomial. It was computed with mpmath in 60 digits, and
test_erf.py does it again. The relative error is below 1e-15 in float64 and 1e-6 in float32, also
if erfc is tiny.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

P = (1.2375126308378275, -0.14024059858554697, 0.0035854154854644293, 0.0822767384901452,
     -0.10880393014174886, 0.09230432116037748, -0.05869339858963677, 0.028362277418956406,
     -0.009746579558029276, 0.0017556258528952954, 0.0002937136655913448, -0.0002901540805408417,
     5.164909889268241e-05, 2.238423915508223e-05, -1.1444146237700524e-05, -9.73559896736775e-07,
     1.751637648849062e-06, -5.7218230603224086e-08, -2.5866850716155884e-07,
     2.3263508708859124e-08, 3.8675334242222354e-08, -3.744210080962018e-09,
     -5.1739902140113095e-09, 3.1114333809799254e-10, 4.2514714447963895e-10)
P_SINGLE = (1.2375126308081394, -0.14024059953590887, 0.003585419320941043, 0.08227677399009918,
            -0.10880401165954678, 0.09230393753827405, -0.058692735833347574, 0.028364105117372054,
            -0.009749243355606896, 0.0017511576292398034, 0.0002995965088889839,
            -0.00028431307575109806, 4.4280135184455274e-05, 1.8521947386750102e-05,
            -6.352404651074643e-06)
CENTRE = 15 / 4
END = 28.0              # erfc(28) is 0 in float64


def polynomial(t: Any, coefficients: Sequence[float]) -> Any:
    """Sum of coefficients[k] t^k, by Horner's rule in one array."""
    p = coefficients[-1] * t
    for c in coefficients[-2:0:-1]:
        p += c
        p *= t
    p += coefficients[0]
    return p


def erfc(xp: Any, x: Any) -> Any:
    """1 - erf(x) = 2/sqrt(pi) times the integral of exp(-t^2) from x to infinity.

    x^2 is split into an exact square and a small rest, so that the exponentials are accurate.
    """
    a = xp.minimum(xp.abs(x), END)
    exact = xp.floor(16 * a) / 16
    y = polynomial((a - CENTRE) / (a + CENTRE), P if x.dtype.itemsize > 4 else P_SINGLE)
    y *= xp.exp(-exact * exact) * xp.exp((exact - a) * (a + exact))
    y /= 1 + 2 * a
    side = xp.sign(x)
    return 1 - side + side * y                  # 2 - y where x < 0, without a branch
