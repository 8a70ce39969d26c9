"""The sections [yolo], [region] and [detection], which decode boxes from a raw map."""

from __future__ import annotations

import math
from dataclasses import dataclass

from xpnet.buffers import Shape
from xpnet.io.darknet.cfg import Section
from xpnet.losses import YOLOv1, YOLOv2, YOLOv3

HEADS = "yolo", "region", "detection"
# options that are words or lists; all others are numbers
WORDS = "iou_loss", "iou_thresh_kind", "nms_kind", "counters_per_class"
MOST_BOXES = 2**10      # of a cell in [detection]
READ = "anchors", "mask", "classes", "num", "coords", "side"
Needed = dict[str, tuple[tuple[str, float | str, float | str], ...]]
# What the losses of xpnet compute: an option, its value for this, and Darknet's default.
DECODED: Needed = {                 # in a prediction
    "yolo": (("new_coords", 0.0, 0.0),), "region": (("softmax", 1.0, 0.0),),
    "detection": (("sqrt", 1.0, 0.0), ("softmax", 0.0, 0.0), ("reorg", 0.0, 0.0))}
TRAINED: Needed = {                 # in training
    "yolo": (("iou_loss", "mse", "mse"), ("iou_thresh", 1.0, 1.0), ("truth_thresh", 1.0, 1.0),
             ("focal_loss", 0.0, 0.0), ("label_smooth_eps", 0.0, 0.0),
             ("objectness_smooth", 0.0, 0.0), ("counters_per_class", "", ""),
             *((f"{of}_normalizer", 1.0, 1.0) for of in ("iou", "obj", "cls", "delta")),
             ("max_delta", math.inf, math.inf)),
    "region": (("bias_match", 1.0, 0.0), ("focal_loss", 0.0, 0.0), ("classfix", 0.0, 0.0)),
    "detection": (("object_scale", 1.0, 1.0), ("class_scale", 1.0, 1.0), ("forced", 0.0, 0.0))}
WHY = {"new_coords": "; with 1 the outputs have gone through a sigmoid, and w = 4 y^2 times the "
                     "anchor"}


@dataclass(frozen=True)
class Head:
    """A section that decodes boxes from the raw map of the layer before it.

    The network's output is the raw map; nothing of the decoding is part of the graph. Only the
    numbers of [detection] are in another order than Darknet's, that of xn.YOLOv1.

    Attributes:
        kind: "yolo", "region" or "detection".
        index: number of the section among the layers, from 0.
        layer: name of the layer whose output is the raw map, e.g. "conv15".
        classes: number of classes.
        anchors: (width, height) of each anchor: in pixels of the network's input for "yolo", in
            cells for "region", none for "detection".
        mask: which anchors this map has, in the order of its channels.
        boxes: boxes of each cell.
        coords: numbers for the position of a box, 4.
        input_size: rows and columns of the network's input; () if it is a vector.
        grid: rows and columns of the raw map.
        settings: the other options, as numbers or words.
    """

    kind: str
    index: int
    layer: str
    classes: int
    anchors: tuple[tuple[float, float], ...]
    mask: tuple[int, ...]
    boxes: int
    coords: int
    input_size: Shape
    grid: Shape
    settings: dict[str, float | str]

    def loss(self) -> YOLOv1 | YOLOv2 | YOLOv3:
        """The loss with the anchors, classes and factors of this section, which also decodes the
        raw map.

        Raises:
            ValueError: Darknet trains with another loss, for example with iou_loss=ciou, or decodes
                in another way; see `decoder`.
        """
        self._expect("loss", TRAINED)
        return self._made("loss")

    def decoder(self) -> YOLOv1 | YOLOv2 | YOLOv3:
        """The same loss for decoding alone, as `xpnet.vision.detections` does. A section that
        Darknet trains with another loss has a decoder, too.

        Raises:
            ValueError: the section decodes boxes in another way: [yolo] with new_coords, [region]
                without softmax, or [detection] without sqrt. Or the network of a [yolo] section
                does not read images.
        """
        return self._made("decoder")

    def _expect(self, who: str, needed: Needed) -> None:
        for key, value, default in needed.get(self.kind, ()):
            given = self.settings.get(key, default)
            if given != value:
                expected = f"{key}={value}" if value != "" else f"no {key}"
                raise ValueError(f"Head.{who}: expected {expected}, as in the losses of xpnet"
                                 f"{WHY.get(key, '')}. Received: {key}={given} in [{self.kind}] of "
                                 f"layer {self.index}.")

    def _made(self, who: str) -> YOLOv1 | YOLOv2 | YOLOv3:
        def setting(key: str, default: float) -> float:
            return float(self.settings.get(key, default))

        self._expect(who, DECODED)
        if self.kind == "detection":
            return YOLOv1(self.classes, self.boxes, lambda_coord=setting("coord_scale", 1),
                          lambda_noobj=setting("noobject_scale", 1),
                          rescore=bool(setting("rescore", 0)))
        if self.kind == "region":
            rows, columns = self.grid
            return YOLOv2([(w / columns, h / rows) for w, h in self.anchors], self.classes,
                          lambda_coord=setting("coord_scale", 1), threshold=setting("thresh", 0.5),
                          lambda_obj=setting("object_scale", 1),
                          lambda_noobj=setting("noobject_scale", 1),
                          lambda_class=setting("class_scale", 1),
                          rescore=bool(setting("rescore", 0)))
        if len(self.input_size) != 2:       # anchors in pixels need its height and width
            raise ValueError(f"Head.{who}: expected a network that reads images. Received: [yolo] "
                             f"of layer {self.index} without height and width of [net].")
        height, width = self.input_size
        if setting("scale_x_y", 1) < 1:
            raise ValueError(f"Head.{who}: expected scale_x_y of 1 or larger. Received: scale_x_y="
                             f"{self.settings['scale_x_y']} in [yolo] of layer {self.index}.")
        return YOLOv3([(w / width, h / height) for w, h in self.anchors], self.classes,
                      mask=self.mask, scale_xy=setting("scale_x_y", 1),
                      threshold=setting("ignore_thresh", 0.5))


def head(section: Section, layer: str, shape: Shape, input_shape: Shape) -> Head:
    """What a section says, if it fits a raw map of this shape, of a network with such an input.

    Raises ValueError if it does not.
    """
    kind = section.kind
    old = kind == "detection"
    classes = section.integer("classes", 1 if old else 20)
    num, coords = section.integer("num", 1, 1), section.integer("coords", 1 if old else 4)
    if coords != 4:
        raise section.wrong("coords=4", "coords")
    if old:
        if num > MOST_BOXES:
            raise section.wrong(f"num to be at most {MOST_BOXES}", "num")
        side = section.integer("side", 7, 1)
        outputs = side * side * (num * (1 + coords) + classes)
        if shape not in ((outputs,), (outputs, 1, 1)):
            raise section.wrong(f"{outputs} inputs, side^2 (5 num + classes)",
                                received=f"shape {shape}")
        return Head(kind, section.index, layer, classes, (), (), num, coords, input_shape[1:],
                    (side, side), _others(section))
    anchors = section.numbers("anchors")
    if len(anchors) != 2 * num or min(anchors) <= 0:
        raise section.wrong(f"anchors to be {2 * num} numbers above 0, two for each of num={num}",
                            "anchors")
    mask = section.integers("mask", [*range(num)], 0) if kind == "yolo" else [*range(num)]
    if max(mask) >= num or len({*mask}) < len(mask):
        raise section.wrong(f"mask to be numbers below num={num}, none twice", "mask")
    channels = len(mask) * (1 + coords + classes)
    if len(shape) != 3 or shape[0] != channels:
        raise section.wrong(f"a map of {channels} channels, {len(mask)} (5 + classes)",
                            received=f"shape {shape}")
    pairs = tuple(zip(anchors[::2], anchors[1::2], strict=True))
    return Head(kind, section.index, layer, classes, pairs, tuple(mask), len(mask), coords,
                input_shape[1:], shape[1:], _others(section))


def _others(section: Section) -> dict[str, float | str]:
    return {key: section.word(key, "") if key in WORDS else section.number(key)
            for key in section.options if key not in READ}
