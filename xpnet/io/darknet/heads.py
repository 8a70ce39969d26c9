"""The sections [yolo], [region] and [detection], which decode boxes from a raw map."""

from __future__ import annotations

from dataclasses import dataclass

from xpnet.buffers import Shape
from xpnet.io.darknet.cfg import Section
from xpnet.losses import YOLOv2, YOLOv3

HEADS = "yolo", "region", "detection"
# options that are words or lists; all others are numbers
WORDS = "iou_loss", "iou_thresh_kind", "nms_kind", "counters_per_class"
READ = "anchors", "mask", "classes", "num", "coords", "side"
# What the losses of xpnet compute: an option, its value for this, and Darknet's default
NEEDED: dict[str, tuple[tuple[str, float | str, float | str], ...]] = {
    "yolo": (("scale_x_y", 1.0, 1.0), ("new_coords", 0.0, 0.0), ("iou_loss", "mse", "mse")),
    "region": (("softmax", 1.0, 0.0),)}


@dataclass(frozen=True)
class Head:
    """A section that decodes boxes from the raw map of the layer before it.

    The network's output is the raw map; nothing of the decoding is part of the graph.

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
        input_size: rows and columns of the network's input.
        grid: rows and columns of the raw map; () of "detection".
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

    def loss(self) -> YOLOv2 | YOLOv3:
        """The loss with the anchors, classes and factors of this section, which also decodes the
        raw map.

        Raises:
            ValueError: the section decodes boxes in another way, as [detection] does, and [yolo]
                with scale_x_y or new_coords; or its loss is another one (iou_loss).
        """
        def setting(key: str, default: float) -> float:
            return float(self.settings.get(key, default))

        if self.kind not in NEEDED:
            raise ValueError("Head.loss: expected a section whose boxes have anchors, [yolo] or "
                             f"[region]. Received: [{self.kind}].")
        for key, value, default in NEEDED[self.kind]:
            given = self.settings.get(key, default)
            if given != value:
                raise ValueError(f"Head.loss: expected {key}={value}, which xn.losses has. "
                                 f"Received: {key}={given} in [{self.kind}] of layer {self.index}.")
        if self.kind == "region":
            rows, columns = self.grid
            return YOLOv2([(w / columns, h / rows) for w, h in self.anchors], self.classes,
                          lambda_coord=setting("coord_scale", 1), threshold=setting("thresh", 0.5),
                          lambda_obj=setting("object_scale", 1),
                          lambda_noobj=setting("noobject_scale", 1),
                          lambda_class=setting("class_scale", 1),
                          rescore=bool(setting("rescore", 0)))
        height, width = self.input_size
        return YOLOv3([(w / width, h / height) for w, h in self.anchors], self.classes,
                      mask=self.mask, threshold=setting("ignore_thresh", 0.5))


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
        side = section.integer("side", 7, 1)
        outputs = side * side * (num * (1 + coords) + classes)
        if shape not in ((outputs,), (outputs, 1, 1)):
            raise section.wrong(f"{outputs} inputs, side^2 (5 num + classes)",
                                received=f"shape {shape}")
        return Head(kind, section.index, layer, classes, (), (), num, coords, input_shape[1:], (),
                    _others(section))
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
