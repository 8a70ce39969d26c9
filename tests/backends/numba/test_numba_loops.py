"""The compiled loops except convolution against base.py: large sizes, special values, threads.

Small and odd sizes are in test_numba_backend.py.
"""

from __future__ import annotations

import numpy as np
import pytest
from cpu_cases import agree_on_strided_arrays
from hypothesis import given
from hypothesis import strategies as st
from parity import Case, agree, call, different_signatures, normal, run, special, ties
from parity_cases import scans
from processes import run_script
from tiers import examples

from xpnet.backends import Backend, Window

pytest.importorskip("numba", reason="numba is not installed")

from loop_cases import LARGE, OVERRIDES, with_base  # noqa: E402

from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402
from xpnet.backends.numba.kernels import softmax  # noqa: E402
from xpnet.backends.numba.recurrent import division  # noqa: E402


@pytest.fixture(scope="module")
def backend():
    return NumbaBackend()


def test_the_overrides_are_these():
    assert OVERRIDES == {
        "max_pool2d", "max_pool2d_dx", "avg_pool2d", "avg_pool2d_dx", "activate", "add",
        "activation_backward", "batch_norm", "batch_norm_inference", "batch_norm_backward",
        "softmax", "softmax_cross_entropy", "dropout", "dropout_dx", "random_bits", "gather_batch",
        "take_columns", "put_columns", "scan", "scan_backward", "scan_product", "update"}
    assert different_signatures(NumbaBackend) == set()


# --- sizes that are cut into pieces, parts and tasks ----------------------------------------------

def test_the_large_sizes_cover_every_override():
    assert {case.method for case in LARGE} == OVERRIDES


@pytest.mark.parametrize("method", sorted(OVERRIDES))
def test_large_sizes_agree_with_base(method: str, backend: NumbaBackend):
    for case in LARGE:
        if case.method == method:
            agree(case, run(case, backend), with_base(case))


@pytest.mark.parametrize("method", sorted(OVERRIDES))
def test_arrays_that_are_not_contiguous(method: str, backend: NumbaBackend):
    for case in LARGE:
        if case.method == method:
            agree_on_strided_arrays(case, backend)


def test_the_number_of_threads_changes_no_bit():
    """In a process that allows more threads than this machine may have cores."""
    run_script("""
from parity import run, same_bits
from loop_cases import LARGE, NumbaBackend
from xpnet.backends.cpu.threads import ThreadPool

backend = NumbaBackend()
for case in LARGE:
    results = []
    for backend.threads in map(ThreadPool, (1, 2, 3, 4)):
        results.append(run(case, backend))
    for result in results[1:]:
        assert all(map(same_bits, result, results[0])), case
""", NUMBA_NUM_THREADS="4")


# --- blocks of samples ----------------------------------------------------------------------------

@pytest.mark.parametrize("reverse", [False, True], ids=["forward", "reverse"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
@pytest.mark.parametrize(("method", "of_steps"), [("scan", "a"), ("scan_product", "x")])
def test_a_sample_has_the_same_bits_alone_and_in_a_batch(method: str, of_steps: str, cell: str,
                                                         reverse: bool, backend: NumbaBackend):
    """Blocks of 16, 4 and 1 samples; H is neither a multiple of a vector nor of a panel."""
    T = 35
    case, = (case for case in scans(cell, 52, 20, T, "full", np.float32) if case.method == method)
    whole = case.arrays[of_steps]

    def after(samples: slice) -> np.ndarray:
        """h of all steps, (H, T, N)."""
        part = np.ascontiguousarray(whole.reshape(-1, T, 20)[..., samples]).reshape(len(whole), -1)
        count = part.shape[1] // T
        arrays = {name: array[:, samples].copy() if name.startswith("states") else array
                  for name, array in case.arrays.items()}
        y = call(backend, method, arrays | {of_steps: part} | case.options
                 | {"counts": [count] * T, "reverse": reverse})[0]
        return y.reshape(-1, T, count)

    together = after(slice(0, 20))
    for n in (0, 7, 19):
        np.testing.assert_array_equal(after(slice(n, n + 1)), together[..., n:n + 1])


@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_a_batch_may_be_empty(cell: str, backend: NumbaBackend):
    case = next(scans(cell, 5, 1, 3, "full", np.float32))
    a, U, bias = (case.arrays.get(name) for name in ("a", "U", "bias"))
    states = [array[:, :0] for name, array in case.arrays.items() if name.startswith("states")]
    y, last, kept = backend.scan(cell, a[:, :0], U, states, [0] * 3, bias=bias)
    da, ds, dstates = backend.scan_backward(cell, y, last, U, kept, [0] * 3)
    assert y.shape == last[0].shape == dstates[0].shape == (5, 0)
    assert da.shape == ds.shape == (len(U), 0)


def test_long_and_short_blocks_take_turns_if_lengths_differ():
    starts, firsts, size = division((30, 30, 7), 30)
    assert (starts.tolist(), firsts.tolist(), size) == ([0, 30, 60, 67], [0, 24, 8, 16], 8)
    starts, firsts, size = division((30, 30), 30)
    assert (starts.tolist(), firsts.tolist(), size) == ([0, 30, 60], [0, 16], 16)


# --- shapes by chance -----------------------------------------------------------------------------

SIZES, CHANNELS, BATCHES = (st.integers(1, 9), st.sampled_from([1, 3, 7, 8, 9]),
                            st.sampled_from([1, 3, 16, 17, 33, 128]))


@given(CHANNELS, st.tuples(SIZES, SIZES), BATCHES, st.tuples(st.integers(1, 4), st.integers(1, 4)),
       st.tuples(st.integers(1, 3), st.integers(1, 3)),
       st.tuples(st.integers(1, 2), st.integers(1, 2)),
       st.tuples(*[st.integers(0, 6)] * 4), st.sampled_from([normal, ties, special]))
@examples(150)
def test_pooling_of_any_window(C, size, N, kernel, stride, dilation, padding, values):
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    window = Window.make(kernel, stride,
                         tuple(min(p, extent[k // 2] - 1) for k, p in enumerate(padding)), dilation)
    shape = (C, max(size[0], extent[0]), max(size[1], extent[1]), N)
    case = Case("max_pool2d", f"{shape}-{window}", {"x": values(*shape)}, {"window": window},
                exact=True)
    expected = with_base(case)
    agree(case, run(case, NumbaBackend()), expected)
    back = Case("max_pool2d_dx", f"{shape}-{window}",
                {"dy": values(*expected[0].shape), "argmax": expected[1]},
                {"x_shape": shape, "window": window}, exact=True)
    agree(back, run(back, NumbaBackend()), with_base(back))
    dy = normal(*expected[0].shape)
    for count in (True, False):
        options, label = {"window": window, "count_padding": count}, f"{shape}-{window}"
        for case in (Case("avg_pool2d", label, {"x": normal(*shape)}, options),
                     Case("avg_pool2d_dx", label, {"dy": dy}, options | {"x_shape": shape})):
            for actual, exact in zip(run(case, NumbaBackend()), with_base(case), strict=True):
                np.testing.assert_allclose(actual, exact, rtol=1e-5, atol=1e-5, err_msg=str(case))


@given(CHANNELS, st.tuples(SIZES, SIZES), BATCHES, st.sampled_from([None, "relu"]), st.booleans())
@examples(50)
def test_normalisation_of_any_shape(C, size, N, name, accumulate):
    # two elements at least: one has no variance
    shape = (C, *size, N) if C * N > 1 else (C, 2, *size)
    x, dy, gamma, beta, label = (normal(*shape), normal(*shape, seed=1), normal(C),
                                 normal(C, seed=1), f"{shape}-{name}")
    options = {"activation": name, "eps": 1e-3}
    y, mean, var = Backend().batch_norm(x, gamma, beta, 1e-3, activation=name)
    arrays = {"dy": dy, "x": x, "y": y, "gamma": gamma, "mean": mean, "var": var,
              "gamma_grad": beta, "beta_grad": beta}
    for case in (Case("batch_norm", label, {"x": x, "gamma": gamma, "beta": beta}, options),
                 Case("batch_norm_backward", label, arrays, options | {"accumulate": accumulate},
                      writes=("gamma_grad", "beta_grad")),
                 Case("activation_backward", label, {"dy": dy, "y": y, "bias_grad": beta},
                      {"activation": name, "accumulate": accumulate}, writes=("bias_grad",))):
        for actual, expected in zip(run(case, NumbaBackend()), with_base(case), strict=True):
            np.testing.assert_allclose(actual, expected, rtol=1e-3, atol=1e-4, err_msg=str(case))


@given(st.integers(1, 70), BATCHES, st.integers(1, 200), st.booleans(),
       st.sampled_from([np.uint8, np.float32]))
@examples(50)
def test_batches_of_any_size(S, N, D, in_order, dtype):
    index = None if in_order else np.random.default_rng(0).integers(0, S, N)
    case = Case("gather_batch", f"{S}-{D}-{index}", {"samples": (50 * normal(S, D)).astype(dtype)},
                {"index": index, "dtype": np.float32}, exact=True)
    agree(case, run(case, NumbaBackend()), with_base(case))


# --- special values -------------------------------------------------------------------------------

VALUES = (np.nan, np.inf, -np.inf, -0.0)


@pytest.mark.parametrize("value", VALUES)
@pytest.mark.parametrize("name", [None, "relu"])
def test_special_values_in_activation_and_normalisation(
        value: float, name: str | None, backend: NumbaBackend):
    for at in ("dy", "y", "x"):
        arrays = {"dy": normal(3, 5, 4, 17), "y": np.maximum(normal(3, 5, 4, 17, seed=1), 0),
                  "x": normal(3, 5, 4, 17, seed=2)}
        arrays[at][1, 2, 3, ::5] = value
        dy, y, x = (arrays[key] for key in ("dy", "y", "x"))
        ones = np.ones(3, np.float32)
        back = Case("activation_backward", f"{at}", {"dy": dy, "y": y, "bias_grad": ones},
                    {"activation": name}, writes=("bias_grad",))
        norm = Case("batch_norm", f"{at}", {"x": x, "gamma": ones, "beta": ones},
                    {"eps": 1e-5, "activation": name})
        inference = Case("batch_norm_inference", f"{at}",
                         {"x": x, "gamma": ones, "beta": ones, "mean": 0 * ones, "var": ones},
                         {"eps": 1e-5, "activation": name})
        for case in (back, norm, inference):
            agree(case, run(case, backend), with_base(case))


@pytest.mark.parametrize("value", [np.nan, np.inf])
def test_special_values_in_softmax(value: float, backend: NumbaBackend):
    z, labels = normal(7, 70), np.arange(70) % 7
    z[3, ::9] = value
    for case in (Case("softmax", f"{value}", {"z": z}),
                 Case("softmax_cross_entropy", f"{value}", {"z": z, "target": labels})):
        agree(case, run(case, backend), with_base(case))


def test_impossible_classes_do_not_contribute(backend: NumbaBackend):
    """A logit of minus infinity has probability 0. (base.py multiplies its logarithm with 0, which
    is NaN.)"""
    z = np.array([[0, 1], [-np.inf, 2], [3, -np.inf]], np.float32)
    loss, dz = backend.softmax_cross_entropy(z, np.array([0, 1]))
    assert loss == pytest.approx((np.log(1 + np.exp(3)) + np.log(1 + np.exp(-1))) / 2)
    assert dz[1, 0] == dz[2, 1] == 0 and np.isfinite(dz).all()


@pytest.mark.parametrize("x", [0.0, -1e-7, -0.1, -1.0, -20.0, -86.9, -87.1, -1e9, -np.inf, np.nan])
def test_exponential(x: float):
    np.testing.assert_allclose(softmax.exponential(np.float32(x)), np.exp(np.float32(x)), rtol=5e-6,
                               atol=2e-38)
