"""Optimizers: against the update rules of the papers, element by element in Python."""

from __future__ import annotations

import math

import numpy as np
import pytest
from nets import blobs, same, small, values
from update_rules import adadelta, adagrad, adam, adamax, amsgrad, lion, nadam, rmsprop, rprop, sgd

import xpnet as xn
from xpnet.optim.base import Updater

STEPS = 100
CASES = [
    (xn.SGD, {"lr": 0.1}, sgd, {}),
    (xn.SGD, {"lr": 0.1, "momentum": 0.9}, sgd, {}),
    (xn.SGD, {"lr": 0.1, "momentum": 0.9, "nesterov": True}, sgd, {}),
    (xn.SGD, {"lr": 0.1, "weight_decay": 0.3}, sgd, {}),
    (xn.SGD, {"lr": 0.1, "momentum": 0.5, "nesterov": True, "weight_decay": 0.3}, sgd, {}),
    (xn.Adam, {"lr": 0.05}, adam, {}),
    (xn.Adam, {"lr": 0.05, "betas": (0.5, 0.8), "eps": 0.1}, adam, {}),
    (xn.Adam, {"lr": 0.05, "weight_decay": 0.3}, adam, {}),
    (xn.AdamW, {"lr": 0.05, "weight_decay": 0.3}, adam, {"decoupled": True}),
    (xn.Adagrad, {}, adagrad, {}),
    (xn.Adagrad, {"lr": 0.5, "lr_decay": 0.2, "weight_decay": 0.3,
                  "initial_accumulator_value": 0.5, "eps": 0.1}, adagrad, {}),
    (xn.Adadelta, {}, adadelta, {}),
    (xn.Adadelta, {"lr": 0.5, "rho": 0.7, "eps": 0.01, "weight_decay": 0.3}, adadelta, {}),
    (xn.RMSprop, {}, rmsprop, {}),
    (xn.RMSprop, {"lr": 0.05, "alpha": 0.7, "momentum": 0.5, "weight_decay": 0.3}, rmsprop, {}),
    (xn.RMSprop, {"eps": 0.1, "centered": True}, rmsprop, {}),
    (xn.RMSprop, {"eps": 0.1, "centered": True, "momentum": 0.9, "weight_decay": 0.3}, rmsprop, {}),
    (xn.Adamax, {}, adamax, {}),
    (xn.Adamax, {"lr": 0.05, "betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.3}, adamax, {}),
    (xn.AMSGrad, {}, amsgrad, {}),
    (xn.AMSGrad, {"lr": 0.05, "betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.3}, amsgrad, {}),
    (xn.NAdam, {}, nadam, {}),
    (xn.NAdam,
     {"lr": 0.05, "betas": (0.5, 0.8), "eps": 0.1, "weight_decay": 0.3, "momentum_decay": 0.1},
     nadam, {}),
    (xn.Rprop, {}, rprop, {}),
    (xn.Rprop, {"lr": 0.1, "etas": (0.3, 1.5), "step_sizes": (0.05, 0.3)}, rprop, {}),
    (xn.Rprop, {"lr": 0.1, "weight_decay": 0.3}, rprop, {}),
    (xn.Lion, {}, lion, {}),
    (xn.Lion, {"lr": 0.05, "betas": (0.5, 0.8), "weight_decay": 0.3}, lion, {}),
]


def describe(case) -> str:
    return f"{case[0].__name__}-{'-'.join(f'{k}={v}' for k, v in case[1].items())}".replace(" ", "")


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("case", CASES, ids=describe)
def test_against_the_rule_element_by_element(case, dtype, backend):
    make, settings, rule, more = case
    # W (3, 2), which decays, and b (3,)
    layer = xn.Linear(3).initialize((2,), backend=backend, dtype=dtype)
    rng = np.random.default_rng(0)
    gradients = rng.normal(size=(STEPS, 9))
    start = rng.normal(size=9)
    layer.W.data[...] = backend.asarray(start[:6].reshape(3, 2), dtype)
    layer.b.data[...] = backend.asarray(start[6:], dtype)
    optimizer = make(**settings)
    for gradient in gradients:
        layer.W.grad[...] = backend.asarray(gradient[:6].reshape(3, 2), dtype)
        layer.b.grad[...] = backend.asarray(gradient[6:], dtype)
        layer.update(optimizer)
    expected = rule(start.tolist(), gradients.tolist(), [True] * 6 + [False] * 3, **settings,
                    **more)
    found = np.concatenate([backend.to_numpy(p.data).ravel() for p in (layer.W, layer.b)])
    assert found.dtype == dtype
    # after STEPS roundings
    near = {"float32": {"rtol": 2e-5, "atol": 5e-6}, "float64": {"rtol": 1e-12, "atol": 1e-13}}
    np.testing.assert_allclose(found, expected, **near[dtype])
    np.testing.assert_array_equal(backend.to_numpy(layer.W.grad),
                                  gradients[-1, :6].reshape(3, 2).astype(dtype))


def one_step(optimizer, gradients, dtype="float64", steps=1):
    """The weights that start at 0, after steps with the same gradients."""
    layer = xn.Linear(1, bias=False).initialize((len(gradients),), dtype=dtype)
    layer.W.data[...] = 0
    for _ in range(steps):
        layer.W.grad[...] = [gradients]
        layer.update(optimizer)
    return layer.W.data[0]


def test_first_steps_in_closed_form():
    g = [1e-3, -1.0, 1e3]
    signs = np.sign(g)
    np.testing.assert_allclose(one_step(xn.Adagrad(0.1), g), -0.1 * signs, rtol=1e-6)  # g / |g|
    # c1 g / c1 / |g|
    np.testing.assert_allclose(one_step(xn.Adamax(0.1), g), -0.1 * signs, rtol=1e-4)
    np.testing.assert_allclose(one_step(xn.AMSGrad(0.1), g), -0.1 * signs, rtol=1e-4)
    np.testing.assert_allclose(one_step(xn.Rprop(0.1), g, steps=3), -0.1 * (1 + 1.2 + 1.44) * signs,
                               rtol=1e-12)
    np.testing.assert_allclose(one_step(xn.Lion(0.1), g), -0.1 * signs, rtol=1e-12)
    # g / sqrt(g^2 / 4)
    np.testing.assert_allclose(one_step(xn.RMSprop(0.1, alpha=0.75), g), -0.2 * signs, rtol=1e-4)
    np.testing.assert_allclose(one_step(xn.Adadelta(rho=0.75, eps=1e-12), g), -2e-6 * signs,
                               rtol=1e-4)


def test_a_weight_without_a_gradient_stays():
    for optimizer in (xn.Adagrad(), xn.Adadelta(), xn.RMSprop(),
                      xn.RMSprop(centered=True, momentum=0.9), xn.Adamax(), xn.Lion(),
                      xn.AMSGrad(), xn.NAdam(), xn.Rprop()):
        np.testing.assert_array_equal(one_step(optimizer, [0.0], "float32", steps=3), 0)


def test_a_constant_gradient_has_no_negative_variance(backend):
    """Rounding makes v - mean^2 slightly negative for some of many constant gradients; its root
    would be NaN."""
    layer = xn.Linear(1, bias=False).initialize((1000,), backend=backend)
    gradient = backend.asarray(np.random.default_rng(0).normal(size=(1, 1000)), "float32")
    for _ in range(60):
        layer.W.grad[...] = gradient
        layer.update(xn.RMSprop(alpha=0.5, eps=1e-2, centered=True))
    assert np.isfinite(backend.to_numpy(layer.W.data)).all()


def test_a_nan_is_not_hidden(backend):
    for optimizer in (xn.Adagrad(), xn.Adadelta(), xn.RMSprop(), xn.RMSprop(centered=True),
                      xn.Adamax(), xn.Lion(), xn.AMSGrad(), xn.NAdam(), xn.Rprop()):
        for dtype in ("float32", "float64"):
            layer = xn.Linear(1, bias=False).initialize((2,), backend=backend, dtype=dtype)
            layer.W.grad[...] = backend.asarray(np.array([[np.nan, 1.0]]), dtype)
            layer.update(optimizer)
            assert np.isnan(backend.to_numpy(layer.W.data)).tolist() == [[True, False]], (
                type(optimizer).__name__)


def test_one_nadam_may_be_used_in_several_trainings():
    """It keeps a product of momenta, and computes it again for an earlier step."""
    one, other = xn.NAdam(), xn.NAdam()
    expected = [other.hyper(step, 1.0) for step in (1, 2, 3, 4)]
    assert [one.hyper(step, 1.0) for step in (3, 1, 4, 2)] == [expected[k] for k in (2, 0, 3, 1)]


def test_adams_first_step_is_the_learning_rate_whatever_the_gradient():
    """m_hat / sqrt(v_hat) = g / |g| at t = 1, because of the bias correction."""
    for scale in (1e-3, 1.0, 1e3):
        layer = xn.Linear(1, bias=False).initialize((2,), dtype="float64")
        before = layer.W.data.copy()
        layer.W.grad[...] = [[scale, -scale]]
        layer.update(xn.Adam(0.01))
        np.testing.assert_allclose(layer.W.data - before, [[-0.01, 0.01]], rtol=1e-4)


def test_one_minus_beta2_is_accurate_in_float32(backend):
    """Computed in float32, 1 - 0.9999 would have a relative error of 2e-4."""
    layer = xn.Linear(1, bias=False).initialize((1,), backend=backend, dtype="float32")
    layer.W.data[...] = 0
    layer.W.grad[...] = 1
    optimizer = xn.Adam(1.0, betas=(0.9, 0.9999))
    layer.update(optimizer)
    assert float(layer.W.data[0, 0]) == pytest.approx(-1, rel=1e-5)


def test_the_learning_rate_of_one_step_replaces_that_of_the_optimizer():
    layer = xn.Linear(1, bias=False).initialize((1,), dtype="float64")
    layer.W.grad[...] = 1
    before = float(layer.W.data[0, 0])
    Updater(xn.SGD(0.1), layer.buffers).step(0.25)
    assert before - float(layer.W.data[0, 0]) == pytest.approx(0.25)


def test_an_optimizer_may_be_used_for_several_networks():
    optimizer, x, y = xn.Adam(1e-2), *blobs()
    one, other, alone = small(), small(), small()
    for net in (one, other):
        net.fit(x, y, loss="cross_entropy", optimizer=optimizer, verbose=False)
    alone.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-2), verbose=False)
    assert same(values(one), values(other)) and same(values(one), values(alone))


@pytest.mark.parametrize("optimizer", [xn.SGD(0.1, momentum=0.9, weight_decay=0.1),
                                       xn.Adam(0.1, weight_decay=0.1),
                                       xn.AdamW(0.1), xn.Adagrad(initial_accumulator_value=1),
                                       xn.Adadelta(weight_decay=0.1),
                                       xn.RMSprop(momentum=0.5, centered=True, weight_decay=0.1),
                                       xn.Adamax(weight_decay=0.1),
                                       xn.Lion(weight_decay=0.1), xn.AMSGrad(),
                                       xn.NAdam(weight_decay=0.1), xn.Rprop()],
                         ids=lambda o: type(o).__name__)
@pytest.mark.parametrize("frozen", [(0,), (1,), (2,), (0, 1, 2)])
def test_frozen_layers_do_not_change(optimizer, frozen):
    net = xn.Sequential([xn.Linear(4, activation="tanh"), xn.Linear(5, activation="tanh"),
                         xn.Linear(3)], input_shape=(2,),
                        backend="numpy")
    for i in frozen:
        net.layers[i].trainable = False
    before = {name: p.data.copy() for name, p in net.buffers.arrays.items()}
    x, y = blobs()
    net.fit(x, y, loss="cross_entropy", optimizer=optimizer, epochs=2, verbose=False)
    for i, layer in enumerate(net.layers):
        for p in layer.parameters:
            assert np.array_equal(p.data, before[f"{layer.name}.{p.name}"]) == (i in frozen)


def test_frozen_layers_do_not_change_what_the_others_learn():
    """The gradient still goes through them: the results are those of a learning rate of 0 for this
    layer."""
    x, y = blobs()
    thawed, frozen = small(dtype="float64"), small(dtype="float64")
    frozen.layers[0].trainable = False
    for net in (thawed, frozen):
        net.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), batch_size=len(x), verbose=False)
    last = frozen.layers[-1].name
    for p in ("W", "b"):        # after one step the last layer is still the same
        np.testing.assert_array_equal(frozen.buffers.arrays[f"{last}.{p}"].data,
                                      thawed.buffers.arrays[f"{last}.{p}"].data)


@pytest.mark.parametrize("make, message", [
    (lambda: xn.SGD(-0.1), "SGD: expected lr to be a number, 0 or larger. Received: lr=-0.1"),
    (lambda: xn.SGD(math.nan), "SGD: expected lr to be a number"),
    (lambda: xn.SGD(math.inf), "SGD: expected lr to be a number"),
    (lambda: xn.SGD("0.1"), "SGD: expected lr to be a number, 0 or larger. Received: lr='0.1'"),
    (lambda: xn.SGD(True), "SGD: expected lr to be a number"),
    (lambda: xn.SGD(0.1, momentum=-1), "SGD: expected momentum to be a number"),
    (lambda: xn.SGD(0.1, weight_decay=-1), "SGD: expected weight_decay to be a number"),
    (lambda: xn.SGD(0.1, nesterov=True),
     "SGD: expected a momentum above 0 with nesterov. Received: momentum=0"),
    (lambda: xn.Adam(-1), "Adam: expected lr to be a number"),
    (lambda: xn.Adam(eps=0), "Adam: expected eps above 0"),
    (lambda: xn.Adam(betas=(0.9, 1.0)),
     r"Adam: expected two betas from 0 to below 1. Received: betas=\(0.9, 1.0\)"),
    (lambda: xn.Adam(betas=(0.9,)), "Adam: expected two betas"),
    (lambda: xn.Adam(betas=0.9), "Adam: expected two betas"),
    (lambda: xn.Adam(betas="ab"), "Adam: expected two betas"),
    (lambda: xn.Adagrad(lr_decay=-1),
     "Adagrad: expected lr_decay to be a number, 0 or larger. Received: lr_decay=-1"),
    (lambda: xn.Adagrad(initial_accumulator_value=-1),
     "Adagrad: expected initial_accumulator_value to be a number, 0 or"),
    (lambda: xn.Adagrad(eps=0), "Adagrad: expected eps above 0"),
    (lambda: xn.Adadelta(rho=1),
     "Adadelta: expected rho to be a number, 0 or larger, below 1. Received: rho=1"),
    (lambda: xn.Adadelta(eps=-1),
     "Adadelta: expected eps to be a number, 0 or larger. Received: eps=-1"),
    (lambda: xn.RMSprop(alpha=1.5),
     "RMSprop: expected alpha to be a number, 0 or larger, below 1. Received: alpha=1.5"),
    (lambda: xn.RMSprop(momentum=-1), "RMSprop: expected momentum to be a number, 0 or larger"),
    (lambda: xn.Adamax(betas=(1, 0.9)), "Adamax: expected two betas from 0 to below 1"),
    (lambda: xn.NAdam(momentum_decay=-1),
     "NAdam: expected momentum_decay to be a number, 0 or larger"),
    (lambda: xn.Rprop(etas=(1.2, 0.5)),
     r"Rprop: expected 0 < etas\[0\] < 1 < etas\[1\]. Received: etas=\(1.2, 0.5\)"),
    (lambda: xn.Rprop(etas=0.5),
     r"Rprop: expected 0 < etas\[0\] < 1 < etas\[1\]. Received: etas=0.5"),
    (lambda: xn.Rprop(step_sizes=(1, 0.5)),
     r"Rprop: expected 0 < step_sizes\[0\] <= step_sizes\[1\]. Received"),
    (lambda: xn.Rprop(step_sizes=(0.1, math.inf)),
     r"Rprop: expected 0 < step_sizes\[0\] <= step_sizes\[1\]. Received"),
    (lambda: xn.Lion(betas=0.9), "Lion: expected two betas from 0 to below 1. Received: betas=0.9"),
    (lambda: xn.Lion(weight_decay=-1), "Lion: expected weight_decay to be a number"),
    (lambda: xn.AdamW(weight_decay=None),
     "AdamW: expected weight_decay to be a number.*weight_decay=None"),
])
def test_refusals(make, message):
    with pytest.raises(ValueError, match=message):
        make()


def test_settings_are_python_floats():
    optimizer = xn.Adam(np.float32(0.5), betas=(np.float32(0.5), 0), eps=1,
                        weight_decay=np.int64(2))
    assert [type(v) for v in (optimizer.lr, *optimizer.betas, optimizer.eps,
                              optimizer.weight_decay)] == [float] * 5


def test_an_optimizer_without_a_rule_raises():
    layer = xn.Linear(1).initialize((1,))
    optimizer = xn.Optimizer()
    optimizer.lr = 0.1
    with pytest.raises(NotImplementedError,
                       match=r"Optimizer: expected a method hyper\(step, lr\)"):
        layer.update(optimizer)
    with pytest.raises(NotImplementedError, match="Optimizer: expected a method apply"):
        optimizer.apply(None, None, None, [], None, 0)


def test_misspelt_settings_raise():
    with pytest.raises(TypeError, match="momentun"):
        xn.SGD(0.1, momentun=0.9)
