"""Networks that were not read from Darknet's files are written as such, and compute the same."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from darknet_reference import Reference, largest_error, randomized, saved
from tiers import first

import xpnet as xn
from xpnet.node import Node


def chain(*layers: xn.Layer, shape: tuple[int, ...] = (4, 9, 8)) -> Callable[[], xn.Network]:
    return lambda: xn.Sequential(layers, input_shape=shape, backend="numpy")


def graph(build: Callable[[Node], Node]) -> Callable[[], xn.Network]:
    def make() -> xn.Network:
        x = xn.Input((4, 9, 8))
        return xn.Network(x, build(x), backend="numpy")
    return make


def residual(x: Node) -> Node:
    h = xn.Conv2d(4, 3, padding=1)(x)
    return xn.LeakyReLU(0.1)(xn.Add()(xn.BatchNorm2d()(xn.Conv2d(4, 1, bias=False)(h)), h))


def branches(x: Node) -> Node:
    a, b = xn.MaxPool2d(2)(x), xn.AvgPool2d(2)(x)
    c = xn.Concat()(xn.Conv2d(2, 1, activation="relu")(a), xn.Slice(2, 4)(b))
    return xn.Upsample2d(3)(xn.Add(activation="mish")(c, a))


def weighted(x: Node) -> Node:
    h = xn.Conv2d(4, 1)(x)
    g = xn.SiLU()(xn.Conv2d(4, 3, padding=1)(h))
    return xn.WeightedSum(per_channel=True, normalization="softmax")(h, g, x)


CASES = {
    "classifier": chain(
        xn.Conv2d(6, 3, padding=1, bias=False), xn.BatchNorm2d(), xn.LeakyReLU(0.1),
        xn.MaxPool2d(3, stride=2, padding=(1, 1, 1, 1)),
        xn.DepthwiseConv2d(3, stride=(2, 1), bias=False), xn.BatchNorm2d(activation="mish"),
        xn.GlobalAvgPool2d(), xn.Dropout(0.3), xn.Linear(3), xn.Softmax()),
    "dense": chain(
        xn.Conv2d(3, 3, dilation=2, padding=1, groups=1, activation="tanh"), xn.ReLU(),
        xn.BatchNorm2d(activation="relu"), xn.Flatten(), xn.Dropout(0.2),
        xn.Linear(5, bias=False), xn.BatchNorm1d(), xn.SELU(), xn.Linear(4, activation="sigmoid")),
    "no-biases": chain(xn.Conv2d(3, 3, bias=False), xn.ReLU(), xn.Flatten(),
                       xn.Linear(2, bias=False)),
    "local": chain(xn.LocallyConnected2d(3, 3, padding=1), xn.LeakyReLU(0.1), xn.Softmax()),
    "vectors": chain(xn.Linear(6), xn.Reshape((6, 1, 1)), xn.Conv2d(3, 1), xn.Reshape((3,)),
                     xn.Linear(2), shape=(5,)),
    "sequence": chain(xn.Linear(3, activation="tanh"), xn.LSTM(4, return_sequences=True),
                      xn.GRU(3, reset="before", return_sequences=True), xn.Linear(2, bias=False),
                      xn.BatchNorm1d(), xn.LeakyReLU(0.1), xn.Softmax(0), shape=(5, 6)),
    "identity": chain(xn.Identity()),
    "residual": graph(residual), "branches": graph(branches), "weighted": graph(weighted),
    "product": graph(lambda x: xn.Multiply()(xn.Conv2d(4, 1)(x), xn.Conv2d(4, 1)(x))),
    "input-again": graph(lambda x: xn.Add()(xn.Conv2d(4, 1)(x), x)),
}


@pytest.mark.parametrize("name", CASES)
def test_what_is_written_computes_the_same(name: str, tmp_path: Path):
    """In the loops of the reference, and when it is read again."""
    net = randomized(CASES[name]())
    text, content = saved(net, tmp_path)
    x = np.random.default_rng(1).normal(size=net.input.shape)
    expected = Reference(text, content).outputs(x)[-1].reshape(net.output.shape)
    assert largest_error(net, [expected], x) < 2e-5
    again = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", backend="numpy")
    y = again.predict(x[None].astype(np.float32))
    np.testing.assert_allclose(y.ravel(), net.predict(x[None].astype(np.float32)).ravel(),
                               rtol=1e-4, atol=1e-5)
    assert saved(again, tmp_path)[1] == content


@pytest.mark.parametrize("name", first(
    ["darknet_tiny", "darknet19", "darknet53", "darknet_densenet201"], "darknet_tiny"))
def test_a_loaded_network_without_its_cfg_file_has_equal_bytes(name: str, tmp_path: Path):
    net = getattr(xn.models, name)((3, 32, 32), classes=3, backend="numpy")
    given = saved(net, tmp_path)
    net.save(tmp_path / "net.safetensors")
    back = xn.load(tmp_path / "net.safetensors", backend="numpy")
    assert not hasattr(back, "darknet")
    text, content = saved(back, tmp_path)
    assert content == given[1]
    assert text.count("[convolutional]") == given[0].count("[convolutional]")


def test_a_new_head_is_written(tmp_path: Path):
    net = xn.models.darknet_tiny((3, 32, 32), classes=3, backend="numpy")
    new = net.with_head([xn.Conv2d(5, 1), xn.GlobalAvgPool2d(), xn.Softmax()], after="leaky18")
    saved(new, tmp_path)
    back = xn.io.load_darknet(tmp_path / "net.cfg", tmp_path / "net.weights", backend="numpy")
    x = np.random.default_rng(0).uniform(size=(2, 3, 32, 32)).astype(np.float32)
    np.testing.assert_allclose(back.predict(x), new.predict(x), rtol=1e-5, atol=1e-6)


REFUSED: dict[str, tuple[Callable[[], xn.Network], str]] = {
    "layer": (chain(xn.Conv2d(3, 3), xn.LayerNorm()), "layers that Darknet has.*LayerNorm"),
    "own layer": (chain(xn.SeparableConv2d(3, 3)), "layers that Darknet has.*SeparableConv2d"),
    "activation": (chain(xn.Conv2d(3, 3, activation="softplus")), "softplus of conv1"),
    "slope": (chain(xn.Conv2d(3, 3), xn.LeakyReLU(0.2)), r"LeakyReLU\(slope=0.2"),
    "constants": (chain(xn.Hardtanh(-2.0, 1.0)), r"Received: Hardtanh\("),
    "window": (chain(xn.Conv2d(3, (3, 2))), "square windows.*3x2"),
    "padding": (chain(xn.Conv2d(3, 2, padding=(0, 1, 0, 1))), "equal padding on all sides"),
    "map of biases": (chain(xn.Conv2d(3, 2, bias="map")), "one bias for each filter"),
    "pooling": (chain(xn.MaxPool2d(3, padding=(1, 0, 1, 0))), "half of it, rounded down"),
    "average": (chain(xn.AvgPool2d(3, padding=1)), "averages without the padding"),
    "eps": (chain(xn.BatchNorm2d(eps=1e-3)), "with eps=0.001"),
    "upsampling": (chain(xn.Upsample2d(2, "bilinear")), "repeats rows and columns"),
    "softmax": (chain(xn.Softmax(1)), "along the channels"),
    "slice": (chain(xn.Slice(1, 3)), "one of equal groups"),
    "reshape": (chain(xn.Reshape((2, 12, 12))), "layers that Darknet has.*Reshape"),
    "flatten": (chain(xn.Flatten(), xn.ReLU()), "a Flatten in front of"),
    "sequence": (chain(xn.Linear(3), shape=(4, 5)), "images, vectors, or sequences of a network "
                                                    "with an LSTM or a GRU"),
    "last state": (chain(xn.LSTM(3), shape=(4, 5)), "whose output is all states"),
    "directions": (chain(xn.LSTM(3, bidirectional=True, return_sequences=True), shape=(4, 5)),
                   "in one direction"),
    "reset": (chain(xn.GRU(3, return_sequences=True), shape=(4, 5)), "one LSTM or GRU.reset="),
    "flat steps": (chain(xn.LSTM(3, return_sequences=True), xn.Flatten(), xn.Linear(2),
                         shape=(4, 5)), "no Flatten or Reshape of a sequence"),
    "outputs": (lambda: xn.Network(x := xn.Input((4,)), [xn.Linear(2)(x), xn.Linear(3)(x)],
                                   backend="numpy"), "one input and one output"),
    "twice": (graph(lambda x: (lambda c: c(c(x)))(xn.Conv2d(4, 1))), "layers that are used once"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_darknet_does_not_have(name: str, tmp_path: Path):
    make, reason = REFUSED[name]
    with pytest.raises(ValueError, match=f"save_darknet: expected .*{reason}") as caught:
        xn.io.save_darknet(make(), tmp_path / "net.cfg", tmp_path / "net.weights")
    assert "\n" not in str(caught.value) and not (tmp_path / "net.cfg").exists()
