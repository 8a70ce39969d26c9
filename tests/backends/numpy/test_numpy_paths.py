"""How the NumPy backend computes convolutions and products, against base.py in float64.

The table has cases on both sides of each condition, with the way that each takes. The other tests
make tiles, strips, parts and partial sums so small that small arrays need several of them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from fast_paths import W3, Case, Trace, U, larger_windows, ways_of
from parity import agree, distance, normal, run, same_bits
from parity_cases import scans
from tiers import first

from xpnet.backends import Backend, Window
from xpnet.backends.cpu.threads import ThreadPool
from xpnet.backends.numpy import backend as numpy_backend
from xpnet.backends.numpy import conv as numpy_conv
from xpnet.backends.numpy import pieces
from xpnet.backends.numpy import product as numpy_product
from xpnet.backends.numpy import recurrent as numpy_recurrent
from xpnet.backends.numpy import winograd as numpy_winograd
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.backends.numpy.conv import Plan, make_plan

BASE = Backend()


def plan_word(plan: Plan, window: Window, groups: int, C: int, F: int, OH: int, OW: int, N: int,
              wanted: int) -> str:
    """Whether output rows share columns, and along which axis the tiles are cut."""
    first = plan.tiles[0]
    cut = {"groups": first.groups != slice(0, groups), "rows": first.rows != slice(0, OH),
           "parts": first.part != slice(0, OW * N)}
    cuts = [name for name, is_cut in cut.items() if is_cut]
    return ("shared" if plan.shared else "columns") + (f" by {' '.join(cuts)}" if cuts else "")


@pytest.fixture
def trace(monkeypatch) -> Trace:
    trace = Trace(monkeypatch)
    trace.watch(NumpyBackend, "_scatter", "scatter")
    trace.watch(NumpyBackend, "_winograd",
                lambda y, *_, flipped=False, **__: "turned winograd" if flipped else "winograd")
    trace.watch(NumpyBackend, "_winograd_dW", "winograd")
    trace.watch(NumpyBackend, "gemm", "gemm")       # Winograd transforms its filters with it
    trace.watch(numpy_conv, "make_plan", plan_word)
    return trace


# --- paths of convolutions ------------------------------------------------------------------------

SHARED, COLUMNS = ("shared",) * 3, ("columns, gemm", "columns, gemm", "columns")
STRIDED = ("columns, gemm", "scatter", "columns")
TILES, ROWS = ("winograd, gemm", "turned winograd, gemm", "winograd, gemm"), ("shared by rows",) * 3

CASES = {
    # Output rows share columns if they have 64 elements or more, ...
    "a row of 64": Case((3, 6, 8, 8), U, 5, SHARED),
    "a row of 63": Case((3, 6, 9, 7), U, 5, COLUMNS),
    # ... twice as many positions as filters, ...
    "64 filters at 128 positions": Case((3, 3, 8, 8), U, 64, SHARED),
    "65 filters at 128 positions": Case((3, 3, 8, 8), U, 65,
                                        ("columns, gemm", "shared", "columns")),
    # ... kernels with more rows than the stride, and no dilation along the rows.
    "kernel 3, stride 2": Case((3, 9, 8, 8), Window((3, 2), (2, 1), (1, 0, 0, 1)), 5,
                               ("shared", "scatter", "shared")),
    "kernel 3, stride 3": Case((3, 9, 8, 8), Window((3, 2), (3, 1), (1, 0, 0, 1)), 5, STRIDED),
    "stride along columns": Case((3, 6, 17, 8), Window((3, 2), (1, 2), (1, 0, 0, 1)), 5,
                                 ("shared", "scatter", "shared")),
    "dilated rows": Case((3, 9, 8, 8), Window((3, 2), (1, 1), (1, 0, 0, 1), (2, 1)), 5, COLUMNS),
    "dilated columns": Case((3, 6, 12, 8), Window((3, 2), (1, 1), (1, 0, 0, 1), (1, 3)), 5,
                            SHARED),
    "a short row": Case((3, 6, 4, 3), U, 5, COLUMNS),
    # The input gradient is a convolution if no padding is as large as the window.
    "full": Case((3, 5, 6, 8), Window((3, 2), padding=(2, 2, 1, 1)), 5, COLUMNS),
    "3 rows at the top": Case((3, 5, 6, 8), Window((3, 2), padding=(3, 0, 1, 0)), 5, STRIDED),
    "3 rows at the bottom": Case((3, 5, 6, 8), Window((3, 2), padding=(0, 3, 0, 1)), 5, STRIDED),
    "2 columns left": Case((3, 5, 6, 8), Window((3, 2), padding=(0, 1, 2, 0)), 5, STRIDED),
    "2 columns right": Case((3, 5, 6, 8), Window((3, 2), padding=(2, 0, 0, 2)), 5, STRIDED),
    # A 1x1 convolution is a product with x itself.
    "points": Case((3, 5, 6, 8), Window((1, 1)), 5, ("gemm", "gemm", "columns")),
    "points, dilated": Case((3, 5, 6, 8), Window((1, 1), dilation=(2, 3)), 5,
                            ("gemm", "gemm", "columns")),
    "points in groups": Case((4, 5, 6, 8), Window((1, 1)), 6, ("columns",) * 3, 2),
    "points with a stride": Case((3, 5, 6, 8), Window((1, 1), (1, 2)), 5, STRIDED),
    "points with padding": Case((3, 5, 6, 8), Window((1, 1), padding=(0, 0, 1, 0)), 5, STRIDED),
    "groups": Case((6, 6, 9, 8), U, 9, SHARED, 3),
    "groups with strides": Case((6, 6, 9, 8), Window((3, 2), (2, 3), (1, 0, 0, 1)), 9,
                                ("columns", "scatter", "columns"), 3),
    # Winograd: 64 x 64 channels and filters, 32 of either, batches of 8, 128 tiles, ...
    "4096 filters of 4x4 tiles": Case((64, 8, 8, 8), W3, 64, TILES),
    "4095 filters": Case((63, 8, 8, 8), W3, 65, ROWS),
    "32 channels": Case((32, 8, 8, 8), W3, 128, TILES),
    "31 channels": Case((31, 8, 8, 8), W3, 133, ROWS),
    "32 filters": Case((128, 8, 8, 8), W3, 32, TILES),
    "31 filters": Case((133, 8, 8, 8), W3, 31, ROWS),
    "a batch of 7": Case((64, 10, 10, 7), W3, 64, ROWS),
    "120 tiles": Case((64, 7, 10, 8), W3, 64, ("shared by rows", TILES[1], "shared by rows")),
    "odd sizes": Case((64, 5, 9, 17), Window((3, 3), padding=(2, 1, 1, 0)), 64, TILES),
    # ... kernels of 3x3 without strides, dilation, groups.
    "3x2": Case((64, 8, 8, 8), U, 64, ROWS),
    "2x3": Case((64, 8, 8, 8), Window((2, 3), padding=(0, 1, 2, 0)), 64, ROWS),
    "3x3, stride 1x2": Case((64, 17, 18, 8), Window((3, 3), (1, 2), (0, 1, 2, 0)), 64,
                            ("shared by rows", "scatter", "shared by rows")),
    "3x3, stride 2x1": Case((64, 17, 18, 8), Window((3, 3), (2, 1), (0, 1, 2, 0)), 64,
                            ("shared by rows", "scatter", "shared by rows")),
    "3x3, dilation 1x2": Case((64, 8, 12, 8), Window((3, 3), (1, 1), (0, 1, 2, 0), (1, 2)), 64,
                              ROWS),
    "3x3, dilation 2x1": Case((64, 12, 8, 8), Window((3, 3), (1, 1), (0, 1, 2, 0), (2, 1)), 64,
                              ("columns by rows",) * 3),
    "3x3 in groups": Case((128, 8, 8, 8), W3, 128, ROWS, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_path_of_a_convolution(name, trace):
    shape, window, F, ways, groups = CASES[name]
    backend = NumpyBackend()
    for dtype in (np.float32, np.float64):
        assert ways_of(backend, shape, window, F, groups, dtype, trace) == ways


def test_tiles_can_be_switched_off(trace):
    shape, window, F, *_ = CASES["4096 filters of 4x4 tiles"]
    backend = NumpyBackend(winograd=0)
    for dtype in (np.float32, np.float64):
        assert ways_of(backend, shape, window, F, 1, dtype, trace) == ROWS
    for winograd in (1, 4, None):
        with pytest.raises(ValueError, match="NumpyBackend: expected winograd to be 0 or 2. Rec"):
            NumpyBackend(winograd=winograd)


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_nan_or_an_infinity_without_tiles(value):
    """It reaches the outputs whose windows contain it; with tiles, it would reach all outputs of
    its tiles."""
    x, W = normal(64, 8, 8, 8), normal(64, 64, 3, 3, seed=1)
    x[5, 3, 4, 2] = value
    right = BASE.conv2d(x, W, W3)
    with np.errstate(invalid="ignore"):
        tiled = NumpyBackend().conv2d(x, W, W3)
    assert distance(NumpyBackend(winograd=0).conv2d(x, W, W3), right) < 1e-5
    reached, spread = (~np.isfinite(y[0]).all(axis=-1) for y in (right, tiled))
    assert reached.sum() == 9 and spread.sum() == 16 and (reached <= spread).all()


def test_mixed_types_use_no_tiles(trace):
    backend, x, W = NumpyBackend(), normal(64, 8, 8, 8), normal(64, 64, 3, 3, dtype=np.float64)
    y = backend.conv2d(x, W, W3)
    assert trace.take() == "shared by rows" and distance(y, BASE.conv2d(x, W, W3)) < 1e-12


def test_empty_batches():
    backend, x, W = NumpyBackend(), normal(3, 6, 8, 0), normal(5, 3, 3, 2)
    dy = BASE.conv2d(x, W, U)
    assert backend.conv2d(x, W, U).shape == dy.shape == (5, 5, 8, 0)
    assert backend.conv2d_dx(dy, W, x.shape, U).shape == x.shape
    assert not backend.conv2d_dW(x, dy, U).any()


# --- many small tiles -----------------------------------------------------------------------------

@pytest.fixture
def small(monkeypatch) -> Iterator[NumpyBackend]:
    """A backend with three threads and with small tiles, strips, chunks and blocks."""
    for module, name, value in (
            (numpy_conv, "TILE", 1 << 11), (numpy_conv, "TILE_WORK", 1 << 12),
            (numpy_conv, "IN_PLACE", 1 << 15), (numpy_conv, "IN_PLACE_RESULT", 40),
            (numpy_product, "IN_PLACE", 1 << 12), (numpy_product, "SERIAL", 1 << 8),
            (numpy_product, "LONG", 40), (numpy_product, "ROWS", 32),
            (numpy_recurrent, "STEPS", 3),
            (numpy_backend, "SERIAL", 1 << 8),
            (numpy_backend, "CHUNK", 1 << 8), (numpy_winograd, "COLUMNS", 64)):
        monkeypatch.setattr(module, name, value)
    make_plan.cache_clear()
    backend = NumpyBackend()
    backend.threads = ThreadPool(3)
    yield backend
    make_plan.cache_clear()


@pytest.mark.parametrize("dtype", first([np.float32, np.float64], np.float32))
def test_convolutions_in_many_tiles(small, trace, dtype):
    seen: set[str] = set()
    for shape, window, F, groups in larger_windows():
        seen.update(ways_of(small, shape, window, F, groups, dtype, trace))
    for way in ("shared", "columns"):
        for cut in ("rows", "parts", "groups"):
            found = [word for word in seen if word.startswith(f"{way} by ") and cut in word]
            assert found, f"no {way} by {cut}: {seen}"
    assert "scatter" in seen


@pytest.mark.parametrize("stride", [(1, 2), (2, 1), (3, 2), (2, 3), (1, 3)])
@pytest.mark.parametrize("dilation", [(1, 1), (2, 1), (1, 3)])
def test_a_strided_gradient_in_several_strips(small, trace, stride, dilation):
    """Each strip of output rows adds to its own rows of dx, by the stride of the rows."""
    products: list[tuple[int, int]] = []
    trace.watch(numpy_conv, "product", lambda _, a, b, out: products.append(out.shape) or "")
    for kernel, groups in (((3, 4), 1), ((4, 2), 3), ((2, 3), 1)):
        window = Window(kernel, stride, (kernel[0] - 1, 0, 0, 1), dilation)
        _, dx, _ = ways_of(small, (9 * groups, 23, 21, 5), window, 4 * groups, groups, np.float32,
                           trace)
        strips = len(products) // (8 * groups)                          # 8 blocks of channels each
        assert dx == "scatter" and strips >= 2 and len(products) == 8 * groups * strips
        products.clear()


# --- Winograd -------------------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("columns", [512, 64])
def test_winograd_at_any_border(monkeypatch, dtype, columns):
    """Every padding of 0 to 2, sizes odd and even; parts of rows and several rows of tiles."""
    monkeypatch.setattr(numpy_winograd, "COLUMNS", columns)
    backend = NumpyBackend()
    pads = [(top, bottom, left, right) for top in range(3) for bottom in range(3)
            for left in range(3) for right in range(3)]
    for k, padding in enumerate(pads):
        C, F, N = (3, 5, 1)[k % 3], (2, 7)[k % 2], (8, 3, 17, 40)[k % 4]
        H, width = 1 + (k * 7) % 11, 1 + (k * 5) % 12
        window = Window((3, 3), padding=padding)
        if H + sum(padding[:2]) < 3 or width + sum(padding[2:]) < 3:
            continue
        x, W, bias = normal(C, H, width, N), normal(F, C, 3, 3, seed=1), normal(F, seed=2)
        dy = normal(F, *window.output_size(H, width), N, seed=3)
        turned = Window((3, 3), padding=tuple(2 - p for p in padding))
        x8, W8, bias8, dy8 = (a.astype(np.float64) for a in (x, W, bias, dy))
        x, W, bias, dy = (a.astype(dtype) for a in (x, W, bias, dy))
        pairs = (
            (backend._winograd(x, W, window, bias=bias, activation="relu"),
             BASE.conv2d(x8, W8, window, bias=bias8, activation="relu")),
            (backend._winograd(dy, W, turned, flipped=True),
             BASE.conv2d_dx(dy8, W8, x.shape, window)),
            (backend._winograd_dW(x, dy, window), BASE.conv2d_dW(x8, dy8, window)))
        for result, right in pairs:
            bound = 2e-5 if dtype == np.float32 else 1e-12
            assert result.shape == right.shape and result.flags.c_contiguous
            assert distance(result, right) < bound, (padding, H, width, N)


# --- products -------------------------------------------------------------------------------------

def blocks_of(M: int, K: int, N: int) -> int:
    """The number of rows of a block of a thin product, which is multiplied in place."""
    return numpy_product.IN_PLACE // (K * N)


@pytest.mark.parametrize("M, K, N, rows", [
    (40, 32, 4, 32), (64, 32, 4, 32), (32, 32, 4, 32), (33, 32, 4, 32),     # with a rest, without
    (40, 128, 4, 8), (41, 146, 4, 7), (40, 32, 3, 42), (100, 32, 3, 42),    # too few rows, columns
    (100, 1, 5, 819), (900, 1, 5, 819), (7, 1, 1, 4096),                    # a depth of 1
])
@pytest.mark.parametrize("turned", [False, True])
def test_thin_products(small, M, K, N, rows, turned):
    assert blocks_of(M, K, N) == rows
    a, b = normal(M, K, dtype=np.float64), normal(K, N, dtype=np.float64, seed=1)
    memory = np.full((2 * M, 2 * N), np.nan)
    out = memory[::2, ::2]                              # blocks of a result need not be contiguous
    numpy_product.product(a, np.asfortranarray(b) if turned else b, out)
    assert distance(out, a @ b) < 1e-14
    assert np.isnan(memory[1::2]).all() and np.isnan(memory[:, 1::2]).all()


@pytest.mark.parametrize("M, K, N", [(70, 40, 9), (9, 40, 70), (70, 40, 70), (3, 5, 2),
                                     (200, 30, 4), (4, 30, 200), (33, 1, 50), (1, 300, 1)])
@pytest.mark.parametrize("trans_a", [False, True])
@pytest.mark.parametrize("trans_b", [False, True])
def test_products_in_parts(small, M, K, N, trans_a, trans_b):
    a, b = normal(M, K, dtype=np.float64), normal(K, N, dtype=np.float64, seed=1)
    bias, before = normal(M, dtype=np.float64, seed=2), normal(M, N, dtype=np.float64, seed=3)
    operands = [np.ascontiguousarray(operand.T) if turned else operand
                for operand, turned in ((a, trans_a), (b, trans_b))]
    options: dict[str, Any] = {"trans_a": trans_a, "trans_b": trans_b}
    finished = np.maximum(a @ b + bias[:, None], 0)
    for out, accumulate in ((None, False), (before.copy(), False), (before.copy(), True),
                            (np.repeat(before, 2, axis=1)[:, ::2], False),
                            (before.astype(np.float32), False)):
        for more, right in (({}, a @ b), ({"bias": bias, "activation": "relu"}, finished)):
            start = 0 if out is None or not accumulate else out.astype(np.float64)
            result = small.gemm(*operands, **options, **more, out=out, accumulate=accumulate)
            assert out is None or result is out
            bound = 1e-6 if result.dtype == np.float32 else 1e-13
            assert distance(result, right + start) < bound


@pytest.mark.parametrize("M, N", [(10, 8), (15, 15), (3, 1), (16, 2), (2, 17)])
def test_a_deep_product_of_few_rows_and_columns(M, N):
    """Several threads could share the work, but there are too few rows and columns."""
    K = 2 * pieces.SERIAL * 16 // (M * N) + 16
    a, b = normal(M, K, dtype=np.float64), normal(K, N, dtype=np.float64, seed=1)
    out = np.full((M, N), np.nan)
    assert NumpyBackend().gemm(a, b, out=out) is out
    assert distance(out, a @ b) < 1e-12


@pytest.mark.parametrize("where", ["a", "b", "bias"])
@pytest.mark.parametrize("accumulate", [False, True])
def test_a_product_that_overlaps_its_operands(small, where, accumulate):
    """The result is as if the operands were read before anything is written."""
    memory = normal(80, 60, dtype=np.float64)
    a, b = (normal(60, 60, dtype=np.float64, seed=seed) for seed in (1, 2))
    bias = normal(60, dtype=np.float64, seed=3)
    if where == "a":
        a = memory[:60]
    elif where == "b":
        b = memory[10:70]
    else:
        bias = memory[12]
    out = memory[5:65]
    expected = a @ b + bias[:, None] + accumulate * out
    assert small.gemm(a, b, bias=bias, out=out, accumulate=accumulate) is out
    assert distance(out, expected) < 1e-13


@pytest.mark.parametrize("cell", ["lstm", "gru"])
@pytest.mark.parametrize("kind", ["full", "ragged", "prediction"])
def test_recurrent_steps_in_parts(small, cell, kind):
    """Several parts, with more and more and with fewer and fewer samples; in one thread, and in
    threads that multiply the inputs of the next part or the gradients of the last one meanwhile."""
    for case in scans(cell, 10, 7, 11, kind, np.float32):
        results = run(case, small)
        agree(case, results, run(case, BASE))
        small.threads = ThreadPool(1)
        assert all(map(same_bits, run(case, small), results))
        small.threads = ThreadPool(3)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("size", [1, 300, 100_000])
def test_sums_of_transposed_gradients_are_as_exact_as_of_others(size: int, accumulate: bool):
    """Those of recurrent layers; one column after the other, a sum would lose three digits."""
    backend, dy = NumpyBackend(), 1 + normal(5, size)
    results = []
    for dz in (dy, np.asfortranarray(dy)):
        db = np.ones(5, np.float32)
        assert backend.activation_backward(dz, dz, None, bias_grad=db, accumulate=accumulate) is dz
        results.append(db)
    exact = dy.sum(axis=1, dtype=np.float64) + accumulate
    for db in results:
        np.testing.assert_allclose(db, exact, rtol=1e-6)
