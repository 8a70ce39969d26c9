"""A fixture for tests of the digits of each implementation, the CUDA kernels included."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from fake_cupy import FakeCupy, installed
from gpu import gpu_or_skip
from skips import NO_NUMBA

from xpnet.backends import Backend, get_backend
from xpnet.backends.cupy.backend import CupyBackend

CPU = ["base", "numpy", pytest.param("numba", marks=NO_NUMBA)]


def on_cpu(name: str) -> Backend:
    """One of the backends in CPU."""
    return Backend() if name == "base" else get_backend(name)


def implementations(*kernels: str) -> Any:
    """A fixture: every backend, and as "emulated" the CUDA kernels with these words in their names.

    Those are compiled by g++ and run on the CPU.
    """
    @pytest.fixture(scope="module",
                    params=[*CPU, "emulated", pytest.param("cupy", marks=pytest.mark.gpu)])
    def backend(request: pytest.FixtureRequest) -> Iterator[Backend]:
        if request.param == "emulated":
            names = *kernels, "random_bits"                 # which the backend tries first
            folder = request.getfixturevalue("folder")
            with installed(FakeCupy(folder, kernels=names, checks=("-O0",))):
                yield CupyBackend()
        else:
            yield gpu_or_skip() if request.param == "cupy" else on_cpu(request.param)
    return backend
