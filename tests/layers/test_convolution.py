"""Conv2d and TableConv2d: the output against loops over pixels, the initial values, the counts, the
errors."""

import math

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from xpnet import Conv2d, TableConv2d
from xpnet.backends.activations import ACTIVATIONS
from xpnet.testing import check_gradients

dtypes = st.sampled_from(["float32", "float64"])
activations = st.sampled_from([None, "relu", "sigmoid", "tanh", "scaled_tanh"])
small = st.integers(1, 3)


@st.composite
def convolutions(draw):
    """Kernel, stride, dilation, four paddings, groups, and a shape (C, H, W, N) that they fit."""
    kernel, stride, dilation = (draw(st.tuples(small, small)) for _ in range(3))
    rows, columns = (d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    padding = tuple(draw(st.integers(0, extent + 1)) for extent in (rows, rows, columns, columns))
    groups = draw(small)
    height = max(draw(st.integers(1, 7)), rows - padding[0] - padding[1])
    width = max(draw(st.integers(1, 7)), columns - padding[2] - padding[3])
    settings = {"stride": stride, "dilation": dilation, "padding": padding, "groups": groups}
    return kernel, settings, (groups * draw(st.integers(1, 2)), height, width), draw(small)


def normal(shape, dtype, seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def weights(layer):
    return layer.backend.to_numpy(layer.W.data), layer.backend.to_numpy(layer.b.data)


@given(convolutions(), st.integers(1, 2), activations, dtypes)
def test_conv2d(backend, drawn, filters_per_group, activation, dtype):
    kernel, settings, in_shape, batch = drawn
    layer = Conv2d(settings["groups"] * filters_per_group, kernel, activation=activation,
                   **settings)
    initialized(layer, in_shape, backend=backend, dtype=dtype)
    x = normal((*in_shape, batch), dtype)
    W, b = weights(layer)
    y = backend.to_numpy(layer.forward(backend.asarray(x)))
    assert y.dtype == dtype
    assert y.shape == (*layer.out_shape, batch)
    assert_close(y, oracles.activation(oracles.conv2d(x, W, b, **settings), activation))


@pytest.mark.parametrize("activation", [None, "relu", "gelu"])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_bias_for_each_output_position(backend, activation, dtype):
    """Y[f, y, x] = act(b[f, y, x] + ...): the loop over pixels without a bias, then the map."""
    settings = {"stride": (2, 1), "padding": (1, 0, 2, 1), "groups": 2}
    layer = Conv2d(4, (3, 2), bias="map", activation=activation, **settings)
    initialized(layer, (2, 6, 5), backend=backend, dtype=dtype)
    x = normal((2, 6, 5, 3), dtype)
    W, b = weights(layer)
    assert b.shape == layer.out_shape == (4, 3, 7) and len(np.unique(b)) == b.size
    z = oracles.conv2d(x, W, np.zeros(4), **settings) + b[..., None]
    expected = (np.vectorize(lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2)(z)
                if activation == "gelu" else oracles.activation(z, activation))
    assert_close(backend.to_numpy(layer.forward(backend.asarray(x))), expected)


@pytest.mark.parametrize("make, shape, b", [
    (lambda: Conv2d(4, 3, bias="map", activation="tanh"), (2, 5, 6), (4, 3, 4)),
    (lambda: xn.TrueConv2d(4, 2, bias="map"), (2, 4, 3), (4, 3, 2)),
    (lambda: xn.DepthwiseConv2d(3, bias="map"), (2, 5, 6), (2, 3, 4)),
    (lambda: xn.Conv1d(4, 3, padding=1, bias="map", activation="sigmoid"), (2, 5), (4, 5)),
    (lambda: xn.SeparableConv2d(4, 3, bias="map"), (2, 5, 6), (4, 3, 4)),
    (lambda: xn.ConvTranspose2d(3, 2, stride=2, bias="map", activation="tanh"), (2, 3, 2),
     (3, 6, 4)),
    (lambda: xn.ConvTranspose2d(3, 2, stride=3, output_padding=2, bias="map"), (2, 2, 2),
     (3, 7, 7)),
    (lambda: xn.ConvTranspose1d(3, 2, stride=2, bias="map"), (2, 3), (3, 6))])
def test_gradients_of_a_bias_for_each_output_position(backend, make, shape, b):
    """Finite differences; b has the shape of one output, no weight decay, and one dZ for each
    element."""
    check_gradients(make(), shape, backend=backend)
    layer = make().initialize(shape, backend=backend, dtype="float64")
    parameter = layer.parameters[-1]
    assert parameter.shape == layer.out_shape == b and not parameter.decay
    assert not backend.to_numpy(parameter.data).any()       # it starts at 0


def test_a_bias_map_is_counted_saved_and_shared_by_all_samples(tmp_path):
    net = xn.Sequential([Conv2d(2, 3, bias="map"), xn.Flatten(), xn.Linear(2)],
                        input_shape=(1, 5, 4), backend="numpy", seed=1)
    assert net.summary().rows[0].parameters == 2 * 9 + 2 * 3 * 2
    x, y = normal((6, 1, 5, 4), "float32"), np.arange(6) % 2
    net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=1, verbose=False)
    assert len(np.unique(net.layers[0].b.data)) == 12
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    assert again.layers[0].bias == "map"
    np.testing.assert_array_equal(again.predict(x), net.predict(x))


@pytest.mark.parametrize("bias", ["maps", 1, None, [True]])
@pytest.mark.parametrize("kind", [Conv2d, xn.Conv1d, xn.SeparableConv2d, xn.ConvTranspose2d])
def test_a_wrong_bias_is_refused(kind, bias):
    with pytest.raises(ValueError, match=rf"{kind.__name__}: expected bias to be True, False or "
                                         r"'map'\. Received: bias="):
        kind(2, 3, bias=bias)


@pytest.mark.parametrize("name, padding", [("valid", (0, 0, 0, 0)), ("half", (1, 1, 1, 2)),
                                           ("same", (1, 1, 1, 2)),
                                           ("full", (2, 2, 3, 3)), (1, (1, 1, 1, 1)),
                                           ((2, 1), (2, 2, 1, 1))])
def test_padding_by_name(backend, name, padding):
    layer = initialized(Conv2d(2, (3, 4), padding=name), (2, 5, 6), backend=backend,
                        dtype="float64")
    x = normal((2, 5, 6, 2), "float64")
    assert_close(backend.to_numpy(layer.forward(backend.asarray(x))),
                 oracles.conv2d(x, *weights(layer), padding=padding))


def test_without_bias(backend):
    layer = initialized(Conv2d(3, 2, bias=False), (2, 4, 4), backend=backend, dtype="float64")
    assert [p.name for p in layer.parameters] == ["W"]
    x = normal((2, 4, 4, 2), "float64")
    W = backend.to_numpy(layer.W.data)
    assert_close(backend.to_numpy(layer.forward(backend.asarray(x))),
                 oracles.conv2d(x, W, np.zeros(3)))


@given(st.lists(st.lists(st.integers(0, 3), min_size=1, unique=True), min_size=1, max_size=4),
       st.integers(1, 2), activations, dtypes)
def test_table_conv2d(backend, table, stride, activation, dtype):
    layer = TableConv2d(table, (3, 2), stride=stride, padding=(2, 0, 1, 0), activation=activation)
    initialized(layer, (4, 5, 4), backend=backend, dtype=dtype)
    x = normal((4, 5, 4, 2), dtype)
    W, b = weights(layer)
    assert W.shape == (sum(map(len, table)), 3, 2)
    z = oracles.table_conv2d(x, W, b, table, stride=(stride, stride), padding=(2, 0, 1, 0))
    assert_close(backend.to_numpy(layer.forward(backend.asarray(x))),
                 oracles.activation(z, activation))


def test_a_nan_reaches_exactly_the_windows_that_contain_it(backend):
    layer = initialized(Conv2d(2, 3, padding="half", activation="relu"), (1, 5, 5), backend=backend,
                        dtype="float32")
    x = normal((1, 5, 5, 1), "float32")
    x[0, 1, 3] = np.nan
    y = backend.to_numpy(layer.forward(backend.asarray(x)))
    seen = np.zeros((5, 5), bool)
    seen[0:3, 2:5] = True
    np.testing.assert_array_equal(np.isnan(y), np.broadcast_to(seen[None, :, :, None], y.shape))


@pytest.mark.parametrize("layer, in_shape, expected", [
    (Conv2d(6, 5), (1, 32, 32), 6 * 25 * 28 * 28),  # LeNet-5's C1: 117,600 multiply-adds
    (Conv2d(8, (3, 2), stride=2, groups=2), (4, 9, 8), 8 * 4 * 4 * 2 * 6),
    (TableConv2d([[0], [0, 1]], 3), (2, 6, 6), 3 * 9 * 4 * 4),
])
def test_multiply_adds(layer, in_shape, expected):
    layer.initialize(in_shape)
    assert layer.multiply_adds() == expected


@pytest.mark.parametrize("layer, variance, limit", [
    (Conv2d(400, 5, activation="relu"), 2 / 100, None),                     # He: 2 / fan_in
    (Conv2d(400, 5), 2 / (100 + 10000), (6 / 10100) ** 0.5),  # Glorot: 2 / (fan_in + fan_out)
    # a filter reads the channels of its group
    (Conv2d(400, 5, groups=4, activation="relu"), 2 / 25, None),
    (Conv2d(400, 5, init="lecun_normal"), 1 / 100, None),
    (Conv2d(400, 5, init="lecun_uniform"), (2.4 / 100) ** 2 / 3, 2.4 / 100),
])
def test_initial_values(layer, variance, limit):
    layer.initialize((4, 5, 5), dtype="float64")
    assert np.var(layer.W.data) == pytest.approx(variance, rel=0.05)
    assert limit is None or 0.99 * limit < np.abs(layer.W.data).max() <= limit
    assert not layer.b.data.any()


def error_of(action) -> str:
    with pytest.raises(ValueError) as error:
        action()
    return str(error.value)


FOR_FLAT = ("expected an input of shape (channels, height, width) per sample. Received: input "
            "shape (784,).")
NO_ACTIVATION = (f"expected activation to be one of None, {', '.join(ACTIVATIONS)}, perhaps "
                 f"\"relu\". Received: activation='rleu'.")


@pytest.mark.parametrize("action, text", [
    (lambda: Conv2d(0, 3),
     "Conv2d: expected filters to be an int, 1 or larger. Received: filters=0."),
    (lambda: Conv2d(8.0, 3),
     "Conv2d: expected filters to be an int, 1 or larger. Received: filters=8.0."),
    (lambda: Conv2d(True, 3),
     "Conv2d: expected filters to be an int, 1 or larger. Received: filters=True."),
    (lambda: Conv2d(8, 3, groups=-2, name="c"),
     "Conv2d 'c': expected groups to be an int, 1 or larger. Received: groups=-2."),
    (lambda: Conv2d(8, 0), "Conv2d: expected kernel_size to be an int or a pair of ints, 1 or "
                           "larger. Received: kernel_size=0."),
    (lambda: Conv2d(8, 3, stride=0, name="c"),
     "Conv2d 'c': expected stride to be an int or a pair of ints, 1 or larger. "
     "Received: stride=0."),
    (lambda: Conv2d(8, 3, dilation=1.5), "Conv2d: expected dilation to be an int or a pair of "
                                         "ints, 1 or larger. Received: dilation=1.5."),
    (lambda: Conv2d(8, 3, padding="reflect"),
     "Conv2d: expected padding \"valid\", \"half\", \"same\" or \"full\", or ints. Received: "
     "padding='reflect'."),
    (lambda: Conv2d(8, 3, padding=-1), "Conv2d: expected padding to be an int or a pair of ints or "
                                       "four ints, 0 or larger. Received: padding=-1."),
    (lambda: Conv2d(8, 3, activation="rleu"), f"Conv2d: {NO_ACTIVATION}"),
    (lambda: Conv2d(8, 3, init="zero"),
     "Conv2d: expected init to be one of None, zeros, ones, he_normal, lecun_normal, "
     "glorot_uniform, lecun_uniform, perhaps \"zeros\". Received: init='zero'."),
    (lambda: Conv2d(8, 3).initialize((784,)), f"Conv2d: {FOR_FLAT}"),
    (lambda: Conv2d(8, 3, groups=2, name="c").initialize((3, 8, 8)),
     "Conv2d 'c': expected groups=2 to divide the channels and the filters. Received: 3 channels, "
     "8 filters."),
    (lambda: Conv2d(7, 3, groups=2).initialize((4, 8, 8)),
     "Conv2d: expected groups=2 to divide the channels and the filters. Received: 4 "
     "channels, 7 filters."),
    (lambda: Conv2d(8, 5, padding=1).initialize((3, 8, 2)),
     "Conv2d: expected an input at least as large as the window, 5x5. Received: "
     "8x2, padded to 10x4."),
    (lambda: TableConv2d([], 3), "TableConv2d: expected table to list, for each filter, the "
                                 "channels it reads, none twice. Received: table=[]."),
    (lambda: TableConv2d(6, 3), "TableConv2d: expected table to list, for each filter, the "
                                "channels it reads, none twice. Received: table=6."),
    (lambda: TableConv2d([[0], []], 3),
     "TableConv2d: expected table to list, for each filter, the channels it reads, none twice. "
     "Received: table=[[0], []]."),
    (lambda: TableConv2d([[0, 1, 0]], 3, name="c3"),
     "TableConv2d 'c3': expected table to list, for each filter, the channels it reads, none "
     "twice. Received: table=[[0, 1, 0]]."),
    (lambda: TableConv2d([[0, -1]], 3), "TableConv2d: expected a channel of table to be an int, 0 "
                                        "or larger. Received: a channel of table=-1."),
    (lambda: TableConv2d([[0, 1.5]], 3), "TableConv2d: expected a channel of table to be an int, 0 "
                                         "or larger. Received: a channel of table=1.5."),
    (lambda: TableConv2d([[0]], 3, stride=(1, 0)),
     "TableConv2d: expected stride to be an int or a pair of ints, 1 or larger. Received: "
     "stride=(1, 0)."),
    (lambda: TableConv2d([[0]], 3, activation="rleu"), f"TableConv2d: {NO_ACTIVATION}"),
    (lambda: TableConv2d([[0]], 3, init=3),
     "TableConv2d: expected init to be one of None, zeros, ones, he_normal, lecun_normal, "
     "glorot_uniform, lecun_uniform. Received: init=3."),
    (lambda: TableConv2d([[0]], 3).initialize((784,)), f"TableConv2d: {FOR_FLAT}"),
    (lambda: TableConv2d([[0, 4], [2]], 3).initialize((4, 8, 8)),
     "TableConv2d: expected 5 input channels, as in the table. Received: input shape (4, 8, 8)."),
    (lambda: TableConv2d([[0]], 9).initialize((1, 8, 8)),
     "TableConv2d: expected an input at least as large as the window, 9x9. Received: "
     "8x8, padded to 8x8."),
], ids=lambda value: value[:60] if isinstance(value, str) else "")
def test_errors(action, text):
    assert error_of(action) == text


def test_after_an_error_a_layer_accepts_another_shape():
    layer = Conv2d(8, 3, groups=2)
    assert "to divide the channels" in error_of(lambda: layer.initialize((3, 8, 8)))
    assert layer.initialize((4, 8, 8)).out_shape == (8, 6, 6)
    assert len(layer.parameters) == 2


@pytest.mark.parametrize("layer", [
    Conv2d(3, 1, padding=2), Conv2d(4, (2, 3), padding=(4, 3, 5, 0), stride=(2, 1), groups=2),
    xn.ConvTranspose2d(3, 2, padding=2), xn.SeparableConv2d(3, 2, padding=3),
    xn.LocallyConnected2d(2, 2, padding=2), xn.Conv1d(4, 2, padding=(2, 5), groups=2),
    xn.ConvTranspose1d(3, 2, padding=2),
], ids=lambda layer: type(layer).__name__)
def test_gradients_with_windows_wholly_in_padding(layer, backend):
    shape = (2, 6) if type(layer).__name__.endswith("1d") else (2, 6, 5)
    layer = type(layer)(**layer.config())  # the same layer on several backends
    check_gradients(layer, shape, backend=backend)


def test_padding_of_a_hundred(backend):
    """As in the fully convolutional networks of Long et al. 2015. What the windows that read pixels
    give, and their gradients, are those of a convolution with padding "full"."""
    small, large = (initialized(Conv2d(3, 3, padding=padding), (2, 4, 5), backend=backend,
                                dtype="float32") for padding in ("full", 100))
    x, dy = normal((2, 4, 5, 3), "float32"), normal((3, 6, 7, 3), "float32", seed=1)
    inner = slice(98, 104), slice(98, 105)
    whole = np.zeros((3, 202, 203, 3), np.float32)
    whole[:, *inner] = dy
    y, z = (backend.to_numpy(layer.forward(backend.asarray(x), mode=xn.TRAIN))
            for layer in (small, large))
    assert z.shape == whole.shape
    assert_close(z[:, *inner], y)
    z[:, *inner] = np.broadcast_to(weights(large)[1][:, None, None, None], y.shape)
    np.testing.assert_array_equal(z, np.broadcast_to(z[:, :1, :1], z.shape))    # the bias
    dx, dx2 = (backend.to_numpy(layer.backward(backend.asarray(a)))
               for layer, a in ((small, dy), (large, whole)))
    assert_close(dx2, dx)
    for p, q in zip(small.parameters, large.parameters, strict=True):
        assert_close(backend.to_numpy(q.grad), backend.to_numpy(p.grad))


def test_windows_wholly_in_padding_give_the_bias(backend):
    layer = initialized(Conv2d(2, 2, padding=3), (1, 2, 2), backend=backend, dtype="float32")
    y = backend.to_numpy(layer.forward(backend.asarray(normal((1, 2, 2, 3), "float32"))))
    _, b = weights(layer)
    border = np.ones(y.shape[1:3], bool)
    border[2:-2, 2:-2] = False  # the parts of the windows that are inside the input
    np.testing.assert_array_equal(y[:, border],
                                  np.broadcast_to(b[:, None, None], y[:, border].shape))
