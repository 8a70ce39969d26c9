"""Compiled kernels for other processors than this one, and how they are kept on disk."""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
from processes import STRICT_MEMORY, run_script
from tiers import first, full

numba = pytest.importorskip("numba", reason="Numba is not installed")

from llvmlite.binding import get_host_cpu_features  # noqa: E402 - only where Numba is installed
from numba import prange  # noqa: E402
from numba.core import config  # noqa: E402

from xpnet.backends.numba.kernels import instructions, jit, kept  # noqa: E402

X86 = platform.machine() in ("x86_64", "AMD64")

# --- other processors -----------------------------------------------------------------------------

PARITY = """
from cpu_cases import LARGE
from parity import agree, run
from parity_cases import CASES
from xpnet.backends import Backend
from xpnet.backends.numba.backend import NumbaBackend
from xpnet.backends.numba.kernels import instructions

assert instructions.ISA is instructions.{name}, instructions.ISA
backend, count = NumbaBackend(), 0
for case in CASES + LARGE:
    if case.method in {methods} and "float64" not in str(case):
        agree(case, run(case, backend), run(case, Backend()))
        count += 1
assert count > {least}
"""
HASWELL = (
    "+sse,+sse2,+sse3,+ssse3,+sse4.1,+sse4.2,+avx,+avx2,+fma,+bmi,+bmi2,+f16c,+popcnt,+movbe,"
    "+lzcnt,+64bit,+cmov,+cx8,+fxsr")


METHODS = "gemm", "conv2d", "conv2d_dx", "conv2d_dW", "scan", "scan_backward"


@full
@pytest.mark.skipif(not (X86 and get_host_cpu_features().get("avx2")),
                    reason="this processor has no AVX2")
def test_products_and_convolutions_with_avx2():
    run_script(PARITY.format(name="AVX2", methods=METHODS, least=400), NUMBA_CPU_NAME="haswell",
               NUMBA_CPU_FEATURES=HASWELL, **STRICT_MEMORY)


@pytest.mark.skipif(not X86, reason="the blocks for 128 bits are tried on x86 alone")
@full
def test_products_and_convolutions_with_128_bits():
    run_script(PARITY.format(name="OTHER", methods=METHODS, least=400), NUMBA_CPU_NAME="generic",
               **STRICT_MEMORY)


@pytest.mark.parametrize("features, name", [
    ("+avx512f,+avx512vl,+avx2,+fma", "AVX-512"), ("+avx512f,-avx512vl,+avx2,+fma", "AVX2"),
    ("+avx2,-fma", "128 bits"), ("+fma,+avx2", "AVX2"), ("+neon", "NEON"), ("", "128 bits"),
    ("-avx512f,-avx512vl,-avx2,+sse4.2", "128 bits")])
def test_block_sizes_follow_from_the_instruction_set(
        features: str, name: str, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(config, "CPU_FEATURES", features)
    assert instructions.instruction_set().name == name


# --- on disk --------------------------------------------------------------------------------------

def double(x, y):
    """y = 2 x"""
    for i in prange(x.size):
        y[i] = 2 * x[i]


def triple(x, y):
    """y = 3 x"""
    for i in prange(x.size):
        y[i] = 3 * x[i]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty folder for compiled kernels, in a process that has not announced a compilation
    yet."""
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path))
    monkeypatch.setattr(kept.KernelCache, "said", set())
    return tmp_path


def compiles(function: Callable[..., None]) -> bool:
    """Make the kernel as a new process would, and call it. Returns whether it was compiled, not
    found on disk."""
    kernel, x, y = jit.kernel(function), np.arange(5, dtype=np.float32), np.empty(5, np.float32)
    kernel(1, x, y)
    assert y.tolist() == (x * {"double": 2, "triple": 3}[function.__name__]).tolist()
    stats = kernel.compiled.stats
    assert sum(stats.cache_hits.values()) + sum(stats.cache_misses.values()) == 1
    return not stats.cache_hits


def test_what_was_compiled_is_found_again(folder: Path):
    assert compiles(double) and compiles(triple)
    assert not compiles(double) and not compiles(triple)
    assert [path.parent for path in folder.rglob("*.kernel")] == [folder / "kernels"] * 2


def test_a_compilation_is_announced_once(
        folder: Path, monkeypatch: pytest.MonkeyPatch, capsys):
    compiles(double)
    said = capsys.readouterr()
    first, family = said.err.splitlines()
    assert first.startswith("xpnet: compiling CPU kernels") and str(folder / "kernels") in first
    assert family == "xpnet: compiling test_numba_isa" and said.out == ""
    compiles(triple)
    assert capsys.readouterr() == ("", "")
    kept.KernelCache.said.clear()
    assert not compiles(double) and capsys.readouterr() == ("", "")


DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "empty": lambda data: b"", "beginning": lambda data: data[:7],
    "half": lambda data: data[:len(data) // 2], "all but the end": lambda data: data[:-1],
    "garbage": lambda data: b"garbage\n" * 100, "zeros": lambda data: bytes(len(data))}


@pytest.mark.parametrize("kind", first(DAMAGES, "half", "garbage"))
def test_a_damaged_file_is_compiled_again(kind: str, folder: Path):
    damage = DAMAGES[kind]
    assert compiles(double)
    path, = folder.rglob("*double*.kernel")
    path.write_bytes(damage(path.read_bytes()))
    assert compiles(double)
    assert not compiles(double)


def test_a_deleted_file_is_compiled_again(folder: Path):
    compiles(double)
    for path in folder.rglob("*.kernel"):
        path.unlink()
    assert compiles(double) and not compiles(double)


def test_a_folder_that_cannot_be_made_raises_nothing(
        tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    (tmp_path / "file").write_text("not a folder")
    monkeypatch.setattr(config, "CACHE_DIR", str(tmp_path / "file" / "below"))
    assert compiles(double) and compiles(double)


USE = """
import numpy as np
from xpnet.backends.numba.backend import NumbaBackend
assert NumbaBackend().activate(np.array([-1, 2], np.float32), "relu").tolist() == [0, 2]
"""


@full
def test_the_folder_of_a_process(tmp_path: Path):
    """NUMBA_CACHE_DIR, or else the user's cache folder, or none if neither can be made."""
    home = {"HOME": str(tmp_path), "XDG_CACHE_HOME": str(tmp_path / "user"),
            "LOCALAPPDATA": str(tmp_path / "user")}
    for environment in (home | {"NUMBA_CACHE_DIR": str(tmp_path / "numba")},
                        home | {"NUMBA_CACHE_DIR": ""}):
        before = set(tmp_path.rglob("*.kernel"))
        said = run_script(USE, **environment)
        place = said.split("kept in ")[1].splitlines()[0]
        assert Path(place).is_relative_to(environment["NUMBA_CACHE_DIR"] or tmp_path)
        assert {path.parent for path in set(tmp_path.rglob("*.kernel")) - before} == {Path(place)}
        assert run_script(USE, **environment) == ""  # found on disk, and nothing is announced
    (tmp_path / "file").write_text("not a folder")
    nowhere = {name: str(tmp_path / "file" / "below") for name in home} | {"NUMBA_CACHE_DIR": ""}
    for _ in range(2):
        assert run_script(USE, **nowhere).count("compiling CPU kernels") == 1


@full
def test_processes_that_compile_at_once(tmp_path: Path):
    with ThreadPoolExecutor(3) as crew:
        said = list(
            crew.map(lambda folder: run_script(USE, NUMBA_CACHE_DIR=folder), [str(tmp_path)] * 3))
    assert any(said)
    assert run_script(USE, NUMBA_CACHE_DIR=str(tmp_path)) == ""


def test_a_change_of_any_source_changes_the_stamp(tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    stamp = kept.sources.__wrapped__
    sources = tmp_path / "numba_kernels"
    shutil.copytree(Path(kept.__file__).parent, sources,
                    ignore=shutil.ignore_patterns("__pycache__"))
    original = stamp()
    monkeypatch.setattr(kept, "__file__", str(sources / "kept.py"))
    assert stamp() == original  # the path of the folder does not count
    for path in sources.glob("*.py"):
        data = path.read_bytes()
        path.write_bytes(data + b"\n")
        assert stamp() != original
        path.write_bytes(data)
    assert stamp() == original
    monkeypatch.setattr(numba, "__version__", "0.0")
    assert stamp() != original


def test_a_kernel_kept_under_another_stamp_is_not_used(
        folder: Path, monkeypatch: pytest.MonkeyPatch):
    compiles(double)
    monkeypatch.setattr(kept, "sources", lambda: "another")
    assert compiles(double) and not compiles(double)
