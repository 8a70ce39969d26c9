"""Mean average precision by hand, and against pycocotools."""

from __future__ import annotations

import contextlib
import io
import math
from typing import Any

import numpy as np
import pytest
from tiers import number

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


def a_data_set(seed: int) -> tuple[list[Any], list[Any]]:
    """Six images with objects of three classes, some of them crowds, and noisy detections with
    equal scores among them."""
    rng = np.random.default_rng(seed)
    found, truth = [], []
    for _ in range(6):
        count = int(rng.integers(0, 6))
        low = rng.uniform(0, 60, (count, 2))
        boxes = np.concatenate([low, low + rng.uniform(5, 40, (count, 2))], axis=1)
        labels, crowd = rng.integers(0, 3, count), rng.random(count) < 0.2
        truth.append((boxes, labels, crowd))
        again = np.repeat(np.arange(count), 3)
        guesses = boxes[again] + rng.normal(0, 3, (len(again), 4))
        guesses[:, 2:] = np.maximum(guesses[:, 2:], guesses[:, :2] + 1)
        scores = rng.integers(1, 8, len(again)) / 8
        found.append((guesses, scores, np.where(rng.random(len(again)) < 0.9, labels[again],
                                                rng.integers(0, 3, len(again)))))
    return found, truth


@pytest.mark.parametrize("seed", range(number(20)))
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
    for i, (boxes, labels, crowd) in enumerate(truth):
        for box, label, is_crowd in zip(boxes, labels, crowd):
            known.dataset["annotations"].append({
                "id": len(known.dataset["annotations"]) + 1, "image_id": i, "bbox": xywh(box),
                "area": float(np.prod(box[2:] - box[:2])), "category_id": int(label),
                "iscrowd": int(is_crowd)})
    with contextlib.redirect_stdout(io.StringIO()):
        known.createIndex()
        results = known.loadRes([
            {"image_id": i, "category_id": int(label), "bbox": xywh(box), "score": float(score)}
            for i, entry in enumerate(found) for box, score, label in zip(*entry)])
        judge = evaluation.COCOeval(known, results, "bbox")
        judge.evaluate()
        judge.accumulate()
    precision = judge.eval["precision"][..., 0, -1]         # (10, 101, 3), -1 without objects
    for limit, right in [(None, precision), (0.5, precision[:1]), (0.75, precision[5:6])]:
        expected = np.where(right > -1, right, np.nan).mean(axis=(0, 1))
        each = mean_average_precision(found, truth, method="coco", iou_threshold=limit,
                                      average=None, classes=3)
        np.testing.assert_allclose(each, expected, atol=1e-12)
