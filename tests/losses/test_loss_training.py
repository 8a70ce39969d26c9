"""Training with losses: over feature maps, with weights and unknown labels, on every backend and
captured on an emulated GPU."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from gpu_cases import check_captured, network, pretended, samples
from loss_cases import CASES, TARGET, Y
from tiers import full

import xpnet as xn


def bright(count: int = 24, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    """x (count, 1, 6, 5), and for each position whether it is dark (0), grey (1) or bright (2)."""
    x = np.random.default_rng(seed).uniform(-1, 1, (count, 1, 6, 5))
    return x, np.digitize(x[:, 0], [-0.4, 0.4])


def of_maps(backend: Any, classes: int = 3, last: Any = None) -> xn.Sequential:
    layers = [xn.Conv2d(8, 1, activation="relu"), xn.Conv2d(classes, 1),
              *([] if last is None else [last])]
    return xn.Sequential(layers, input_shape=(1, 6, 5), backend=backend, dtype="float64", seed=1)


def by_hand(z: np.ndarray, labels: np.ndarray, ignore: int | None = None) -> dict[str, float]:
    """Loss and accuracy of cross entropy over positions, from batch-first logits."""
    log_p = z - np.log(np.exp(z).sum(axis=1, keepdims=True))
    known = labels != (-99 if ignore is None else ignore)
    right = np.take_along_axis(log_p, np.where(known, labels, 0)[:, None], axis=1)[:, 0]
    return {"loss": -right[known].mean(), "accuracy": (z.argmax(axis=1) == labels)[known].mean()}


@pytest.mark.parametrize("loss", [xn.CrossEntropy(), xn.CrossEntropy(weight=[1, 2, 1]),
                                  xn.WestonWatkinsHinge()],
                         ids=["plain", "weights", "hinge"])
def test_labels_at_every_position_are_learned(loss: xn.Loss, plain_backend):
    x, labels = bright()
    net = of_maps(plain_backend)
    history = net.fit(x, labels, loss=loss, optimizer=xn.Adam(0.05), epochs=30, batch_size=7,
                      validation=bright(5, 1), verbose=False)
    assert history["accuracy"][0] < 0.8 and history["val_accuracy"][-1] > 0.9


def test_metrics_of_maps(plain_backend):
    """Every position counts, whatever the batch size; unknown ones are neither hits nor misses."""
    x, labels = bright()
    net = of_maps(plain_backend)
    logits = net.predict(x)
    assert net.evaluate(x, labels, loss=xn.CrossEntropy(),
                        batch_size=10) == pytest.approx(by_hand(logits, labels))
    masks = np.moveaxis(np.eye(3)[labels], -1, 1)
    assert net.evaluate(x, masks, loss=xn.CrossEntropy(),
                        batch_size=10) == pytest.approx(by_hand(logits, labels))
    holes = np.where(x[:, 0] < 0.5, labels, 255)
    given = net.evaluate(x, holes, loss=xn.CrossEntropy(ignore_index=255))
    assert given == pytest.approx(by_hand(logits, holes, 255))
    by_class = np.where(labels == 2, 0, labels)  # ignore_index may also be one of the classes
    assert (net.evaluate(x, by_class, loss=xn.CrossEntropy(ignore_index=0))
            == pytest.approx(by_hand(logits, by_class, 0)))
    nothing = net.evaluate(x, np.full_like(labels, 255), loss=xn.CrossEntropy(ignore_index=255))
    assert nothing["loss"] == 0 and np.isnan(nothing["accuracy"])


def test_a_last_softmax_over_maps_is_fused():
    x, labels = bright()
    plain, fused = of_maps("numpy"), of_maps("numpy", last=xn.Softmax())
    assert (plain.evaluate(x, labels, loss="cross_entropy")
            == fused.evaluate(x, labels, loss="cross_entropy"))


@pytest.mark.parametrize("loss", ["dice", "jaccard"])
def test_regions_are_learned(loss: str):
    x, labels = bright()
    net = of_maps("numpy", last=xn.Softmax())
    history = net.fit(x, labels, loss=loss, optimizer=xn.Adam(0.05), epochs=30, batch_size=7,
                      verbose=False)
    assert history["loss"][-1] < 0.6 * history["loss"][0]
    assert (net.predict(x).argmax(axis=1) == labels).mean() > 0.9


# --- a last sigmoid -------------------------------------------------------------------------------

def test_a_last_sigmoid_is_fused_with_the_loss():
    x, yes = bright()
    yes = (yes > 0).astype(float)
    plain, fused = of_maps("numpy", 1), of_maps("numpy", 1, xn.Sigmoid())
    for net in (plain, fused):
        net.fit(x, yes, loss="binary_cross_entropy", optimizer=xn.SGD(0.5), epochs=3, verbose=False)
    assert np.array_equal(plain.parameters, fused.parameters)
    # computed from the output of the sigmoid
    of_shares = fused.evaluate(x, yes, loss=xn.BinaryCrossEntropy(from_logits=False))["loss"]
    assert of_shares == pytest.approx(plain.evaluate(x, yes)["loss"])
    assert fused.predict(x).min() > 0


@pytest.mark.parametrize("loss", [xn.BinaryCrossEntropy(), xn.MultiLabelCrossEntropy()],
                         ids=["binary", "many"])
def test_sigmoid_twice(loss: xn.Loss):
    net = xn.Sequential([xn.Linear(2, activation="sigmoid")], input_shape=(3,), backend="numpy")
    with pytest.raises(ValueError, match=f"{type(loss).__name__}: expected logits, or a Sigmoid as "
                                         f"the very last layer.*a sigmoid in Linear 'linear1'; "
                                         f"sigmoid would be applied twice"):
        net.evaluate(np.zeros((1, 3)), [[0, 1]], loss=loss)


# --- captured -------------------------------------------------------------------------------------

def maps(backend: Any) -> xn.Sequential:
    return xn.Sequential([xn.Conv2d(4, 3, padding="half")], input_shape=(1, 4, 4), backend=backend,
                         seed=2)


LABELS = samples()[1]
MAPS = np.random.default_rng(5).integers(0, 4, (40, 4, 4))
MANY = np.random.default_rng(6).integers(-1, 2, (40, 4))
W4 = (1.0, 2.0, 0.5, 3.0)


@pytest.mark.parametrize("make, loss, target", [
    (network, xn.CrossEntropy(weight=W4, ignore_index=3, label_smoothing=0.1), LABELS),
    (network, xn.MultiLabelCrossEntropy(weight=W4, pos_weight=W4, ignore_index=-1), MANY),
    pytest.param(network, xn.BoundedCrossEntropy(2.0), LABELS, marks=full),
    (network, xn.CrammerSingerHinge(), LABELS),
    pytest.param(network, xn.LogCosh(), np.eye(4)[LABELS], marks=full),
    pytest.param(maps, xn.CrossEntropy(), MAPS, marks=full),
    (maps, xn.CrossEntropy(weight=W4, ignore_index=0), MAPS),
    pytest.param(maps, xn.Dice(ignore_index=0), MAPS, marks=full),
], ids=["weights", "many", "bounded", "hinge", "log cosh", "maps", "maps weights", "dice"])
def test_captured_steps_are_the_same(make: Any, loss: xn.Loss, target: np.ndarray, folder: Path):
    """Weights are passed with the launches, not copied from the host."""
    x, _ = samples()
    check_captured(folder, make, x, target, loss)


@pytest.mark.parametrize("name", CASES)
def test_on_an_emulated_gpu(name: str, folder: Path):
    """This finds functions that CuPy does not have, waiting for the GPU, and dtypes other than that
    of y."""
    case = CASES[name]
    y = np.moveaxis(Y[case.y], 0, -1).astype(np.float32)
    t = np.moveaxis(case.loss.targets(TARGET[case.target], y.shape[:-1], np.dtype(np.float32)), 0,
                    -1)
    expected = case.loss(xn.Backend(), y, t)
    with pretended(folder) as (backend, _), backend.scope():
        loss, dy = case.loss(backend, backend.asarray(y), backend.asarray(t))
        assert loss.dtype == dy.dtype == np.float32 and loss.shape == ()
        np.testing.assert_allclose(backend.to_numpy(loss), expected[0], rtol=1e-5)
        np.testing.assert_allclose(backend.to_numpy(dy), expected[1], rtol=1e-4,
                                   atol=1e-6 * abs(expected[1]).max())
