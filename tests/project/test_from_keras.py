"""The tables of docs/start/from_keras.md are true: both sides compute the same numbers.

Without Keras, our side has the shapes that the page names; all else is skipped. Keras computes with
PyTorch, if KERAS_BACKEND does not name another one of its backends.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from pages import ROOT, rows, sizes

import xpnet as xn

PAGE = ROOT / "docs" / "start" / "from_keras.md"
IMAGES = [(theirs, ours, "4 x 12 x 12", out)
          for theirs, ours, out in rows(PAGE, "Layers on images of 12 x 12 with 4 channels")]
LAYERS = [*IMAGES, *map(tuple, rows(PAGE, "Layers on features and sequences"))]
LOSSES = rows(PAGE, "Losses of 5 outputs")
OPTIMIZERS = rows(PAGE, "Optimizers")
# Keras makes arrays of tensors in a way that NumPy 2 warns of.
pytestmark = pytest.mark.filterwarnings("ignore:__array__ implementation:DeprecationWarning")


def ours_of(code: str) -> Any:
    return eval(code, vars(xn))


def network(ours: str, shape: str) -> xn.Network:
    return xn.Sequential([ours_of(ours)], input_shape=sizes(shape), backend="numpy",
                         dtype="float64")


@pytest.mark.parametrize(("theirs", "ours", "shape", "out"), LAYERS)
def test_shapes(theirs: str, ours: str, shape: str, out: str):
    assert network(ours, shape).output.shape == sizes(out)


@pytest.fixture
def keras(monkeypatch: pytest.MonkeyPatch) -> Any:
    # Keras reads it when it is imported.
    monkeypatch.setenv("KERAS_BACKEND", os.environ.get("KERAS_BACKEND", "torch"))
    keras = pytest.importorskip("keras", reason="Keras is not installed: pip install keras")
    keras.utils.set_random_seed(0)
    keras.backend.set_floatx("float64")
    return keras


def channels_last(x: np.ndarray) -> np.ndarray:
    return np.moveaxis(x, 1, -1)


@pytest.mark.parametrize(("theirs", "ours", "shape", "out"), LAYERS)
def test_layers_compute_the_same(theirs: str, ours: str, shape: str, out: str, keras: Any,
                                 tmp_path: Path):
    """With random weights of Keras, that is no zeros and ones, in a prediction."""
    pytest.importorskip("h5py", reason='h5py is not installed: pip install "xpnet[keras]"')
    net, rng = network(ours, shape), np.random.default_rng(0)
    integers = "integers" in shape
    x = (rng.integers(0, 20, (3, *sizes(shape))) if integers else
         rng.standard_normal((3, *sizes(shape))))
    given = x if integers else channels_last(x)
    model = keras.Sequential([keras.Input(given.shape[1:]), eval(theirs, vars(keras.layers))])
    model.set_weights([w + rng.uniform(0.1, 0.5, w.shape) for w in model.get_weights()])
    if net.arrays:
        model.save_weights(tmp_path / "a.weights.h5")
        assert net.load_keras(tmp_path / "a.weights.h5").complete
    y = keras.ops.convert_to_numpy(model(given))
    found = net.predict(x)
    if not theirs.startswith("Reshape"):
        found = channels_last(found)
    np.testing.assert_allclose(found, y, rtol=1e-5, atol=1e-6)      # the file holds float32


@pytest.mark.parametrize(("theirs", "ours", "kind"), LOSSES)
def test_losses(theirs: str, ours: str, kind: str, keras: Any):
    rng = np.random.default_rng(0)
    y, probabilities = rng.standard_normal((6, 5)), rng.random((6, 5))
    target = {"labels": rng.integers(0, 5, 6), "0 or 1": rng.integers(0, 2, (6, 5)).astype(float),
              "class probabilities": probabilities / probabilities.sum(axis=1, keepdims=True),
              "numbers": rng.standard_normal((6, 5))}[kind]
    expected = eval(theirs, vars(keras.losses))(target, y)
    loss, _ = ours_of(ours)(xn.get_backend("numpy"), y.T.copy(), target.T.copy())
    assert float(loss) == pytest.approx(float(keras.ops.convert_to_numpy(expected)), rel=1e-6)


@pytest.mark.parametrize(("theirs", "ours"), OPTIMIZERS)
def test_optimizers_make_the_same_steps(theirs: str, ours: str, keras: Any):
    """Ten steps of a linear layer without a bias. Keras has Adam's eps before the correction of the
    bias, which changes the sixth digit."""
    rng = np.random.default_rng(0)
    net = xn.Sequential([xn.Linear(3, bias=False)], input_shape=(4,), backend="numpy",
                        dtype="float64")
    W = net.arrays["linear1.W"]
    weights = keras.Variable(W.data.copy())
    optimizer = eval(theirs, vars(keras.optimizers))
    step = xn.TrainStep(net, xn.MeanSquaredError(), ours_of(ours))
    for _ in range(10):
        x, target = rng.standard_normal((4, 8)), rng.standard_normal((3, 8))
        error = keras.ops.convert_to_numpy(weights) @ x - target
        gradient = keras.ops.convert_to_tensor(2 * error @ x.T / error.size)
        optimizer.apply([gradient], [weights])
        step(x, target)
        np.testing.assert_allclose(W.data, keras.ops.convert_to_numpy(weights), rtol=2e-5)
