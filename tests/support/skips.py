"""Optional packages: the mark that skips tests without Numba, and the CPU backends that exist."""

import importlib.util

import pytest

NUMBA_MISSING = importlib.util.find_spec("numba") is None
NO_NUMBA = pytest.mark.skipif(NUMBA_MISSING, reason="numba is not installed")
CPU = ["numpy"] if NUMBA_MISSING else ["numpy", "numba"]
