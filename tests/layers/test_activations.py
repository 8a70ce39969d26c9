"""Activations: values and derivatives against mpmath, at kinks and for large numbers, by name and
by class, in other layers."""

import inspect
import re
from functools import cache

import numpy as np
import pytest
from activation_formulas import FORMULAS, KINKS, LIMITS, OTHERS
from mpmath import mp, mpf

import xpnet as xn
from xpnet.backends.activations import ACTIVATIONS, FUSED
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.initializers import for_activation, glorot_uniform, he_normal, lecun_normal
from xpnet.testing import check_gradients

CASES = [(name, ()) for name in ACTIVATIONS] + list(OTHERS.items())
every_activation = pytest.mark.parametrize("name, constants", CASES, ids=lambda value: str(value)
                                           if value else "usual")
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])

GRID = np.concatenate(
    [np.linspace(-12.03, 12.11, 29), [-50.3, -20.3, -1.01, -1e-3, 1e-3, 0.6, 20.3, 50.3]])
# If f, or f', is tiny but not 0, these activations compute it with all digits; the others lose
# digits to a term of size 1.
TINY_VALUES = ("softplus", "log_sigmoid", "smooth_abs", "silu", "swish", "gelu", "gelu_tanh",
               "mish", "softsign", "symmelliot")
TINY_SLOPES = ("softplus", "log_sigmoid", "silu", "swish", "gelu", "gelu_tanh", "mish", "softsign",
               "symmelliot", "elliot", "arctan")


def both(backend, name, x, constants=()):
    """(f(x), f'(x)) as a backend computes them."""
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
    """The distance of each number in units of the last digit; numbers below `least` are measured in
    units of the last digit of `least`."""
    eps = float(np.finfo(actual.dtype).eps)
    return [float(abs(mpf(float(a)) - b) / max(abs(b), least) / eps)
            for a, b in zip(actual, expected, strict=True)]


def smallest(dtype):
    """A number with all its digits that is not near those that a GPU rounds to 0."""
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
def test_values_near_zero_are_accurate(backend, name, dtype):
    y, _ = both(backend, name, GRID.astype(dtype))
    # exp of a rounded number
    assert max(errors(y, exact(name, (), dtype)[0], smallest(dtype))) < 1000


@both_types
@pytest.mark.parametrize("name", TINY_SLOPES)
def test_derivatives_near_zero_are_accurate(backend, name, dtype):
    _, slope = both(backend, name, GRID.astype(dtype))
    assert max(errors(slope, exact(name, (), dtype)[1], smallest(dtype))) < 1000


@both_types
@pytest.mark.parametrize("name", KINKS)
def test_at_kinks(backend, name, dtype):
    x = np.array(list(KINKS[name]), dtype)
    assert both(backend, name, x)[1].tolist() == pytest.approx(list(KINKS[name].values()), rel=1e-6)


@both_types
@pytest.mark.parametrize("name",
                         [name for name, places in KINKS.items()
                          if name not in ("stair", "elu", "celu")])
def test_right_beside_a_kink(backend, name, dtype):
    """The nearest number on either side belongs to its side of the kink."""
    kinks = np.array(list(KINKS[name]), dtype)
    for away, towards in ((1, np.inf), (-1, -np.inf)):
        beside = np.where(kinks == 0, away * kinks.dtype.type(1e-30),
                          np.nextafter(kinks, np.array(towards, dtype)))
        if name == "hard_sigmoid":
            beside = kinks + away * kinks.dtype.type(1e-5)              # alpha x + beta is rounded
        further = kinks + away * kinks.dtype.type(1e-3)
        np.testing.assert_allclose(both(backend, name, beside)[1], both(backend, name, further)[1],
                                   rtol=5e-3, atol=1e-6)


@both_types
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_large_numbers(backend, name, dtype):
    """At infinity the value is the limit. At large numbers it has reached the limit too, or grows
    without one, and nothing overflows."""
    large, constants = ({"float32": 1e30, "float64": 1e300}[dtype],
                        ACTIVATIONS[name].constants.values())
    for sign, (limit, limit_slope) in zip((1, -1), LIMITS[name]):
        y, slope = both(backend, name, sign * np.array([np.inf, 1e4, large], dtype))
        assert float(y[0]) == pytest.approx(float(limit), rel=1e-6)
        np.testing.assert_allclose(slope, float(limit_slope), rtol=1e-6, atol=1e-7)
        if np.isfinite(float(limit)):
            np.testing.assert_allclose(y, float(limit), rtol=1.5e-4, atol=1e-4)
        else:
            mean_slope = 0.5 if name == "stair" else limit_slope
            expected = [float(FORMULAS[name](mpf(sign * 1e4), *constants)),
                        sign * large * mean_slope]
            np.testing.assert_allclose(y[1:], expected, rtol=1e-6)


@both_types
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_nan_gives_nan(backend, name, dtype):
    y, _ = both(backend, name, np.array([1, np.nan, -1], dtype))
    assert np.isnan(y).tolist() == [False, True, False]


def test_misprints():
    """NumPyNet's table has misprints for these functions."""
    x = np.array([-4.0, -1, 1, 4])
    backend = xn.Backend()
    assert (np.maximum(np.exp(x) - 1, x) == np.exp(x) - 1).all()
    assert (both(backend, "elu", x)[0].tolist()
            == pytest.approx([np.exp(-4) - 1, np.exp(-1) - 1, 1, 4]))
    assert both(backend, "ramp", x)[0].tolist() == pytest.approx([-0.4, -0.1, 1.1, 4.4])
    # and not 4.5, 4.875, 5.125, 5.5
    assert both(backend, "plse", x)[0].tolist() == [0, 0.375, 0.625, 1]
    assert both(backend, "elliot", x)[0].tolist() == pytest.approx([0.1, 0.25, 0.75, 0.9])
    assert (0.5 * x / (1 + abs(x + 1)) + 0.5).tolist() == pytest.approx([0, 0, 2 / 3, 5 / 6])


@pytest.mark.parametrize("steepness", [1.0, 3.0])
def test_derivatives_in_terms_of_the_output(steepness):
    """The docstrings give these formulas, which differ from NumPyNet's table."""
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


# --- by class and by name -------------------------------------------------------------------------

CLASSES = {"relu": xn.ReLU(), "sigmoid": xn.Sigmoid(), "tanh": xn.Tanh(),
           "scaled_tanh": xn.ScaledTanh(), "linear": xn.Identity(), "loggy": xn.Loggy(),
           "elu": xn.ELU(2.0), "selu": xn.SELU(), "celu": xn.CELU(0.5), "relie": xn.Relie(),
           "ramp": xn.Ramp(), "leaky_relu": xn.LeakyReLU(0.1), "abs": xn.Abs(), "plse": xn.Plse(),
           "stair": xn.Stair(), "hardtanh": xn.Hardtanh(-0.5, 2.0), "lhtan": xn.Lhtan(),
           "relu6": xn.ClippedReLU(2.5), "hard_sigmoid": xn.HardSigmoid(0.2, 0.4),
           "hard_swish": xn.HardSwish(), "softplus": xn.Softplus(5.0),
           "log_sigmoid": xn.LogSigmoid(), "smooth_abs": xn.SmoothAbs(3.0),
           "softsign": xn.Softsign(), "symmelliot": xn.SymmElliot(2.0), "elliot": xn.Elliot(0.5),
           "arctan": xn.Arctan(), "silu": xn.SiLU(), "swish": xn.Swish(1.7), "gelu": xn.GELU(),
           "gelu_tanh": xn.GELU("tanh"), "mish": xn.Mish(), "softshrink": xn.Softshrink(0.8),
           "hardshrink": xn.Hardshrink(0.8), "thresholded_relu": xn.ThresholdedReLU(0.3),
           "tanhshrink": xn.Tanhshrink(), "step": xn.Step(), "gaussian": xn.Gaussian()}


def test_a_class_for_each_name():
    assert CLASSES.keys() | {"logistic"} == ACTIVATIONS.keys()          # which is sigmoid
    for name, layer in CLASSES.items():
        assert (layer.activation, layer.constants) == (name, OTHERS.get(name, ()))
        usual = type(layer)()
        assert usual.constants == tuple(ACTIVATIONS[usual.activation].constants.values())
        assert (inspect.signature(type(layer).__init__).parameters["name"].kind
                is inspect.Parameter.KEYWORD_ONLY)


@pytest.mark.parametrize("name", sorted(ACTIVATIONS.keys() - FUSED))
def test_as_the_end_of_other_layers(name):
    """Every name can be the activation of a layer that computes z. The values of these layers are
    away from kinks."""
    check_gradients(xn.Linear(4, activation=name), (3,), tolerance=1e-5)
    check_gradients(xn.Conv2d(3, 2, activation=name), (2, 4, 3), tolerance=1e-5)
    check_gradients(xn.BatchNorm2d(activation=name), (2, 3, 3), tolerance=1e-5)


def test_initial_weights():
    for name, right in {None: glorot_uniform, "tanh": glorot_uniform, "softplus": glorot_uniform,
                        "selu": lecun_normal,
                        "relu": he_normal, "leaky_relu": he_normal, "gelu": he_normal,
                        "mish": he_normal}.items():
        assert for_activation(None, name, "a layer") is right


def test_selu_keeps_mean_and_variance():
    rng = np.random.default_rng(0)
    net = xn.Sequential([xn.Linear(400, activation="selu") for _ in range(8)], input_shape=(400,),
                        backend="numpy", seed=1)
    y = net.predict(rng.standard_normal((200, 400)).astype(np.float32))
    assert abs(y.mean()) < 0.1 and abs(y.var() - 1) < 0.15


@pytest.mark.parametrize("make, text", [
    (lambda: xn.LeakyReLU(-0.1),
     "LeakyReLU: expected slope to be a number, 0 or larger. Received: slope=-0.1."),
    (lambda: xn.ELU(float("inf")),
     "ELU: expected alpha to be a finite number. Received: alpha=inf."),
    (lambda: xn.CELU(0), "CELU: expected alpha to be a number above 0. Received: alpha=0."),
    (lambda: xn.Softplus(0.0), "Softplus: expected k to be a number above 0. Received: k=0.0."),
    (lambda: xn.Softplus(np.inf), "Softplus: expected k to be a number above 0. Received: k=inf."),
    (lambda: xn.SmoothAbs("1"), "SmoothAbs: expected k to be a number above 0. Received: k='1'."),
    (lambda: xn.Swish(True), "Swish: expected beta to be a finite number. Received: beta=True."),
    (lambda: xn.Elliot(-1, name="e"),
     "Elliot 'e': expected steepness to be a number above 0. Received: steepness=-1."),
    (lambda: xn.SymmElliot(np.nan),
     "SymmElliot: expected steepness to be a number above 0. Received: steepness=nan."),
    (lambda: xn.HardSigmoid(0),
     "HardSigmoid: expected alpha to be a number above 0. Received: alpha=0."),
    (lambda: xn.HardSigmoid(1, np.nan),
     "HardSigmoid: expected beta to be a finite number. Received: beta=nan."),
    (lambda: xn.GELU("erf"),
     "GELU: expected approximate to be 'none' or 'tanh'. Received: approximate='erf'."),
    (lambda: xn.Softshrink(-1),
     "Softshrink: expected threshold to be a number, 0 or larger. Received: threshold=-1."),
    (lambda: xn.Hardshrink("1"),
     "Hardshrink: expected threshold to be a number, 0 or larger. Received: threshold='1'."),
    (lambda: xn.ThresholdedReLU(-1),
     "ThresholdedReLU: expected threshold to be a number, 0 or larger. Received: threshold=-1."),
])
def test_errors(make, text):
    with pytest.raises(ValueError, match=re.escape(text)):
        make()


def test_the_cuda_kernels_know_every_activation():
    assert sorted(cuda_launch.curves()) == sorted(ACTIVATIONS.keys() - FUSED)
    source = (cuda_launch.FOLDER / "functions.cu").read_text(encoding="utf-8")
    assert set(re.findall(r"A == (\w+)", source)) == {name.upper() for name in FUSED}


def test_defaults_of_classes_are_those_of_the_table():
    for layer in CLASSES.values():
        defaults = {name: p.default
                    for name, p in inspect.signature(type(layer).__init__).parameters.items()}
        for name, default in ACTIVATIONS[layer.activation].constants.items():
            assert defaults[name] == default


def test_limits_of_clipped_activations():
    for make, text in ((lambda: xn.Hardtanh(1.0, 1.0),
                        "Hardtanh: expected low to be below high. Received: low=1.0, high=1.0"),
                       (lambda: xn.Hardtanh(2.0), "Hardtanh: expected low to be below high"),
                       (lambda: xn.Hardtanh("0"), "Hardtanh: expected low to be a finite number"),
                       (lambda: xn.ClippedReLU(0),
                        "ClippedReLU: expected limit to be a number above 0. Received: limit=0")):
        with pytest.raises(ValueError, match=text):
            make()
    x = np.linspace(-9, 9, 37)
    for layer, low, high in ((xn.Hardtanh(-2, 3), -2, 3), (xn.ClippedReLU(4), 0, 4),
                             (xn.ReLU6(), 0, 6)):
        layer.initialize((37,), dtype="float64")
        np.testing.assert_array_equal(layer.forward(x[:, None], mode="train")[:, 0],
                                      np.clip(x, low, high))
        np.testing.assert_array_equal(layer.backward(np.ones((37, 1)))[:, 0],
                                      (x > low) & (x < high))


@pytest.mark.parametrize("dtype, bound", [("float32", 1e-6), ("float64", 1e-15)])
@pytest.mark.parametrize("alpha", [-0.7, 0.0, 3.0])
def test_elu_with_any_alpha(backend, alpha, dtype, bound):
    x = np.linspace(-20, 5, 101).astype(dtype)
    layer = xn.ELU(alpha).initialize((101,), backend=backend, dtype=dtype)
    y = backend.to_numpy(layer.forward(backend.asarray(x[:, None]), mode="train"))[:, 0]
    dx = backend.to_numpy(layer.backward(backend.asarray(np.ones((101, 1), dtype))))[:, 0]
    wide = x.astype(float)
    np.testing.assert_allclose(y, np.where(wide > 0, wide, alpha * np.expm1(wide)), rtol=bound)
    np.testing.assert_allclose(dx, np.where(wide > 0, 1, alpha * np.exp(wide)), rtol=4 * bound)


@pytest.mark.parametrize("dtype, bound", [("float32", 1e-6), ("float64", 1e-14)])
@pytest.mark.parametrize("beta", [-1.5, 0.0, 2.0])
def test_swish_with_any_beta(backend, beta, dtype, bound):
    """With a negative beta the limits are swapped, and with beta = 0 it is z / 2."""
    x = np.array([-np.inf, -3e38, -40, -3, -0.2, 0, 0.3, 2, 50, 3e38, np.inf, np.nan], dtype)
    layer = xn.Swish(beta).initialize((len(x),), backend=backend, dtype=dtype)
    y = backend.to_numpy(layer.forward(backend.asarray(x[:, None]), mode="train"))[:, 0]
    dx = backend.to_numpy(layer.backward(backend.asarray(np.ones((len(x), 1), dtype))))[:, 0]
    u = beta * np.clip(x.astype(float), -1e38, 1e38)
    s = 1 / (1 + np.exp(np.clip(-u, -700, 700)))
    with np.errstate(invalid="ignore"):
        expected = np.where(s < 1e-300, 0, x.astype(float) * s)
    np.testing.assert_allclose(y, expected, rtol=bound, atol=1e-30)
    np.testing.assert_allclose(dx, s + np.clip(u, -1e4, 1e4) * s * (1 - s), rtol=10 * bound,
                               atol=1e-30)
