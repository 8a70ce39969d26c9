"""ConvTranspose2d: outputs against loops that scatter, shapes, transposition, errors."""

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from xpnet import Window
from xpnet.inspect.summary import rows
from xpnet.testing import check_gradients

small = st.integers(1, 3)


@st.composite
def transposed(draw):
    """Kernel, options, groups, channels in and out per group, and a shape (H, W) that has an
    output."""
    kernel, stride, dilation = (draw(st.tuples(small, small)) for _ in range(3))
    rows, columns = (d * (k - 1) + 1 for k, d in zip(kernel, dilation))
    padding = tuple(draw(st.integers(0, extent)) for extent in (rows, rows, columns, columns))
    extra = tuple(draw(st.integers(0, max(s, d) - 1)) for s, d in zip(stride, dilation))
    size = tuple(draw(st.integers(2 if extent > 1 else 1, 5)) for extent in (rows, columns))
    options = {"stride": stride, "padding": padding, "dilation": dilation,
               "groups": draw(st.integers(1, 2))}
    return kernel, options, extra, size, (draw(st.integers(1, 2)), draw(st.integers(1, 2)))


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@given(transposed(), st.sampled_from([None, "relu", "tanh"]),
       st.sampled_from(["float32", "float64"]))
def test_forward(backend, drawn, activation, dtype):
    kernel, options, extra, (H, W), (inward, outward) = drawn
    top, bottom, left, right = options["padding"]
    size = tuple((n - 1) * s - around + d * (k - 1) + 1 + e for n, s, around, d, k, e in
                 zip((H, W), options["stride"], (top + bottom, left + right), options["dilation"],
                     kernel, extra))
    layer = xn.ConvTranspose2d(outward * options["groups"], kernel, output_padding=extra,
                               activation=activation, **options)
    if min(size) < 1:
        with pytest.raises(ValueError, match="expected an output of 1x1 at least"):
            layer.initialize((inward * options["groups"], H, W))
        return
    initialized(layer, (inward * options["groups"], H, W), backend=backend, dtype=dtype)
    x = normal((*layer.in_shapes[0], 2), dtype)
    weights, bias = (backend.to_numpy(p.data) for p in layer.parameters)
    assert weights.shape == (inward * options["groups"], outward, *kernel)
    y = backend.to_numpy(layer.forward(backend.asarray(x)))
    assert y.dtype == dtype
    assert_close(y, oracles.activation(oracles.conv_transpose2d(x, weights, bias, size, **options),
                                       activation))


@pytest.mark.parametrize("options", [
    {}, {"stride": 2, "output_padding": 1},
    {"stride": (3, 2), "padding": (2, 1, 0, 1), "output_padding": (2, 0)},
    {"dilation": (3, 2), "output_padding": (2, 1), "padding": (0, 1, 2, 0)},
    {"padding": "full", "dilation": (2, 1)}, {"groups": 2, "stride": 2, "bias": False}], ids=str)
@pytest.mark.parametrize("activation", [None, "tanh"])
def test_gradients(backend, options, activation):
    check_gradients(xn.ConvTranspose2d(4, 3, activation=activation, **options), (2, 5, 4),
                    backend=backend)


def test_it_is_the_input_gradient_of_a_convolution(backend):
    """For the same filters, <conv(x), y> = <x, transposed(y)>: the matrices are transposes of each
    other."""
    x, y, W = normal((3, 9, 8, 2)), normal((4, 5, 4, 2)), normal((4, 3, 3, 3))
    down = xn.Conv2d(4, 3, stride=2, padding=1, bias=False).initialize(
        (3, 9, 8), backend=backend, dtype="float64")
    up = xn.ConvTranspose2d(3, 3, stride=2, padding=1, output_padding=(0, 1), bias=False)
    up.initialize((4, 5, 4), backend=backend, dtype="float64")
    assert (down.out_shape, up.out_shape) == ((4, 5, 4), (3, 9, 8))
    for layer in (down, up):
        layer.W.data[...] = backend.asarray(W)
    one, other = (backend.to_numpy(layer.forward(backend.asarray(a)))
                  for layer, a in ((down, x), (up, y)))
    assert (one * y).sum() == pytest.approx((x * other).sum(), rel=1e-12)


@pytest.mark.parametrize("kernel, stride, padding, dilation",
                         [(3, 2, 1, 1), (4, 3, 0, 2), (2, 3, "full", 1), (5, 1, "half", 1)])
def test_every_input_size_can_be_restored(kernel, stride, padding, dilation):
    """For every size that a convolution maps to H, there is an output_padding that gives this
    size."""
    window = Window.make(kernel, stride, padding, dilation)
    for size in range(kernel * dilation + stride, 20):
        height, width = window.output_size(size, size)
        found = [extra for extra in range(stride)
                 if window.input_size(height, width, extra) == (size, size)]
        assert len(found) == 1


def test_multiply_adds_and_initial_values():
    layer = xn.ConvTranspose2d(6, (4, 2), stride=2, groups=2).initialize((4, 5, 3))
    assert layer.multiply_adds() == 4 * 5 * 3 * 3 * 8
    layer = xn.ConvTranspose2d(50, 4, stride=2, activation="relu").initialize(
        (100, 5, 5), dtype="float64")
    # 4 of 16 taps coincide with an element of x
    assert np.var(layer.W.data) == pytest.approx(2 / (100 * 4), rel=0.05)


def test_the_variance_of_an_output_is_that_of_the_input():
    """He's initial values: each output is a sum over fan_in elements, so Var(z) = 2 Var(x)."""
    layer = xn.ConvTranspose2d(40, 4, stride=2, init="he_normal").initialize(
        (60, 16, 16), dtype="float64")
    y = layer.forward(normal((60, 16, 16, 1)))
    assert np.var(y[:, 4:-4, 4:-4]) == pytest.approx(2, rel=0.1)


@pytest.mark.parametrize("kernel, stride, sees",
                         [(3, 2, 2), (4, 2, 2), (2, 2, 1), (5, 2, 3), (3, 1, 3)])
def test_receptive_field(kernel, stride, sees):
    """The largest number of rows that an output element depends on, found by changing the input
    rows one by one."""
    net = xn.Sequential([xn.ConvTranspose2d(1, kernel, stride=stride), xn.Conv2d(1, 3)],
                        input_shape=(1, 8, 8), backend="numpy",
                        dtype="float64")
    reached = [[], []]
    for row in range(8):
        x = np.zeros((1, 1, 8, 8))
        x[0, 0, row, 4] = 1
        for value, node in zip(reached, net.nodes):
            value.append(np.abs(net.run([net.batch_last(x)], [node])[0]).sum(axis=(0, 2, 3)) > 0)
    for row, value in zip(rows(net), reached):
        assert row.receptive_field[0] == np.sum(value, axis=0).max(), row.name
    assert rows(net)[0].receptive_field == (sees, sees)


@pytest.mark.parametrize("make, text", [
    (lambda: xn.ConvTranspose2d(0, 3),
     r"ConvTranspose2d: expected filters to be an int, 1 or larger\. Received: filters=0"),
    (lambda: xn.ConvTranspose2d(3, 3, output_padding=1, name="up").initialize((2, 4, 4)),
     r"ConvTranspose2d 'up': expected output_padding smaller than the stride or the dilation\. "
     r"Received: output_padding=1,"),
    (lambda: xn.ConvTranspose2d(3, 3, output_padding=(2, 1), dilation=2).initialize((2, 4, 4)),
     r"smaller than the stride or the dilation\. Received: output_padding=\(2, 1\), stride=\(1, "
     r"1\), dilation=\(2, 2\)"),
    (lambda: xn.ConvTranspose2d(3, 3, stride=2, output_padding=-1).initialize((2, 4, 4)),
     r"expected output_padding to be an int or a pair of ints, 0 or larger\. Received: "
     r"output_padding=-1"),
    (lambda: xn.ConvTranspose2d(3, 3, groups=2).initialize((2, 4, 4)),
     r"ConvTranspose2d: expected groups=2 to divide the channels and the filters\. Received: 2 "
     r"channels, 3 filters"),
    (lambda: xn.ConvTranspose2d(3, 3, padding=2).initialize((2, 1, 2)),
     r"ConvTranspose2d: expected an output of 1x1 at least\. Received: 1x2 with padding \(2, 2, 2, "
     r"2\), which leaves -1x0"),
    (lambda: xn.ConvTranspose2d(3, 3).initialize((7,)),
     r"ConvTranspose2d: expected an input of shape \(channels, height"),
    (lambda: xn.ConvTranspose2d(3, 3, padding=3).initialize((2, 3, 9)),
     r"ConvTranspose2d: expected an output of 1x1 at least\. Received: 3x9 with padding \(3, 3, 3, "
     r"3\), which leaves -1x5"),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()
