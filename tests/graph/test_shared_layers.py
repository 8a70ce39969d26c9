"""Layers that are used several times: each use keeps its own values, and gradients are added."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from layer_cases import CASES

import xpnet as xn

ONE_INPUT = [case for case in CASES if len(case.in_shapes) == 1]


def twice(case: Any, shared: bool, backend: Any) -> xn.Network:
    """y1 = f(x1), y2 = f(x2), with one layer f, or with two layers that have equal parameters."""
    a, b = xn.Input(case.in_shapes[0]), xn.Input(case.in_shapes[0])
    first = case.make()
    first.name = "first"
    second = first if shared else type(first)(**first.config() | {"name": "second"})
    net = xn.Network([a, b], [first(a), second(b)], backend=backend, dtype="float64")
    if not shared:
        for p, q in zip(first.parameters + first.states, second.parameters + second.states):
            q.data[...] = p.data
    return net


@pytest.mark.parametrize("case", ONE_INPUT, ids=str)
def test_a_shared_layer_is_two_layers_whose_gradients_add(case: Any):
    one, two = (twice(case, shared, "numpy") for shared in (True, False))
    if isinstance(one.layers[0], xn.BatchNorm1d | xn.BatchNorm2d):
        pytest.skip("the running statistics of a shared batch norm move twice")
    xs = [case.inputs("float64")[0], case.inputs("float64")[0][..., ::-1].copy()]
    values = [net.forward([np.asarray(x) for x in xs], "predict") for net in (one, two)]
    for y, z in zip(*values, strict=True):
        np.testing.assert_array_equal(y, z)
    if not one.layers[0].parameters:
        return
    for net in (one, two):
        ys = net.forward(xs, "train")
        net.backward([np.cos(np.arange(y.size)).reshape(y.shape) for y in ys])
    first, second = two.layers
    for p, q, r in zip(one.layers[0].parameters, first.parameters, second.parameters, strict=True):
        np.testing.assert_allclose(p.grad, q.grad + r.grad, rtol=1e-12, atol=1e-12)
    assert [node.kept for node in one.nodes] == [None, None]


def siamese(backend: Any = "numpy", dtype: str = "float32") -> xn.Network:
    """Two images through the same layers, compared."""
    a, b = xn.Input((1, 6, 6)), xn.Input((1, 6, 6))
    conv, flat, drop = xn.Conv2d(3, 3, activation="tanh"), xn.Flatten(), xn.Dropout(0.3)
    left, right = (drop(flat(conv(x))) for x in (a, b))
    return xn.Network({"left": a, "right": b}, xn.Linear(2)(xn.Subtract()(left, right)),
                      backend=backend, dtype=dtype)


def data(n: int = 12) -> tuple[dict[str, np.ndarray], np.ndarray]:
    rng = np.random.default_rng(0)
    return ({name: rng.random((n, 1, 6, 6)) for name in ("left", "right")}, np.arange(n) % 2)


def test_a_shared_layer_is_counted_saved_and_shown_once(tmp_path):
    net = siamese()
    assert [layer.name for layer in net.layers] == [
        "conv1", "flatten1", "dropout1", "subtract1", "linear1"]
    assert [node.name for node in net.nodes][:6] == [
        "conv1", "flatten1", "dropout1", "conv1:2", "flatten1:2", "dropout1:2"]
    assert set(net.arrays) == {"conv1.W", "conv1.b", "linear1.W", "linear1.b"}
    from xpnet.inspect.summary import rows, summary
    assert sum(row.parameters for row in rows(net)) == 3 * 9 + 3 + 2 * 48 + 2
    assert "parameters: 128 (128 trainable)" in str(summary(net))
    x, y = data()
    net.fit(x, y, loss="cross_entropy", optimizer="adam", epochs=2, batch_size=5, verbose=False)
    net.save(tmp_path / "file")
    again = xn.load(tmp_path / "file", backend="numpy")
    assert [node.name for node in again.nodes] == [node.name for node in net.nodes]
    assert again.nodes[0].layer is again.nodes[3].layer
    np.testing.assert_array_equal(again.predict(x), net.predict(x))
    siamese().load(tmp_path / "file")
    report = net.memory_report(8)
    assert [row.name for row in report.rows] == [node.name for node in net.nodes]


@pytest.mark.parametrize("kind", [xn.Dropout, xn.GaussianDropout])
def test_dropout_has_a_mask_for_each_use(kind: type[xn.Layer], backend: xn.Backend):
    a = xn.Input((1000,))
    drop = kind(0.5)
    net = xn.Network(a, [drop(a), drop(a)], backend=backend)
    ones = backend.asarray(np.ones((1000, 1), np.float32))
    one, two = (backend.to_numpy(y) for y in net.forward(ones, "train"))
    assert 0.4 < (one != two).mean() < (0.6 if kind is xn.Dropout else 1.01)
    dxs = net.run_backward([(node, ones) for node in net.outs.nodes], to_inputs=True)
    # each gradient with its own mask
    np.testing.assert_array_equal(backend.to_numpy(dxs[0]), one + two)


def test_the_gradient_of_shared_weights_by_finite_differences():
    net = siamese(dtype="float64")
    net.layers[2].p = 0.0
    x, _ = data(3)
    xs = [np.moveaxis(a, 0, -1).copy() for a in x.values()]
    R = np.random.default_rng(1).normal(size=(2, 3))
    net.run(xs, net.outs.nodes, "train")
    net.backward(R)
    direction = np.random.default_rng(2).normal(size=net.parameters.shape)
    analytic, start, h = float(net.grads @ direction), net.parameters.copy(), 1e-6
    values = []
    for sign in (1, -1):
        net.parameters[...] = start + sign * h * direction
        values.append(float((net.run(xs, net.outs.nodes, "train")[0] * R).sum()))
    assert abs((values[0] - values[1]) / (2 * h) - analytic) < 1e-7 * abs(analytic)


@pytest.mark.parametrize("scale", [0.25, 0.0])
def test_the_factor_of_a_shared_layer_counts_once(scale: float):
    """One update with the sum of the gradients of both uses, not one for each use."""
    net = siamese(dtype="float64")
    conv = net.layers[0]
    conv.lr_scale = scale
    x, y = data(6)
    before = {name: a.data.copy() for name, a in net.arrays.items()}
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.1))
    step({name: np.moveaxis(a, 0, -1).copy() for name, a in x.items()}, y)
    for layer, factor in ((conv, scale), (net.layers[-1], 1.0)):
        for p in layer.parameters:
            assert (p.grad != 0).any()
            np.testing.assert_allclose(p.data - before[f"{layer.name}.{p.name}"],
                                       -0.1 * factor * p.grad, rtol=1e-9, atol=1e-15)
