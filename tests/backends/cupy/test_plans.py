"""What the host computes for matrix products: divisors, structs, plans, and who multiplies."""

from __future__ import annotations

import re

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from xpnet.backends import Window
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import plans

MOST = 2**31 - 1                # of a dividend and of a divisor


def quotient(n: int, d: int) -> int:
    """The arithmetic of the kernel, in its 32 bits."""
    magic, shift = plans.divisor(d)
    assert 0 < magic < 2**32 and 0 <= shift < 32 and 2 * n < 2**32
    return 2 * n * magic >> 32 >> shift


# --- divisions ------------------------------------------------------------------------------------

@pytest.mark.parametrize("d", [*range(1, 70), *(2**k + e for k in range(7, 31) for e in (-1, 0, 1)),
                               MOST - 1, MOST])
def test_a_quotient_is_exact_at_the_edges(d: int):
    """An error would show where the quotient changes, and most at the largest dividends."""
    last = MOST // d * d
    dividends = {0, 1, d - 1, d, d + 1, 2 * d - 1, 2 * d, last - d, last - 1, last, last + d - 1,
                 MOST - 1, MOST, *(2**k * d + e for k in range(31) for e in (-1, 0))}
    for n in sorted(dividends):
        if 0 <= n <= MOST:
            assert quotient(n, d) == n // d


@given(st.integers(0, MOST), st.integers(1, MOST))
def test_a_quotient_is_exact(n: int, d: int):
    assert quotient(n, d) == n // d


def test_a_smaller_magic_is_not_exact():
    magic, shift = plans.divisor(7)
    assert 2 * 7 * magic >> 32 >> shift == 1 and 2 * 7 * (magic - 1) >> 32 >> shift == 0


# --- structs --------------------------------------------------------------------------------------

def test_the_structs_are_those_of_the_kernels():
    text = cuda_launch.source("product")
    product = re.search(r"struct Product \{(.*?)\};", text, re.DOTALL)
    image = re.search(r"struct Image \{(.*?)\};", text, re.DOTALL)
    assert product is not None and image is not None
    fields = re.sub(r"//.*", "", product[1])
    assert [name.strip() for line in re.findall(r"(?:i64|int) ([^;]*);", fields)
            for name in line.split(",")] == list(plans.PRODUCT.names or ())
    assert re.sub(r"\s+", " ", image[1]).strip() == (
        "Window window; Divisor " + ", ".join((plans.IMAGE.names or ())[1:]) + ";")
    assert "struct Divisor { unsigned magic; int shift; };" in text
    assert re.search(rf"constexpr int BATCH = {plans.BATCH};", text)


def test_the_struct_of_an_image_has_the_divisors_of_its_sizes():
    window = cuda_launch.window_struct((3, 9, 8, 5), Window((3, 2), (2, 1), (1, 0, 2, 3), (1, 2)))
    image = plans.image_struct(window)
    assert image["window"] == window
    for name in ("N", "OW", "KH", "KW"):
        assert image[f"by_{name}"].item() == plans.divisor(int(window[name]))
    assert image.tobytes()[:window.nbytes] == window.tobytes()
    assert image.nbytes == window.nbytes + 4 * 8 and image.dtype["by_N"]["magic"] == np.uint32
