"""Marks that skip a test whose optional package is not installed."""

import importlib.util

import pytest

NO_NUMBA = pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="numba is not "
                                                                            "installed")
