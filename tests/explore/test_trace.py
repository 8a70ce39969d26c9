"""How one element is computed: the products add up to the value that the network computed."""

from __future__ import annotations

import json

import numpy as np
import pytest

import xpnet as xn
from xpnet import layers as xl
from xpnet.explore.session import Side
from xpnet.explore.trace import RULES, meaning, traced

IMAGE, SIGNAL, SEQUENCE = (4, 5, 6), (4, 9), (3, 5)

SUMS = {
    "convolution": (xn.Conv2d(4, 3), IMAGE),
    "padding": (xn.Conv2d(4, (3, 2), padding=(1, 0, 2, 1), activation="relu"), IMAGE),
    "stride": (xn.Conv2d(4, 2, stride=(2, 3), activation="elu"), IMAGE),
    "dilation": (xn.Conv2d(2, 2, dilation=(3, 2), padding=2), IMAGE),
    "groups": (xn.Conv2d(6, 3, groups=2, bias=False, padding="half"), IMAGE),
    "map of biases": (xn.Conv2d(3, 3, bias="map", activation="tanh"), IMAGE),
    "window in the padding": (xn.Conv2d(2, 2, padding=3), IMAGE),
    "flipped": (xn.TrueConv2d(3, 3, padding="full"), IMAGE),
    "table": (xn.TableConv2d([[0, 2], [1], [3, 0, 1]], 2), IMAGE),
    "depthwise": (xn.DepthwiseConv2d(3, depth_multiplier=2, activation="relu"), IMAGE),
    "separable": (xn.SeparableConv2d(5, 3, depth_multiplier=2, stride=2, padding=1,
                                     activation="relu"), IMAGE),
    "local": (xn.LocallyConnected2d(3, 2, padding=1, activation="relu"), IMAGE),
    "transposed": (xn.ConvTranspose2d(3, 3), IMAGE),
    "transposed with stride": (xn.ConvTranspose2d(4, (3, 2), stride=(2, 3), padding=1, groups=2,
                                                  activation="relu"), IMAGE),
    "transposed with dilation": (xn.ConvTranspose2d(2, 2, stride=2, dilation=3, output_padding=1,
                                                    padding=(0, 1, 2, 1)), IMAGE),
    "transposed, more than the padding": (xn.ConvTranspose2d(2, 2, stride=1, dilation=3,
                                                             output_padding=2), IMAGE),
    "signal": (xn.Conv1d(3, 3, stride=2, padding=(2, 0), dilation=2, activation="relu"), SIGNAL),
    "map of biases of a signal": (xn.Conv1d(3, 3, bias="map"), SIGNAL),
    "transposed signal": (xn.ConvTranspose1d(3, 3, stride=2, padding=1, groups=1), SIGNAL),
    "max": (xn.MaxPool2d(2), IMAGE),
    "max with padding": (xn.MaxPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    "max with dilation": (xn.MaxPool2d(2, stride=1, dilation=2), IMAGE),
    "max of a signal": (xn.MaxPool1d(3, padding=1, stride=2), SIGNAL),
    "max of a map": (xn.GlobalMaxPool2d(), IMAGE),
    "max of steps": (xn.GlobalMaxPool1d(), SIGNAL),
    "adaptive max": (xn.AdaptiveMaxPool2d((2, 4)), IMAGE),
    "mean": (xn.AvgPool2d(2), IMAGE),
    "mean with padding": (xn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True), IMAGE),
    "mean without padding": (xn.AvgPool2d(3, stride=2, padding=1, ceil_mode=True,
                                          count_include_pad=False), IMAGE),
    "mean of a signal": (xn.AvgPool1d(3, padding=1), SIGNAL),
    "mean of a map": (xn.GlobalAvgPool2d(), IMAGE),
    "mean of steps": (xn.GlobalAvgPool1d(), SIGNAL),
    "adaptive mean": (xn.AdaptiveAvgPool2d((3, 4)), IMAGE),
    "adaptive mean of a signal": (xn.AdaptiveAvgPool1d(4), SIGNAL),
    "subsampling": (xn.Subsampling2d(2, activation="scaled_tanh"), IMAGE),
    "linear": (xn.Linear(7, activation="relu"), (11,)),
    "long linear": (xn.Linear(3, activation="gelu"), (100,)),
    "linear of a sequence": (xn.Linear(4), SEQUENCE),
    "rbf": (xn.RBF([[1.0, -1.0, 0.5], [0.0, 2.0, 1.0]]), (3,)),
    "nearest": (xn.Upsample2d(2), IMAGE),
    "bilinear": (xn.Upsample2d(2, mode="bilinear"), IMAGE),
    "reflection": (xn.ReflectionPad2d(2), IMAGE),
    "replication of a signal": (xn.ReplicationPad1d((2, 1)), SIGNAL),
    "zeros": (xn.ZeroPad2d((1, 0, 2, 1)), IMAGE),
    "constant": (xn.ConstantPad1d((1, 2), 3.5), SIGNAL),
    "crop": (xn.Crop2d((1, 0, 2, 1)), IMAGE),
    "batch norm": (xn.BatchNorm2d(activation="relu"), IMAGE),
    "batch norm of features": (xn.BatchNorm1d(), (6,)),
    "layer norm": (xn.LayerNorm(), IMAGE),
    "layer norm of channels": (xn.LayerNorm(axis=0), IMAGE),
    "layer norm of other axes": (xn.LayerNorm(axis=(1, 2)), IMAGE),
    "layer norm of steps": (xn.LayerNorm(axis=1, affine=False), SEQUENCE),
    "rms norm": (xn.RMSNorm(axis=0), SEQUENCE),
    "rms norm with eps": (xn.RMSNorm(eps=0.5), (7,)),
    "group norm": (xn.GroupNorm(2), IMAGE),
    "instance norm": (xn.InstanceNorm2d(affine=True), IMAGE),
    "instance norm of a signal": (xn.InstanceNorm1d(), SIGNAL),
    "softmax": (xn.Softmax(temperature=2.0), (6,)),
    "softmax of an axis": (xn.Softmax(axis=2), IMAGE),
    "log-softmax": (xn.LogSoftmax(axis=1), SEQUENCE),
    "whitening": (xn.Whitening(), IMAGE),
    "whitening of few": (xn.Whitening("pca", components=3), (6,)),
    "rescale": (xn.Rescale([0.5, 1.0, 2.0, 3.0], 2.0), IMAGE),
    "leaky": (xn.LeakyReLU(0.3), IMAGE),
    "swish": (xn.Swish(0.7), (6,)),
    "learned swish": (xn.Swish(learned=True), (6,)),
    "silu": (xn.SiLU(), (6,)),
    "prelu": (xn.PReLU(per_channel=True), IMAGE),
    "dropout": (xn.Dropout(0.5), (6,)),
    "gain": (xn.Gain(), IMAGE),
    "shift": (xn.Shift(SEQUENCE), SEQUENCE),
    "flatten": (xn.Flatten(), IMAGE),
    "reshape": (xn.Reshape((6, 20)), IMAGE),
    "permute": (xn.Permute((2, 0, 1)), IMAGE),
    "slice": (xn.Slice(1, -1, axis=2), IMAGE),
    "shuffle": (xn.ChannelShuffle(2), IMAGE),
    "pixels": (xn.PixelShuffle(2), IMAGE),
    "skipping": (xn.SkipSampling2d(2, offset=1), IMAGE),
    "more channels": (xn.PadChannels(6), IMAGE),
    "rnn": (xn.SimpleRNN(4, return_sequences=True), SEQUENCE),
    "last state": (xn.SimpleRNN(4, activation="relu", reverse=True), SEQUENCE),
    "lstm": (xn.LSTM(4, return_sequences=True), SEQUENCE),
    "lstm of two layers and directions": (xn.LSTM(3, layers=2, bidirectional=True), SEQUENCE),
    "gru": (xn.GRU(4, return_sequences=True, reverse=True), SEQUENCE),
    "gru of the paper": (xn.GRU(4, reset="before", return_sequences=True), SEQUENCE),
}


def looked_at(net, *arrays):
    """A side with the values of these inputs."""
    side = Side(net)
    side.forward([a[None] for a in arrays])
    return side


def of_layer(layer, shape, seed=0):
    """A network of a copy of this layer, with parameters that are all different from 0."""
    net = xn.Sequential([type(layer)(**layer.config())], input_shape=shape, backend="numpy")
    rng = np.random.default_rng(seed)
    for p in net.arrays.values():
        if p.name != "codes":
            p.data = rng.normal(0.3 if p.name == "var" else 0, 0.5, p.shape)**(
                2 if p.name == "var" else 1)
    return net, rng.normal(0, 1, shape).astype(np.float32)


def check(found, side, node, at):
    """Products, sum and value agree, and the values are those of the inputs."""
    json.dumps(found, allow_nan=False)
    y = float(side.array(node)[at])
    assert found["value"] == pytest.approx(y, abs=0)
    total = found["bias"] or 0.0
    for part in found["inputs"]:
        products = np.array(part["products"] if part["products"] is not None else 0.0, float)
        total += products.sum() + part.get("rest", 0.0)
        if part["weights"] is not None and "gates" not in found:
            read = np.array(part["values"], float)
            if not found["formula"].startswith("-"):
                np.testing.assert_allclose(read * np.array(part["weights"]), products, atol=1e-12)
        inside_values(part, side)
    if found["kind"] in ("convolution", "linear"):
        assert found["sum"] == pytest.approx(total, rel=1e-12, abs=1e-12)
    assert abs(found["result"] - y) <= 1e-6 * (1 + abs(y))


def inside_values(part, side):
    """What was read is what lies in the region, and 0 outside of it."""
    if part["values"] is None or {"previous", "below", "indices"} & part.keys():
        return
    x = side.array(side.nodes[part["node"]])
    values = np.array(part["values"], float)
    sizes = [b - a for a, b in part["region"]]
    if sizes != [*values.shape]:    # a dilated window, see test_a_convolution_by_hand
        assert len(sizes) == values.ndim and all(a >= b for a, b in zip(sizes, values.shape))
        return
    wide = np.zeros(sizes)
    for place in np.ndindex(*sizes):
        inner = tuple(a + i for (a, _), i in zip(part["region"], place, strict=True))
        if all(0 <= i < n for i, n in zip(inner, x.shape, strict=True)):
            wide[place] = x[inner]
    np.testing.assert_array_equal(values.ravel(), wide.ravel())


@pytest.mark.parametrize("name", SUMS)
def test_products_add_up_to_the_value(name):
    net, x = of_layer(*SUMS[name])
    side = looked_at(net, x)
    node = net.nodes[0]
    places = list(np.ndindex(*node.shape))
    for k in np.random.default_rng(1).permutation(len(places))[:25]:
        check(traced(side, node, places[k]), side, node, places[k])


def test_a_convolution_by_hand():
    """With loops over channels and taps: stride 2, dilation 2, padding 1, and ReLU."""
    net, x = of_layer(xn.Conv2d(2, 2, stride=2, dilation=2, padding=1, activation="relu"),
                      (2, 5, 6))
    side = looked_at(net, x)
    W, b = (net.arrays[f"conv1.{name}"].data.astype(float) for name in "Wb")
    for f, oy, ox in np.ndindex(*net.nodes[0].shape):
        found = traced(side, net.nodes[0], (f, oy, ox))
        part, total = found["inputs"][0], b[f]
        for c, i, j in np.ndindex(2, 2, 2):
            y, q = 2 * oy - 1 + 2 * i, 2 * ox - 1 + 2 * j
            value = float(x[c, y, q]) if 0 <= y < 5 and 0 <= q < 6 else 0.0
            assert part["values"][c][i][j] == value
            assert part["weights"][c][i][j] == W[f, c, i, j]
            assert part["products"][c][i][j] == value * W[f, c, i, j]
            total += value * W[f, c, i, j]
        assert part["region"] == [[0, 2], [2 * oy - 1, 2 * oy + 2], [2 * ox - 1, 2 * ox + 2]]
        assert found["sum"] == pytest.approx(total, rel=1e-14)
        assert found["result"] == pytest.approx(max(total, 0.0), rel=1e-14)


@pytest.mark.parametrize("x, chosen", [
    ([[1, 3], [3, 0]], [0, 0, 1]), ([[-1, -2], [-3, -1]], [0, 0, 0]),
    ([[1, 2], [np.nan, np.nan]], [0, 1, 0]), ([[-np.inf, -np.inf]] * 2, [0, 0, 0])])
def test_the_first_of_equal_values_wins_and_nan_over_all(x, chosen):
    net = xn.Sequential([xn.MaxPool2d(2)], input_shape=(1, 2, 2), backend="numpy")
    side = looked_at(net, np.array([x], np.float32))
    found = traced(side, net.nodes[0], (0, 0, 0))
    assert found["inputs"][0]["chosen"] == chosen
    json.dumps(found, allow_nan=False)


def test_padding_never_wins():
    net = xn.Sequential([xn.MaxPool2d(2, padding=1)], input_shape=(1, 2, 2), backend="numpy")
    side = looked_at(net, np.full((1, 2, 2), -5, np.float32))
    found = traced(side, net.nodes[0], (0, 0, 0))
    assert found["inputs"][0]["chosen"] == [0, 0, 0] and found["sum"] == -5


def test_several_inputs():
    x, z = xn.Input((2, 3, 3), name="x"), xn.Input((2, 1, 1), name="z")
    outs = [xn.Add(activation="relu")(x, z), x * z, x - z, xn.Average()(x, z), xn.Maximum()(x, z),
            xn.Minimum()(x, z), xn.WeightedSum(per_channel=True)(x, xn.ReLU()(x)),
            xn.Concat()(x, xn.Tanh()(x))]
    net = xn.Network([x, z], outs, backend="numpy")
    rng = np.random.default_rng(2)
    side = looked_at(net, *(rng.normal(size=node.shape).astype(np.float32)
                            for node in net.ins.nodes))
    for node in outs:
        for at in np.ndindex(*node.shape):
            check(traced(side, node, at), side, node, at)


def test_products_of_two_matrices():
    x, z = xn.Input((2, 3, 4)), xn.Input((2, 4, 5))
    net = xn.Network([x, z], xn.MatMul()(x, z), backend="numpy")
    rng = np.random.default_rng(2)
    side = looked_at(net, *(rng.normal(size=node.shape).astype(np.float32)
                            for node in net.ins.nodes))
    check(traced(side, net.nodes[0], (1, 2, 3)), side, net.nodes[0], (1, 2, 3))


def test_gates_of_an_lstm():
    """By the equations of one unit, with the products of its input gate."""
    net, x = of_layer(xn.LSTM(3, return_sequences=True), (2, 4))
    side = looked_at(net, x)
    W, U, b = (net.arrays[f"lstm1.forward1.{name}"].data.astype(float) for name in "WUb")
    found = traced(side, net.nodes[0], (1, 2))
    before = side.array(net.nodes[0])[:, 1].astype(float)
    sums = W @ x[:, 2].astype(float) + U @ before + b
    for k, gate in enumerate(found["gates"]):
        f = np.tanh if gate["name"] == "g" else lambda s: 1 / (1 + np.exp(-s))
        assert gate["sum"] == pytest.approx(sums[3 * k + 1], abs=1e-5)
        assert gate["value"] == pytest.approx(f(gate["sum"]), rel=1e-12)
    i, f, g, o = (gate["value"] for gate in found["gates"])
    assert found["cell"] == pytest.approx(f * found["previous_cell"] + i * g, rel=1e-12)
    assert found["result"] == pytest.approx(o * np.tanh(found["cell"]), rel=1e-12)
    products = sum(np.sum(part["products"]) for part in found["inputs"])
    assert products + b[1] == pytest.approx(found["gates"][0]["sum"], rel=1e-12)
    assert found["inputs"][1]["previous"] and found["inputs"][1]["region"] == [[0, 3], [1, 2]]


def test_first_states_are_taken():
    x, h = xn.Input((2, 4)), xn.Input((3,))
    net = xn.Network([x, h], xn.GRU(3)(x, h), backend="numpy")
    rng = np.random.default_rng(3)
    side = looked_at(net, *(rng.normal(size=node.shape).astype(np.float32)
                            for node in net.ins.nodes))
    check(traced(side, net.nodes[0], (2,)), side, net.nodes[0], (2,))


def test_tokens():
    x = xn.Input((4,))
    net = xn.Network(x, xn.Embedding(5, 3)(x), backend="numpy")
    side = looked_at(net, np.array([0, 3, 4, 1], np.float32))
    found = traced(side, net.nodes[0], (2, 1))
    assert found["sum"] == found["value"] == float(net.arrays["embedding1.W"].data[3, 2])
    assert found["inputs"][0]["region"] == [[1, 2]]


class Doubled(xn.Conv2d):
    """Computes something else than its base class."""

    def forward(self, x, mode=xn.PREDICT):
        return 2 * super().forward(x, mode)


@pytest.mark.parametrize("layer, shape", [(Doubled(2, 3), IMAGE), (xn.LocalResponseNorm(), IMAGE),
                                          (xn.LpPool2d(2), IMAGE),
                                          (xn.MultiHeadAttention(2), (4, 5)),
                                          (xn.GRU(3, return_state=True), SEQUENCE)])
def test_where_no_products_are_known_the_inputs_are_shown(layer, shape):
    net = xn.Network(x := xn.Input(shape), layer.node(x), backend="numpy")
    side = looked_at(net, np.ones(shape, np.float32))
    found = traced(side, net.nodes[0], (0,) * len(net.nodes[0].shape))
    assert found["kind"] == "other" and found["sum"] is None and "result" not in found
    assert np.size(found["inputs"][0]["values"])
    inside_values(found["inputs"][0], side)
    assert found["formula"] != type(layer).__name__ and "dX" not in found["formula"]


def test_every_layer_is_explained():
    """By the products of its elements or, in words, by a formula."""
    kinds = [kind for name in xl.__all__ if isinstance(kind := getattr(xl, name), type)
             and issubclass(kind, xn.Layer)]
    assert len(kinds) > 100
    for kind in kinds:
        assert kind in RULES or "=" in meaning(kind), kind
    assert "of your own" in meaning(Doubled)


def test_a_layer_norm_by_hand():
    """Mean and variance of the step, with NumPy's functions, and what a constant step becomes."""
    net, x = of_layer(xn.LayerNorm(axis=0), (3, 4))
    x[:, 1] = 2.5
    side = looked_at(net, x)
    layer = net.layers[0]
    gamma, beta = (p.data.astype(float) for p in (layer.gamma, layer.beta))
    for k, t in np.ndindex(3, 4):
        found, step = traced(side, net.nodes[0], (k, t)), x[:, t].astype(float)
        assert found["numbers"]["mean"] == pytest.approx(step.mean(), rel=1e-12)
        assert found["numbers"]["var"] == pytest.approx(step.var(), abs=1e-12)
        expected = gamma[k] * (step[k] - step.mean()) / np.sqrt(step.var() + 1e-5) + beta[k]
        assert found["result"] == pytest.approx(expected, rel=1e-9)
        assert "of 3 values" in found["formula"]


@pytest.mark.parametrize("x", [[0.0, 0.0, 0.0], [1e30, -1e30, 1e30], [np.nan, 1.0, 2.0]])
@pytest.mark.parametrize("layer", [xn.RMSNorm(), xn.LayerNorm(), xn.Softmax(), xn.LogSoftmax()])
def test_extreme_values_are_no_error(layer, x):
    net = xn.Sequential([type(layer)()], input_shape=(3,), backend="numpy")
    with np.errstate(all="ignore"):
        side = looked_at(net, np.array(x, np.float32))
        json.dumps(traced(side, net.nodes[0], (1,)), allow_nan=False)


def test_every_rule_is_tested():
    tested = {type(layer) for layer, _ in SUMS.values()} | {
        xn.Add, xn.Multiply, xn.Subtract, xn.Average, xn.Maximum, xn.Minimum, xn.WeightedSum,
        xn.Concat, xn.MatMul, xn.Embedding}
    same = {rule for kind, rule in RULES.items() if kind in tested}
    assert {kind.__name__ for kind, rule in RULES.items() if rule not in same} == set()
