"""The GPU for tests that need one: a skip where there is none, a failure where XPNET_REQUIRE_GPU=1 says there must be."""

from __future__ import annotations

import os

import pytest

from xpnet.backends import Backend, BackendError


def gpu_or_skip(tf32: str = "never") -> Backend:
    """The CuPy backend of the first GPU, with float32 in full unless told: parity is asked for to more digits than TF32 has."""
    try:
        from xpnet.backends.cupy.backend import CupyBackend
        return CupyBackend(tf32=tf32)
    except BackendError as error:
        if os.environ.get("XPNET_REQUIRE_GPU") == "1":
            pytest.fail(f"XPNET_REQUIRE_GPU=1, but {error}", pytrace=False)
        pytest.skip(str(error))
