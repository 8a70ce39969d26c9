"""Sums of the CPU kernels: they add in the order that sums.py describes, with the same bits on
every processor."""

from __future__ import annotations

import platform

import numpy as np
import pytest
from parity import normal
from processes import run_script

numba = pytest.importorskip("numba", reason="Numba is not installed")

from xpnet.backends.numba.kernels import jit, sums  # noqa: E402 - only where Numba is installed

SIZES = (0, 1, 2, 15, 16, 17, 31, 32, 33, 63, 64, 65, 95, 100, 257, 4096)


@jit.inline
def row_total(x):
    return sums.total(x)


@jit.inline
def row_total_about(x, centre):
    return sums.total_about(x, centre)


@jit.inline
def row_squares_about(x, centre):
    return sums.squares_about(x, centre)


@jit.inline
def row_gradient_totals(dy, x, y, centre, floor):
    return sums.gradient_totals(dy, x, y, centre, floor)


def by_parts(terms: np.ndarray) -> np.float32:
    """The sum of terms (n,) by 32 partial sums, which are then added pairwise."""
    rows = -(-terms.size // 32)
    padded = np.zeros(rows * 32, np.float32)
    padded[:terms.size] = terms
    parts = np.zeros(32, np.float32)
    for row in padded.reshape(rows, 32):
        parts = parts + row
    while parts.size > 1:
        parts = parts[:parts.size // 2] + parts[parts.size // 2:]
    return parts[0]


def check(n: int) -> None:
    """Every sum of n numbers against by_parts, bit by bit."""
    dy, x, y = (normal(n + 3, seed=seed)[3:] for seed in range(3))      # not aligned for vectors
    centre, floor = np.float32(0.3), np.float32(-0.2)
    far, dz = x - centre, dy * (y > floor)
    actual = (row_total(x), row_total_about(x, centre), row_squares_about(x, centre),
              *row_gradient_totals(dy, x, y, centre, floor))
    expected = [by_parts(terms) for terms in (x, far, far * far, dz, dz * far)]
    assert np.array(actual, np.float32).tobytes() == np.array(expected, np.float32).tobytes()


@pytest.mark.parametrize("n", SIZES)
def test_every_sum_is_made_in_the_documented_order(n: int):
    check(n)


@pytest.mark.parametrize("at", [0, 40, 69])
def test_a_nan_reaches_the_sum_and_elements_behind_the_row_do_not(at: int):
    x = np.full(80, np.nan, np.float32)
    x[5:75] = 1
    assert row_total(x[5:75]) == 70
    x[5 + at] = np.nan
    assert np.isnan(row_total(x[5:75]))


def test_rows_of_another_type_or_with_gaps_are_refused():
    for row in (np.zeros(4), np.zeros(8, np.float32)[::2]):
        with pytest.raises(numba.TypingError, match="expected C-contiguous rows of float32"):
            row_total(row)


@pytest.mark.skipif(platform.machine() not in ("x86_64", "AMD64"),
                    reason="other vectors are tried on x86 alone")
def test_vectors_of_128_bits_give_the_same_bits():
    run_script("""
from tests.backends.numba.test_numba_sums import SIZES, check
from xpnet.backends.numba.kernels import instructions

assert instructions.ISA is instructions.OTHER
for n in SIZES:
    check(n)
""", NUMBA_CPU_NAME="generic")
