"""The tables of docs/start/from_pytorch.md are true: both sides compute the same numbers.

Without PyTorch, our side has the shapes that the page names; all else is skipped.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT, rows, sizes

import xpnet as xn

PAGE = ROOT / "docs" / "start" / "from_pytorch.md"
IMAGES = [(theirs, ours, "4 x 12 x 12", out)
          for theirs, ours, out in rows(PAGE, "Layers on images (4, 12, 12)")]
LAYERS = [*IMAGES, *map(tuple, rows(PAGE, "Layers on features and sequences"))]
LOSSES = rows(PAGE, "Losses of 5 outputs")
OPTIMIZERS = rows(PAGE, "Optimizers")
# These have the features last, (N, T, D).
FEATURES_LAST = ("Linear", "LayerNorm(4)", "RNN", "LSTM", "GRU", "MultiheadAttention", "Embedding")


def ours_of(code: str) -> Any:
    return eval(code, vars(xn))


def network(ours: str, shape: str, dtype: str = "float64") -> xn.Network:
    return xn.Sequential([ours_of(ours)], input_shape=sizes(shape), backend="numpy", dtype=dtype)


def batch(net: xn.Network, shape: str) -> np.ndarray:
    rng = np.random.default_rng(0)
    if "integers" in shape:
        return rng.integers(0, 20, (3, *sizes(shape)))
    return rng.standard_normal((3, *sizes(shape)))


@pytest.mark.parametrize(("theirs", "ours", "shape", "out"), LAYERS)
def test_shapes(theirs: str, ours: str, shape: str, out: str):
    assert network(ours, shape).output.shape == sizes(out)


@pytest.fixture(scope="module")
def torch() -> Any:
    return pytest.importorskip("torch",
                               reason='PyTorch is not installed: pip install "xpnet[bench]"')


@pytest.mark.parametrize(("theirs", "ours", "shape", "out"), LAYERS)
def test_layers_compute_the_same(theirs: str, ours: str, shape: str, out: str, torch: Any,
                                 tmp_path: Path):
    """With PyTorch's initial weights, in training and then in a prediction."""
    torch.manual_seed(0)
    module = eval(theirs, vars(torch.nn)).double()
    net = network(ours, shape)
    if net.arrays:
        torch.save(torch.nn.Sequential(module).state_dict(), tmp_path / "a.pth")
        assert net.load_torch(tmp_path / "a.pth").complete
    x = batch(net, shape)

    def computed() -> Any:
        last = theirs.startswith(FEATURES_LAST) and len(sizes(shape)) == 2
        given = torch.tensor(np.moveaxis(x, 1, 2) if last else x)
        y = module(*[given] * (3 if theirs.startswith("Multihead") else 1))
        y = (y[0] if isinstance(y, tuple) else y).detach().numpy()
        return np.moveaxis(y, 2, 1) if theirs.startswith(FEATURES_LAST) and y.ndim == 3 else y

    y = np.moveaxis(net.forward(net.batch_last(x), xn.TRAIN), -1, 0)
    np.testing.assert_allclose(y, computed(), rtol=1e-9, atol=1e-9)
    module.eval()                       # the running statistics are those of one step
    np.testing.assert_allclose(net.predict(x), computed(), rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize(("theirs", "ours", "kind"), LOSSES)
def test_losses_and_their_gradients(theirs: str, ours: str, kind: str, torch: Any):
    rng = np.random.default_rng(0)
    y = rng.standard_normal((6, 5))
    probabilities = rng.random((6, 5))
    target = {"labels": rng.integers(0, 5, 6), "0 or 1": rng.integers(0, 2, (6, 5)).astype(float),
              "class probabilities": probabilities / probabilities.sum(axis=1, keepdims=True),
              "numbers": rng.standard_normal((6, 5)),
              "counts": rng.integers(0, 4, (6, 5)).astype(float)}[kind]
    given = torch.tensor(y, requires_grad=True)
    expected = eval(theirs, vars(torch.nn))(given, torch.tensor(target))
    expected.backward()
    loss, dy = ours_of(ours)(xn.get_backend("numpy"), y.T.copy(), target.T.copy())
    assert float(loss) == pytest.approx(float(expected.detach()), rel=1e-9)
    np.testing.assert_allclose(dy.T, given.grad.numpy(), rtol=1e-7, atol=1e-10)


@pytest.mark.parametrize(("theirs", "ours"), OPTIMIZERS)
def test_optimizers_make_the_same_steps(theirs: str, ours: str, torch: Any):
    """Ten steps of a linear layer without a bias, whose weights both decay."""
    rng = np.random.default_rng(0)
    net = xn.Sequential([xn.Linear(3, bias=False)], input_shape=(4,), backend="numpy",
                        dtype="float64")
    module = torch.nn.Linear(4, 3, bias=False).double()
    with torch.no_grad():
        module.weight.copy_(torch.tensor(net.arrays["linear1.W"].data.copy()))
    name, _, arguments = theirs.partition("(")
    optimizer = eval(f"{name}(p, {arguments}", {**vars(torch.optim), "p": module.parameters()})
    step = xn.TrainStep(net, xn.MeanSquaredError(), ours_of(ours))
    for _ in range(10):
        x, target = rng.standard_normal((8, 4)), rng.standard_normal((8, 3))
        optimizer.zero_grad()
        torch.nn.MSELoss()(module(torch.tensor(x)), torch.tensor(target)).backward()
        optimizer.step()
        step(x.T.copy(), target.T.copy())
        np.testing.assert_allclose(net.arrays["linear1.W"].data, module.weight.detach().numpy(),
                                   rtol=1e-6, atol=1e-9)


def test_defaults_that_differ(torch: Any):
    """Initial weights between -1 / sqrt(n) and 1 / sqrt(n), decay of biases, ignore_index."""
    torch.manual_seed(0)
    for module, n in ((torch.nn.Linear(50, 400), 50), (torch.nn.Conv2d(5, 40, 3), 45)):
        for parameter in module.parameters():
            largest = float(parameter.detach().abs().max())
            assert 0.9 / n**0.5 < largest <= 1 / n**0.5
    layer = xn.Conv2d(40, 3).initialize((5, 8, 8))
    assert not layer.b.data.any()

    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy", dtype="float64")
    net.arrays["linear1.b"].data[...] = 1
    x, target = np.zeros((3, 4)), net.forward(np.zeros((3, 4)))     # the gradient is 0
    xn.TrainStep(net, xn.MeanSquaredError(), xn.SGD(0.1, weight_decay=0.5))(x, target)
    module = torch.nn.Linear(3, 2)
    module.bias.data.fill_(1)
    module.bias.grad = torch.zeros(2)
    torch.optim.SGD(module.parameters(), lr=0.1, weight_decay=0.5).step()
    assert (net.arrays["linear1.b"].data == 1).all()
    assert np.allclose(module.bias.detach().numpy(), 0.95)
    assert torch.nn.CrossEntropyLoss().ignore_index == -100
    assert torch.nn.LSTM(4, 6).bias_hh_l0.shape == (24,)
