"""The backends on many small windows with different settings for rows and columns and for each
side.

Most fast paths of pooling and convolution are taken only for windows of a certain form. These
windows are on both sides of each such condition, and the conditions are compared with counts of
what the windows read.
"""

from __future__ import annotations

import numpy as np
import pytest
from fast_paths import windows
from parity import distance, normal, same_bits, special, ties
from skips import NO_NUMBA

import xpnet as xn
from xpnet.backends import Backend, Window
from xpnet.backends.cupy.launch import pool_dx_launch
from xpnet.backends.numpy.pool import are_disjoint, are_tiles
from xpnet.testing import check_gradients

BASE, WINDOWS = Backend(), windows()
NUMBA = pytest.param("numba", marks=NO_NUMBA)
with_fast_paths = pytest.mark.parametrize(
    "backend", ["numpy", NUMBA, pytest.param("cupy", marks=pytest.mark.gpu)], indirect=True)
floats = pytest.mark.parametrize("dtype", [np.float32, np.float64])


def host(backend: Backend, *results) -> list[np.ndarray]:
    return [backend.to_numpy(result) for result in results]


def gradients(shape: tuple[int, ...], dtype) -> np.ndarray:
    """Random numbers, some of them 0 and some -0, as after a ReLU."""
    dy = normal(*shape, dtype=dtype, seed=1)
    dy.reshape(-1)[::5], dy.reshape(-1)[::7] = 0.0, -0.0
    return dy


# --- pooling --------------------------------------------------------------------------------------

@with_fast_paths
@floats
@pytest.mark.parametrize("data", [normal, ties, special])
def test_max_pooling(backend, data, dtype):
    for shape, window in WINDOWS:
        x = data(*shape, dtype=dtype)
        y, argmax = BASE.max_pool2d(x, window)
        actual = host(backend, *backend.max_pool2d(backend.asarray(x), window))
        assert same_bits(actual[0], y) and same_bits(actual[1], argmax), (shape, window)
        dy = gradients(y.shape, dtype)
        dx, = host(backend, backend.max_pool2d_dx(backend.asarray(dy), backend.asarray(argmax),
                                                  shape, window))
        assert same_bits(dx, BASE.max_pool2d_dx(dy, argmax, shape, window)), (shape, window)


@with_fast_paths
@floats
@pytest.mark.parametrize("count", [True, False])
def test_average_pooling(backend, count, dtype):
    bound = 1e-6 if dtype == np.float32 else 1e-14
    for shape, window in WINDOWS:
        x = normal(*shape, dtype=dtype)
        y = BASE.avg_pool2d(x.astype(np.float64), window, count_padding=count)
        dy = gradients(y.shape, dtype)
        dx = BASE.avg_pool2d_dx(dy.astype(np.float64), shape, window, count_padding=count)
        actual = host(
            backend, backend.avg_pool2d(backend.asarray(x), window, count_padding=count),
            backend.avg_pool2d_dx(backend.asarray(dy), shape, window, count_padding=count))
        for a, b in zip(actual, (y, dx), strict=True):
            assert a.dtype == dtype and distance(a, b) < bound, (shape, window)


# (kernel size and stride, padding, map): windows side by side, as long together as the map. They
# lie on the map or beside it; the last ones have 255 taps, 256 and 289.
ADJACENT = [(3, "half", (6, 6)), (3, 1, (3, 3)), ((3, 2), (2, 0, 0, 0), (6, 4)),
            ((2, 3), (0, 0, 1, 2), (4, 6)), ((2, 3), (0, 1, 0, 2), (4, 6)), (3, 0, (6, 6)),
            ((15, 17), 0, (15, 34)), (16, 0, (32, 16)), (17, 8, (34, 17)), (17, 0, (17, 34))]
side_by_side = pytest.mark.parametrize("kernel, padding, size", ADJACENT)


@with_fast_paths
@side_by_side
@floats
def test_adjacent_windows(backend, kernel, padding, size, dtype):
    window = Window.make(kernel, kernel, padding)
    x = normal(2, *size, 3, dtype=dtype)
    y, argmax = BASE.max_pool2d(x, window)
    actual = host(backend, *backend.max_pool2d(backend.asarray(x), window))
    assert same_bits(actual[0], y) and same_bits(actual[1], argmax)
    dy = gradients(y.shape, dtype)
    dx, = host(backend, backend.max_pool2d_dx(backend.asarray(dy), backend.asarray(argmax), x.shape,
                                              window))
    assert same_bits(dx, BASE.max_pool2d_dx(dy, argmax, x.shape, window))


@with_fast_paths
@side_by_side
def test_gradients_of_adjacent_windows(backend, kernel, padding, size):
    layer = xn.MaxPool2d(kernel, padding=padding)
    assert check_gradients(layer, (2, *size), backend=backend) < 1e-6


@with_fast_paths
@side_by_side
def test_values_return_to_the_positions_of_the_maxima(backend, kernel, padding, size):
    window = Window.make(kernel, kernel, padding)
    z = normal(2, *size, 3, dtype=np.float64)
    y, argmax = BASE.max_pool2d(z, window)
    layer = xn.MaxUnpool2d(kernel, padding=padding)
    layer.initialize(y.shape[:3], z.shape[:3], backend=backend, dtype="float64")
    actual, = host(backend, layer.forward(backend.asarray(y), backend.asarray(z)))
    expected = np.zeros_like(z)
    for c, oy, ox, n in np.ndindex(y.shape):
        i, j = divmod(int(argmax[c, oy, ox, n]), window.kernel[1])
        iy = oy * window.stride[0] - window.padding[0] + i
        ix = ox * window.stride[1] - window.padding[2] + j
        expected[c, iy, ix, n] += y[c, oy, ox, n]
    np.testing.assert_array_equal(actual, expected)


# --- columns and convolution ----------------------------------------------------------------------

@with_fast_paths
@floats
def test_columns(backend, dtype):
    for shape, window in WINDOWS:
        x = special(*shape, dtype=dtype)
        cols = BASE.im2col(x, window)
        actual, = host(backend, backend.im2col(backend.asarray(x), window))
        assert same_bits(actual, cols), (shape, window)
        dcols = gradients(cols.shape, dtype)
        dx, = host(backend, backend.col2im(backend.asarray(dcols), shape, window))
        assert same_bits(dx, BASE.col2im(dcols, shape, window)), (shape, window)


@with_fast_paths
@floats
def test_convolution(backend, dtype):
    """Forward and both gradients, with one group and depthwise."""
    bound = 1e-5 if dtype == np.float32 else 1e-13
    for k, (shape, window) in enumerate(WINDOWS):
        groups = (1, shape[0])[k % 2]
        F = groups * (1, 3, 4)[k % 3]
        x, W = normal(*shape), normal(F, shape[0] // groups, *window.kernel, seed=1)
        bias, dy = normal(F, seed=2), normal(F, *window.output_size(*shape[1:3]), shape[3], seed=3)
        wide = [a.astype(np.float64) for a in (x, W, bias, dy)]
        expected = (
            BASE.conv2d(*wide[:2], window, groups=groups, bias=wide[2], activation="relu"),
            BASE.conv2d_dx(wide[3], wide[1], shape, window, groups=groups),
            BASE.conv2d_dW(wide[0], wide[3], window, groups=groups))
        x, W, bias, dy = (backend.asarray(a, dtype) for a in (x, W, bias, dy))
        actual = host(
            backend, backend.conv2d(x, W, window, groups=groups, bias=bias, activation="relu"),
            backend.conv2d_dx(dy, W, shape, window, groups=groups),
            backend.conv2d_dW(x, dy, window, groups=groups))
        for name, a, b in zip(("y", "dx", "dW"), actual, expected, strict=True):
            assert a.dtype == dtype and distance(a, b) < bound, (name, shape, window, groups, F)


# --- conditions of fast paths ---------------------------------------------------------------------

def readers(shape: tuple[int, int, int, int], window: Window) -> tuple[np.ndarray, bool]:
    """How many windows read each element of a map, and whether a tap falls on padding."""
    H, W = shape[1:3]
    cols = BASE.im2col(np.ones((1, H, W, 1)), window)
    return BASE.col2im(cols, (1, H, W, 1), window)[0, :, :, 0], bool((cols == 0).any())


def test_conditions_agree_with_what_the_windows_read():
    """Each condition is true for some of these windows and false for others."""
    names = ("disjoint", "tiles", "cells", "pointwise", "beside the map")
    answers: dict[str, set[bool]] = {name: set() for name in names}
    for shape, window in WINDOWS:
        count, on_padding = readers(shape, window)
        once, (H, W) = bool((count == 1).all()) and not on_padding, shape[1:3]
        disjoint, tiles = are_disjoint(window), are_tiles(window, H, W)
        cells = pool_dx_launch(shape, window, 1)[0] == "_of_cells"
        assert not (disjoint or cells) or count.max() <= 1, (shape, window)
        assert tiles <= once and window.pointwise <= once, (shape, window)
        if window.kernel == window.extent == window.stride:
            assert tiles == once, (shape, window)
            OH, OW = window.output_size(H, W)
            as_long = (OH * window.kernel[0], OW * window.kernel[1]) == (H, W)
            answers["beside the map"].add(as_long and not tiles)
        for name, answer in (("disjoint", disjoint), ("tiles", tiles), ("cells", cells),
                             ("pointwise", window.pointwise)):
            answers[name].add(answer)
    assert all(answer == {True, False} for answer in answers.values()), answers
