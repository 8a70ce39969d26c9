"""The losses of detectors against loops, term by term, with gradients in float64 on every
backend."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from detection_cases import anchored, yolo1
from gpu_cases import check_captured, pretended
from tiers import first

import xpnet as xn

ANCHORS = [(0.15, 0.2), (0.3, 0.25), (0.5, 0.7)]
N, K = 3, 2
# The second sample has two objects in one cell, one at the right edge, and one too few; the third
# has none.
ROWS = np.array([
    [[0, 0.3, 0.4, 0.2, 0.3], [1, 0.7, 0.6, 0.6, 0.5], [1, 0.1, 0.9, 0.2, 0.1]],
    [[1, 0.35, 0.2, 0.3, 0.3], [0, 0.36, 0.21, 0.31, 0.29], [-1, 0, 0, 0, 0]],
    [[-1, 0, 0, 0, 0]] * 3])
ROWS[1, 2] = 0, 1.0, 0.5, 0.4, 0.9

CASES: dict[str, tuple[Any, Callable[..., Any]]] = {
    "v1": (xn.YOLOv1(K), lambda y, fixed: yolo1(y, ROWS, 2, K, fixed=fixed)),
    "v1 of one box": (xn.YOLOv1(["a", "b"], 1, lambda_coord=2, lambda_noobj=0.25, rescore=False),
                      lambda y, fixed: yolo1(y, ROWS, 1, K, 2, 0.25, False, fixed)),
    "v2": (xn.YOLOv2(ANCHORS, K),
           lambda y, fixed: anchored(2, y, ROWS, ANCHORS, K, None, (1, 5, 1, 1), 0.6, fixed=fixed)),
    "v2 factors": (xn.YOLOv2(ANCHORS, K, lambda_coord=2, lambda_obj=3, lambda_noobj=0.5,
                             lambda_class=4, threshold=0.2, rescore=False),
                   lambda y, fixed: anchored(2, y, ROWS, ANCHORS, K, None, (2, 3, 0.5, 4), 0.2,
                                             False, fixed)),
    "v3": (xn.YOLOv3(np.array(ANCHORS), K),
           lambda y, fixed: anchored(3, y, ROWS, ANCHORS, K, fixed=fixed)),
    "v3 mask": (xn.YOLOv3(ANCHORS, K, mask=[2, 0], lambda_coord=2, lambda_obj=3, lambda_noobj=0.5,
                          lambda_class=4, threshold=0.1),
                lambda y, fixed: anchored(3, y, ROWS, ANCHORS, K, [2, 0], (2, 3, 0.5, 4), 0.1,
                                          fixed=fixed)),
    "v4 mask": (xn.YOLOv3(ANCHORS, K, mask=[2, 0], scale_xy=1.2, lambda_coord=2),
                lambda y, fixed: anchored(3, y, ROWS, ANCHORS, K, [2, 0], (2, 1, 1, 1),
                                          scale_xy=1.2, fixed=fixed))}


def output(loss: Any, seed: int = 0) -> np.ndarray:
    return np.random.default_rng(seed).normal(0.2, 0.6, (loss.channels, 2, 3, N))


def goal(loss: Any, y: np.ndarray, rows: np.ndarray = ROWS) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(loss.targets(rows, y.shape[:-1], y.dtype), 0, -1))


@pytest.mark.parametrize("name", first(CASES, "v1", "v2", "v4 mask"))
def test_every_term_and_the_gradient(name, plain_backend):
    loss, right = CASES[name]
    y = output(loss)
    t = goal(loss, y)
    y.flags.writeable = t.flags.writeable = False
    expected, used = right(y, None)
    found, dy = loss.parts(plain_backend, plain_backend.asarray(y), plain_backend.asarray(t))
    assert {*found} == {*expected}
    for term, value in expected.items():
        assert float(found[term].sum()) == pytest.approx(value, rel=1e-12), term
        assert found[term].shape == (N,)
    value, mean = loss(plain_backend, plain_backend.asarray(y), plain_backend.asarray(t))
    assert float(value) == pytest.approx(sum(expected.values()) / N, rel=1e-12)
    dy = plain_backend.to_numpy(dy)
    np.testing.assert_allclose(plain_backend.to_numpy(mean) * N, dy, rtol=1e-12)
    slopes, h = np.empty(y.shape), 1e-6         # IoUs are constants in the gradient
    for index in np.ndindex(y.shape):
        ends = [y.copy(), y.copy()]
        ends[0][index] += h
        ends[1][index] -= h
        above, below = (sum(right(end, used)[0].values()) for end in ends)
        slopes[index] = (above - below) / (2 * h)
    np.testing.assert_allclose(dy, slopes, rtol=1e-6, atol=1e-7)


@pytest.mark.parametrize("name", CASES)
def test_float32(name, plain_backend):
    """The same numbers up to rounding, and the dtype stays."""
    loss, _ = CASES[name]
    y = output(loss).astype(np.float32)
    value, dy = loss(plain_backend, plain_backend.asarray(y), plain_backend.asarray(goal(loss, y)))
    assert value.dtype == dy.dtype == np.float32 and value.shape == ()
    y = y.astype(np.float64)
    right, slopes = loss(xn.Backend(), y, goal(loss, y))
    assert float(value) == pytest.approx(float(right), rel=1e-5)
    np.testing.assert_allclose(plain_backend.to_numpy(dy), slopes, rtol=1e-4, atol=1e-5)


def test_reductions_and_sample_weights(plain_backend):
    for loss, _ in CASES.values():
        y = output(loss)
        t, y = plain_backend.asarray(goal(loss, y)), plain_backend.asarray(y)
        parts = {}
        for reduction in ("none", "sum", "mean"):
            loss.reduction = reduction
            parts[reduction] = [plain_backend.to_numpy(a) for a in loss(plain_backend, y, t)]
        weights = np.array([2.0, 0.0, 0.5])
        value, dy = loss(plain_backend, y, t, plain_backend.asarray(weights))
        assert parts["none"][0].shape == (N,)
        assert parts["none"][0].sum() == pytest.approx(parts["sum"][0], rel=1e-12)
        assert parts["sum"][0] == pytest.approx(N * parts["mean"][0], rel=1e-12)
        assert float(value) == pytest.approx((weights * parts["none"][0]).sum() / N, rel=1e-12)
        np.testing.assert_allclose(plain_backend.to_numpy(dy), weights * parts["mean"][1],
                                   rtol=1e-12)


def test_on_an_emulated_gpu(folder: Path):
    """The array code runs with CuPy's functions, and gives the same numbers."""
    with pretended(folder) as (gpu, _), gpu.scope():
        for loss, _ in CASES.values():
            y = output(loss).astype(np.float32)
            t = goal(loss, y)
            found, right = loss(gpu, gpu.asarray(y), gpu.asarray(t)), loss(xn.Backend(), y, t)
            for a, b in zip(found, right, strict=True):
                np.testing.assert_allclose(gpu.to_numpy(a), b, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", first(CASES, "v1", "v4 mask"))
def test_captured_steps_are_the_same(name, folder: Path):
    loss, _ = CASES[name]
    x, rows = np.random.default_rng(1).random((24, 2, 2, 3)), np.concatenate(8 * [ROWS])
    check_captured(folder, lambda backend: xn.Sequential(
        [xn.Conv2d(loss.channels, 1)], input_shape=(2, 2, 3), backend=backend, seed=2), x, rows,
        loss)


# --- the responsible predictor --------------------------------------------------------------------

def test_the_predictor_with_the_largest_iou_is_responsible(plain_backend):
    """The second box of the only cell fits, so that it alone is moved, and the first one's
    confidence goes down."""
    loss = xn.YOLOv1(1, 2)
    y = np.array([0.5, 0.5, 0.5, 0.5, 0.8, 0.4, 0.5, 0.7, 0.6, 0.3, 0.9]).reshape(11, 1, 1, 1)
    t = goal(loss, y, np.array([[[0, 0.5, 0.5, 0.5, 0.4]]]))
    found, dy = loss.parts(plain_backend, plain_backend.asarray(y), plain_backend.asarray(t))
    inter = (0.4 + 0.49 / 2 - 0.25) * 0.36      # from 0.25 to 0.645, and 0.36 of the height 0.4
    overlap = inter / (0.5 * 0.4 + 0.49 * 0.36 - inter)
    expected = [0, 0, 0, 0, 2 * 0.5 * 0.8, 2 * 5 * (0.4 - 0.5), 0, 2 * 5 * (0.7 - 0.5**0.5),
                2 * 5 * (0.6 - 0.4**0.5), 2 * (0.3 - overlap), 2 * (0.9 - 1)]
    np.testing.assert_allclose(plain_backend.to_numpy(dy).ravel(), expected, atol=1e-12)
    assert float(found["class"][0]) == pytest.approx(0.01)


@pytest.mark.parametrize("sizes, responsible", [((0.0, 0.0), 0), ((0.0, -0.01), 1),
                                                ((-0.01, 0.0), 0)])
def test_without_any_overlap_the_nearest_is_responsible(sizes, responsible, plain_backend):
    """The first one if all are equally near. Both boxes are empty or beside the object."""
    y, on = np.zeros((11, 2, 2, 1)), plain_backend.asarray
    y[2], y[3] = sizes[0], sizes[0]
    y[7], y[8] = sizes[1], sizes[1]
    loss = xn.YOLOv1(1, 2)
    t = goal(loss, y, np.array([[[0, 0.3, 0.3, 0.1, 0.1]]]))
    dy = plain_backend.to_numpy(loss.parts(plain_backend, on(y), on(t))[1])
    moved = [bool(np.any(dy[5 * b:5 * b + 4])) for b in (0, 1)]
    assert moved == [responsible == 0, responsible == 1]


def test_best_of_takes_the_first_of_equal():
    from xpnet.losses.detection import best_of
    score = np.array([[1.0, 2.0, 0.0], [1.0, 3.0, -1.0], [0.0, 3.0, 0.0]])
    assert best_of(np, score).tolist() == [[1, 0, 1], [0, 1, 0], [0, 0, 0]]


# --- centres beyond the edges of a cell -----------------------------------------------------------

def test_with_a_scale_a_centre_on_the_edge_of_its_cell_is_reached(plain_backend):
    """dy of t_x and t_y is 2 - w h times the difference of the places, and 0 where a s(t_x) - (a -
    1) / 2 = 1, at t_x = log(2 a / (a - 1) - 1)."""
    loss, on = xn.YOLOv3([(0.4, 0.9)], 1, scale_xy=1.1), plain_backend.asarray
    y = np.zeros((loss.channels, 1, 1, 2))
    y[0, ..., 0], y[1, ..., 0] = math.log(21), -math.log(21)        # 2.2 / 0.1 - 1
    y[:2, ..., 1] = 0.3
    rows = np.array([[[0, 1, 0, 0.4, 0.9]], [[0, 0.25, 0.75, 0.4, 0.9]]])
    p = loss.predictions(np, y)
    np.testing.assert_allclose(p.boxes[:, 0, 0, 0, 0], [0.8, -0.45, 1.2, 0.45], atol=1e-12)
    dy = plain_backend.to_numpy(loss.parts(plain_backend, on(y), on(goal(loss, y, rows)))[1])
    np.testing.assert_allclose(dy[:2, 0, 0, 0], 0, atol=1e-12)
    here = 1.1 / (1 + math.exp(-0.3)) - 0.05
    np.testing.assert_allclose(dy[:2, 0, 0, 1], [(2 - 0.36) * (here - 0.25),
                                                 (2 - 0.36) * (here - 0.75)], rtol=1e-12)


# --- targets and predictions ----------------------------------------------------------------------

@pytest.mark.parametrize("name", CASES)
def test_an_output_that_equals_the_targets_predicts_the_objects(name):
    """Decoded, each object that is encoded comes back, where the confidence is 1."""
    loss, _ = CASES[name]
    rows = ROWS.copy()
    rows[1, 1, 0] = -1                          # shares its cell with the object before
    y = np.full((N, loss.channels, 2, 3), -30.0 if "v1" not in name else 0.0)
    mask = getattr(loss, "mask", None)
    count = 0
    for n, m in np.argwhere(rows[..., 0] >= 0):
        k, x, v, w, h = rows[n, m]
        i, j = min(int(2 * v), 1), min(int(3 * x), 2)
        x, v = 3 * x - j, 2 * v - i
        if mask is None:
            y[n, :5, i, j] = x, v, w**0.5, h**0.5, 1
            y[n, 5 * loss.boxes + int(k), i, j] = 1
        else:
            best = max(range(3), key=lambda a: min(w, ANCHORS[a][0]) * min(h, ANCHORS[a][1])
                       / (w * h + np.prod(ANCHORS[a])
                          - min(w, ANCHORS[a][0]) * min(h, ANCHORS[a][1])))    # noqa: B023
            if best not in mask:
                continue
            low, high = (loss.scale_xy - 1) / 2, (loss.scale_xy + 1) / 2        # of a cell
            x, v = (np.log((a + low + 1e-15) / (high - a + 1e-15)) for a in (x, v))
            start = mask.index(best) * (5 + K)
            y[n, start:start + 5, i, j] = x, v, np.log(w / ANCHORS[best][0]), np.log(
                h / ANCHORS[best][1]), 30
            y[n, start + 5:start + 5 + K, i, j] = np.where(np.arange(K) == k, 30, -30)
        count += 1
    y = np.moveaxis(y, 0, -1)
    boxes, confidence, classes = loss.predictions(np, y)
    sure = np.argwhere(confidence > 0.5)
    assert len(sure) == count >= 2
    for b, i, j, n in sure:
        x1, y1, x2, y2 = boxes[:, b, i, j, n]
        found = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1]
        label = classes[:, min(b, classes.shape[1] - 1), i, j, n].argmax()
        assert any(row[0] == label and np.allclose(row[1:], found, atol=1e-9) for row in rows[n])
    if "rescore" not in repr(loss) and "v1" in name:
        assert float(loss(xn.Backend(), y, goal(loss, y, rows))[0]) == pytest.approx(0, abs=1e-12)


def test_rows_of_no_object_do_not_count():
    """Whatever box they have: it suppresses no cost of confidences near it."""
    for loss, _ in CASES.values():
        y, rows = output(loss), ROWS.copy()
        rows[rows[..., 0] < 0, 1:] = 0.5, 0.5, 0.9, 0.9
        assert np.array_equal(goal(loss, y), goal(loss, y, rows))


@pytest.mark.parametrize("rows, message", [
    ([[[0, 0.5, 0.5, 0.1]]], r"targets of shape \(N, M, 5\): class, x, y, w, h of M objects"),
    ([[[2, 0.5, 0.5, 0.1, 0.1]]], "class numbers from 0 to 1, or -1 for no object. Received: "
                                  "numbers from 2 to 2"),
    ([[[0.5, 0.5, 0.5, 0.1, 0.1]]], "expected class numbers"),
    ([[[-2, 0.5, 0.5, 0.1, 0.1]]], "expected class numbers"),
    ([[[0, 50, 50, 10, 10]]], "sizes above 0, 1 at most, as fractions of the image. Received: "
                              "centres from 50 to 50"),
    ([[[0, 0.5, 0.5, 0, 0.1]]], "sizes above 0"),
    ([[[0, np.nan, 0.5, 0.1, 0.1]]], "expected finite numbers"),
])
def test_targets_that_are_refused(rows, message):
    for loss in (xn.YOLOv1(2), xn.YOLOv3(ANCHORS, 2)):
        with pytest.raises(ValueError, match=message):
            loss.targets(rows, (loss.channels, 2, 3), np.dtype(np.float32))


def test_settings_that_are_refused():
    for make, message in (
            (lambda: xn.YOLOv1(0), "YOLOv1: expected classes to be an int from 1 to 65536"),
            (lambda: xn.YOLOv1(["a", "a"]), "YOLOv1: expected classes to be names"),
            (lambda: xn.YOLOv1(2, lambda_coord=-1), "YOLOv1: expected lambda_coord"),
            (lambda: xn.YOLOv2([], 2), "YOLOv2: expected anchors to be pairs"),
            (lambda: xn.YOLOv2([(1, 0)], 2), "YOLOv2: expected anchors to be pairs"),
            (lambda: xn.YOLOv3(ANCHORS, 2, mask=[3]), "mask to be different numbers from 0 to 2"),
            (lambda: xn.YOLOv3(ANCHORS, 2, scale_xy=0.9), "YOLOv3: expected scale_xy to be a "
                                                          "number, 1 or larger. Received: scale"),
            (lambda: xn.BoxIoU("area"), "BoxIoU: expected kind to be 'iou'"),
            (lambda: xn.YOLOv1(2).targets(ROWS, (13, 2, 3), np.dtype("f4")),
             r"expected a network whose output is \(12, rows, columns\). Received: output shape "),
            (lambda: xn.BoxIoU().targets(ROWS, (5,), np.dtype("f4")), "expected four outputs")):
        with pytest.raises(ValueError, match=message):
            make()


# --- training -------------------------------------------------------------------------------------

def test_a_network_with_two_outputs_is_trained_and_loaded(tmp_path):
    """Each object belongs to the output that has its anchor. The losses are saved with their
    anchors and names."""
    x, masks = xn.Input((1, 8, 8)), ([0, 1], [2])
    maps = xn.Conv2d(4, 3, padding="half", stride=2, activation="relu")(x)      # 4 x 4
    losses = [xn.YOLOv3(ANCHORS, ["cat", "dog"], mask=mask) for mask in masks]
    fine = xn.Conv2d(losses[0].channels, 1)(maps)
    coarse = xn.Conv2d(losses[1].channels, 1)(xn.MaxPool2d(2)(maps))
    net = xn.Network(x, [fine, coarse], backend="numpy", seed=1)
    images = np.random.default_rng(0).random((N, 1, 8, 8))
    history = net.fit(images, [ROWS, ROWS], loss=losses, optimizer=xn.Adam(0.02), epochs=30,
                      verbose=False)
    assert history["loss"][-1] < 0.5 * history["loss"][0]
    net.save(tmp_path / "net.safetensors")
    again = xn.load(tmp_path / "net.safetensors", backend="numpy")
    assert [repr(loss) for loss in again.loss] == [repr(loss) for loss in losses]
    assert again.loss[0].names == ("cat", "dog") and again.loss[1].mask == (2,)
