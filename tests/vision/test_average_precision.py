"""Mean average precision by hand, and against pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from tiers import first

from xpnet.vision import mean_average_precision

BOX = np.array([0.0, 0, 10, 10])
AT = [BOX + 20 * k for k in range(5)]               # boxes that do not meet


def by_hand(method: str, **more: Any) -> float:
    """Three objects in two images. The detections, by score: right, wrong, right, found twice."""
    found = [([AT[0], AT[4], AT[0]], [0.9, 0.8, 0.6], [0, 0, 0]), ([AT[1]], [0.7], [0])]
    truth = [([AT[0]], [0]), ([AT[1], AT[2]], [0, 0])]
    return mean_average_precision(found, truth, method=method, **more)


def test_by_hand():
    """Precision 1, 1/2, 2/3, 1/2 at the recalls 1/3, 1/3, 2/3, 2/3."""
    assert by_hand("voc") == pytest.approx(1 / 3 + 2 / 3 / 3)
    assert by_hand("voc2007") == pytest.approx((4 * 1 + 3 * 2 / 3) / 11)    # recalls 0..0.3, ..0.6
    assert by_hand("coco") == pytest.approx((34 * 1 + 33 * 2 / 3) / 101)
    assert by_hand("voc", iou_threshold=[0.5, 1.0]) == by_hand("voc")       # these fit exactly


def test_what_is_ignored_is_neither_right_nor_wrong():
    found = [([AT[0], AT[1], AT[3]], [0.9, 0.8, 0.7], [0, 0, 0])]
    truth = [([AT[0], AT[1], AT[3]], [0, 0, 0], [True, False, False])]
    assert mean_average_precision(found, truth) == 1.0
    assert mean_average_precision(found, truth, method="coco") == 1.0


def test_classes_without_objects_have_none():
    found = [([AT[0], AT[1]], [0.9, 0.8], [0, 2])]
    truth = [([AT[0]], [0])]
    each = mean_average_precision(found, truth, average=None, classes=4)
    assert each[0] == 1.0 and np.isnan(each[1:]).all() and len(each) == 4
    assert mean_average_precision(found, truth) == 1.0
    assert math.isnan(mean_average_precision([([], [], [])], [([], [])]))
    assert mean_average_precision([([], [], [])], truth) == 0.0


def test_a_second_detection_in_voc_is_wrong_although_another_object_is_near():
    """COCO gives it the object that is left."""
    near = BOX + [0, 1, 0, 1]
    found, truth = [([BOX, BOX + 0.1], [0.9, 0.8], [0, 0])], [([BOX, near], [0, 0])]
    assert mean_average_precision(found, truth) == 0.5
    assert mean_average_precision(found, truth, method="coco", iou_threshold=0.5) == pytest.approx(
        1.0)


# --- COCO's rules ---------------------------------------------------------------------------------

RANGES = {"all": (0, 1e10), "small": (0, 32**2), "medium": (32**2, 96**2), "large": (96**2, 1e10)}


def a_data_set(seed: int) -> tuple[list[Any], list[Any]]:
    """Six images with objects of three classes and of all sizes, some of them crowds, and noisy
    detections with equal scores among them. Some areas lie on the ends of COCO's ranges."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(6):
        count = int(rng.integers(0, 7))
        low = rng.uniform(0, 160, (count, 2))
        side = rng.choice([12, 32, 40, 96, 120], count)
        boxes = np.concatenate([low, low + side[:, None] * rng.uniform(0.7, 1.3, (count, 2))],
                               axis=1)
        areas = np.where(rng.random(count) < 0.5, side.astype(float)**2,
                         np.prod(boxes[:, 2:] - boxes[:, :2], axis=1))
        labels, crowd = rng.integers(0, 3, count), rng.random(count) < 0.2
        truth.append((boxes, labels, crowd, areas))
        again = np.repeat(np.arange(count), 3)
        guesses = boxes[again] + rng.normal(0, 0.08, (len(again), 4)) * side[again, None]
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = rng.integers(1, 8, len(again)) / 8
        found.append((guesses, scores, np.where(rng.random(len(again)) < 0.9, labels[again],
                                                rng.integers(0, 3, len(again)))))
    return found, truth


def slowly(found: list[Any], truth: list[Any], k: int, limit: float, low: float, high: float
           ) -> float:
    """AP of class k by COCO's rules, box by box."""
    hits, objects = [], 0                           # (score, right) of the detections that count
    for (guesses, scores, labels), (boxes, known, crowd, areas) in zip(found, truth):
        there = [(box.tolist(), bool(many), bool(many or area < low or area > high))
                 for box, label, many, area in zip(boxes, known, crowd, areas) if label == k]
        there.sort(key=lambda one: one[2])          # those that count come first
        objects += sum(not ignored for *_, ignored in there)
        own = [(float(score), box.tolist()) for score, box, label in zip(scores, guesses, labels)
               if label == k]
        own.sort(key=lambda one: -one[0])
        taken: set[int] = set()
        for score, box in own[:100]:
            best, match = limit, None
            for m, (other, many, ignored) in enumerate(there):
                if m in taken and not many:
                    continue
                if match is not None and ignored and not there[match][2]:
                    break
                sides = [max(0.0, min(box[a + 2], other[a + 2]) - max(box[a], other[a]))
                         for a in (0, 1)]
                sizes = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
                inter = sides[0] * sides[1]
                overlap = inter / (sizes[0] if many else sizes[0] + sizes[1] - inter)
                if overlap >= best:
                    best, match = overlap, m
            if match is not None:
                taken.add(match)
                if not there[match][2]:
                    hits.append((score, True))
            elif low <= (box[2] - box[0]) * (box[3] - box[1]) <= high:
                hits.append((score, False))
    if not objects:
        return math.nan
    hits.sort(key=lambda one: -one[0])
    points, right = [], 0                           # (recall, precision)
    for n, (_, is_right) in enumerate(hits, 1):
        right += is_right
        points.append((right / objects, right / n))
    return sum(max((p for recall, p in points if recall >= r), default=0.0)
               for r in np.linspace(0, 1, 101)) / 101


@pytest.mark.parametrize("area", RANGES)
@pytest.mark.parametrize("seed", first(range(10), *range(5)))
def test_against_loops(seed, area):
    found, truth = a_data_set(seed)
    limits = [0.5, 0.8]
    each = mean_average_precision(found, truth, method="coco", iou_threshold=limits, area=area,
                                  average=None, classes=3)
    expected = [np.mean([slowly(found, truth, k, limit, *RANGES[area]) for limit in limits])
                for k in range(3)]
    np.testing.assert_allclose(each, expected, atol=1e-12)
    assert not np.isnan(each).all() and np.nanmax(each) > 0


def voc(found: list[Any], truth: list[Any], k: int, limit: float, points: int) -> float:
    """AP of class k by the rules of Pascal VOC: at 11 recalls, or the area."""
    ranked = sorted(((-float(score), i, box.tolist()) for i, (boxes, scores, labels) in enumerate(
        found) for box, score, label in zip(boxes, scores, labels) if label == k),
        key=lambda one: one[0])
    there = [[(box.tolist(), bool(hard)) for box, label, hard in zip(boxes, labels, difficult)
              if label == k] for boxes, labels, difficult, *_ in truth]
    objects = sum(not hard for image in there for _, hard in image)
    taken, right, wrong, curve = set(), 0, 0, []
    for _, i, box in ranked:
        best, match = -1.0, None
        for m, (other, _) in enumerate(there[i]):
            sides = [max(0.0, min(box[a + 2], other[a + 2]) - max(box[a], other[a]))
                     for a in (0, 1)]
            sizes = [(b[2] - b[0]) * (b[3] - b[1]) for b in (box, other)]
            overlap = sides[0] * sides[1] / (sum(sizes) - sides[0] * sides[1])
            if overlap > best:
                best, match = overlap, m
        if match is not None and best >= limit and there[i][match][1]:
            continue                                # difficult: neither right nor wrong
        hit = match is not None and best >= limit and (i, match) not in taken
        taken |= {(i, match)} if hit else set()
        right, wrong = right + hit, wrong + (not hit)
        curve.append((right / objects if objects else 0, right / (right + wrong)))
    if not objects:
        return math.nan
    if points:
        return sum(max((p for recall, p in curve if recall >= t / 10), default=0.0)
                   for t in range(11)) / 11
    area, before = 0.0, 0.0
    for n, (recall, _) in enumerate(curve):
        area += (recall - before) * max(p for _, p in curve[n:])
        before = recall
    return area


@pytest.mark.parametrize("seed", first(range(10), *range(5)))
def test_voc_against_loops(seed):
    found, truth = a_data_set(seed)
    found = [(boxes, scores + np.arange(len(scores)) * 1e-6, labels)        # no equal scores
             for boxes, scores, labels in found]
    for method, points in (("voc", 0), ("voc2007", 11)):
        each = mean_average_precision(found, truth, method=method, average=None, classes=3)
        np.testing.assert_allclose(each, [voc(found, truth, k, 0.5, points) for k in range(3)],
                                   atol=1e-12)


def test_objects_of_other_sizes_are_neither_missed_nor_wrong():
    """A small object, a medium one, and detections of both; one more detection is of no object."""
    small, medium = [0, 0, 20, 20], [100, 0, 150, 50]
    found = [([small, medium, [200, 0, 220, 20]], [0.7, 0.8, 0.9], [0, 0, 0])]
    truth = [([small, medium], [0, 0])]

    def ap(area: str, **more: Any) -> float:
        return mean_average_precision(found, truth, method="coco", area=area, **more)

    assert ap("medium") == pytest.approx(1.0)       # the wrong detection is small
    assert ap("small") == pytest.approx(0.5) and math.isnan(ap("large"))
    assert ap("all") == pytest.approx(2 / 3)        # precision 1/2 and 2/3, the larger one counts
    truth = [([small, medium], [0, 0], [False, False], [96**2, 96**2])]     # both ends belong
    assert ap("medium") == ap("large") == pytest.approx(1.0) and math.isnan(ap("small"))


@pytest.mark.parametrize("more, message", [
    ({"area": "tiny"}, "area to be 'all', 'small', 'medium' or 'large'. Received: area='tiny'"),
    ({"area": "small", "method": "voc"}, 'area="all", except with method="coco". Received: area='),
    ({"truth": [([BOX], [0], [False], [1, 2])]}, r"areas of truth of shape \(1,\), one for each"),
    ({"truth": [([BOX], [0], [False], [-2])]}, "areas of truth of 0 or larger. Received: -2"),
    ({"truth": [([BOX],)]}, "each entry of truth to be"),
    ({"found": [([BOX], [0.5])]}, r"each entry of found to be \(boxes, scores, labels\)"),
])
def test_what_is_refused(more, message):
    good = {"found": [([BOX], [0.5], [0])], "truth": [([BOX], [0])], "method": "coco"}
    with pytest.raises(ValueError, match=f"mean_average_precision: expected .*{message}"):
        mean_average_precision(**(good | more))


@pytest.mark.parametrize("seed", first(range(20), *range(5)))
def test_against_pycocotools(seed):
    reason = "pycocotools is not installed: pip install pycocotools"
    coco = pytest.importorskip("pycocotools.coco", reason=reason)
    evaluation = pytest.importorskip("pycocotools.cocoeval", reason=reason)
    found, truth = a_data_set(seed)

    def xywh(box: np.ndarray) -> list[float]:
        return [*box[:2].tolist(), *(box[2:] - box[:2]).tolist()]

    known = coco.COCO()
    known.dataset = {"images": [{"id": i} for i in range(len(truth))],
                     "categories": [{"id": k} for k in range(3)], "annotations": []}
    for i, (boxes, labels, crowd, areas) in enumerate(truth):
        for box, label, is_crowd, area in zip(boxes, labels, crowd, areas):
            known.dataset["annotations"].append({
                "id": len(known.dataset["annotations"]) + 1, "image_id": i, "bbox": xywh(box),
                "area": float(area), "category_id": int(label), "iscrowd": int(is_crowd)})
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        results = known.loadRes([
            {"image_id": i, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
            for i, entry in enumerate(found) for box, score, label in zip(*entry)])
        judge = evaluation.COCOeval(known, results, "bbox")
        judge.evaluate()
        judge.accumulate()
        judge.summarize()
    for k, area in enumerate(RANGES):
        precision = judge.eval["precision"][..., k, -1]    # (10, 101, 3), -1 without objects
        for limit, right in [(None, precision), (0.5, precision[:1]), (0.75, precision[5:6])]:
            expected = np.where(right > -1, right, np.nan).mean(axis=(0, 1))
            each = mean_average_precision(found, truth, method="coco", iou_threshold=limit,
                                          area=area, average=None, classes=3)
            np.testing.assert_allclose(each, expected, atol=1e-12)
    figures = [mean_average_precision(found, truth, method="coco", area=area) for area in RANGES]
    right = judge.stats[[0, 3, 4, 5]]               # AP, and of small, medium and large objects
    np.testing.assert_allclose(figures, np.where(right > -1, right, np.nan), atol=1e-12)
