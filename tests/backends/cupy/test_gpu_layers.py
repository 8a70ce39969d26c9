"""Every layer on a real GPU against the same layer on NumPy: in full digits, and in TF32.
kernel_checks.py does it without."""

from __future__ import annotations

import pytest
from gpu import gpu_or_skip, skip_module_without_gpu
from layer_cases import CASES, LayerCase
from layer_parity import TOLERANCE, agree

pytestmark = pytest.mark.gpu
skip_module_without_gpu()


@pytest.mark.parametrize("digits", TOLERANCE)
@pytest.mark.parametrize("case", CASES, ids=str)
def test_a_layer_agrees_with_numpy(case: LayerCase, digits: str):
    agree(case, gpu_or_skip(tf32="always" if digits == "tf32" else "never"), digits)
