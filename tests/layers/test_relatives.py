"""Variants of Conv2d: outputs against loops over pixels, what they share with Conv2d, and
errors."""

import json

import numpy as np
import oracles
import pytest
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from xpnet import Window
from xpnet.testing import check_gradients

# of kernels of 3x2
WINDOWS = [{}, {"stride": (2, 3), "padding": (2, 1, 0, 1)}, {"padding": "full", "dilation": (1, 2)}]

every_window = pytest.mark.parametrize("options", WINDOWS, ids=str)
every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run(layer, x):
    return layer.backend.to_numpy(layer.forward(layer.backend.asarray(x)))


def values(layer):
    """The parameters, on the host."""
    return [layer.backend.to_numpy(p.data) for p in layer.parameters]


def pairs(kernel, *, stride=1, padding=0, dilation=1):
    """Pairs and four paddings, for loops."""
    window = Window.make(kernel, stride, padding, dilation)
    return {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}


# --- flipped kernels ------------------------------------------------------------------------------

def test_true_conv2d_is_the_convolution_of_mathematics(backend):
    """Y[p, q] = sum of W[i, j] X[p - i, q - j], in loops over all four, with every overlap."""
    layer = initialized(xn.TrueConv2d(2, (3, 2), padding="full"), (2, 4, 5), backend=backend,
                        dtype="float64")
    x = normal((2, 4, 5, 1))
    W, b = values(layer)
    expected = np.zeros((2, 6, 6, 1)) + b[:, None, None, None]
    for f, c, i, j, row, column in np.ndindex(2, 2, 3, 2, 4, 5):
        expected[f, row + i, column + j, 0] += W[f, c, i, j] * x[c, row, column, 0]
    assert_close(run(layer, x), expected)


@every_window
@every_float
def test_true_conv2d_is_conv2d_with_a_flipped_kernel(backend, options, dtype):
    layer = xn.TrueConv2d(4, (3, 2), groups=2, activation="tanh", **options)
    initialized(layer, (4, 6, 7), backend=backend, dtype=dtype)
    x = normal((4, 6, 7, 3), dtype)
    W, b = values(layer)
    y = run(layer, x)
    assert y.dtype == dtype
    z = oracles.conv2d(x, W[:, :, ::-1, ::-1], b, groups=2, **pairs((3, 2), **options))
    assert_close(y, oracles.activation(z, "tanh"))


def test_true_conv2d_learns_the_mirrored_filters(backend):
    """The same task with mirrored initial filters: after some steps the filters are still mirrored.
    """
    x, target = normal((2, 6, 6, 4)), normal((3, 4, 4, 4), seed=1)
    layers = [kind(3, 3, name="same").initialize((2, 6, 6), backend=backend, dtype="float64")
              for kind in
              (xn.Conv2d, xn.TrueConv2d)]
    layers[1].W.data[...] = backend.asarray(
        backend.to_numpy(layers[0].W.data)[:, :, ::-1, ::-1].copy())
    for layer in layers:
        for _ in range(3):
            y = layer.forward(backend.asarray(x), mode=xn.TRAIN)
            layer.backward(y - backend.asarray(target))
            layer.update(xn.SGD(1e-2))
    one, other = (layer.backend.to_numpy(layer.W.data) for layer in layers)
    assert_close(other, one[:, :, ::-1, ::-1])


# --- tables as binary matrices --------------------------------------------------------------------

MATRIX = [[1, 1, 0, 0], [0, 0, 0, 1], [1, 0, 1, 1]]


@pytest.mark.parametrize("table", [np.array(MATRIX), np.array(MATRIX, np.float32),
                                   np.array(MATRIX, bool),
                                   np.array(MATRIX, bool).tolist()],
                         ids=["ints", "floats", "bools", "lists"])
def test_a_binary_matrix_is_the_same_as_a_table(backend, table):
    x = normal((4, 5, 6, 2))
    layers = [initialized(xn.TableConv2d(t, (3, 2), name="c3"), (4, 5, 6), backend=backend,
                          dtype="float64")
              for t in (table, [[0, 1], [3], [0, 2, 3]])]
    np.testing.assert_array_equal(run(layers[0], x), run(layers[1], x))
    assert layers[0].multiply_adds() == layers[1].multiply_adds() == 6 * 6 * 3 * 5
    again = xn.TableConv2d(**json.loads(json.dumps(layers[0].config())))
    initialized(again, (4, 5, 6), backend=backend, dtype="float64")
    np.testing.assert_array_equal(run(again, x), run(layers[0], x))


def test_a_table_of_zeros_and_ones_in_lists_names_channels():
    assert xn.TableConv2d([[0, 1], [1, 0]], 3).channels == [[0, 1], [1, 0]]
    assert xn.TableConv2d(np.array([[0, 1], [1, 0]]), 3).channels == [[1], [0]]


@pytest.mark.parametrize("table, text", [
    (np.array([[1, 0], [0, 0]]), r"expected table to list, for each filter, the channels it reads, "
                                 r"none twice\. Received: table=array"),
    (np.array([[1, 2], [0, 1]]), r"none twice\. Received: table=array"),
    (np.ones(3), r"none twice\. Received: table=array"),
    ([[True, False], [True]],
     r"expected a channel of table to be an int, 0 or larger\. Received: a channel of table=True"),
    ([[True, 0]],
     r"expected a channel of table to be an int, 0 or larger\. Received: a channel of table=True"),
])
def test_matrices_that_are_refused(table, text):
    with pytest.raises(ValueError, match=f"TableConv2d: .*{text}"):
        xn.TableConv2d(table, 3)


def test_a_matrix_determines_the_number_of_channels():
    for channels in (3, 5):
        with pytest.raises(
                ValueError,
                match=r"TableConv2d: expected 4 input channels, as in the table\. Received: input"):
            xn.TableConv2d(np.array(MATRIX), 3).initialize((channels, 5, 5))


# --- depthwise and separable convolution ----------------------------------------------------------

@every_window
@every_float
def test_depthwise(backend, options, dtype):
    layer = initialized(xn.DepthwiseConv2d((3, 2), depth_multiplier=2, activation="sigmoid",
                                           **options), (3, 6, 7), backend=backend,
                        dtype=dtype)
    x = normal((3, 6, 7, 2), dtype)
    W, b = values(layer)
    z = [oracles.conv2d(x[q // 2:q // 2 + 1], W[q:q + 1], b[q:q + 1], **pairs((3, 2), **options))
         for q in range(6)]
    assert W.shape == (6, 1, 3, 2)
    assert_close(run(layer, x), oracles.activation(np.concatenate(z), "sigmoid"))
    assert layer.multiply_adds() == np.prod(layer.out_shape) * 6


@every_window
@every_float
def test_separable(backend, options, dtype):
    layer = initialized(xn.SeparableConv2d(5, (3, 2), depth_multiplier=2, activation="tanh",
                                           **options), (3, 6, 7), backend=backend,
                        dtype=dtype)
    x = normal((3, 6, 7, 2), dtype)
    D, P, b = values(layer)
    h = oracles.conv2d(x, D, np.zeros(6), groups=3, **pairs((3, 2), **options))
    assert (D.shape, P.shape) == ((6, 1, 3, 2), (5, 6, 1, 1))
    assert_close(run(layer, x), oracles.activation(oracles.conv2d(h, P, b), "tanh"))
    _, OH, OW = layer.out_shape
    assert layer.multiply_adds() == OH * OW * 6 * (3 * 2 + 5)


def test_separable_is_a_conv2d_whose_filters_are_products():
    """W[f, c] = sum over the m filters of channel c of P[f, q] D[q]."""
    layer = initialized(xn.SeparableConv2d(5, 3, depth_multiplier=2), (3, 6, 7),
                        backend=xn.Backend(), dtype="float64")
    x = normal((3, 6, 7, 2))
    D, P, b = values(layer)
    W = np.einsum("fcm,cmij->fcij", P.reshape(5, 3, 2), D.reshape(3, 2, 3, 3))
    assert_close(run(layer, x), oracles.conv2d(x, W, b))


# --- weights that are not shared ------------------------------------------------------------------

@pytest.mark.parametrize("options", [{}, {"stride": (2, 3), "padding": (2, 1, 0, 1)},
                                     {"padding": "full"}], ids=str)
@pytest.mark.parametrize("activation", [None, "relu", "tanh"])
@every_float
def test_locally_connected(backend, options, activation, dtype):
    layer = initialized(xn.LocallyConnected2d(4, (3, 2), activation=activation, **options),
                        (2, 5, 6), backend=backend,
                        dtype=dtype)
    x = normal((2, 5, 6, 3), dtype)
    W, b = values(layer)
    z = np.zeros((*layer.out_shape, 3))
    # the filters of one position are applied to the whole input, and only this position is compared
    for row, column in np.ndindex(layer.out_shape[1:]):
        z[:, row, column] = oracles.conv2d(x, W[row, column], b[row, column],
                                           **pairs((3, 2), **options))[:, row, column]
    y = run(layer, x)
    assert y.dtype == dtype
    assert_close(y, oracles.activation(z, activation))
    assert layer.multiply_adds() == np.prod(layer.out_shape) * 2 * 6


def test_locally_connected_with_equal_weights_is_conv2d(backend):
    x = normal((2, 5, 6, 3))
    conv = initialized(xn.Conv2d(4, 3, padding=1, activation="tanh"), (2, 5, 6), backend=backend,
                       dtype="float64")
    local = initialized(xn.LocallyConnected2d(4, 3, padding=1, activation="tanh"), (2, 5, 6),
                        backend=backend, dtype="float64")
    for own, shared in zip(local.parameters, values(conv), strict=True):
        own.data[...] = backend.asarray(shared)             # broadcast over the positions
    assert_close(run(local, x), run(conv, x))
    dy = normal((4, 5, 6, 3), seed=1)
    gradients = []
    for layer in (conv, local):
        layer.forward(backend.asarray(x), mode=xn.TRAIN)
        gradients.append(
            [layer.backend.to_numpy(a)
             for a in (layer.backward(backend.asarray(dy)), *(p.grad for p in layer.parameters))])
    assert_close(gradients[1][0], gradients[0][0])
    for own, shared in zip(gradients[1][1:], gradients[0][1:], strict=True):
        # the gradient of a shared weight is the sum over the positions
        assert_close(own.sum(axis=(0, 1)), shared)


@pytest.mark.parametrize("make", [
    lambda: xn.LocallyConnected2d(3, 3, stride=2, bias=False),
    lambda: xn.LocallyConnected2d(2, (2, 3), padding="half", activation="sigmoid"),
    lambda: xn.TrueConv2d(4, 3, stride=2, padding=1, dilation=2, bias=False),
    lambda: xn.TableConv2d(np.array(MATRIX), 3, padding=1, activation="tanh"),
    lambda: xn.DepthwiseConv2d(3, stride=2, bias=False),
    lambda: xn.SeparableConv2d(2, 3, padding="half", dilation=2, bias=False),
])
def test_gradients(make, backend):
    check_gradients(make(), (4, 7, 6), backend=backend)


@pytest.mark.parametrize("make, text", [
    (lambda: xn.DepthwiseConv2d(3, depth_multiplier=0),
     r"DepthwiseConv2d: expected depth_multiplier to be an int, 1 or larger\. Received: "
     r"depth_multiplier=0"),
    (lambda: xn.DepthwiseConv2d(3).initialize((7,)),
     r"DepthwiseConv2d: expected an input of shape \(channels, height, width\)"),
    (lambda: xn.SeparableConv2d(0, 3),
     r"SeparableConv2d: expected filters to be an int, 1 or larger\. Received: filters=0"),
    (lambda: xn.SeparableConv2d(3, 3, depth_multiplier=1.5),
     r"SeparableConv2d: expected depth_multiplier to be an int.*depth_multiplier=1\.5"),
    (lambda: xn.SeparableConv2d(3, 3, init="none"),
     r"SeparableConv2d: expected init to be one of None, .* Received: init='none'"),
    (lambda: xn.SeparableConv2d(3, 9).initialize((2, 5, 5)),
     r"SeparableConv2d: expected an input at least as large as the window, 9x9\. Received: 5x5"),
    (lambda: xn.LocallyConnected2d(0, 3),
     r"LocallyConnected2d: expected filters to be an int, 1 or larger"),
    (lambda: xn.LocallyConnected2d(3, 9).initialize((2, 5, 5)),
     r"LocallyConnected2d: expected an input at least as large as"),
    (lambda: xn.LocallyConnected2d(3, 3).initialize((7,)),
     r"LocallyConnected2d: expected an input of shape \(channels, height"),
    (lambda: xn.SeparableConv2d(3, 3).initialize((7,)),
     r"SeparableConv2d: expected an input of shape \(channels, height"),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()
