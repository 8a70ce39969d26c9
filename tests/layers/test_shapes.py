"""Borders, cropping, interpolation, shuffling: outputs against loops, gradients as adjoints,
errors."""

import json
import math
from fractions import Fraction

import numpy as np
import pytest
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from xpnet.inspect.summary import rows
from xpnet.testing import check_gradients

every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])
BORDERS = [0, 1, (2, 1), (2, 0, 1, 3)]
SCALES = [2, (2, 3), 1.5, (1.3, 2.7), 0.6, 1]


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run(layer, x, dy=None):
    """The output, or the gradient for a dY, on the host."""
    to_numpy, asarray = layer.backend.to_numpy, layer.backend.asarray
    if dy is None:
        return to_numpy(layer.forward(asarray(x)))
    layer.forward(asarray(x), mode=xn.TRAIN)
    return to_numpy(layer.backward(asarray(dy)))


def check_adjoint(layer, x):
    """<Y(x), dy> = <x, dX(dy)> for a linear map, and backward is exactly the transposed matrix."""
    zero = run(layer, 0 * x)
    dy = normal((*layer.out_shape, x.shape[3]), seed=1)
    assert ((run(layer, x) - zero) * dy).sum() == pytest.approx(
        (x * run(layer, x, dy)).sum(), rel=1e-12)


# --- borders --------------------------------------------------------------------------------------

def mirrored(at, size):
    while not 0 <= at < size:
        at = -at if at < 0 else 2 * (size - 1) - at
    return at


SOURCES = {"ReflectionPad2d": mirrored,
           "ReplicationPad2d": lambda at, size: min(max(at, 0), size - 1),
           "CircularPad2d": lambda at, size: at % size,
           "ZeroPad2d": lambda at, size: at if 0 <= at < size else None}


@pytest.mark.parametrize("name", SOURCES)
@pytest.mark.parametrize("padding", BORDERS, ids=str)
@every_float
def test_borders(plain_backend, name, padding, dtype):
    """Element by element: the position in X that each element of Y is copied from."""
    top, bottom, left, right = {0: (0, 0, 0, 0), 1: (1, 1, 1, 1),
                                (2, 1): (2, 2, 1, 1)}.get(padding, padding)
    layer = getattr(xn, name)(padding).initialize((2, 3, 4), backend=plain_backend, dtype=dtype)
    x = normal((2, 3, 4, 2), dtype)
    expected = np.zeros((2, 3 + top + bottom, 4 + left + right, 2))
    for y, u in np.ndindex(expected.shape[1:3]):
        row, column = SOURCES[name](y - top, 3), SOURCES[name](u - left, 4)
        if row is not None and column is not None:
            expected[:, y, u] = x[:, row, column]
    found = run(layer, x)
    assert found.dtype == dtype
    np.testing.assert_array_equal(found, expected)
    assert layer.out_shape == expected.shape[:3]
    if dtype == "float64":
        check_adjoint(layer, x)


def test_a_border_of_a_constant(plain_backend):
    layer = xn.ConstantPad2d((1, 0), -2.5).initialize(
        (1, 2, 2), backend=plain_backend, dtype="float64")
    x = normal((1, 2, 2, 1))
    y = run(layer, x)
    assert (y[:, [0, 3]] == -2.5).all()
    np.testing.assert_array_equal(y[:, 1:3], x)
    check_adjoint(layer, x)


@pytest.mark.parametrize("cropping, rows, columns",
                         [(1, slice(1, 4), slice(1, 5)), ((0, 2), slice(0, 5), slice(2, 4)),
                          ((1, 3, 0, 5), slice(1, 2), slice(0, 1)), (0, slice(0, 5), slice(0, 6))])
def test_cropping(plain_backend, cropping, rows, columns):
    layer = xn.Crop2d(cropping).initialize((2, 5, 6), backend=plain_backend, dtype="float64")
    x = normal((2, 5, 6, 3))
    np.testing.assert_array_equal(run(layer, x), x[:, rows, columns])
    check_adjoint(layer, x)


def test_cropping_undoes_a_border(plain_backend):
    x = normal((2, 5, 6, 3), "float32")
    pad, crop = (layer.initialize(shape, backend=plain_backend) for layer, shape in
                 ((xn.ReflectionPad2d((1, 2, 3, 0)), (2, 5, 6)),
                  (xn.Crop2d((1, 2, 3, 0)), (2, 8, 9))))
    np.testing.assert_array_equal(run(crop, run(pad, x)), x)


def test_convolution_of_a_zero_border_is_convolution_with_padding(plain_backend):
    x = normal((2, 5, 6, 3))
    inside = initialized(xn.Conv2d(3, 3, padding=(1, 2, 0, 1)), (2, 5, 6), backend=plain_backend,
                         dtype="float64")
    outside = initialized(xn.Conv2d(3, 3), (2, 8, 7), backend=plain_backend, dtype="float64")
    border = xn.ZeroPad2d((1, 2, 0, 1)).initialize(
        (2, 5, 6), backend=plain_backend, dtype="float64")
    assert_close(run(outside, run(border, x)), run(inside, x))


# --- interpolation --------------------------------------------------------------------------------

def kernel(mode, t):
    """k(t), the weight of an element at the distance t."""
    t, a = abs(t), -0.75
    if mode == "bilinear":
        return max(0.0, 1 - t)
    return ((a + 2) * t**3 - (a + 3) * t**2 + 1 if t <= 1
            else a * t**3 - 5 * a * t**2 + 8 * a * t - 4 * a if t < 2 else 0.0)


def interpolated(x, scale, mode, align_corners):
    """Pixel by pixel: its position in x, and the weights of the elements around it."""
    scales = scale if isinstance(scale, tuple) else (scale, scale)
    C, *sizes, N = x.shape
    out = [math.floor(size * s) for size, s in zip(sizes, scales)]
    y = np.zeros((C, *out, N))
    for at in np.ndindex(*out):
        shares = []
        for place, size, o, s in zip(at, sizes, out, scales):
            if mode == "nearest":
                shares.append({min(math.floor(place / s), size - 1): 1.0})
                continue
            if mode == "nearest-exact":
                shares.append({min(math.floor((place + 0.5) / s), size - 1): 1.0})
                continue
            where = place * (size - 1) / max(o - 1, 1) if align_corners else (place + 0.5) / s - 0.5
            share = {}
            for k in range(math.floor(where) - 3, math.floor(where) + 5):
                element = min(max(k, 0), size - 1)
                share[element] = share.get(element, 0.0) + kernel(mode, where - k)
            shares.append(share)
        for i, v in shares[0].items():
            for j, u in shares[1].items():
                y[(slice(None), *at)] += v * u * x[:, i, j]
    return y


@pytest.mark.parametrize("mode, align_corners",
                         [("nearest", False), ("nearest-exact", False), ("bilinear", False),
                                                 ("bilinear", True), ("bicubic", False),
                          ("bicubic", True)])
@pytest.mark.parametrize("scale", SCALES, ids=str)
def test_upsampling(plain_backend, scale, mode, align_corners):
    x = normal((2, 3, 4, 2))
    layer = xn.Upsample2d(scale, mode, align_corners).initialize(
        (2, 3, 4), backend=plain_backend, dtype="float64")
    expected = interpolated(x, scale, mode, align_corners)
    assert layer.out_shape == expected.shape[:3]
    assert_close(run(layer, x), expected)
    check_adjoint(layer, x)


@pytest.mark.parametrize("mode, align_corners",
                         [("nearest", False), ("nearest-exact", False), ("bilinear", False),
                                                 ("bilinear", True), ("bicubic", False),
                          ("bicubic", True)])
@pytest.mark.parametrize("size", [(7, 9), (1, 1), (3, 4), (2, 11)], ids=str)
def test_upsampling_to_a_size(plain_backend, size, mode, align_corners):
    x = normal((2, 3, 4, 2))
    layer = xn.Upsample2d(mode=mode, align_corners=align_corners, size=size)
    layer.initialize((2, 3, 4), backend=plain_backend, dtype="float64")
    assert layer.out_shape == (2, *size) and layer.config()["size"] == size
    assert_close(run(layer, x), interpolated(x, (Fraction(size[0], 3), Fraction(size[1], 4)), mode,
                                             align_corners))
    check_adjoint(layer, x)


def test_each_size_can_be_reached():
    """A scale size / 49 would often be rounded to a number that is too small."""
    for size in range(1, 200):
        layer = xn.Upsample2d(size=(size, 1)).initialize((1, 49, 1), dtype="float64")
        y = run(layer, np.arange(49.0).reshape(1, 49, 1, 1))
        assert y[0, :, 0, 0].tolist() == [row * 49 // size for row in range(size)]


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic"])
def test_upsampling_keeps_float32(plain_backend, mode):
    x = normal((2, 3, 4, 2), "float32")
    layer = xn.Upsample2d((1.5, 2), mode).initialize((2, 3, 4), backend=plain_backend)
    y = run(layer, x)
    dx = run(layer, x, normal(y.shape, "float32"))
    assert y.dtype == dx.dtype == np.float32
    assert_close(y, interpolated(x, (1.5, 2), mode, False))


@pytest.mark.parametrize("mode, slope", [("bilinear", True), ("bicubic", True), ("nearest", False)])
def test_values_that_an_interpolation_reproduces(mode, slope):
    """Constants always; linear functions too, away from the border, unless mode is "nearest"."""
    layer = xn.Upsample2d(2, mode).initialize((1, 8, 8), dtype="float64")
    np.testing.assert_allclose(run(layer, np.full((1, 8, 8, 1), 3.0)), 3.0, rtol=1e-14)
    line = np.arange(8.0)[None, :, None, None] * np.ones((1, 8, 8, 1))
    places = (np.arange(16) + 0.5) / 2 - 0.5
    exact = np.abs(run(layer, line)[0, 4:12, 8, 0] - places[4:12]).max() < 1e-12
    # The cubic kernel with a = -3/4 does not reproduce lines exactly; that of Keys, a = -1/2,
    # would.
    assert exact == (slope and mode == "bilinear")


def test_a_nan_reaches_only_elements_that_depend_on_it(plain_backend):
    layer = xn.Upsample2d(2, "bilinear").initialize((1, 4, 4), backend=plain_backend)
    x = np.zeros((1, 4, 4, 1), np.float32)
    x[0, 0, 0] = np.nan
    touched = np.isnan(run(layer, x))[0, :, :, 0]
    assert touched[:3, :3].all() and touched.sum() == 9


# --- channels and blocks --------------------------------------------------------------------------

@pytest.mark.parametrize("order", ["CRD", "DCR"])
@every_float
def test_pixel_shuffle(plain_backend, order, dtype):
    r, C = 2, 3
    layer = xn.PixelShuffle(r, order).initialize((C * r * r, 2, 3), backend=plain_backend,
                                                 dtype=dtype)
    back = xn.PixelUnshuffle(r, order).initialize((C, 4, 6), backend=plain_backend, dtype=dtype)
    x = normal((C * r * r, 2, 3, 2), dtype)
    expected = np.zeros((C, 4, 6, 2), dtype)
    for c, h, w, i, j in np.ndindex(C, 2, 3, r, r):
        channel = c * r * r + i * r + j if order == "CRD" else (i * r + j) * C + c
        expected[c, h * r + i, w * r + j] = x[channel, h, w]
    np.testing.assert_array_equal(run(layer, x), expected)
    np.testing.assert_array_equal(run(back, expected), x)
    # a permutation: the gradient is its inverse
    np.testing.assert_array_equal(run(layer, x, expected), x)
    np.testing.assert_array_equal(run(back, expected, x), expected)


def test_a_shuffled_convolution_is_a_transposed_one(plain_backend):
    """Shi et al. 2016: r^2 filters and a shuffle do what a transposed convolution of stride r
    does."""
    x = normal((3, 5, 4, 2))
    up = xn.ConvTranspose2d(1, 2, stride=2, bias=False).initialize(
        (3, 5, 4), backend=plain_backend, dtype="float64")
    conv = xn.Conv2d(4, 1, bias=False).initialize((3, 5, 4), backend=plain_backend, dtype="float64")
    shuffle = xn.PixelShuffle(2).initialize((4, 5, 4), backend=plain_backend, dtype="float64")
    W = plain_backend.to_numpy(up.W.data)                                 # (3, 1, 2, 2)
    conv.W.data[...] = plain_backend.asarray(W.reshape(3, 4).T.reshape(4, 3, 1, 1).copy())
    assert_close(run(shuffle, run(conv, x)), run(up, x))


# --- all of them ----------------------------------------------------------------------------------

@pytest.mark.parametrize("make", [
    lambda: xn.Upsample2d((0.7, 2.3), "bicubic", align_corners=True), lambda: xn.Upsample2d(3),
    lambda: xn.Upsample2d(size=(5, 9)),
    lambda: xn.PixelShuffle(2, "DCR"), lambda: xn.ReplicationPad2d((7, 0, 1, 9)),
    lambda: xn.CircularPad2d(4)])
def test_gradients(plain_backend, make):
    check_gradients(make(), (4, 4, 5), backend=plain_backend)


def test_settings_survive_json():
    for layer in (xn.Upsample2d((np.float32(2), 1.5), "bicubic", True), xn.Upsample2d(np.int64(2)),
                  xn.PixelShuffle(2, "DCR"), xn.ZeroPad2d((1, 2, 3, 4)),
                  xn.ConstantPad2d((1, 2), 0.5), xn.Crop2d(1)):
        again = type(layer)(**json.loads(json.dumps(layer.config())))
        assert again.initialize((4, 6, 6)).out_shape == layer.initialize((4, 6, 6)).out_shape


def test_receptive_fields():
    """The largest number of rows that an output element depends on, found by changing the input
    rows one by one."""
    net = xn.Sequential([xn.Conv2d(4, 3), xn.PixelShuffle(2), xn.Conv2d(1, 3),
                         xn.Upsample2d(2, "bilinear"), xn.Conv2d(1, 3),
                         xn.PixelUnshuffle(2), xn.ReflectionPad2d(1)], input_shape=(1, 9, 9),
                        backend="numpy", dtype="float64")
    reached = [np.zeros((node.shape[1], 9), bool) for node in net.nodes]
    for row in range(9):
        x = np.zeros((1, 1, 9, 9))
        x[0, 0, row, 4] = 1
        for value, node in zip(reached, net.nodes):
            value[:, row] = np.abs(net.run([net.batch_last(x)], [node])[0]).sum(axis=(0, 2, 3)) > 0
    widest = [int(value.sum(axis=1).max()) for value in reached]
    found = [row.receptive_field[0] for row in rows(net)]
    assert found[:3] == widest[:3] == [3, 3, 4]
    assert all(f >= w for f, w in zip(found, widest)) and found[-1] == found[-2]


@pytest.mark.parametrize("make, text", [
    (lambda: xn.ZeroPad2d(-1), r"ZeroPad2d: expected padding to be an int or a pair of ints or "
                               r"four ints, 0 or larger\. Received: padding=-1"),
    (lambda: xn.ReflectionPad2d((1, 2, 3)),
     r"ReflectionPad2d: expected padding to be .* Received: padding=\(1, 2, 3\)"),
    (lambda: xn.ConstantPad2d(1, "zero"), r"ConstantPad2d: expected value to be a finite number"),
    (lambda: xn.ZeroPad2d(1).initialize((7,)),
     r"ZeroPad2d: expected an input of shape \(channels, height, width\)"),
    (lambda: xn.ReflectionPad2d((0, 4), name="edge").initialize((1, 5, 4)),
     r"ReflectionPad2d 'edge': expected padding of at most 4 rows and 3 columns\. Received: "
     r"padding=\(0, 4\) for an input"),
    (lambda: xn.CircularPad2d(5).initialize((1, 5, 4)),
     r"CircularPad2d: expected padding of at most 5 rows and 4 columns\. Received: padding=5 for "
     r"an input of 5x4"),
    (lambda: xn.Crop2d(1.5), r"Crop2d: expected cropping to be .* Received: cropping=1\.5"),
    (lambda: xn.Crop2d((2, 3)).initialize((1, 5, 6)),
     r"Crop2d: expected a cropping that leaves at least 1x1\. Received: cropping=\(2, 3\) of an "
     r"input of 5x6"),
    (lambda: xn.Crop2d(1).initialize((7,)), r"Crop2d: expected an input of shape"),
    (lambda: xn.Upsample2d(0), r"Upsample2d: expected scale_factor to be a number, 1e-06 or "
                               r"larger\. Received: scale_factor=0"),
    (lambda: xn.Upsample2d(),
     r"Upsample2d: expected either scale_factor or size\. Received: scale_factor=None, size=None"),
    (lambda: xn.Upsample2d(2, size=4),
     r"Upsample2d: expected either scale_factor or size\. Received: scale_factor=2, size=4"),
    (lambda: xn.Upsample2d(size=0),
     r"Upsample2d: expected size to be an int or a pair of ints, 1 or larger"),
    (lambda: xn.Upsample2d((2, 2, 2)), r"Upsample2d: expected scale_factor to be a number or a "
                                       r"pair \(rows, columns\)\. Received: scale_factor="),
    (lambda: xn.Upsample2d(2, "linear"),
     r"Upsample2d: expected mode to be 'nearest', .* Received: mode='linear'"),
    (lambda: xn.Upsample2d(2, align_corners=True), r"Received: mode='nearest', align_corners=True"),
    (lambda: xn.Upsample2d(0.1).initialize((1, 5, 5)),
     r"Upsample2d: expected an output of at least 1x1\. Received: an input of 5x5"),
    (lambda: xn.Upsample2d(2).initialize((7,)), r"Upsample2d: expected an input of shape"),
    (lambda: xn.PixelShuffle(0), r"PixelShuffle: expected upscale_factor to be an int, 1 or "
                                 r"larger\. Received: upscale_factor=0"),
    (lambda: xn.PixelShuffle(2, "CDR"),
     r"PixelShuffle: expected order to be 'CRD' or 'DCR'\. Received: order='CDR'"),
    (lambda: xn.PixelShuffle(2).initialize((6, 2, 2)),
     r"PixelShuffle: expected a number of channels that upscale_factor\^2 = 4 divides"),
    (lambda: xn.PixelUnshuffle(2).initialize((6, 2, 3)),
     r"expected a height and a width that downscale_factor = 2 divides\. Received: input"),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()
