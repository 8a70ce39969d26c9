"""Winograd's minimal filtering on the compiled kernels against base.py in float64, and where it is
used."""

from __future__ import annotations

import numpy as np
import pytest
from parity import distance, normal, same_bits
from processes import STRICT_MEMORY, run_script

pytest.importorskip("numba", reason="Numba is not installed")

from xpnet.backends import Backend, Window  # noqa: E402 - only where Numba is installed
from xpnet.backends.numba.backend import NumbaBackend  # noqa: E402
from xpnet.backends.numba.kernels.instructions import LANES  # noqa: E402

BACKEND, BASE = NumbaBackend(), Backend()
BOUND = {2: 2e-6, 4: 2e-5}              # ||error|| / ||y||

# C, F, (H, W), N, padding: odd sizes, parts of vectors, of blocks of filters and of tiles, tiles
# wholly at a border.
SHAPES = [(1, 1, (3, 3), 16, (0, 0, 0, 0)), (3, 7, (5, 4), 17, (1, 1, 1, 1)),
          (7, 3, (1, 1), 33, (1, 1, 1, 1)), (8, 9, (6, 9), 100, (2, 2, 2, 2)),
          (9, 8, (7, 5), 16, (2, 0, 1, 2)), (64, 64, (8, 8), 16, (1, 1, 1, 1)),
          (64, 9, (4, 3), 33, (0, 2, 2, 0)), (17, 64, (3, 13), 17, (1, 0, 0, 2)),
          (1, 64, (10, 10), 100, (0, 0, 0, 0)), (130, 70, (2, 2), 16, (1, 1, 1, 1)),
          (3, 2, (11, 6), 5, (2, 1, 1, 2))]
# whole tiles lie in padding: the gradient with respect to the input is then no convolution
WIDE = [(3, 4, (5, 4), 17, (9, 0, 1, 7)), (9, 3, (1, 2), 16, (4, 5, 6, 3)),
        (64, 64, (4, 4), 16, (3, 3, 3, 3))]
GRID = [pytest.param(*shape, tile, id=f"{shape}-F{tile}".replace(" ", ""))
        for shape in SHAPES + WIDE for tile in (2, 4)]
grid = pytest.mark.parametrize("C, F, size, N, padding, tile", GRID)


def double(a: np.ndarray) -> np.ndarray:
    return a.astype(np.float64)


@grid
@pytest.mark.parametrize("relu", [False, True])
def test_forward(C, F, size, N, padding, tile, relu):
    window, x, W, bias = (Window((3, 3), padding=padding), normal(C, *size, N), normal(F, C, 3, 3),
                          normal(F))
    y = BACKEND.winograd_conv2d(x, W, window, bias=bias, relu=relu, tile=tile)
    assert y.dtype == np.float32 and y.flags.c_contiguous
    expected = BASE.conv2d(double(x), double(W), window, bias=double(bias),
                           activation="relu" if relu else None)
    assert y.shape == expected.shape and distance(y, expected) < BOUND[tile]
    assert not relu or (y >= 0).all()


@grid
def test_input_gradient(C, F, size, N, padding, tile):
    if max(padding) > 2:
        pytest.skip("no convolution of dy")
    window = Window((3, 3), padding=padding)
    dy, W = normal(F, *window.output_size(*size), N), normal(F, C, 3, 3)
    turned = Window((3, 3), padding=tuple(2 - p for p in padding))
    dx = BACKEND.winograd_conv2d(dy, W, turned, flipped=True, tile=tile)
    assert distance(dx, BASE.conv2d_dx(double(dy), double(W), (C, *size, N), window)) < BOUND[tile]


@grid
def test_filter_gradient(C, F, size, N, padding, tile):
    window = Window((3, 3), padding=padding)
    x, dy = normal(C, *size, N), normal(F, *window.output_size(*size), N)
    expected, dW = (BASE.conv2d_dW(double(x), double(dy), window),
                    np.full((F, C, 3, 3), np.nan, np.float32))
    BACKEND.winograd_dW(x, dy, window, dW, False, tile=tile)
    assert distance(dW, expected) < BOUND[tile]
    start = normal(F, C, 3, 3, seed=1)
    dW[:] = start
    BACKEND.winograd_dW(x, dy, window, dW, True, tile=tile)
    assert distance(dW, expected + start) < BOUND[tile]


def test_long_sums_are_accurate():
    """Every product is positive, so a single chain of sums would drift."""
    window, x, dy = (Window((3, 3), padding=(1, 1, 1, 1)), abs(normal(16, 32, 32, 64)),
                     abs(normal(16, 32, 32, 64, seed=1)))
    dW = np.empty((16, 16, 3, 3), np.float32)
    BACKEND.winograd_dW(x, dy, window, dW, False)
    assert distance(dW, BASE.conv2d_dW(double(x), double(dy), window)) < BOUND[2]


def test_arrays_that_are_not_contiguous():
    x, W, window = normal(4, 9, 7, 20), normal(5, 4, 3, 3), Window((3, 3), padding=(1, 1, 1, 1))
    strided = np.asfortranarray(x)
    strided.flags.writeable = False
    assert same_bits(BACKEND.winograd_conv2d(strided, W[:, :, ::-1][:, :, ::-1], window),
                     BACKEND.winograd_conv2d(x, W, window))


@pytest.mark.parametrize("tile", [2, 4])
def test_a_nan_passes_relu_and_stays_within_its_tiles(tile):
    x, W, window = normal(3, 13, 13, 20), normal(4, 3, 3, 3), Window((3, 3), padding=(1, 1, 1, 1))
    clean = BACKEND.winograd_conv2d(x, W, window, relu=True, tile=tile)
    x[1, 6, 6, 5] = np.nan
    y = BACKEND.winograd_conv2d(x, W, window, relu=True, tile=tile)
    assert np.isnan(y[:, 5:8, 5:8, 5]).all()
    far = ~np.isnan(y)
    assert same_bits(y[far], clean[far])
    assert np.isnan(y).sum() <= 4 * (2 * tile) ** 2


def test_the_number_of_threads_changes_no_bit():
    """In a process that allows more threads than this machine may have cores, and no use of memory
    that was freed."""
    run_script("""
import numpy as np
from parity import normal, same_bits
from xpnet.backends import Window
from xpnet.backends.numba.backend import NumbaBackend
from xpnet.backends.cpu.threads import ThreadPool

backend, window = NumbaBackend(), Window((3, 3), padding=(1, 1, 1, 1))
for (C, F, H, N), tile in [((40, 72, 17, 33), 2), ((64, 64, 16, 16), 4), ((130, 128, 5, 16), 2)]:
    x, W, dy = normal(C, H, H, N), normal(F, C, 3, 3), normal(F, H, H, N)
    results = []
    for backend.threads in map(ThreadPool, (1, 2, 3, 4)):
        dW = np.empty_like(W)
        backend.winograd_dW(x, dy, window, dW, False, tile=tile)
        results.append((backend.winograd_conv2d(x, W, window, tile=tile), dW,
                        backend.winograd_conv2d(dy, W, window, flipped=True, tile=tile)))
    for other in results[1:]:
        assert all(map(same_bits, other, results[0])), (C, F, H, N)
""", NUMBA_NUM_THREADS="4", **STRICT_MEMORY)


# --- where tiles are used -------------------------------------------------------------------------

SAME = Window((3, 3), padding=(1, 1, 1, 1))


@pytest.mark.parametrize("shape, expected", [
    # C, F, OH, OW, N
    ((64, 64, 32, 32, 2 * LANES), 2), ((256, 256, 8, 8, 2 * LANES), 2),
    ((16, 64, 16, 16, LANES), 2),
    ((64, 64, 7, 7, 2 * LANES), 2),  # 8x8 outputs, which tiles cover exactly
    # too few channels or filters
    ((8, 64, 32, 32, 2 * LANES), 0), ((16, 16, 32, 32, 2 * LANES), 0),
    ((64, 64, 1, 1, 8 * LANES), 0), ((64, 64, 3, 3, 4 * LANES), 0),  # tiles that stick out too far
    ((64, 64, 16, 16, LANES // 2), 0), ((64, 64, 16, 16, 1), 0),  # vectors that are hardly filled
    ((64, 64, 2, 2, 3 * LANES), 0),  # too few tiles for the filters' transforms
])
def test_tiles_by_shape(shape, expected):
    assert BACKEND.winograd_tile(SAME, 1, *shape) == expected
    assert NumbaBackend(winograd=0).winograd_tile(SAME, 1, *shape) == 0


@pytest.mark.parametrize("window, groups", [
    (Window((5, 5)), 1), (Window((3, 1)), 1), (Window((3, 3), (2, 2)), 1),
    (Window((3, 3), (1, 2)), 1), (Window((3, 3), dilation=(2, 1)), 1), (SAME, 2)])
def test_other_convolutions_use_no_tiles(window, groups):
    assert BACKEND.winograd_tile(window, groups, 64, 64, 16, 16, 2 * LANES) == 0


def test_larger_tiles_by_request():
    asked = NumbaBackend(winograd=4)
    assert asked.winograd_tile(SAME, 1, 64, 64, 32, 32, 2 * LANES) == 4
    # 8x8 with tiles of 4, 6x6 with tiles of 2
    assert asked.winograd_tile(SAME, 1, 64, 64, 6, 6, 4 * LANES) == 2
    assert asked.winograd_tile(SAME, 1, 64, 64, 1, 1, 4 * LANES) == 0


def test_other_tile_sizes_are_refused():
    with pytest.raises(ValueError, match="expected winograd to be 0, 2 or 4. Received: winograd=3"):
        NumbaBackend(winograd=3)
