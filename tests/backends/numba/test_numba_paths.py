"""How the Numba backend computes convolutions and products, against base.py in float64.

The tables have cases on both sides of each condition, with the way that each takes. Other tests
make strips, blocks and pieces so small that small arrays need several of them.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from fast_paths import W3, Case, Trace, U, larger_windows, ways_of, windows
from parity import distance, normal

from xpnet.backends import Backend, Window

pytest.importorskip("numba", reason="Numba is not installed")

from xpnet.backends.numba import normalization as numba_normalization  # noqa: E402
from xpnet.backends.numba import pieces as numba_pieces  # noqa: E402
from xpnet.backends.numba import product as numba_product  # noqa: E402
from xpnet.backends.numba import winograd as numba_winograd  # noqa: E402
from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402
from xpnet.backends.numba.kernels import convolution, matrix, normalization, winograd  # noqa: E402
from xpnet.backends.numba.kernels.instructions import LANES, ROWS  # noqa: E402
from xpnet.backends.numba.pool import window_tables  # noqa: E402
from xpnet.backends.numpy.backend import NumpyBackend  # noqa: E402

BASE = Backend()
MODES = {matrix.IN_PLACE: "in place", matrix.COPIED: "copied", matrix.TRANSPOSED: "transposed"}


@pytest.fixture
def trace(monkeypatch) -> Trace:
    def multiplied(_: Any, threads: int, x: Any, mode: int, *about: Any) -> str:
        return f"{MODES[mode]}{'' if about[-4] == 1 else ' by pixels'}"

    def summed(_: Any, threads: int, x: Any, *about: Any) -> str:
        return f"dots{'' if about[7] == 1 else ' by pixels'}"

    trace = Trace(monkeypatch)
    trace.watch(convolution, "pad", "pad")
    trace.watch(convolution, "columns_of", "columns")
    trace.watch(convolution, "swap_filters", "swap")
    trace.watch(matrix, "multiply", multiplied)
    trace.watch(matrix, "dots", summed)
    trace.watch(winograd, "convolve", "winograd")
    trace.watch(winograd, "correlate_filters", "winograd")
    for method in ("conv2d", "conv2d_dx", "conv2d_dW", "gemm"):
        trace.watch(NumpyBackend, method, "numpy")
    trace.watch(NumbaBackend, "col2im", "col2im")
    return trace


# --- paths of convolutions ------------------------------------------------------------------------

V = Window((3, 2))
PADDED = ("pad, in place", "pad, swap, in place", "pad, dots")
PLAIN = ("in place", "pad, swap, in place", "dots")
BACK_BY_COLUMNS = ("in place", "in place, col2im", "dots")

CASES = {
    # x is read in place, unless there is padding, or channels share cache sets.
    "padding": Case((3, 7, 9, 16), U, 5, PADDED),
    "no padding": Case((3, 7, 9, 16), V, 5, PLAIN),
    "full": Case((3, 7, 9, 16), Window((3, 2), padding=(2, 2, 1, 1)), 5,
                 ("pad, in place", "swap, in place", "pad, dots")),
    "padding that no window reaches": Case((3, 8, 9, 16), Window((3, 2), (3, 1), (0, 0, 0, 0)), 5,
                                           ("in place", "pad, swap, in place", "dots")),
    "8 channels of 4096 bytes": Case((8, 8, 8, 16), V, 5, PLAIN),
    "9 channels of 4096 bytes": Case((9, 8, 8, 16), V, 5, PADDED),
    "9 channels of 4352 bytes": Case((9, 8, 8, 17), V, 5, PLAIN),
    # Runs are rows, or with a stride along the columns pixels.
    "stride along rows": Case((3, 7, 9, 16), Window((3, 2), (2, 1)), 5, PLAIN),
    "stride along columns": Case((3, 7, 9, 16), Window((3, 2), (1, 2)), 5, (
        "in place by pixels", "pad, swap, in place by pixels", "dots by pixels")),
    "rows without a tap": Case((3, 7, 9, 16), Window((2, 1), (3, 2)), 5, (
        "in place by pixels", "pad, swap, columns, in place", "dots by pixels")),
    "nothing but padding": Case((3, 1, 9, 16), Window((1, 2), (3, 1), (1, 1, 0, 0)), 5,
                                ("pad, in place", "", "pad, dots")),
    "groups": Case((6, 7, 9, 16), U, 9, PADDED, 3),
    # Single taps are products, with columns.
    "points": Case((3, 7, 9, 16), Window((1, 1)), 5, ("columns, in place", "in place", "dots")),
    "points, dilated": Case((3, 7, 9, 16), Window((1, 1), dilation=(3, 2)), 5,
                            ("columns, in place", "in place", "dots")),
    "points in groups": Case((6, 7, 9, 16), Window((1, 1)), 9,
                             ("in place", "swap, in place", "dots"), 3),
    "points, stride 2x1": Case((3, 7, 9, 16), Window((1, 1), (2, 1)), 5, (
        "columns, in place", "swap, columns, in place", "columns, dots")),
    "points, stride 1x2": Case((3, 7, 9, 16), Window((1, 1), (1, 2)), 5, (
        "columns, in place", "swap, columns, in place", "columns, dots")),
    "points with padding": Case((3, 7, 9, 16), Window((1, 1), padding=(0, 0, 1, 0)), 5, (
        "pad, columns, in place", "swap, columns, in place", "pad, columns, dots")),
    # Few outputs: both gradients are products with columns.
    "127 outputs": Case((3, 3, 128, 1), V, 5, ("in place", "in place, col2im", "columns, dots")),
    "128 outputs": Case((3, 3, 129, 1), V, 5, PLAIN),
    "127 outputs in groups": Case((6, 3, 128, 1), V, 10, PLAIN, 2),
    "a quarter of the positions": Case((3, 8, 8, 16), Window((5, 5)), 5, BACK_BY_COLUMNS),
    "more than a quarter": Case((3, 8, 8, 16), Window((5, 4)), 5, PLAIN),
    "a quarter, by the stride": Case((3, 16, 16, 16), Window((2, 2), (2, 2)), 5, (
        "in place by pixels", "swap, columns, in place", "dots by pixels")),
    # Short runs leave vectors empty, which costs more than columns where there are many filters.
    "short runs, few filters": Case((3, 12, 24, 1), Window((3, 2), (1, 2)), ROWS, (
        "in place by pixels", "in place, col2im", "columns, dots")),
    "short runs, many filters": Case((3, 12, 24, 1), Window((3, 2), (1, 2)), 2 * ROWS, (
        "columns, in place", "in place, col2im", "columns, dots")),
    # Winograd: 1024 filters, 16 channels, ...
    "1024 filters": Case((16, 8, 8, 2 * LANES), W3, 64, ("winograd",) * 3),
    "1008 filters": Case((16, 8, 8, 2 * LANES), W3, 63, PADDED),
    "15 channels": Case((15, 8, 8, 2 * LANES), W3, 80, PADDED),
    "15 filters": Case((80, 8, 8, 2 * LANES), W3, 15, PADDED),
    # ... kernels of 3x3 without strides, dilation, groups.
    "3x2": Case((32, 9, 8, 2 * LANES), U, 32, PADDED),
    "3x3, stride 2x1": Case((32, 9, 8, 2 * LANES), Window((3, 3), (2, 1), (0, 1, 2, 0)), 32,
                            PADDED),
    "3x3, dilation 1x2": Case((32, 9, 9, 2 * LANES), Window((3, 3), (1, 1), (0, 1, 2, 0), (1, 2)),
                              32, PADDED),
    "3x3 in groups": Case((64, 8, 8, 2 * LANES), W3, 64, PADDED, 2),
}


@pytest.mark.parametrize("name", CASES)
def test_the_path_of_a_convolution(name, trace):
    shape, window, F, ways, groups = CASES[name]
    assert ways_of(NumbaBackend(), shape, window, F, groups, np.float32, trace) == ways


@pytest.mark.parametrize("winograd", [0, 4])
def test_tiles_can_be_switched_off(winograd, trace):
    shape, window, F, *_ = CASES["1024 filters"]
    ways = ways_of(NumbaBackend(winograd=winograd), shape, window, F, 1, np.float32, trace, 2e-5)
    assert ways == (("winograd",) * 3 if winograd else PADDED)
    if winograd == 0:               # NumPy uses no tiles for it either
        trace.watch(NumpyBackend, "_winograd", "tiles")
        wide = ways_of(NumbaBackend(winograd=0), (64, 8, 8, 8), W3, 64, 1, np.float64, trace)
        assert wide == ("numpy",) * 3


@pytest.mark.parametrize("x, W, bias", [
    (np.float64, np.float32, np.float32), (np.float32, np.float64, np.float32),
    (np.float32, np.float32, np.float64)])
def test_mixed_types_go_to_numpy(x, W, bias, trace):
    x, W, bias = normal(3, 6, 8, 5, dtype=x), normal(5, 3, 3, 2, dtype=W), normal(5, dtype=bias)
    y = NumbaBackend().conv2d(x, W, U, bias=bias)
    assert "numpy" in trace.take() and distance(y, BASE.conv2d(x, W, U, bias=bias)) < 1e-6


def test_convolutions_in_many_pieces(monkeypatch, trace):
    monkeypatch.setattr(numba_pieces, "SMALL", 1)
    backend = NumbaBackend()
    seen = {way for shape, window, F, groups in larger_windows()
            for way in ways_of(backend, shape, window, F, groups, np.float32, trace)}
    words = {word for way in seen for word in way.split(", ")}
    assert words >= {"pad", "swap", "columns", "col2im", "in place", "in place by pixels", "dots",
                     "dots by pixels"}


# --- Winograd -------------------------------------------------------------------------------------

@pytest.mark.parametrize("shape, tile", [
    ((16, 64, 8, 8, LANES), 2), ((16, 63, 8, 8, LANES), 0), ((15, 80, 8, 8, LANES), 0),
    ((80, 15, 8, 8, LANES), 0), ((64, 64, 4, 4, LANES), 2), ((64, 64, 4, 2, LANES), 0),
    ((64, 64, 5, 8, LANES), 2), ((64, 64, 3, 3, LANES), 0)])
def test_shapes_for_which_tiles_are_used(shape, tile):
    C, F, OH, OW, N = shape
    assert NumbaBackend().winograd_tile(Window((3, 3)), 1, C, F, OH, OW, N) == tile


@pytest.mark.parametrize("tile", [2, 4])
def test_winograd_in_many_blocks(monkeypatch, tile):
    """Several strips, blocks, chains of blocks and pieces of filters; every padding of 0 to 2."""
    for name, value in (("STRIP", 1), ("BLOCK", 1 << 14), ("CHAIN", 4 * LANES), ("SHARE", 8),
                        ("LONGEST", 4)):
        monkeypatch.setattr(numba_winograd, name, value)
    backend = NumbaBackend()
    for k in range(0, 81, 4):
        padding = k // 27, k // 9 % 3, k // 3 % 3, k % 3
        C, F, N = (3, 17, 33)[k % 3], (9, 20)[k // 4 % 2], (LANES, 3, LANES + 1)[k // 8 % 3]
        H, width, window = 3 + k * 7 % 8, 3 + k * 5 % 9, Window((3, 3), padding=padding)
        x, W, bias = normal(C, H, width, N), normal(F, C, 3, 3, seed=1), normal(F, seed=2)
        dy = normal(F, *window.output_size(H, width), N, seed=3)
        x8, W8, bias8, dy8 = (a.astype(np.float64) for a in (x, W, bias, dy))
        flipped = Window((3, 3), padding=tuple(2 - p for p in padding))
        dW = normal(F, C, 3, 3, seed=4)
        before = dW.astype(np.float64)
        backend.winograd_dW(x, dy, window, dW, True, tile=tile)
        pairs = (
            (backend.winograd_conv2d(x, W, window, bias=bias, relu=True, tile=tile),
             BASE.conv2d(x8, W8, window, bias=bias8, activation="relu")),
            (backend.winograd_conv2d(dy, W, flipped, flipped=True, tile=tile),
             BASE.conv2d_dx(dy8, W8, x.shape, window)),
            (dW, before + BASE.conv2d_dW(x8, dy8, window)))
        for result, right in pairs:
            assert distance(result, right) < (4e-6 if tile == 2 else 4e-5), (padding, H, width, N)


# --- products -------------------------------------------------------------------------------------

THIN, WIDE = numba_product.FEW - 1, numba_product.WAY // 4
PRODUCTS = [    # M, K, N, which operands are transposed, other options -> the path
    (20, 30, THIN, "", "", "dots"), (20, 30, THIN + 1, "", "", "in place"),
    (20, 30, 1, "", "", "dots"), (20, 30, 1, "b", "", "dots"), (20, 30, THIN, "b", "", "dots"),
    (2 * ROWS, 30, 70, "b", "", "dots"), (2 * ROWS + 1, 30, 70, "b", "", "transposed"),
    (2 * ROWS, 30, 70, "ab", "", "transposed"), (20, 30, THIN, "b", "relu bias", "dots"),
    (20, 30, THIN, "a", "", "swapped, in place"), (20, 30, THIN, "ab", "", "swapped, in place"),
    (THIN + 1, 30, THIN, "a", "", "swapped, in place"), (THIN, 30, THIN, "a", "", "in place"),
    (20, 30, THIN + 1, "a", "", "in place"), (20, 30, THIN, "a", "bias", "in place"),
    (20, 30, THIN, "a", "relu", "in place"), (20, 30, THIN, "a", "accumulate", "in place"),
    (2 * ROWS + 1, 5, WIDE, "", "", "copied"), (2 * ROWS, 5, WIDE, "", "", "in place"),
    (2 * ROWS + 1, 5, WIDE - 1, "", "", "in place"), (2 * ROWS + 1, 5, WIDE, "a", "bias", "copied"),
    (2 * ROWS + 1, 5, WIDE, "b", "relu", "transposed"),
]


@pytest.mark.parametrize("small", [numba_pieces.SMALL, 1])
@pytest.mark.parametrize("M, K, N, transposed, more, way", PRODUCTS)
def test_the_path_of_a_product(M, K, N, transposed, more, way, small, monkeypatch, trace):
    monkeypatch.setattr(numba_pieces, "SMALL", small)
    a, b, before = normal(M, K), normal(K, N, seed=1), normal(M, N, seed=2)
    options: dict[str, Any] = {"accumulate": "accumulate" in more}
    options["bias"] = normal(M, seed=3) if "bias" in more else None
    options["activation"] = "relu" if "relu" in more else None
    expected = BASE.gemm(a.astype(np.float64), b.astype(np.float64), bias=options["bias"],
                         activation=options["activation"])
    expected += before * options["accumulate"]
    a = np.ascontiguousarray(a.T) if "a" in transposed else a
    b = np.ascontiguousarray(b.T) if "b" in transposed else b

    def multiplied(_, backend, a, trans_a, b, trans_b, bias, y, *more) -> str:
        return "" if y is before else "swapped"

    trace.watch(NumbaBackend, "_multiply", multiplied)
    NumbaBackend().gemm(a, b, trans_a="a" in transposed, trans_b="b" in transposed, out=before,
                        **options)
    assert trace.take() == way and distance(before, expected) < 1e-5


# --- pooling and normalisation --------------------------------------------------------------------

def test_plain_windows_are_2x2_and_contain_no_padding():
    answers = set()
    for (_, H, W, N), window in windows():
        inside = all(axis.all() for axis in window.inside(H, W))
        answers.add((window_tables(window, H, W, N).plain, inside, window.kernel == (2, 2)))
    assert answers == {(True, True, True), (False, True, False), (False, False, True),
                       (False, False, False)}


@pytest.mark.parametrize("C, parts", [(4, True), (5, False)])
@pytest.mark.parametrize("activation", [None, "relu"])
def test_batch_norm_of_channels_and_of_parts(monkeypatch, C, parts, activation):
    """Few long channels are normalised part by part."""
    monkeypatch.setattr(numba_normalization, "FEW", 5)
    monkeypatch.setattr(numba_normalization, "LONG", 2 * normalization.PART + 30)
    trace = Trace(monkeypatch)
    for name in ("batch_norm", "batch_norm_backward"):
        trace.watch(normalization, name, "channels")
    for name in ("statistics_of_long_channels", "input_gradient_of_parts"):
        trace.watch(normalization, name, "parts")
    backend, gamma, beta = NumbaBackend(), normal(C, seed=1), normal(C, seed=2)
    for n, long in ((2 * normalization.PART + 30, True), (2 * normalization.PART + 29, False)):
        x, dy = 3 * normal(C, n) + 1, normal(C, n, seed=3)
        wide = [a.astype(np.float64) for a in (x, gamma, beta, dy)]
        y, mean, var = backend.batch_norm(x, gamma, beta, 1e-5, activation=activation)
        right = BASE.batch_norm(*wide[:3], 1e-5, activation=activation)
        assert all(distance(a, b) < 1e-5 for a, b in zip((y, mean, var), right, strict=True))
        grads, exact = (np.zeros((2, C), dtype) for dtype in (np.float32, np.float64))
        dx = backend.batch_norm_backward(
            dy, x, y, gamma, mean, var, 1e-5, activation=activation, gamma_grad=grads[0],
            beta_grad=grads[1])
        right_dx = BASE.batch_norm_backward(
            wide[3], wide[0], right[0], wide[1], right[1], right[2], 1e-5, activation=activation,
            gamma_grad=exact[0], beta_grad=exact[1])
        assert distance(dx, right_dx) < 1e-5 and distance(grads, exact) < 1e-5
        assert trace.take() == ("parts" if parts and long else "channels")
