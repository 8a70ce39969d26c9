"""The networks that torchvision has, too: with equal parameters, both compute the same."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tiers import full

import xpnet as xn
from xpnet.models import MODELS

# Rows and columns of the images: few and odd ones where both sides take them. Torchvision's AlexNet
# and VGG-16 average maps of another size; ours take the maps as they are.
SIZES = {"alexnet": 224, "vgg16": 224, "googlenet": 63, "resnet18": 65, "resnet34": 70,
         "resnet50": 65, "densenet121": 63, "squeezenet1_0": 67, "squeezenet1_1": 62,
         "mobilenet_v2": 63}
HEADS = {"output": "logits", "auxiliary1": "aux_logits1", "auxiliary2": "aux_logits2"}
KINDS = "Conv2d", "BatchNorm2d", "Linear", "Dropout"


@pytest.fixture
def torch():
    pytest.importorskip("torchvision", reason="torchvision is not installed: pip install "
                                              "torchvision")
    return pytest.importorskip("torch")


def theirs(torch: Any, name: str) -> Any:
    """Torchvision's network with its initial parameters, in float64 and not in training. The
    statistics, scales and shifts of its batch norms are not 0 and 1."""
    from torchvision import models
    torch.manual_seed(1)
    settings = {"init_weights": False} if name == "googlenet" else {}
    model = getattr(models, name)(weights=None, **settings)
    for module in model.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            for tensor in (module.weight, module.running_var):
                torch.nn.init.uniform_(tensor, 0.5, 2)
            for tensor in (module.bias, module.running_mean):
                torch.nn.init.normal_(tensor, 0, 0.3)
    return model.double().eval()


def run(torch: Any, model: Any, x: np.ndarray) -> tuple[Any, list[tuple[str, Any]]]:
    """The outputs, and (kind, module) in our order: as they run, auxiliary outputs at the end."""
    ran: list[tuple[bool, str, Any]] = []
    for name, module in model.named_modules():
        kind = type(module).__name__
        if kind in KINDS:
            module.register_forward_hook(
                lambda module, *_, name=name, kind=kind: ran.append((name[:3] == "aux", kind,
                                                                     module)))
    with torch.no_grad():
        y = model(torch.tensor(x))
    return y, [item[1:] for item in sorted(ran, key=lambda item: item[0])]


def copy(modules: list[tuple[str, Any]], net: xn.Network) -> None:
    """Copy torchvision's parameters and statistics to ours, which has the same layers."""
    layers = [(type(layer).__name__.removeprefix("Depthwise"), layer) for layer in net.layers]
    for (kind, layer), (name, module) in zip([item for item in layers if item[0] in KINDS],
                                             modules, strict=True):
        assert kind == name, f"{layer!r} is {module} there"
        sources = [*module.parameters()]
        if kind == "BatchNorm2d":
            assert (layer.eps, layer.momentum) == (module.eps, module.momentum)
            sources += [module.running_mean, module.running_var]
        elif kind == "Dropout":
            assert layer.p == module.p
        for p, tensor in zip([*layer.parameters, *layer.states], sources, strict=True):
            assert p.shape == tuple(tensor.shape)
            p.data = tensor.detach().numpy()


@pytest.mark.parametrize("name", [pytest.param(name, marks=full) for name in SIZES])
def test_torchvisions_parameters_give_torchvisions_outputs(name: str, torch: Any):
    """Also the same layers, dropout included, the same number of parameters, and the same constants
    of batch norms. In float64, what differs is rounding."""
    model = theirs(torch, name)
    auxiliary = {"auxiliary": True} if name == "googlenet" else {}
    net = MODELS[name]((3, SIZES[name], SIZES[name]), classes=1000, backend="numpy",
                       dtype="float64", **auxiliary)
    x = np.random.default_rng(0).standard_normal((2, *net.input.shape))
    model.training = bool(auxiliary)        # makes the auxiliary outputs; the layers do not train
    expected, ran = run(torch, model, x)
    copy(ran, net)
    y = net.predict(x)
    pairs = ([(y[ours], getattr(expected, output)) for ours, output in HEADS.items()] if auxiliary
             else [(y, expected)])
    for found, wanted in pairs:
        assert np.linalg.norm(found - wanted.numpy()) < 1e-12 * np.linalg.norm(wanted)
    assert (sum(p.size for layer in net.layers for p in layer.parameters)
            == sum(p.numel() for p in model.parameters()))


@pytest.mark.parametrize("kind", ["pth", "legacy", "safetensors"])
@pytest.mark.parametrize("name", [pytest.param(name, marks=full) for name in SIZES])
def test_files_of_torchvisions_weights_are_loaded(name: str, kind: str, torch: Any, tmp_path: Path):
    """Also in the format before PyTorch 1.6, and from a file whose names are in another order."""
    if kind != "safetensors" and name in ("alexnet", "vgg16"):
        pytest.skip("hundreds of megabytes; the others have the same format")
    model = theirs(torch, name).float()
    path = tmp_path / f"net.{kind}"
    if kind == "safetensors":
        from safetensors.torch import save_file
        save_file(model.state_dict(), path)
    else:
        torch.save(model.state_dict(), path, _use_new_zipfile_serialization=kind == "pth")
    net = MODELS[name]((3, SIZES[name], SIZES[name]), classes=1000, backend="numpy")
    assert net.load_torch(path, "torchvision").missing == ()
    x = np.random.default_rng(0).standard_normal((2, *net.input.shape)).astype(np.float32)
    with torch.no_grad():
        expected = model(torch.tensor(x)).numpy()
    assert np.linalg.norm(net.predict(x) - expected) < 1e-4 * np.linalg.norm(expected)


def test_auxiliary_classifiers_are_loaded(torch: Any, tmp_path: Path):
    model = theirs(torch, "googlenet").float()
    torch.save(model.state_dict(), tmp_path / "net.pth")
    net = MODELS["googlenet"](auxiliary=True, backend="numpy")
    report = net.load_torch(tmp_path / "net.pth", "torchvision")
    assert report.complete and len(report.matched) == len(net.arrays)
    layers = {name: node.layer.W.data for name, node in net.output.items()}
    for ours, module in (("output", model.fc), ("auxiliary1", model.aux1.fc2),
                         ("auxiliary2", model.aux2.fc2)):
        assert np.array_equal(layers[ours], module.weight.detach().numpy())
