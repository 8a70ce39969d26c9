"""Variants of max and average pooling against loops over windows, gradients of maxima, and
errors."""

import itertools
import re

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from oracles import assert_close
from tiers import examples

import xpnet as xn
from tests.layers.test_pooling import few_values, forward, normal, pools
from xpnet import TRAIN
from xpnet.testing import check_gradients

dtypes = st.sampled_from(["float32", "float64"])
small = st.integers(1, 3)
few = examples(40)


def seen_by_windows(x, kernel, stride, padding, dilation=(1, 1), ceil=False):
    """For each output element (c, oy, ox, n): the taps (i, j) of its window with their values, None
    on padding."""
    rows, columns = oracles.windows(x, kernel, stride, padding, dilation, ceil)
    for c, (oy, row), (ox, column), n in itertools.product(
            range(x.shape[0]), enumerate(rows), enumerate(columns), range(x.shape[3])):
        image = x[c, :, :, n]
        yield (c, oy, ox, n), [(i, j, None if at is None else float(image[at]))
                               for i, j, at in oracles.taps(image, row, column, kernel, dilation)]


# --- average pooling: the divisor -----------------------------------------------------------------

@few
@given(pools(dilated=True), st.booleans(), dtypes)
def test_avg_pool2d_in_ceil_mode_counts_the_padding_but_nothing_beyond_it(
        backend, drawn, count_include_pad, dtype):
    kernel, stride, padding, dilation, shape = drawn
    layer = xn.AvgPool2d(kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=True,
                         count_include_pad=count_include_pad)
    layer.initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x)
    expected = np.zeros(y.shape)
    rows, columns = oracles.windows(x, kernel, stride, padding, dilation, ceil=True)
    for (c, oy, ox, n), seen in seen_by_windows(x, kernel, stride, padding, dilation, ceil=True):
        values = [value for _, _, value in seen if value is not None]
        framed = [1 for i, j, _ in seen if rows[oy] + i * dilation[0] < shape[1] + padding[1]
                  and columns[ox] + j * dilation[1] < shape[2] + padding[3]]
        expected[c, oy, ox, n] = sum(values) / len(framed if count_include_pad else values)
    assert_close(y, expected)


def test_avg_pool2d_in_ceil_mode_by_hand(backend):
    """A feature map of ones of width 4 with padding 1, windows of 3 at stride 2: PyTorch's divisors
    are 3, 3 and 2."""
    layer = xn.AvgPool2d((1, 3), stride=(1, 2), padding=(0, 1),
                         ceil_mode=True).initialize((1, 1, 4), backend=backend)
    np.testing.assert_allclose(forward(layer, np.ones((1, 1, 4, 1), np.float32)).ravel(),
                               [2 / 3, 1, 1 / 2], rtol=1e-6)


@pytest.mark.parametrize("options", [
    {"stride": 2, "padding": 1, "ceil_mode": True},
    {"stride": 2, "padding": 1, "ceil_mode": True, "count_include_pad": False},
    {"stride": 3, "dilation": (1, 2), "ceil_mode": True}])
def test_gradients_of_avg_pool2d(backend, options):
    check_gradients(xn.AvgPool2d((3, 2), **options), (2, 8, 6), backend=backend)


# --- Lp pooling -----------------------------------------------------------------------------------

@few
@given(pools(dilated=True), st.booleans(), st.booleans(), st.sampled_from([1, 1.5, 2, 3, 30]),
       dtypes)
def test_lp_pool2d(backend, drawn, ceil, mean, p, dtype):
    kernel, stride, padding, dilation, shape = drawn
    layer = xn.LpPool2d(kernel, p, stride=stride, padding=padding, dilation=dilation,
                        ceil_mode=ceil, mean=mean)
    layer.initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    expected = np.zeros(y.shape)
    for at, seen in seen_by_windows(x, kernel, stride, padding, dilation, ceil):
        total = sum(abs(value) ** p for _, _, value in seen if value is not None)
        expected[at] = (total / len(seen) if mean else total) ** (1 / p)
    assert_close(y, expected)


@pytest.mark.parametrize("p, mean", [(1, False), (1, True), (2, False), (2.5, True), (7, False)])
def test_gradients_of_lp_pool2d(backend, p, mean):
    away = (np.random.default_rng(1).choice([-1, 1], (2, 6, 5, 3))
            * np.random.default_rng(2).uniform(0.2, 1, (2, 6, 5, 3)))
    layer = xn.LpPool2d((3, 2), p, stride=2, padding=1, ceil_mode=True, mean=mean)
    check_gradients(layer, (2, 6, 5), inputs=(away,), backend=backend)


def test_lp_pool2d_of_zeros_large_and_infinite_values(backend):
    """No division by zero and no overflow; the gradient is 0 where all elements are 0."""
    layer = xn.LpPool2d(2, 3).initialize((1, 2, 8), backend=backend, dtype="float32")
    x = np.zeros((1, 2, 8, 1), np.float32)
    x[0, :, 2:4], x[0, :, 4:6], x[0, 0, 6] = 1e30, 1e-30, -np.inf
    np.testing.assert_allclose(forward(layer, x).ravel(),
                               [0, 4 ** (1 / 3) * 1e30, 4 ** (1 / 3) * 1e-30, np.inf], rtol=1e-5)
    x[0, 0, 6] = 0
    y = forward(layer, x, TRAIN)
    dx = backend.to_numpy(layer.backward(backend.asarray(np.ones(y.shape, np.float32))))
    np.testing.assert_allclose(dx[0, :, :, 0],
                               2 * [np.repeat([0, 4 ** (-2 / 3), 4 ** (-2 / 3), 0], 2)], rtol=1e-5)


def test_lp_pool2d_goes_from_the_mean_to_the_maximum():
    x = np.abs(normal((2, 4, 4, 3)))
    mean, largest = (forward(layer.initialize((2, 4, 4), dtype="float64"), x)
                     for layer in (xn.AvgPool2d(2), xn.MaxPool2d(2)))
    norms = [forward(xn.LpPool2d(2, p, mean=True).initialize((2, 4, 4), dtype="float64"), x)
             for p in (1, 2, 10, 2000)]
    assert_close(norms[0], mean)
    assert all((low < high).all() for low, high in itertools.pairwise(norms))
    np.testing.assert_allclose(norms[-1], largest, rtol=1e-3)


# --- Gaussian pooling -----------------------------------------------------------------------------

@few
@given(pools(dilated=False), st.booleans(), st.booleans(), st.sampled_from([0.3, 1.0, 5.0]), dtypes)
def test_gaussian_pool2d(backend, drawn, ceil, count_include_pad, sigma, dtype):
    kernel, stride, padding, _, shape = drawn
    layer = xn.GaussianPool2d(kernel, sigma, stride=stride, padding=padding, ceil_mode=ceil,
                              count_include_pad=count_include_pad)
    layer.initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    expected = np.zeros(y.shape)
    for at, seen in seen_by_windows(x, kernel, stride, padding, ceil=ceil):
        middle = (kernel[0] - 1) / 2, (kernel[1] - 1) / 2
        weights = [np.exp(-((i - middle[0]) ** 2 + (j - middle[1]) ** 2) / (2 * sigma ** 2))
                   for i, j, _ in seen]
        counted = sum(g for g, (_, _, value) in zip(weights, seen) if count_include_pad
                      or value is not None)
        expected[at] = sum(g * value for g, (_, _, value) in zip(weights, seen)
                           if value is not None) / counted
    assert_close(y, expected)


def test_gaussian_pool2d_with_a_narrow_and_a_wide_filter(backend):
    x = normal((2, 6, 6, 2))

    def pooled(layer):
        return forward(layer.initialize((2, 6, 6), backend=backend, dtype="float64"), x)

    # only the centre element counts
    assert_close(pooled(xn.GaussianPool2d(3, 1e-9)), x[:, 1::3, 1::3])
    # and the four around it
    assert_close(pooled(xn.GaussianPool2d(2, 1e-9)), pooled(xn.AvgPool2d(2)))
    np.testing.assert_allclose(pooled(xn.GaussianPool2d(3, 1e9)), pooled(xn.AvgPool2d(3)),
                               rtol=1e-12)


@pytest.mark.parametrize("count_include_pad", [False, True])
def test_gradients_of_gaussian_pool2d(backend, count_include_pad):
    layer = xn.GaussianPool2d((3, 4), 0.8, stride=2, padding=1, ceil_mode=True,
                              count_include_pad=count_include_pad)
    check_gradients(layer, (3, 6, 5), backend=backend)


# --- pooling to a given size ----------------------------------------------------------------------

def of_grid(x, size, function):
    """function(elements) of each cell of PyTorch's grid: from floor(i H / OH) to ceil((i + 1) H /
    OH)."""
    (C, H, W, N), (OH, OW) = x.shape, size
    y = np.zeros((C, OH, OW, N))
    for c, i, j, n in np.ndindex(y.shape):
        rows = range(int(np.floor(i * H / OH)), int(np.ceil((i + 1) * H / OH)))
        columns = range(int(np.floor(j * W / OW)), int(np.ceil((j + 1) * W / OW)))
        y[c, i, j, n] = function(
            [float(x[c, row, column, n]) for row in rows for column in columns])
    return y


sizes = st.tuples(st.integers(1, 9), st.integers(1, 9))


@few
@given(sizes, sizes, dtypes)
def test_adaptive_pooling(backend, in_size, out_size, dtype):
    x = normal((2, *in_size, 3), dtype)
    for make, function in ((xn.AdaptiveAvgPool2d, np.mean), (xn.AdaptiveMaxPool2d, max)):
        y = forward(make(out_size).initialize(x.shape[:3], backend=backend, dtype=dtype), x)
        assert y.dtype == dtype
        assert_close(y, of_grid(x, out_size, function))


@pytest.mark.parametrize("make", [xn.AdaptiveAvgPool2d, xn.AdaptiveMaxPool2d])
@pytest.mark.parametrize("size", [1, (2, 3), (5, 4), (8, 9)])
def test_gradients_of_adaptive_pooling(backend, make, size):
    check_gradients(make(size), (2, 5, 7), backend=backend)


@few
@given(st.tuples(small, st.integers(1, 5), st.integers(1, 5), small), dtypes)
def test_global_max_pool2d_with_ties_and_nans(backend, shape, dtype):
    """The largest element of each feature map, and the position where it first occurs; adaptive
    pooling to 1x1 does the same."""
    x = few_values(shape, dtype)
    layer = xn.GlobalMaxPool2d().initialize(shape[:3], backend=backend, dtype=dtype)
    adaptive = xn.AdaptiveMaxPool2d(1).initialize(shape[:3], backend=backend, dtype=dtype)
    expected, winners = oracles.max_pool2d(x, shape[1:3], (1, 1))
    np.testing.assert_array_equal(forward(layer, x, TRAIN), expected[:, 0, 0])
    np.testing.assert_array_equal(forward(adaptive, x, TRAIN), expected)
    dy, dx = normal(expected.shape, dtype), np.zeros(shape)
    for at, won in winners.items():
        dx[won] = dy[at]
    np.testing.assert_array_equal(backend.to_numpy(layer.backward(backend.asarray(dy[:, 0, 0]))),
                                  dx)
    np.testing.assert_array_equal(backend.to_numpy(adaptive.backward(backend.asarray(dy))), dx)


def test_a_spatial_pyramid_has_one_size_for_all_images():
    for height, width in ((13, 10), (7, 9)):
        picture = xn.Input((4, height, width))
        levels = [xn.Flatten()(xn.AdaptiveMaxPool2d(size)(picture)) for size in (1, 2, 4)]
        net = xn.Network(picture, xn.Concat()(*levels), backend="numpy")
        assert net.predict(normal((2, 4, height, width))).shape == (2, 4 * (1 + 4 + 16))


# --- unpooling ------------------------------------------------------------------------------------

@few
@given(pools(dilated=True), st.booleans(), dtypes)
def test_max_unpool2d(backend, drawn, ceil, dtype):
    """Values go to the positions of the maxima, and gradients come from there. All other elements
    are 0."""
    kernel, stride, padding, dilation, shape = drawn
    z = few_values(shape, dtype)
    pooled, winners = oracles.max_pool2d(z, kernel, stride, padding, dilation, ceil)
    layer = xn.MaxUnpool2d(kernel, stride=stride, padding=padding, dilation=dilation,
                           ceil_mode=ceil)
    layer.initialize(pooled.shape[:3], shape[:3], backend=backend, dtype=dtype)
    # whole numbers: sums are exact
    x = np.random.default_rng(1).integers(-9, 10, pooled.shape).astype(dtype)
    y = layer.forward(backend.asarray(x), backend.asarray(z), mode=TRAIN)
    expected = np.zeros(shape)
    for at, won in winners.items():
        expected[won] += x[at]
    np.testing.assert_array_equal(backend.to_numpy(y), expected)
    dy = normal(shape, dtype, seed=2)
    dx, dz = map(backend.to_numpy, layer.backward(backend.asarray(dy)))
    assert dx.dtype == dtype and not dz.any()
    for at, won in winners.items():
        assert dx[at] == dy[won]


def decoder(**options):
    """A network that pools, and moves the maxima back to their positions."""
    picture = xn.Input((1, 6, 6))
    maps = xn.Conv2d(3, 3, padding=1)(picture)
    code = xn.Conv2d(3, 1, activation="relu")(xn.MaxPool2d(2)(maps))
    return xn.Network(picture, xn.Conv2d(1, 3, padding=1)(xn.MaxUnpool2d(2)(code, maps)),
                      backend="numpy", **options)


def test_a_decoder_learns_and_is_saved(tmp_path):
    net = decoder(seed=3)
    x = normal((16, 1, 6, 6), "float32")
    history = net.fit(x, x, loss="mean_squared_error", optimizer=xn.Adam(0.01), epochs=30,
                      verbose=False)
    assert history["loss"][-1] < 0.7 * history["loss"][0]
    net.save(tmp_path / "decoder.safetensors")
    np.testing.assert_array_equal(xn.load(tmp_path / "decoder.safetensors",
                                          backend="numpy").predict(x), net.predict(x))


def test_the_summary_of_a_decoder_follows_the_receptive_field():
    from xpnet.inspect.summary import rows
    assert [(row.kind, row.receptive_field) for row in rows(decoder())] == [
        ("Conv2d", (3, 3)), ("MaxPool2d", (4, 4)), ("Conv2d", (4, 4)), ("MaxUnpool2d", (4, 4)),
        ("Conv2d", (6, 6))]


# --- skip sampling --------------------------------------------------------------------------------

@few
@given(st.tuples(small, small), st.tuples(small, st.integers(3, 8), st.integers(3, 8), small),
       st.data(), dtypes)
def test_skip_sampling2d(backend, stride, shape, data, dtype):
    offset = tuple(data.draw(st.integers(0, s - 1)) for s in stride)
    layer = xn.SkipSampling2d(stride, offset=offset).initialize(
        shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x, TRAIN)
    dx = backend.to_numpy(layer.backward(backend.asarray(y)))
    for c, h, w, n in np.ndindex(shape):
        (i, left_i), (j, left_j) = divmod(h - offset[0], stride[0]), divmod(
            w - offset[1], stride[1])
        taken = left_i == left_j == 0 and i >= 0 and j >= 0
        assert dx[c, h, w, n] == (x[c, h, w, n] if taken else 0)
        assert not taken or y[c, i, j, n] == x[c, h, w, n]


def test_skip_sampling_after_a_convolution_is_a_stride(backend):
    x = normal((2, 9, 8, 3))
    strided, dense = (xn.Conv2d(4, 3, stride=stride).initialize(
        (2, 9, 8), backend=backend, dtype="float64") for stride in (2, 1))
    dense.W.data[...] = strided.W.data
    skip = xn.SkipSampling2d(2).initialize(dense.out_shape, backend=backend, dtype="float64")
    assert_close(forward(skip, forward(dense, x)), forward(strided, x))


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("action, text", [
    (lambda: xn.LpPool2d(2, 0.5),
     "LpPool2d: expected p to be a number, 1 or larger. Received: p=0.5."),
    (lambda: xn.GaussianPool2d(3, 0),
     "GaussianPool2d: expected sigma to be a number above 0. Received: sigma=0."),
    (lambda: xn.AdaptiveAvgPool2d((2, 0)),
     "AdaptiveAvgPool2d: expected output_size to be an int or a pair of ints, 1 or larger. "
     "Received: output_size=(2, 0)."),
    (lambda: xn.AdaptiveMaxPool2d(None),
     "AdaptiveMaxPool2d: expected output_size to be an int or a pair of ints, 1 or larger. "
     "Received: output_size=None."),
    (lambda: xn.SkipSampling2d(0), "SkipSampling2d: expected stride to be an int or a pair of "
                                   "ints, 1 or larger. Received: stride=0."),
    (lambda: xn.SkipSampling2d(2, offset=(0, 2)),
     "SkipSampling2d: expected an offset smaller than the stride, 2. Received: offset=(0, 2)."),
    (lambda: xn.SkipSampling2d(3, offset=2).initialize((1, 2, 4)),
     "SkipSampling2d: expected an input larger than the offset, 2. Received: input "
     "shape (1, 2, 4)."),
    (lambda: xn.MaxUnpool2d(2).initialize((4, 3, 3), (4, 8, 6)),
     "MaxUnpool2d: expected a first input of shape (4, 4, 3), which pooling the second one gives. "
     "Received: (4, 3, 3) and (4, 8, 6)."),
    (lambda: xn.MaxUnpool2d(2).initialize((4, 3, 3)),
     "MaxUnpool2d: expected 2 input(s). Received: 1."),
], ids=lambda value: value[:40] if isinstance(value, str) else "")
def test_errors(action, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        action()


@pytest.mark.parametrize("make", [lambda: xn.LpPool2d(2), lambda: xn.GaussianPool2d(2, 1),
                                  lambda: xn.AdaptiveMaxPool2d(2),
                                  xn.GlobalMaxPool2d, lambda: xn.SkipSampling2d(2)])
def test_errors_of_the_rank(make):
    with pytest.raises(ValueError,
                       match=r"expected an input of shape \(channels, height, width\) per sample"):
        make().initialize((784,))
