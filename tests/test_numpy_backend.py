"""The CPU backend against base.py: every public method, over one table of odd sizes and one of sizes worth threads."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity_cases import CASES, Case, agree, different_signatures, missing_methods, normal, run, same_bits
from threadpoolctl import threadpool_info

from xpnet.backends import Backend, Window
from xpnet.backends.numpy_backend import NumpyBackend
from xpnet.backends.numpy_conv import make_plan
from xpnet.backends.numpy_winograd import make_parts, winograd_pays


@pytest.fixture(scope="module")
def backend():
    return NumpyBackend()


# --- the odd sizes ----------------------------------------------------------------------------------------------------

def test_the_table_covers_every_public_method():
    assert missing_methods() == set()


def test_overrides_keep_the_parameters_and_defaults_of_the_contract():
    assert different_signatures(NumpyBackend) == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_method_agrees_with_base(case: Case, backend: NumpyBackend):
    with_base = run(case, Backend())
    agree(case, run(case, backend), with_base)


# --- sizes that are cut into tiles and chunks and worth threads -------------------------------------------------------

CONVOLUTIONS = [        # x (C, H, W, N), window, filters, groups
    ("shared", (8, 24, 24, 32), Window.make(5), 8, 1),
    ("first layer", (1, 28, 28, 130), Window.make(5), 8, 1),
    ("strided", (16, 31, 30, 32), Window.make(3, stride=2, padding=1), 40, 1),
    ("dilated", (16, 24, 24, 33), Window.make(3, dilation=2, padding=2), 16, 1),
    ("deep", (256, 2, 2, 3), Window.make(3, padding=1), 256, 1),
    ("wide", (64, 8, 8, 20), Window.make(5, padding=2), 64, 1),
    ("pointwise", (64, 16, 16, 33), Window.make(1), 64, 1),
    ("pointwise, strided", (64, 17, 17, 32), Window.make(1, stride=2), 96, 1),
    ("depthwise", (64, 20, 20, 32), Window.make(3, padding=1), 64, 64),
    ("grouped", (48, 14, 14, 32), Window.make(3, padding=1), 96, 4),
    ("full", (8, 16, 16, 64), Window.make(5, padding="full"), 16, 1),
    ("winograd", (64, 16, 16, 32), Window.make(3, padding=1), 64, 1),
    ("winograd, odd", (64, 7, 13, 17), Window.make(3, padding=(0, 1, 2, 0)), 72, 1),
]


def _large() -> Iterator[Case]:
    for name, shape, window, F, groups in CONVOLUTIONS:
        (C, _, _, N), (OH, OW) = shape, window.output_size(*shape[1:3])
        x, dy = normal(*shape), normal(F, OH, OW, N, seed=1)
        filters = normal(F, C // groups, *window.kernel, seed=2)
        options = {"window": window, "groups": groups}
        yield Case("conv2d", name, {"x": x, "W": filters, "bias": normal(F)}, options | {"activation": "relu"})
        yield Case("conv2d_dx", name, {"dy": dy, "W": filters}, options | {"x_shape": shape})
        yield Case("conv2d_dW", name, {"x": x, "dy": dy, "out": filters}, options | {"accumulate": True}, writes=("out",))
    for M, K, N in ((600, 1568, 8), (600, 1568, 128), (1568, 600, 32), (600, 1, 1568), (16, 64, 20_000)):
        for trans_a, trans_b in ((False, False), (True, False), (False, True)):
            yield Case("gemm", f"{M}x{K}x{N}-{trans_a}-{trans_b}",
                       {"a": normal(*((K, M) if trans_a else (M, K))), "b": normal(*((N, K) if trans_b else (K, N))),
                        "out": normal(M, N)}, {"trans_a": trans_a, "trans_b": trans_b}, writes=("out",))
    for shape, window in (((16, 32, 32, 65), Window.make(2, stride=2)), ((16, 33, 32, 65), Window.make(2, stride=2)),
                          ((16, 31, 31, 65), Window.make(3, stride=2, padding=1)), ((16, 32, 32, 65), Window.make(2, stride=3))):
        OH, OW = window.output_size(*shape[1:3])
        x, dy, label = normal(*shape), normal(shape[0], OH, OW, shape[3], seed=1), f"{shape}-{window}"
        argmax = Backend().max_pool2d(x, window)[1]
        yield Case("max_pool2d", label, {"x": x}, {"window": window}, exact=True)
        yield Case("max_pool2d_dx", label, {"dy": dy, "argmax": argmax}, {"x_shape": shape, "window": window}, exact=True)
        yield Case("avg_pool2d", label, {"x": x}, {"window": window, "count_padding": False})
        yield Case("avg_pool2d_dx", label, {"dy": dy}, {"x_shape": shape, "window": window, "count_padding": False})
        yield Case("im2col", label, {"x": x}, {"window": window}, exact=True)
        cols = normal(shape[0] * window.taps, OH * OW * shape[3])
        yield Case("col2im", label, {"cols": cols}, {"x_shape": shape, "window": window}, exact=True)
    for values in ((-1.0, -0.0, 0.0), (-np.inf, -1.0), (np.nan, -np.inf, 1.0)):            # what fast paths could get wrong
        x = np.random.default_rng(7).choice(np.array(values, np.float32), (16, 31, 31, 65))
        yield Case("max_pool2d", f"{values}", {"x": x}, {"window": Window.make(3, stride=2, padding=1)}, exact=True)
        yield Case("max_pool2d", f"{values}-tiled", {"x": x}, {"window": Window.make(2, stride=2)}, exact=True)
    x, dy, gamma, beta = normal(24, 20, 20, 65), normal(24, 20, 20, 65, seed=1), normal(24), normal(24, seed=1)
    for activation in (None, "relu", "scaled_tanh"):
        options = {"activation": activation}
        y, mean, var = Backend().batch_norm(x, gamma, beta, 1e-5, activation=activation)
        yield Case("activate", f"{activation}", {"z": x}, options)
        yield Case("activation_backward", f"{activation}", {"dy": dy, "y": y, "bias_grad": gamma}, options,
                   writes=("bias_grad",))
        known = {"x": x, "gamma": gamma}
        yield Case("batch_norm", f"{activation}", known | {"beta": beta}, options | {"eps": 1e-5})
        known |= {"mean": mean, "var": var}
        yield Case("batch_norm_inference", f"{activation}", known | {"beta": beta}, options | {"eps": 1e-5})
        yield Case("batch_norm_backward", f"{activation}",
                   known | {"dy": dy, "y": y, "gamma_grad": normal(24), "beta_grad": normal(24)}, options | {"eps": 1e-5},
                   writes=("gamma_grad", "beta_grad"))
    n, hyper = 300_000, np.array([1e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3, 1 - 0.999**3])
    buffers = {"w": normal(n), "g": normal(n, seed=1), "v": normal(n, seed=2) ** 2}
    yield Case("sgd", "large", buffers | {"hyper": hyper[:3]}, {"nesterov": True, "decayed": 200_000}, writes=("w", "v"))
    yield Case("adam", "large", buffers | {"m": normal(n, seed=3), "hyper": hyper}, {"decoupled": False, "decayed": 200_000},
               writes=("w", "m", "v"))


LARGE = list(_large())


def test_the_large_sizes_cover_every_override():
    overrides = {name for name in dir(Backend) if not name.startswith("_")
                 and getattr(NumpyBackend, name) is not getattr(Backend, name)}
    assert overrides - {"empty", "name"} <= {case.method for case in LARGE}
    assert [name for name, x, window, F, groups in CONVOLUTIONS
            if winograd_pays(window, groups, x[0], F, *window.output_size(*x[1:3]), x[3], np.dtype(np.float32))
            ] == ["winograd", "winograd, odd"]


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_large_sizes_agree_with_base(case: Case, backend: NumpyBackend):
    agree(case, run(case, backend), run(case, Backend()))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_the_number_of_threads_changes_no_bit(case: Case, monkeypatch: pytest.MonkeyPatch):
    results = []
    for threads in ("1", "2", "3"):
        monkeypatch.setenv("XPNET_NUM_THREADS", threads)
        backend = NumpyBackend()
        assert backend.threads.size == int(threads)
        results.append(run(case, backend))
    for result in results[1:]:
        assert all(same_bits(a, b) for a, b in zip(result, results[0], strict=True))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_arrays_that_are_not_contiguous(case: Case, backend: NumpyBackend):
    arrays = {name: np.repeat(a, 2, axis=-1)[..., ::2] for name, a in case.arrays.items()}
    assert not any(a.flags.c_contiguous for a in arrays.values() if a.size > 1)
    returned = getattr(backend, case.method)(**arrays, **case.options)
    results = list(returned) if isinstance(returned, tuple) else [] if returned is None else [returned]
    agree(case, [np.array(a) for a in results + [arrays[name] for name in case.writes]], run(case, backend))
    for name, a in case.arrays.items():
        assert name in case.writes or same_bits(np.array(arrays[name]), a)


@pytest.mark.parametrize("case", [case for case in LARGE if case.method in ("gemm", "conv2d", "conv2d_dx", "conv2d_dW")],
                         ids=str)
def test_blas_adds_no_threads_of_its_own(case: Case):
    seen = []

    class Watching(NumpyBackend):
        def run(self, task, count, work):
            seen.extend(library["num_threads"] for library in threadpool_info()
                        if library["user_api"] == "blas" and "numpy" in library["filepath"])
            super().run(task, count, work)

    run(case, Watching())
    assert set(seen) <= {1}


def test_threads_may_share_a_backend():
    """Four threads, each with all the large calls in another order, on one backend and on one of their own."""
    shared, expected, errors = NumpyBackend(), [run(case, NumpyBackend()) for case in LARGE[::3]], []

    def caller(me: int) -> None:
        mine = NumpyBackend()
        for k in np.random.default_rng(me).permutation(len(expected)):
            for backend in (shared, mine):
                if not all(map(same_bits, run(LARGE[::3][k], backend), expected[k])):
                    errors.append(str(LARGE[::3][k]))

    crew = [threading.Thread(target=caller, args=(me,), daemon=True) for me in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(300)
    assert not any(thread.is_alive() for thread in crew) and not errors


def test_outputs_come_from_recycled_memory(backend: NumpyBackend):
    x, W, window = normal(8, 24, 24, 32), normal(8, 8, 5, 5), Window.make(5)
    for make in (lambda: backend.conv2d(x, W, window), lambda: backend.max_pool2d(x, Window.make(2, stride=2))[0],
                 lambda: backend.activate(x, "relu"), lambda: backend.gemm(normal(600, 10), normal(10, 600))):
        y = make()
        address = y.ctypes.data
        del y
        assert make().ctypes.data == address


# --- tiles ------------------------------------------------------------------------------------------------------------

@given(st.integers(1, 5), st.integers(1, 5), st.integers(1, 3), st.integers(1, 3), st.integers(1, 2), st.integers(1, 40),
       st.integers(1, 40), st.sampled_from([1, 3, 16, 17, 100]), st.sampled_from([1, 2, 6]), st.integers(1, 70),
       st.integers(1, 300), st.sampled_from([1, 100, 5000]))
def test_tiles_cover_the_output_once(kh, kw, sh, sw, dilation, OH, OW, N, groups, C, F, product):
    plan = make_plan(Window((kh, kw), (sh, sw), dilation=(dilation, dilation)), groups, C, F, OH, OW, N, product)
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
