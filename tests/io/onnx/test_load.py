"""Exported networks come back as networks that compute the same and can be trained."""

from __future__ import annotations

import numpy as np
import pytest
from layer_cases import CASES
from model_cases import LARGE, SMALLEST
from onnx_networks import difference, exported, of_case, of_model, predicted, samples, vary
from tiers import first

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

# Layers whose nodes no layer here has: their operators are there only within larger patterns
ONE_WAY = {
    "Step": "Ceil", "Stair": "Floor", "Gaussian": "Exp",
    "LocallyConnected2d": "3 axes", "MultiHeadAttention-lengths": "Less",
    "MaxUnpool2d": "is used", "LpPool2d": "Pow", "StochasticPool2d": "constant input",
    "DivisiveNorm2d": "Sqrt", "ContrastNorm2d": "Sqrt", "LpNormalize": "constant input",
    "L1Norm": "ReduceL1", "L2Norm": "ReduceL2", "LocalResponseNorm-all": "Pow",
    "DeconvolutionalNetwork2d": "cannot be exported"}


def one_way(case) -> str | None:
    return ONE_WAY.get(str(case), ONE_WAY.get(type(case.make()).__name__))


BACK = {str(case): case for case in CASES if one_way(case) is None}
OF_CATALOGUE = [name for name in BACK if name.endswith("-of-catalogue")]


@pytest.mark.parametrize("name", first(BACK, *OF_CATALOGUE))
def test_layer_comes_back(name, tmp_path):
    net, xs = of_case(BACK[name])
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    assert difference(predicted(again, xs)[0], predicted(net, xs)[0]) < 1e-5


@pytest.mark.parametrize("name", [name for name in ONE_WAY if "Deconv" not in name])
def test_layer_that_does_not_come_back(name, tmp_path):
    case = next(case for case in CASES
                if str(case) == name or type(case.make()).__name__ == name)
    net, _ = of_case(case)
    net.export(tmp_path / "net.onnx")
    with pytest.raises(ValueError, match=f"load_onnx: expected nodes .*{ONE_WAY[name]}"):
        xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")


@pytest.mark.parametrize("name", first([name for name in SMALLEST if name not in LARGE],
                                       "lenet5", "siamese", "char_lstm", "mobilenet_v2"))
def test_import_export_import_gives_the_same_bits(name, tmp_path):
    net = of_model(name)
    net.export(tmp_path / "a.onnx")
    once = xn.io.load_onnx(tmp_path / "a.onnx", backend="numpy")
    once.export(tmp_path / "b.onnx")
    twice = xn.io.load_onnx(tmp_path / "b.onnx", backend="numpy")
    assert once.arrays.keys() == twice.arrays.keys()
    xs = samples(net, 2)
    for y, a, b in zip(predicted(net, xs), predicted(once, xs), predicted(twice, xs)):
        assert difference(a, y) < 1e-5
        assert (a == b).all()


def small(**options) -> xn.Network:
    return vary(xn.Sequential([
        xn.Conv2d(4, 3, padding=(1, 0), name="first"), xn.BatchNorm2d(), xn.ReLU(),
        xn.MaxPool2d(2), xn.Flatten(), xn.Linear(3, name="last"),
    ], input_shape=(2, 6, 6), backend="numpy", **options))


def test_names_values_metadata_and_dtype_come_back(tmp_path):
    for dtype in ("float32", "float64"):
        net = small(dtype=dtype)
        net.classes, net.scale = ["cat", "dog", "été"], 255
        net.export(tmp_path / "net.onnx")
        again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
        assert list(again.layer_names) == list(net.layer_names)
        assert again.arrays.keys() == net.arrays.keys()
        assert all((again.arrays[name].data == p.data).all() for name, p in net.arrays.items())
        assert (again.classes, again.scale, again.dtype) == (net.classes, net.scale, net.dtype)
        assert isinstance(again, xn.Network)


def test_a_loaded_network_trains_as_the_one_that_was_exported(tmp_path):
    net = small()
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    x, = samples(net, 12)
    y = np.arange(12) % 3
    for one in (net, again):
        one.fit(x, y, loss="cross_entropy", optimizer=xn.SGD(0.1), epochs=2, batch_size=4,
                verbose=False)
    for name, p in net.arrays.items():
        np.testing.assert_allclose(again.arrays[name].data, p.data, rtol=1e-4, atol=1e-6)
    assert again.history["loss"][-1] < again.history["loss"][0]


def test_batch_norms_can_be_frozen(tmp_path):
    net = small()
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", freeze_batch_norm=True, backend="numpy")
    before = {name: np.array(p.data) for name, p in again.arrays.items()}
    x, = samples(net, 6)
    again.fit(x, np.arange(6) % 3, loss="cross_entropy", epochs=1, verbose=False)
    changed = {name for name, p in again.arrays.items() if (p.data != before[name]).any()}
    assert changed == {"first.W", "first.b", "last.W", "last.b"}


def test_shared_weights_stay_shared(tmp_path):
    a, b = xn.Input((4,)), xn.Input((4,))
    shared = xn.Linear(5)
    net = xn.Network({"left": a, "right": b}, {"sum": shared(a) + shared(b)}, backend="numpy")
    net.export(tmp_path / "net.onnx")
    again = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    assert again.arrays.keys() == {"linear1.W", "linear1.b"}
    assert again.ins.names == ("left", "right")


def test_exported_files_are_those_that_are_checked(tmp_path):
    """The checks of this file read what export writes."""
    net = small()
    onnx.checker.check_model(exported(net, tmp_path / "net.onnx"), full_check=True)
