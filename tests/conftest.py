"""What all tests share: how hypothesis draws, where GPU tests run, and the backends that layers are tested on."""

import importlib.util
import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

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


@pytest.fixture(scope="session", params=["base", "numpy", pytest.param("cupy", marks=pytest.mark.gpu)])
def plain_backend(request) -> Backend:
    """Each backend but Numba, for tests of plain array code or of float64, where Numba has nothing of its own."""
    if request.param == "cupy":
        return gpu_or_skip()
    return Backend() if request.param == "base" else get_backend(request.param)


@pytest.fixture(scope="module", autouse=True)
def kernels_run(request: pytest.FixtureRequest) -> Iterator[None]:
    """Fails a module whose tests on Numba never reach a kernel of it: they would test NumPy twice.

    Only where the whole module runs in this process: a part of it may well need none.
    """
    on_numba = [item for item in request.session.items if item.module is request.module     # type: ignore[attr-defined]
                and getattr(item, "callspec", None) and item.callspec.params.get("backend") == "numba"]
    options = request.config.option
    partial = options.keyword or options.markexpr or any("::" in argument for argument in request.config.args)
    if not on_numba or partial or hasattr(request.config, "workerinput") or NO_NUMBA.args[0]:
        yield
        return
    from xpnet.backends.numba_kernels.jit import Kernel
    calls, call = 0, Kernel.__call__

    def counted(self: Kernel, *args: Any) -> Any:
        nonlocal calls
        calls += 1
        return call(self, *args)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Kernel, "__call__", counted)
        yield
    assert calls, f"{request.module.__name__}: {len(on_numba)} tests on Numba, and no kernel ran; use plain_backend"


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels lie that g++ compiled for the CPU; the tests that need it are skipped where g++ cannot."""
    reason = shim.why_not()
    if reason:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("kernels")
