"""Constants of a file are computed as ONNX says, integers exactly."""

from __future__ import annotations

import math
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from xpnet.io.onnx.fold import FOLD, Batch
from xpnet.io.onnx.library import UnsupportedError

NUMBERS = [-2**63 + 1, -2**53 - 1, -7, -6, -1, 0, 1, 6, 7, 2**53 + 1, 2**62 + 3]


def folded(kind: str, a: Any, b: Any, **attributes: Any) -> Any:
    return FOLD[kind](SimpleNamespace(attributes=attributes), np.asarray(a), np.asarray(b))


@pytest.mark.parametrize("b", [-3, -1, 1, 2, 7, 2**53 + 1])
def test_integers_are_divided_exactly_and_rounded_towards_0(b: int):
    """A quotient of floats is wrong above 2^53."""
    found = folded("Div", NUMBERS, b)
    expected = [abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1) for a in NUMBERS]
    assert found.dtype == np.int64 and found.tolist() == expected


@pytest.mark.parametrize("b", [-3, 2, 7])
def test_remainders(b: int):
    """With the sign of the divisor as in Python; with fmod, of the dividend as in C."""
    assert folded("Mod", NUMBERS, b).tolist() == [a % b for a in NUMBERS]
    assert folded("Mod", NUMBERS, b, fmod=1).tolist() == [
        (abs(a) % abs(b)) * (-1 if a < 0 else 1) for a in NUMBERS]
    assert folded("Mod", np.float32(-5.5), np.float32(2), fmod=1) == math.fmod(-5.5, 2)


@pytest.mark.parametrize("kind", ["Div", "Mod"])
def test_an_integer_divided_by_0_is_refused(kind: str):
    with pytest.raises(UnsupportedError, match="divides an integer by 0"):
        folded(kind, [4, 5], [2, 0])


def test_unsigned_integers_and_real_numbers_are_divided():
    found = folded("Div", np.array([7, 250], np.uint8), np.array([2, 3], np.uint8))
    assert found.dtype == np.uint8 and found.tolist() == [3, 83]
    assert folded("Div", np.float32(1), np.float32(4)) == 0.25


def test_the_number_of_samples_is_divided():
    sizes = np.array([Batch(6), 8], object)
    found = folded("Div", sizes, np.array([3, 2]))
    assert found[0] == Batch(2) and found[1] == 4
