"""The error about an unknown argument names the one that is meant."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest

import xpnet as xn
from xpnet import hints, models


@pytest.mark.parametrize("make, message", [
    (lambda: xn.Conv2d(8, kernel=3),
     r"Conv2d: expected the arguments filters, kernel_size, .*name\. "
     r"Received: kernel, which is kernel_size here\."),
    (lambda: xn.Conv2d(8, 3, strides=2), "Received: strides, which is stride here"),
    (lambda: xn.Conv2d(3, 8, in_channels=1), "in_channels, which follows from the layer before"),
    (lambda: xn.Linear(out_features=3), "Linear: .*out_features, which is units here"),
    (lambda: xn.Adam(learning_rate=1e-3), "Adam: .*learning_rate, which is lr here"),
    (lambda: xn.Dropout(rate=0.5), "Dropout: .*rate, which is p here"),
    (lambda: xn.AdditiveNoise(stddev=0.1), "AdditiveNoise: .*stddev, which is std here"),
    (lambda: xn.Concat(dim=1), "Concat: .*dim, which is axis here"),
    (lambda: xn.Slice(0, end=2), "Slice: .*end, which is stop here"),
    (lambda: xn.CrossEntropy(label_smoothin=0.1), "label_smoothin, which is label_smoothing here"),
    (lambda: xn.ReLU(zebra=1), r"ReLU: expected the arguments name\. Received: zebra\."),
])
def test_the_argument_that_is_meant(make: Any, message: str):
    with pytest.raises(TypeError, match=message) as raised:
        make()
    assert "\n" not in str(raised.value)


LINES = [xn.Linear(3), xn.ReLU()]


@pytest.mark.parametrize("make, message", [
    (lambda: xn.Conv2d(1, 16, 3),
     "Conv2d: expected at most 2 values without a name, filters, kernel_size; how many channels or "
     "features come in follows from the layer before. Received: 3."),
    (lambda: xn.Linear(10, 20), "Linear: expected at most one value without a name, units; how "
     "many channels or features come in follows from the layer before. Received: 2."),
    (lambda: xn.Sequential(*LINES, input_shape=(4,)), "Sequential: expected at most one value "
     "without a name, layers; the layers are one list, [Conv2d(...), ...]. Received: 2."),
    (lambda: xn.Sequential(LINES), "Sequential: expected the arguments layers, input_shape, "
     "lengths, backend, dtype, seed, name. Received: no input_shape."),
    (lambda: xn.Conv2d(), "Received: no filters, kernel_size."),
    (lambda: xn.ReLU(0), "ReLU: expected no values without a name; with their names: name. "
     "Received: 1."),
    (lambda: xn.Network(xn.Input((3,))), "Network: expected the arguments inputs, outputs, "
     "backend, dtype, seed, name. Received: no outputs.")])
def test_too_many_and_missing_arguments(make: Any, message: str):
    with pytest.raises(TypeError) as raised:
        make()
    assert str(raised.value).endswith(message)


def test_none_and_text_are_named():
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    x, y = np.zeros((4, 3)), np.zeros(4, int)
    with pytest.raises(TypeError, match="targets: expected real numbers. Received: None."):
        net.fit(x, loss="cross_entropy")
    with pytest.raises(TypeError, match="fit: expected augmentations, .* Received: 'flip'."):
        net.fit(x, y, loss="cross_entropy", augment="flip")


@pytest.mark.parametrize("name", ["file", "file/inside"])
def test_a_file_in_place_of_a_folder_is_named(tmp_path: Any, name: str):
    (tmp_path / "file").write_text("")
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    for settings in ({"resume": tmp_path / name},
                     {"callbacks": [xn.TensorBoard(tmp_path / name)]}):
        with pytest.raises(OSError, match="expected a folder, or a name for a new one. Received: "):
            net.fit(np.zeros((4, 3)), np.zeros(4, int), loss="cross_entropy", verbose=False,
                    **settings)


def test_arguments_of_fit():
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    x, y = np.zeros((4, 3)), np.zeros(4, int)
    for wrong, right in {"validation_data": "validation", "nb_epoch": "epochs", "bs": "batch_size",
                         "criterion": "loss", "Epochs": "epochs", "seq_lengths": "lengths"}.items():
        with pytest.raises(TypeError, match=f"^fit: expected .*: {wrong}, which is {right} here"):
            net.fit(x, y, **{wrong: 1})


def test_signatures_and_texts_stay():
    assert [*inspect.signature(xn.Conv2d).parameters][:3] == ["filters", "kernel_size", "stride"]
    assert [*inspect.signature(xn.Network.fit).parameters][:3] == ["self", "x", "y"]
    assert "batch-first" in (xn.Network.fit.__doc__ or "")


def test_layers_of_ones_own():
    class Scaled(xn.Layer):
        def __init__(self, factor: float = 1.0, *, name: str | None = None) -> None:
            super().__init__(name=name)
            self.factor = factor

    class Open(xn.Layer):
        def __init__(self, **settings: Any) -> None:
            super().__init__()
            self.settings = settings

    assert Scaled(2.0).factor == 2 and Open(anything=1).settings == {"anything": 1}
    with pytest.raises(TypeError, match="Scaled: .*Received: factr, which is factor here"):
        Scaled(factr=2.0)


def test_every_name_in_the_table_is_an_argument_somewhere():
    functions = [value for value in map(vars(xn).get, dir(xn)) if isinstance(value, type)]
    functions += [xn.Network.fit, *models.MODELS.values()]
    known = {name for function in functions for name in inspect.signature(function).parameters}
    meant = {name for names in hints.OTHERS.values() for name in names}
    assert meant <= known, meant - known
    assert not hints.OTHERS.keys() & {"lr", "units", "filters", "p"}
