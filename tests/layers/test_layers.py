"""The layers without windows: outputs against loops over elements, and errors."""

import copy
import math
import re

import numpy as np
import oracles
import pytest
from hypothesis import given
from hypothesis import strategies as st
from layer_cases import initialized
from oracles import assert_close

import xpnet as xn
from xpnet import PREDICT, SAMPLE, TRAIN
from xpnet.backends.activations import ACTIVATIONS

NAMES = ["relu", "sigmoid", "tanh", "scaled_tanh"]
dtypes = st.sampled_from(["float32", "float64"])
activations = st.sampled_from([None, *NAMES])
sizes = st.integers(1, 5)
maps = st.tuples(sizes, sizes, sizes, sizes)        # (C, H, W, N)


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(layer, *xs, mode="predict"):
    return layer.backend.to_numpy(layer.forward(*map(layer.backend.asarray, xs), mode=mode))


@pytest.mark.parametrize("front", [(), (2,), (2, 3)])
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_products_of_two_values(backend, front, dtype):
    """Against numpy.matmul of batch-first arrays, and its gradients."""
    rng, (M, K, P, N) = np.random.default_rng(0), (3, 4, 5, 6)
    x, z, dy = (rng.standard_normal((*front, *shape, N)).astype(dtype)
                for shape in ((M, K), (K, P), (M, P)))
    layer = xn.MatMul().initialize((*front, M, K), (*front, K, P), backend=backend, dtype=dtype)
    y = layer.forward(backend.asarray(x), backend.asarray(z), mode="train")
    dx, dz = layer.backward(backend.asarray(dy))
    X, Z, dY = (np.moveaxis(a, -1, 0).astype(np.float64) for a in (x, z, dy))
    for found, expected in ((y, X @ Z), (dx, dY @ Z.swapaxes(-1, -2)),
                            (dz, X.swapaxes(-1, -2) @ dY)):
        assert_close(backend.to_numpy(found), np.moveaxis(expected, 0, -1))
    assert layer.multiply_adds() == np.prod(front, dtype=int) * M * K * P


@pytest.mark.parametrize("shapes", [((3,), (3,)), ((3, 4), (5, 2)), ((2, 3, 4), (4, 5)),
                                    ((2, 3, 4), (1, 4, 5))])
def test_matrices_that_do_not_fit(shapes):
    with pytest.raises(ValueError, match="MatMul: expected matrices"):
        xn.MatMul().initialize(*shapes)


# --- features -------------------------------------------------------------------------------------

@given(sizes, sizes, sizes, st.booleans(), activations, dtypes)
def test_linear(backend, units, features, batch, bias, activation, dtype):
    layer = initialized(xn.Linear(units, bias=bias, activation=activation), (features,),
                        backend=backend, dtype=dtype)
    x = normal((features, batch), dtype)
    W = backend.to_numpy(layer.W.data)
    b = backend.to_numpy(layer.b.data) if bias else np.zeros(units)
    assert [p.name for p in layer.parameters] == (["W", "b"] if bias else ["W"])
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, oracles.activation(oracles.linear(x, W, b), activation))


def test_multiply_adds():
    assert xn.Linear(512).initialize((784,)).multiply_adds() == 784 * 512
    assert xn.RBF([[0.0] * 84] * 10).initialize((84,)).multiply_adds() == 840
    assert xn.ReLU().initialize((84,)).multiply_adds() == 0


@given(sizes, sizes, sizes, dtypes)
def test_rbf(backend, classes, features, batch, dtype):
    codes = normal((classes, features), dtype, seed=1).round(1).tolist()
    layer = xn.RBF(codes).initialize((features,), backend=backend, dtype=dtype)
    x = normal((features, batch), dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    # |x|^2 - 2 x c + |c|^2 cancels if x is near c
    assert_close(y, oracles.rbf(x, np.array(codes)), scale=10)
    assert layer.parameters == []  # the codes are kept, but not trained


@given(st.lists(sizes, min_size=2, max_size=4), dtypes)
def test_softmax(backend, shape, dtype):
    layer = xn.Softmax().initialize(tuple(shape[:-1]), backend=backend, dtype=dtype)
    x = 5 * normal(shape, dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, oracles.softmax(x))


def test_linear_with_softmax_is_two_layers(tmp_path):
    """As in Keras: the same network as with the layer Softmax(), trained on the logits."""
    x, y = np.eye(6)[:, :4], np.arange(6) % 3
    nets = [xn.Sequential(layers, input_shape=(4,), backend="numpy", seed=1) for layers in (
        [xn.Linear(3, activation="softmax", init="he_normal", name="classes")],
        [xn.Linear(3, init="he_normal", name="classes"), xn.Softmax()])]
    for net in nets:
        net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.5), epochs=3, verbose=False)
        net.save(tmp_path / "net.safetensors")
        again = xn.load(tmp_path / "net.safetensors", backend="numpy")
        assert [layer.config() for layer in again.layers] == [
            layer.config() for layer in net.layers]
        np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert list(nets[0].layer_names) == ["classes", "softmax1"]
    np.testing.assert_array_equal(nets[0].predict(x), nets[1].predict(x))
    np.testing.assert_allclose(nets[0].predict(x).sum(axis=1), 1, rtol=1e-6)


def test_a_linear_with_softmax_can_be_shared_copied_and_put_on_another_network():
    layer = xn.Linear(3, activation="softmax")
    assert "activation='softmax'" in repr(layer) and repr(copy.copy(layer)) == repr(layer)
    assert layer.config()["activation"] == "softmax"
    a, b = xn.Input((4,), name="a"), xn.Input((4,), name="b")
    net = xn.Network([a, b], [layer(a), layer(b)], backend="numpy")
    assert [node.name for node in net.nodes] == ["linear1", "softmax1", "linear1:2", "softmax1:2"]
    base = xn.Sequential([xn.Linear(8, activation="relu"), xn.Linear(2)], input_shape=(4,),
                         backend="numpy")
    head = base.with_head([xn.Linear(5, activation="softmax")])
    assert list(head.layer_names) == ["linear1", "linear2", "softmax1"]
    assert np.allclose(head.predict(np.ones((2, 4))).sum(axis=1), 1)


def test_softmax_does_not_overflow(backend):
    layer = xn.Softmax().initialize((3,), backend=backend)
    x = np.array([[1e4, -1e4, 3e38], [0, -1e4, 0], [-1e4, 0, 3e38]], np.float32)
    np.testing.assert_allclose(forward(layer, x), [[1, 0, 0.5], [0, 0, 0], [0, 1, 0.5]], atol=1e-7)


# --- elements -------------------------------------------------------------------------------------

@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_activations(backend, name, dtype):
    special = [0, 1, -1, 1e-3, 5, -5, 50, -50, 1000, -1000, np.inf, -np.inf, np.nan]
    x = np.concatenate([special, normal(27)]).astype(dtype).reshape(5, 8)
    y = forward(xn.Activation(name).initialize((5,), backend=backend, dtype=dtype), x)
    assert y.dtype == dtype
    assert_close(y, oracles.activation(x, name))


@pytest.mark.parametrize("layer, name", [(xn.ReLU(), "relu"), (xn.Sigmoid(), "sigmoid"),
                                         (xn.Tanh(), "tanh"),
                                         (xn.ScaledTanh(), "scaled_tanh")])
def test_a_class_for_each_activation(layer, name):
    layer.initialize((5,), dtype="float64")
    x = normal((5, 3))
    np.testing.assert_array_equal(forward(layer, x),
                                  forward(xn.Activation(name).initialize((5,), dtype="float64"), x))


def test_scaled_tanh_is_one_at_one():
    y = forward(xn.ScaledTanh().initialize((2,), dtype="float64"), np.array([[1.0], [-1.0]]))
    np.testing.assert_allclose(y, [[1], [-1]], atol=1e-5)


# --- batch normalisation --------------------------------------------------------------------------

@given(maps.filter(lambda s: math.prod(s[1:]) > 3), activations, dtypes)
def test_batch_norm_in_training(backend, shape, activation, dtype):
    layer = xn.BatchNorm2d(momentum=0.25, eps=1e-3, activation=activation)
    initialized(layer, shape[:3], backend=backend, dtype=dtype)
    gamma, beta = (backend.to_numpy(p.data) for p in layer.parameters)
    x = 3 + 2 * normal(shape, dtype)
    mean, var = oracles.channel_statistics(x)
    y = forward(layer, x, mode=TRAIN)
    assert y.dtype == dtype
    assert_close(y, oracles.activation(oracles.batch_norm(x, gamma, beta, mean, var, 1e-3),
                                       activation))
    n = math.prod(shape[1:])
    assert_close(backend.to_numpy(layer.mean.data), 0.75 * 0 + 0.25 * np.array(mean))
    # unbiased
    assert_close(backend.to_numpy(layer.var.data), 0.75 * 1 + 0.25 * np.array(var) * n / (n - 1))


@given(maps, activations, dtypes)
def test_batch_norm_in_prediction(backend, shape, activation, dtype):
    layer = initialized(xn.BatchNorm2d(eps=1e-3, activation=activation), shape[:3], backend=backend,
                        dtype=dtype)
    gamma, beta = (backend.to_numpy(p.data) for p in layer.parameters)
    mean, var = normal(shape[:1], dtype, seed=5), np.abs(normal(shape[:1], dtype, seed=6))
    layer.mean.data[...], layer.var.data[...] = backend.asarray(mean), backend.asarray(var)
    x = normal(shape, dtype)
    y = forward(layer, x)
    assert y.dtype == dtype
    assert_close(y, oracles.activation(oracles.batch_norm(x, gamma, beta, mean, var, 1e-3),
                                       activation))
    # a prediction changes nothing
    np.testing.assert_array_equal(backend.to_numpy(layer.mean.data), mean)


def test_batch_norm_sampling_is_a_prediction(backend):
    """With dropout on, outputs must not depend on the other samples of the batch."""
    layer = xn.BatchNorm2d().initialize((2, 3, 3), backend=backend, dtype="float64")
    x = 5 + normal((2, 3, 3, 4))
    sampled = forward(layer, x, mode=SAMPLE)
    assert not layer.mean.data.any()
    np.testing.assert_array_equal(sampled, forward(layer, x))


def test_running_statistics_approach_those_of_the_data(backend):
    layer = xn.BatchNorm2d().initialize((1, 4, 4), backend=backend, dtype="float64")
    x = 5 + 3 * normal((1, 4, 4, 8))
    for _ in range(200):
        layer.forward(backend.asarray(x), mode=TRAIN)
    assert float(layer.mean.data[0]) == pytest.approx(x.mean())
    assert float(layer.var.data[0]) == pytest.approx(x.var(ddof=1))


# --- shapes and merges ----------------------------------------------------------------------------

@given(maps, dtypes)
def test_flatten_keeps_the_order_of_each_sample(backend, shape, dtype):
    layer = xn.Flatten().initialize(shape[:3], backend=backend, dtype=dtype)
    x = normal(shape, dtype)
    y = forward(layer, x, mode=TRAIN)
    for n in range(shape[3]):
        np.testing.assert_array_equal(y[:, n], x[..., n].ravel())
    np.testing.assert_array_equal(backend.to_numpy(layer.backward(backend.asarray(y))), x)


@given(maps, st.integers(2, 4), dtypes)
def test_add(backend, shape, count, dtype):
    xs = [normal(shape, dtype, seed) for seed in range(count)]
    y = forward(xn.Add().initialize(*count * [shape[:3]], backend=backend, dtype=dtype), *xs)
    assert y.dtype == dtype
    for at in np.ndindex(shape):
        assert y[at] == pytest.approx(sum(float(x[at]) for x in xs), rel=1e-5, abs=1e-6)


@given(st.lists(sizes, min_size=2, max_size=4), sizes, sizes, dtypes)
def test_concat(backend, channels, size, batch, dtype):
    xs = [normal((C, size, 2, batch), dtype, seed=C) for C in channels]
    layer = xn.Concat().initialize(*(x.shape[:3] for x in xs), backend=backend, dtype=dtype)
    y = forward(layer, *xs, mode=TRAIN)
    rows = iter(y)
    for x in xs:
        for channel in x:
            np.testing.assert_array_equal(next(rows), channel)
    for x, dx in zip(xs, layer.backward(backend.asarray(y)), strict=True):
        np.testing.assert_array_equal(backend.to_numpy(dx), x)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_rescale(backend, dtype):
    """One number, or one for each channel. Bytes give the same bits as dividing them on the
    host."""
    x = normal((3, 4, 5, 2), dtype)
    mean, std = [0.5, -1, 2], [1, 0.25, -3]
    layer = xn.Rescale(mean, std).initialize((3, 4, 5), backend=backend, dtype=dtype)
    y = layer.forward(backend.asarray(x), mode=TRAIN)
    right = (x - np.reshape(mean, (3, 1, 1, 1))) / np.reshape(std, (3, 1, 1, 1))
    np.testing.assert_allclose(backend.to_numpy(y), right, rtol=1e-6, atol=1e-6)
    dx = layer.backward(backend.asarray(x))
    np.testing.assert_allclose(backend.to_numpy(dx), x / np.reshape(std, (3, 1, 1, 1)), rtol=1e-6)
    pixels = np.arange(256, dtype=np.uint8)
    net = xn.Sequential([xn.Rescale(std=255)], input_shape=(1,), backend=backend, dtype=dtype)
    assert np.array_equal(net.predict(pixels[:, None])[:, 0], pixels / np.dtype(dtype).type(255))


@pytest.mark.parametrize("make, text", [
    (lambda: xn.Rescale(std=0), "Rescale: expected a std other than 0. Received: std=0."),
    (lambda: xn.Rescale(std=[1, 0]), "Rescale: expected a std other than 0. Received: std=[1, 0]."),
    (lambda: xn.Rescale("0.5"),
     "Rescale: expected mean to be a finite number. Received: mean='0.5'."),
    (lambda: xn.Rescale([None]),
     "Rescale: expected each of mean to be a finite number. Received: each of mean=None."),
    (lambda: xn.Sequential([xn.Rescale([1, 2])], input_shape=(3, 4, 4), backend="numpy"),
     "Rescale 'rescale1': expected a mean for each of 3 channels. Received: 2."),
])
def test_refusals_of_rescale(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()


# --- errors ---------------------------------------------------------------------------------------

ELEMENTWISE = "expected activation to be an elementwise function"
NAMED = f"expected activation to be one of None, {', '.join(ACTIVATIONS)}"
INIT = ("expected init to be one of None, zeros, ones, he_normal, lecun_normal, glorot_uniform, "
        "lecun_uniform")
SAMPLE_SHAPE = "expected the shape of one sample, e.g. (1, 28, 28), for each input. Received: "


@pytest.mark.parametrize("action, text", [
    (lambda: xn.Linear(0), "Linear: expected units to be an int, 1 or larger. Received: units=0."),
    (lambda: xn.Linear(10.0),
     "Linear: expected units to be an int, 1 or larger. Received: units=10.0."),
    (lambda: xn.Linear(10, activation="glue"),
     f"Linear: {NAMED}, perhaps \"gelu\". Received: activation='glue'."),
    (lambda: xn.Linear(10, init="normal"),
     f"Linear: {INIT}, perhaps \"he_normal\". Received: init='normal'."),
    (lambda: xn.Linear(10, name="out").initialize((8, 4, 4)),
     "Linear 'out': expected a vector of features per sample; put Flatten() before it. Received: "
     "input shape (8, 4, 4)."),
    (lambda: xn.RBF([]), "RBF: expected codes to be lists of numbers of one length, one for each "
                         "class. Received: codes=[]."),
    (lambda: xn.RBF([[1, 2], [1]]), "RBF: expected codes to be lists of numbers of one length, one "
                                    "for each class. Received: codes=[[1, 2], [1]]."),
    (lambda: xn.RBF([[1, 2]]).initialize((3,)),
     "RBF: expected 2 features, the length of a code. Received: input shape (3,)."),
    (lambda: xn.RBF([[1, 2]]).initialize((2, 1, 1)),
     "RBF: expected 2 features, the length of a code. Received: input shape (2, 1, 1)."),
    (lambda: xn.Activation("rleu"),
     f"Activation: {NAMED}, perhaps \"relu\". Received: activation='rleu'."),
    (lambda: xn.Activation(None, name="a"),
     "Activation 'a': expected the name of an activation. Received: None."),
    (lambda: xn.BatchNorm2d(activation="softmax"),
     f"BatchNorm2d: {ELEMENTWISE}; Softmax() is a layer of its own. Received: "
     "activation='softmax'."),
    (lambda: xn.Linear(3, activation="softmax").initialize((4,)),
     'Linear: expected activation="softmax" in a call of the layer in a graph, which adds the '
     "layer Softmax() after it. Received: a layer that is built otherwise."),
    (lambda: xn.Linear(3, activation="log_softmax"),
     f"Linear: {ELEMENTWISE}; LogSoftmax() is a layer of its own. Received: "
     "activation='log_softmax'."),
    (lambda: xn.Activation("GLU"),
     f"Activation: {ELEMENTWISE}; GLU() is a layer of its own. Received: activation='GLU'."),
    (lambda: xn.BatchNorm2d(eps=-1e-5),
     "BatchNorm2d: expected eps to be a number, 0 or larger. Received: eps=-1e-05."),
    (lambda: xn.BatchNorm2d(eps=math.nan),
     "BatchNorm2d: expected eps to be a number, 0 or larger. Received: eps=nan."),
    (lambda: xn.BatchNorm2d(momentum="0.9"),
     "BatchNorm2d: expected momentum to be a number, 0 or larger. Received: momentum='0.9'."),
    (lambda: xn.BatchNorm2d().initialize((10,)),
     "BatchNorm2d: expected an input of shape (channels, height, width) per sample. Received: "
     "input shape (10,)."),
    (lambda: xn.Dropout(1),
     "Dropout: expected p to be a number, 0 or larger, below 1. Received: p=1."),
    (lambda: xn.Dropout(-0.1),
     "Dropout: expected p to be a number, 0 or larger, below 1. Received: p=-0.1."),
    (lambda: xn.Dropout(math.nan),
     "Dropout: expected p to be a number, 0 or larger, below 1. Received: p=nan."),
    (lambda: xn.Dropout(True),
     "Dropout: expected p to be a number, 0 or larger, below 1. Received: p=True."),
    (lambda: xn.Dropout("half"),
     "Dropout: expected p to be a number, 0 or larger, below 1. Received: p='half'."),
    (lambda: xn.Add().initialize((3, 4, 4)),
     "Add: expected two or more inputs of one shape, of which an axis may be 1. Received: "
     "[(3, 4, 4)]."),
    (lambda: xn.Add().initialize((3, 4, 4), (4, 4, 4)),
     "Add: expected two or more inputs of one shape, of which an axis may be 1. Received: "
     "[(3, 4, 4), (4, 4, 4)]."),
    (lambda: xn.Concat().initialize((3,)),
     "Concat: expected two or more inputs that differ in axis 0 only. Received: [(3,)]."),
    (lambda: xn.Concat().initialize((3, 4, 4), (3, 4, 5)),
     "Concat: expected two or more inputs that differ in axis 0 only. Received: [(3, 4, "
     "4), (3, 4, 5)]."),
    (lambda: xn.Concat().initialize((3,), (3, 4, 4)),
     "Concat: expected two or more inputs that differ in axis 0 only. Received: [(3,), "
     "(3, 4, 4)]."),
    (lambda: xn.ReLU().initialize(), "ReLU: expected 1 input(s). Received: 0."),
    (lambda: xn.Conv2d(8, 3, name="c").initialize((3, 8, 8), (3, 8, 8)),
     "Conv2d 'c': expected 1 input(s). Received: 2."),
    (lambda: xn.Conv2d(8, 3).initialize(3, 8, 8), f"Conv2d: {SAMPLE_SHAPE}3."),
    (lambda: xn.Linear(8).initialize((0,)), f"Linear: {SAMPLE_SHAPE}(0,)."),
    (lambda: xn.Linear(8).initialize(()), f"Linear: {SAMPLE_SHAPE}()."),
    (lambda: xn.Linear(8).initialize("8"), f"Linear: {SAMPLE_SHAPE}'8'."),
    (lambda: xn.Linear(8).initialize((8.0,)), f"Linear: {SAMPLE_SHAPE}(8.0,)."),
    (lambda: xn.Linear(8).initialize((8,), dtype="int32"),
     "Linear: expected dtype float32 or float64. Received: dtype='int32'."),
], ids=lambda value: value[:60] if isinstance(value, str) else "")
def test_errors(action, text):
    with pytest.raises(ValueError) as error:
        action()
    assert str(error.value) == text


def test_batch_norm_of_a_single_element_per_channel():
    layer = xn.BatchNorm2d(name="bn").initialize((3, 1, 1))
    x = np.ones((3, 1, 1, 1), np.float32)
    with pytest.raises(ValueError) as error:
        layer.forward(x, mode=TRAIN)
    assert str(error.value) == ("BatchNorm2d 'bn': expected more than one element per channel in "
                                "training. Received: an array of shape (3, 1, 1, 1).")
    for mode in (PREDICT, SAMPLE):                      # layers without batch statistics
        assert layer.forward(x, mode=mode).shape == x.shape
    assert layer.forward(np.ones((3, 1, 1, 2), np.float32), mode=TRAIN).shape == (3, 1, 1, 2)


def test_an_unknown_mode():
    layer = xn.ReLU(name="r").initialize((3,))
    with pytest.raises(ValueError) as error:
        layer.forward(np.ones((3, 2), np.float32), mode="training")
    assert (str(error.value) == "ReLU 'r': expected mode to be 'predict', 'train' or 'sample'. "
                                "Received: mode='training'.")


def test_calling_a_layer_with_arrays():
    layer = xn.Linear(3, name="out")
    for inputs, received in (((np.ones((2, 4)),), "ndarray"), ((), "nothing"),
                             ((xn.Input((4,)), 5), "Node, int")):
        with pytest.raises(TypeError) as error:
            layer(*inputs)
        assert str(error.value) == (f"Linear 'out': expected symbolic inputs, from Input(...) or "
                                    f"another layer. Received: {received}. To compute with arrays, "
                                    f"call a network, or the layer's forward.")


@pytest.mark.parametrize("method", ["build", "forward", "backward"])
def test_a_subclass_without_a_method(method):
    with pytest.raises(NotImplementedError, match=rf"^Layer: expected a method {method}\("):
        getattr(xn.Layer(), method)((3,))
