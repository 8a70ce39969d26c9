"""The Numba backend against base.py: every public method, whole networks, calls that go to NumPy,
and how it is chosen."""

from __future__ import annotations

import re
from collections.abc import Callable

import numpy as np
import pytest
from cpu_cases import LARGE, agree_among_threads, agree_on_strided_arrays, digits
from fake_cupy import installed
from nets import branches, pictures
from parity import Case, agree, different_signatures, distance, normal, run, same_bits
from parity_cases import CASES, by_method
from processes import STRICT_MEMORY, run_script
from threadpoolctl import threadpool_info
from tiers import full

import xpnet as xn
from xpnet.backends import Backend, Window, available, get_backend
from xpnet.backends.activations import ACTIVATIONS, FUSED
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.tracing import computing_methods, trace

pytest.importorskip("numba", reason="Numba is not installed")

from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402 - only where Numba is installed
from xpnet.backends.numba.kernels import curves  # noqa: E402

BACKEND = NumbaBackend()


# --- the tables of all backends -------------------------------------------------------------------

def test_overrides_keep_the_parameters_and_defaults_of_the_contract():
    assert different_signatures(NumbaBackend) == set()


def goes_to_numpy(case: Case) -> bool:
    """NumPy computes float64 arrays, see test_calls_that_go_to_numpy."""
    return (any(a.dtype == np.float64 for name, a in case.arrays.items() if name != "hyper")
            and case.method != "activate")


METHODS = by_method(case for case in CASES + LARGE if not goes_to_numpy(case))
LARGE_SIZES = by_method(LARGE)
ON_NUMPY = by_method(case for case in CASES + LARGE if goes_to_numpy(case))


@pytest.mark.parametrize("method", METHODS)
def test_every_method_agrees_with_base(method: str):
    for case in METHODS[method]:
        agree(case, run(case, BACKEND), run(case, Backend()))


@full                                   # NumPy's tests have the same cases
@pytest.mark.parametrize("method", ON_NUMPY)
def test_calls_of_numpy_agree_with_base(method: str):
    for case in ON_NUMPY[method]:
        agree(case, run(case, BACKEND), run(case, Backend()))


@pytest.mark.parametrize("method", LARGE_SIZES)
def test_arrays_that_are_not_contiguous(method: str):
    for case in LARGE_SIZES[method]:
        agree_on_strided_arrays(case, BACKEND)


@full                                   # also in test_numba_loops
def test_the_number_of_threads_changes_no_bit():
    """In a process that allows more threads than this machine may have cores, and that stops if
    freed memory is used."""
    run_script("""
import os
from cpu_cases import LARGE
from parity import run, same_bits
from xpnet.backends.numba.backend import NumbaBackend

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
    agree_among_threads(NumbaBackend)


def test_blas_adds_no_threads_of_its_own():
    """Whether BLAS is called for a float64 product or not at all."""
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
    for make in (lambda: BACKEND.conv2d(x, W, window),
                 lambda: BACKEND.conv2d_dx(dy, W, x.shape, window),
                 lambda: BACKEND.gemm(normal(600, 10), normal(10, 600))):
        y = make()
        address = y.ctypes.data
        del y
        assert make().ctypes.data == address


# --- whole networks -------------------------------------------------------------------------------

@pytest.mark.parametrize("build, size", [(branches, 6), (digits, 12)], ids=["branches", "digits"])
def test_gradients_through_a_network(build: Callable[..., xn.Network], size: int):
    """In float32, against those of base.py in float64."""
    x, labels = pictures(7, (2, size, size), 5)
    results = []
    for backend, dtype in ((BACKEND, "float32"), (Backend(), "float64")):
        net = build(backend, dtype=dtype)
        net.fit(x, labels, loss="cross_entropy", optimizer=xn.SGD(0.0), batch_size=7, shuffle=False,
                verbose=False)
        results.append((net.predict(x),
                        *(p.grad for layer in net.layers for p in layer.parameters)))
    for actual, exact in zip(*results, strict=True):
        # The gradient of a bias before a batch norm consists of rounding errors only.
        assert (distance(actual, exact) < 1e-5
                or np.abs(exact).max() < 1e-12 > np.abs(actual).max() - 1e-6)
    assert sum(np.linalg.norm(exact) > 0.01 for exact in results[1]) > len(results[1]) // 2


def test_a_network_learns_the_same_as_on_numpy():
    x, labels = pictures(60, (2, 12, 12), 5)
    outputs, losses = [], []
    for backend in (BACKEND, NumpyBackend()):
        net = digits(backend, "float32")
        losses.append(net.fit(x, labels, loss="cross_entropy", optimizer=xn.Adam(1e-3), epochs=2,
                              batch_size=25, verbose=False)["loss"])
        outputs.append(net.predict(x))
    np.testing.assert_allclose(losses[0], losses[1], rtol=1e-4)
    assert distance(*outputs) < 1e-3  # in six steps, differences of 1e-7 grow


# --- calls that go to NumPy -----------------------------------------------------------------------

PLAIN = {"update_running", "tally", "advance", "collector", "joined",
         "scan_product_backward"}                           # no kernels of their own

# Float32 calls that NumpyBackend computes, wholly or in part; it computes all float64 calls.
FALLS_BACK = {
    "activate float32 tanh",
    "activate float32 scaled_tanh",
    "add float32 tanh: activate",
    "add float32 scaled_tanh: activate",
    "argmax float32",
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
    "conv2d_dx float32: col2im",                                        # few outputs
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
    "scan float32 softplus",
    "scan_product float32 softplus",
    "scan_backward float32 softplus",
    "softmax_dx float32",
    "products float32",
    "sums_by_token float32",
} | {f"{method} float32 {cell}, masks" for method in ("scan", "scan_product", "scan_backward")
     for cell in ("lstm", "gru", "tanh", "relu", "sigmoid", "softplus")
} | {call for name in ACTIVATIONS.keys() - FUSED - curves.NUMBERS.keys()
     for call in (f"activate float32 {name}", f"activation_backward float32 {name}",
                  f"add float32 {name}: activate")}


def kind(case: Case) -> str:
    """Method, dtypes and activation of a call, and whatever else decides which implementation
    computes it."""
    samples = case.arrays.get("samples", case.options.get("samples"))
    if samples is not None:
        return f"gather_batch {samples.dtype} to {np.dtype(case.options['dtype'])}"
    words = (f"{case.method} {next(iter(case.arrays.values())).dtype} "
             f"{case.options.get('activation') or ''}".strip())
    if case.method.startswith("scan"):
        return f"{words} {case.options['cell']}{', masks' if 'lengths' in case.arrays else ''}"
    if case.method.startswith("max_pool") and case.options["window"].taps > 255:
        return f"{words}, 256 taps or more"
    return f"{words}, {case.label}" if case in RARE else words


X, DY, FILTERS, POINTS = (normal(2, 4, 4, 3), normal(5, 2, 2, 3), normal(5, 2, 3, 3),
                          {"window": Window.make(3)})
RARE = [
    Case("conv2d", "filters float64", {"x": X, "W": FILTERS.astype(np.float64)}, POINTS),
    Case("conv2d_dx", "filters float64", {"dy": DY, "W": FILTERS.astype(np.float64)},
         POINTS | {"x_shape": X.shape}),
    Case("conv2d_dW", "dy float64", {"x": X, "dy": DY.astype(np.float64)}, POINTS),
    Case("conv2d", "no samples", {"x": X[..., :0], "W": FILTERS}, POINTS),
    Case("gemm", "b float64", {"a": normal(3, 4), "b": normal(4, 5, dtype=np.float64)}),
    Case("gemm", "nothing to add up", {"a": normal(3, 0), "b": normal(0, 5)}),
]


def test_calls_that_go_to_numpy():
    """These calls have no kernel: NumPy or the reference implementation computes them, wholly or in
    part."""
    answers: dict[bool, set[str]] = {True: set(), False: set()}
    for case in CASES + LARGE + RARE:
        if case.method in computing_methods() - PLAIN:
            with trace(BACKEND) as ran:
                results = run(case, BACKEND)
            if case in RARE:
                agree(case, results, run(case, Backend()))
            others = {method for method, implementation in ran if implementation != "numba"}
            parts = others - {case.method} if case.method not in others else set()
            answers[bool(others)].add(
                kind(case) + (f": {' '.join(sorted(parts))}" if parts else ""))
    assert not answers[True] & answers[False]
    double = {answer for both in answers.values() for answer in both
              if "float64" in re.split("[ ,]", answer)[1:2]
              or answer.endswith("to float64")}
    assert double & answers[False] == {"activate float64"}              # which returns its argument
    assert answers[True] - double == FALLS_BACK


# --- how it is chosen -----------------------------------------------------------------------------

def test_auto_prefers_numba_to_numpy_and_notes_why_it_is_not_the_gpu():
    with installed(None):
        chosen = get_backend("auto")
        assert available() == ["numpy", "numba"]
    assert type(chosen) is NumbaBackend and chosen.xp is np
    assert chosen.note == "no GPU: CuPy is not installed"
    assert repr(chosen) == f"<backend numba: {chosen.note}>"


def test_numba_by_name():
    backend = get_backend("numba")
    assert type(backend) is NumbaBackend and (backend.name, backend.note) == ("numba", "")
    assert get_backend(backend) is backend
    with pytest.raises(ValueError,
                       match=r'expected "auto", "numpy", "numba", .*Received: \'numba:0\''):
        get_backend("numba:0")


def test_a_backend_compiles_and_loads_nothing_before_it_is_used():
    run_script("""
from xpnet.backends.numba.backend import NumbaBackend
from xpnet.backends.numba.kernels import convolution, pooling
NumbaBackend()
assert not convolution.pad.compiled.overloads and not pooling.max_pool.compiled.overloads
""")
