"""Landmarks: soft argmax, targets, heat maps, and how far points are off."""

from __future__ import annotations

import math
from pathlib import Path

import numpy as np
import pytest
from gpu_cases import check_captured

import xpnet as xn
from xpnet import vision
from xpnet.data.shapes import JOINTS

RNG = np.random.default_rng(0)


def soft_argmax(x: np.ndarray, beta: float) -> list[float]:
    """x and y of one map (H, W), as a loop."""
    H, W = x.shape
    weights = {(i, j): math.exp(beta * x[i, j]) for i in range(H) for j in range(W)}
    total = sum(weights.values())
    return [sum(w * (j + 0.5) / W for (_, j), w in weights.items()) / total,
            sum(w * (i + 0.5) / H for (i, _), w in weights.items()) / total]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_soft_argmax(dtype, plain_backend):
    """Its gradient is checked in the catalogue's tests."""
    x = RNG.normal(0, 2, (3, 4, 5, 2)).astype(dtype)
    layer = xn.SoftArgmax2d(0.7).initialize((3, 4, 5), backend=plain_backend, dtype=dtype)
    x.flags.writeable = False
    found = plain_backend.to_numpy(layer.forward(plain_backend.asarray(x)))
    expected = [[soft_argmax(x[m, ..., n].astype(float), 0.7) for n in range(2)] for m in range(3)]
    expected = np.moveaxis(expected, 1, 2).reshape(6, 2)
    np.testing.assert_allclose(found, expected, rtol=1e-5 if dtype == "float32" else 1e-13)
    assert found.dtype == dtype


def test_soft_argmax_of_a_sharp_peak_and_of_large_numbers():
    x = np.zeros((1, 4, 10, 1))
    x[0, 3, 2] = 1000
    layer = xn.SoftArgmax2d().initialize((1, 4, 10), backend="numpy", dtype="float64")
    np.testing.assert_allclose(layer.forward(x).ravel(), [0.25, 0.875], rtol=1e-14)
    np.testing.assert_allclose(layer.forward(0 * x).ravel(), [0.5, 0.5], rtol=1e-14)
    with pytest.raises(ValueError, match="SoftArgmax2d: expected beta to be a number above 0"):
        xn.SoftArgmax2d(0)


def test_points_there_and_back():
    points = np.concatenate([RNG.uniform(0, 30, (4, 5, 2)), RNG.integers(0, 3, (4, 5, 1))], axis=2)
    targets = vision.landmark_targets(points, (30, 60))
    assert np.array_equal(targets[..., 2], points[..., 2] > 0)
    np.testing.assert_allclose(targets[..., :2], points[..., :2] / [60, 30], rtol=1e-14)
    y = targets[..., :2].reshape(4, 10)
    np.testing.assert_allclose(vision.landmark_points(y, (30, 60)), points[..., :2], rtol=1e-13)
    assert vision.landmark_targets(points[..., :2], (30, 60))[..., 2].all()


def test_heat_maps_are_bells_around_the_points():
    """The place of the largest position is at most half a position away."""
    points = np.ones((3, 2, 3))
    points[..., :2] = RNG.uniform(0, 40, (3, 2, 2))
    points[1, 1, 2] = 0
    maps = vision.heatmaps(vision.landmark_targets(points, (40, 40)), (10, 20), sigma=1.5)
    assert maps.shape == (3, 2, 10, 20) and not maps[1, 1].any()
    for n, m in np.argwhere(points[..., 2] > 0):
        x, y = points[n, m, 0] / 2, points[n, m, 1] / 4
        for i, j in ((0, 0), (5, 13), (9, 19)):
            d = math.dist((x, y), (j + 0.5, i + 0.5))
            assert maps[n, m, i, j] == pytest.approx(math.exp(-d * d / 4.5), rel=1e-9)
    places = vision.landmark_points(maps, (40, 40))
    off = abs(places - points[..., :2])[points[..., 2] > 0]
    assert (off <= [1 + 1e-9, 2 + 1e-9]).all()


def test_how_far_points_are_off():
    y = np.array([[[0.0, 0], [3, 4]], [[10, 10], [0, 0]]])
    target = np.array([[[0.0, 0, 1], [0, 0, 2]], [[10, 16, 1], [50, 50, 0]]])
    assert vision.normalized_mean_error(y, target, 2.0) == pytest.approx((0 + 5 + 6) / 3 / 2)
    assert vision.normalized_mean_error(y, target, [1, 2]) == pytest.approx((0 + 5 + 3) / 3)
    assert vision.pck(y, target, 10, threshold=0.5) == pytest.approx(2 / 3)     # 5 is just right
    assert vision.pck(y, target, 10, threshold=0.4) == pytest.approx(1 / 3)
    assert np.isnan(vision.pck(y, 0 * target, 10))
    for length in (0, [1, 2, 3], -1, None):
        with pytest.raises(ValueError, match="pck: expected length to be a number above 0"):
            vision.pck(y, target, length)


def test_what_is_not_known_changes_nothing():
    """Neither the loss nor the gradient, whatever place the target names."""
    loss, y = xn.Landmarks(), RNG.normal(0, 1, (4, 3))
    points = np.concatenate([RNG.random((3, 2, 2)), [[[1], [0]]] * 3], axis=2)
    other = points.copy()
    other[:, 1, :2] = 77
    values = []
    for rows in (points, other):
        t = np.moveaxis(loss.targets(rows, (4,), y.dtype), 0, -1)
        value, dy = loss(xn.Backend(), y, t)
        values.append(float(value))
        assert not dy[2:].any() and dy[:2].all()
    assert values[0] == values[1]
    assert not xn.HeatMaps().targets([[[1e30, 5, 0]]], (1, 3, 4), np.dtype("f4")).any()
    points = xn.HeatMaps().targets([[[0, 0, 2], [1, 1, 0], [1, 0, 1]]], (3, 4, 5), np.dtype("f8"))
    assert xn.HeatMaps().divisors(points, (3, 4, 5)).tolist() == [2 * 4 * 5]


@pytest.mark.parametrize("loss, shape, rows, message", [
    (xn.Landmarks(), (3,), np.ones((1, 1, 3)), "2 M outputs, x and y of each point. Received: out"),
    (xn.Landmarks(), (4,), np.ones((1, 2, 2)), r"targets of shape \(N, 2, 3\): x, y and a "
     r"mark of 2 points, as vision.landmark_targets makes them. Received: shape \(1, 2, 2\)"),
    (xn.Landmarks(), (2,), [[[0, 0, -1]]], "marks of 0 for points that are not known"),
    (xn.HeatMaps(), (4,), np.ones((1, 2, 3)), r"output is \(points, height, width\)"),
    (xn.HeatMaps(), (2, 3, 3), np.ones((1, 3, 3)), r"targets of shape \(N, 2, 3\)"),
])
def test_targets_that_are_refused(loss, shape, rows, message):
    with pytest.raises(ValueError, match=f"{type(loss).__name__}: expected .*{message}"):
        loss.targets(rows, shape, np.dtype("f8"))


def test_joints_of_stick_figures_lie_on_their_sticks():
    found = xn.data.stick_figures(20, 48, noise=0, hidden=0.5, seed=2)
    assert found.images.shape == (20, 1, 48, 48) and found.points.shape == (20, len(JOINTS), 3)
    known = found.points[..., 2] > 0
    assert known[:, [0, 1, 4]].all() and 0.3 < known[:, [2, 3, 5, 6]].mean() < 0.7
    for image, points in zip(found.images[:, 0], found.points):
        for x, y, mark in points:
            near = image[max(0, int(y) - 1):int(y) + 2, max(0, int(x) - 1):int(x) + 2]
            assert near.max() > 0.5 or not mark


@pytest.mark.parametrize("soft", [False, True])
def test_captured_steps_are_the_same(soft, folder: Path):
    x = RNG.random((16, 1, 6, 5))
    rows = np.concatenate([RNG.random((16, 2, 2)), RNG.integers(0, 2, (16, 2, 1))], axis=2)
    check_captured(folder, lambda backend: xn.Sequential(
        [xn.Conv2d(2, 3), *([xn.SoftArgmax2d(4.0)] if soft else [])], input_shape=(1, 6, 5),
        backend=backend, seed=2), x, rows, xn.Landmarks() if soft else xn.HeatMaps())


def test_groups_of_batches_are_one_batch():
    """Samples with different numbers of known points, two batches for each update."""
    rows = np.concatenate([RNG.random((8, 2, 2)), RNG.integers(0, 2, (8, 2, 1))], axis=2)
    x = RNG.random((8, 3))
    nets = [xn.Sequential([xn.Linear(4)], input_shape=(3,), backend="numpy", dtype="float64")
            for _ in range(2)]
    for net, more in zip(nets, ({"batch_size": 8}, {"batch_size": 2, "accumulate": 4})):
        net.fit(x, rows, loss=xn.Landmarks(), optimizer=xn.SGD(0.5), shuffle=False, verbose=False,
                **more)
    np.testing.assert_allclose(nets[0].parameters, nets[1].parameters, rtol=1e-12)
