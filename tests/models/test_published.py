"""Every network of xpnet.models has the published size, makes steps, and is saved and folded."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from model_cases import LARGE, SETTINGS, SMALLEST
from nets import values
from skips import NO_NUMBA
from tiers import first

import xpnet as xn
from xpnet import models
from xpnet.inspect.summary import rows
from xpnet.models import MODELS

# Parameters: those that Keras and torchvision print, or added up from the papers' tables. Of
# networks that were published without a number: added up layer by layer in test_models.py, or here.
PUBLISHED = {
    "mlp": 669_706, "numpy_cnn": 105_634, "bilici": 954_002, "lecun1989": 907, "lenet5": 60_000,
    "alexnet": 61_100_840, "zfnet": 62_357_608, "vgg16": 138_357_544,
    "googlenet": 6_624_904, "resnet18": 11_173_962, "resnet34": 21_797_672,
    "resnet50": 25_557_032, "densenet121": 7_978_856,
    "all_cnn": 1_369_738, "squeezenet1_0": 1_248_424, "squeezenet1_1": 1_235_496,
    "mobilenet_v2": 3_504_872, "unet": 31_030_658, "espcn": 22_729,
    "conv_autoencoder": (9 + 1) * 16 + (16 * 9 + 1) * 8 + (8 * 9 * 16 + 16) + (16 * 9 + 1),
    "siamese": (25 + 1) * 16 + (16 * 25 + 1) * 32 + (32 * 4 * 4 + 1) * 64 + 64 + 1,
    "char_lstm": 242_945, "crnn": 8_326_693,
}
# Multiply-adds of a sample, in units of 1e9: those of torchvision's pages, which call them GFLOPS.
MULTIPLY_ADDS = {
    "alexnet": 0.71, "vgg16": 15.47, "googlenet": 1.50, "resnet34": 3.66, "densenet121": 2.83,
    "squeezenet1_0": 0.82, "squeezenet1_1": 0.35, "mobilenet_v2": 0.30,
}
QUICK = [name for name in MODELS if name not in LARGE]
IN_FIRST_TIER = "googlenet", "mobilenet_v2", "unet", "siamese", "char_lstm"


def made(name: str, **settings: Any) -> xn.Network:
    """A network for the smallest images, with a seed."""
    return MODELS[name](SMALLEST[name], seed=1, **SETTINGS.get(name, {}), **settings)


def inputs(net: xn.Network, N: int) -> Any:
    rng = np.random.default_rng(0)
    if isinstance(net.layers[0], xn.Embedding):
        return rng.integers(0, net.layers[0].tokens, (N, *net.input.shape))
    return net.ins.pack([rng.standard_normal((N, *node.shape)).astype(np.float32)
                         for node in net.ins.nodes])


def count(net: xn.Network) -> int:
    return sum(p.size for layer in net.layers for p in layer.parameters)


@pytest.mark.parametrize("name", first(
    MODELS, "mlp", "lecun1989", "lenet5", "googlenet", "all_cnn", "squeezenet1_0", "squeezenet1_1",
    "mobilenet_v2", "espcn", "conv_autoencoder", "siamese", "char_lstm"))
def test_the_published_sizes(name: str):
    """The docstring has the number of parameters and the size of the input that they are for."""
    net = MODELS[name](backend="numpy")
    assert count(net) == PUBLISHED[name]
    text = " ".join(str(MODELS[name].__doc__).split())
    assert f"{PUBLISHED[name]:,} parameters" in text
    assert "x".join(map(str, net.ins.nodes[0].shape[-2:])) in text
    if name in MULTIPLY_ADDS:
        total = sum(row.multiply_adds for row in rows(net)) / 1e9
        assert total == pytest.approx(MULTIPLY_ADDS[name], abs=0.005)


def test_resnet18_for_large_images():
    net = models.resnet18((3, 224, 224), classes=1000, backend="numpy")
    assert count(net) == 11_689_512
    assert [row.shape for row in rows(net)][3] == (64, 56, 56)


def test_auxiliary_outputs_of_googlenet():
    net = models.googlenet((3, 64, 64), classes=5, auxiliary=True, backend="numpy")
    assert net.output.keys() == {"output", "auxiliary1", "auxiliary2"}
    assert count(models.googlenet(auxiliary=True, backend="numpy")) == 13_004_888
    y = np.array([0, 3])
    history = net.fit(inputs(net, 2), dict.fromkeys(net.output, y), loss="cross_entropy",
                      loss_weights={"output": 1, "auxiliary1": 0.3, "auxiliary2": 0.3},
                      verbose=False)
    assert {"output_loss", "auxiliary1_loss", "auxiliary2_loss"} <= history.rows[0].keys()


def test_the_large_window_of_googlenet():
    """A window of 5x5 has 25 / 9 of the parameters of one of 3x3."""
    three, five = (models.googlenet((3, 32, 32), large_window=size, backend="numpy")
                   for size in (3, 5))
    of_the_branch = sum(p.size for layer in five.layers for p in layer.parameters
                        if getattr(layer, "kernel_size", None) == 5)
    assert count(five) - count(three) == of_the_branch * 16 // 25 > 0


def test_unet_crops_the_papers_sizes():
    """Figure 1: 572x572 pixels give 388x388, the lowest maps are 28x28."""
    net = models.unet(filters=1, backend="numpy")
    shapes = [row.shape for row in rows(net)]
    assert net.output.shape == (2, 388, 388) and (16, 28, 28) in shapes
    half = models.unet((3, 32, 48), classes=4, filters=2, padding="half", backend="numpy")
    assert half.output.shape == (4, 32, 48)
    with pytest.raises(ValueError, match="unet: expected padding to be 'valid' or 'half'"):
        models.unet(padding="same", backend="numpy")


def test_a_siamese_network_is_symmetric_and_shares_its_layers():
    net = models.siamese(SMALLEST["siamese"], backend="numpy")
    x = inputs(net, 4)
    turned = {"first": x["second"], "second": x["first"]}
    assert np.array_equal(net.predict(x), net.predict(turned))
    bias = net.layers[-1].b.data
    assert (net.predict({"first": x["first"], "second": x["first"]}) == bias).all()
    assert sum(isinstance(layer, xn.Conv2d) for layer in net.layers) == 2


@pytest.mark.parametrize("name", first(MODELS, *IN_FIRST_TIER))
@pytest.mark.parametrize("backend", ["numpy", pytest.param("numba", marks=NO_NUMBA)])
def test_a_step_on_every_cpu_backend(name: str, backend: str):
    """Every parameter changes, and the loss becomes smaller."""
    net = made(name, backend=backend)
    x = inputs(net, 4)
    target = np.random.default_rng(1).random((4, *net.output.shape), np.float32)
    before = values(net)["parameters"]
    net.fit(x, target, loss="half_squared_error", optimizer=xn.SGD(1e-4), batch_size=4,
            verbose=False, epochs=2, schedule="constant")
    after = values(net)["parameters"]
    assert np.isfinite(after).all()
    for (layer, p), start in zip(net.buffers.placed, net.buffers.offsets, strict=True):
        part = slice(start, start + p.size)
        assert not np.array_equal(before[part], after[part]), (
            f"{layer.name}.{p.name} learned nothing")


@pytest.mark.parametrize("name", first(MODELS, *IN_FIRST_TIER))
def test_saved_loaded_and_folded(name: str, tmp_path: Path):
    net = made(name, backend="numpy")
    rng = np.random.default_rng(2)
    net.state = net.state + rng.random(net.state.shape, np.float32)
    x = inputs(net, 3)
    expected = net.predict(x)
    net.save(tmp_path / "net.safetensors")
    assert np.array_equal(xn.load(tmp_path / "net.safetensors", backend="numpy").predict(x),
                          expected)
    folded = net.folded().predict(x)
    assert np.abs(folded - expected).max() <= 2e-5 * max(1, np.abs(expected).max())


@pytest.mark.parametrize("name", QUICK)
def test_names_of_classes(name: str):
    if "classes" not in models.MODELS[name].__annotations__:
        return
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert made(name, classes=("a", "b"), backend="numpy").classes == ("a", "b")
