"""Matrix products and convolutions of the Numba backend, of odd sizes, against base.py in
float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from parity import distance, normal, same_bits
from processes import run_script
from tiers import examples

from xpnet.backends import Backend, Window

pytest.importorskip("numba", reason="Numba is not installed")

from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402 - only where Numba is installed

BACKEND = NumbaBackend()
SIZES = st.sampled_from([1, 3, 7, 8, 9])
EXTENTS = st.sampled_from([17, 12, 7, 4, 2, 1])
BATCHES = st.sampled_from([33, 17, 16, 3, 1])


# --- matrix products ------------------------------------------------------------------------------

def close(actual: np.ndarray, exact: np.ndarray) -> bool:
    """Whether a float32 result agrees with the float64 one up to rounding. One wrong element of
    100,000 would be noticed."""
    return (actual.dtype == np.float32 and actual.shape == exact.shape
            and distance(actual, exact) < 1e-5)


@st.composite
def products(draw) -> tuple[dict[str, Any], bool, bool]:
    """Operands of a product, which of them are transposed, and whether there is a bias and an `out`
    to add to."""
    M, K, N = (draw(st.one_of(st.integers(1, 70), st.sampled_from([97, 128, 260])))
               for _ in range(3))
    trans_a, trans_b = draw(st.booleans()), draw(st.booleans())
    seed = draw(st.integers(0, 99))
    a, b = normal(*((K, M) if trans_a else (M, K)),
                  seed=seed), normal(*((N, K) if trans_b else (K, N)), seed=seed + 1)
    return ({"a": a, "b": b, "trans_a": trans_a, "trans_b": trans_b}, draw(st.booleans()),
            draw(st.booleans()))


def doubled(arrays: dict[str, Any]) -> dict[str, Any]:
    return {name: a.astype(np.float64) if isinstance(a, np.ndarray) else a
            for name, a in arrays.items()}


@examples(300)
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


@pytest.mark.parametrize("M, K, N", [(1, 5000, 1), (3, 4097, 5), (2100, 2, 3), (5, 2, 2100),
                                     (33, 1025, 65), (600, 300, 7),
                                     (7, 300, 600), (129, 2049, 1025), (1, 1, 3000)])
@pytest.mark.parametrize("trans_a, trans_b",
                         [(False, False), (True, False), (False, True), (True, True)])
def test_large_and_thin_products(M, K, N, trans_a, trans_b):
    a, b = normal(*((K, M) if trans_a else (M, K))), normal(
        *((N, K) if trans_b else (K, N)), seed=1)
    bias, before, trans = normal(M), normal(M, N, seed=2), {"trans_a": trans_a, "trans_b": trans_b}
    exact = Backend().gemm(**doubled({"a": a, "b": b}), **trans)
    assert close(BACKEND.gemm(a, b, **trans), exact)
    assert close(BACKEND.gemm(a, b, **trans, bias=bias, activation="relu"),
                 np.maximum(exact + bias[:, None], 0))
    assert close(BACKEND.gemm(a, b, **trans, out=before.copy(), accumulate=True), exact + before)


@pytest.mark.parametrize("size", [3, 40, 200])
@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("options", [{}, {"activation": "relu"}, {"activation": "tanh"},
                                     {"trans_a": True}, {"trans_b": True}],
                         ids=str)
def test_the_result_may_overlap_an_operand(size, accumulate, options):
    """`out` is an operand itself, or overlaps it. The result is as if the operands were read before
    anything is written."""
    for place in range(3):
        memory = [normal(2 * size, size, seed=k) for k in range(3)]
        a, b, out = memory[0][:size], memory[1][:size], memory[place][size // 2:size // 2 + size]
        expected = Backend().gemm(a.astype(np.float64), b.astype(np.float64),
                                  **options) + accumulate * out.astype(np.float64)
        BACKEND.gemm(a, b, out=out, accumulate=accumulate, **options)
        assert close(out, expected)


def test_a_bias_that_overlaps_the_result():
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


# --- convolution ----------------------------------------------------------------------------------

@st.composite
def convolutions(draw) -> tuple[np.ndarray, np.ndarray, Window, int]:
    """x (C, H, W, N), filters (F, C/groups, KH, KW), any legal window, groups."""
    kernel, stride = (draw(st.tuples(st.integers(1, most), st.integers(1, most)))
                      for most in (5, 3))
    dilation = draw(st.sampled_from([(1, 1), (1, 1), (2, 1), (1, 3), (2, 2)]))
    extent = [d * (k - 1) + 1 for k, d in zip(kernel, dilation)]
    padding = draw(st.one_of(st.just((0, 0, 0, 0)), st.sampled_from(["half", "full"]),
                             st.tuples(*(st.integers(0, e + 2)
                                         for e in (extent[0], extent[0], extent[1], extent[1])))))
    window = Window.make(kernel, stride, padding, dilation)
    top, bottom, left, right = window.padding
    H, W = (max(draw(EXTENTS), extent[0] - top - bottom),
            max(draw(EXTENTS), extent[1] - left - right))
    groups = draw(st.sampled_from([1, 1, 1, 2, 3, 8]))
    C, F = (draw(SIZES if groups == 1 else st.integers(1, 3).map(lambda n: n * groups))
            for _ in range(2))
    seed = draw(st.integers(0, 99))
    return (normal(C, H, W, draw(BATCHES), seed=seed),
            normal(F, C // groups, *window.kernel, seed=seed + 1), window, groups)


def agree_with_float64(x: np.ndarray, W: np.ndarray, window: Window, groups: int,
                       activation: str | None = None) -> None:
    """A convolution and both of its gradients against base.py in float64."""
    base, x8, W8, bias = (Backend(), x.astype(np.float64), W.astype(np.float64),
                          normal(len(W), seed=5))
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
    assert (BACKEND.conv2d_dW(x, dy, window, groups=groups, out=out, accumulate=True) is out
            and close(out, dW + before))


@examples(600)
@given(convolutions(), st.sampled_from([None, "relu", "sigmoid"]))
def test_convolutions_of_any_size(drawn, activation):
    agree_with_float64(*drawn, activation=activation)


@pytest.mark.parametrize("C", [1, 3, 7, 8, 9])
@pytest.mark.parametrize("N", [1, 3, 16, 17, 33])
@pytest.mark.parametrize("name", ["depthwise", "two filters a channel", "pointwise",
                                  "strided pointwise", "wide", "full"])
def test_every_batch_and_every_number_of_channels(name, C, N):
    window, F, groups = {
        "depthwise": (Window.make(3, padding=1), C, C),
        "two filters a channel": (Window.make(3), 2 * C, C),
        "pointwise": (Window.make(1), 9, 1),
        "strided pointwise": (Window.make(1, stride=(2, 3)), 17, 1),
        "wide": (Window.make((1, 7), padding=(0, 3)), 8, 1),
        "full": (Window.make(4, padding="full"), 3, 1),
    }[name]
    agree_with_float64(normal(C, 7, 8, N), normal(F, C // groups, *window.kernel, seed=1), window,
                       groups)


@pytest.mark.parametrize("shape, window, F", [
    ((70, 9, 9, 16), Window.make(3, padding=1), 33),  # more taps than are processed at a time
    ((16, 32, 32, 8), Window.make(3), 16),  # rows whose addresses share cache sets
    ((3, 40, 41, 5), Window.make(7, stride=2, padding=3), 20),
    ((1, 100, 3, 1), Window.make(3), 5),
    ((2, 2, 1500, 1), Window.make((1, 5)), 4),
    ((4, 30, 30, 64), Window.make(2, stride=3), 12),                # elements that no window reads
    ((5, 12, 12, 128), Window.make(3, stride=(1, 2), dilation=(3, 1), padding=(1, 2, 0, 2)), 7),
], ids=str)
def test_larger_convolutions(shape, window, F):
    agree_with_float64(normal(*shape), normal(F, shape[0], *window.kernel, seed=1), window, 1,
                       "relu")


def test_special_values_are_where_base_has_them():
    """A NaN or an infinity reaches the outputs whose windows contain it, and no others."""
    window = Window.make(3, padding=1)
    x, W = normal(3, 8, 9, 17), normal(8, 3, 3, 3, seed=1)
    x[1, 3, 4, 5], x[0, 0, 0, 0], x[2, 7, 8, 16] = np.nan, np.inf, -np.inf
    dy = normal(8, 8, 9, 17, seed=2)
    dy[3, 4, 5, 6] = np.inf
    for activation in (None, "relu"):
        assert distance(BACKEND.conv2d(x, W, window, activation=activation),
                        Backend().conv2d(x, W, window, activation=activation)) < 1e-5
    assert distance(BACKEND.conv2d_dx(dy, W, x.shape, window),
                    Backend().conv2d_dx(dy, W, x.shape, window)) < 1e-5
    a, b = normal(9, 20), normal(20, 33, seed=1)
    a[4, 7], b[8, 21], b[0, 0] = np.inf, np.nan, -np.inf
    with np.errstate(invalid="ignore"):  # infinity minus infinity: not every BLAS warns
        right = Backend().gemm(a, b, activation="relu")
    assert distance(BACKEND.gemm(a, b, activation="relu"), right) < 1e-5


@pytest.mark.parametrize("window", [Window.make(3), Window.make(1), Window.make(2, stride=2)],
                         ids=str)
def test_a_gradient_that_overlaps_an_operand(window):
    """`out` overlaps x or dy. The result is as if both were read before anything is written."""
    OH, OW = window.output_size(8, 8)
    for place in (0, 1):
        x, dy = normal(4, 8, 8, 20), normal(6, OH, OW, 20, seed=1)
        out = (x, dy)[place].reshape(-1)[:6 * 4 * window.taps].reshape(6, 4, *window.kernel)
        expected = Backend().conv2d_dW(x, dy, window) + out
        assert distance(BACKEND.conv2d_dW(x, dy, window, out=out, accumulate=True), expected) < 1e-5


def test_inputs_are_only_read():
    x, W = normal(3, 8, 8, 16), normal(8, 3, 3, 3)
    for a in (x, W):
        a.flags.writeable = False
    y = BACKEND.conv2d(x, W, Window.make(3))
    assert y.flags.writeable and not x.flags.writeable and not W.flags.writeable
    assert close(y, Backend().conv2d(x.astype(np.float64), W.astype(np.float64), Window.make(3)))


# --- shapes that do not fit -----------------------------------------------------------------------

def test_shapes_that_do_not_fit_raise():
    """As in base.py, where NumPy raises. A kernel would read or write outside of its arrays, which
    may crash the process."""
    run_script("""
from parity import normal
from xpnet.backends import Backend, Window
from xpnet.backends.numba.backend import NumbaBackend

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
