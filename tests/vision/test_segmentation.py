"""Weights of the pixels at the borders of objects, and training with them."""

from __future__ import annotations

import math

import numpy as np
import pytest

import xpnet as xn
from xpnet import vision
from xpnet.vision.segmentation import distance_from


def blobs(seed: int = 0) -> np.ndarray:
    """An image without objects, one with one, and one with three, two of which touch."""
    objects = np.zeros((3, 11, 14), int)
    objects[1, 2:7, 3:9] = 4
    objects[2, 1:6, 1:5], objects[2, 3:9, 5:8], objects[2, 2:4, 10:13] = 1, 2, 9
    return objects


def test_distances_are_those_of_all_pairs():
    mask = np.random.default_rng(0).random((9, 13)) < 0.05
    places = np.argwhere(mask)
    expected = [[min(math.dist((i, j), place) for place in places) for j in range(13)]
                for i in range(9)]
    np.testing.assert_allclose(distance_from(mask), expected, rtol=1e-14)
    assert np.isinf(distance_from(np.zeros((2, 3), bool))).all()


@pytest.mark.parametrize("balanced", [False, True])
def test_weights_by_the_formula(balanced):
    objects = blobs()
    found = vision.boundary_weights(objects, w0=7.0, sigma=2.0, balanced=balanced)
    share = (objects > 0).mean()
    for n, i, j in np.ndindex(objects.shape):
        image, own = objects[n], objects[n, i, j]
        distances = []
        for number in set(image.ravel().tolist()) - {0}:
            other = np.argwhere(image != number if own == number else image == number)
            distances.append(min(math.dist((i, j), place) for place in other))
        weight = 1.0 if not balanced else 0.5 / share if own else 0.5 / (1 - share)
        if len(distances) > 1:
            d1, d2 = sorted(distances)[:2]
            weight += 7 * math.exp(-(d1 + d2) ** 2 / 8)
        assert found[n, i, j] == pytest.approx(weight, rel=1e-12), (n, i, j)


def test_the_gap_between_two_objects_weighs_most():
    objects = np.zeros((1, 9, 15), int)
    objects[0, 2:7, 1:6], objects[0, 2:7, 7:12] = 1, 2
    weights = vision.boundary_weights(objects, balanced=False)[0]
    assert weights.max() == weights[4, 6] > weights[4, 13] > 1


@pytest.mark.parametrize("objects, message", [
    (np.zeros((3, 4)), r"objects of shape \(N, H, W\). Received: shape \(3, 4\)"),
    (np.full((1, 2, 2), 0.5), "objects to be whole numbers, 0 or larger. Received: values "
                              "from 0.5 to 0.5"),
    (np.full((1, 2, 2), -1), "objects to be whole numbers, 0 or larger"),
])
def test_objects_that_are_refused(objects, message):
    with pytest.raises(ValueError, match=f"boundary_weights: expected {message}"):
        vision.boundary_weights(objects)


def test_cross_entropy_with_weights_of_one_is_cross_entropy():
    rng = np.random.default_rng(0)
    z, labels = rng.normal(0, 2, (3, 4, 5, 2)), rng.integers(0, 3, (2, 4, 5))
    rows = np.stack([labels, np.ones(labels.shape)], axis=1)
    both = []
    for loss, target in ((xn.CrossEntropy(), labels), (xn.WeightedCrossEntropy(), rows)):
        t = np.ascontiguousarray(np.moveaxis(loss.targets(target, (3, 4, 5), z.dtype), 0, -1))
        both.append(loss(xn.Backend(), z, t))
    assert float(both[0][0]) == pytest.approx(float(both[1][0]), rel=1e-14)
    np.testing.assert_allclose(both[0][1], both[1][1], atol=1e-15)


@pytest.mark.parametrize("target, message", [
    (np.zeros((1, 4, 5)), r"labels and weights of shape \(N, 2, 4, 5\)"),
    (np.full((1, 2, 4, 5), -1), "weights, 0 or larger. Received: -1 among them"),
    (np.full((1, 2, 4, 5), 3), "labels from 0 to 2"),
])
def test_weighted_targets_that_are_refused(target, message):
    with pytest.raises(ValueError, match=f"WeightedCrossEntropy: expected {message}"):
        xn.WeightedCrossEntropy().targets(target, (3, 4, 5), np.dtype("f4"))


def test_training_with_weights():
    """A last Softmax layer is part of the loss, as for CrossEntropy."""
    drawn = xn.data.shapes(8, 16, radius=(3, 5), seed=0)
    y = np.stack([drawn.classes, vision.boundary_weights(drawn.classes)], axis=1)
    net = xn.Sequential([xn.Conv2d(8, 3, padding="half", activation="relu"), xn.Conv2d(4, 1),
                         xn.Softmax()], input_shape=(1, 16, 16), backend="numpy")
    history = net.fit(drawn.images, y, loss=xn.WeightedCrossEntropy(), optimizer=xn.Adam(0.02),
                      epochs=20, verbose=False)
    assert history["loss"][-1] < 0.8 * history["loss"][0]
