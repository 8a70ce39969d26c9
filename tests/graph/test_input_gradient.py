"""Gradients with respect to a network's input, against finite differences of the prediction."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_cases import CASES

import xpnet as xn
from xpnet.layers import Softmax

# The predictions of these layers have steps, or are not differentiable with respect to all inputs.
NO_SLOPE = ("Step", "Stair", "MaxUnpool2d", "Embedding", "MultiHeadAttention-lengths")


def network(case: Any, backend: Any = "numpy") -> xn.Network:
    inputs = [xn.Input(shape) for shape in case.in_shapes]
    return xn.Network(inputs, case.make()(*inputs), backend=backend, dtype="float64", seed=1)


@pytest.mark.parametrize("case",
                         [case for case in CASES if not {case.label, case.label.split("-")[0]}
                          & {*NO_SLOPE}],
                         ids=str)
def test_the_gradient_of_a_prediction(case: Any):
    net = network(case)
    for p in net.layers[0].parameters:
        p.data += 0.1 * np.random.default_rng(2).standard_normal(p.shape)
    xs = [np.moveaxis(x, -1, 0).copy() for x in case.inputs("float64", batch=2)]
    rng = np.random.default_rng(3)
    G = rng.standard_normal((2, *net.output.shape))
    net.grads[...] = 7
    dxs = net.input_gradient(xs, output_gradient=G)
    assert (net.grads == 7).all() and all(node.kept is None for node in net.nodes)
    direction, h = [rng.standard_normal(x.shape) for x in xs], 1e-6

    def objective(step: float) -> float:
        return float((net.predict([x + step * d for x, d in zip(xs, direction)]) * G).sum())

    numeric = (objective(h) - objective(-h)) / (2 * h)
    analytic = float(sum((dx * d).sum() for dx, d in zip(dxs, direction, strict=True)))
    assert [dx.shape for dx in dxs] == [x.shape for x in xs]
    assert abs(numeric - analytic) <= 1e-5 * max(abs(numeric), abs(analytic), 1e-3)


def classifier(dtype: str = "float64") -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(3, 3), xn.BatchNorm2d(activation="relu"), xn.Dropout(0.5),
                          xn.Flatten(),
                          xn.Linear(4), Softmax()], input_shape=(1, 6, 6), backend="numpy",
                         dtype=dtype)


def test_the_gradient_of_a_loss_is_that_of_the_prediction():
    net = classifier()
    net.fit(np.random.default_rng(0).random((20, 1, 6, 6)), np.arange(20) % 4, loss="cross_entropy",
            optimizer="sgd", verbose=False)
    rng = np.random.default_rng(1)
    x, y, d = rng.random((5, 1, 6, 6)), np.array([0, 3, 2, 1, 1]), rng.standard_normal((5, 1, 6, 6))
    dx = net.input_gradient(x, y)                           # the loss of the fit
    h = 1e-6
    values = [net.evaluate(x + s * d, y)["loss"] for s in (h, -h)]
    assert abs((values[0] - values[1]) / (2 * h) - (dx * d).sum()) < 1e-8
    np.testing.assert_array_equal(dx, net.input_gradient(x, y, loss="cross_entropy"))


def test_the_losses_of_the_last_fit_have_their_weights():
    """As in `evaluate`, whose loss is the weighted sum."""
    rng = np.random.default_rng(0)
    a = xn.Input((3,))
    net = xn.Network(a, [xn.Linear(2)(a), xn.Linear(2)(a)], backend="numpy", dtype="float64")
    x, ys, d = rng.random((4, 3)), [rng.random((4, 2)) for _ in range(2)], rng.random((4, 3))
    net.fit(x, ys, loss="mean_squared_error", loss_weights=[3.0, 0.5], verbose=False)
    numeric = sum(sign * net.evaluate(x + sign * 1e-6 * d, ys)["loss"] for sign in (1, -1)) / 2e-6
    assert float((net.input_gradient(x, ys) * d).sum()) == pytest.approx(numeric, rel=1e-5)


def test_an_input_that_no_output_depends_on_has_the_gradient_zero():
    x = xn.Input((2, 3, 3))
    z = xn.Input((2, 2, 2))
    net = xn.Network([z, x], xn.MaxUnpool2d(2, stride=1)(z, x), backend="numpy")
    dz, dx = net.input_gradient([np.ones((1, 2, 2, 2)),
                                 np.random.default_rng(0).random((1, 2, 3, 3))],
                                output_gradient=np.ones((1, 2, 3, 3)))
    assert (dx == 0).all() and (dz != 0).any()


@pytest.mark.parametrize("arguments, message", [
    ({}, "expected a target or an output_gradient. Received: neither"),
    ({"target": [0], "output_gradient": np.ones((1, 4))}, "Received: both"),
    ({"target": [0]}, 'expected loss, e.g. "cross_entropy"'),
    ({"output_gradient": np.ones((1, 3))},
     r"expected output_gradient of shape \(1, 4\). Received: shape \(1, 3\)"),
    ({"output_gradient": np.full((1, 4), np.nan)}, "output_gradient: expected finite numbers"),
])
def test_refusals(arguments: dict[str, Any], message: str):
    with pytest.raises(ValueError, match=message):
        classifier().input_gradient(np.ones((1, 1, 6, 6)), **arguments)
