"""Mean average precision of detectors, as the challenges of Pascal VOC and COCO compute it."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.checks import expect_choice, expect_integer, is_number, items, wrong
from xpnet.losses.boxes import iou_of
from xpnet.losses.detection import MOST_CLASSES
from xpnet.vision.boxes import box_area, expect_boxes, expect_labels, expect_per_box

WHO = "mean_average_precision"
METHODS = "voc", "voc2007", "coco"
COCO = tuple(np.linspace(0.5, 0.95, 10).tolist())
MOST_FOUND = 100            # detections of an image and a class that COCO counts
RECALLS = np.linspace(0, 1, 101)
# Areas of objects in pixels, both ends included
AREAS = {"all": (0.0, np.inf), "small": (0.0, 32.0**2), "medium": (32.0**2, 96.0**2),
         "large": (96.0**2, np.inf)}


class _Found(NamedTuple):
    boxes: np.ndarray
    scores: np.ndarray
    labels: np.ndarray


class _Truth(NamedTuple):
    boxes: np.ndarray
    labels: np.ndarray
    ignored: np.ndarray     # difficult, or crowd
    areas: np.ndarray


class _Image(NamedTuple):
    """One class in one image; the detections are sorted, that of the largest score first."""

    scores: np.ndarray      # (D,)
    outside: np.ndarray     # (D,), of the range of areas
    overlaps: np.ndarray    # (D, T)
    ignored: np.ndarray     # (T,), need not be found
    crowd: np.ndarray       # (T,), may be found several times


def mean_average_precision(found: Sequence[Any], truth: Sequence[Any], *, method: str = "voc",
                           iou_threshold: Any = None, area: str = "all",
                           classes: int | None = None, average: str | None = "macro") -> Any:
    """Mean average precision: mAP = mean over classes of AP, the area under the curve of precision
    over recall (Everingham et al. 2010, section 4.2).

    The detections of a class in all images are sorted by their scores. Each is right if its IoU
    with an object of that class that was not found before is at least the threshold. The first n of
    them have the precision right / n and the recall right / number of objects. p(r) is the largest
    precision at a recall of r or more.

        "voc"       AP = integral of p(r) over r from 0 to 1            Pascal VOC since 2010
        "voc2007"   AP = mean of p(0), p(0.1), ..., p(1)                Pascal VOC before
        "coco"      AP = mean of p(0), p(0.01), ..., p(1)               Lin et al. 2014

    In "voc" and "voc2007", a detection belongs to the object with the largest IoU, and is wrong if
    that one was found before. In "coco", it belongs to the object with the largest IoU of those
    that were not found before, and at most 100 detections of a class count in each image. Boxes are
    corners of regions: VOC's own program adds a pixel to each width and height. NaN for classes,
    and for data, without objects.

    Args:
        found: for each image (boxes (M, 4) xyxy, scores (M,), labels (M,)), such as a Detections.
        truth: for each image (boxes (M, 4) xyxy, labels (M,)), or (boxes, labels, ignored (M,)):
            objects that need not be found, difficult ones of VOC or the crowds of COCO. The IoU
            with a crowd is intersection / area of the detection. A fourth entry has the areas (M,)
            of the objects if they are not those of the boxes: COCO counts an object's pixels.
        iou_threshold: a number, or several, over which AP is averaged. By default 0.5, and for
            "coco" 0.5, 0.55, ..., 0.95.
        area: "small", "medium" or "large" for AP of objects of up to 32^2, 32^2 to 96^2, or from
            96^2 pixels, as "coco" divides them. Other objects need not be found, and a detection of
            another area is not wrong.
        classes: their number; by default one more than the largest label.
        average: None returns the AP of each class, (K,).
    """
    method = expect_choice(WHO, "method", method, METHODS)
    average = expect_choice(WHO, "average", average, ("macro", None))
    limits = _thresholds(iou_threshold, method)
    area = expect_choice(WHO, "area", area, AREAS)
    if area != "all" and method != "coco":
        raise wrong(WHO, 'area="all", except with method="coco"', "area", area)
    detections, objects = _checked(found, truth)
    labels = [d.labels for d in detections] + [t.labels for t in objects]
    K = max((int(a.max()) + 1 for a in labels if a.size), default=0)
    if classes is not None:
        K = expect_integer(WHO, "classes", classes, max(K, 1), MOST_CLASSES)
    per_class = np.full(K, np.nan)
    for k, images in _by_class(detections, objects, method, AREAS[area]).items():
        positives = sum(int((~image.ignored).sum()) for image in images)
        if positives:
            per_class[k] = np.mean([_precision(images, positives, method, limit)
                                    for limit in limits])
    if average is None:
        return per_class
    there = ~np.isnan(per_class)
    return float(per_class[there].mean()) if there.any() else np.nan


def _by_class(found: list[_Found], truth: list[_Truth], method: str, area: tuple[float, float]
              ) -> dict[int, list[_Image]]:
    """For each class the images in which it is or was found."""
    low, high = area
    images: dict[int, list[_Image]] = {}
    for d, t in zip(found, truth, strict=True):
        for k in np.union1d(d.labels, t.labels).tolist():
            own, there = d.labels == k, t.labels == k
            order = np.argsort(-d.scores[own], kind="stable")
            order = order[:MOST_FOUND] if method == "coco" else order
            boxes, crowd, areas = d.boxes[own][order], t.ignored[there], t.areas[there]
            size = box_area(boxes)
            images.setdefault(k, []).append(_Image(
                d.scores[own][order], (size < low) | (size > high),
                _overlaps(boxes, t.boxes[there], crowd if method == "coco" else False),
                crowd | (areas < low) | (areas > high), crowd))
    return images


def _precision(images: list[_Image], positives: int, method: str, limit: float) -> float:
    """AP of one class at one threshold of the IoU."""
    assign = _of_coco if method == "coco" else _of_voc
    results = [assign(image, limit) for image in images]
    right, counts = (np.concatenate([result[k] for result in results]) for k in range(2))
    order = np.argsort(-np.concatenate([image.scores for image in images]), kind="stable")
    right, counts = right[order], counts[order]
    hits, misses = np.cumsum(right & counts), np.cumsum(~right & counts)
    recall, precision = hits / positives, hits / np.maximum(hits + misses, 1)
    largest = np.maximum.accumulate(precision[::-1])[::-1]          # p at each of these recalls
    if method == "voc":
        return float((np.diff(recall, prepend=0.0) * largest).sum())
    at = np.arange(11) / 10 if method == "voc2007" else RECALLS
    index = np.searchsorted(recall, at, side="left")
    return float(np.concatenate([largest, [0.0]])[index].mean())


def _of_voc(image: _Image, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """Which detections of an image and a class are right, and which count."""
    right, counts = np.zeros(len(image.scores), bool), np.ones(len(image.scores), bool)
    taken = np.zeros(len(image.ignored), bool)
    for n, row in enumerate(image.overlaps if len(taken) else ()):
        best = row.argmax()
        if row[best] < limit:
            continue
        if image.ignored[best]:
            counts[n] = False
        elif not taken[best]:
            right[n] = taken[best] = True
    return right, counts


def _of_coco(image: _Image, limit: float) -> tuple[np.ndarray, np.ndarray]:
    """As _of_voc, by the rules of COCO."""
    right, counts = np.zeros(len(image.scores), bool), ~image.outside
    taken, limit = np.zeros(len(image.ignored), bool), min(limit, 1 - 1e-10)
    for n, row in enumerate(image.overlaps):
        # An object that counts goes before others. Of equal IoUs the last wins, as in COCO's code.
        left = image.crowd | ~taken
        for choice in (~image.ignored & left, image.ignored & left):
            fits = np.flatnonzero(choice & (row >= limit))[::-1]
            if fits.size:
                best = fits[row[fits].argmax()]
                right[n] = counts[n] = not image.ignored[best]
                taken[best] = True
                break
    return right, counts


def _overlaps(found: np.ndarray, truth: np.ndarray, crowd: Any) -> np.ndarray:
    """IoU (D, T); for a crowd the part of the detection that lies inside."""
    a, b = found.T[:, :, None], truth.T[:, None, :]
    iou = iou_of(np, a, b)
    if not np.any(crowd):
        return iou
    inter = np.maximum(np.minimum(a[2:], b[2:]) - np.maximum(a[:2], b[:2]), 0).prod(axis=0)
    area = np.maximum(a[2:] - a[:2], 0).prod(axis=0)
    return np.where(crowd, inter / np.where(area > 0, area, 1.0), iou)


def _thresholds(value: Any, method: str) -> list[float]:
    if value is None:
        return [*COCO] if method == "coco" else [0.5]
    limits = [value] if is_number(value) else items(value)
    if not limits or not all(is_number(limit) and 0 < limit <= 1 for limit in limits):
        raise wrong(WHO, "iou_threshold to be a number above 0, 1 at most, or several",
                    "iou_threshold", value)
    return [float(limit) for limit in limits]


def _checked(found: Any, truth: Any) -> tuple[list[_Found], list[_Truth]]:
    for name, images in (("found", found), ("truth", truth)):
        if not isinstance(images, Sequence) or isinstance(images, str | bytes):
            raise wrong(WHO, f"{name} to be a list with an entry for each image", name, images)
    if len(found) != len(truth):
        raise ValueError(f"{WHO}: expected found and truth of the same images. Received: "
                         f"{len(found)} and {len(truth)}.")
    return ([_found(entry) for entry in found], [_true(entry) for entry in truth])


def _found(entry: Any) -> _Found:
    if not isinstance(entry, tuple | list) or len(entry) != 3:
        raise wrong(WHO, "each entry of found to be (boxes, scores, labels)", "found", entry)
    boxes = expect_boxes(WHO, "boxes of found", entry[0])
    return _Found(boxes, expect_per_box(WHO, "scores of found", entry[1], len(boxes)),
                  expect_labels(WHO, "labels of found", entry[2], len(boxes)))


def _true(entry: Any) -> _Truth:
    if not isinstance(entry, tuple | list) or not 2 <= len(entry) <= 4:
        raise wrong(WHO, "each entry of truth to be (boxes, labels), with ignored and areas after "
                    "them or not", "truth", entry)
    boxes = expect_boxes(WHO, "boxes of truth", entry[0])
    labels, *more = entry[1:]
    ignored, areas = (expect_per_box(WHO, f"{name} of truth", more[k], len(boxes))
                      if k < len(more) else None for k, name in enumerate(("ignored", "areas")))
    if areas is not None and (areas < 0).any():
        raise ValueError(f"{WHO}: expected areas of truth of 0 or larger. Received: "
                         f"{areas.min():g}.")
    return _Truth(boxes, expect_labels(WHO, "labels of truth", labels, len(boxes)),
                  np.zeros(len(boxes), bool) if ignored is None else ignored.astype(bool),
                  box_area(boxes) if areas is None else areas)
