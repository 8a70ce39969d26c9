"""Files that other programs wrote, compared with onnxruntime."""

from __future__ import annotations

import numpy as np
import pytest
from onnx_files import LIGHT, light, of_package
from onnx_networks import by_runtime, difference, predicted, samples
from tiers import full

import xpnet as xn

onnx = pytest.importorskip("onnx", reason="onnx is not installed")
pytestmark = full


def compared(path, y, N, bound, together=True, **options) -> xn.Network:
    """The value y of the file for N random samples, here and in onnxruntime, which is given them
    together or one by one."""
    pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    net = xn.io.load_onnx(path, outputs=y, **options)
    model = onnx.load(path)
    model.ir_version = max(model.ir_version, 8)         # before, weights had to be inputs, too
    del model.graph.output[:]
    model.graph.output.append(onnx.helper.make_tensor_value_info(y, onnx.TensorProto.FLOAT, None))
    needed = [value for value in model.graph.input if value.name in net.ins.names]
    del model.graph.input[:]
    model.graph.input.extend(needed)
    xs = samples(net, N)
    a, = predicted(net, xs)
    parts = [xs] if together else [[x[n:n + 1] for x in xs] for n in range(N)]
    b = np.concatenate([by_runtime(model, part)[0] for part in parts])
    assert difference(a, b.reshape(a.shape)) < bound
    return net


@pytest.mark.parametrize("N", [1, 3])
@pytest.mark.parametrize("name, before, shape, norms, bound", [
    ("orientation_orinet_fp32.onnx", None, None, 0, 1e-5),
    ("ch_ppocr_mobile_v2.0_cls_infer.onnx", None, (3, 48, 192), 35, 1e-5),
    # Values before the last activation, which would hide differences, or make small ones of large
    # numbers large ones of small numbers
    ("ch_PP-OCRv4_det_infer.onnx", "Sigmoid", (3, 64, 96), 3, 1e-5),
    ("ch_PP-OCRv4_rec_infer.onnx", "Softmax", (3, 48, 96), 6, 1e-4)])
def test_file_in_a_package(name, before, shape, norms, bound, N):
    path = of_package(name)
    graph = onnx.load(path).graph
    y = graph.output[0].name if before is None else [
        node.input[0] for node in graph.node if node.op_type == before][-1]
    net = compared(path, y, N, bound, input_shape=shape)
    assert sum(isinstance(layer, xn.BatchNorm2d) for layer in net.layers) == norms


def test_a_file_of_a_package_learns():
    """The classifier of lines of text that are upside down, with its 35 batch norms, learns which
    half of a line is dark."""
    path = of_package("ch_ppocr_mobile_v2.0_cls_infer.onnx")
    net = xn.io.load_onnx(path, input_shape=(3, 48, 64))
    head = net.with_head([xn.Linear(2, name="head")])
    rng = np.random.default_rng(0)
    x, y = rng.random((32, 3, 48, 64), dtype=np.float32), np.arange(32) % 2
    for image, label in zip(x, y, strict=True):
        image[:, :, 32 * label:32 * (label + 1)] -= 1
    before = head.evaluate(x, y, loss="cross_entropy")["loss"]
    head.fit(x, y, loss="cross_entropy", optimizer=xn.Adam(1e-3), epochs=4, batch_size=16,
             verbose=False)
    assert head.history["loss"][-1] < 0.5 * before
    assert head.history["accuracy"][-1] > 0.9


def test_an_lstm_with_states(tmp_path):
    """A detector of speech, from the spectrum on: the root before it is no layer. Its first states
    are an input with the batch as second axis."""
    ort = pytest.importorskip("onnxruntime", reason="onnxruntime is not installed")
    model = onnx.load(of_package("silero_vad_openvino_16k.onnx"))
    graph, make = model.graph, onnx.helper.make_tensor_value_info
    spectrum, = [node.output[0] for node in graph.node if node.op_type == "Sqrt"]
    needed, kept = {value.name for value in graph.output}, []
    for node in reversed(graph.node):
        if needed & {*node.output} and spectrum not in node.output:
            kept.append(node)
            needed |= {*node.input}
    del graph.node[:], graph.input[:]
    graph.node.extend(reversed(kept))
    graph.input.extend([make(spectrum, onnx.TensorProto.FLOAT, [1, 129, 4]),
                        make("state", onnx.TensorProto.FLOAT, [2, 1, 128])])
    onnx.save(model, tmp_path / "net.onnx")
    net = xn.io.load_onnx(tmp_path / "net.onnx", backend="numpy")
    xs = samples(net, 3)
    xs[0] = abs(xs[0])
    ys = predicted(net, xs)
    session = ort.InferenceSession(tmp_path / "net.onnx", providers=["CPUExecutionProvider"])
    for n, (x, state) in enumerate(zip(*xs, strict=True)):
        expected = session.run(None, {spectrum: x[None], "state": state[:, None]})
        for y, wanted in zip(ys, expected, strict=True):
            assert difference(y[n], wanted.reshape(y[n].shape)) < 1e-5


@pytest.mark.parametrize("name", LIGHT)
def test_light_graph_with_random_weights(name, tmp_path):
    """The files fix the batch at 1; here it may have any size. onnxruntime is given one sample at a
    time, because some of these graphs write the 1 into a shape."""
    y = light(name, tmp_path / "net.onnx")
    net = compared(tmp_path / "net.onnx", y, 3, 1e-4, together=False)
    check_again(net, tmp_path, samples(net, 3))


def check_again(net, tmp_path, xs):
    """Exported and imported, the network computes the same bits with the same arrays."""
    net.export(tmp_path / "again.onnx")
    again = xn.io.load_onnx(tmp_path / "again.onnx", backend=net.backend)
    assert again.arrays.keys() == net.arrays.keys()
    for a, b in zip(predicted(net, xs), predicted(again, xs), strict=True):
        assert (a == b).all()


@pytest.mark.parametrize("name, shape", [
    ("orientation_orinet_fp32.onnx", None),
    *((f"ch_{name}_infer.onnx", (3, 48, 96))
      for name in ("ppocr_mobile_v2.0_cls", "PP-OCRv4_det", "PP-OCRv4_rec"))])
def test_file_in_a_package_again(name, shape, tmp_path):
    """All its outputs, with the activations at their ends."""
    path = of_package(name)
    if "det" in name:
        shape = 3, 64, 96
    net = xn.io.load_onnx(path, input_shape=shape)
    check_again(net, tmp_path, samples(net, 3))
