"""The NumPy backend against base.py: every public method, with odd sizes and with sizes that use
several threads."""

from __future__ import annotations

import numpy as np
import pytest
from cpu_cases import CONVOLUTIONS, LARGE, agree_among_threads, agree_on_strided_arrays
from hypothesis import given
from hypothesis import strategies as st
from parity import agree, different_signatures, normal, run, same_bits
from parity_cases import CASES, by_method, missing_methods
from threadpoolctl import threadpool_info

from xpnet.backends import Backend, Window
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.numpy.conv import make_plan
from xpnet.backends.numpy.winograd import make_parts, winograd_pays

METHODS = by_method(CASES)
LARGE_SIZES = by_method(LARGE)


@pytest.fixture(scope="module")
def backend():
    return NumpyBackend()


# --- the odd sizes --------------------------------------------------------------------------------

def test_the_table_covers_every_public_method():
    assert missing_methods() == set()


def test_overrides_keep_the_parameters_and_defaults_of_the_contract():
    assert different_signatures(NumpyBackend) == set()


@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_base(method: str, backend: NumpyBackend):
    for case in METHODS[method]:
        with_base = run(case, Backend())
        agree(case, run(case, backend), with_base)


# --- sizes that use several tiles, chunks and threads ---------------------------------------------

def test_the_large_sizes_cover_every_override():
    overrides = {name for name in dir(Backend) if not name.startswith("_")
                 and getattr(NumpyBackend, name) is not getattr(Backend, name)}
    assert overrides - {"empty", "name"} <= {case.method for case in LARGE}
    assert [name for name, x, window, F, groups in CONVOLUTIONS
            if winograd_pays(window, groups, x[0], F, *window.output_size(*x[1:3]), x[3],
                             np.dtype(np.float32))
            ] == ["winograd", "winograd, empty windows", "winograd, odd"]


@pytest.mark.parametrize("method", LARGE_SIZES)
def test_large_sizes_agree_with_base(method: str, backend: NumpyBackend):
    for case in LARGE_SIZES[method]:
        agree(case, run(case, backend), run(case, Backend()))


@pytest.mark.parametrize("method", LARGE_SIZES)
def test_the_number_of_threads_changes_no_bit(method: str, monkeypatch: pytest.MonkeyPatch):
    backends = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNET_NUM_THREADS", threads)
        backends.append(NumpyBackend())
        assert backends[-1].threads.size == int(threads)
    for case in LARGE_SIZES[method]:
        first, *others = (run(case, backend) for backend in backends)
        for result in others:
            assert all(same_bits(a, b) for a, b in zip(result, first, strict=True)), case


@pytest.mark.parametrize("method", LARGE_SIZES)
def test_arrays_that_are_not_contiguous(method: str, backend: NumpyBackend):
    for case in LARGE_SIZES[method]:
        agree_on_strided_arrays(case, backend)


@pytest.mark.parametrize("method", ["gemm", "products", "conv2d", "conv2d_dx", "conv2d_dW"])
def test_blas_adds_no_threads_of_its_own(method: str):
    seen = []

    class Watching(NumpyBackend):
        def run(self, task, count, work):
            seen.extend(library["num_threads"] for library in threadpool_info()
                        if library["user_api"] == "blas" and "numpy" in library["filepath"])
            super().run(task, count, work)

    for case in LARGE_SIZES[method]:
        run(case, Watching())
    assert set(seen) <= {1}


def test_threads_may_share_a_backend():
    agree_among_threads(NumpyBackend)


def test_outputs_come_from_recycled_memory(backend: NumpyBackend):
    x, W, window = normal(8, 24, 24, 32), normal(8, 8, 5, 5), Window.make(5)
    for make in (lambda: backend.conv2d(x, W, window),
                 lambda: backend.max_pool2d(x, Window.make(2, stride=2))[0],
                 lambda: backend.activate(x, "relu"),
                 lambda: backend.gemm(normal(600, 10), normal(10, 600))):
        y = make()
        address = y.ctypes.data
        del y
        assert make().ctypes.data == address


# --- tiles ----------------------------------------------------------------------------------------

@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3),
       st.integers(1, 2), st.integers(1, 40),
       st.integers(1, 40), st.sampled_from([1, 3, 16, 17, 100]), st.sampled_from([1, 2, 6]),
       st.integers(1, 70), st.integers(1, 300), st.sampled_from([1, 100, 5000]))
def test_tiles_cover_the_output_once(kh, kw, sh, sw, dilation, OH, OW, N, groups, C, F, product):
    plan = make_plan(Window((kh, kw), (sh, sw), dilation=(dilation, dilation)), groups, C, F, OH,
                     OW, N, product)
    times = np.zeros((groups, OH, OW * N), int)
    for tile in plan.tiles:
        assert sw == 1 or tile.part.start % N == tile.part.stop % N == 0
        assert plan.shared or tile.rows.stop - tile.rows.start == 1 or tile.part == slice(0, OW * N)
        times[tile.groups, tile.rows, tile.part] += 1
    assert (times == 1).all()


@given(st.integers(1, 40), st.integers(1, 40), st.integers(1, 300))
def test_winograd_parts_cover_the_tiles_once(TH, TW, N):
    times = np.zeros((TH, TW * N), int)
    for part in make_parts(TH, TW, N):
        assert part.part.start % N == part.part.stop % N == 0
        times[part.rows, part.part] += 1
    assert (times == 1).all()
