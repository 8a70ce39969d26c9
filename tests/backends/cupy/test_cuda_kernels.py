"""The sources of the CUDA kernels, compiled by g++ and run on the CPU, agree with base.py.

The same checks fail for kernels with a mistake in them. When everything runs, the kernels also run
under AddressSanitizer and UBSan. No GPU is needed, and none is tested: see test_gpu_parity.py.
"""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import shim
from check_runs import Outcome, outcomes
from fake_cupy import FakeCupy, installed
from kernel_checks import CHECK_FAILED, CHECKS, DRAWN, MODULES, SANITIZER_FAILED, sanitized
from tiers import Number, full, number_of
from window_checks import READS_TOO_MUCH

from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy.backend import CupyBackend, kernels

# The first takes as long as all others, which draw instantiations. The kernels of the second take
# long to compile; NVRTC compiles them in the first tier.
IN_FULL = {"every_instantiation", "warpgroups_agree"}
# Mistakes: the file, the code there, the code instead, and the check that must notice.
MUTANTS = {name: mutant for module in MODULES for name, mutant in module.MUTANTS.items()}
IN_FIRST_TIER = {next(iter(module.MUTANTS)) for module in MODULES[:2]}


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[CupyBackend]:
    with installed(FakeCupy(folder, gpus=2)):
        yield CupyBackend(tf32="never")


@pytest.mark.parametrize("name", [pytest.param(name, marks=full) if name in IN_FULL else name
                                  for name in CHECKS if name not in DRAWN])
def test_kernels_agree_with_base(name: str, backend: CupyBackend):
    CHECKS[name](backend, [""], number_of(True))


@pytest.mark.parametrize("name", sorted(DRAWN))
def test_kernels_agree_with_base_on_drawn_problems(name: str, backend: CupyBackend, number: Number):
    CHECKS[name](backend, [""], number)


# --- in processes of their own, with AddressSanitizer and UBSan -----------------------------------

def sanitizing() -> dict[str, str]:
    """The environment of a process that can load libraries with sanitizers."""
    asan = subprocess.run(["g++", "-print-file-name=libasan.so"], capture_output=True, text=True,
                          check=True)
    return {"LD_PRELOAD": asan.stdout.strip(),
            "ASAN_OPTIONS": f"detect_leaks=0:exitcode={SANITIZER_FAILED}",  # Python leaks by itself
            "UBSAN_OPTIONS": f"print_stacktrace=1:exitcode={SANITIZER_FAILED}"}


Outcomes = dict[str, Outcome]


@pytest.fixture(scope="module")
def checked(folder: Path) -> Outcomes:
    """The outcome of each check, with one library for each family, made before."""
    folder = folder / "sanitized"       # which no other test uses
    folder.mkdir(exist_ok=True)
    with ThreadPoolExecutor(2) as pool:
        for built in [pool.submit(shim.build, cuda_launch.source(family), names, folder,
                                  sanitized("O1")) for family, names in kernels().items()]:
            built.result()
    there = {*folder.iterdir()}
    runs = [[str(folder), name, "--everything", "--sanitize", "O1"] for name in CHECKS]
    done = dict(zip(CHECKS, outcomes(runs, **sanitizing()), strict=True))
    assert {*folder.iterdir()} == there, "the checks compiled libraries of their own"
    return done


@full
@pytest.mark.parametrize("name", CHECKS)
def test_kernels_do_nothing_that_the_sanitizers_notice(name: str, checked: Outcomes):
    result = checked[name]
    assert result.status == 0, f"status {result.status}\n{result.output}\n{result.error[-5000:]}"
    assert f"{name}: as base.py" in result.output


# --- kernels with a mistake -----------------------------------------------------------------------

# A mutant is compiled for float alone, to save time.
QUICKLY = "--only", "<float", "Tf32", "warpgroup", "pack_filters", "add_gradients"
SANITIZED = "--sanitize", "O0"
# Without a mistake, all checks that a mutant must fail.
RIGHT = sorted({failing for *_, failing in MUTANTS.values()})


@pytest.fixture(scope="module")
def mutants(everything: bool, folder: Path, tmp_path_factory: pytest.TempPathFactory) -> Outcomes:
    """The outcome of each mutant's check: without sanitizers, which takes two thirds of the time,
    and with them if no result was wrong. When everything runs, also of each check without a
    mistake."""
    libraries = tmp_path_factory.mktemp("mutants")          # not kept
    runs: dict[str, list[str]] = {}
    for name in [name for name in MUTANTS if everything or name in IN_FIRST_TIER]:
        family, old, new, failing = MUTANTS[name]
        sources = tmp_path_factory.mktemp("mutant") / "kernels"
        shutil.copytree(cuda_launch.FOLDER, sources)
        file = sources / f"{family}.cu"
        text = file.read_text(encoding="utf-8")
        assert text.count(old) == 1, f"{name}: {old!r} is there {text.count(old)} times"
        file.write_text(text.replace(old, new), encoding="utf-8")
        runs[name] = [str(libraries), failing, "--kernels", str(sources)]
    if everything:
        runs |= {check: [str(libraries), check] for check in RIGHT}
    quickly = [*QUICKLY, *["--everything"] * everything]
    done = dict(zip(runs, outcomes([[*run, *quickly] for run in runs.values()]), strict=True))
    again = [name for name in runs if name in MUTANTS and done[name].status != CHECK_FAILED]
    return done | dict(zip(again, outcomes([[*runs[name], *quickly, *SANITIZED] for name in again],
                                           **sanitizing()), strict=True))


@pytest.mark.parametrize("name", [name if name in IN_FIRST_TIER else pytest.param(name, marks=full)
                                  for name in MUTANTS])
def test_the_checks_notice_a_mistake(name: str, mutants: Outcomes):
    result = mutants[name]
    noticed = {CHECK_FAILED: "AssertionError", SANITIZER_FAILED: "Sanitizer"}
    assert result.status in noticed, (
        f"status {result.status}\n{result.output}\n{result.error[-3000:]}")
    assert noticed[result.status] in result.error or "runtime error:" in result.error


@full
def test_an_access_that_changes_no_result_is_noticed_too(mutants: Outcomes):
    assert mutants[READS_TOO_MUCH].status == SANITIZER_FAILED
    assert "ERROR: AddressSanitizer: heap-" in mutants[READS_TOO_MUCH].error


@full
@pytest.mark.parametrize("name", RIGHT)
def test_without_a_mistake_the_same_run_passes(name: str, mutants: Outcomes):
    assert mutants[name].status == 0, mutants[name].error[-3000:]


def test_the_shim_has_barriers(tmp_path: Path):
    """Two kernels that need one: one that is right, and one whose threads wait at different
    barriers."""
    reason = shim.why_not()
    if reason:
        pytest.skip(reason)
    code = """#include <cuda_fp16.h>
extern "C" __global__ void reverse(const float* x, float* y) {
    __shared__ float block[64];
    block[threadIdx.x] = x[blockIdx.x * 64 + threadIdx.x];
    __syncthreads();
    y[blockIdx.x * 64 + threadIdx.x] = block[63 - threadIdx.x];
}
extern "C" __global__ void stuck(float* y) {
    if (threadIdx.x < 3) __syncthreads();
    else __syncwarp();
    y[threadIdx.x] = 1;
}"""
    library = shim.Library(code, ["reverse", "stuck"], tmp_path)
    x, y = np.arange(128, dtype=np.float32), np.zeros(128, np.float32)
    for backwards in (False, True):
        library.run_backwards(backwards)
        library("reverse", (2, 1, 1), (64, 1, 1), [x, y])
        np.testing.assert_array_equal(y, np.concatenate([x[63::-1], x[:63:-1]]))
        with pytest.raises(RuntimeError, match="stuck: threads of a block wait at a barrier"):
            library("stuck", (1, 1, 1), (64, 1, 1), [y])
