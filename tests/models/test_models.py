"""The networks of the literature have the published sizes, and each of them learns."""

from __future__ import annotations

import inspect
import math

import numpy as np
import pytest
from nets import pictures, values

import xpnet as xn
from xpnet import models
from xpnet.inspect.summary import rows
from xpnet.models import MODELS
from xpnet.models.digits import C3_TABLE, HEIGHT, WIDTH, codes

SMALL = ["mlp", "numpy_cnn", "bilici", "lecun1989", "lenet5"]


def counts(net: xn.Network) -> dict[str, int]:
    return {row.name: row.parameters for row in rows(net) if row.parameters}


def total(net: xn.Network) -> tuple[int, int]:
    """Trained parameters, and multiply-adds of one sample."""
    return (sum(p.size for layer in net.layers for p in layer.parameters),
            sum(row.multiply_adds for row in rows(net)))


def shapes(net: xn.Network) -> list[tuple[int, ...]]:
    return [row.shape for row in rows(net)]


def test_numpy_cnn():
    net = models.numpy_cnn(backend="numpy")
    assert counts(net) == {"conv1": 8 * 26, "conv2": 8 * 201, "linear1": 128 * 801,
                           "linear2": 10 * 129}
    assert shapes(net) == [(8, 24, 24), (8, 20, 20), (8, 10, 10), (800,), (128,), (10,)]
    assert total(net) == (105_634, 24 * 24 * 8 * 25 + 20 * 20 * 8 * 200 + 800 * 128 + 128 * 10)


def test_bilici():
    net = models.bilici(backend="numpy")
    assert total(net)[0] == 954_002
    assert (shapes(net) == [(8, 28, 28)] * 2 + [(8, 14, 14)] + [(32, 14, 14)] * 2
            + [(32, 7, 7), (1568,), (600,), (10,)])
    # on the digits
    assert shapes(models.bilici((1, 8, 8), backend="numpy"))[-3:] == [(128,), (600,), (10,)]


def test_lecun1989():
    """One input channel, 3 feature maps, pooled, 9 feature maps, pooled, one unit."""
    net = models.lecun1989(backend="numpy")
    assert shapes(net) == [(3, 24, 24), (3, 12, 12), (9, 8, 8), (9, 4, 4), (144,), (1,)]
    assert counts(net) == {"conv1": 3 * 26, "conv2": 9 * 76, "linear1": 145}


@pytest.mark.parametrize("activation", ["scaled_tanh", "tanh", None])
def test_lecun1989_with_another_activation(activation):
    """Forward pass by hand, from the layers without their activations."""
    net = models.lecun1989(activation=activation, backend="numpy", dtype="float64")
    plain = models.lecun1989(activation=None, backend="numpy", dtype="float64")
    act = {"scaled_tanh": lambda z: 1.7159 * np.tanh(2 * z / 3), "tanh": np.tanh,
           None: lambda z: z}[activation]
    x = pictures(4, (1, 28, 28))[0]
    h = plain.batch_last(x.astype(np.float64))
    for layer in plain.layers:
        h = act(layer.forward(h)) if layer.parameters else layer.forward(h)
    np.testing.assert_allclose(net.predict(x), h.T, rtol=1e-12)


def test_lenet5_has_the_papers_counts():
    """LeCun et al. 1998, section II.B, layer by layer. Its connections are multiply-adds plus
    biases."""
    net = models.lenet5(backend="numpy")
    assert counts(net) == {"C1": 156, "S2": 12, "C3": 1_516, "S4": 32, "C5": 48_120, "F6": 10_164}
    assert total(net)[0] == 60_000
    assert shapes(net) == [(6, 28, 28), (6, 14, 14), (16, 10, 10), (16, 5, 5), (120, 1, 1), (120,),
                           (84,), (10,)]
    assert {row.name: row.multiply_adds + math.prod(row.shape) for row in rows(net)
            if row.name in ("C1", "C3", "C5")} == {"C1": 122_304, "C3": 151_600, "C5": 48_120}
    fields = {row.name: row.receptive_field for row in rows(net)}
    assert (fields["C1"], fields["S2"], fields["C3"],
            fields["C5"]) == ((5, 5), (6, 6), (14, 14), (32, 32))


def test_lenet5_pads_mnists_images_to_its_input_size():
    small, large = models.lenet5((1, 28, 28), backend="numpy"), models.lenet5(backend="numpy")
    assert shapes(small) == shapes(large) and np.array_equal(small.parameters, large.parameters)
    x = pictures(3, (1, 28, 28))[0]
    padded = np.pad(x, ((0, 0), (0, 0), (2, 2), (2, 2)))
    np.testing.assert_allclose(small(x), large(padded), rtol=1e-4)


def test_lenet5s_connection_table_is_the_papers():
    """Table I: three, four or six maps. Ten maps of C3 read each map of S2, and no two maps of C3
    read the same ones."""
    assert [len(row) for row in C3_TABLE] == [3] * 6 + [4] * 9 + [6]
    assert [sum(channel in row for row in C3_TABLE) for channel in range(6)] == [10] * 6
    assert len({frozenset(row) for row in C3_TABLE}) == 16
    W, b = (p for p in models.lenet5(backend="numpy").layers[2].parameters)
    assert (W.shape, b.shape) == ((60, 5, 5), (16,))


def test_the_ten_codes_are_bitmaps_that_differ():
    bits = np.array(codes())
    assert bits.shape == (10, WIDTH * HEIGHT) == (10, 84) and set(np.unique(bits)) == {-1.0, 1.0}
    distance = (bits[:, None] != bits).sum(axis=2) + 84 * np.eye(10)
    assert distance.min() >= 4
    net = models.lenet5(backend="numpy")
    # fixed, not trained
    assert net.layers[-1].C.data.tolist() == codes() and not net.layers[-1].parameters


def test_resnet18():
    """He et al. 2016 with the stem for small images: the widely published count for CIFAR-10."""
    net = models.resnet18(backend="numpy")
    assert total(net) == (11_173_962, 555_422_720)
    assert set(shapes(net)) == {(64, 32, 32), (128, 16, 16), (256, 8, 8), (512, 4, 4), (512,),
                                (10,)}
    merges = [layer for layer in net.layers if isinstance(layer, xn.Add)]
    assert len(merges) == 8 and all(layer.activation == "relu" for layer in merges)
    assert not any(isinstance(layer, xn.ReLU) for layer in net.layers)
    assert sum(isinstance(layer, xn.Conv2d) for layer in net.layers) == 17 + 3


def test_resnet50():
    net = models.resnet50(backend="numpy")
    assert total(net) == (25_557_032, 4_089_184_256)
    convolutions = [layer for layer in net.layers if isinstance(layer, xn.Conv2d)]
    # 50 layers including the dense one, and 4 projections
    assert len(convolutions) == 1 + 3 * 16 + 4
    table = {row.name: row for row in rows(net)}
    assert (table["linear1"].shape == (1000,)
            and table[table["linear1"].inputs[0]].kind == "GlobalAvgPool2d")
    last = table[table["pool2"].inputs[0]]
    assert last.shape == (2048, 7, 7) and last.receptive_field == (427, 427)
    x, _ = pictures(1, (3, 224, 224))
    y = net(x)
    assert y.shape == (1, 1000) and np.isfinite(y).all()


def test_keras_prints_669706():
    """Keras's example mnist_mlp: two dense layers of 512 with dropout, ten classes, 784 inputs."""
    assert (total(models.mlp(backend="numpy"))[0]
            == 669_706 == 784 * 512 + 512 + 512 * 512 + 512 + 512 * 10 + 10)


# --- they learn -----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", SMALL)
def test_ten_steps_lower_the_loss(name, backend):
    net = MODELS[name](backend=backend)
    x, y = pictures(8, net.input.shape)
    loss, targets = ("half_squared_error", y / 9) if name == "lecun1989" else ("cross_entropy", y)
    before = values(net)["parameters"]
    history = net.fit(x, targets, loss=loss, optimizer=xn.Adam(1e-3), epochs=10, batch_size=8,
                      verbose=False)
    after = values(net)["parameters"]
    for (layer, p), start in zip(net.buffers.placed, net.buffers.offsets, strict=True):
        part = slice(start, start + p.size)
        assert not np.array_equal(before[part], after[part]), (
            f"{layer.name}.{p.name} learned nothing")
    assert history["loss"][-1] < 0.8 * history["loss"][0]
    assert net.evaluate(x, targets)["loss"] < history["loss"][0]


def test_a_resnet_learns_the_same_bits_with_relu_as_a_layer(backend):
    """Two blocks, one with a projection: every parameter after two steps."""
    def trained(add):
        x = xn.Input((3, 8, 8))
        h = xn.Conv2d(8, 3, padding=1, bias=False)(x)
        for filters, stride in ((8, 1), (16, 2)):
            y = xn.BatchNorm2d(activation="relu")(
                xn.Conv2d(filters, 3, stride=stride, padding=1, bias=False)(h))
            y = xn.BatchNorm2d()(xn.Conv2d(filters, 3, padding=1, bias=False)(y))
            h = add(y, h if stride == 1 else xn.Conv2d(filters, 1, stride=2, bias=False)(h))
        net = xn.Network(x, xn.Linear(10)(xn.GlobalAvgPool2d()(h)), backend=backend)
        net.fit(*pictures(16, (3, 8, 8)), loss="cross_entropy", optimizer=xn.SGD(0.1, momentum=0.9),
                epochs=2, batch_size=8, verbose=False)
        return values(net)["parameters"].tobytes()

    assert (trained(lambda a, b: xn.Add(activation="relu")(a, b))
            == trained(lambda a, b: xn.ReLU()(xn.Add()(a, b))))


def test_resnet18_makes_a_step():
    net = models.resnet18(backend="numpy")
    x, y = pictures(2, (3, 32, 32))
    before = net.parameters.copy()
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.01))
    losses = [float(step(net.batch_last(x), y)[0]) for _ in range(2)]
    assert losses[1] < losses[0] and np.isfinite(net.parameters).all()
    for (layer, p), start in zip(net.buffers.placed, net.buffers.offsets, strict=True):
        part = slice(start, start + p.size)
        assert not np.array_equal(before[part], net.parameters[part]), (
            f"{layer.name}.{p.name} learned nothing")


# --- all of them ----------------------------------------------------------------------------------

@pytest.mark.parametrize("name", MODELS)
def test_every_model_cites_its_source_and_takes_the_same_settings(name):
    make = MODELS[name]
    text = inspect.getdoc(make)
    assert make.__name__ == name and text
    assert any(source in text for source in ("et al.", "github.com", "Bilici", "lecture",
                                             "Simonyan", "Zeiler"))
    assert list(inspect.signature(make).parameters)[-3:] == ["backend", "dtype", "seed"]


@pytest.mark.parametrize("name", SMALL)
def test_settings_reach_the_network(name):
    net = MODELS[name](backend="numpy", dtype="float64", seed=7)
    assert net.dtype == np.float64 and net.seed == 7 and net.backend.name == "numpy"
    assert not np.array_equal(net.parameters,
                              MODELS[name](backend="numpy", dtype="float64").parameters)


@pytest.mark.parametrize("name", ["numpy_cnn", "bilici", "resnet18"])
def test_other_classes(name):
    assert MODELS[name](classes=3, backend="numpy").output.shape == (3,)
    assert MODELS[name](classes=("a", "b"), backend="numpy").output.shape == (2,)
    for wrong in (np.arange(10), ["a", "a"], [1, 2], ()):   # numbers and not names
        with pytest.raises(ValueError, match=f"{name}: expected classes to be names, all differ"):
            MODELS[name](classes=wrong, backend="numpy")


@pytest.mark.parametrize("name, shape, message", [
    ("numpy_cnn", (1, 8, 8), "Conv2d 'conv2': expected an input at least as large as the window"),
    ("lecun1989", (1, 12, 12), "Conv2d 'conv2': expected an input at least as large as the window"),
    ("lenet5", (1, 27, 27), "expected an input at least as large as the window|RBF|expected"),
    ("bilici", (28, 28), "Conv2d 'conv1': expected"),
    ("resnet18", (32,), "Conv2d 'conv1': expected"),
])
def test_images_that_do_not_fit(name, shape, message):
    with pytest.raises(ValueError, match=message):
        MODELS[name](shape, backend="numpy")
