"""Weights of PyTorch: arrays reach the layers that they belong to."""

from __future__ import annotations

import random
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import save_file
from torch_files import save, torch_names  # noqa: F401 - a fixture
from torch_states import OURS, assert_loaded, loaded, network, normal, refused, state, tensors

import xpnet as xn
from xpnet.io.imports.matching import Module
from xpnet.io.imports.torchvision import in_order

pytestmark = pytest.mark.usefixtures("torch_names")
rng = np.random.default_rng(0)


def test_a_dict_of_names(tmp_path: Path):
    arrays, net = state(), network()
    mapping = {"features.0": "conv1", "features.1": "bn1", "features.3": "conv2", "head": "linear1"}
    assert loaded(net, dict(reversed(arrays.items())), tmp_path, mapping).complete
    assert_loaded(net, arrays)
    report = loaded(network(), arrays, tmp_path, {"head": "linear1"}, strict=False)
    assert report.matched == ("linear1.W", "linear1.b") and len(report.unused) == 8
    with pytest.raises(ValueError, match='mapping to have .* perhaps "conv1". Received: .conv_1., '
                                         "which the network does not have"):
        loaded(net, arrays, tmp_path, {"features.0": "conv_1"})
    with pytest.raises(ValueError, match="which the file does not have"):
        loaded(net, arrays, tmp_path, {"features": "conv1"})
    with pytest.raises(ValueError, match="to name each layer once. Received: 'conv1' twice"):
        loaded(net, arrays, tmp_path, {"features.0": "conv1", "features.3": "conv1"})
    with pytest.raises(ValueError, match='mapping to be None, "torchvision" or a dict'):
        loaded(net, arrays, tmp_path, "keras")


def test_nothing_is_loaded_unless_everything_matches(tmp_path: Path):
    arrays, net = state(), network()
    arrays["head.weight"], arrays["head.bias"] = normal(5, 12), normal(5)
    before, W = net.parameters.copy(), net.arrays["linear1.W"].data.copy()
    with pytest.raises(ValueError, match=r"with linear1.W of shape \(5, 12\) instead of \(4, 12\), "
                                         r"linear1.b of shape \(5,\) instead of \(4,\)\.$"):
        loaded(net, arrays, tmp_path)
    assert np.array_equal(net.parameters, before)
    report = loaded(net, arrays, tmp_path, strict=False)
    assert report.shapes == {"linear1.W": ((5, 12), (4, 12)), "linear1.b": ((5,), (4,))}
    assert not report.complete and not report.missing and not report.unused
    assert_loaded(net, arrays, {ours: theirs for ours, theirs in OURS.items()
                                if "head" not in theirs})
    assert np.array_equal(net.arrays["linear1.W"].data, W)


@pytest.mark.parametrize(("change", "missing", "unused"), [
    (lambda a: a.pop("features.1.running_var"), "bn1.gamma", "features.1.weight"),
    (lambda a: [a.pop("features.3.weight"), a.pop("features.3.bias")], "conv2.W", ""),
    (lambda a: a.update({"more.weight": normal(2, 2)}), "", "more.weight"),
    (lambda a: a.update({"head.scale": normal(2)}), "linear1.W", "head.scale")])
def test_what_is_missing_and_what_is_left(change: Any, missing: str, unused: str, tmp_path: Path):
    arrays = state()
    change(arrays)
    message = refused(save(tensors(arrays), tmp_path / "a.pth"))
    assert (f"nothing for {missing}" in message) == bool(missing)
    assert ("no place for" in message) == bool(unused) and unused in message


def test_equal_modules_keep_their_order(tmp_path: Path):
    layers = [xn.Linear(3) for _ in range(12)]
    net = xn.Sequential(layers, input_shape=(3,), backend="numpy")
    arrays = {f"{k}.{key}": normal(*shape) for k in range(12)
              for key, shape in (("weight", (3, 3)), ("bias", (3,)))}
    names = {f"linear{k + 1}.{ours}": f"{k}.{theirs}" for k in range(12)
             for ours, theirs in (("W", "weight"), ("b", "bias"))}
    loaded(net, arrays, tmp_path)
    assert_loaded(net, arrays, names)
    save_file(arrays, tmp_path / "a.safetensors")       # there 10 stands before 2
    net.parameters *= 0
    net.load_torch(tmp_path / "a.safetensors")
    assert_loaded(net, arrays, names)


def test_safetensors_with_equal_shapes_and_words_need_a_mapping(tmp_path: Path):
    net = xn.Sequential([xn.Linear(3), xn.Linear(3)], input_shape=(3,), backend="numpy")
    arrays = {f"{word}.{key}": normal(*shape) for word in ("second", "first")
              for key, shape in (("weight", (3, 3)), ("bias", (3,)))}
    save_file(arrays, tmp_path / "a.safetensors")
    with pytest.raises(ValueError, match="expected mapping=.*Received: first and second, which"):
        net.load_torch(tmp_path / "a.safetensors")
    net.load_torch(tmp_path / "a.safetensors", {"second": "linear1", "first": "linear2"})
    assert np.array_equal(net.arrays["linear1.W"].data, arrays["second.weight"])
    loaded(net, arrays, tmp_path)                       # a .pth file has them in their order
    assert np.array_equal(net.arrays["linear2.W"].data, arrays["first.weight"])


@pytest.mark.parametrize("word", ["\u00b2", "9" * 5000, "a\nb", "", "layer\u0663"])
def test_names_that_are_no_numbers(word: str, tmp_path: Path):
    net = xn.Sequential([xn.Linear(2), xn.Linear(1)], input_shape=(3,), backend="numpy")
    arrays = {f"{word}.weight": normal(2, 3), f"{word}.bias": normal(2), "b.weight": normal(1, 2),
              "b.bias": normal(1)}
    save_file(arrays, tmp_path / "a.safetensors")
    for mapping in (None, "torchvision"):
        report = net.load_torch(tmp_path / "a.safetensors", mapping, strict=False)
        assert mapping or report.complete
        assert len(repr(report).splitlines()) >= 7


def test_layers_and_their_names(tmp_path: Path):
    """Each with the shapes that PyTorch documents."""
    x = xn.Input((4, 6))
    h = xn.Conv1d(6, 3, groups=2)(x)
    h = xn.PReLU(per_channel=True)(xn.GroupNorm(3)(h))
    h = xn.ConvTranspose1d(4, 2)(h)
    h = xn.LayerNorm(axis=0)(h)
    net = xn.Network(x, xn.Linear(2, bias=False)(h), backend="numpy")
    arrays = {"a.weight": normal(6, 2, 3), "a.bias": normal(6), "n.weight": normal(6),
              "n.bias": normal(6), "p.weight": normal(6), "t.weight": normal(6, 4, 2),
              "t.bias": normal(4), "l.weight": normal(4), "l.bias": normal(4),
              "o.weight": normal(2, 4)}
    assert loaded(net, arrays, tmp_path).complete
    names = dict(zip((name for name in net.arrays), arrays, strict=True))
    assert {name.rpartition(".")[2]: theirs.rpartition(".")[2] for name, theirs in names.items()
            } == {"W": "weight", "b": "bias", "gamma": "weight", "beta": "bias", "a": "weight"}
    assert_loaded(net, arrays, names)


def test_separable_convolutions_are_two_modules(tmp_path: Path):
    net = xn.Sequential([xn.SeparableConv2d(5, 3)], input_shape=(2, 4, 4), backend="numpy")
    arrays = {"depth.weight": normal(2, 1, 3, 3), "point.weight": normal(5, 2, 1, 1),
              "point.bias": normal(5)}
    report = loaded(net, arrays, tmp_path, {"depth": "conv1.depthwise", "point": "conv1.pointwise"})
    assert report.complete
    assert_loaded(net, arrays, {"conv1.depthwise.W": "depth.weight",
                                "conv1.pointwise.W": "point.weight",
                                "conv1.pointwise.b": "point.bias"})


@pytest.mark.parametrize("make, gates", [(xn.SimpleRNN, 1), (xn.LSTM, 4), (xn.GRU, 3)])
def test_recurrent_layers(make: Any, gates: int, tmp_path: Path):
    """Two layers and directions; the two biases of PyTorch are added, except that of n in a GRU."""
    net = xn.Sequential([make(3, layers=2, bidirectional=True)], input_shape=(2, 5),
                        backend="numpy")
    arrays = {}
    for level, D in ((0, 2), (1, 6)):
        for way in ("", "_reverse"):
            end = f"_l{level}{way}"
            arrays |= {f"r.weight_ih{end}": normal(3 * gates, D),
                       f"r.weight_hh{end}": normal(3 * gates, 3),
                       f"r.bias_ih{end}": normal(3 * gates), f"r.bias_hh{end}": normal(3 * gates)}
    assert loaded(net, arrays, tmp_path).complete
    name = next(iter(net.layer_names))
    for level in (1, 2):
        for way, end in (("forward", ""), ("reverse", "_reverse")):
            ours, theirs = f"{name}.{way}{level}", f"_l{level - 1}{end}"
            W, U = (arrays[f"r.weight_{part}{theirs}"] for part in ("ih", "hh"))
            first, second = (arrays[f"r.bias_{part}{theirs}"] for part in ("ih", "hh"))
            assert np.array_equal(net.arrays[f"{ours}.W"].data, W)
            assert np.array_equal(net.arrays[f"{ours}.U"].data, U)
            added = second.copy()
            if make is xn.GRU:
                assert np.array_equal(net.arrays[f"{ours}.c"].data, second[6:])
                added[6:] = 0
            assert np.array_equal(net.arrays[f"{ours}.b"].data, first + added)


def test_a_layer_that_reads_in_reverse_alone(tmp_path: Path):
    """PyTorch has none: it is a layer of one direction, which is given the reversed sequence."""
    net = xn.Sequential([xn.SimpleRNN(3, reverse=True)], input_shape=(2, 5), backend="numpy")
    arrays = {"r.weight_ih_l0": normal(3, 2), "r.weight_hh_l0": normal(3, 3),
              "r.bias_ih_l0": normal(3), "r.bias_hh_l0": np.zeros(3, np.float32)}
    assert loaded(net, arrays, tmp_path).complete
    assert_loaded(net, arrays, {"rnn1.reverse1.W": "r.weight_ih_l0",
                                "rnn1.reverse1.U": "r.weight_hh_l0",
                                "rnn1.reverse1.b": "r.bias_ih_l0"})


def test_layers_that_pytorch_does_not_have(tmp_path: Path):
    net = xn.Sequential([xn.GRU(3, reset="before"), xn.Linear(2)], input_shape=(2, 5),
                        backend="numpy")
    arrays = {"l.weight": normal(2, 3), "l.bias": normal(2)}
    report = loaded(net, arrays, tmp_path, strict=False)
    assert report.matched == ("linear1.W", "linear1.b")
    assert report.missing == ("gru1.forward1.W", "gru1.forward1.U", "gru1.forward1.b")


def test_attention(tmp_path: Path):
    net = xn.Sequential([xn.MultiHeadAttention(2)], input_shape=(4, 5), backend="numpy")
    arrays = {"m.in_proj_weight": normal(12, 4), "m.in_proj_bias": normal(12),
              "m.out_proj.weight": normal(4, 4), "m.out_proj.bias": normal(4)}
    assert loaded(net, arrays, tmp_path).complete
    x, h = normal(4, 5), 2
    Q, K, V = (arrays["m.in_proj_weight"][4 * k:4 * k + 4] @ x
               + arrays["m.in_proj_bias"][4 * k:4 * k + 4, None] for k in range(3))
    parts = []
    for k in range(h):
        q, key, v = (a[2 * k:2 * k + 2] for a in (Q, K, V))
        e = np.exp(key.T @ q / np.sqrt(2))              # (keys, queries)
        parts.append(v @ (e / e.sum(axis=0)))
    expected = (arrays["m.out_proj.weight"] @ np.concatenate(parts)
                + arrays["m.out_proj.bias"][:, None])
    np.testing.assert_allclose(net.predict(x[None])[0], expected, rtol=1e-4, atol=1e-5)


def test_attention_to_other_features(tmp_path: Path):
    x, z = xn.Input((4, 5)), xn.Input((6, 3))
    net = xn.Network([x, z], xn.MultiHeadAttention(2)(x, z), backend="numpy")
    arrays = {"q_proj_weight": normal(4, 4), "k_proj_weight": normal(4, 6),
              "v_proj_weight": normal(4, 6), "in_proj_bias": normal(12),
              "out_proj.weight": normal(4, 4), "out_proj.bias": normal(4)}
    assert loaded(net, {f"m.{key}": a for key, a in arrays.items()}, tmp_path).complete
    assert np.array_equal(net.arrays["attention1.key.W"].data, arrays["k_proj_weight"])
    assert np.array_equal(net.arrays["attention1.value.b"].data, arrays["in_proj_bias"][8:])


@pytest.mark.parametrize("momentum", [0.1, None])
def test_the_count_of_batches(momentum: float | None, tmp_path: Path):
    """It is needed by the mean over all batches only."""
    net = xn.Sequential([xn.BatchNorm1d(momentum=momentum)], input_shape=(3,), backend="numpy")
    arrays = {"weight": normal(3), "bias": normal(3), "running_mean": normal(3),
              "running_var": normal(3)**2, "num_batches_tracked": np.array(9)}
    assert loaded(net, arrays, tmp_path).complete
    assert ("bn1.batches" in net.arrays) == (momentum is None)
    assert momentum is not None or net.arrays["bn1.batches"].data == [9]


def test_a_linear_in_float64(tmp_path: Path):
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy", dtype="float64")
    arrays = {"weight": rng.normal(size=(2, 3)), "bias": rng.normal(size=2)}
    loaded(net, arrays, tmp_path)
    assert_loaded(net, arrays, {"linear1.W": "weight", "linear1.b": "bias"})


# --- torchvision ----------------------------------------------------------------------------------

ORDERS = {
    "resnet": "conv1 bn1 layer1.0.conv1 layer1.0.bn1 layer1.0.conv2 layer1.0.bn2 layer1.0.conv3 "
              "layer1.0.bn3 layer1.0.downsample.0 layer1.0.downsample.1 layer1.1.conv1 "
              "layer1.1.bn1 layer2.0.conv1 layer2.10.conv1 fc",
    "densenet": "features.conv0 features.norm0 features.denseblock1.denselayer1.norm1 "
                "features.denseblock1.denselayer1.conv1 features.denseblock1.denselayer1.norm2 "
                "features.denseblock1.denselayer1.conv2 features.denseblock1.denselayer2.norm1 "
                "features.denseblock1.denselayer12.norm1 features.transition1.norm "
                "features.transition1.conv features.denseblock2.denselayer1.norm1 "
                "features.transition3.conv features.denseblock4.denselayer1.norm1 features.norm5 "
                "classifier",
    "old-densenet": "features.denseblock1.denselayer1.norm.1 features.denseblock1.denselayer1."
                    "conv.1 features.denseblock1.denselayer1.norm.2 features.denseblock1."
                    "denselayer1.conv.2 features.denseblock1.denselayer2.norm.1",
    "googlenet": "conv1.conv conv1.bn conv2.conv conv3.conv inception3a.branch1.conv "
                 "inception3a.branch1.bn inception3a.branch2.0.conv inception3a.branch2.1.conv "
                 "inception3a.branch3.0.bn inception3a.branch4.1.conv inception3b.branch1.conv "
                 "inception4e.branch1.conv inception5a.branch1.conv fc",
    "squeezenet": "features.0 features.3.squeeze features.3.expand1x1 features.3.expand3x3 "
                  "features.4.squeeze features.12.squeeze classifier.1",
    "mobilenet": "features.0.0 features.0.1 features.1.conv.0.0 features.1.conv.0.1 "
                 "features.1.conv.1 features.1.conv.2 features.2.conv.0.0 features.18.0 "
                 "classifier.1",
}


@pytest.mark.parametrize("name", ORDERS)
def test_the_order_of_torchvisions_names(name: str):
    names = ORDERS[name].split()
    for order in (sorted(names), names[::-1], random.Random(1).sample(names, len(names))):
        found = in_order([Module(one, {}) for one in order], auxiliary=False)
        assert [module.name for module in found] == names


def test_auxiliary_classifiers_are_last_or_left_out():
    modules = [Module(name, {}) for name in ("fc", "aux2.fc1", "aux1.fc2", "conv1.bn", "aux1.fc1",
                                             "aux1.conv.conv", "conv1.conv")]
    assert [module.name for module in in_order(modules, False)] == ["conv1.conv", "conv1.bn", "fc"]
    assert [module.name for module in in_order(modules, True)][3:] == [
        "aux1.conv.conv", "aux1.fc1", "aux1.fc2", "aux2.fc1"]
