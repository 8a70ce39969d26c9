"""Exported networks compute in ONNX's reference and in onnxruntime what they compute here."""

from __future__ import annotations

import json
import sys

import numpy as np
import pytest
from layer_cases import CASES, LayerCase
from model_cases import SMALLEST
from onnx_networks import (
    by_reference,
    by_runtime,
    difference,
    exported,
    of_case,
    of_model,
    predicted,
    samples,
    vary,
)
from tiers import first, full

import xpnet as xn
from xpnet.io.onnx.export import WRITE
from xpnet.io.onnx.write_sequences import NAMES

onnx = pytest.importorskip("onnx", reason="onnx is not installed")

REFUSED = {"DeconvolutionalNetwork2d"}
SEQUENCE = (3, 5)


def some_lengths(*shapes):
    """Random sequences, and numbers of steps of three samples at the position of shape (1,)."""
    def draw(rng, N):
        return tuple(np.array([[5.0, 2.0, 3.0]]) if shape == (1,)
                     else rng.standard_normal((*shape, N)) for shape in shapes)
    return draw


MORE = [
    LayerCase("LSTM-first-states", lambda: xn.LSTM(4, layers=2, bidirectional=True),
              (SEQUENCE, (4, 4), (4, 4))),
    LayerCase("GRU-first-state", lambda: xn.GRU(4, return_sequences=True), (SEQUENCE, (4,))),
    LayerCase("LSTM-states", lambda: xn.LSTM(4, layers=2, bidirectional=True,
                                             return_sequences=True, return_state=True),
              (SEQUENCE,)),
    LayerCase("GRU-state", lambda: xn.GRU(4, layers=2, return_state=True), (SEQUENCE, (2, 4))),
    LayerCase("RNN-state", lambda: xn.RNN(xn.ElmanCell(4), return_state=True), (SEQUENCE, (4,))),
    LayerCase("GRU-no-bias", lambda: xn.GRU(4, bias=False), (SEQUENCE,)),
    LayerCase("LSTM-reverse", lambda: xn.LSTM(4, layers=2, reverse=True, return_sequences=True),
              (SEQUENCE,)),
    LayerCase("GRU-reverse-lengths",
              lambda: xn.GRU(4, reverse=True, return_sequences=True, lengths=True),
              (SEQUENCE, (1,)), some_lengths(SEQUENCE, (1,))),
    LayerCase("LSTM-lengths",
              lambda: xn.LSTM(4, bidirectional=True, return_sequences=True, lengths=True),
              (SEQUENCE, (1,)), some_lengths(SEQUENCE, (1,))),
    LayerCase("RNN-lengths", lambda: xn.RNN(xn.ElmanCell(4), reverse=True, lengths=True),
              (SEQUENCE, (1,), (4,)), some_lengths(SEQUENCE, (1,), (4,))),
    LayerCase("MultiHeadAttention-memory-lengths", lambda: xn.MultiHeadAttention(2, lengths=True),
              ((4, 3), (6, 5), (1,)), some_lengths((4, 3), (6, 5), (1,))),
    LayerCase("LayerNorm-rows", lambda: xn.LayerNorm(axis=(0, 1)), ((3, 4, 5),)),
    LayerCase("RMSNorm-channels", lambda: xn.RMSNorm(axis=0), ((3, 4, 5),)),
    LayerCase("RMSNorm-columns", lambda: xn.RMSNorm(axis=2, affine=False), ((3, 4, 5),)),
    LayerCase("LocalResponseNorm-even", lambda: xn.LocalResponseNorm(4, alpha=0.5), ((6, 3, 2),)),
    LayerCase("GroupNorm-features", lambda: xn.GroupNorm(2), ((6,),)),
    LayerCase("AdaptiveAvgPool2d-even", lambda: xn.AdaptiveAvgPool2d(2), ((3, 4, 6),)),
    LayerCase("AvgPool1d-dilated", lambda: xn.AvgPool1d(3, stride=2, padding=2, dilation=2),
              ((3, 9),)),
    LayerCase("MaxPool2d-dilated", lambda: xn.MaxPool2d(2, padding=3, dilation=4), ((3, 9, 8),)),
    LayerCase("ConvTranspose2d-extra",
              lambda: xn.ConvTranspose2d(3, 2, stride=(1, 2), dilation=3, output_padding=(2, 1)),
              ((3, 4, 5),)),
    *(LayerCase(f"SimpleRNN-{name}", lambda name=name: xn.SimpleRNN(4, activation=name),
                (SEQUENCE,)) for name in NAMES if name != "tanh"),
    *(LayerCase(f"Upsample2d-{mode}-{corners}",
                lambda mode=mode, corners=corners: xn.Upsample2d(1.7, mode, corners), ((2, 5, 6),))
      for mode, corners in (("nearest", False), ("nearest-exact", False), ("bilinear", True),
                            ("bicubic", False), ("bicubic", True))),
]
LAYERS = {str(case): case for case in (*CASES, *MORE)
          if case.make().__class__.__name__ not in REFUSED}
# What onnx's reference implementation cannot compute, or gets wrong. onnxruntime computes all.
REFERENCE_WRONG = {
    "MaxUnpool2d-of-catalogue": "puts elements at wrong positions for a given output shape",
    "GlobalMaxPool1d-of-catalogue": "has no maximum of signals",
    "LocalResponseNorm-of-catalogue": "leaves out the last neighbour",
    "ConvTranspose2d-grouped": "has no groups with dilation",
    "Upsample2d-nearest-exact-False": "rounds positions to other elements",
    **dict.fromkeys(("LSTM-lengths", "GRU-reverse-lengths", "RNN-lengths"), "ignores the lengths"),
} | {f"SimpleRNN-{name}": "has no activations but tanh and affine"
     for name in NAMES if name not in ("tanh", "linear")}


def check(case, run, tmp_path):
    net, xs = of_case(case)
    model = exported(net, tmp_path / "net.onnx")
    y, = run(model, xs)
    assert difference(y, predicted(net, xs)[0]) < 1e-5
    return model


@pytest.mark.parametrize("name", first(
    [name for name in LAYERS if name not in REFERENCE_WRONG],
    *(name for name in LAYERS if name.endswith("-of-catalogue") and name not in REFERENCE_WRONG)))
def test_layer_in_the_reference(name, tmp_path):
    onnx.checker.check_model(check(LAYERS[name], by_reference, tmp_path), full_check=True)


@full
@pytest.mark.parametrize("name", REFERENCE_WRONG)
def test_what_the_reference_gets_wrong(name, tmp_path):
    """Once it is right, the case belongs to the others."""
    net, xs = of_case(LAYERS[name])
    model = exported(net, tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    try:
        y, = by_reference(model, xs)
    except (IndexError, ValueError, RuntimeError, TypeError):
        return
    expected, = predicted(net, xs)
    assert y.shape != expected.shape or difference(y, expected) > 1e-2


@full
@pytest.mark.parametrize("name", LAYERS)
def test_layer_in_onnxruntime(name, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    check(LAYERS[name], by_runtime, tmp_path)


def test_every_layer_is_written_or_refused():
    classes = {getattr(xn, name) for name in xn.layers.__all__} - {xn.Activation}
    assert {kind.__name__ for kind in classes - WRITE.keys()} == REFUSED


# the others take longer there, or have a local response norm
IN_REFERENCE = [
    "mlp", "numpy_cnn", "bilici", "lecun1989", "lenet5", "all_cnn", "squeezenet1_1",
    "mobilenet_v2", "unet", "espcn", "conv_autoencoder", "siamese", "char_lstm", "resnet18"]


@pytest.mark.parametrize("name", first(IN_REFERENCE, "lenet5", "siamese", "char_lstm"))
def test_model_in_the_reference(name, tmp_path):
    net = of_model(name)
    xs = samples(net, 2)
    for y, expected in zip(by_reference(exported(net, tmp_path / "net.onnx"), xs),
                           predicted(net, xs), strict=True):
        assert difference(y, expected) < 1e-5


def test_numbers_of_steps_are_an_input_of_the_file(tmp_path):
    """If a layer reads them."""
    lengths, x = np.array([4, 1, 3]), np.random.default_rng(0).standard_normal((3, 2, 4), "float32")
    for layer, names in ((xn.MultiHeadAttention(1), ["input", "input.lengths"]),
                         (xn.Tanh(), ["input"])):
        net = xn.Sequential([layer, xn.Linear(2)], input_shape=(2, 4), lengths=True,
                            backend="numpy")
        model = exported(net, tmp_path / "net.onnx")
        assert [value.name for value in model.graph.input] == names
        y, = by_reference(model, [x, lengths[:, None]][:len(names)])
        expected = net.predict(x, lengths=lengths)
        for n, steps in enumerate(lengths):
            assert difference(y[n, :, :steps], expected[n, :, :steps]) < 1e-5


@full
@pytest.mark.parametrize("fold", [False, True])
@pytest.mark.parametrize("name", SMALLEST)
def test_model_in_onnxruntime(name, fold, tmp_path):
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = of_model(name)
    model = exported(net, tmp_path / "net.onnx", fold=fold)
    for N in (1, 7, 64):
        xs = samples(net, N)
        for y, expected in zip(by_runtime(model, xs), predicted(net, xs), strict=True):
            assert difference(y, expected) < 1e-5


# --- what is in the file --------------------------------------------------------------------------

def small(**options) -> xn.Network:
    return xn.Sequential([
        xn.Conv2d(4, 3, padding=(1, 0), name="first"), xn.BatchNorm2d(activation="relu"),
        xn.Dropout(0.5), xn.GlobalAvgPool2d(), xn.Linear(3, name="last"), xn.Dropout(0.5),
    ], input_shape=(2, 5, 6), backend="numpy", **options)


def test_names_shapes_and_versions(tmp_path):
    net = small()
    model = exported(net, tmp_path / "net.onnx")
    onnx.checker.check_model(model, full_check=True)
    assert {node.name: node.op_type for node in model.graph.node} == {
        "first": "Conv", "bn1": "BatchNormalization", "bn1/Relu": "Relu",
        "pool1/GlobalAveragePool": "GlobalAveragePool", "pool1": "Flatten", "last": "Gemm",
        "dropout2": "Identity"}
    assert {tensor.name for tensor in model.graph.initializer} == net.arrays.keys()
    for tensor in model.graph.initializer:
        assert (onnx.numpy_helper.to_array(tensor) == net.arrays[tensor.name].data).all()
    shapes = [[d.dim_param or d.dim_value for d in value.type.tensor_type.shape.dim]
              for value in (*model.graph.input, *model.graph.output)]
    assert shapes == [["N", 2, 5, 6], ["N", 3]]
    assert [value.name for value in model.graph.output] == ["dropout2"]
    assert (model.opset_import[0].version, model.ir_version) == (18, 8)
    assert dict(pads=[1, 0, 1, 0]).items() <= {
        a.name: list(a.ints) for a in model.graph.node[0].attribute}.items()


def test_batch_norms_are_folded_if_wanted(tmp_path):
    net = vary(small())
    xs = samples(net, 3)
    model = exported(net, tmp_path / "net.onnx", fold=True)
    assert [node.op_type for node in model.graph.node] == [
        "Conv", "Relu", "GlobalAveragePool", "Flatten", "Gemm", "Identity"]
    assert difference(by_reference(model, xs)[0], predicted(net, xs)[0]) < 1e-5


def test_metadata_has_scale_and_classes(tmp_path):
    net = small()
    assert not exported(net, tmp_path / "net.onnx").metadata_props
    net.scale, net.classes = 255, ["cat", "dog", "été"]
    found = {p.key: p.value for p in exported(net, tmp_path / "net.onnx").metadata_props}
    assert found.keys() == {"xpnet.scale", "xpnet.classes"}
    assert float(found["xpnet.scale"]) == 255
    assert json.loads(found["xpnet.classes"]) == ["cat", "dog", "été"]


def test_float64(tmp_path):
    net = vary(small(dtype="float64"))
    xs = samples(net, 3)
    y, = by_reference(exported(net, tmp_path / "net.onnx"), xs)
    assert difference(y, predicted(net, xs)[0]) < 1e-12     # ONNX's epsilon is a float32


def test_several_inputs_and_outputs_keep_their_names(tmp_path):
    a, b = xn.Input((4,)), xn.Input((4,))
    shared = xn.Linear(5, activation="tanh")
    first_y, second_y = shared(a), shared(b)
    net = xn.Network({"left": a, "right": b}, {"sum": first_y + second_y, "one": first_y},
                     backend="numpy")
    model = exported(net, tmp_path / "net.onnx")
    assert [value.name for value in model.graph.input] == ["left", "right"]
    assert [value.name for value in model.graph.output] == ["sum", "one"]
    assert [tensor.name for tensor in model.graph.initializer] == ["linear1.W", "linear1.b"]
    xs = samples(net, 3)
    for y, expected in zip(by_reference(model, xs), predicted(net, xs), strict=True):
        assert difference(y, expected) < 1e-6


def test_the_same_network_gives_the_same_bytes(tmp_path):
    for name in ("a.onnx", "b.onnx"):
        small().export(tmp_path / name)
    assert (tmp_path / "a.onnx").read_bytes() == (tmp_path / "b.onnx").read_bytes()


# --- what is refused ------------------------------------------------------------------------------

class Own(xn.Layer):
    kind = "own"

    def build(self, in_shape):
        return in_shape

    def forward(self, x, mode=xn.PREDICT):
        return x


class OwnReLU(xn.ReLU):
    """A subclass may compute something else."""


def test_one_error_lists_all_layers_that_onnx_lacks(tmp_path):
    path = tmp_path / "net.onnx"
    path.write_bytes(b"old")
    net = xn.Sequential([xn.ReLU(), Own(name="mine"), OwnReLU(name="other"),
                         xn.SimpleRNN(3, activation="gelu")], input_shape=(2, 3), backend="numpy")
    with pytest.raises(ValueError, match="export: expected layers that ONNX has operators for. "
                                         "Received: Own 'mine' .*OwnReLU 'other' .*"
                                         "SimpleRNN 'rnn1' .*no activation 'gelu'") as caught:
        net.export(path)
    assert "\n" not in str(caught.value) and path.read_bytes() == b"old"


def test_overlapping_unpooling_is_refused(tmp_path):
    x, z = xn.Input((1, 3, 3)), xn.Input((1, 5, 5))
    net = xn.Network([x, z], xn.MaxUnpool2d(3, stride=1)(x, z), backend="numpy")
    with pytest.raises(ValueError, match="no sums where windows overlap"):
        net.export(tmp_path / "net.onnx")


@pytest.mark.parametrize("name", ["net.safetensors", "net.pt", "net"])
def test_other_endings_are_refused(name, tmp_path):
    with pytest.raises(ValueError, match="export: expected a name that ends with .onnx; net.save "
                                         "writes .safetensors. Received: "):
        small().export(tmp_path / name)


def test_save_names_export(tmp_path):
    for name in ("net.onnx", "net.pt"):
        with pytest.raises(ValueError, match="net.export writes ONNX"):
            small().save(tmp_path / name)


def test_without_the_package_the_error_names_the_extra(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "onnx", None)
    with pytest.raises(ImportError, match=r'export: expected the package onnx.*pip install '
                                          r'"xpnet\[onnx\]"'):
        small().export(tmp_path / "net.onnx")


def test_positions_that_float32_would_change(tmp_path):
    """y / s is just below a whole number, and would be rounded to it."""
    net = xn.Sequential([xn.Upsample2d(1 + 1e-9)], input_shape=(1, 10, 10), backend="numpy")
    xs = samples(net, 2)
    model = exported(net, tmp_path / "net.onnx")
    assert difference(by_reference(model, xs)[0], predicted(net, xs)[0]) < 1e-6


@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear"])
@pytest.mark.parametrize("scale, op", [(1 - 1e-9, "MatMul"), (1.3, "Resize"), (2, "Resize"),
                                       (0.5, "Resize")])
def test_scales_that_float32_would_change(mode, scale, op, tmp_path):
    """Resize has scales in float32, which may give another size, here 10 instead of 9."""
    net = xn.Sequential([xn.Upsample2d(scale, mode)], input_shape=(1, 10, 10), backend="numpy")
    xs = samples(net, 2)
    model = exported(net, tmp_path / "net.onnx")
    assert op in [node.op_type for node in model.graph.node]
    assert difference(by_reference(model, xs)[0], predicted(net, xs)[0]) < 1e-6
