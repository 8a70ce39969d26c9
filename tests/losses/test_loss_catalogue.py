"""Losses against their formulas as plain loops, their gradients against finite differences, and
edge cases."""

from __future__ import annotations

import copy
import math
from typing import Any

import numpy as np
import pytest
from loss_cases import CASES, TARGET, W5, Y

import xpnet as xn
from xpnet.losses import Loss

TIGHT = {np.float32: 2e-6, np.float64: 1e-13}


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_value_and_gradient(name: str, dtype: Any, backend):
    case = CASES[name]
    y = np.moveaxis(Y[case.y], 0, -1).astype(dtype)
    t = np.moveaxis(case.loss.targets(TARGET[case.target], y.shape[:-1], np.dtype(dtype)), 0,
                    -1).copy()
    y.flags.writeable = t.flags.writeable = False
    loss, dy = case.loss(backend, backend.asarray(y), backend.asarray(t))
    assert loss.shape == () and dy.shape == y.shape and loss.dtype == dy.dtype == dtype
    y = y.astype(np.float64)
    assert float(loss) == pytest.approx(case.right(y, t), rel=TIGHT[dtype])
    slopes, h = np.empty(y.shape), 1e-6                         # one element after the other
    for index in np.ndindex(y.shape):
        above, below = y.copy(), y.copy()
        above[index] += h
        below[index] -= h
        slopes[index] = (case.right(above, t) - case.right(below, t)) / (2 * h)
    np.testing.assert_allclose(backend.to_numpy(dy), slopes, rtol=1e-5,
                               atol=1e-7 * max(1.0, abs(slopes).max()))


# --- losses that are not summed, and weights of samples -------------------------------------------

def reduced(loss: Loss, reduction: str) -> Loss:
    """The same loss with another reduction."""
    loss = copy.copy(loss)
    loss.reduction = reduction
    return loss


def judged(loss: Loss, name: str, dtype: Any, backend: Any, weights: Any = None,
           only: slice = slice(None)) -> tuple[Any, Any]:
    """Loss and gradient of a case, or of some of its samples, on the host."""
    case = CASES[name]
    y = np.moveaxis(Y[case.y][only], 0, -1).astype(dtype)
    t = np.moveaxis(loss.targets(TARGET[case.target][only], y.shape[:-1], np.dtype(dtype)), 0,
                    -1).copy()
    more = () if weights is None else (backend.asarray(np.asarray(weights, dtype)),)
    value, dy = loss(backend, backend.asarray(y.copy()), backend.asarray(t), *more)
    return backend.to_numpy(value), backend.to_numpy(dy)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_without_a_reduction_each_sample_has_its_own_losses(name: str, dtype: Any, backend):
    none, summed = reduced(CASES[name].loss, "none"), reduced(CASES[name].loss, "sum")
    losses, dy = judged(none, name, dtype, backend)
    total, same = judged(summed, name, dtype, backend)
    samples = len(Y[CASES[name].y])
    assert losses.shape[-1] == samples and losses.dtype == dtype
    assert losses.sum() == pytest.approx(float(total), rel=2 * TIGHT[dtype])
    np.testing.assert_allclose(dy, same, rtol=10 * TIGHT[dtype], atol=10 * TIGHT[dtype])
    for n in range(samples):  # the loss of each sample in a batch of one
        alone, _ = judged(summed, name, dtype, backend, only=slice(n, n + 1))
        assert losses[..., n].sum() == pytest.approx(float(alone), rel=4 * TIGHT[dtype], abs=1e-30)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("name", CASES)
def test_weights_of_samples_multiply_their_losses(name: str, dtype: Any, backend):
    """They are not part of the divisor."""
    weights = np.array([1.0, 0.0, 2.5, 0.5, 3.0, 0.25])
    losses, slopes = judged(reduced(CASES[name].loss, "none"), name, dtype, backend)
    expected, slopes = (losses * weights).astype(np.float64), slopes * weights
    every, plain = (float(judged(reduced(CASES[name].loss, kind), name, dtype, backend)[0])
                    for kind in ("sum", "mean"))
    batch = [("batchmean", len(weights))] if CASES[name].loss.reduction == "batchmean" else []
    for kind, divisor in (("none", 1.0), ("sum", 1.0), ("mean", every / plain), *batch):
        loss, dy = judged(reduced(CASES[name].loss, kind), name, dtype, backend, weights)
        right = expected if kind == "none" else expected.sum() / divisor
        np.testing.assert_allclose(loss, right, rtol=8 * TIGHT[dtype])
        np.testing.assert_allclose(dy, slopes / divisor, rtol=20 * TIGHT[dtype],
                                   atol=20 * TIGHT[dtype])


def test_a_sample_of_weight_0_may_be_infinite(backend):
    y, weights = backend.asarray(np.array([[np.inf, 1.0]])), backend.asarray(np.array([0.0, 1.0]))
    for loss in (xn.MeanSquaredError(), xn.Huber(), xn.MeanAbsoluteError()):
        value, dy = loss(backend, y, backend.asarray(np.zeros((1, 2))), weights)
        assert np.isfinite(float(value)) and backend.to_numpy(dy)[0, 0] == 0


@pytest.mark.parametrize("reduce", ["fit", "evaluate"])
def test_training_needs_one_number(reduce):
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend="numpy")
    more = {"optimizer": xn.SGD(0.1)} if reduce == "fit" else {}
    with pytest.raises(ValueError,
                       match="MeanSquaredError: expected reduction 'mean', 'batchmean' or 'sum', "
                             "for training and evaluation. Received: reduction='none'"):
        getattr(net, reduce)(np.zeros((4, 3)), np.zeros((4, 2)),
                             loss=xn.MeanSquaredError(reduction="none"), **more)


# --- edge cases -----------------------------------------------------------------------------------

def of(loss: Loss, y: Any, target: Any, backend: Any = None, dtype: Any = np.float64
       ) -> tuple[float, list[Any]]:
    """Loss and gradient for batch-first lists, batch-first."""
    backend = backend or xn.Backend()
    y = np.array(y, dtype)
    goal = np.moveaxis(loss.targets(target, y.shape[1:], np.dtype(dtype)), 0, -1).copy()
    value, dy = loss(backend, backend.asarray(np.moveaxis(y, 0, -1).copy()), backend.asarray(goal))
    return float(value), np.moveaxis(backend.to_numpy(dy), -1, 0).tolist()


def test_gradients_at_kinks_are_those_of_pytorch():
    assert of(xn.MeanAbsoluteError(), [[0.0, 1.0]], [[0.0, 0.0]]) == (0.5, [[0.0, 0.5]])
    assert of(xn.Huber(2.0), [[2.0, -2.0]], [[0.0, 0.0]]) == (2.0, [[1.0, -1.0]])
    assert of(xn.Hinge(), [[1.0, -1.0]], [[1, -1]]) == (0.0, [[0.0, 0.0]])  # on the margin
    assert of(xn.CrammerSingerHinge(), [[1.0, 0.0, 0.0]], [0]) == (0.0, [[0.0, 0.0, 0.0]])
    # the first of two rivals
    assert of(xn.CrammerSingerHinge(), [[0.0, 3.0, 3.0]], [0]) == (4.0, [[-1.0, 1.0, 0.0]])
    assert of(xn.WestonWatkinsHinge(), [[1.0, 0.0, 0.0]], [0]) == (0.0, [[0.0, 0.0, 0.0]])


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_arguments(dtype, backend):
    """No warning, no NaN, and the right number although the terms overflow."""
    far = float(dtype(1e30))
    assert of(xn.LogCosh(reduction="sum"), [[far, -far]], [[0.0, 0.0]], backend,
              dtype) == (2 * far, [[1.0, -1.0]])
    assert of(xn.BinaryCrossEntropy(), [[far, -far]], [[1.0, 0.0]], backend,
              dtype) == (0.0, [[0.0, 0.0]])
    assert of(xn.BinaryCrossEntropy(), [[far, -far]], [[0.0, 1.0]], backend,
              dtype) == (far, [[0.5, -0.5]])
    assert of(xn.MultiLabelCrossEntropy(ignore_index=-1), [[far, -far]], [[-1, 1]], backend,
              dtype) == (far, [[0.0, -1.0]])
    assert of(xn.FocalCrossEntropy(), [[far, -far]], [[1.0, 0.0]], backend,
              dtype) == (0.0, [[0.0, 0.0]])
    assert of(xn.FocalCrossEntropy(0.5), [[far, -far]], [[0.0, 1.0]], backend,
              dtype) == (far / 2, [[0.25, -0.25]])
    assert of(xn.Huber(), [[far]], [[0.0]], backend, dtype) == (far, [[1.0]])
    assert of(xn.SmoothL1(), [[-far]], [[0.0]], backend, dtype) == (far, [[-1.0]])


def test_log_cosh_of_small_errors_is_accurate():
    for error in (1e-9, 1e-4, 0.999999, 1.000001):
        exact = math.log1p(2 * math.sinh(error / 2) ** 2)
        assert of(xn.LogCosh(), [[error]], [[0.0]])[0] == pytest.approx(exact, rel=1e-14, abs=0)


def test_certain_and_wrong_probabilities_stay_finite(backend):
    loss, dy = of(xn.BinaryCrossEntropy(from_logits=False), [[0.0, 1.0, 0.0, 1.0]], [[0, 1, 1, 0]],
                  backend)
    assert loss == 50.0 and dy[0] == pytest.approx([0.0, 0.0, -0.25e12, 0.25e12])
    loss, dy = of(xn.BinaryCrossEntropy(from_logits=False), [[math.nan]], [[1]], backend)
    assert math.isnan(loss) and math.isnan(dy[0][0])


def test_hellinger_at_zero(backend):
    loss, dy = of(xn.Hellinger(), [[1.0, 0.0]], [[1.0, 0.0]], backend)
    assert (loss, dy) == (0.0, [[0.0, 0.5]])  # a probability of 0, and a target of 0
    loss, dy = of(xn.Hellinger(), [[0.0, 1.0], [-0.1, 1.1]], [0, 1], backend)
    assert loss == pytest.approx((1 + (math.sqrt(1.1) - 1) ** 2 / 2) / 2)
    assert dy[0] == pytest.approx([0.25 * (1 - math.sqrt(1e7)), 0.25])


def test_likelihood_of_impossible_classes(backend):
    loss, dy = of(xn.NegativeLogLikelihood(), [[0.0, -math.inf], [-math.inf, 0.0]], [0, 1], backend)
    assert loss == 0 and dy == [[-0.5, 0.0], [0.0, -0.5]]
    assert of(xn.NegativeLogLikelihood(), [[0.0, -math.inf]], [1], backend)[0] == math.inf


@pytest.mark.parametrize("loss, y, target", [
    (xn.CrossEntropy(ignore_index=9), [[1.0, 2.0]] * 2, [9, 9]),
    (xn.CrossEntropy(weight=[1, 2], ignore_index=9), [[1.0, 2.0]], [9]),
    (xn.NegativeLogLikelihood(ignore_index=0), [[1.0, 2.0]], [0]),
    (xn.MultiLabelCrossEntropy(ignore_index=-1), [[1.0, 2.0]], [[-1, -1]]),
    (xn.CrossEntropy(weight=[0, 2]), [[1.0, 2.0]], [0]),
    (xn.NegativeLogLikelihood(weight=[0, 2]), [[1.0, 2.0]] * 2, [0, 0]),
    (xn.CrossEntropy(weight=[0, 0], label_smoothing=0.1), [[1.0, 2.0]], [1]),
    (xn.CrossEntropy(weight=[0, 1]), [[1.0, 2.0]], [[1.0, 0.0]]),
    (xn.CrossEntropy(), [[1.0, 2.0]], [[0.0, 0.0]]),
    (xn.MultiLabelCrossEntropy(weight=[0, 0]), [[1.0, 2.0]], [[1, 0]]),
    (xn.Dice(ignore_index=7), [[[[0.2]], [[0.8]]]], [[[7]]]),
    (xn.Jaccard(ignore_index=7), [[[[0.2]], [[0.8]]]], [[[7]]]),
], ids=lambda value: type(value).__name__ if isinstance(value, Loss) else "")
def test_all_samples_are_ignored(loss, y, target, backend):
    value, dy = of(loss, y, target, backend)
    assert value == 0 and not np.any(dy)


def test_targets_that_do_not_sum_to_one_weight_their_sample(backend):
    """Class probabilities times two double the sample's part of the loss; probabilities of 0 remove
    it."""
    z, shares = Y["numbers"], Y["shares"]
    once, twice = (of(xn.CrossEntropy(), z, factor * shares, backend) for factor in (1, 2))
    assert twice[0] == pytest.approx(2 * once[0]) and np.allclose(twice[1], 2 * np.array(once[1]))
    softmax = np.exp(z) / np.exp(z).sum(axis=1, keepdims=True)
    t = TARGET["amounts"]
    expected = (softmax * t.sum(axis=1, keepdims=True) - t) / len(z)
    np.testing.assert_allclose(of(xn.CrossEntropy(), z, t, backend)[1], expected, rtol=1e-12,
                               atol=1e-15)


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_a_class_of_weight_0_is_not_learned(backend, dtype):
    """Batches with only that class leave the network unchanged and finite."""
    net = xn.Sequential([xn.Linear(3)], input_shape=(4,), backend=backend, dtype=dtype)
    x, before = np.ones((6, 4)), backend.to_numpy(net.parameters).copy()
    loss = xn.CrossEntropy(weight=[1, 0, 2])
    history = net.fit(x, np.ones(6, int), loss=loss, optimizer=xn.SGD(0.1), batch_size=3,
                      verbose=False)
    assert history["loss"] == [0.0]
    assert np.array_equal(backend.to_numpy(net.parameters), before)


def test_a_class_that_is_neither_in_the_targets_nor_predicted():
    y = [[[[0.0, 0.0]], [[1.0, 1.0]]]]
    for loss in (xn.Dice(), xn.Jaccard()):
        assert of(loss, y, [[[1, 1]]])[0] == 0


def test_labels_are_masks_of_classes():
    y, labels = Y["shares map"], TARGET["label map"]
    masks = np.moveaxis(np.eye(5)[labels], -1, 1)
    for loss in (xn.Dice(), xn.Jaccard(), xn.CrossEntropy(), xn.Hellinger(),
                 xn.NegativeLogLikelihood()):
        assert of(loss, y, labels) == of(loss, y, masks)


def test_cross_entropy_is_log_softmax_and_its_likelihood():
    y, labels = Y["map"], TARGET["some label map"]
    log_p = y - np.log(np.exp(y).sum(axis=1, keepdims=True))
    both = (kind(weight=W5, ignore_index=-1)
            for kind in (xn.CrossEntropy, xn.NegativeLogLikelihood))
    (a, _), (b, _) = (of(loss, given, labels) for loss, given in zip(both, (y, log_p), strict=True))
    assert a == pytest.approx(b, rel=1e-14)


def test_penalties_far_above_the_bound_are_left_alone():
    """LeCun et al. 1998, section II.C: without a bound, penalties would grow forever."""
    rivals = [[0.0, -50.0, -900.0]]
    assert of(xn.BoundedCrossEntropy(10.0), rivals,
              [0])[1][0][1:] == pytest.approx([0.0, 0.0], abs=1e-20)
    far, near = of(xn.BoundedCrossEntropy(1e9), [[-50.0, -50.0]],
                   [0]), of(xn.BoundedCrossEntropy(1.0), [[-50.0, -50.0]], [0])
    assert far == of(xn.CrossEntropy(), [[-50.0, -50.0]], [0])  # a large bound has no effect
    assert near[0] == pytest.approx(49) and near[1][0] == pytest.approx([-1.0, 0.0], abs=1e-20)


def test_divergence_is_least_where_the_two_agree():
    shares = Y["shares"]
    loss, dy = of(xn.KullbackLeibler(), np.log(shares), shares)
    assert loss == pytest.approx(0, abs=1e-16)
    assert of(xn.KullbackLeibler(), [[-math.inf, 0.0]], [[0.0, 1.0]]) == (0.0, [[0.0, -1.0]])
    assert of(xn.KullbackLeibler(), Y["logs"], shares)[0] > 0.01


def test_binary_cross_entropy_is_that_of_two_classes():
    z, yes = np.linspace(-4, 4, 9), np.arange(9) % 2
    two = of(xn.CrossEntropy(), np.stack([0 * z, z], axis=1), yes)
    one = of(xn.BinaryCrossEntropy(), z[:, None], yes)
    assert one[0] == pytest.approx(two[0], rel=1e-14)
    np.testing.assert_allclose(np.ravel(one[1]), np.array(two[1])[:, 1], rtol=1e-14)
