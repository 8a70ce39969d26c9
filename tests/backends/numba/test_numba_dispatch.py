"""Which calls the Numba backend compiles, and which it leaves to NumPy: dtypes, shapes, memory."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from parity import Case, call, flat, normal, run, same_bits
from parity_cases import other_optimizers, scans

from xpnet.backends import Backend, Window

pytest.importorskip("numba", reason="numba is not installed")

from loop_cases import ADAM, KERNELS, LARGE, OVERRIDES  # noqa: E402

from xpnet.backends.numba import product  # noqa: E402
from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402
from xpnet.backends.numba.kernels import curves  # noqa: E402
from xpnet.backends.numba.kernels.arrays import ready  # noqa: E402
from xpnet.backends.numba.kernels.jit import Kernel  # noqa: E402


@pytest.fixture(scope="module")
def backend():
    return NumbaBackend()


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
    """The same call on copies, which are contiguous only if the arrays are."""
    return {name: value if not isinstance(value, np.ndarray) else value.copy()
            if value.flags.c_contiguous
            else np.repeat(value, 2, axis=-1)[..., ::2] for name, value in call.items()}


# Method: its kernel, and a float32 call that the kernel computes.
CALLS: dict[str, tuple[str, dict[str, Any]]] = {
    "max_pool2d": ("max_pool", {"x": normal(2, 4, 4, 3), "window": Window.make(2)}),
    "max_pool2d_dx": ("max_pool_dx",
                      {"dy": normal(2, 3, 3, 3), "argmax": np.zeros((2, 3, 3, 3), np.uint8),
                       "x_shape": (2, 4, 4, 3), "window": Window.make(2)}),
    "avg_pool2d": ("avg_pool", {"x": normal(2, 4, 4, 3), "window": Window.make(2)}),
    "avg_pool2d_dx": ("avg_pool_dx", {"dy": normal(2, 3, 3, 3), "x_shape": (2, 4, 4, 3),
                                      "window": Window.make(2)}),
    "activate": ("relu", {"z": normal(2, 3), "activation": "relu"}),
    "add": ("add", {"a": normal(2, 3), "b": normal(2, 3, seed=1), "activation": "relu"}),
    "activation_backward": ("activation_backward",
                            {"dy": normal(2, 3), "y": normal(2, 3), "activation": "tanh",
                             "bias_grad": normal(2)}),
    "batch_norm": ("batch_norm", {"x": normal(2, 3), "gamma": normal(2), "beta": normal(2),
                                  "eps": 1e-5, "activation": "relu"}),
    "batch_norm_inference": ("batch_norm_inference",
                             {"x": normal(2, 3), "gamma": normal(2), "beta": normal(2),
                              "mean": normal(2), "var": np.ones(2, np.float32), "eps": 1e-5}),
    "batch_norm_backward": ("batch_norm_backward", {
        "dy": normal(2, 3), "x": normal(2, 3), "y": normal(2, 3), "gamma": normal(2),
        "mean": normal(2), "var": np.ones(2, np.float32), "eps": 1e-5, "gamma_grad": normal(2),
        "beta_grad": normal(2)}),
    "softmax": ("softmax", {"z": normal(3, 2)}),
    "softmax_cross_entropy": ("cross_entropy_of_labels",
                              {"z": normal(3, 2), "target": np.array([0, 2])}),
    "dropout": ("dropout",
                {"x": normal(5), "p": 0.5, "key": (0, 0), "counter": np.zeros(2, np.uint64)}),
    "dropout_dx": ("dropout_dx", {"dy": normal(5), "p": 0.5, "keep": np.ones(5, bool)}),
    "random_bits": ("random_words", {"n": 5, "key": (0, 0), "counter": np.zeros(2, np.uint64)}),
    "update": ("adam", {"rule": "adam", "w": normal(5), "g": normal(5), "m": normal(5),
                        "v": np.ones(5, np.float32), "hyper": ADAM, "decayed": 5}),
    "gather_batch": ("gather", {"samples": normal(5, 3), "index": np.array([4, 0]),
                                "dtype": np.float32}),
    "take_columns": ("take", {"m": normal(3, 5), "index": np.array([4, 0, 4])}),
    "put_columns": ("put", {"m": normal(3, 2), "index": np.array([4, 0]), "columns": 5}),
    "scan": ("lstm", {"cell": "lstm", "a": normal(8, 3), "U": normal(8, 2), "counts": [2, 1],
                      "states 0": normal(2, 2), "states 1": normal(2, 2)}),
    "scan_product": ("gru", {"cell": "gru", "x": normal(3, 3), "W": normal(6, 3), "b": normal(6),
                             "U": normal(6, 2), "counts": [2, 1], "states 0": normal(2, 2)}),
    "scan_backward": ("simple_backward", {
        "cell": "tanh", "dy": normal(2, 3), "dstates 0": normal(2, 2), "U": normal(2, 2),
        "kept 0": normal(2, 3), "kept 1": normal(2, 3), "counts": [2, 1]}),
}

# kernels that a call starts before and after its own one
BEFORE = {"scan": ["transposed"], "scan_product": ["multiply"],
          "scan_backward": ["transposed"] * 3}
AFTER = {"scan": ["transposed"], "scan_product": ["transposed"]}


def kernels_of(backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch, method: str,
               arguments: dict[str, Any]
               ) -> list[str]:
    """The names of the kernels that a call starts. Its results must agree with base.py."""
    started, start = [], Kernel.__call__

    def watching(kernel: Kernel, threads: int, *args: Any) -> Any:
        started.append(kernel.compiled.__name__)
        return start(kernel, threads, *args)

    with monkeypatch.context() as patch:
        patch.setattr(Kernel, "__call__", watching)
        actual = call(backend, method, fresh(arguments))
    expected = call(Backend(), method, fresh(arguments))
    for a, b in zip(flat(actual), flat(expected), strict=True):
        if b is not None:
            assert a.dtype == b.dtype
            np.testing.assert_allclose(a, b, rtol=1e-2 if b.dtype == np.float16 else 1e-5,
                                       atol=1e-6)
    return started


@pytest.mark.parametrize("method", sorted(OVERRIDES))
def test_float32_is_compiled(method: str, backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch):
    kernel, arguments = CALLS[method]
    assert (kernels_of(backend, monkeypatch, method, arguments)
            == [*BEFORE.get(method, []), kernel, *AFTER.get(method, [])])


def test_the_parts_of_a_scanned_product_are_compiled(backend: NumbaBackend,
                                                     monkeypatch: pytest.MonkeyPatch):
    products = "dots", "multiply"
    for case in scans("lstm", 8, 3, 2, "full", np.float32):
        kernels = kernels_of(backend, monkeypatch, case.method, case.arrays | case.options)
        if case.method == "scan_product":
            assert kernels[0] in products and kernels[1:] == ["lstm", "transposed"]
        if case.method == "scan_product_backward":
            before = kernels.index("lstm_backward")
            assert set(kernels[:before]) == {"transposed"}
            assert len(kernels[before + 1:]) == 2 and set(kernels[before + 1:]) <= set(products)


def test_transposed_views_are_multiplied_as_they_are(backend: NumbaBackend,
                                                     monkeypatch: pytest.MonkeyPatch):
    seen = []

    def watching(m: np.ndarray, shape: tuple[int, ...]) -> np.ndarray:
        seen.append(m.flags.c_contiguous)
        return ready(m, shape)

    monkeypatch.setattr(product, "ready", watching)
    a, b = normal(20, 30), normal(40, 20)
    np.testing.assert_allclose(backend.gemm(a.T, b.T), a.T @ b.T, rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(backend.gemm(b.T, a.T, trans_a=True, trans_b=True), b @ a,
                               rtol=1e-5, atol=1e-6)
    assert seen == [True] * 4


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
    assert (kernels_of(backend, monkeypatch, method, arguments)
            == (["random_words"] if method == "dropout" else []))


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
def test_all_other_calls_go_to_numpy(method: str, changes: dict[str, Any], backend: NumbaBackend,
                                     monkeypatch: pytest.MonkeyPatch):
    assert kernels_of(backend, monkeypatch, method, CALLS[method][1] | changes) == []


@pytest.mark.parametrize("name", [None, "sigmoid", "tanh", "scaled_tanh"])
def test_gradients_of_all_activations_are_compiled(
        name: str | None, backend: NumbaBackend, monkeypatch: pytest.MonkeyPatch):
    kernel, arguments = CALLS["activation_backward"]
    assert kernels_of(backend, monkeypatch, "activation_backward",
                      arguments | {"activation": name}) \
        == ["row_sums" if name is None else kernel]


@pytest.mark.parametrize(("method", "changes"), [
    ("max_pool2d_dx", {"dy": normal(2, 2, 3, 3), "argmax": np.zeros((2, 2, 3, 3), np.uint8)}),
    ("max_pool2d_dx", {"x_shape": (2, 7, 7, 3)}), ("avg_pool2d_dx", {"x_shape": (2, 7, 7, 3)}),
    ("add", {"b": normal(2, 2)}), ("activation_backward", {"y": normal(2, 2)}),
    ("activation_backward", {"bias_grad": normal(3)}), ("batch_norm", {"beta": normal(1)}),
    ("batch_norm_backward", {"gamma_grad": normal(1)}),
    ("softmax_cross_entropy", {"target": np.array([0])}), ("update", {"m": normal(4)}),
    ("update", {"hyper": ADAM[:6]}), ("dropout_dx", {"keep": np.ones(4, bool)})])
def test_shapes_that_do_not_fit_raise(method: str, changes: dict[str, Any], backend: NumbaBackend):
    """A kernel would read or write outside the array."""
    with pytest.raises(ValueError):
        call(backend, method, fresh(CALLS[method][1] | changes))


def test_an_index_out_of_range_raises(backend: NumbaBackend):
    with pytest.raises(IndexError):
        backend.gather_batch(normal(5, 3), np.array([1, 5]), np.float32)


def test_each_kernel_is_compiled_once(backend: NumbaBackend):
    """Numba compiles a kernel once, whatever arrays it is called with: every further signature
    would take about a second."""
    for case in LARGE:
        run(case, backend)
    for method, (_, arguments) in CALLS.items():
        call(backend, method, fresh(arguments))
    assert {name: len(kernel.compiled.signatures) for name, kernel in KERNELS.items()} \
        == {name: 2 if name == "gather" else 1 for name in KERNELS}
