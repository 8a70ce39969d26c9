"""Several inputs and outputs: data, targets, losses and predictions follow the structure of the
nodes."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from nets import same

import xpnet as xn
from xpnet.node import Node


def branches(form: str, backend: Any = "numpy", dtype: str = "float64",
             seed: int = 0) -> xn.Network:
    """An image and a vector -> a class and two numbers."""
    image, vector = xn.Input((1, 6, 6)), xn.Input((3,))
    h = xn.Flatten()(xn.Conv2d(2, 3, activation="tanh")(image))
    both = xn.Concat()(h, xn.Linear(4, activation="tanh")(vector))
    digit, place = xn.Softmax()(xn.Linear(5, name="scores")(both)), xn.Linear(2, name="place")(both)
    if form == "dict":
        return xn.Network({"image": image, "vector": vector}, {"digit": digit, "place": place},
                          backend=backend, dtype=dtype, seed=seed)
    return xn.Network([image, vector], [digit, place], backend=backend, dtype=dtype, seed=seed)


def data(form: str, n: int = 24) -> tuple[Any, Any]:
    rng = np.random.default_rng(0)
    x = {"image": rng.random((n, 1, 6, 6)), "vector": rng.random((n, 3))}
    y = {"digit": rng.integers(0, 5, n), "place": rng.random((n, 2))}
    return (x, y) if form == "dict" else (list(x.values()), list(y.values()))


LOSSES = {"dict": {"digit": "cross_entropy", "place": "mean_squared_error"},
          "list": ["cross_entropy", xn.MeanSquaredError()]}


def fitted(form: str, **settings: Any) -> tuple[xn.Network, xn.History]:
    net, (x, y) = branches(form), data(form)
    weights = {"digit": 1.0, "place": 0.5} if form == "dict" else [1.0, 0.5]
    history = net.fit(x, y, loss=LOSSES[form], loss_weights=weights, optimizer=xn.Adam(0.01),
                      epochs=3, batch_size=10, validation=(x, y), verbose=False, **settings)
    return net, history


@pytest.mark.parametrize("form", ["dict", "list"])
def test_fit_evaluate_and_predict(form: str):
    net, history = fitted(form)
    (x, y), names = data(form), ("digit", "place") if form == "dict" else ("softmax1", "place")
    a, b = names
    assert list(history.rows[0]) == [
        "epoch", "loss", f"{a}_loss", f"{a}_accuracy", f"{b}_loss", "val_loss", f"val_{a}_loss",
        f"val_{a}_accuracy", f"val_{b}_loss", "lr", "seconds"]
    np.testing.assert_allclose(history["loss"],
                               np.add(history[f"{a}_loss"], 0.5 * np.array(history[f"{b}_loss"])),
                               rtol=1e-6)
    assert history["loss"][-1] < history["loss"][0]
    figures = net.evaluate(x, y)
    assert figures["loss"] == pytest.approx(history["val_loss"][-1], rel=1e-6)
    shown = net.predict(x)
    digit, place = shown.values() if form == "dict" else shown
    assert isinstance(shown, dict if form == "dict" else list)
    targets = list(y.values()) if form == "dict" else y
    assert figures[f"{a}_accuracy"] == (digit.argmax(axis=1) == targets[0]).mean()
    assert figures[f"{b}_loss"] == pytest.approx(((place - targets[1]) ** 2).mean())
    called = net(x)
    np.testing.assert_allclose((called["place"] if form == "dict" else called[1]), place,
                               rtol=1e-12)
    scores = net.output_of("scores", x)
    np.testing.assert_allclose(np.exp(scores) / np.exp(scores).sum(axis=1, keepdims=True), digit,
                               rtol=1e-6)
    metric = net.evaluate(x, y, metrics={"most": lambda out, target: len(out) + len(target)})
    assert metric["most"] == 4


def test_both_forms_train_to_the_same_bits():
    assert same({"w": fitted("dict")[0].parameters}, {"w": fitted("list")[0].parameters})


def test_the_gradient_is_that_of_the_weighted_sum_of_losses():
    net, (x, y) = branches("list"), data("list", 6)
    step = xn.TrainStep(net, LOSSES["list"], xn.SGD(0.0), loss_weights=[1.0, 0.5])
    xs = [np.moveaxis(a, 0, -1).copy() for a in x]
    targets = [np.moveaxis(np.asarray(a), 0, -1).copy() for a in y]
    loss, ys = step(xs, targets)
    assert [value.shape for value in ys] == [(5, 6), (2, 6)]
    direction, start, h = (np.random.default_rng(3).normal(size=net.parameters.shape),
                           net.parameters.copy(), 1e-6)
    analytic, values = float(net.grads @ direction), []
    for sign in (1, -1):
        net.parameters[...] = start + sign * h * direction
        figures = net.evaluate(x, y, loss=LOSSES["list"], loss_weights=[1.0, 0.5])
        values.append(figures["loss"])
    assert abs((values[0] - values[1]) / (2 * h) - analytic) < 1e-7
    net.parameters[...] = start
    expected = net.evaluate(x, y, loss=LOSSES["list"], loss_weights=[1.0, 0.5])["loss"]
    assert float(loss) == pytest.approx(expected)


def test_sample_weights_apply_to_every_output():
    net, (x, y) = branches("dict"), data("dict")
    weight = np.zeros(24)
    weight[:6] = 1.0
    net.fit(x, y, loss=LOSSES["dict"], optimizer=xn.SGD(0.1), batch_size=24, sample_weight=weight,
            shuffle=False, verbose=False)
    other, (x2, y2) = branches("dict"), data("dict")
    for values in (x2, y2):
        for name in values:
            values[name][6:] = values[name][:1]
    other.fit(x2, y2, loss=LOSSES["dict"], optimizer=xn.SGD(0.1), batch_size=24,
              sample_weight=weight, shuffle=False, verbose=False)
    np.testing.assert_allclose(net.parameters, other.parameters, rtol=1e-12)


@pytest.mark.parametrize("form", ["dict", "list"])
def test_files_keep_the_structure(form: str, tmp_path):
    net, _ = fitted(form)
    net.save(tmp_path / "file")
    again = xn.load(tmp_path / "file", backend="numpy")
    assert again.ins.form == net.ins.form and again.outs.names == net.outs.names
    x, _ = data(form)
    for a, b in zip(_values(net.predict(x)), _values(again.predict(x)), strict=True):
        np.testing.assert_array_equal(a, b)


def _values(value: Any) -> list[Any]:
    return list(value.values()) if isinstance(value, dict) else value


def test_inputs_are_single_lists_or_dicts():
    net = branches("dict")
    assert isinstance(net.input, dict) and isinstance(net.output["digit"], Node)
    assert [node.name for node in net.ins.nodes] == ["image", "vector"]
    assert [node.name for node in branches("list").ins.nodes] == ["input1", "input2"]
    x, _ = data("dict")
    reversed_order = dict(reversed(x.items()))
    np.testing.assert_array_equal(net.predict(x)["place"], net.predict(reversed_order)["place"])


X, Y = data("dict")


@pytest.mark.parametrize("x, y, settings, message", [
    ([X["image"]], Y, {}, "fit: expected|Network: expected inputs as a dict"),
    ({"image": X["image"]}, Y, {},
     "Network: expected inputs for image, vector. Received: a dict with 'image'"),
    (X, Y["digit"], {}, "fit: expected targets as a dict for digit, place. Received: ndarray"),
    (X | {"vector": X["vector"][:5]}, Y, {},
     "Network: expected as many samples for each input. Received: 24 of image, 5 of vector"),
    (X | {"vector": X["image"]}, Y, {}, r"Network: expected vector of shape \(N, 3\)"),
    (X, Y, {"loss": {"digit": "cross_entropy"}}, "fit: expected losses for digit, place"),
    (X, Y, {"loss_weights": {"digit": 1.0}}, "fit: expected loss_weights for digit, place"),
    (X, Y, {"loss_weights": {"digit": 1.0, "place": -1}},
     "fit: expected loss_weights to be a number, 0 or larger"),
])
def test_refusals(x: Any, y: Any, settings: dict[str, Any], message: str):
    net = branches("dict")
    with pytest.raises(ValueError, match=message):
        net.fit(x, y, **{"loss": LOSSES["dict"], "optimizer": "adam", "verbose": False} | settings)


def test_nodes_that_make_no_network():
    x = xn.Input((2,))
    y = xn.Linear(2)(x)
    with pytest.raises(ValueError, match="expected each output once"):
        xn.Network(x, [y, y], backend="numpy")
    with pytest.raises(ValueError, match="outputs that do not depend on other"):
        xn.Network([x, xn.Input((3,), name="other")], y, backend="numpy")
    with pytest.raises(TypeError, match="Received: a list of nothing"):
        xn.Network(x, [], backend="numpy")
