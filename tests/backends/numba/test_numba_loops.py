"""The compiled loops beside convolution against base.py: odd shapes, special values, threads, and
what they leave to NumPy."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from cpu_cases import agree_on_strided_arrays
from hypothesis import given
from hypothesis import strategies as st
from parity_cases import (
    CASES,
    Case,
    agree,
    call,
    different_signatures,
    normal,
    other_optimizers,
    public_methods,
    run,
    same_bits,
    special,
    ties,
)
from processes import run_script
from tiers import examples

from xpnet.backends import Backend, Window

pytest.importorskip("numba", reason="numba is not installed")

from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402
from xpnet.backends.numba.kernels import (  # noqa: E402
    activation,
    batches,
    curves,
    dropout,
    normalization,
    optimizers,
    pooling,
    softmax,
)
from xpnet.backends.numba.kernels.arrays import ready  # noqa: E402
from xpnet.backends.numba.kernels.jit import Kernel  # noqa: E402

# All of them, without convolution and products.
OVERRIDES = public_methods() & vars(NumbaBackend).keys() - {"gemm", "conv2d", "conv2d_dx",
                                                            "conv2d_dW"}
KERNELS = {name: value for module in (activation, batches, curves, dropout, normalization,
                                      optimizers, pooling, softmax)
           for name, value in vars(module).items() if isinstance(value, Kernel)}
ADAM = np.array([1e-3, 0.9, 0.999, 1e-8, 0.01, 1 - 0.9**3, 1 - 0.999**3])


@pytest.fixture(scope="module")
def backend():
    return NumbaBackend()


def with_base(case: Case) -> list[np.ndarray]:
    """What base.py answers, which may warn of the infinities and NaNs that it is given."""
    with np.errstate(all="ignore"):
        return run(case, Backend())


def test_the_overrides_are_these():
    assert OVERRIDES == {"max_pool2d", "max_pool2d_dx", "avg_pool2d", "avg_pool2d_dx", "activate",
                         "activation_backward",
                         "batch_norm", "batch_norm_inference", "batch_norm_backward", "softmax",
                         "softmax_cross_entropy",
                         "dropout", "dropout_dx", "random_bits", "gather_batch",
                         "update"}
    assert different_signatures(NumbaBackend) == set()


@pytest.mark.parametrize("method", sorted(OVERRIDES))
def test_every_override_agrees_with_base(method: str, backend: NumbaBackend):
    for case in CASES:
        if case.method == method:
            agree(case, run(case, backend), with_base(case))


# --- sizes that are cut into pieces, parts and tasks ----------------------------------------------

def _large() -> Iterator[Case]:
    for shape, window in (((8, 28, 28, 65), Window.make(2, stride=2)),
                          ((8, 29, 28, 65), Window.make(2, stride=2)),
                          ((16, 21, 21, 65), Window.make(3, stride=2, padding=1)),
                          ((8, 22, 22, 65), Window.make(2, stride=3)),
                          ((8, 22, 22, 33), Window.make(2, dilation=2, padding=(0, 1, 1, 0)))):
        x, (OH, OW) = ties(*shape), window.output_size(*shape[1:3])
        _, argmax = Backend().max_pool2d(x, window)
        dy = normal(shape[0], OH, OW, shape[3])
        dy[0] = -0.0  # adds nothing, not even its sign
        yield Case("max_pool2d", f"{shape}", {"x": x}, {"window": window}, exact=True)
        yield Case("max_pool2d_dx", f"{shape}", {"dy": dy, "argmax": argmax},
                   {"x_shape": shape, "window": window}, exact=True)
        for count in (True, False):
            options = {"window": window, "count_padding": count}
            yield Case("avg_pool2d", f"{shape}-{count}", {"x": normal(*shape)}, options)
            yield Case("avg_pool2d_dx", f"{shape}-{count}", {"dy": dy},
                       options | {"x_shape": shape})
    # of the second and fourth, few and long
    for shape in ((24, 20, 20, 65), (3, 47, 60, 65), (600, 128), (2, 131_072)):
        C = shape[0]
        x, dy = normal(*shape) + np.float32(30), normal(*shape, seed=1)  # a mean far from 0
        gamma, beta = normal(C), normal(C, seed=1)
        for name in (None, "relu"):
            label, options = f"{shape}-{name}", {"activation": name}
            y, mean, var = Backend().batch_norm(x, gamma, beta, 1e-5, activation=name)
            yield Case("activate", label, {"z": dy}, options)
            for accumulate in (False, True):
                grads = {"gamma_grad": gamma, "beta_grad": beta}
                yield Case("activation_backward", label, {"dy": dy, "y": y, "bias_grad": gamma},
                           options | {"accumulate": accumulate}, writes=("bias_grad",))
                yield Case("batch_norm_backward", label,
                           {"dy": dy, "x": x, "y": y, "gamma": gamma, "mean": mean, "var": var}
                           | grads, options | {"eps": 1e-5, "accumulate": accumulate},
                           writes=("gamma_grad", "beta_grad"))
            yield Case("batch_norm", label, {"x": x, "gamma": gamma, "beta": beta},
                       options | {"eps": 1e-5})
            yield Case("batch_norm_inference", label,
                       {"x": x, "gamma": gamma, "beta": beta, "mean": mean, "var": var},
                       options | {"eps": 1e-5})
    for shape in ((24, 20, 20, 65), (2, 131_072), (70_001,)):
        z, dy = 3 * normal(*shape), normal(*shape, seed=1)
        for name in curves.NAMES:
            yield Case("activate", f"{shape}-{name}", {"z": z}, {"activation": name})
            for accumulate in (False, True):
                yield Case("activation_backward", f"{shape}-{name}-{accumulate}",
                           {"dy": dy, "y": z, "bias_grad": normal(shape[0], seed=2)},
                           {"activation": name, "accumulate": accumulate}, writes=("bias_grad",))
    # -1 and 300 are no labels
    z, labels = 5 * normal(300, 200), np.random.default_rng(3).integers(-1, 301, 200)
    for name, target in (("labels", labels), ("soft", np.abs(normal(300, 200, seed=1)))):
        yield Case("softmax_cross_entropy", name, {"z": z, "target": target})
    yield Case("softmax", "large", {"z": z})
    counter, dy = np.array([3, 2**64 - 1], np.uint64), special(100_003)
    yield Case("dropout", "large", {"x": dy, "counter": counter}, {"p": 0.3, "key": (2**63 + 5, 1)},
               exact=True)
    yield Case("dropout_dx", "large", {"dy": dy, "keep": normal(100_003) > 0}, {"p": 0.3},
               exact=True)
    yield Case("random_bits", "large", {"counter": counter}, {"n": 100_003, "key": (2**63 + 5, 1)},
               exact=True)
    n, decayed = 100_003, 50_001
    buffers = {"w": normal(n), "g": normal(n, seed=1), "v": normal(n, seed=2) ** 2}
    for rule, slots, hyper in (("sgd", ("v",), ADAM[:3]), ("nesterov", ("v",), ADAM[:3]),
                               ("adam", ("m", "v"), ADAM), ("adamw", ("m", "v"), ADAM)):
        memory = {"m": normal(n, seed=3)} if "m" in slots else {}
        yield Case("update", rule, buffers | memory | {"hyper": hyper},
                   {"rule": rule, "decayed": decayed}, writes=("w", *slots))
    yield from other_optimizers("large", {"w": normal(n), "g": normal(n, seed=1)},
                                {"decayed": decayed})
    for samples in (normal(300, 1, 28, 28),
                    np.arange(300 * 784).reshape(300, 784).astype(np.uint8)):
        index = np.random.default_rng(4).permutation(300)[:130]
        yield Case("gather_batch", f"{samples.dtype}", {"samples": samples, "index": index},
                   {"dtype": np.float32}, exact=True)


LARGE = list(_large())


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
from parity_cases import run, same_bits
from tests.backends.numba.test_numba_loops import LARGE, NumbaBackend
from xpnet.backends.cpu.threads import ThreadPool

backend = NumbaBackend()
for case in LARGE:
    results = []
    for backend.threads in map(ThreadPool, (1, 2, 3, 4)):
        results.append(run(case, backend))
    for result in results[1:]:
        assert all(map(same_bits, result, results[0])), case
""", NUMBA_NUM_THREADS="4")


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
    window = (Window.make(kernel, stride,
                          tuple(min(p, extent[k // 2] - 1) for k, p in enumerate(padding)),
                          dilation))
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
def test_special_values_in_activation_and_normalisation(value: float, name: str | None,
                                                        backend: NumbaBackend):
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


def test_impossible_classes_cost_nothing(backend: NumbaBackend):
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


# --- arrays, types, and what goes to NumPy --------------------------------------------------------

def test_ready():
    a = normal(6, 4)
    assert ready(a, (6, 4)) is a and ready(a, (24,)).base is a
    a.flags.writeable = False
    view = ready(a, (2, 12))
    assert view.flags.writeable and view.ctypes.data == a.ctypes.data and not a.flags.writeable
    for other in (a.T, a[::2], np.broadcast_to(a[0], (6, 4)),
                  np.frombuffer(b"?" + a.tobytes(), np.float32, 24, 1)):
        copy = ready(other, (other.size,))
        assert copy.flags.carray and np.array_equal(copy, other.reshape(-1))


def test_ready_keeps_the_memory_alive():
    a = normal(50_000)
    a.flags.writeable = False
    view, expected = ready(a, (50_000,)), a.copy()
    del a
    assert same_bits(view, expected) and not same_bits(np.full(50_000, 7, np.float32), view)


def fresh(call: dict[str, Any]) -> dict[str, Any]:
    """The same call on copies, contiguous ones only where its arrays are."""
    return {name: value if not isinstance(value, np.ndarray) else value.copy()
            if value.flags.c_contiguous
            else np.repeat(value, 2, axis=-1)[..., ::2] for name, value in call.items()}


CALLS: dict[str, tuple[str, dict[str, Any]]] = {  # name: kernel, and a call in float32 that it does
    "max_pool2d": ("max_pool", {"x": normal(2, 4, 4, 3), "window": Window.make(2)}),
    "max_pool2d_dx": ("max_pool_dx",
                      {"dy": normal(2, 3, 3, 3), "argmax": np.zeros((2, 3, 3, 3), np.uint8),
                                            "x_shape": (2, 4, 4, 3), "window": Window.make(2)}),
    "avg_pool2d": ("avg_pool", {"x": normal(2, 4, 4, 3), "window": Window.make(2)}),
    "avg_pool2d_dx": ("avg_pool_dx", {"dy": normal(2, 3, 3, 3), "x_shape": (2, 4, 4, 3),
                                            "window": Window.make(2)}),
    "activate": ("relu", {"z": normal(2, 3), "activation": "relu"}),
    "activation_backward": ("activation_backward",
                            {"dy": normal(2, 3), "y": normal(2, 3), "activation": "tanh",
                                                    "bias_grad": normal(2)}),
    "batch_norm": ("batch_norm", {"x": normal(2, 3), "gamma": normal(2), "beta": normal(2),
                                  "eps": 1e-5, "activation": "relu"}),
    "batch_norm_inference": ("batch_norm_inference",
                             {"x": normal(2, 3), "gamma": normal(2), "beta": normal(2),
                                                      "mean": normal(2),
                              "var": np.ones(2, np.float32), "eps": 1e-5}),
    "batch_norm_backward": ("batch_norm_backward", {
        "dy": normal(2, 3), "x": normal(2, 3), "y": normal(2, 3), "gamma": normal(2),
        "mean": normal(2),
        "var": np.ones(2, np.float32), "eps": 1e-5, "gamma_grad": normal(2),
        "beta_grad": normal(2)}),
    "softmax": ("softmax", {"z": normal(3, 2)}),
    "softmax_cross_entropy": ("cross_entropy_of_labels",
                              {"z": normal(3, 2), "target": np.array([0, 2])}),
    "dropout": ("dropout",
                {"x": normal(5), "p": 0.5, "key": (0, 0), "counter": np.zeros(2, np.uint64)}),
    "dropout_dx": ("dropout_dx", {"dy": normal(5), "p": 0.5, "keep": np.ones(5, bool)}),
    "random_bits": ("random_words", {"n": 5, "key": (0, 0), "counter": np.zeros(2, np.uint64)}),
    "update": ("adam", {"rule": "adam", "w": normal(5), "g": normal(5), "m": normal(5),
                        "v": np.ones(5, np.float32),
                        "hyper": ADAM, "decayed": 5}),
    "gather_batch": ("gather", {"samples": normal(5, 3), "index": np.array([4, 0]),
                                "dtype": np.float32}),
}


def kernels_of(backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch, method: str,
               arguments: dict[str, Any]
               ) -> list[str]:
    """The names of the kernels that a call starts; what comes out must be what base.py answers."""
    started, start = [], Kernel.__call__

    def watching(kernel: Kernel, threads: int, *args: Any) -> Any:
        started.append(kernel.compiled.__name__)
        return start(kernel, threads, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "__call__", watching)
        actual = call(backend, method, fresh(arguments))
    expected = call(Backend(), method, fresh(arguments))
    for a, b in zip(actual if isinstance(actual, tuple) else [actual],
                    expected if isinstance(expected, tuple) else [expected]):
        if b is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-2 if b.dtype == np.float16 else 1e-5,
                                       atol=1e-6)
    return started


@pytest.mark.parametrize("method", sorted(OVERRIDES))
def test_float32_is_compiled(method: str, backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch):
    kernel, arguments = CALLS[method]
    assert kernels_of(backend, monkeypatch, method, arguments) == [kernel]


@pytest.mark.parametrize("case",
                         list(other_optimizers("", {"w": normal(5), "g": normal(5)},
                                               {"decayed": 5})), ids=str)
def test_every_rule_is_compiled(case: Case, backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch):
    assert (kernels_of(backend, monkeypatch, "update", case.arrays | case.options)
            == [case.options["rule"]])


@pytest.mark.parametrize("name", curves.NAMES)
def test_curves_are_compiled(name: str, backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch):
    for method, kernel in (("activate", "curve_forward"),
                           ("activation_backward", "curve_backward")):
        assert (kernels_of(backend, monkeypatch, method, CALLS[method][1] | {"activation": name})
                == [kernel])


@pytest.mark.parametrize("dtype", [np.float16, np.float64])
@pytest.mark.parametrize("method", sorted(OVERRIDES - {"random_bits"}))
def test_other_types_go_to_numpy(method: str, dtype: Any, backend: NumbaBackend,
                                 monkeypatch: pytest.MonkeyPatch):
    arguments = {name: value.astype(dtype) if isinstance(value, np.ndarray)
                 and value.dtype == np.float32 else value
                 for name, value in CALLS[method][1].items()}
    arguments |= {"dtype": dtype} if method == "gather_batch" else {}
    assert (kernels_of(backend, monkeypatch, method,
                       arguments) == (["random_words"] if method == "dropout" else []))


@pytest.mark.parametrize(("method", "changes"), [
    ("max_pool2d", {"x": normal(1, 16, 16, 1), "window": Window.make(16)}),  # argmax is int32
    ("activate", {"activation": "tanh"}), ("activate", {"activation": "scaled_tanh"}),
    ("activate", {"activation": None}),
    ("activation_backward", {"activation": None, "bias_grad": None}),
    ("activation_backward", {"bias_grad": np.zeros((2, 2), np.float32)[:, 0]}),
    ("batch_norm", {"activation": "tanh"}), ("batch_norm_inference", {"activation": "sigmoid"}),
    ("batch_norm_backward", {"activation": "tanh"}), ("softmax", {"z": normal(3, 0)}),
    ("softmax_cross_entropy", {"target": np.ones((3, 2))}),
    ("dropout_dx", {"keep": np.ones(5, np.uint8)}),
    ("update", {"m": np.zeros(10, np.float32)[::2]}),
    ("update", {"w": np.zeros(10, np.float32)[::2]}),
    ("gather_batch", {"samples": np.arange(15).reshape(5, 3)}),
    ("gather_batch", {"samples": normal(3, 5).T}),
    ("gather_batch", {"dtype": np.float64}),
])
def test_the_rest_goes_to_numpy_too(method: str, changes: dict[str, Any], backend: NumbaBackend,
                                    monkeypatch: pytest.MonkeyPatch):
    assert kernels_of(backend, monkeypatch, method, CALLS[method][1] | changes) == []


@pytest.mark.parametrize("name", [None, "sigmoid", "tanh", "scaled_tanh"])
def test_gradients_of_all_activations_are_compiled(name: str | None, backend: NumbaBackend,
                                                   monkeypatch: pytest.MonkeyPatch):
    kernel, arguments = CALLS["activation_backward"]
    assert kernels_of(backend, monkeypatch, "activation_backward",
                      arguments | {"activation": name}) \
        == ["row_sums" if name is None else kernel]


@pytest.mark.parametrize(("method", "changes"), [
    ("max_pool2d_dx", {"dy": normal(2, 2, 3, 3), "argmax": np.zeros((2, 2, 3, 3), np.uint8)}),
    ("max_pool2d_dx", {"x_shape": (2, 7, 7, 3)}), ("avg_pool2d_dx", {"x_shape": (2, 7, 7, 3)}),
    ("activation_backward", {"y": normal(2, 2)}), ("activation_backward", {"bias_grad": normal(3)}),
    ("batch_norm", {"beta": normal(1)}), ("batch_norm_backward", {"gamma_grad": normal(1)}),
    ("softmax_cross_entropy", {"target": np.array([0])}), ("update", {"m": normal(4)}),
    ("update", {"hyper": ADAM[:6]}),
    ("dropout_dx", {"keep": np.ones(4, bool)}),
])
def test_shapes_that_do_not_fit_are_errors(method: str, changes: dict[str, Any],
                                           backend: NumbaBackend):
    """A kernel would read or write beside the array."""
    with pytest.raises(ValueError):
        call(backend, method, fresh(CALLS[method][1] | changes))


def test_an_index_out_of_range_is_an_error(backend: NumbaBackend):
    with pytest.raises(IndexError):
        backend.gather_batch(normal(5, 3), np.array([1, 5]), np.float32)


def test_each_kernel_is_compiled_once(backend: NumbaBackend):
    """Whatever arrays came, Numba saw the same types: every other kind would cost a second."""
    for case in LARGE:
        run(case, backend)
    for method, (_, arguments) in CALLS.items():
        call(backend, method, fresh(arguments))
    assert {name: len(kernel.compiled.signatures) for name, kernel in KERNELS.items()} \
        == {name: 2 if name == "gather" else 1 for name in KERNELS}
