"""Infinite and NaN logits: a masked class does not contribute, and an ignored sample is left
out."""

from __future__ import annotations

import math

import numpy as np
import pytest
from implementations import CPU, implementation, on_cpu

import xpnet as xn
from xpnet.backends import Backend
from xpnet.losses import Loss

INF, NAN = math.inf, math.nan
both_types = pytest.mark.parametrize("dtype", ["float32", "float64"])


backend = implementation


def of(loss: Loss, backend: Backend, y: object, target: object, dtype: str
       ) -> tuple[float, np.ndarray]:
    """(L, dy (N, ...)) of batch-first y (N, ...) and checked targets."""
    y = np.asarray(y, dtype)
    goal = loss.targets(target, y.shape[1:], np.dtype(dtype))
    with backend.scope():
        value, dy = loss(backend, *(backend.asarray(np.moveaxis(a, 0, -1)) for a in (y, goal)))
        return float(backend.to_numpy(value)), np.moveaxis(backend.to_numpy(dy), -1, 0)


# Three classes, of which the last one is masked; the first sample's loss is log(1 + e).
MASKED = [[1.0, 2.0, -INF], [3.0, 3.0, -INF]]
TWO = [math.log(1 + math.e), math.log(2)]
SHARE = 1 / (1 + math.e)

CLASSES = {
    "labels": (xn.CrossEntropy(), [0, 1]),
    "one-hot": (xn.CrossEntropy(), np.eye(3)[[0, 1]]),
    "weight": (xn.CrossEntropy(weight=[1, 1, 5]), [0, 1]),
    "ignore": (xn.CrossEntropy(ignore_index=7), [0, 1]),
    "ignore a class": (xn.CrossEntropy(ignore_index=2), [0, 1]),
    "smoothing, weight 0": (xn.CrossEntropy(weight=[1, 1, 0], label_smoothing=1e-9), [0, 1]),
    "sum": (xn.CrossEntropy(reduction="sum"), [0, 1]),
}


@both_types
@pytest.mark.parametrize("name", CLASSES)
def test_a_masked_class_does_not_contribute(backend: Backend, name: str, dtype: str):
    loss, target = CLASSES[name]
    value, dz = of(loss, backend, MASKED, target, dtype)
    n = 1 if name == "sum" else 2
    assert value == pytest.approx(sum(TWO) / n, rel=1e-6)
    right = np.array([[SHARE - 1, 1 - SHARE, 0], [0.5, -0.5, 0]]) / n
    np.testing.assert_allclose(dz, right, rtol=1e-5, atol=1e-7)


@both_types
def test_a_masked_class_in_feature_maps(backend: Backend, dtype: str):
    """Masked, ignored and known positions in one feature map."""
    z = np.array([[[[1.0, 3.0, NAN]], [[2.0, 3.0, INF]], [[-INF, -INF, 0.0]]]])     # (1, 3, 1, 3)
    value, dz = of(xn.CrossEntropy(ignore_index=255), backend, z, [[[0, 1, 255]]], dtype)
    assert value == pytest.approx(sum(TWO) / 2, rel=1e-6)
    right = [[SHARE - 1, 0.5, 0], [1 - SHARE, -0.5, 0], [0, 0, 0]]
    np.testing.assert_allclose(dz[0, :, 0], np.array(right) / 2, rtol=1e-5, atol=1e-7)


@both_types
@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
@pytest.mark.parametrize("loss", [
    xn.CrossEntropy(ignore_index=-1), xn.CrossEntropy(ignore_index=-1, label_smoothing=0.1),
    xn.CrossEntropy(ignore_index=-1, weight=[1, 2, 3]), xn.NegativeLogLikelihood(ignore_index=-1)])
def test_the_logits_of_an_ignored_sample_do_not_matter(
        backend: Backend, loss: Loss, wrong: float, dtype: str):
    known = [[1.0, 2.0, 0.5], [0.0, -1.0, 3.0]]
    value, dz = of(loss, backend, [*known, [wrong] * 3, [0.0, wrong, 1.0]], [2, 0, -1, -1], dtype)
    right, slope = of(loss, backend, known, [2, 0], dtype)
    assert value == pytest.approx(right, rel=1e-6) and math.isfinite(right)
    np.testing.assert_allclose(dz, [*slope, [0] * 3, [0] * 3], rtol=1e-5)


@both_types
@pytest.mark.parametrize("target", [[0, 1, -1], [[1.0, 0, 0], [0, 1, 0], [0, 0, 0]]])
def test_without_a_reduction(backend: Backend, target: list[object], dtype: str):
    """reduction="none": two samples with a masked class, and one that is ignored."""
    loss = xn.CrossEntropy(ignore_index=-1, reduction="none")
    z = np.array([*MASKED, [NAN, INF, -INF]], dtype).T
    with backend.scope():
        goal = np.array(target, None if np.ndim(target) == 1 else dtype).T
        f, dz = map(backend.to_numpy, loss(backend, backend.asarray(z), backend.asarray(goal)))
    np.testing.assert_allclose(f, [*TWO, 0], rtol=1e-6)
    right = [[SHARE - 1, 1 - SHARE, 0], [0.5, -0.5, 0], [0, 0, 0]]
    np.testing.assert_allclose(dz.T, right, rtol=1e-5, atol=1e-7)


@both_types
def test_a_sample_of_weight_zero_does_not_count(backend: Backend, dtype: str):
    loss = xn.CrossEntropy(weight=[0, 1, 1])
    value, dz = of(loss, backend, [[NAN, 0.0, 0.0], [-INF, 3.0, 3.0]], [0, 1], dtype)
    assert value == pytest.approx(math.log(2), rel=1e-6)
    np.testing.assert_allclose(dz, [[0, 0, 0], [0, -0.5, 0.5]], rtol=1e-6)


@both_types
def test_losses_that_must_be_infinite_or_nan(backend: Backend, dtype: str):
    """A masked class that is the target, or to which smoothing gives a probability, and a NaN that
    counts."""
    value, dz = of(xn.CrossEntropy(), backend, MASKED, [2, 0], dtype)
    assert value == INF
    np.testing.assert_allclose(dz[0], np.array([SHARE, 1 - SHARE, -1]) / 2, rtol=1e-5)
    for target in (np.eye(3)[[2, 0]], [2, 0]):
        assert of(xn.CrossEntropy(weight=[1, 1, 1]), backend, MASKED, target, dtype)[0] == INF
    value, dz = of(xn.CrossEntropy(label_smoothing=0.1), backend, MASKED, [0, 1], dtype)
    assert value == INF and np.isfinite(dz).all()
    for loss in (xn.CrossEntropy(), xn.CrossEntropy(ignore_index=-1)):
        value, dz = of(loss, backend, [[NAN, 1.0, 2.0], [0.0, 1.0, 2.0]], [1, 1], dtype)
        assert math.isnan(value) and np.isnan(dz[0]).all() and np.isfinite(dz[1]).all()


@both_types
def test_the_loss_of_large_logits_is_accurate(backend: Backend, dtype: str):
    """log 2 next to logits of 1e4, whose rounding in float32 is 1e-3."""
    for target in ([0], [[1.0, 0.0]]):
        value, _ = of(xn.CrossEntropy(), backend, [[1e4, 1e4]], target, dtype)
        assert value == pytest.approx(math.log(2), rel=1e-6)


@both_types
def test_bounded_cross_entropy(backend: Backend, dtype: str):
    value, dz = of(xn.BoundedCrossEntropy(1.0), backend, [[-1.0, -INF]], [0], dtype)
    assert value == pytest.approx(math.log(2), rel=1e-6)
    np.testing.assert_allclose(dz, [[-0.5, 0]], rtol=1e-6)


@both_types
def test_an_ignored_sample_after_log_softmax(backend: Backend, dtype: str):
    """LogSoftmax passes a gradient of 0 for the sample, too."""
    layer = xn.LogSoftmax().initialize((3,), backend=backend, dtype=dtype)
    z = np.array([[1.0, NAN], [2.0, 0.0], [-INF, NAN]], dtype)
    with backend.scope():
        y = layer.forward(backend.asarray(z), mode="train")
        labels = backend.asarray(np.array([0, -1]))
        value, dy = xn.NegativeLogLikelihood(ignore_index=-1)(backend, y, labels)
        dz = backend.to_numpy(layer.backward(dy))
    assert float(backend.to_numpy(value)) == pytest.approx(TWO[0], rel=1e-6)
    np.testing.assert_allclose(dz, [[SHARE - 1, 0], [1 - SHARE, 0], [0, 0]], rtol=1e-6)


# --- saturated logits -----------------------------------------------------------------------------

# Losses, with their value and derivative for a logit of 0 and a target of 1.
SATURATED = {
    "binary": (xn.BinaryCrossEntropy(reduction="sum"), math.log(2), -0.5),
    "many": (xn.MultiLabelCrossEntropy(reduction="sum"), math.log(2), -0.5),
    "weights": (xn.MultiLabelCrossEntropy(weight=[1, 2, 4], pos_weight=[3, 5, 1], reduction="sum"),
                4 * math.log(2), -2.0),
    "focal": (xn.FocalCrossEntropy(0.25, 2.0, reduction="sum"), 0.25 * 0.25 * math.log(2),
              0.25 * 0.25 * (2 * 0.5 * math.log(0.5) - 0.5)),
}


@both_types
@pytest.mark.parametrize("name", SATURATED)
def test_saturated_and_right(backend: Backend, name: str, dtype: str):
    loss, right, slope = SATURATED[name]
    value, dz = of(loss, backend, [[-INF, INF, 0.0]], [[0.0, 1.0, 1.0]], dtype)
    assert value == pytest.approx(right, rel=1e-6)
    np.testing.assert_allclose(dz, [[0, 0, slope]], rtol=1e-6)


@both_types
@pytest.mark.parametrize("name", SATURATED)
def test_saturated_and_wrong(backend: Backend, name: str, dtype: str):
    loss, _, _ = SATURATED[name]
    value, dz = of(loss, backend, [[-INF, INF, 0.0]], [[1.0, 0.0, 1.0]], dtype)
    assert value == INF and np.isfinite(dz).all() and dz[0, 0] < 0 < dz[0, 1]


@both_types
@pytest.mark.parametrize("wrong", [NAN, INF, -INF])
def test_an_unknown_label_does_not_count(backend: Backend, wrong: float, dtype: str):
    loss = xn.MultiLabelCrossEntropy(ignore_index=-1)
    value, dz = of(loss, backend, [[wrong, 0.0]], [[-1.0, 1.0]], dtype)
    assert value == pytest.approx(math.log(2), rel=1e-6) and dz.tolist() == [[0, -0.5]]


@both_types
def test_divergence_and_counts(backend: Backend, dtype: str):
    """Logarithms of probabilities that are 0, and of rates that are 0."""
    value, dy = of(xn.KullbackLeibler(), backend, [[-INF, 0.0]], [[0.0, 1.0]], dtype)
    assert value == 0 and dy.tolist() == [[0, -1]]
    value, dy = of(xn.PoissonLikelihood(), backend, [[-INF, 0.0]], [[0.0, 1.0]], dtype)
    assert value == 0.5 and dy.tolist() == [[0, 0]]


# --- a saturated sigmoid --------------------------------------------------------------------------

def sure(backend: Backend, *layers: xn.Layer) -> xn.Sequential:
    """A network of these layers for one number, with weight 1."""
    net = xn.Sequential(layers, input_shape=(1,), backend=backend)
    net.layers[0].W.data[...] = 1
    return net


def learned(net: xn.Sequential, z: float, target: float, loss: Loss) -> tuple[float, float]:
    """The loss of one sample x = z, and its gradient with respect to the bias."""
    history = net.fit(np.array([[z]]), np.array([[target]]), loss=loss, optimizer=xn.SGD(1.0),
                      verbose=False)
    return history["loss"][0], -float(net.backend.to_numpy(net.layers[0].b.data)[0])


@pytest.mark.parametrize("cpu", CPU)
@pytest.mark.parametrize("z, target", [(-20, 1), (20, 0), (-80, 1), (80, 0), (-20, 0), (20, 1),
                                       (-300, 1), (300, 0)])
def test_a_saturated_wrong_sigmoid_learns(cpu: str, z: float, target: float):
    right = abs(z) if (z > 0) != bool(target) else math.exp(-abs(z))
    slope = 0.0 if right < 1 else math.copysign(1, z)
    for loss in (xn.BinaryCrossEntropy(from_logits=False), xn.BinaryCrossEntropy()):
        value, gradient = learned(sure(on_cpu(cpu), xn.Linear(1), xn.Sigmoid()), z, target, loss)
        assert value == pytest.approx(right, rel=1e-6)
        assert gradient == pytest.approx(slope, abs=1e-8)


@pytest.mark.parametrize("cpu", CPU)
@pytest.mark.parametrize("z", [-20, -40, -80])
def test_small_probabilities_of_a_fused_sigmoid_learn(cpu: str, z: float):
    """The loss gets only the probability, with all digits down to the smallest normal number."""
    net = sure(on_cpu(cpu), xn.Linear(1, activation="sigmoid"))
    value, gradient = learned(net, z, 1, xn.BinaryCrossEntropy(from_logits=False))
    assert value == pytest.approx(-z, rel=1e-6) and gradient == pytest.approx(-1, rel=1e-6)


def test_the_loss_of_evaluate_after_a_sigmoid():
    net = sure(on_cpu("numpy"), xn.Linear(1), xn.Sigmoid())
    figures = net.evaluate([[20.0]], [[0.0]], loss=xn.BinaryCrossEntropy(from_logits=False),
                           metrics={"mean": lambda y, t: y.mean()})
    assert figures["loss"] == pytest.approx(20, rel=1e-6) and figures["mean"] == 1
