"""A fixture for tests of the digits of each implementation, the CUDA kernels included."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
from fake_cupy import FakeCupy, installed
from gpu import GPU, gpu_or_skip
from skips import NO_NUMBA
from tiers import only_in_full

from xpnet.backends import Backend, get_backend
from xpnet.backends.cupy.backend import CupyBackend

CPU = [*only_in_full("base"), "numpy", pytest.param("numba", marks=NO_NUMBA)]


def on_cpu(name: str) -> Backend:
    """One of the backends in CPU."""
    return Backend() if name == "base" else get_backend(name)


@pytest.fixture(scope="module", params=[*CPU, "emulated", *GPU])
def implementation(request: pytest.FixtureRequest) -> Iterator[Backend]:
    """Every backend, and as "emulated" the CUDA kernels, compiled by g++ and run on the CPU."""
    if request.param == "emulated":
        folder: Path = request.getfixturevalue("folder")
        with installed(FakeCupy(folder)):
            yield CupyBackend()
    else:
        yield gpu_or_skip() if request.param == "cupy" else on_cpu(request.param)
