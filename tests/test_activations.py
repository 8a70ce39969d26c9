"""Activations: values and derivatives against mpmath, at kinks and far out; the layers that learn or gate; softmax."""

import inspect
import re
from functools import cache

import numpy as np
import pytest
from activation_formulas import FORMULAS, KINKS, LIMITS, OTHERS
from layer_cases import stand_alone
from mpmath import mp, mpf
from oracles import assert_close

import xpnet as xn
from xpnet import TRAIN
from xpnet.backends import cuda_launch
from xpnet.backends.activations import ACTIVATIONS, FUSED
from xpnet.initializers import for_activation, glorot_uniform, he_normal, lecun_normal
from xpnet.testing import check_gradients

CASES = [(name, ()) for name in ACTIVATIONS] + list(OTHERS.items())
every_activation = pytest.mark.parametrize("name, constants", CASES, ids=lambda value: str(value) if value else "usual")
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])

GRID = np.concatenate([np.linspace(-12.03, 12.11, 29), [-50.3, -20.3, -1.01, -1e-3, 1e-3, 0.6, 20.3, 50.3]])
# Where f, or f', is tiny but not 0, all of its digits are there; the others lose them against a number of size 1.
TINY_VALUES = ("softplus", "log_sigmoid", "smooth_abs", "silu", "swish", "gelu", "gelu_tanh", "mish", "softsign", "symmelliot")
TINY_SLOPES = ("softplus", "log_sigmoid", "silu", "swish", "gelu", "gelu_tanh", "mish", "softsign", "symmelliot", "elliot",
               "arctan")


def both(backend, name, x, constants=()):
    """(f(x), f'(x)) by the kernels of a backend."""
    z = backend.asarray(x)
    y = backend.activate(z, name, constants)
    kept = z if ACTIVATIONS[name].of == "z" else y
    slope = backend.activation_backward(backend.asarray(np.ones_like(x)), kept, name, constants)
    return backend.to_numpy(y), backend.to_numpy(slope)


@cache
def exact(name, constants, dtype):
    """(f, f') on the grid, in 60 digits."""
    f = ACTIVATIONS[name]
    with mp.workdps(60):
        numbers = [mpf(c) for c in (constants or f.constants.values())]

        def value(x):
            return FORMULAS[name](x, *numbers)
        points = [mpf(float(x)) for x in GRID.astype(dtype)]
        return [value(x) for x in points], [mp.diff(value, x, h=mpf(10)**-25) for x in points]


def errors(actual, expected, least):
    """The distance of each number in units of the last digit, where numbers below `least` count as that."""
    eps = float(np.finfo(actual.dtype).eps)
    return [float(abs(mpf(float(a)) - b) / max(abs(b), least) / eps) for a, b in zip(actual, expected, strict=True)]


def smallest(dtype):
    """The smallest number that has all its digits and is not near those that a GPU takes for 0."""
    return float(np.finfo(dtype).tiny / np.finfo(dtype).eps)


def test_every_activation_has_a_formula():
    assert FORMULAS.keys() == LIMITS.keys() == ACTIVATIONS.keys()
    assert OTHERS.keys() == {name for name, f in ACTIVATIONS.items() if f.constants}


@both_types
@every_activation
def test_values_and_derivatives(backend, name, constants, dtype):
    y, slope = both(backend, name, GRID.astype(dtype), constants)
    assert y.dtype == slope.dtype == dtype
    values, slopes = exact(name, constants, dtype)
    assert max(errors(y, values, 1.0)) < 4
    assert max(errors(slope, slopes, 1.0)) < 8


@both_types
@pytest.mark.parametrize("name", TINY_VALUES)
def test_values_near_zero_have_all_digits(backend, name, dtype):
    y, _ = both(backend, name, GRID.astype(dtype))
    assert max(errors(y, exact(name, (), dtype)[0], smallest(dtype))) < 1000     # exp of a rounded number


@both_types
@pytest.mark.parametrize("name", TINY_SLOPES)
def test_derivatives_near_zero_have_all_digits(backend, name, dtype):
    _, slope = both(backend, name, GRID.astype(dtype))
    assert max(errors(slope, exact(name, (), dtype)[1], smallest(dtype))) < 1000


@both_types
@pytest.mark.parametrize("name", KINKS)
def test_at_kinks(backend, name, dtype):
    x = np.array(list(KINKS[name]), dtype)
    assert both(backend, name, x)[1].tolist() == pytest.approx(list(KINKS[name].values()), rel=1e-6)


@both_types
@pytest.mark.parametrize("name", [name for name, places in KINKS.items() if name not in ("stair", "elu", "celu")])
def test_right_beside_a_kink(backend, name, dtype):
    """The next number on either side is on its side of the kink."""
    kinks = np.array(list(KINKS[name]), dtype)
    for away, towards in ((1, np.inf), (-1, -np.inf)):
        beside = np.where(kinks == 0, away * kinks.dtype.type(1e-30), np.nextafter(kinks, np.array(towards, dtype)))
        if name == "hard_sigmoid":
            beside = kinks + away * kinks.dtype.type(1e-5)              # alpha x + beta is rounded
        further = kinks + away * kinks.dtype.type(1e-3)
        np.testing.assert_allclose(both(backend, name, beside)[1], both(backend, name, further)[1], rtol=5e-3, atol=1e-6)


@both_types
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_far_out(backend, name, dtype):
    """At infinity stands the limit. At large numbers a value is at its limit too, or grows without one; nothing overflows
    on the way."""
    large, constants = {"float32": 1e30, "float64": 1e300}[dtype], ACTIVATIONS[name].constants.values()
    for sign, (limit, limit_slope) in zip((1, -1), LIMITS[name]):
        y, slope = both(backend, name, sign * np.array([np.inf, 1e4, large], dtype))
        assert float(y[0]) == pytest.approx(float(limit), rel=1e-6)
        np.testing.assert_allclose(slope, float(limit_slope), rtol=1e-6, atol=1e-7)
        if np.isfinite(float(limit)):
            np.testing.assert_allclose(y, float(limit), rtol=1.5e-4, atol=1e-4)
        else:
            mean_slope = 0.5 if name == "stair" else limit_slope
            expected = [float(FORMULAS[name](mpf(sign * 1e4), *constants)), sign * large * mean_slope]
            np.testing.assert_allclose(y[1:], expected, rtol=1e-6)


@both_types
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_goes_through(backend, name, dtype):
    y, _ = both(backend, name, np.array([1, np.nan, -1], dtype))
    assert np.isnan(y).tolist() == [False, True, False]


def test_misprints():
    """What NumPyNet's table prints is not what these functions are."""
    x = np.array([-4.0, -1, 1, 4])
    backend = xn.Backend()
    assert (np.maximum(np.exp(x) - 1, x) == np.exp(x) - 1).all()
    assert both(backend, "elu", x)[0].tolist() == pytest.approx([np.exp(-4) - 1, np.exp(-1) - 1, 1, 4])
    assert both(backend, "ramp", x)[0].tolist() == pytest.approx([-0.4, -0.1, 1.1, 4.4])
    assert both(backend, "plse", x)[0].tolist() == [0, 0.375, 0.625, 1]         # and not 4.5, 4.875, 5.125, 5.5
    assert both(backend, "elliot", x)[0].tolist() == pytest.approx([0.1, 0.25, 0.75, 0.9])
    assert (0.5 * x / (1 + abs(x + 1)) + 0.5).tolist() == pytest.approx([0, 0, 2 / 3, 5 / 6])


@pytest.mark.parametrize("steepness", [1.0, 3.0])
def test_derivatives_in_terms_of_the_output(steepness):
    """What the docstrings say of them, beside what NumPyNet's table prints."""
    x = np.linspace(-3, 3, 13)
    backend = xn.Backend()
    f, slope = both(backend, "softsign", x)
    np.testing.assert_allclose(slope, (1 - abs(f))**2)
    assert abs(slope - 1 / (1 + abs(f))**2).max() > 0.2
    f, slope = both(backend, "symmelliot", x, (steepness,))
    np.testing.assert_allclose(slope, steepness * (1 - abs(f))**2)
    f, slope = both(backend, "elliot", x, (steepness,))
    np.testing.assert_allclose(slope, steepness / 2 * (1 - abs(2 * f - 1))**2)
    f, slope = both(backend, "softplus", x)
    assert abs(slope - np.exp(f) / (1 + np.exp(f))).max() > 0.1


# --- by class and by name ---------------------------------------------------------------------------------------------

CLASSES = {
    "relu": xn.ReLU(), "sigmoid": xn.Sigmoid(), "tanh": xn.Tanh(), "scaled_tanh": xn.ScaledTanh(), "linear": xn.Identity(),
    "loggy": xn.Loggy(), "elu": xn.ELU(2.0), "selu": xn.SELU(), "celu": xn.CELU(0.5), "relie": xn.Relie(), "ramp": xn.Ramp(),
    "leaky": xn.LeakyReLU(0.1), "abs": xn.Abs(), "plse": xn.Plse(), "stair": xn.Stair(), "hardtan": xn.Hardtanh(),
    "lhtan": xn.Lhtan(), "relu6": xn.ReLU6(), "hard_sigmoid": xn.HardSigmoid(0.2, 0.4), "hard_swish": xn.HardSwish(),
    "softplus": xn.Softplus(5.0), "log_sigmoid": xn.LogSigmoid(), "smooth_abs": xn.SmoothAbs(3.0), "softsign": xn.Softsign(),
    "symmelliot": xn.SymmElliot(2.0), "elliot": xn.Elliot(0.5), "arctan": xn.Arctan(), "silu": xn.SiLU(),
    "swish": xn.Swish(1.7), "gelu": xn.GELU(), "gelu_tanh": xn.GELU("tanh"), "mish": xn.Mish(),
    "softshrink": xn.Softshrink(0.8), "hardshrink": xn.Hardshrink(0.8), "thresholded": xn.ThresholdedReLU(0.3),
    "tanhshrink": xn.Tanhshrink(), "step": xn.Step(), "gaussian": xn.Gaussian(),
}


def test_a_class_for_each_name():
    assert CLASSES.keys() | {"logistic"} == ACTIVATIONS.keys()          # which is sigmoid
    for name, layer in CLASSES.items():
        assert (layer.activation, layer.constants) == (name, OTHERS.get(name, ()))
        usual = type(layer)()
        assert usual.constants == tuple(ACTIVATIONS[usual.activation].constants.values())
        assert inspect.signature(type(layer).__init__).parameters["name"].kind is inspect.Parameter.KEYWORD_ONLY


@pytest.mark.parametrize("name", ACTIVATIONS.keys() - FUSED)
def test_as_the_end_of_other_layers(name):
    """Every name can be the activation of a layer that makes z; kinks lie apart from where these layers' numbers are."""
    check_gradients(xn.Linear(4, activation=name), (3,), tolerance=1e-5)
    check_gradients(xn.Conv2d(3, 2, activation=name), (2, 4, 3), tolerance=1e-5)
    check_gradients(xn.BatchNorm2d(activation=name), (2, 3, 3), tolerance=1e-5)


def test_initial_weights():
    for name, right in {None: glorot_uniform, "tanh": glorot_uniform, "softplus": glorot_uniform, "selu": lecun_normal,
                        "relu": he_normal, "leaky": he_normal, "gelu": he_normal, "mish": he_normal}.items():
        assert for_activation(None, name, "a layer") is right


def test_selu_keeps_mean_and_variance():
    rng = np.random.default_rng(0)
    net = xn.Sequential([xn.Linear(400, activation="selu") for _ in range(8)], input_shape=(400,), backend="numpy", seed=1)
    y = net.predict(rng.standard_normal((200, 400)).astype(np.float32))
    assert abs(y.mean()) < 0.1 and abs(y.var() - 1) < 0.15


@pytest.mark.parametrize("make, text", [
    (lambda: xn.LeakyReLU(-0.1), "LeakyReLU: expected slope to be a number, 0 or larger. Received: slope=-0.1."),
    (lambda: xn.ELU(-1), "ELU: expected alpha to be a number, 0 or larger. Received: alpha=-1."),
    (lambda: xn.CELU(0), "CELU: expected alpha to be a number above 0. Received: alpha=0."),
    (lambda: xn.Softplus(0.0), "Softplus: expected k to be a number above 0. Received: k=0.0."),
    (lambda: xn.Softplus(np.inf), "Softplus: expected k to be a number above 0. Received: k=inf."),
    (lambda: xn.SmoothAbs("1"), "SmoothAbs: expected k to be a number above 0. Received: k='1'."),
    (lambda: xn.Swish(True), "Swish: expected beta to be a number above 0. Received: beta=True."),
    (lambda: xn.Elliot(-1, name="e"), "Elliot 'e': expected steepness to be a number above 0. Received: steepness=-1."),
    (lambda: xn.SymmElliot(np.nan), "SymmElliot: expected steepness to be a number above 0. Received: steepness=nan."),
    (lambda: xn.HardSigmoid(0), "HardSigmoid: expected alpha to be a number above 0. Received: alpha=0."),
    (lambda: xn.HardSigmoid(1, np.nan), "HardSigmoid: expected beta to be a number, -inf or larger. Received: beta=nan."),
    (lambda: xn.GELU("erf"), "GELU: expected approximate \"none\" or \"tanh\". Received: 'erf'."),
    (lambda: xn.Softshrink(-1), "Softshrink: expected threshold to be a number, 0 or larger. Received: threshold=-1."),
    (lambda: xn.Hardshrink("1"), "Hardshrink: expected threshold to be a number, 0 or larger. Received: threshold='1'."),
    (lambda: xn.ThresholdedReLU(-1), "ThresholdedReLU: expected threshold to be a number, 0 or larger. Received: threshold=-1."),
    (lambda: xn.RReLU(-0.1), "RReLU: expected lower to be a number, 0 or larger. Received: lower=-0.1."),
    (lambda: xn.RReLU(0.5), "RReLU: expected lower to be at most upper. Received: lower=0.5, upper=0.3333333333333333."),
    (lambda: xn.PReLU(slope="a"), "PReLU: expected slope to be a number, -inf or larger. Received: slope='a'."),
    (lambda: xn.Maxout(0), "Maxout: expected pieces to be an int, 1 or larger. Received: pieces=0."),
    (lambda: xn.Maxout(3).initialize((4, 2)),
     "Maxout: expected pieces=3 to divide the channels. Received: input shape (4, 2)."),
    (lambda: xn.GLU().initialize((5,)), "GLU: expected an even number of channels. Received: input shape (5,)."),
    (lambda: xn.Softmax(-1), "Softmax: expected axis to be an int, 0 or larger. Received: axis=-1."),
    (lambda: xn.Softmax(1).initialize((5,)), "Softmax: expected samples that have an axis 1. Received: input shape (5,)."),
    (lambda: xn.Softmax(temperature=0), "Softmax: expected temperature to be a number above 0. Received: temperature=0."),
    (lambda: xn.LogSoftmax(3).initialize((5, 2, 2)),
     "LogSoftmax: expected samples that have an axis 3. Received: input shape (5, 2, 2)."),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()


# --- what learns, what gates ------------------------------------------------------------------------------------------

def normal(*shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def forward(layer, x, mode="predict"):
    return layer.backend.to_numpy(layer.forward(layer.backend.asarray(x), mode=mode))


@both_types
@pytest.mark.parametrize("per_channel", [False, True])
def test_prelu(backend, per_channel, dtype):
    layer = stand_alone(xn.PReLU(per_channel=per_channel), (3, 2, 2), backend=backend, dtype=dtype)
    a = backend.to_numpy(layer.a.data)
    assert a.shape == ((3,) if per_channel else (1,)) and not layer.a.decay
    x = normal(3, 2, 2, 4, dtype=dtype)
    right = [[float(v) * (1 if v > 0 else float(a[c % len(a)])) for v in x[c].flat] for c in range(3)]
    assert_close(forward(layer, x), np.reshape(right, x.shape))


def test_prelu_begins_with_its_slope():
    layer = xn.PReLU(slope=0.1).initialize((3,), dtype="float64")
    np.testing.assert_array_equal(forward(layer, np.array([[-2.0], [0], [2]])), [[-0.2], [0], [2]])
    x = np.array([[-2.0], [0], [2]])
    layer.forward(x, mode=TRAIN)
    np.testing.assert_array_equal(layer.backward(np.ones_like(x)), [[0.1], [0.1], [1]])       # as PyTorch at 0
    assert layer.a.grad.tolist() == [-2]


@pytest.mark.parametrize("layer, inputs", [
    (lambda: xn.PReLU(per_channel=True), (np.linspace(-2.3, 2.4, 24).reshape(3, 2, 4),)),
    (lambda: xn.Swish(0.7, learned=True), None),
    (lambda: xn.Swish(0.7), None),
    (lambda: xn.Maxout(3), (np.random.default_rng(3).permuted(np.linspace(-2, 2, 24)).reshape(3, 2, 4),)),
    (lambda: xn.Softmax(1), None),
    (lambda: xn.Softmax(0, 2.5), None),
    (lambda: xn.Softmax(1, 0.3), None),
    (lambda: xn.LogSoftmax(1), None),
])
def test_gradients_of_other_settings(backend, layer, inputs):
    check_gradients(layer(), (3, 2), batch=4, backend=backend, inputs=inputs)


@both_types
def test_a_learned_swish_begins_as_the_fixed_one(backend, dtype):
    x = normal(5, 4, dtype=dtype)
    fixed, learned = (xn.Swish(1.5, learned).initialize((5,), backend=backend, dtype=dtype) for learned in (False, True))
    assert fixed.parameters == [] and [p.shape for p in learned.parameters] == [(1,)]
    assert_close(forward(learned, x), forward(fixed, x))


@both_types
def test_rrelu(backend, dtype):
    """Slopes between the two, every one another, the same on every backend and for the same step; their mean in prediction."""
    layer = xn.RReLU(0.1, 0.5).initialize((50,), backend=backend, dtype=dtype)
    x = -1 - np.abs(normal(50, 40, dtype=dtype))
    slopes = forward(layer, x, TRAIN) / x
    assert 0.1 < slopes.min() < 0.11 and 0.49 < slopes.max() < 0.5
    assert abs(slopes.mean() - 0.3) < 0.01 and abs(slopes.std() - 0.4 / 12**0.5) < 0.005
    assert_close(slopes, 0.1 + 0.4 * np.random.Philox(key=[0, 0], counter=[0, 0, 0, 0]).random_raw(1000).view("<u4").reshape(
        50, 40) / 2**32)
    np.testing.assert_allclose(backend.to_numpy(layer.backward(backend.asarray(np.ones_like(x)))), slopes, rtol=1e-6)
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
    layer = stand_alone(xn.Gain(), (3, 2), backend=backend, dtype=dtype)
    x, g = normal(3, 2, 4, dtype=dtype), backend.to_numpy(layer.g.data)
    assert_close(forward(layer, x), np.stack([float(g[c]) * x[c].astype(np.float64) for c in range(3)]))
    assert xn.Gain().initialize((3,)).g.data.tolist() == [1, 1, 1]


@both_types
def test_maxout(backend, dtype):
    x = normal(6, 2, 5, dtype=dtype)
    y = forward(xn.Maxout(3).initialize((6, 2), backend=backend, dtype=dtype), x)
    assert y.shape == (2, 2, 5)
    for c, h, n in np.ndindex(y.shape):
        assert y[c, h, n] == max(x[3 * c + p, h, n] for p in range(3))


def test_maxout_of_equals_and_nans(backend):
    """The first of equal ones wins, and a NaN wins over every number."""
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


# --- softmax ----------------------------------------------------------------------------------------------------------

@both_types
@pytest.mark.parametrize("axis", [0, 1, 2])
@pytest.mark.parametrize("temperature", [1.0, 2.5])
def test_softmax_along_an_axis(backend, axis, temperature, dtype):
    x = 3 * normal(3, 4, 2, 5, dtype=dtype)
    e = np.exp(x.astype(np.float64) / temperature)
    right = e / e.sum(axis=axis, keepdims=True)
    assert_close(forward(xn.Softmax(axis, temperature).initialize((3, 4, 2), backend=backend, dtype=dtype), x), right)
    if temperature == 1:
        assert_close(forward(xn.LogSoftmax(axis).initialize((3, 4, 2), backend=backend, dtype=dtype), x), np.log(right))


@pytest.mark.parametrize("layer", [lambda: xn.LogSoftmax(1), lambda: xn.Softmax(1), lambda: xn.LogSoftmax()])
def test_softmax_does_not_overflow(backend, layer):
    x = np.array([1e4, -1e4, 0], np.float32)
    layer = layer()
    shape = (1, 3) if layer.axis else (3,)
    y = forward(layer.initialize(shape, backend=backend), x.reshape(*shape, 1)).reshape(-1)
    np.testing.assert_array_equal(y, [0, -2e4, -1e4] if isinstance(layer, xn.LogSoftmax) else [1, 0, 0])


@pytest.mark.parametrize("first, second", [(xn.Softmax, xn.LogSoftmax), (lambda: xn.Softmax(temperature=2), xn.Softmax),
                                           (xn.Softmax, lambda: xn.Softmax(0, 2))])
def test_softmax_is_applied_once(first, second):
    with pytest.raises(ValueError, match="expected softmax to be applied once"):
        xn.Sequential([xn.Linear(3), first(), second()], input_shape=(4,), backend="numpy")


@pytest.mark.parametrize("last", [lambda: xn.Softmax(0, 2.0), lambda: xn.Softmax(1)])
def test_no_other_softmax_is_fused_with_the_loss(last):
    net = xn.Sequential([xn.Softmax(1) if last().axis else xn.Softmax(0, 2.0)], input_shape=(3, 1), backend="numpy")
    with pytest.raises(ValueError, match="expected logits, or a Softmax as the very last layer. Received: a softmax in Softmax"):
        net.evaluate(np.zeros((2, 3, 1)), [[0], [1]], loss="cross_entropy")


def test_a_log_softmax_may_stand_below_the_loss():
    """The softmax of a log-softmax is the softmax."""
    x, y = normal(6, 4), [0, 1, 2, 0, 1, 2]
    losses = [xn.Sequential([xn.Linear(3), *more], input_shape=(4,), backend="numpy", dtype="float64").evaluate(
        x, y, loss="cross_entropy")["loss"] for more in ([], [xn.Softmax()], [xn.LogSoftmax()])]
    assert losses == pytest.approx(3 * losses[:1])


# --- in a network -----------------------------------------------------------------------------------------------------

def test_all_of_them_in_one_network(tmp_path, backend):
    """Trained, saved, loaded: the same numbers."""
    layers = [xn.Linear(6), xn.PReLU(per_channel=True), xn.Swish(1.2, True), xn.Gain(), xn.ELU(0.5),
              xn.Linear(12, activation="mish"), xn.GLU(), xn.Maxout(2), xn.GELU("tanh"), xn.HardSigmoid(0.2),
              xn.Linear(4, activation="selu"), xn.LogSoftmax()]
    net = xn.Sequential(layers, input_shape=(5,), backend=backend)
    x, y = normal(20, 5, dtype="float32"), np.arange(20) % 4
    net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, verbose=False)
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend=backend)
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    assert "prelu1" in net.summary() and "maxout1" in net.summary()


# --- on a GPU ---------------------------------------------------------------------------------------------------------

def test_the_kernels_know_every_activation_by_its_number():
    source = (cuda_launch.FOLDER / "curves.cu").read_text(encoding="utf-8")
    names = re.search(r"enum Curve \{.*?\n(.*?)\};", source, re.DOTALL)[1].lower()
    assert tuple(re.findall(r"\w+", names)) == cuda_launch.CURVES
    assert sorted(cuda_launch.CURVES) == sorted(ACTIVATIONS.keys() - FUSED)
    assert cuda_launch.ACTIVATIONS.keys() == {None, *FUSED}
