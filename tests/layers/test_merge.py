"""Merging and reordering layers: outputs against loops over elements, gradients of maxima,
errors."""

import json
import math

import numpy as np
import pytest
from oracles import assert_close

import xpnet as xn
from xpnet.backends.activations import ACTIVATIONS
from xpnet.testing import check_gradients

every_float = pytest.mark.parametrize("dtype", ["float32", "float64"])
MERGES = {"Add": math.fsum, "Average": lambda v: math.fsum(v) / len(v), "Multiply": math.prod,
          "Maximum": max, "Minimum": min,
          "Subtract": lambda v: v[0] - v[1]}


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def run(layer, xs, dy=None):
    """The output, or the gradients for a dY, on the host."""
    y = layer.forward(*map(layer.backend.asarray, xs), mode="predict" if dy is None else "train")
    results = y if dy is None else layer.backward(layer.backend.asarray(dy))
    return ([layer.backend.to_numpy(a) for a in results] if isinstance(results, tuple)
            else layer.backend.to_numpy(results))


# --- merging --------------------------------------------------------------------------------------

@pytest.mark.parametrize("name, count", [(name, count) for name in MERGES for count in (2, 3, 4)
                                         if name != "Subtract" or count == 2])
@every_float
def test_merges(plain_backend, name, count, dtype):
    xs = [normal((2, 3, 2, 4), dtype, seed=k) for k in range(count)]
    layer = getattr(xn, name)().initialize(*[(2, 3, 2)] * count, backend=plain_backend, dtype=dtype)
    y = run(layer, xs)
    assert y.dtype == dtype
    expected = [MERGES[name]([float(v) for v in values]) for values in zip(*(x.flat for x in xs))]
    assert_close(y, np.reshape(expected, y.shape))
    check_gradients(getattr(xn, name)(), *[(5,)] * count, backend=plain_backend)


@pytest.mark.parametrize("name", MERGES)
def test_axes_of_size_1_are_repeated(plain_backend, name):
    """As if the smaller input were repeated; its gradient is the sum over the repetitions."""
    shapes = [(2, 3, 4), (2, 1, 1)] if name == "Subtract" else [(2, 3, 4), (2, 1, 1), (1, 3, 4)]
    xs = [normal((*shape, 5), seed=k) for k, shape in enumerate(shapes)]
    full = [np.broadcast_to(x, (2, 3, 4, 5)) for x in xs]
    dy = normal((2, 3, 4, 5), seed=9)
    small, large = (getattr(xn, name)().initialize(
        *(x.shape[:-1] for x in some), backend=plain_backend, dtype="float64")
        for some in (xs, full))
    np.testing.assert_array_equal(run(small, xs), run(large, full))
    for dx, whole, x in zip(run(small, xs, dy), run(large, full, dy), xs):
        axes = tuple(axis for axis in range(3) if x.shape[axis] == 1)
        assert dx.shape == x.shape
        np.testing.assert_allclose(dx, whole.sum(axis=axes, keepdims=True), rtol=1e-12)


def test_a_zero_in_a_product_does_not_remove_the_gradients_of_the_others(plain_backend):
    layer = xn.Multiply().initialize((1,), (1,), (1,), backend=plain_backend, dtype="float64")
    xs = [np.array([[a]]) for a in (0.0, 3.0, -2.0)]
    np.testing.assert_array_equal(np.ravel(run(layer, xs, np.array([[1.0]]))), [-6, 0, 0])


@pytest.mark.parametrize("name, wins",
                         [("Maximum", [0, 1, 2, 0, 1, 0]), ("Minimum", [1, 0, 0, 0, 1, 0])])
def test_the_gradient_goes_to_the_largest_element(plain_backend, name, wins):
    """To the first of equal elements, to the first NaN, and always to exactly one element."""
    nan = math.nan
    xs = [np.array([row]).T
          for row in ([3.0, 1, 1, 2, 1, nan], [2.0, 4, 4, 2, nan, nan], [2.5, 2, 5, 2, 3, 0])]
    layer = getattr(xn, name)().initialize((6,), (6,), (6,), backend=plain_backend, dtype="float64")
    dxs = run(layer, xs, np.arange(1.0, 7)[:, None])
    for i, winner in enumerate(wins):
        assert [dx[i, 0] for dx in dxs] == [i + 1 if k == winner else 0 for k in range(3)]
    np.testing.assert_array_equal(run(layer, xs).ravel()[4:], [nan, nan])


@pytest.mark.parametrize("activation", sorted(ACTIVATIONS))
def test_a_sum_with_an_activation_has_the_bits_of_two_layers(backend, activation):
    """Forward and backward, for two inputs and for three."""
    for count in (2, 3):
        xs = [2 * normal((3, 4, 2, 5), "float32", seed=k) for k in range(count)]
        dy = normal(xs[0].shape, "float32", seed=9)
        shape = xs[0].shape[:-1]
        alone, f = (layer.initialize(*shapes, backend=backend) for layer, shapes in (
            (xn.Add(), [shape] * count), (xn.Activation(activation), [shape])))
        both = xn.Add(activation=activation).initialize(*[shape] * count, backend=backend)
        z = run(alone, xs)
        assert run(both, xs).tobytes() == run(f, [z]).tobytes()
        dxs, dz = run(both, xs, dy), run(f, [z], dy)
        assert len(dxs) == count and {dx.tobytes() for dx in dxs} == {dz.tobytes()}


@pytest.mark.parametrize("activation", ["relu", "tanh", "leaky_relu", "gelu"])
@pytest.mark.parametrize("count", [2, 3, 4])
def test_a_sum_with_an_activation(plain_backend, activation, count):
    """Element by element: fsum, then the formula in the docstring of the activation."""
    xs = [normal((2, 3, 2, 4), seed=k) for k in range(count)]
    layer = xn.Add(activation=activation).initialize(*[(2, 3, 2)] * count, backend=plain_backend,
                                                     dtype="float64")
    sums = np.reshape([math.fsum(values) for values in zip(*(x.flat for x in xs))], xs[0].shape)
    formula = {"relu": lambda z: max(z, 0.0), "tanh": math.tanh,
               "leaky_relu": lambda z: z if z > 0 else 0.01 * z,
               "gelu": lambda z: z * (1 + math.erf(z / math.sqrt(2))) / 2}[activation]
    assert_close(run(layer, xs), np.vectorize(formula)(sums))
    check_gradients(xn.Add(activation=activation), *[(5,)] * count, backend=plain_backend)


def test_a_sum_with_an_activation_keeps_one_array():
    """Y, or Z if the derivative is written with it; nothing without an activation."""
    for activation, expected in ((None, None), ("relu", 0.0), ("gelu", -2.0)):
        layer = xn.Add(activation=activation).initialize((3,), (3,), backend="numpy")
        x = np.full((3, 2), -1, np.float32)
        layer.forward(x, x, mode="train")
        kept, = layer.take()
        assert kept is None if expected is None else (kept == expected).all()


def test_two_branches_that_get_one_gradient_do_not_change_each_others(plain_backend):
    """Y = relu(X + X), where the value is read once more: dX = 3 where it is positive."""
    x = xn.Input((4,))
    h = xn.Linear(4, name="h")(x)
    outputs = [xn.Add(activation="relu", name="twice")(h, h), xn.Identity(name="once")(h)]
    net = xn.Network(x, outputs, backend=plain_backend, dtype="float64")
    net.layers[0].W.data[...] = plain_backend.asarray(np.eye(4))
    a = plain_backend.asarray(np.array([[1.0, -1, 2, -2]]).T)
    net.run([a], net.outs.nodes, "train")
    ones = plain_backend.asarray(np.ones((4, 1)))
    net.run_backward([(node, ones) for node in net.outs.nodes])
    np.testing.assert_array_equal(plain_backend.to_numpy(net.layers[0].b.grad), [3, 1, 3, 1])
    np.testing.assert_array_equal(plain_backend.to_numpy(ones), 1)


@pytest.mark.parametrize("axis", [0, 1, 2])
def test_concat_along_each_axis(plain_backend, axis):
    """Element by element; sizes differ along the axis, and each dX is the part of dY at its
    place."""
    shapes = [tuple(n if a == axis else size for a, size in enumerate((2, 3, 4)))
              for n in (1, 3, 2)]
    xs = [normal((*shape, 5), seed=k) for k, shape in enumerate(shapes)]
    layer = xn.Concat(axis).initialize(*shapes, backend=plain_backend, dtype="float64")
    y, stop = run(layer, xs), 0
    for x in xs:
        for index in np.ndindex(x.shape):
            there = [*index]
            there[axis] += stop
            assert y[tuple(there)] == x[index]
        stop += x.shape[axis]
    assert y.shape == (*layer.out_shape, 5) and y.shape[axis] == stop == 6
    for dx, x in zip(run(layer, xs, y), xs, strict=True):
        np.testing.assert_array_equal(dx, x)


def test_a_concat_along_another_axis_is_saved(tmp_path):
    a, b = xn.Input((2, 3)), xn.Input((2, 4))
    net = xn.Network([a, b], xn.Concat(1)(a, b), backend="numpy")
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    xs = normal((5, 2, 3)), normal((5, 2, 4), seed=1)
    np.testing.assert_array_equal(again.predict(list(xs)),
                                  np.concatenate(xs, axis=2).astype("float32"))


def test_operators_are_layers():
    """a + b, a - b and a * b, also of one value with itself."""
    a, b = xn.Input((3,), name="a"), xn.Input((3,), name="b")
    net = xn.Network([a, b], [a + b, a - b, a * b, a * a], backend="numpy", dtype="float64")
    assert [layer.name for layer in net.layers] == ["add1", "subtract1", "multiply1", "multiply2"]
    assert [type(layer) for layer in net.layers] == [xn.Add, xn.Subtract, xn.Multiply, xn.Multiply]
    x, y = normal((4, 3)), normal((4, 3), seed=1)
    for result, expected in zip(net.predict([x, y]), (x + y, x - y, x * y, x * x), strict=True):
        np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("make, text", [
    (lambda a: a + 2, "Add: .* around '\\+'.* Received: int"),
    (lambda a: 2 + a, "Add: .* around '\\+'.* Received: int"),
    (lambda a: np.ones(3) - a, r"Subtract: .*Rescale\(mean, std\).* Received: ndarray"),
    (lambda a: np.float32(2) * a, r"Multiply: .*Rescale\(mean, std\).* Received: float32"),
    (lambda a: a * None, "Multiply: .*Received: NoneType"),
    (lambda a: sum([a, a]), "Add: .*Received: int"),
    (lambda a: a / a, "unsupported operand"),
])
def test_operators_take_two_values_of_a_graph(make, text):
    with pytest.raises(TypeError, match=text) as caught:
        make(xn.Input((3,)))
    assert "\n" not in str(caught.value)


# --- other shapes ---------------------------------------------------------------------------------

@pytest.mark.parametrize("shape, expected",
                         [((24,), (24,)), ((4, -1), (4, 6)), ((2, 3, 4, 1), (2, 3, 4, 1)),
                          ([-1], (24,))])
def test_reshape(plain_backend, shape, expected):
    layer = xn.Reshape(shape).initialize((2, 3, 4), backend=plain_backend, dtype="float64")
    x = normal((2, 3, 4, 5))
    y = run(layer, [x])
    assert layer.out_shape == expected
    for n in range(5):
        np.testing.assert_array_equal(y[..., n].ravel(), x[..., n].ravel())
    np.testing.assert_array_equal(run(layer, [x], y), x)


@pytest.mark.parametrize("start, stop, axis", [(0, 1, 0), (1, None, 1), (-3, -1, 2), (-1, None, 0),
                                               (0, None, 1), (1, 2, 1), (0, 4, 2)])
def test_slice(plain_backend, start, stop, axis):
    layer = xn.Slice(start, stop, axis=axis).initialize((2, 3, 4), backend=plain_backend,
                                                        dtype="float64")
    x = normal((2, 3, 4, 5))
    kept = [*range(x.shape[axis])][start:stop]
    assert layer.out_shape == np.take(x, kept, axis).shape[:-1]
    y = run(layer, [x])
    np.testing.assert_array_equal(y, np.take(x, kept, axis))
    dx = run(layer, [x], y)
    np.testing.assert_array_equal(np.take(dx, kept, axis), y)
    np.testing.assert_array_equal(np.delete(dx, kept, axis), 0)


@pytest.mark.parametrize("parts, axis, sizes", [(3, 0, [2, 2, 2]), ([1, 4], 1, [1, 4]),
                                                (np.array([3, 2, 1]), 0, [3, 2, 1]), (1, 1, [5])])
def test_split_and_concat(plain_backend, parts, axis, sizes):
    """The parts joined are the value itself, and so is the gradient."""
    x = xn.Input((6, 5))
    values = xn.split(x, parts, axis)
    assert [value.shape[axis] for value in values] == sizes
    y = xn.Concat(axis)(*values) if len(values) > 1 else values[0]
    net = xn.Network(x, y, backend=plain_backend, dtype="float64")
    a = normal((6, 5, 2))
    on_backend = plain_backend.asarray(a)
    net.run([on_backend], net.outs.nodes, "train")
    dx, = net.run_backward([(net.outs.nodes[0], on_backend)], to_inputs=True)
    np.testing.assert_array_equal(plain_backend.to_numpy(dx), a)
    each = xn.Network(x, xn.split(x, parts, axis), backend=plain_backend, dtype="float64")
    found = each.predict(np.moveaxis(a, -1, 0))
    for part, expected in zip(found, np.split(a, np.cumsum(sizes)[:-1], axis), strict=True):
        np.testing.assert_array_equal(part, np.moveaxis(expected, -1, 0))


@pytest.mark.parametrize("axes", [(0, 1, 2), (2, 0, 1), (1, 2, 0), [0, 2, 1]])
def test_permute(plain_backend, axes):
    layer = xn.Permute(axes).initialize((2, 3, 4), backend=plain_backend, dtype="float32")
    x = normal((2, 3, 4, 5), "float32")
    y = run(layer, [x])
    for index in np.ndindex(*layer.out_shape):
        there = [0, 0, 0]
        for place, axis in zip(index, axes):
            there[axis] = place
        np.testing.assert_array_equal(y[index], x[tuple(there)])
    np.testing.assert_array_equal(run(layer, [x], y), x)


def test_channel_shuffle(plain_backend):
    layer = xn.ChannelShuffle(2).initialize((6, 1, 1), backend=plain_backend, dtype="float64")
    x = np.arange(6.0).reshape(6, 1, 1, 1)
    np.testing.assert_array_equal(run(layer, [x]).ravel(), [0, 3, 1, 4, 2, 5])
    np.testing.assert_array_equal(run(layer, [x], run(layer, [x])), x)


def test_after_a_shuffle_every_group_depends_on_every_channel(plain_backend):
    """Each of two convolutions with groups reads a part of the channels; with a shuffle in between,
    the second depends on all of them."""
    for shuffle, sees in ((xn.ChannelShuffle(1), 4), (xn.ChannelShuffle(2), 8)):
        net = xn.Sequential([xn.Conv2d(8, 1, groups=2), shuffle, xn.Conv2d(8, 1, groups=2)],
                            input_shape=(8, 1, 1), backend=plain_backend, dtype="float64")
        at = [net.predict(np.zeros((1, 8, 1, 1)))] + [
            net.predict(np.eye(8)[c].reshape(1, 8, 1, 1)) for c in range(8)]
        assert sum(bool(y[0, 0] != at[0][0, 0]) for y in at[1:]) == sees


def test_from_features_to_an_image():
    """A decoder: features, feature maps, and larger feature maps."""
    net = xn.Sequential([xn.Linear(32, activation="relu"), xn.Reshape((8, 2, 2)),
                         xn.ConvTranspose2d(4, 4, stride=2, padding=1),
                         xn.Upsample2d(2), xn.Conv2d(1, 3, padding="half")], input_shape=(5,),
                        backend="numpy")
    assert net.predict(normal((3, 5))).shape == (3, 1, 8, 8)


def test_settings_survive_json():
    add = xn.Add(**json.loads(json.dumps(xn.Add(activation="relu", name="a").config())))
    assert (add.activation, add.name) == ("relu", "a")
    for layer, shape in ((xn.Reshape((4, -1)), (6, 2)), (xn.Permute((1, 0)), (6, 2)),
                         (xn.ChannelShuffle(3), (6, 2, 2)), (xn.Slice(-3, 5), (6,)),
                         (xn.Slice(1, axis=1), (6, 2))):
        again = type(layer)(**json.loads(json.dumps(layer.config())))
        assert again.initialize(shape).out_shape == layer.initialize(shape).out_shape


@pytest.mark.parametrize("make, text", [
    (lambda: xn.Add(activation="rely"),
     r'Add: expected activation .*, perhaps "relu"\. Received: activation=\'rely\''),
    (lambda: xn.Multiply().initialize((3,)),
     r"Multiply: expected two or more inputs of one shape, of which an axis may be 1\. "
     r"Received: \[\(3,\)\]"),
    (lambda: xn.Maximum(name="m").initialize((3,), (4,)),
     r"Maximum 'm': expected two or more inputs of one shape, of which an axis may be 1\. "
     r"Received: "),
    (lambda: xn.Subtract().initialize((3,), (4,)),
     r"Subtract: expected two or more inputs of one shape"),
    (lambda: xn.Subtract().initialize((3,), (3,), (3,)),
     r"Subtract: expected 2 input\(s\)\. Received: 3"),
    (lambda: xn.Concat(-1), r"Concat: expected axis to be an int, 0 or larger\. Received: axis=-1"),
    (lambda: xn.Concat(1).initialize((3,), (3,)),
     r"Concat: expected samples that have an axis 1\. Received: input shape \(3,\)"),
    (lambda: xn.Concat(1).initialize((3, 4), (2, 4)),
     r"Concat: expected two or more inputs that differ in axis 1 only\. Received: \[\(3, 4\), "),
    (lambda: xn.Input((3,)) + xn.Input((4,)),
     r"Add 'add1': expected two or more inputs of one shape"),
    (lambda: xn.Reshape((2, -1, -1)),
     r"Reshape: expected shape to be ints, 1 or larger, of which one may be -1"),
    (lambda: xn.Reshape((2, 0)), r"Reshape: expected shape to be ints.*shape=\(2, 0\)"),
    (lambda: xn.Reshape(24), r"Reshape: expected shape to be ints.*shape=24"),
    (lambda: xn.Reshape((5, -1)).initialize((2, 3, 4)),
     r"Reshape: expected an input with as many elements as shape=\(5, -1\)\. Received: input shape "
     r"\(2, 3, 4\)"),
    (lambda: xn.Slice(0.5), "Slice: expected start to be an int"),
    (lambda: xn.Slice(0, "2"), "Slice: expected stop to be an int"),
    (lambda: xn.Slice(0, axis=-1), "Slice: expected axis to be an int, 0 or larger"),
    (lambda: xn.Slice(0, axis=1).initialize((3,)),
     r"Slice: expected samples that have an axis 1\. Received: input shape \(3,\)"),
    *[(lambda part=part: xn.Slice(*part).initialize((3,)),
       rf"Slice: expected a part of the 3 elements of axis 0\. Received: start={part[0]}, "
       rf"stop={part[1]}\.") for part in ((3, None), (2, 2), (2, 1), (0, 4), (-4, 2), (0, -3))],
    *[(lambda parts=parts: xn.split(xn.Input((6,)), parts), "split: expected parts to ")
      for parts in (4, 0, [3, 2], [], [6, 0], [7, -1], [1.5, 4.5], "3", None)],
    (lambda: xn.split(xn.Input((6,)), 2, 1), r"split: expected a value with an axis 1\. Received: "
                                             r"shape \(6,\)"),
    (lambda: xn.Permute((1, 2)), r"Permute: expected axes to be 0, 1, \.\.\. in some order, each "
                                 r"once\. Received: axes=\(1, 2\)"),
    (lambda: xn.Permute((1, 0)).initialize((2, 3, 4)),
     r"Permute: expected an input of 2 axes, as many as in axes=\(1, 0\)"),
    (lambda: xn.ChannelShuffle(4).initialize((6, 2, 2)),
     r"ChannelShuffle: expected groups=4 to divide the channels"),
    (lambda: xn.ChannelShuffle(0), r"ChannelShuffle: expected groups to be an int, 1 or larger"),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=text):
        make()
