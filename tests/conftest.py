"""What all tests share: how hypothesis draws, where GPU tests run, and the backends that layers are tested on."""

import importlib.util
import os
from pathlib import Path

import pytest
import shim
from gpu import gpu_or_skip
from hypothesis import settings

from xpnet import Backend, BackendError, get_backend

# The same examples in every run, without a time limit for one of them and without files between runs.
settings.register_profile("xpnet", max_examples=100, deadline=None, derandomize=True, database=None)
settings.load_profile("xpnet")


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Skip the tests marked `gpu` where there is no GPU; with XPNET_REQUIRE_GPU=1 they run, and fail there."""
    marked = [item for item in items if item.get_closest_marker("gpu")]
    if not marked or os.environ.get("XPNET_REQUIRE_GPU") == "1":
        return
    try:
        get_backend("cupy")
    except BackendError as error:
        for item in marked:
            item.add_marker(pytest.mark.skip(reason=str(error).split(". ")[0]))      # why; the rest is the remedy


NO_NUMBA = pytest.mark.skipif(not importlib.util.find_spec("numba"), reason="numba is not installed")


@pytest.fixture(scope="session", params=["base", "numpy", pytest.param("numba", marks=NO_NUMBA),
                                         pytest.param("cupy", marks=pytest.mark.gpu)])
def backend(request) -> Backend:
    """Each backend in turn; "base" is the reference implementation itself."""
    if request.param == "cupy":
        return gpu_or_skip()                            # in full digits
    return Backend() if request.param == "base" else get_backend(request.param)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels lie that g++ compiled for the CPU; the tests that need it are skipped where g++ cannot."""
    reason = shim.why_not()
    if reason:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("kernels")
