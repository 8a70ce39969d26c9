"""The GPU: tests that need one are skipped without it, or fail if XPNET_REQUIRE_GPU=1."""

from __future__ import annotations

import functools
import os

import pytest

from xpnet.backends import Backend, BackendError, get_backend

REQUIRED = os.environ.get("XPNET_REQUIRE_GPU") == "1"


@functools.cache
def why_no_gpu() -> str:
    """Why the tests marked `gpu` are skipped; empty if there is a GPU, or if one is required."""
    if REQUIRED:
        return ""
    try:
        get_backend("cupy")
    except BackendError as error:
        return str(error).split(". ")[0]            # the rest is the remedy
    return ""


# The parameter of a fixture that is also run on a GPU. Without one it is left out, because
# thousands of skipped tests would say the same as tests/backends/cupy/test_gpu_*.py.
GPU = [] if why_no_gpu() else [pytest.param("cupy", marks=pytest.mark.gpu)]


def skip_module_without_gpu() -> None:
    """Called by a module whose tests all need a GPU: skips it as a whole, with the reason."""
    if why_no_gpu():
        pytest.skip(why_no_gpu(), allow_module_level=True)


def gpu_or_skip(tf32: str = "never") -> Backend:
    """The CuPy backend of the first GPU, by default with full float32.

    Parity is checked to more digits than TF32 has.
    """
    try:
        from xpnet.backends.cupy.backend import CupyBackend
        return CupyBackend(tf32=tf32)
    except BackendError as error:
        if REQUIRED:
            pytest.fail(f"XPNET_REQUIRE_GPU=1, but {error}", pytrace=False)
        pytest.skip(str(error))
