"""Shared by all tests: the tiers, the GPU, the settings of hypothesis, and the fixtures of
backends."""

from __future__ import annotations

import gc
from collections import Counter
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import pytest
import shim
from gpu import GPU, gpu_or_skip, why_no_gpu
from hypothesis import settings
from processes import ROOT
from skips import NUMBA_MISSING
from tiers import EVERYTHING, TIER, Number, number_of, only_in_full, runs

from xpnet import Backend, get_backend

# Every run draws the same examples. No example has a time limit, and none is stored.
settings.register_profile("xpnet", max_examples=number_of(EVERYTHING)(100), deadline=None,
                          derandomize=True, database=None)
settings.load_profile("xpnet")


ABOUT = {"first": "the first tier; XPNET_TESTS=all runs everything", "all": "everything",
         "rest": "what the first tier leaves out"}


# Tests and compilers create many objects. With Python's default, a garbage collection after every
# 700 new objects, collections take a tenth of the time.
gc.set_threshold(100_000, 20, 20)

# The files that take longest, so that no process is alone in the last minutes. They begin with
# those that compile: Numba's kernels and, in another process, CUDA's. Whatever needs these comes
# later and finds them on disk; otherwise two processes would compile the same at the same time.
LONGEST = [(ROOT / "tests" / f"{name}.py").resolve(strict=True) for name in (
    "backends/numba/test_numba_backend", "backends/cupy/test_cuda_kernels",
    "backends/cupy/test_nvrtc", "backends/cupy/test_capture", "backends/cupy/test_host_mutants",
    "backends/numba/test_numba_isa", "backends/numba/test_cold_and_warm",
    "backends/test_floating_point_errors", "backends/cpu/test_fork",
    "backends/cpu/test_cpu_threads", "project/test_examples", "project/test_docs",
    "io/test_hostile_files", "explore/test_browser", "project/test_notebooks",
    "benchmarks/test_benchmarks_gpu_rehearsal", "inspect/test_memory", "models/test_published",
    "parallel/test_mpi")]


def pytest_report_header() -> list[str]:
    return [f"tests: {ABOUT[TIER]}", f"GPU: {why_no_gpu() or 'yes'}"]


@pytest.hookimpl(trylast=True)          # pytest itself sorts by the parameters of fixtures
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Leaves out the tests of other tiers, and skips those marked `gpu` if there is no GPU.

    With XPNET_REQUIRE_GPU=1 the latter run, and fail without a GPU.
    """
    unstable = [item.nodeid for item in items if " at 0x" in item.nodeid]
    if unstable:        # pytest-xdist would find other tests in each process
        raise pytest.UsageError(f"expected the same name in each process. Received: {unstable[0]}")
    config.hook.pytest_deselected(items=[item for item in items if not runs(item)])
    rank = {path: number for number, path in enumerate(LONGEST)}
    items[:] = sorted(filter(runs, items), key=lambda item: rank.get(item.path, len(rank)))
    for item in items if why_no_gpu() else []:
        if item.get_closest_marker("gpu"):
            item.add_marker(pytest.mark.skip(reason=why_no_gpu()))


def pytest_collection_finish() -> None:
    """Each garbage collection would go through what belongs to thousands of tests."""
    gc.collect()
    gc.freeze()


class KernelsRun:
    """Fails a module whose tests on Numba never run a kernel, because they only test NumPy again.

    The last of these tests fails. This is checked only if all tests of the module run in this
    process, since a few of them may need no kernel. If XPNET_TESTS=rest leaves some out, the first
    tier has checked them.
    """

    def __init__(self) -> None:
        self.left: Counter[str] = Counter()  # tests on Numba that have not run yet, by module
        self.calls: Counter[str] = Counter()        # of kernels, by module
        self.parts: set[str] = set()                # modules of which some tests are left out

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        option, arguments = session.config.option, session.config.args
        if not (option.keyword or option.markexpr or any("::" in a for a in arguments)):
            self.left.update(module_of(item) for item in session.items if on_numba(item))

    def pytest_deselected(self, items: Sequence[pytest.Item]) -> None:
        if TIER == "rest":
            self.parts.update(module_of(item) for item in items if on_numba(item))

    @pytest.hookimpl(wrapper=True)
    def pytest_runtest_call(self, item: pytest.Item) -> Iterator[None]:
        if not on_numba(item):
            return (yield)
        from xpnet.backends.numba.kernels.jit import Kernel
        module, call = module_of(item), Kernel.__call__

        def counted(kernel: Kernel, *args: Any) -> Any:
            self.calls[module] += 1
            return call(kernel, *args)

        with pytest.MonkeyPatch.context() as patch:
            patch.setattr(Kernel, "__call__", counted)
            result = yield
        self.left[module] -= 1
        if self.left[module] == 0 and not self.calls[module] and module not in self.parts:
            pytest.fail(f"{module}: no test on Numba ran one of its kernels. Remedy: use the "
                        "fixture plain_backend", pytrace=False)
        return result


def module_of(item: pytest.Item) -> str:
    return item.module.__name__             # type: ignore[attr-defined]


def on_numba(item: pytest.Item) -> bool:
    """Whether the fixture `backend` is Numba's in this test."""
    return item.get_closest_marker("kernels") is not None


def pytest_configure(config: pytest.Config) -> None:
    if TIER not in ABOUT:
        raise pytest.UsageError(f"XPNET_TESTS: expected one of {[*ABOUT]}. Received: {TIER}.")
    config.pluginmanager.register(KernelsRun())


@pytest.fixture(scope="session")
def everything() -> bool:
    """For a test that checks more when everything runs."""
    return EVERYTHING


@pytest.fixture(scope="session")
def number(everything: bool) -> Number:
    """number(n): how many examples a test draws, of the n that it draws when everything runs."""
    return number_of(everything)


# With kernels if Numba is installed.
OTHERS, LAST = ((["base"], "numpy") if NUMBA_MISSING else
                (["base", "numpy"], pytest.param("numba", marks=pytest.mark.kernels)))


@pytest.fixture(scope="session", params=[*only_in_full(*OTHERS), LAST, *GPU])
def backend(request: pytest.FixtureRequest) -> Backend:
    """The backend for tests of layers, losses, optimizers and training: Numba's in the first tier.

    The implementations are compared with each other in tests/backends. When everything runs, it is
    each backend in turn; "base" is the reference.
    """
    return gpu_or_skip() if request.param == "cupy" else cpu_backend(request.param)


@pytest.fixture(scope="session", params=[*only_in_full("base"), "numpy", *GPU])
def plain_backend(request: pytest.FixtureRequest) -> Backend:
    """For tests of plain array code or of float64: Numba has no kernels for these."""
    return gpu_or_skip() if request.param == "cupy" else cpu_backend(request.param)


def cpu_backend(name: str) -> Backend:
    return Backend() if name == "base" else get_backend(name)


@pytest.fixture(scope="session")
def folder() -> Path:
    """The folder of the CUDA kernels that g++ compiled for the CPU. Skips without such a g++."""
    reason = shim.why_not()
    if reason:
        pytest.skip(reason)
    folder = ROOT / "build" / "emulated_kernels"
    folder.mkdir(parents=True, exist_ok=True)
    return folder
