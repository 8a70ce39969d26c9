"""What all tests share: how hypothesis draws, where GPU tests run, and the backends that layers are tested on."""

import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import shim
from gpu import gpu_or_skip
from hypothesis import settings
from skips import NO_NUMBA

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


class KernelsRun:
    """Fails a module whose tests on Numba never reach a kernel of it: they would test NumPy twice.

    The last of these tests fails. Only where all of the module's tests run in this process: a few of them may need none.
    """

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()         # tests on Numba that have not run yet, by module
        self.calls: Counter[str] = Counter()        # of kernels, by module

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        option, arguments = session.config.option, session.config.args
        if not (option.keyword or option.markexpr or any("::" in argument for argument in arguments)):
            self.left.update(item.module.__name__ for item in session.items if on_numba(item))     # type: ignore[attr-defined]

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        if not on_numba(item):
            return (yield)
        from xpnet.backends.numba.kernels.jit import Kernel
        module, call = item.module.__name__, Kernel.__call__                                       # type: ignore[attr-defined]

        def counted(kernel: Kernel, *args: Any) -> Any:
            self.calls[module] += 1
            return call(kernel, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kernel, "__call__", counted)
            result = yield
        self.left[module] -= 1
        if self.left[module] == 0 and not self.calls[module]:
            pytest.fail(f"{module}: no test on Numba ran a kernel of it; use plain_backend", pytrace=False)
        return result


def on_numba(item: pytest.Item) -> bool:
    """Whether the fixture `backend` is Numba's in this test, and Numba is installed."""
    return item.get_closest_marker("kernels") is not None and not NO_NUMBA.args[0]


def pytest_configure(config: pytest.Config) -> None:
    config.pluginmanager.register(KernelsRun())


@pytest.fixture(scope="session", params=["base", "numpy", pytest.param("numba", marks=[NO_NUMBA, pytest.mark.kernels]),
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


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Where kernels lie that g++ compiled for the CPU; the tests that need it are skipped where g++ cannot."""
    reason = shim.why_not()
    if reason:
        pytest.skip(reason)
    return tmp_path_factory.mktemp("kernels")
