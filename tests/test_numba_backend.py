"""The numba backend against base.py: every public method, convolution and matrix products of odd sizes, and what is NumPy's."""

from __future__ import annotations

import re
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from cpu_cases import LARGE, agree_on_strided_arrays, digits
from fake_cupy import installed
from hypothesis import given, settings
from hypothesis import strategies as st
from nets import branches, pictures
from parity_cases import CASES, Case, agree, different_signatures, distance, normal, public_methods, run, same_bits
from processes import STRICT_MEMORY, run_script
from threadpoolctl import threadpool_info

import xpnet as xn
from xpnet.backends import Backend, Window, available, get_backend
from xpnet.backends.numpy_backend import NumpyBackend

pytest.importorskip("numba", reason="Numba is not installed")

from xpnet.backends.numba_backend import NumbaBackend  # noqa: E402 - only where Numba is installed

BACKEND = NumbaBackend()
SIZES = st.sampled_from([1, 3, 7, 8, 9])
EXTENTS = st.sampled_from([17, 12, 7, 4, 2, 1])
BATCHES = st.sampled_from([33, 17, 16, 3, 1])


# --- the tables of all backends ---------------------------------------------------------------------------------------

def test_overrides_keep_the_parameters_and_defaults_of_the_contract():
    assert different_signatures(NumbaBackend) == set()


@pytest.mark.parametrize("case", CASES + LARGE, ids=str)
def test_every_method_agrees_with_base(case: Case):
    agree(case, run(case, BACKEND), run(case, Backend()))


@pytest.mark.parametrize("case", LARGE, ids=str)
def test_arrays_that_are_not_contiguous(case: Case):
    agree_on_strided_arrays(case, BACKEND)


def test_the_number_of_threads_changes_no_bit():
    """In a process that allows more threads than this machine may have cores, and no use of memory that was freed."""
    run_script("""
import os
from cpu_cases import LARGE
from parity_cases import run, same_bits
from xpnet.backends.numba_backend import NumbaBackend

backends = []
for threads in (1, 2, 3, 4):
    os.environ["XPNET_NUM_THREADS"] = str(threads)
    backends.append(NumbaBackend())
    assert backends[-1].size == threads
for case in LARGE:
    first, *others = (run(case, backend) for backend in backends)
    for result in others:
        assert all(map(same_bits, result, first)), case
""", NUMBA_NUM_THREADS="4", **STRICT_MEMORY)


def test_more_threads_than_numba_has(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XPNET_NUM_THREADS", "1000")
    case = next(case for case in LARGE if case.method == "conv2d")
    assert all(map(same_bits, run(case, NumbaBackend()), run(case, BACKEND)))


def test_threads_may_share_a_backend():
    """Four threads, each with large calls in another order, on one backend and on one of their own."""
    cases = LARGE[::3]
    expected, errors = [run(case, BACKEND) for case in cases], []

    def caller(me: int) -> None:
        mine = NumbaBackend()
        for k in np.random.default_rng(me).permutation(len(cases)):
            for backend in (BACKEND, mine):
                if not all(map(same_bits, run(cases[k], backend), expected[k])):
                    errors.append(str(cases[k]))

    crew = [threading.Thread(target=caller, args=(me,), daemon=True) for me in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(300)
    assert not any(thread.is_alive() for thread in crew) and not errors


def test_blas_adds_no_threads_of_its_own():
    """Whether it is called for a float64 product or not at all."""
    seen = []

    class Watching(NumbaBackend):
        def run(self, task, count, work):
            seen.extend(library["num_threads"] for library in threadpool_info()
                        if library["user_api"] == "blas" and "numpy" in library["filepath"])
            super().run(task, count, work)

    backend = Watching()
    backend.gemm(normal(70, 70), normal(70, 70))
    assert not seen
    backend.gemm(normal(70, 70, dtype=np.float64), normal(70, 70, dtype=np.float64))
    assert seen and set(seen) == {1}


def test_outputs_come_from_recycled_memory():
    x, W, window = normal(8, 24, 24, 32), normal(8, 8, 5, 5), Window.make(5)
    dy = normal(8, 20, 20, 32)
    for make in (lambda: BACKEND.conv2d(x, W, window), lambda: BACKEND.conv2d_dx(dy, W, x.shape, window),
                 lambda: BACKEND.gemm(normal(600, 10), normal(10, 600))):
        y = make()
        address = y.ctypes.data
        del y
        assert make().ctypes.data == address


# --- matrix products --------------------------------------------------------------------------------------------------

def close(actual: np.ndarray, exact: np.ndarray) -> bool:
    """Whether a float32 result is the float64 one but for rounding; one wrong element of 100,000 would be seen."""
    return actual.dtype == np.float32 and actual.shape == exact.shape and distance(actual, exact) < 1e-5


@st.composite
def products(draw) -> tuple[dict[str, Any], bool, bool]:
    """Operands of a product and which of them are transposed; whether there is a bias, and an `out` to add to."""
    M, K, N = (draw(st.one_of(st.integers(1, 70), st.sampled_from([97, 128, 260]))) for _ in range(3))
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    seed = draw(st.integers(0, 99))
    a, b = normal(*((K, M) if trans_a else (M, K)), seed=seed), normal(*((N, K) if trans_b else (K, N)), seed=seed + 1)
    return {"a": a, "b": b, "trans_a": trans_a, "trans_b": trans_b}, draw(st.booleans()), draw(st.booleans())


def doubled(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: a.astype(np.float64) if isinstance(a, np.ndarray) else a for name, a in arrays.items()}


@settings(max_examples=300)
@given(products(), st.sampled_from([None, "relu", "tanh"]))
def test_products_of_any_size(drawn, activation):
    arrays, with_bias, accumulate = drawn
    exact = Backend().gemm(**doubled(arrays))
    M, N = exact.shape
    bias, before = normal(M, seed=3) if with_bias else None, normal(M, N, seed=4)
    options = {"bias": bias, "activation": activation}
    expected = Backend().gemm(**doubled(arrays | options))
    assert close(BACKEND.gemm(**arrays, **options), expected)
    out = before.copy()
    assert BACKEND.gemm(**arrays, **options, out=out, accumulate=accumulate) is out
    assert close(out, before.astype(np.float64) * accumulate + expected)


@pytest.mark.parametrize("M, K, N", [(1, 5000, 1), (3, 4097, 5), (2100, 2, 3), (5, 2, 2100), (33, 1025, 65), (600, 300, 7),
                                     (7, 300, 600), (129, 2049, 1025), (1, 1, 3000)])
@pytest.mark.parametrize("trans_a, trans_b", [(False, False), (True, False), (False, True), (True, True)])
def test_large_and_thin_products(M, K, N, trans_a, trans_b):
    a, b = normal(*((K, M) if trans_a else (M, K))), normal(*((N, K) if trans_b else (K, N)), seed=1)
    bias, before, trans = normal(M), normal(M, N, seed=2), {"trans_a": trans_a, "trans_b": trans_b}
    exact = Backend().gemm(**doubled({"a": a, "b": b}), **trans)
    assert close(BACKEND.gemm(a, b, **trans), exact)
    assert close(BACKEND.gemm(a, b, **trans, bias=bias, activation="relu"), np.maximum(exact + bias[:, None], 0))
    assert close(BACKEND.gemm(a, b, **trans, out=before.copy(), accumulate=True), exact + before)


@pytest.mark.parametrize("size", [3, 40, 200])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"activation": "tanh"}, {"trans_a": True}, {"trans_b": True}],
                         ids=str)
def test_the_result_may_lie_in_an_operand(size, accumulate, options):
    """`out` is an operand itself, or a part of its memory: as if the operands were read before anything is written."""
    for place in range(3):
        memory = [normal(2 * size, size, seed=k) for k in range(3)]
        a, b, out = memory[0][:size], memory[1][:size], memory[place][size // 2:size // 2 + size]
        expected = Backend().gemm(a.astype(np.float64), b.astype(np.float64), **options) + accumulate * out.astype(np.float64)
        BACKEND.gemm(a, b, out=out, accumulate=accumulate, **options)
        assert close(out, expected)


def test_a_bias_that_lies_in_the_result():
    a, b, out = normal(20, 30), normal(30, 20, seed=1), normal(20, 20, seed=2)
    expected = Backend().gemm(a, b, bias=out[3].copy())
    assert BACKEND.gemm(a, b, bias=out[3], out=out) is out and close(out, expected)


def test_a_result_that_is_not_contiguous():
    out, a, b = normal(40, 60), normal(20, 33), normal(33, 30, seed=1)
    untouched, expected = out[1::2].copy(), Backend().gemm(a, b)
    assert close(np.ascontiguousarray(BACKEND.gemm(a, b, out=out[::2, ::2])), expected)
    assert same_bits(out[1::2], untouched)


@pytest.mark.parametrize("shapes", [((0, 3), (3, 4)), ((3, 0), (0, 4)), ((3, 4), (4, 0))], ids=str)
@pytest.mark.parametrize("bias", [False, True])
def test_empty_products(shapes, bias):
    a, b = (np.zeros(shape, np.float32) for shape in shapes)
    options = {"bias": normal(len(a)) if bias else None}
    assert same_bits(BACKEND.gemm(a, b, **options), Backend().gemm(a, b, **options))


# --- convolution ------------------------------------------------------------------------------------------------------

@st.composite
def convolutions(draw) -> tuple[np.ndarray, np.ndarray, Window, int]:
    """x (C, H, W, N), filters (F, C/groups, KH, KW), any legal window, groups."""
    kernel, stride = (draw(st.tuples(st.integers(1, most), st.integers(1, most))) for most in (5, 3))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    padding = draw(st.one_of(st.just((0, 0, 0, 0)), st.sampled_from(["half", "full"]),
                             st.tuples(*(st.integers(0, e - 1) for e in (extent[0], extent[0], extent[1], extent[1])))))
    window = Window.make(kernel, stride, padding, dilation)
    top, bottom, left, right = window.padding
    H, W = max(draw(EXTENTS), extent[0] - top - bottom), max(draw(EXTENTS), extent[1] - left - right)
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    C, F = (draw(SIZES if groups == 1 else st.integers(1, 3).map(lambda n: n * groups)) for _ in range(2))
    seed = draw(st.integers(0, 99))
    return normal(C, H, W, draw(BATCHES), seed=seed), normal(F, C // groups, *window.kernel, seed=seed + 1), window, groups


def agree_with_float64(x: np.ndarray, W: np.ndarray, window: Window, groups: int, activation: str | None = None) -> None:
    """A convolution and both of its gradients against base.py in float64."""
    base, x8, W8, bias = Backend(), x.astype(np.float64), W.astype(np.float64), normal(len(W), seed=5)
    y = base.conv2d(x8, W8, window, groups=groups)
    dy, before = normal(*y.shape, seed=6), normal(*W.shape, seed=7)
    assert close(BACKEND.conv2d(x, W, window, groups=groups), y)
    assert close(BACKEND.conv2d(x, W, window, groups=groups, bias=bias, activation=activation),
                 base.activate(y + bias.astype(np.float64)[:, None, None, None], activation))
    assert close(BACKEND.conv2d_dx(dy, W, x.shape, window, groups=groups),
                 base.conv2d_dx(dy.astype(np.float64), W8, x.shape, window, groups=groups))
    dW = base.conv2d_dW(x8, dy.astype(np.float64), window, groups=groups)
    assert close(BACKEND.conv2d_dW(x, dy, window, groups=groups), dW)
    out = before.copy()
    assert BACKEND.conv2d_dW(x, dy, window, groups=groups, out=out, accumulate=True) is out and close(out, dW + before)


@settings(max_examples=600)
@given(convolutions(), st.sampled_from([None, "relu", "sigmoid"]))
def test_convolutions_of_any_size(drawn, activation):
    agree_with_float64(*drawn, activation=activation)


@pytest.mark.parametrize("C", [1, 3, 7, 8, 9])
@pytest.mark.parametrize("N", [1, 3, 16, 17, 33])
@pytest.mark.parametrize("name", ["depthwise", "two filters a channel", "pointwise", "strided pointwise", "wide", "full"])
def test_every_batch_and_every_number_of_channels(name, C, N):
    window, F, groups = {
        "depthwise": (Window.make(3, padding=1), C, C), "two filters a channel": (Window.make(3), 2 * C, C),
        "pointwise": (Window.make(1), 9, 1), "strided pointwise": (Window.make(1, stride=(2, 3)), 17, 1),
        "wide": (Window.make((1, 7), padding=(0, 3)), 8, 1), "full": (Window.make(4, padding="full"), 3, 1),
    }[name]
    agree_with_float64(normal(C, 7, 8, N), normal(F, C // groups, *window.kernel, seed=1), window, groups)


@pytest.mark.parametrize("shape, window, F", [
    ((70, 9, 9, 16), Window.make(3, padding=1), 33),                # more taps than are taken at a time
    ((16, 32, 32, 8), Window.make(3), 16),                          # rows whose addresses share places in the cache
    ((3, 40, 41, 5), Window.make(7, stride=2, padding=3), 20),
    ((1, 100, 3, 1), Window.make(3), 5),
    ((2, 2, 1500, 1), Window.make((1, 5)), 4),
    ((4, 30, 30, 64), Window.make(2, stride=3), 12),                # elements that no window reads
    ((5, 12, 12, 128), Window.make(3, stride=(1, 2), dilation=(3, 1), padding=(1, 2, 0, 2)), 7),
], ids=str)
def test_larger_convolutions(shape, window, F):
    agree_with_float64(normal(*shape), normal(F, shape[0], *window.kernel, seed=1), window, 1, "relu")


def test_special_numbers_go_where_base_has_them():
    """A NaN or an infinity reaches the outputs whose windows see it, and no others."""
    window = Window.make(3, padding=1)
    x, W = normal(3, 8, 9, 17), normal(8, 3, 3, 3, seed=1)
    x[1, 3, 4, 5], x[0, 0, 0, 0], x[2, 7, 8, 16] = np.nan, np.inf, -np.inf
    dy = normal(8, 8, 9, 17, seed=2)
    dy[3, 4, 5, 6] = np.inf
    for activation in (None, "relu"):
        assert distance(BACKEND.conv2d(x, W, window, activation=activation),
                        Backend().conv2d(x, W, window, activation=activation)) < 1e-5
    assert distance(BACKEND.conv2d_dx(dy, W, x.shape, window), Backend().conv2d_dx(dy, W, x.shape, window)) < 1e-5
    a, b = normal(9, 20), normal(20, 33, seed=1)
    a[4, 7], b[8, 21], b[0, 0] = np.inf, np.nan, -np.inf
    assert distance(BACKEND.gemm(a, b, activation="relu"), Backend().gemm(a, b, activation="relu")) < 1e-5


@pytest.mark.parametrize("window", [Window.make(3), Window.make(1), Window.make(2, stride=2)], ids=str)
def test_a_gradient_that_lies_in_what_it_follows_from(window):
    """`out` in the memory of x or of dy: as if both were read before anything is written."""
    OH, OW = window.output_size(8, 8)
    for place in (0, 1):
        x, dy = normal(4, 8, 8, 20), normal(6, OH, OW, 20, seed=1)
        out = (x, dy)[place].reshape(-1)[:6 * 4 * window.taps].reshape(6, 4, *window.kernel)
        expected = Backend().conv2d_dW(x, dy, window) + out
        assert distance(BACKEND.conv2d_dW(x, dy, window, out=out, accumulate=True), expected) < 1e-5


def test_inputs_that_may_only_be_read_stay_so():
    x, W = normal(3, 8, 8, 16), normal(8, 3, 3, 3)
    for a in (x, W):
        a.flags.writeable = False
    y = BACKEND.conv2d(x, W, Window.make(3))
    assert y.flags.writeable and not x.flags.writeable and not W.flags.writeable
    assert close(y, Backend().conv2d(x.astype(np.float64), W.astype(np.float64), Window.make(3)))


# --- shapes that do not fit -------------------------------------------------------------------------------------------

def test_shapes_that_do_not_fit_are_errors():
    """As they are in base.py, where NumPy says so. A kernel would read or write what is not its own: a process may end."""
    run_script("""
from parity_cases import normal
from xpnet.backends import Backend, Window
from xpnet.backends.numba_backend import NumbaBackend

window, wide = Window.make(3), Window.make(3, padding=1)
x, W, dy = normal(4, 6, 6, 16), normal(8, 4, 3, 3), normal(8, 4, 4, 16)
deep, filters = normal(32, 6, 6, 16), normal(32, 32, 3, 3)              # by Winograd, if anything
calls = [
    ("gemm", (normal(3, 4), normal(5, 6)), {}),
    ("gemm", (normal(3, 4), normal(4, 6)), {"trans_a": True}),
    ("gemm", (normal(3, 4), normal(4, 6)), {"trans_b": True}),
    ("gemm", (normal(30, 40), normal(5, 600)), {}),
    ("gemm", (normal(3, 4), normal(4, 6)), {"bias": normal(2)}),
    ("gemm", (normal(3, 4), normal(4, 6)), {"out": normal(2, 6)}),
    ("gemm", (normal(3, 4), normal(4, 6)), {"out": normal(3, 5), "accumulate": True}),
    ("conv2d", (x, normal(8, 3, 3, 3), window), {}),
    ("conv2d", (x, normal(8, 4, 3, 2), window), {}),
    ("conv2d", (x, W, window), {"groups": 2}),
    ("conv2d", (x, W, window), {"bias": normal(7)}),
    ("conv2d", (x, W, Window.make(7)), {}),
    ("conv2d", (deep, normal(32, 16, 3, 3), wide), {}),
    ("conv2d", (deep, filters, wide), {"bias": normal(31)}),
    ("conv2d_dx", (dy, W, (3, 6, 6, 16), window), {}),
    ("conv2d_dx", (dy, W, (4, 7, 6, 16), window), {}),
    ("conv2d_dx", (dy, W, (4, 6, 6, 15), window), {}),
    ("conv2d_dx", (normal(7, 4, 4, 16), W, (4, 6, 6, 16), window), {}),
    ("conv2d_dx", (dy, normal(8, 4, 1, 1), (4, 4, 5, 16), Window.make(1)), {}),
    ("conv2d_dx", (deep, filters, (32, 6, 5, 16), wide), {}),
    ("conv2d_dx", (deep, normal(16, 32, 3, 3), (32, 6, 6, 16), wide), {}),
    ("conv2d_dW", (x, normal(8, 4, 5, 16), window), {}),
    ("conv2d_dW", (x, normal(8, 4, 4, 15), window), {}),
    ("conv2d_dW", (x, dy, window), {"out": normal(8, 4, 3, 2)}),
    ("conv2d_dW", (x, dy, window), {"out": normal(7, 4, 3, 3), "accumulate": True}),
    ("conv2d_dW", (deep, normal(32, 6, 5, 16), wide), {}),
]
answered = []
for method, arrays, options in calls:
    shapes = [getattr(a, "shape", a) for a in (*arrays, *options.values())]
    for backend in (Backend(), NumbaBackend()):
        try:
            getattr(backend, method)(*arrays, **options)
        except (ValueError, IndexError):
            continue
        answered.append(f"{backend.name} {method} {shapes}")
assert not answered, "\\n".join(answered)
""")


# --- whole networks ---------------------------------------------------------------------------------------------------

@pytest.mark.parametrize("build, size", [(branches, 6), (digits, 12)], ids=["branches", "digits"])
def test_gradients_through_a_network(build: Callable[..., xn.Network], size: int):
    """In float32 as base.py has them in float64."""
    x, labels = pictures(7, (2, size, size), 5)
    results = []
    for backend, dtype in ((BACKEND, "float32"), (Backend(), "float64")):
        net = build(backend, dtype=dtype)
        net.fit(x, labels, loss="cross_entropy", optimizer=xn.SGD(0.0), batch_size=7, shuffle=False, verbose=False)
        results.append((net.predict(x), *(p.grad for layer in net.layers for p in layer.parameters)))
    for actual, exact in zip(*results, strict=True):
        # The bias in front of a batch norm has no gradient but rounding errors.
        assert distance(actual, exact) < 1e-5 or np.abs(exact).max() < 1e-12 > np.abs(actual).max() - 1e-6
    assert sum(np.linalg.norm(exact) > 0.01 for exact in results[1]) > len(results[1]) // 2


def test_a_network_learns_the_same_as_on_numpy():
    x, labels = pictures(60, (2, 12, 12), 5)
    outputs, losses = [], []
    for backend in (BACKEND, NumpyBackend()):
        net = digits(backend, "float32")
        losses.append(net.fit(x, labels, loss="cross_entropy", optimizer=xn.Adam(1e-3), epochs=2, batch_size=25,
                              verbose=False)["loss"])
        outputs.append(net.predict(x))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert distance(*outputs) < 1e-3                                    # six steps let the differences of 1e-7 grow


# --- what NumPy answers -----------------------------------------------------------------------------------------------

PLAIN = {"empty", "zeros", "asarray", "to_numpy", "synchronize", "scope", "store", "argmax_dtype"}    # no kernels

# Calls in float32 that NumpyBackend answers, or has a part in; of float64 it answers all.
FALLS_BACK = {
    "activate float32 sigmoid",
    "activate float32 tanh",
    "activate float32 scaled_tanh",
    "batch_norm float32 tanh",
    "batch_norm float32 scaled_tanh",
    "batch_norm_backward float32 tanh",
    "batch_norm_backward float32 scaled_tanh",
    "batch_norm_inference float32 tanh",
    "batch_norm_inference float32 scaled_tanh",
    "col2im float32",
    "conv2d float32 tanh: activate",
    "conv2d float32, filters float64",
    "conv2d float32, no samples",
    "conv2d_dx float32: col2im",                                        # of few outputs
    "conv2d_dx float32, filters float64",
    "conv2d_dW float32, dy float64",
    "gather_batch >f4 to float32",
    "gather_batch bool to float32",
    "gather_batch float16 to float32",
    "gather_batch int64 to float32",
    "gemm float32, b float64",
    "gemm float32, nothing to add up",
    "im2col float32",
    "max_pool2d float32, 256 taps or more",
    "max_pool2d_dx float32, 256 taps or more",
    "softmax_backward float32",
}


class Spied(NumpyBackend):
    """Stands behind NumbaBackend and keeps the names of its methods that are reached from there."""

    def __init__(self, note: str = "") -> None:
        super().__init__(note)
        self.reached: set[str] = set()
        self.inside = False


def spy(name: str) -> Callable[..., Any]:
    def method(self: Spied, *args: Any, **options: Any) -> Any:
        answer = getattr(super(Spied, self), name)
        if self.inside or name == "activate" and args[1] is None:       # which does nothing
            return answer(*args, **options)
        self.reached.add(name)
        self.inside = True
        try:
            return answer(*args, **options)
        finally:
            self.inside = False
    return method


for name in public_methods() - PLAIN:
    setattr(Spied, name, spy(name))


class Watched(NumbaBackend, Spied):
    """A NumbaBackend whose NumpyBackend is spied on."""


def kind(case: Case) -> str:
    """Method and types of a call, its activation, and what else decides where it goes."""
    samples = case.arrays.get("samples", case.options.get("samples"))
    if samples is not None:
        return f"gather_batch {samples.dtype} to {np.dtype(case.options['dtype'])}"
    words = f"{case.method} {next(iter(case.arrays.values())).dtype} {case.options.get('activation') or ''}".strip()
    if case.method.startswith("max_pool") and case.options["window"].taps > 255:
        return f"{words}, 256 taps or more"
    return f"{words}, {case.label}" if case in RARE else words


X, DY, FILTERS, POINTS = normal(2, 4, 4, 3), normal(5, 2, 2, 3), normal(5, 2, 3, 3), {"window": Window.make(3)}
RARE = [
    Case("conv2d", "filters float64", {"x": X, "W": FILTERS.astype(np.float64)}, POINTS),
    Case("conv2d_dx", "filters float64", {"dy": DY, "W": FILTERS.astype(np.float64)}, POINTS | {"x_shape": X.shape}),
    Case("conv2d_dW", "dy float64", {"x": X, "dy": DY.astype(np.float64)}, POINTS),
    Case("conv2d", "no samples", {"x": X[..., :0], "W": FILTERS}, POINTS),
    Case("gemm", "b float64", {"a": normal(3, 4), "b": normal(4, 5, dtype=np.float64)}),
    Case("gemm", "nothing to add up", {"a": normal(3, 0), "b": normal(0, 5)}),
]


def test_what_falls_back_to_numpy():
    backend, answers = Watched(), {True: set(), False: set()}
    for case in CASES + LARGE + RARE:
        if case.method not in PLAIN:
            backend.reached.clear()
            results = run(case, backend)
            if case in RARE:
                agree(case, results, run(case, Backend()))
            parts = backend.reached - {case.method}
            answers[bool(backend.reached)].add(kind(case) + (f": {' '.join(sorted(parts))}" if parts else ""))
    assert not answers[True] & answers[False]
    double = {answer for both in answers.values() for answer in both if "float64" in re.split("[ ,]", answer)[1:2]
              or answer.endswith("to float64")}
    assert double & answers[False] == {"activate float64"}              # which returns its argument
    assert answers[True] - double == FALLS_BACK


# --- how it is chosen -------------------------------------------------------------------------------------------------

def test_auto_prefers_numba_to_numpy_and_says_why_not_the_gpu():
    with installed(None):
        chosen = get_backend("auto")
        assert available() == ["numpy", "numba"]
    assert type(chosen) is NumbaBackend and chosen.xp is np
    assert re.match('chosen by "auto", because cupy: CuPy cannot be imported', chosen.note)
    assert repr(chosen) == f"<backend numba: {chosen.note}>"


def test_numba_by_name():
    backend = get_backend("numba")
    assert type(backend) is NumbaBackend and (backend.name, backend.note) == ("numba", "")
    assert get_backend(backend) is backend
    with pytest.raises(ValueError, match=r'expected "auto", "numpy", "numba", .*Received: \'numba:0\''):
        get_backend("numba:0")


def test_a_backend_compiles_and_loads_nothing_before_it_is_used():
    run_script("""
from xpnet.backends.numba_backend import NumbaBackend
from xpnet.backends.numba_kernels import convolution, pooling
NumbaBackend()
assert not convolution.pad.compiled.overloads and not pooling.max_pool.compiled.overloads
""")
