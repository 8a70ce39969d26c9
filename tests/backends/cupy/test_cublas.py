"""Products by cuBLAS, on a pretended GPU with a pretended library: the arithmetic is column-major
loops of our own, the calls are the real ones. Captured products are tested on a real GPU: see
test_gpu_parity.py.
"""

from __future__ import annotations

import ctypes
import gc
import itertools
import json
import shutil
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import shim
from fake_cupy import FakeCupy, installed
from parity import agree, distance, normal, run
from parity_cases import CASES
from tiers import first

from xpnet.backends import Backend, Window
from xpnet.backends.cupy import cublas
from xpnet.backends.cupy import plans as cuda_plans
from xpnet.backends.cupy import tuning as cuda_tuning
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K, CUBLAS
from xpnet.backends.cupy.product import Operand, math_for

TOLERANCE = {np.float16: 1e-3, np.float32: 2e-6, np.float64: 1e-14}
M, K, N = 7, 11, 5
KEY = f"Fma<float> ALONG_K ACROSS_K 1x{M}x{N}x{K}"


@dataclass
class Library:
    """The pretended cuBLAS: where it lies, and the library itself, to tell and to ask."""

    file: Path
    fake: Any

    @property
    def products(self) -> int:
        return self.fake.fake_products()


@pytest.fixture(scope="module")
def built(folder: Path) -> Path:
    file = folder / "libcublas.so"
    subprocess.run(["g++", "-std=c++17", "-O2", "-shared", "-fPIC", "-Wall", "-Wextra", "-Werror",
                    "-o", str(file),
                    str(shim.HERE / "fake_cublas.cpp")], check=True)
    return file


@pytest.fixture
def cupy(folder: Path) -> Iterator[FakeCupy]:
    """A pretended GPU, whose CuPy has no cuBLAS."""
    with installed(FakeCupy(folder, 2)) as cupy:
        yield cupy


@pytest.fixture
def library(cupy: FakeCupy, built: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
            ) -> Library:
    """The GPU's CuPy has this one; a copy for each test, so that it begins anew."""
    file = tmp_path / "libcublas.so"
    shutil.copy(built, file)
    found = (
        SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(abs_path=str(file))))
    monkeypatch.setitem(sys.modules, "cuda.pathfinder", found)      # type: ignore[arg-type]
    cupy.cuda.cublas = SimpleNamespace()
    fake = ctypes.CDLL(str(file))
    fake.fake_last_stream.restype = ctypes.c_void_p
    return Library(file, fake)


def by_cublas(backend: CupyBackend) -> CupyBackend:
    """The backend, told to use cuBLAS for everything; what arrays hold before somebody writes to
    them is NaN."""
    empty = backend.empty

    def nothing(shape: tuple[int, ...], dtype: Any) -> Any:
        a = empty(shape, dtype)
        if a.dtype.kind == "f":
            a.fill(np.nan)
        return a
    backend.empty = nothing  # type: ignore[method-assign]
    backend._way = lambda key, usual, others, run: CUBLAS  # type: ignore[method-assign]
    return backend


def product(backend: CupyBackend) -> np.ndarray:
    """A (M, K) B (K, N), which every way has right."""
    a, b = normal(M, K), normal(K, N, seed=1)
    result = backend.to_numpy(backend.gemm(backend.asarray(a), backend.asarray(b)))
    assert distance(result, a.astype(np.float64) @ b) < 2e-6
    return result


# --- what is computed -----------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64])
@pytest.mark.parametrize("order_a", [ALONG_K, ACROSS_K])
@pytest.mark.parametrize("order_b", [ALONG_K, ACROSS_K])
@pytest.mark.parametrize("groups", first([1, 3], 3))
def test_orders_groups_and_what_becomes_of_a_sum(order_a: str, order_b: str, groups: int,
                                                 dtype: Any, library: Library):
    """Lines are longer than what is multiplied, groups do not touch each other, and what lies
    between them stays."""
    backend = by_cublas(CupyBackend(tf32="never"))
    rows_a, columns_a = (M, K) if order_a == ALONG_K else (K, M)
    rows_b, columns_b = (N, K) if order_b == ALONG_K else (K, N)
    a, b = normal(groups, rows_a + 1, columns_a + 2,
                  dtype=dtype), normal(groups, rows_b + 2, columns_b + 3, dtype=dtype, seed=1)
    bias, before = (normal(groups * M, dtype=dtype, seed=2),
                    normal(groups, M + 1, N + 2, dtype=dtype, seed=3))
    A, B = (a[:, :rows_a, :columns_a].astype(np.float64),
            b[:, :rows_b, :columns_b].astype(np.float64))
    exact = (A if order_a == ALONG_K
             else A.swapaxes(1, 2)) @ (B.swapaxes(1, 2) if order_b == ALONG_K else B)
    on = [backend.asarray(x) for x in (a, b, bias)]
    for with_bias, activation, accumulate in itertools.product((False, True),
                                                               (None, "relu", "tanh"),
                                                               (False, True)):
        out, asked = backend.asarray(before), library.products
        backend._product(math_for(backend, dtype, "gemm"), (groups, M, N, K),
                         Operand(on[0], order_a, columns_a + 2, a[0].size),
                         Operand(on[1], order_b, columns_b + 3, b[0].size), out, N + 2,
                         group=before[0].size, bias=on[2] if with_bias else None,
                         activation=activation, accumulate=accumulate)
        z = exact + (bias.astype(np.float64).reshape(groups, M, 1) if with_bias else 0)
        y = {None: z, "relu": np.maximum(z, 0), "tanh": np.tanh(z)}[activation]
        right = before.astype(np.float64)
        right[:, :M, :N] = y + (right[:, :M, :N] if accumulate else 0)
        result = backend.to_numpy(out)
        assert library.products == asked + 1
        assert distance(result, right) < TOLERANCE[dtype], (with_bias, activation, accumulate)
        assert (np.array_equal(result[:, M:], before[:, M:])
                and np.array_equal(result[:, :, N:], before[:, :, N:]))


def test_products_of_the_table_agree_with_base(library: Library):
    backend, base = by_cublas(CupyBackend(tf32="never")), Backend()
    for case in CASES:
        if case.method == "gemm" and all(a.size < 5000 for a in case.arrays.values()):
            asked = library.products
            agree(case, run(case, backend), run(case, base))
            assert library.products == asked + 1


def test_convolutions_whose_windows_are_points(library: Library):
    """What is multiplied is the image itself; other convolutions read it through a window, which
    cuBLAS cannot."""
    backend, base, groups = by_cublas(CupyBackend(tf32="never")), Backend(), 2
    x, W, bias, dy = (normal(4, 3, 5, 6), normal(6, 2, 1, 1, seed=1), normal(6, seed=2),
                      normal(6, 3, 5, 6, seed=3))
    on, point = [backend.asarray(a) for a in (x, W, bias, dy)], Window.make(1)
    for y, right in (
            (backend.conv2d(on[0], on[1], point, groups=groups, bias=on[2], activation="relu"),
             base.conv2d(x, W, point, groups=groups, bias=bias, activation="relu")),
            (backend.conv2d_dx(on[3], on[1], x.shape, point, groups=groups),
             base.conv2d_dx(dy, W, x.shape, point, groups=groups)),
            (backend.conv2d_dW(on[0], on[3], point, groups=groups),
             base.conv2d_dW(x, dy, point, groups=groups))):
        assert distance(backend.to_numpy(y), right) < 2e-6
    assert library.products == 3
    window, W, offered = Window.make(3, padding=1), normal(6, 2, 3, 3, seed=4), []
    backend._way = lambda key, usual, others, run: offered.extend(others()) or CUBLAS       # type: ignore[method-assign]
    y = backend.conv2d(on[0], backend.asarray(W), window, groups=groups)
    assert distance(backend.to_numpy(y), base.conv2d(x, W, window, groups=groups)) < 2e-6
    assert library.products == 3 and offered and CUBLAS not in offered


def test_columns_that_are_written_are_plain(library: Library):
    backend, base, window = (by_cublas(CupyBackend(tf32="never")), Backend(),
                             Window.make(3, padding=1))
    backend._faster = lambda *about: "columns"              # type: ignore[method-assign]
    x, W, dy = normal(4, 3, 5, 6), normal(6, 4, 3, 3, seed=1), normal(6, 3, 5, 6, seed=3)
    on = [backend.asarray(a) for a in (x, W, dy)]
    for y, right in ((backend.conv2d(on[0], on[1], window), base.conv2d(x, W, window)),
                     (backend.conv2d_dx(on[2], on[1], x.shape, window),
                      base.conv2d_dx(dy, W, x.shape, window)),
                     (backend.conv2d_dW(on[0], on[2], window), base.conv2d_dW(x, dy, window))):
        assert distance(backend.to_numpy(y), right) < 2e-6
    assert library.products == 3


@pytest.mark.parametrize("tf32, least, most", [("never", 0, 1e-6), ("always", 1e-5, 1e-3)])
def test_float32_is_rounded_to_tf32_only_where_that_is_wanted(tf32: str, least: float, most: float,
                                                              library: Library):
    backend = by_cublas(CupyBackend(tf32=tf32))
    a, b = normal(33, 70), normal(70, 34, seed=1)
    result = backend.to_numpy(backend.gemm(backend.asarray(a), backend.asarray(b)))
    assert least <= distance(result, a.astype(np.float64) @ b) <= most


def test_halves_are_added_in_float(library: Library):
    """A long sum, to which a half soon adds nothing any more."""
    backend = by_cublas(CupyBackend())
    ones = backend.asarray(np.ones((4, 5000), np.float16))
    assert np.array_equal(backend.to_numpy(backend.gemm(ones, ones, trans_b=True)),
                          np.full((4, 4), 5000, np.float16))


# --- who decides ----------------------------------------------------------------------------------

def test_the_rules_leave_small_products_to_our_kernel(library: Library):
    backend = CupyBackend(tf32="never")
    product(backend)
    assert library.products == 0 and library.fake.fake_handles() == 0


@pytest.mark.parametrize("bias, depth, served", [(False, K, 1), (True, K, 1), (True, K + 1, 0)])
def test_the_rules_ask_for_it_if_a_product_is_large(bias: bool, depth: int, served: int,
                                                    library: Library,
                                                    monkeypatch: pytest.MonkeyPatch):
    """From the limits on; with a bias only from a depth on."""
    monkeypatch.setattr(cuda_plans, "LIBRARY_FROM", M * K * N)
    monkeypatch.setattr(cuda_plans, "LIBRARY_SIDE", min(M, K, N))
    monkeypatch.setattr(cuda_plans, "LIBRARY_DEPTH", depth)
    backend, a, b = CupyBackend(tf32="never"), normal(M, K), normal(K, N, seed=1)
    shift = backend.asarray(normal(M, seed=2)) if bias else None
    result = backend.to_numpy(backend.gemm(backend.asarray(a), backend.asarray(b), bias=shift))
    right = a.astype(np.float64) @ b + (normal(M, seed=2).reshape(M, 1) if bias else 0)
    assert library.products == served and distance(result, right) < 2e-6
    monkeypatch.setattr(cuda_plans, "LIBRARY_FROM", M * K * N + 1)
    backend.gemm(backend.asarray(a), backend.asarray(b))
    assert library.products == served


def test_a_large_product_without_the_library_is_ours(cupy: FakeCupy,
                                                     monkeypatch: pytest.MonkeyPatch):
    usual = product(CupyBackend(tf32="never"))
    monkeypatch.setattr(cuda_plans, "LIBRARY_FROM", 1)
    monkeypatch.setattr(cuda_plans, "LIBRARY_SIDE", 1)
    assert np.array_equal(product(CupyBackend(tf32="never")), usual)


def test_the_committed_table_may_ask_for_it(library: Library, tmp_path: Path,
                                            monkeypatch: pytest.MonkeyPatch):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"sm_90": {KEY: CUBLAS}}))
    monkeypatch.setattr(cuda_tuning, "TABLE", table)
    product(CupyBackend(tf32="never"))
    assert library.products == 1


def test_the_clock_may_choose_it(library: Library, cupy: FakeCupy, tmp_path: Path,
                                 monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cupy.cuda.runtime.getDeviceProperties = lambda device: {"name": b"Pretended GPU"}
    backend = CupyBackend(tf32="never", autotune=True)
    monkeypatch.setattr(cuda_plans, "other_plans", lambda math, depth: [[64, 64, 1]])
    fastest: list[bool] = []

    def seconds(call: Any) -> float:
        asked = library.products
        call()
        fastest.append(library.products > asked)
        return 1.0 if fastest[-1] else 2.0
    backend._seconds = seconds      # type: ignore[method-assign]
    first, count = product(backend), library.products
    assert fastest == [False, True] and backend.tuning[KEY] == CUBLAS
    assert np.array_equal(product(backend), first) and library.products == count + 1


# --- no library, and errors -----------------------------------------------------------------------

def not_there(library: Library, cupy: FakeCupy, monkeypatch: pytest.MonkeyPatch, why: str) -> None:
    def missing(name: str) -> Any:
        raise RuntimeError(f"Failure finding {name}")
    damaged = library.file.with_name("damaged.so")
    damaged.write_bytes(b"no library")
    found: dict[str, Any] = {
        "no module finds it": None,
        "it is not found": SimpleNamespace(load_nvidia_dynamic_lib=missing),
        "it is damaged": SimpleNamespace(load_nvidia_dynamic_lib=lambda name: SimpleNamespace(
            abs_path=str(damaged)))}
    if why == "CuPy has none":
        cupy.cuda.cublas = None
    elif why in found:
        monkeypatch.setitem(sys.modules, "cuda.pathfinder", found[why])
    elif why == "it lacks a function":
        monkeypatch.setitem(cublas.FUNCTIONS, "cublasOfTomorrow", ())
    else:
        library.fake.fake_refuse_create(1)


@pytest.mark.parametrize("why", ["CuPy has none", "no module finds it", "it is not found",
                                 "it is damaged",
                                 "it lacks a function", "the driver is too old for it"])
def test_without_the_library_our_kernel_serves(why: str, library: Library, cupy: FakeCupy,
                                               monkeypatch: pytest.MonkeyPatch):
    not_there(library, cupy, monkeypatch, why)
    backend = CupyBackend(tf32="never")
    backend.tuning |= {KEY: CUBLAS}
    usual = product(CupyBackend(tf32="never"))
    assert np.array_equal(product(backend), usual)
    offered: list[Any] = []
    backend._way = lambda key, usual, others, run: offered.extend(others()) or usual        # type: ignore[method-assign, func-returns-value]
    product(backend)
    assert offered and CUBLAS not in offered


@pytest.mark.parametrize("status, name",
                         [(13, "CUBLAS_STATUS_EXECUTION_FAILED"),
                          (15, "CUBLAS_STATUS_NOT_SUPPORTED")])
def test_an_error_says_what_and_for_which_product(status: int, name: str, library: Library):
    backend = by_cublas(CupyBackend(tf32="never"))
    library.fake.fake_fail_next(status)
    with pytest.raises(RuntimeError, match=rf"cublasGemmStridedBatchedEx: expected "
                                           rf"CUBLAS_STATUS_SUCCESS\. Received: {name} "
                                           r"for 1 products \(7, 11\) x \(11, 5\) of float32, "
                                           r"Fma<float>\."):
        product(backend)
    product(backend)


# --- handles, streams, memory ---------------------------------------------------------------------

def test_a_backend_has_one_handle_which_goes_with_it(library: Library):
    backend = by_cublas(CupyBackend(tf32="never"))
    product(backend)
    product(backend)
    assert library.fake.fake_handles() == 1
    del backend
    gc.collect()
    assert library.fake.fake_handles() == 0


def test_products_are_made_on_the_current_stream(library: Library):
    backend = by_cublas(CupyBackend(1, tf32="never"))
    product(backend)
    assert library.fake.fake_last_stream() is None          # the default one
    with backend.stream():
        product(backend)
        assert library.fake.fake_last_stream() == backend._lane.compute.ptr


class Diary:
    """A library that does nothing but note who called what, and lets others go first."""

    def __init__(self) -> None:
        self.calls: list[tuple[str, int]] = []

    def __getattr__(self, function: str) -> Any:
        def call(*_: Any) -> int:
            self.calls.append((function, threading.get_ident()))
            time.sleep(0)
            return 0
        return call


def test_one_thread_at_a_time_sets_the_stream_then_the_memory_and_multiplies(cupy: FakeCupy):
    diary = Diary()
    handle, a = (cublas.Cublas(diary, cupy.cuda, 0),
                 cublas.Matrices(cupy.empty((3, 3), np.float32), False, 3, 0))
    diary.calls.clear()

    def multiply() -> None:
        for _ in range(50):
            handle.multiply("Fma<float>", (1, 3, 3, 3), a, a, a, accumulate=False, stream=0,
                            workspace=a.array)
    threads = [threading.Thread(target=multiply) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    turns = [diary.calls[k:k + 3] for k in range(0, len(diary.calls), 3)]
    assert len(turns) == 200 and all(len({who for _, who in turn}) == 1 for turn in turns)
    assert all([what for what, _ in turn] == ["cublasSetStream_v2", "cublasSetWorkspace_v2",
                                              "cublasGemmStridedBatchedEx"]
               for turn in turns)


def test_no_handle_is_made_while_a_stream_is_captured(library: Library):
    backend = CupyBackend(tf32="never")
    backend.tuning |= {KEY: CUBLAS}
    a, b = backend.asarray(normal(M, K)), backend.asarray(normal(K, N, seed=1))
    stream = backend.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        backend.gemm(a, b)
        stream.end_capture()
    assert library.fake.fake_handles() == 0
    product(backend)
    assert library.fake.fake_handles() == library.products == 1


@pytest.mark.parametrize("capability, mebibytes",
                         [("80", 8), ("89", 8), ("90", 32), ("100", 32), ("120", 32)])
def test_its_memory_is_as_large_as_nvidia_recommends(capability: str, mebibytes: int,
                                                     library: Library, cupy: FakeCupy,
                                                     monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(cupy.cuda.Device, "compute_capability", capability)
    handle = CupyBackend(tf32="never")._cublas
    assert handle is not None and handle.workspace_bytes == mebibytes << 20


def test_its_memory_comes_from_the_pool_of_the_moment(library: Library, cupy: FakeCupy):
    """What a graph records must not work in memory that goes before the graph does."""
    backend = by_cublas(CupyBackend(tf32="never"))
    taken: list[Any] = []
    empty, pool = backend.empty, cupy.cuda.MemoryPool()
    backend.empty = lambda shape, dtype: taken.append(empty(shape, dtype)) or taken[-1]     # type: ignore[method-assign, func-returns-value]
    with cupy.cuda.using_allocator(pool.malloc):
        backend.gemm(backend.asarray(normal(M, K)), backend.asarray(normal(K, N, seed=1)))
    workspace, = (a for a in taken if a.nbytes == 32 << 20)
    assert workspace._memory.pool() is pool


# --- the real library -----------------------------------------------------------------------------

def test_the_real_library_has_the_functions():
    pathfinder = pytest.importorskip("cuda.pathfinder", reason="cuda-pathfinder, a part of CuPy, "
                                                               "is not installed")
    try:
        file = pathfinder.load_nvidia_dynamic_lib("cublas").abs_path
    except pathfinder.DynamicLibNotFoundError as error:
        pytest.skip(f"cuBLAS is not installed: {str(error).splitlines()[0]}")
    real = ctypes.CDLL(file)
    assert [name for name in cublas.FUNCTIONS if not hasattr(real, name)] == []
