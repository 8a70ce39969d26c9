"""Any network opens: those of xpnet.models, saved files, ONNX files, branches, signals, tokens."""

from __future__ import annotations

import json

import numpy as np
import pytest
from model_cases import SETTINGS, SMALLEST
from tiers import first, full

import xpnet as xn
from xpnet.explore.describe import described
from xpnet.explore.opening import NAMED, compared, named, opened
from xpnet.explore.session import Session
from xpnet.explore.trace import traced
from xpnet.models import DARKNETS, MODELS


def look_at_everything(net):
    """Describe the network, draw noise, and look at each value, its gradient and one trace of it.
    """
    session, rng = Session(net), np.random.default_rng(0)
    json.dumps(described(session, []), allow_nan=False)
    for number, (node, (low, high)) in enumerate(zip(net.ins.nodes, session.ranges, strict=True)):
        session.set_input(number, rng.uniform(low, high, node.shape), "drawing")
    side = session.computed()
    json.dumps([session.state(), session.statistics("a")], allow_nan=False)
    for node in side.nodes:
        assert side.array(node).shape == node.shape
        at = tuple(int(rng.integers(n)) for n in node.shape)
        found = traced(side, node, at)
        json.dumps(found, allow_nan=False)
        if found.get("result") is not None:
            # float32: the error is relative to the terms of the sum, which may cancel
            terms = sum(np.abs(np.array(part["products"] or 0, float)).sum()
                        for part in found["inputs"])
            assert abs(found["result"] - found["value"]) <= 1e-6 * (1 + terms), node.name
    output = net.outs.nodes[0]
    session.set_target((output, (0,) * len(output.shape)))
    session.gradients()
    side = session.differentiated()
    assert all(side.array(node, True).shape == node.shape for node in side.nodes)
    return session


@pytest.mark.parametrize("name", first(MODELS, "bilici", "lenet5", "siamese", "char_lstm"))
def test_models(name):
    shape, settings = SMALLEST[name], SETTINGS.get(name, {})
    net = MODELS[name](shape, backend="numpy", **settings)
    look_at_everything(net)


@full
@pytest.mark.parametrize("name", ["darknet_tiny", "yolov3_tiny", "yolov2_tiny"])
def test_darknets(name):
    look_at_everything(DARKNETS[name]((3, 64, 64), backend="numpy"))


def test_branches_and_several_outputs():
    x = xn.Input((2, 6, 6), name="image")
    a = xn.Conv2d(3, 3, padding=1, activation="relu")(x)
    b = xn.AvgPool2d(3, stride=1, padding=1)(a)
    y = xn.Concat()(a, b)
    net = xn.Network(x, {"map": y, "class": xn.Softmax()(xn.Linear(4)(xn.GlobalAvgPool2d()(y)))},
                     backend="numpy")
    session = look_at_everything(net)
    nodes = described(session, [])["nodes"]
    assert [node["column"] for node in nodes] == [0, 1, 2, 3, 4, 5, 6]
    assert next(node["inputs"] for node in nodes if node["type"] == "Concat") == [1, 2]
    tops = [row["top"] for row in session.state()["outputs"]]
    assert tops[0] is None and sum(row["probability"] for row in tops[1]) == pytest.approx(1)


def test_signals_and_shared_layers():
    conv = xn.Conv1d(3, 3, padding=1, activation="relu")
    x = xn.Input((3, 16))
    net = xn.Network(x, xn.GlobalMaxPool1d()(conv(conv(x))), backend="numpy")
    session = look_at_everything(net)
    nodes = described(session, [])["nodes"]
    assert [node["kind"] for node in nodes] == ["sequence", "sequence", "sequence", "features"]
    assert [node["name"] for node in nodes[1:3]] == ["conv1", "conv1:2"]
    assert nodes[1]["parameters"] == nodes[2]["parameters"]


def test_tokens_are_whole_numbers():
    """What is drawn is rounded to tokens."""
    net = xn.Sequential([xn.Embedding(5, 3), xn.LSTM(4), xn.Linear(2)], input_shape=(6,),
                        backend="numpy")
    session = look_at_everything(net)
    nodes = described(session, [])["nodes"]
    assert nodes[0]["tokens"] == 5 and nodes[2]["type"] == "LSTM" and nodes[2]["window"] is None
    session.set_input(0, np.array([-3, 0.4, 0.6, 3.9, 9, 1]), "drawing")
    np.testing.assert_array_equal(session.computed().array(net.ins.nodes[0]), [0, 0, 1, 4, 4, 1])


def test_sequences_with_lengths_are_drawn_whole():
    x = xn.Input((2, 7), lengths=True)
    h = xn.LSTM(3, return_sequences=True)(x)
    net = xn.Network(x, xn.GlobalAvgPool1d(lengths=True)(h, x.lengths), backend="numpy")
    session = look_at_everything(net)
    assert [node["inputs"] for node in described(session, [])["nodes"]] == [[], [0], [1]]


def test_an_onnx_file(tmp_path):
    pytest.importorskip("onnx", reason="onnx is not installed; it reads ONNX files")
    net = xn.Sequential([xn.Conv2d(2, 3, activation="relu"), xn.MaxPool2d(2), xn.Flatten(),
                         xn.Linear(3), xn.Softmax()], input_shape=(1, 8, 8), backend="numpy")
    net.export(tmp_path / "net.onnx")
    read = opened(str(tmp_path / "net.onnx"), backend="numpy")
    session = look_at_everything(read)
    x = session.inputs[0]
    np.testing.assert_allclose(session.computed().array(read.outs.nodes[0]), net.predict(x)[0],
                               rtol=1e-5)


def test_a_saved_file(tmp_path):
    net = xn.Sequential([xn.Flatten(), xn.Linear(3)], input_shape=(1, 4, 4), backend="numpy",
                        seed=2)
    net.classes = ["a", "b", "c"]
    net.save(tmp_path / "net.safetensors")
    read = opened(str(tmp_path / "net.safetensors"), backend="numpy")
    np.testing.assert_array_equal(read.parameters, net.parameters)
    assert look_at_everything(read).classes == ("a", "b", "c")


def test_models_are_made_for_the_data_set():
    data = xn.data.Dataset(np.zeros((4, 1, 8, 8), np.uint8), [0, 1, 2, 1], classes=["a", "b", "c"])
    net = named("bilici", data=data, backend="numpy")
    assert net.ins.nodes[0].shape == (1, 8, 8) and net.classes == ("a", "b", "c")
    assert named("bilici", backend="numpy").classes == tuple("0123456789")
    assert set(MODELS) | set(DARKNETS) == set(NAMED)


@pytest.mark.parametrize("name", ["nothing", "bilicy", "", "/", "\0"])
def test_what_is_no_network(name):
    with pytest.raises(ValueError, match="neither|one of"):
        opened(name, backend="numpy")


def test_opening_keeps_the_version_growing(serve):
    data = xn.data.Dataset(np.zeros((4, 1, 28, 28), np.uint8), [0, 1, 2, 1])
    page = serve(named("mlp", data=data, backend="numpy"), data, compare="numpy")
    before = page.json("/api/model")
    assert "lenet5" in before["models"]
    page.json("/api/train", {"action": "step"})
    after = page.json("/api/open", {"model": "numpy_cnn"})
    assert after["version"] > before["version"] + 1 and after["name"] == "numpy_cnn"
    assert after["nodes"][0]["shape"] == [1, 28, 28] and after["training"]["possible"]
    assert after["compare"] == {"what": "numpy"} and after["backend"]["b"] == "numpy"
    assert page.array("/api/node/1?side=b").shape == (8, 24, 24)
    pair = page.json("/api/open", {"model": "siamese"})         # a data set has one input
    assert not pair["training"]["possible"] and pair["samples"] is None


def test_answers_say_which_network_they_are_of(serve):
    """A page that polls while a new network is trained, or one of the same name, knows by this."""
    data = xn.data.Dataset(np.zeros((4, 1, 28, 28), np.uint8), [0, 1, 2, 1])
    page = serve(named("mlp", data=data, backend="numpy"), data, name="mlp")
    numbers = []
    for model in ("mlp", "mlp", "lenet5"):
        numbers.append(page.json("/api/open", {"model": model})["network"])
        page.json("/api/train", {"action": "step"})
        assert {page.json(f"/api/{what}")["network"] for what in ("model", "state", "train")} == {
            numbers[-1]}
    assert numbers[0] < numbers[1] < numbers[2]


def test_a_network_of_a_copy_learns_nothing_from_the_first():
    net = named("lecun1989", backend="numpy")
    other, mirror = compared(net, "numpy")
    assert mirror and other.parameters is not net.parameters
