"""Activations with parameters, random slopes or gates, and softmax: against loops, refused where
they are not allowed, trained, saved, captured."""

import re

import numpy as np
import pytest
from gpu_cases import pretended
from layer_cases import initialized
from nets import same, values
from oracles import assert_close

import xpnet as xn
from xpnet import TRAIN
from xpnet.inspect.summary import summary
from xpnet.testing import check_gradients

both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(layer, x, mode="predict"):
    return layer.backend.to_numpy(layer.forward(layer.backend.asarray(x), mode=mode))


@both_types
@pytest.mark.parametrize("per_channel", [False, True])
def test_prelu(backend, per_channel, dtype):
    layer = initialized(xn.PReLU(per_channel=per_channel), (3, 2, 2), backend=backend, dtype=dtype)
    a = backend.to_numpy(layer.a.data)
    assert a.shape == ((3,) if per_channel else (1,)) and not layer.a.decay
    x = normal(3, 2, 2, 4, dtype=dtype)
    right = [[float(v) * (1 if v > 0 else float(a[c % len(a)])) for v in x[c].flat]
             for c in range(3)]
    assert_close(forward(layer, x), np.reshape(right, x.shape))


def test_the_initial_slope_of_prelu():
    layer = xn.PReLU(slope=0.1).initialize((3,), dtype="float64")
    np.testing.assert_array_equal(forward(layer, np.array([[-2.0], [0], [2]])), [[-0.2], [0], [2]])
    x = np.array([[-2.0], [0], [2]])
    layer.forward(x, mode=TRAIN)
    # as PyTorch at 0
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), [[0.1], [0.1], [1]])
    assert layer.a.grad.tolist() == [-2]


@pytest.mark.parametrize("layer, inputs", [
    (lambda: xn.PReLU(per_channel=True), (np.linspace(-2.3, 2.4, 24).reshape(3, 2, 4),)),
    (lambda: xn.Swish(0.7, learned=True), None),
    (lambda: xn.Swish(0.7), None),
    (lambda: xn.Maxout(3),
     (np.random.default_rng(3).permuted(np.linspace(-2, 2, 24)).reshape(3, 2, 4),)),
    (lambda: xn.Softmax(1), None),
    (lambda: xn.Softmax(0, 2.5), None),
    (lambda: xn.Softmax(1, 0.3), None),
    (lambda: xn.LogSoftmax(1), None),
])
def test_gradients_of_other_settings(backend, layer, inputs):
    check_gradients(layer(), (3, 2), batch=4, backend=backend, inputs=inputs)


@both_types
def test_the_initial_swish_is_the_fixed_one(backend, dtype):
    x = normal(5, 4, dtype=dtype)
    fixed, learned = (xn.Swish(1.5, learned).initialize((5,), backend=backend, dtype=dtype)
                      for learned in (False, True))
    assert fixed.parameters == [] and [p.shape for p in learned.parameters] == [(1,)]
    assert_close(forward(learned, x), forward(fixed, x))


@both_types
def test_rrelu(backend, dtype):
    """Different slopes between the two bounds, the same on every backend and for the same step. A
    prediction uses their mean."""
    layer = xn.RReLU(0.1, 0.5).initialize((50,), backend=backend, dtype=dtype)
    x = -1 - np.abs(normal(50, 40, dtype=dtype))
    slopes = forward(layer, x, TRAIN) / x
    assert 0.1 < slopes.min() < 0.11 and 0.49 < slopes.max() < 0.5
    assert abs(slopes.mean() - 0.3) < 0.01 and abs(slopes.std() - 0.4 / 12**0.5) < 0.005
    assert_close(slopes, 0.1 + 0.4 * np.random.Philox(key=[0, 0], counter=[0, 0, 0, 0]).random_raw(
        1000).view("<u4").reshape(50, 40) / 2**32)
    np.testing.assert_allclose(backend.to_numpy(layer.backward(backend.asarray(np.ones_like(x)))),
                               slopes, rtol=1e-6)
    assert_close(forward(layer, x, TRAIN), slopes * x)
    assert_close(forward(layer, x), 0.3 * x.astype(np.float64))
    np.testing.assert_array_equal(forward(layer, -x), -x)
    layer.recall()
    layer.update(xn.SGD(0.1))
    assert abs(forward(layer, x, TRAIN) / x - slopes).max() > 0.1


@both_types
def test_crelu(backend, dtype):
    x = normal(3, 2, 4, dtype=dtype)
    layer = xn.CReLU().initialize((3, 2), backend=backend, dtype=dtype)
    y = forward(layer, x, TRAIN)
    for c, h, n in np.ndindex(x.shape):
        assert (y[c, h, n], y[3 + c, h, n]) == (max(x[c, h, n], 0), max(-x[c, h, n], 0))
    dx = backend.to_numpy(layer.backward(backend.asarray(y)))
    np.testing.assert_array_equal(dx, x)


@both_types
def test_gain(backend, dtype):
    layer = initialized(xn.Gain(), (3, 2), backend=backend, dtype=dtype)
    x, g = normal(3, 2, 4, dtype=dtype), backend.to_numpy(layer.g.data)
    assert_close(forward(layer, x),
                 np.stack([float(g[c]) * x[c].astype(np.float64) for c in range(3)]))
    assert xn.Gain().initialize((3,)).g.data.tolist() == [1, 1, 1]


@pytest.mark.parametrize("shape", [None, (3, 1, 2), (1, 4, 1), (3, 4, 2), (1, 1, 1)])
def test_trained_arrays_are_broadcast(shape):
    """Against NumPy's broadcasting; the gradient of the array is the sum over its repetitions."""
    rng = np.random.default_rng(0)
    x, dy = rng.standard_normal((2, 3, 4, 2, 5))
    full = (3, 1, 1) if shape is None else shape
    a = rng.standard_normal(full)
    axes = (*(k for k in range(3) if full[k] == 1 and x.shape[k] > 1), 3)
    for kind, name, y, dx, terms in ((xn.Gain, "g", a[..., None] * x, a[..., None] * dy, dy * x),
                                     (xn.Shift, "b", a[..., None] + x, dy, dy)):
        layer = kind(shape).initialize((3, 4, 2), dtype="float64")
        p = getattr(layer, name)
        assert not p.decay
        p.data[...] = a.reshape(p.shape)
        np.testing.assert_allclose(layer.forward(x, mode="train"), y)
        np.testing.assert_allclose(layer.backward(dy), dx)
        np.testing.assert_allclose(p.grad, terms.sum(axis=axes, keepdims=True).reshape(p.shape))


@pytest.mark.parametrize("kind", [xn.Gain, xn.Shift])
@pytest.mark.parametrize("shape", [(3,), (2, 4, 2), (3, 4, 2, 1)])
def test_trained_arrays_that_do_not_fit(kind, shape):
    with pytest.raises(ValueError, match="expected shape to be that of a sample"):
        kind(shape).initialize((3, 4, 2))


@both_types
def test_maxout(backend, dtype):
    x = normal(6, 2, 5, dtype=dtype)
    y = forward(xn.Maxout(3).initialize((6, 2), backend=backend, dtype=dtype), x)
    assert y.shape == (2, 2, 5)
    for c, h, n in np.ndindex(y.shape):
        assert y[c, h, n] == max(x[3 * c + p, h, n] for p in range(3))


def test_maxout_of_equal_values_and_nans(backend):
    """The first of equal values wins, and a NaN wins over every number."""
    layer = xn.Maxout(3).initialize((3,), backend=backend, dtype="float64")
    x = np.array([[1, 2, 0, 4], [1, 2, np.nan, 3], [0, 2, 5, 4.0]])
    np.testing.assert_array_equal(forward(layer, x, TRAIN), [[1, 2, np.nan, 4]])
    dx = backend.to_numpy(layer.backward(backend.asarray(np.array([[1.0, 2, 3, 4]]))))
    np.testing.assert_array_equal(dx, [[1, 2, 0, 4], [0, 0, 3, 0], [0, 0, 0, 0]])


@both_types
def test_glu(backend, dtype):
    x = normal(6, 2, 3, dtype=dtype)
    y = forward(xn.GLU().initialize((6, 2), backend=backend, dtype=dtype), x)
    assert_close(y, x[:3].astype(np.float64) / (1 + np.exp(-x[3:].astype(np.float64))))


# --- softmax --------------------------------------------------------------------------------------

@both_types
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_softmax_along_an_axis(backend, axis, temperature, dtype):
    x = 3 * normal(3, 4, 2, 5, dtype=dtype)
    e = np.exp(x.astype(np.float64) / temperature)
    right = e / e.sum(axis=axis, keepdims=True)
    assert_close(
        forward(xn.Softmax(axis, temperature).initialize((3, 4, 2), backend=backend, dtype=dtype),
                x), right)
    if temperature == 1:
        assert_close(
            forward(xn.LogSoftmax(axis).initialize((3, 4, 2), backend=backend, dtype=dtype), x),
            np.log(right))


@pytest.mark.parametrize("layer", [lambda: xn.LogSoftmax(1), lambda: xn.Softmax(1),
                                   lambda: xn.LogSoftmax()])
def test_softmax_does_not_overflow(backend, layer):
    x = np.array([1e4, -1e4, 0], np.float32)
    layer = layer()
    shape = (1, 3) if layer.axis else (3,)
    y = forward(layer.initialize(shape, backend=backend), x.reshape(*shape, 1)).reshape(-1)
    np.testing.assert_array_equal(y, [0, -2e4, -1e4] if isinstance(layer, xn.LogSoftmax)
                                  else [1, 0, 0])


@pytest.mark.parametrize("first, second",
                         [(xn.Softmax, xn.LogSoftmax),
                          (lambda: xn.Softmax(temperature=2), xn.Softmax),
                                           (xn.Softmax, lambda: xn.Softmax(0, 2))])
def test_softmax_is_applied_once(first, second):
    with pytest.raises(ValueError, match="expected softmax to be applied once"):
        xn.Sequential([xn.Linear(3), first(), second()], input_shape=(4,), backend="numpy")


@pytest.mark.parametrize("last", [lambda: xn.Softmax(0, 2.0), lambda: xn.Softmax(1)])
def test_no_other_softmax_is_fused_with_the_loss(last):
    net = xn.Sequential([xn.Softmax(1) if last().axis else xn.Softmax(0, 2.0)], input_shape=(3, 1),
                        backend="numpy")
    with pytest.raises(ValueError, match="expected logits, or a Softmax as the very last layer. "
                                         "Received: a softmax in Softmax"):
        net.evaluate(np.zeros((2, 3, 1)), [[0], [1]], loss="cross_entropy")


def test_a_log_softmax_may_be_the_input_of_the_loss():
    """The softmax of a log-softmax is the softmax."""
    x, y = normal(6, 4), [0, 1, 2, 0, 1, 2]
    losses = [xn.Sequential([xn.Linear(3), *more], input_shape=(4,), backend="numpy",
                            dtype="float64").evaluate(x, y, loss="cross_entropy")["loss"]
              for more in ([], [xn.Softmax()], [xn.LogSoftmax()])]
    assert losses == pytest.approx(3 * losses[:1])


# --- in a network ---------------------------------------------------------------------------------

def test_all_of_them_in_one_network(tmp_path, backend):
    """Trained, saved, loaded: the same numbers."""
    layers = [xn.Linear(6), xn.PReLU(per_channel=True), xn.Swish(1.2, True), xn.Gain(), xn.ELU(0.5),
              xn.Linear(12, activation="mish"), xn.GLU(), xn.Maxout(2), xn.GELU("tanh"),
              xn.HardSigmoid(0.2),
              xn.Linear(4, activation="selu"), xn.LogSoftmax()]
    net = xn.Sequential(layers, input_shape=(5,), backend=backend)
    x, y = normal(20, 5, dtype="float32"), np.arange(20) % 4
    net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, verbose=False)
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend=backend)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert "prelu1" in str(summary(net)) and "maxout1" in str(summary(net))


def test_all_of_them_in_captured_steps(folder):
    """On an emulated GPU, captured steps have the bits of steps that are not captured, with new
    random slopes in each."""
    x, y = normal(40, 6, dtype="float32"), np.arange(40) % 3
    results = []
    for capture in (False, True):
        with pretended(folder) as (gpu, gpus):
            net = xn.Sequential([
                xn.PReLU(per_channel=True), xn.RReLU(), xn.Linear(6, activation="gelu"),
                xn.Swish(1.2, learned=True), xn.CReLU(),
                xn.GLU(), xn.Maxout(2), xn.Gain(), xn.HardSigmoid(0.2), xn.Linear(3),
                xn.LogSoftmax(),
            ], input_shape=(6,), backend=gpu, seed=1)
            history = net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=4,
                              batch_size=8, capture=capture, verbose=False)
            results.append((values(net), history["loss"]))
            assert gpus.graphs == capture
    assert same(results[0][0], results[1][0]) and results[0][1] == results[1][1]


@pytest.mark.parametrize("make, text", [
    (lambda: xn.RReLU(-0.1),
     "RReLU: expected lower to be a number, 0 or larger. Received: lower=-0.1."),
    (lambda: xn.RReLU(0.5),
     "RReLU: expected lower to be at most upper. Received: lower=0.5, upper=0.3333333333333333."),
    (lambda: xn.PReLU(slope="a"),
     "PReLU: expected slope to be a finite number. Received: slope='a'."),
    (lambda: xn.Maxout(0),
     "Maxout: expected pieces to be an int, 1 or larger. Received: pieces=0."),
    (lambda: xn.Maxout(3).initialize((4, 2)),
     "Maxout: expected pieces=3 to divide the channels. Received: input shape (4, 2)."),
    (lambda: xn.GLU().initialize((5,)),
     "GLU: expected an even number of channels. Received: input shape (5,)."),
    (lambda: xn.Softmax(-1),
     "Softmax: expected axis to be an int, 0 or larger. Received: axis=-1."),
    (lambda: xn.Softmax(1).initialize((5,)),
     "Softmax: expected samples that have an axis 1. Received: input shape (5,)."),
    (lambda: xn.Softmax(temperature=0),
     "Softmax: expected temperature to be a number above 0. Received: temperature=0."),
    (lambda: xn.LogSoftmax(3).initialize((5, 2, 2)),
     "LogSoftmax: expected samples that have an axis 3. Received: input shape (5, 2, 2)."),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()
