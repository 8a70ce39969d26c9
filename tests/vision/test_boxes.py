"""Boxes: formats, overlaps against loops over pixels and formulas, suppression, letterbox,
anchors."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from tiers import examples

from xpnet import vision
from xpnet.losses.boxes import KINDS, overlap
from xpnet.vision.boxes import FORMATS


def some_boxes(count: int, seed: int = 0, size: int = 12) -> np.ndarray:
    """Boxes xyxy with whole numbers as corners."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, size - 1, (count, 2))
    return np.concatenate([low, rng.integers(low + 1, size + 1)], axis=1).astype(float)


# --- formats --------------------------------------------------------------------------------------

BOX = {"xyxy": (10, 20, 40, 100), "xywh": (10, 20, 30, 80), "cxcywh": (25, 60, 30, 80),
       "rel_xyxy": (0.05, 0.2, 0.2, 1), "rel_xywh": (0.05, 0.2, 0.15, 0.8),
       "rel_cxcywh": (0.125, 0.6, 0.15, 0.8)}          # in an image of 200 x 100 pixels


@pytest.mark.parametrize("target", FORMATS)
@pytest.mark.parametrize("source", FORMATS)
def test_formats(source, target):
    found = vision.convert_boxes([BOX[source]], source, target, (100, 200))
    np.testing.assert_allclose(found, [BOX[target]], rtol=1e-14)


def test_formats_of_no_box_and_without_a_size():
    assert vision.convert_boxes([], "xyxy", "xywh").shape == (0, 4)
    with pytest.raises(ValueError, match="convert_boxes: expected size to be .height, width."):
        vision.convert_boxes([BOX["xyxy"]], "xyxy", "rel_xyxy")


def test_clip_and_area():
    boxes = [[-5, 2, 4, 30], [8, 3, 6, 9], [1.5, 0, 2, 4]]
    assert vision.clip_boxes(boxes, (20, 10)).tolist() == [[0, 2, 4, 20], [8, 3, 6, 9],
                                                          [1.5, 0, 2, 4]]
    assert vision.box_area(boxes).tolist() == [9 * 28, 0, 2]


# --- overlap --------------------------------------------------------------------------------------

def pixels(box: np.ndarray) -> np.ndarray:
    x, y = np.meshgrid(np.arange(12) + 0.5, np.arange(12) + 0.5)
    return (x > box[0]) & (x < box[2]) & (y > box[1]) & (y < box[3])


def test_iou_counts_pixels():
    a, b = some_boxes(20), some_boxes(15, 1)
    expected = [[(pixels(p) & pixels(q)).sum() / (pixels(p) | pixels(q)).sum() for q in b]
                for p in a]
    np.testing.assert_allclose(vision.box_iou(a, b), expected, rtol=1e-14)
    assert vision.box_iou([], b).shape == (0, 15)
    for kind in KINDS:
        assert vision.box_iou([[3, 4, 3, 4]], [[3, 4, 3, 4]], kind=kind) == 0   # the union is empty


def relative(kind: str, a: list[float], b: list[float], alpha: float | None = None) -> float:
    """The overlap of two boxes as the papers write it; `alpha` replaces that of CIoU."""
    inter = (max(0.0, min(a[2], b[2]) - max(a[0], b[0]))
             * max(0.0, min(a[3], b[3]) - max(a[1], b[1])))
    w, h, W, H = a[2] - a[0], a[3] - a[1], b[2] - b[0], b[3] - b[1]
    union = w * h + W * H - inter
    iou = inter / union
    cw, ch = max(a[2], b[2]) - min(a[0], b[0]), max(a[3], b[3]) - min(a[1], b[1])
    if kind == "giou":
        return iou - (cw * ch - union) / (cw * ch)
    far = math.dist(((a[0] + a[2]) / 2, (a[1] + a[3]) / 2),
                    ((b[0] + b[2]) / 2, (b[1] + b[3]) / 2)) ** 2 / (cw**2 + ch**2)
    v = 4 / math.pi**2 * (math.atan(W / H) - math.atan(w / h)) ** 2
    alpha = v / (1 - iou + v) if alpha is None else alpha
    return iou - {"iou": 0, "diou": far, "ciou": far + alpha * v}[kind]


@pytest.mark.parametrize("kind", KINDS)
def test_overlaps_and_their_gradients(kind):
    """Boxes that meet, that are apart, and one inside the other; no two corners are equal."""
    rng = np.random.default_rng(3)
    low = rng.uniform(0, 6, (2, 40, 2))
    a, b = np.concatenate([low, low + rng.uniform(0.5, 7, low.shape)], axis=2)
    a[0], b[0] = (1, 1, 9, 9), (2, 3, 4, 6)
    expected = [relative(kind, p, q) for p, q in zip(a.tolist(), b.tolist())]
    assert min(map(relative, ["iou"] * 40, a.tolist(), b.tolist())) == 0        # some are apart
    np.testing.assert_allclose(np.diag(vision.box_iou(a, b, kind=kind)), expected, atol=1e-14)
    value, slopes = overlap(np, a.T, b.T, kind)
    np.testing.assert_allclose(value, expected, atol=1e-14)
    for n, (p, q) in enumerate(zip(a.tolist(), b.tolist())):
        iou = relative("iou", p, q)
        v = (4 / math.pi**2 * (math.atan((q[2] - q[0]) / (q[3] - q[1]))
                               - math.atan((p[2] - p[0]) / (p[3] - p[1]))) ** 2)
        for k in range(4):
            ends = [[*p[:k], p[k] + h, *p[k + 1:]] for h in (1e-6, -1e-6)]
            above, below = (relative(kind, end, q, v / (1 - iou + v)) for end in ends)
            assert slopes[k][n] == pytest.approx((above - below) / 2e-6, abs=2e-8)


@pytest.mark.parametrize("kind", KINDS)
def test_a_box_that_fits_exactly_has_no_gradient(kind):
    """And where some corners are equal, it is the mean of those on both sides, which central
    differences compute."""
    box, right = [1.0, 2.0, 4.0, 3.0], [1.0, 2.0, 3.0, 5.0]
    for dtype in (np.float32, np.float64):
        b = np.array([box], dtype).T
        value, slopes = overlap(np, b, b, kind)
        assert value.tolist() == [1] and not np.any(slopes) and slopes[0].dtype == dtype
    iou, v = relative("iou", box, right), (4 / math.pi**2 * (math.atan(2 / 3) - math.atan(3)) ** 2)
    for k, slope in enumerate(overlap(np, np.array([box]).T, np.array([right]).T, kind)[1]):
        ends = [[*box[:k], box[k] + h, *box[k + 1:]] for h in (1e-6, -1e-6)]
        above, below = (relative(kind, end, right, v / (1 - iou + v)) for end in ends)
        assert slope[0] == pytest.approx((above - below) / 2e-6, abs=2e-6), k


def test_descent_on_giou_brings_boxes_together():
    """IoU alone has no gradient where boxes are apart."""
    a, b = np.array([0.0, 0, 1, 1]), np.array([3.0, 3, 5, 6])
    assert not np.any(overlap(np, a, b, "iou")[1])
    for kind in ("giou", "diou", "ciou"):
        box = a.copy()
        for _ in range(1000):
            box += 0.05 * np.array(overlap(np, box, b, kind)[1])
        assert overlap(np, box, b)[0] > 0.01, kind


# --- suppression ----------------------------------------------------------------------------------

def test_suppression_by_hand():
    boxes = [[0, 0, 10, 10], [1, 0, 11, 10], [20, 0, 30, 10], [0, 0, 10, 9]]
    scores = [0.8, 0.9, 0.3, 0.7]
    assert vision.nms(boxes, scores).tolist() == [1, 2]
    assert vision.nms(boxes, scores, [0, 1, 0, 1]).tolist() == [1, 0, 2]
    assert vision.nms(boxes, scores, iou_threshold=0.95).tolist() == [1, 0, 3, 2]
    assert vision.nms([], []).tolist() == []
    assert vision.nms([[0, 0, 1, 1]] * 50, [0.5] * 50).tolist() == [0]      # the first of equal


def test_a_box_at_the_threshold_is_kept():
    boxes = [[0, 0, 2, 1], [0, 0, 1, 1]]            # IoU is 1/2
    assert vision.nms(boxes, [0.9, 0.8], iou_threshold=0.5).tolist() == [0, 1]
    assert vision.nms(boxes, [0.9, 0.8], iou_threshold=0.4999).tolist() == [0]


@examples(50)
@given(st.integers(0, 10**6), st.integers(1, 25), st.floats(0, 1))
def test_what_suppression_promises(seed, count, limit):
    """Kept boxes do not overlap more than the limit, and each dropped box overlaps with a kept one
    of a larger score."""
    boxes, scores = some_boxes(count, seed), np.random.default_rng(seed).random(count)
    labels = np.arange(count) % 2
    kept = vision.nms(boxes, scores, labels, iou_threshold=limit)
    assert (np.diff(scores[kept]) <= 0).all()
    iou = vision.box_iou(boxes, boxes) * (labels == labels[:, None])
    assert (np.triu(iou[np.ix_(kept, kept)], 1) <= limit).all()
    for n in set(range(count)) - {*kept.tolist()}:
        assert any(iou[n, m] > limit and scores[m] >= scores[n] for m in kept)


def test_soft_suppression():
    """Scores after Bodla et al. 2017, figure 2, step by step."""
    boxes = [[0, 0, 10, 10], [0, 0, 10, 8], [0, 4, 10, 10], [50, 0, 60, 10]]
    scores = [0.9, 0.8, 0.6, 0.5]
    a, b, c = 0.8, 0.6, 4 / 10                      # IoU of 0 and 1, 0 and 2, 1 and 2
    order, found = vision.soft_nms(boxes, scores, sigma=0.5)
    first, second = 0.8 * math.exp(-a * a / 0.5), 0.6 * math.exp(-b * b / 0.5)
    expected = [0.9, 0.5, second, first * math.exp(-c * c / 0.5)]
    assert order.tolist() == [0, 3, 2, 1]
    np.testing.assert_allclose(found, expected, rtol=1e-14)
    order, found = vision.soft_nms(boxes, scores, method="linear", iou_threshold=0.5)
    assert order.tolist() == [0, 3, 2, 1]           # 1 and 2 overlap less than the threshold
    np.testing.assert_allclose(found, [0.9, 0.5, 0.6 * 0.4, 0.8 * 0.2], rtol=1e-12)
    order, found = vision.soft_nms(boxes, scores, method="linear", score_threshold=0.2)
    assert order.tolist() == [0, 3, 2]
    order, found = vision.soft_nms(boxes, scores, [0, 1, 2, 3])
    assert order.tolist() == [0, 1, 2, 3] and found.tolist() == scores
    with pytest.raises(ValueError, match="soft_nms: expected scores of 0 or larger. Received: -2"):
        vision.soft_nms(boxes, [0.9, -1, -2, 0.5])


# --- letterbox and anchors ------------------------------------------------------------------------

def test_letterbox_resizes_as_pillow_does():
    image = pytest.importorskip("PIL.Image", reason="Pillow is not installed")
    x = np.random.default_rng(0).random((2, 30, 47)).astype(np.float32)
    for size, (w, h) in (((20, 20), (20, 13)), ((90, 60), (60, 38)), ((15, 60), (24, 15))):
        y, _ = vision.letterbox(x, size)
        top, left = (size[0] - h) // 2, (size[1] - w) // 2
        assert y.shape == (2, *size) and y.dtype == np.float32
        right = [np.asarray(image.fromarray(c).resize((w, h), image.Resampling.BILINEAR))
                 for c in x]
        np.testing.assert_allclose(y[:, top:top + h, left:left + w], right, atol=2e-6)
        y[:, top:top + h, left:left + w] = 0.5
        assert (y == 0.5).all()


def test_letterbox_of_bytes_and_its_boxes():
    x = np.zeros((3, 40, 80), np.uint8)
    x[:, 10:20, 20:40] = 200
    y, place = vision.letterbox(x, 40, fill=127)
    assert y.dtype == np.uint8 and y.shape == (3, 40, 40) and (y[:, :10] == 127).all()
    assert y[0, 10:30].max() == 200 and place.top == 10 and place.left == 0
    boxes = np.array([[20.0, 10, 40, 20], [0, 0, 80, 40]])
    there = place.forward(boxes)
    assert there.tolist() == [[10, 15, 20, 20], [0, 10, 40, 30]]
    assert (y[0, 16:19, 11:19] == 200).all()        # the pixels at its edge are means
    assert y[0, 10:14].max() == y[0, 21:30].max() == 0
    assert place.backward(there).tolist() == boxes.tolist()
    assert place.backward([[-9, 0, 99, 99]]).tolist() == [[0, 0, 80, 40]]


def test_anchors_are_the_centres_of_clusters():
    rng = np.random.default_rng(0)
    centres = np.array([[4.0, 4], [20, 5], [10, 30]])
    sizes = np.concatenate([centre * rng.uniform(0.9, 1.1, (50, 2)) for centre in centres])
    found = vision.kmeans_anchors(sizes, 3, seed=1)
    expected = [sizes[50 * k:50 * k + 50].mean(axis=0) for k in range(3)]
    np.testing.assert_allclose(found, expected, rtol=1e-12)
    by_hand = np.mean([max(min(w, a) * min(h, b) / (w * h + a * b - min(w, a) * min(h, b))
                           for a, b in found) for w, h in sizes])
    assert vision.anchor_iou(sizes, found) == pytest.approx(by_hand, rel=1e-12)
    assert by_hand > 0.85 and vision.anchor_iou(sizes, found[:2]) < by_hand


def test_an_anchor_that_loses_all_its_sizes_stays():
    """It happens to one of three anchors with these sizes and this seed."""
    sizes = np.random.default_rng(1118).integers(1, 12, (5, 2))
    found = vision.kmeans_anchors(sizes, 3)
    assert found.shape == (3, 2) and (found >= 1).all()


def test_as_many_anchors_as_sizes_fit_exactly():
    sizes = np.array([[1.0, 2], [3, 1], [1, 2], [4, 4]])
    assert vision.kmeans_anchors(sizes, 3).tolist() == [[1, 2], [3, 1], [4, 4]]
    with pytest.raises(ValueError, match="at least k=4 different sizes. Received: 3"):
        vision.kmeans_anchors(sizes, 4)
