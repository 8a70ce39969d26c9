"""Objects in images: the targets that detectors are trained with, and what they find."""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any, NamedTuple

import numpy as np

from xpnet.backends import Backend
from xpnet.checks import (
    expect_choice,
    expect_flag,
    expect_instance,
    expect_integer,
    expect_number,
    finite_array,
    items,
    rows_of,
    wrong,
)
from xpnet.losses.detection import COLUMNS, DetectionLoss
from xpnet.vision.boxes import (
    FORMATS,
    clip_boxes,
    convert_boxes,
    expect_boxes,
    expect_labels,
    expect_size,
)
from xpnet.vision.letterbox import letterbox
from xpnet.vision.suppression import nms


class Detections(NamedTuple):
    """The objects that were found in an image, the most certain one first."""

    boxes: np.ndarray           # (M, 4) xyxy, in pixels
    scores: np.ndarray          # (M,), confidence times the probability of the class
    labels: np.ndarray          # (M,), class numbers


def detection_targets(boxes: Any, labels: Any, size: Any, *, format: str = "xyxy",
                      most: int | None = None) -> np.ndarray:
    """The objects of images as the targets of the YOLO losses: rows of class, x, y, w, h, (N, M,
    5).

    x, y, w and h are the centre and the size as fractions of the image. Boxes are clipped to the
    image. Images with fewer than M objects have rows of -1 and zeros at the end.

    Args:
        boxes: for each image its boxes (m, 4).
        labels: for each image the class numbers (m,).
        size: (height, width) of all images, or a list of these, one for each image.
        format: of the boxes, see `convert_boxes`.
        most: M; by default that of the image with the most objects.

    Raises:
        ValueError: a box is outside of its image, or an image has more than `most` objects.
    """
    who = "detection_targets"
    format = expect_choice(who, "format", format, FORMATS)
    images, names = _listed(who, "boxes", boxes), _listed(who, "labels", labels)
    if len(images) != len(names):
        raise ValueError(f"{who}: expected boxes and labels of the same images. Received: "
                         f"{len(images)} and {len(names)}.")
    several = rows_of(size) or ([*size] if isinstance(size, list) and all(map(items, size)) else [])
    sizes = several or [size] * len(images)
    if len(sizes) != len(images):
        raise ValueError(f"{who}: expected a size for each of {len(images)} images. "
                         f"Received: {len(sizes)}.")
    found = []
    for n, (own, classes, sides) in enumerate(zip(images, names, sizes, strict=True)):
        corners = convert_boxes(expect_boxes(who, f"boxes[{n}]", own), format, "xyxy",
                                expect_size(who, sides))
        corners = clip_boxes(corners, sides)
        if not (corners[:, 2:] > corners[:, :2]).all():
            raise ValueError(f"{who}: expected boxes that are partly inside of their image. "
                             f"Received: an empty one in boxes[{n}].")
        rows = np.empty((len(corners), COLUMNS))
        rows[:, 0] = expect_labels(who, f"labels[{n}]", classes, len(corners))
        rows[:, 1:] = convert_boxes(corners, "xyxy", "rel_cxcywh", sides)
        found.append(rows)
    M = max(map(len, found), default=0)
    if most is not None and expect_integer(who, "most", most) < M:
        raise ValueError(f"{who}: expected at most {most} objects in an image. Received: {M}.")
    out = np.zeros((len(found), max(M, 1) if most is None else most, COLUMNS))
    out[..., 0] = -1
    for rows, own in zip(out, found, strict=True):
        rows[:len(own)] = own
    return out


def loss_parts(loss: DetectionLoss, y: Any, target: Any, *, cells: bool = False
               ) -> dict[str, np.ndarray]:
    """The terms of a YOLO loss by name, each (N,), for batch-first outputs y (N, D, S_h, S_w) and
    rows (N, M, 5); the loss is the mean of their sum.

    Args:
        cells: True for the terms of each cell, (N, S_h, S_w).
    """
    who = "loss_parts"
    cells = expect_flag(who, "cells", cells)
    loss = expect_instance(who, "loss", loss, DetectionLoss, "a YOLO loss")
    y = _output(who, loss, y)
    goal = np.ascontiguousarray(np.moveaxis(loss.targets(target, y.shape[:-1], y.dtype), 0, -1))
    if goal.shape[-1] != y.shape[-1]:
        raise ValueError(f"{who}: expected as many outputs as targets. Received: {y.shape[-1]} and "
                         f"{goal.shape[-1]}.")
    found = (loss.cell_parts if cells else loss.parts)(Backend(), y, goal)[0]
    return {name: np.moveaxis(term, -1, 0) for name, term in found.items()}


def detections(y: Any, loss: Any, size: Any, *, score_threshold: float = 0.25,
               iou_threshold: float = 0.45, agnostic: bool = False, top: int = 100
               ) -> list[Detections]:
    """The boxes in a detector's outputs: for each image the Detections, after non-maximum
    suppression.

    The score of a box and a class is the confidence times the probability of the class (Redmon et
    al. 2016, eq. 1). A box may have several classes.

    Args:
        y: the output (N, D, S_h, S_w) of the network; a list of them for several outputs.
        loss: the YOLO loss that it was trained with, or a list of them.
        size: (height, width) of the images.
        score_threshold: pairs of box and class with a smaller score are left out. For mean average
            precision, take a small one, e.g. 0.005.
        iou_threshold: of `nms`.
        agnostic: whether boxes of different classes suppress each other.
        top: the most detections of an image.
    """
    who = "detections"
    least, limit, agnostic, top = _choice(who, score_threshold, iou_threshold, agnostic, top)
    height, width = expect_size(who, size)
    outputs, losses = (([*a] if isinstance(a, list | tuple) else [a]) for a in (y, loss))
    if len(outputs) != len(losses) or not losses:
        raise ValueError(f"{who}: expected a loss for each output. Received: {len(losses)} and "
                         f"{len(outputs)}.")
    boxes, scores = [], []
    for one, of_one in zip(outputs, losses, strict=True):
        of_one = expect_instance(who, "loss", of_one, DetectionLoss, "a YOLO loss")
        p = of_one.predictions(np, _output(who, of_one, one))
        boxes.append(p.boxes.reshape(4, -1, p.boxes.shape[-1]))                 # (4, P, N)
        each = p.confidence * p.classes                                         # (K, B, ..., N)
        scores.append(each.reshape(len(each), -1, each.shape[-1]))              # (K, P, N)
    if len({(len(s), s.shape[-1]) for s in scores}) > 1:
        raise ValueError(f"{who}: expected outputs of the same images and classes. Received: "
                         f"{[s.shape[-1] for s in scores]} images.")
    of_image, of_classes = np.concatenate(boxes, axis=1), np.concatenate(scores, axis=1)
    sides = np.array([width, height, width, height], np.float64)
    found = []
    for n in range(of_image.shape[-1]):
        labels, places = np.nonzero(of_classes[..., n] >= least)
        certain = of_classes[labels, places, n].astype(np.float64)
        corners = clip_boxes(of_image[:, places, n].T.astype(np.float64) * sides, size)
        full = (corners[:, 2:] > corners[:, :2]).all(axis=1)
        corners, certain, labels = corners[full], certain[full], labels[full]
        kept = nms(corners, certain, None if agnostic else labels, iou_threshold=limit)[:top]
        found.append(Detections(corners[kept], certain[kept], labels[kept]))
    return found


def detect(net: Any, images: Any, *, score_threshold: float = 0.25, iou_threshold: float = 0.45,
           agnostic: bool = False, top: int = 100, batch_size: int = 256) -> list[Detections]:
    """The objects that a network finds in images (N, C, H, W) of its input's size: `detections` of
    its outputs.

    Args:
        net: a network that was trained with YOLO losses, one for each output, or was read from
            Darknet's files.
        batch_size: images of a forward pass.
    """
    losses = detector_losses("detect", net)
    outputs = net.predict(images, batch_size=batch_size)
    return detections(list(net.outs.unpack(outputs, "detect", "outputs")), losses,
                      net.input.shape[1:], score_threshold=score_threshold,
                      iou_threshold=iou_threshold, agnostic=agnostic, top=top)


def detect_files(net: Any, paths: str | os.PathLike[str] | Sequence[str | os.PathLike[str]], *,
                 score_threshold: float = 0.25, iou_threshold: float = 0.45,
                 agnostic: bool = False, top: int = 100) -> list[Detections]:
    """The objects in image files, with boxes in the pixels of each file.

    `letterbox` fits each image into the network's input, with grey bars. Bytes are divided by
    `net.scale`.

    Args:
        net: as in `detect`, with images of 1 or 3 channels.
        paths: an image file, or a list of them.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: a file is no image or is damaged, or the network does not know its scale.
        ImportError: Pillow is not installed.
    """
    from xpnet.data.images import image_pixels, picture_file
    who = "detect_files"
    detector_losses(who, net)
    _choice(who, score_threshold, iou_threshold, agnostic, top)
    channels, *size = net.input.shape
    if channels not in (1, 3) or len(size) != 2:
        raise ValueError(f"{who}: expected a network that takes images of 1 or 3 channels. "
                         f"Received: input shape {net.input.shape}.")
    if net.scale is None:
        raise ValueError(f"{who}: expected a network that knows what pixels are divided by; set "
                         "net.scale = 255 before it is saved, or 1 if it takes bytes. Received: "
                         "net.scale=None.")
    given = [paths] if isinstance(paths, str | os.PathLike) else items(paths)
    if given is None:
        raise wrong(who, "a path or a list of paths", "paths", paths)
    found = []
    for path in given:
        pixels = image_pixels(picture_file(path, who), channels, who)
        image, place = letterbox(pixels, size, fill=127)
        one, = detect(net, image[None] / net.scale, score_threshold=score_threshold,
                      iou_threshold=iou_threshold, agnostic=agnostic, top=top)
        boxes = place.backward(one.boxes)
        seen = (boxes[:, 2:] > boxes[:, :2]).all(axis=1)        # others lie within the bars
        found.append(Detections(boxes[seen], one.scores[seen], one.labels[seen]))
    return found


def detector_losses(who: str, net: Any) -> list[DetectionLoss]:
    """The losses of a network's outputs, or what decodes those of a network that was read from
    Darknet's files. Raises ValueError if there is none, or one is not a YOLO loss."""
    losses = (list(getattr(getattr(net, "trained", None), "losses", ()))
              or [head.decoder() for head in getattr(getattr(net, "darknet", None), "heads", ())])
    if not losses or not all(isinstance(loss, DetectionLoss) for loss in losses):
        raise ValueError(f"{who}: expected a network that was trained with a YOLO loss for each "
                         "output, or one of a cfg file with a [yolo], [region] or [detection] "
                         "section. Received: "
                         + (", ".join(type(loss).__name__ for loss in losses)
                            or f"{type(net).__name__} without losses") + ".")
    return losses


def _choice(who: str, least: Any, limit: Any, agnostic: Any, top: Any
            ) -> tuple[float, float, bool, int]:
    """Which boxes are kept: the checked arguments of `detections`."""
    return (expect_number(who, "score_threshold", least),
            expect_number(who, "iou_threshold", limit, 0),
            expect_flag(who, "agnostic", agnostic), expect_integer(who, "top", top))


def _listed(who: str, name: str, value: Any) -> list[Any]:
    """An entry for each image: a list, or the rows of an array."""
    if isinstance(value, np.ndarray) and value.ndim > 1:
        return list(value)
    if not isinstance(value, list | tuple):
        raise wrong(who, f"{name} to be a list with an entry for each image", name, value)
    return list(value)


def _output(who: str, loss: DetectionLoss, y: Any) -> np.ndarray:
    """An output (N, D, S_h, S_w), batch-last."""
    y = finite_array(y, f"{who}: y")
    loss.expect_grid(y.shape[1:])
    return np.ascontiguousarray(np.moveaxis(
        y if y.dtype.kind == "f" else y.astype(np.float64), 0, -1))
