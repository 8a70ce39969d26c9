"""Pooling layers: outputs against loops over pixels, gradients of maxima, and errors."""

import numpy as np
import oracles
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from layer_cases import initialized
from oracles import assert_close

from xpnet import TRAIN, AvgPool2d, GlobalAvgPool2d, MaxPool2d, Subsampling2d
from xpnet.backends.activations import ACTIVATIONS

dtypes = st.sampled_from(["float32", "float64"])
activations = st.sampled_from([None, "relu", "sigmoid", "tanh", "scaled_tanh"])
small = st.integers(1, 3)


@st.composite
def pools(draw, dilated: bool):
    """Kernel, stride, four paddings, dilation, and a shape (C, H, W, N); every window contains
    input elements."""
    kernel, stride = (draw(st.tuples(small, small)) for _ in range(2))
    dilation = draw(st.tuples(small, small)) if dilated else (1, 1)
    rows, columns = (d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    padding = tuple(draw(st.integers(0, extent - 1)) for extent in (rows, rows, columns, columns))
    height = max(draw(st.integers(1, 7)), rows - padding[0] - padding[1], dilation[0])
    width = max(draw(st.integers(1, 7)), columns - padding[2] - padding[3], dilation[1])
    return kernel, stride, padding, dilation, (draw(small), height, width, draw(small))


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def few_values(shape, dtype, seed=0):
    """Many ties, some NaNs, infinities of both signs."""
    values = [-np.inf, -1, 0, 0, 1, 1, 1, np.inf, np.nan]
    return np.random.default_rng(seed).choice(values, shape).astype(dtype)


def forward(layer, x, mode="predict"):
    return layer.backend.to_numpy(layer.forward(layer.backend.asarray(x), mode=mode))


@given(pools(dilated=True), st.booleans(), st.booleans(), dtypes)
def test_max_pool2d(backend, drawn, ceil, special, dtype):
    """Output and gradient bit by bit: the first of equal values wins, a NaN wins over everything,
    padding never wins."""
    kernel, stride, padding, dilation, shape = drawn
    layer = MaxPool2d(kernel, stride=stride, padding=padding, dilation=dilation, ceil_mode=ceil)
    layer.initialize(shape[:3], backend=backend, dtype=dtype)
    x = few_values(shape, dtype) if special else normal(shape, dtype)
    expected, winners = oracles.max_pool2d(x, kernel, stride, padding, dilation, ceil)
    y = forward(layer, x, TRAIN)
    assert y.dtype == dtype
    np.testing.assert_array_equal(y, expected)

    # whole numbers: sums are exact
    dy = np.random.default_rng(1).integers(-9, 10, y.shape).astype(dtype)
    dx = np.zeros(shape)
    for at, won in winners.items():
        dx[won] += dy[at]
    np.testing.assert_array_equal(backend.to_numpy(layer.backward(backend.asarray(dy))), dx)


def test_max_pool2d_minus_infinity_in_a_padded_corner(backend):
    """The gradient of a window of -inf goes to the first element of the input in it, not to
    padding."""
    layer = MaxPool2d(2, stride=2, padding=1).initialize(
        (1, 2, 2), backend=backend, dtype="float32")
    x = np.full((1, 2, 2, 1), -np.inf, np.float32)
    assert np.isneginf(forward(layer, x, TRAIN)).all()
    dx = layer.backward(backend.asarray(np.arange(1, 5, dtype=np.float32).reshape(1, 2, 2, 1)))
    np.testing.assert_array_equal(backend.to_numpy(dx)[0, :, :, 0], [[1, 2], [3, 4]])


# the indices of 256 taps fit in a byte, those of 306 do not
@pytest.mark.parametrize("kernel", [(15, 17), (16, 16), (17, 18)])
def test_max_pool2d_large_windows(backend, kernel):
    layer = MaxPool2d(kernel, stride=1).initialize((1, 18, 18), backend=backend, dtype="float64")
    x = normal((1, 18, 18, 1))
    expected, winners = oracles.max_pool2d(x, kernel, (1, 1))
    np.testing.assert_array_equal(forward(layer, x, TRAIN), expected)
    dx = np.zeros(x.shape)
    for won in winners.values():
        dx[won] += 1
    np.testing.assert_array_equal(
        backend.to_numpy(layer.backward(backend.asarray(np.ones(expected.shape)))), dx)


@given(pools(dilated=False), st.booleans(), dtypes)
def test_avg_pool2d(backend, drawn, count_include_pad, dtype):
    kernel, stride, padding, _, shape = drawn
    layer = AvgPool2d(kernel, stride=stride, padding=padding, count_include_pad=count_include_pad)
    layer.initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, oracles.avg_pool2d(x, kernel, stride, padding, count_include_pad))


def test_avg_pool2d_a_nan_reaches_exactly_the_windows_that_contain_it(backend):
    layer = AvgPool2d(2, stride=1).initialize((1, 4, 4), backend=backend)
    x = normal((1, 4, 4, 1), "float32")
    x[0, 3, 1] = np.nan
    assert np.argwhere(np.isnan(forward(layer, x)[0, :, :, 0])).tolist() == [[2, 0], [2, 1]]


@given(st.tuples(small, st.integers(1, 7), st.integers(1, 7), small), dtypes)
def test_global_avg_pool2d(backend, shape, dtype):
    layer = GlobalAvgPool2d().initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x)
    assert (y.shape, y.dtype) == ((shape[0], shape[3]), dtype)
    assert_close(y, oracles.global_avg_pool2d(x))


@given(st.tuples(small, small), st.tuples(small, st.integers(1, 7), st.integers(1, 7), small),
       activations, dtypes)
def test_subsampling2d(backend, kernel, shape, activation, dtype):
    assume(kernel[0] <= shape[1] and kernel[1] <= shape[2])
    layer = initialized(Subsampling2d(kernel, activation=activation), shape[:3], backend=backend,
                        dtype=dtype)
    x = normal(shape, dtype)
    a, b = (backend.to_numpy(p.data) for p in layer.parameters)
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, oracles.activation(oracles.subsampling2d(x, a, b, kernel), activation))


def test_the_stride_is_the_kernel_size_by_default():
    for layer in (MaxPool2d((3, 2)), AvgPool2d((3, 2)), Subsampling2d((3, 2))):
        assert layer.initialize((2, 9, 8)).out_shape == (2, 3, 4)
    assert MaxPool2d((3, 2), stride=1).initialize((2, 9, 8)).out_shape == (2, 7, 7)


def test_ceil_mode_counts_the_last_partial_window():
    assert MaxPool2d(2).initialize((1, 5, 5)).out_shape == (1, 2, 2)
    assert MaxPool2d(2, ceil_mode=True).initialize((1, 5, 5)).out_shape == (1, 3, 3)
    assert MaxPool2d(2, ceil_mode=True).initialize((1, 4, 4)).out_shape == (1, 2, 2)


POOLS = [MaxPool2d, AvgPool2d, Subsampling2d]


@pytest.mark.parametrize("pool", POOLS)
@pytest.mark.parametrize("kernel", [0, -1, 2.0, True, "2", (2, 2, 2), None])
def test_errors_of_the_kernel(pool, kernel):
    with pytest.raises(ValueError) as error:
        pool(kernel, name="p")
    assert str(error.value) == (f"{pool.__name__} 'p': expected kernel_size to be an int or a pair "
                                f"of ints, 1 or larger. Received: kernel_size={kernel!r}.")


@pytest.mark.parametrize("pool", [MaxPool2d, AvgPool2d])
@pytest.mark.parametrize("arguments, text", [
    ({"stride": 0},
     "expected stride to be an int or a pair of ints, 1 or larger. Received: stride=0."),
    ({"padding": 2}, "expected padding smaller than the 2 rows that the window spans, so that no "
                     "window is wholly in padding. Received: padding=2."),
    ({"padding": -1}, "expected padding to be an int or a pair of ints or four ints, 0 or larger. "
                      "Received: padding=-1."),
    ({"padding": "zeros"},
     'expected padding "valid", "half", "same" or "full", or ints. Received: padding=\'zeros\'.'),
])
def test_errors_of_the_window(pool, arguments, text):
    with pytest.raises(ValueError) as error:
        pool(2, **arguments)
    assert str(error.value) == f"{pool.__name__}: {text}"


@pytest.mark.parametrize("pool", POOLS)
def test_errors_of_the_input(pool):
    with pytest.raises(ValueError) as error:
        pool(3).initialize((2, 8, 2))
    assert str(error.value) == (f"{pool.__name__}: expected an input at least as large as the "
                                f"window, 3x3. Received: 8x2, padded to 8x2.")


@pytest.mark.parametrize("make", [lambda: MaxPool2d(2), lambda: AvgPool2d(2),
                                  lambda: Subsampling2d(2), GlobalAvgPool2d])
def test_errors_of_the_rank(make):
    layer = make()
    with pytest.raises(ValueError) as error:
        layer.initialize((784,))
    assert str(error.value) == (f"{type(layer).__name__}: expected an input of shape (channels, "
                                f"height, width) per sample. Received: input shape (784,).")


@pytest.mark.parametrize("ceil", [False, True])
def test_a_window_that_contains_only_padding(ceil):
    with pytest.raises(ValueError) as error:
        MaxPool2d(2, stride=1, dilation=4, padding=2, ceil_mode=ceil).initialize((1, 1, 5))
    assert str(error.value) == ("MaxPool2d: expected every window to contain at least one element "
                                "of the input. Received: 1x5 with kernel (2, 2), dilation (4, 4), "
                                "padding (2, 2, 2, 2).")


def test_errors_of_subsampling():
    with pytest.raises(ValueError) as error:
        Subsampling2d(2, activation="rectangle")
    assert str(error.value) == ("Subsampling2d: expected activation to be one of None, "
                                f"{', '.join(ACTIVATIONS)}. Received: activation='rectangle'.")
    with pytest.raises(ValueError) as error:
        Subsampling2d(2, init="he")
    assert str(error.value) == ("Subsampling2d: expected init to be one of None, zeros, ones, "
                                "he_normal, lecun_normal, glorot_uniform, lecun_uniform. Received: "
                                "init='he'.")


def test_gradients_of_overlapping_windows_are_summed(backend):
    """The middle element is the maximum of all four windows. Assigning instead of adding would give
    1."""
    layer = MaxPool2d(2, stride=1).initialize((1, 3, 3), backend=backend)
    x = np.zeros((1, 3, 3, 1), np.float32)
    x[0, 1, 1] = 5
    layer.forward(backend.asarray(x), mode=TRAIN)
    dx = backend.to_numpy(layer.backward(backend.asarray(np.ones((1, 2, 2, 1), np.float32))))
    assert dx[0, :, :, 0].tolist() == [[0, 0, 0], [0, 4, 0], [0, 0, 0]]
