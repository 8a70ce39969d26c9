"""YOLO detectors, written as cfg files of Darknet and read as `xn.io.load_darknet` reads them.

Their outputs are the raw maps, one for each [yolo] or [region] section; `net.darknet.heads` says
how to decode them. `weights` is the name of a weights file, e.g. the published "yolov3.weights".
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from xpnet.backends import Backend
from xpnet.checks import expect_integer
from xpnet.layer import Shape
from xpnet.models.darknet import (
    conv,
    layers19,
    layers53,
    linear,
    made,
    pool,
    route,
    section,
    shortcut,
)
from xpnet.network import Network

if TYPE_CHECKING:
    from pathlib import Path

COCO = (10, 13, 16, 30, 33, 23, 30, 61, 62, 45, 59, 119, 116, 90, 156, 198, 373, 326)
COCO_OF_V4 = (12, 16, 19, 36, 40, 28, 36, 75, 76, 55, 72, 146, 142, 110, 192, 243, 459, 401)
COCO_OF_TINY = (10, 14, 23, 27, 37, 58, 81, 82, 135, 169, 344, 319)
COCO_OF_V2 = (0.57273, 0.677385, 1.87446, 2.06253, 3.33843, 5.47434, 7.88282, 3.52778, 9.77052,
              9.16828)      # in cells


def yolo(mask: Sequence[int], anchors: Sequence[float], classes: int, **options: object) -> str:
    """The 1x1 convolution to the raw map, and the section that decodes it."""
    return linear(len(mask) * (5 + classes)) + section(
        "yolo", mask=",".join(map(str, mask)), anchors=",".join(map(str, anchors)),
        classes=classes, num=len(anchors) // 2, jitter=0.3, ignore_thresh=0.7, truth_thresh=1,
        random=1, **options)


def region(anchors: Sequence[float], classes: int) -> str:
    return linear(len(anchors) // 2 * (5 + classes)) + section(
        "region", anchors=",".join(map(str, anchors)), bias_match=1, classes=classes, coords=4,
        num=len(anchors) // 2, softmax=1, jitter=0.3, rescore=1, object_scale=5, noobject_scale=1,
        class_scale=1, coord_scale=1, absolute=1, thresh=0.6, random=1)


def pairs(filters: int, times: int = 1) -> str:
    """1x1 convolutions to `filters` maps, each followed by a 3x3 convolution to twice as many."""
    return (conv(filters, 1) + conv(2 * filters, 3)) * times


def pyramid() -> str:
    """Maxima of 5x5, 9x9 and 13x13 windows, and the maps themselves (He et al. 2014)."""
    return pool(5, 1) + route(-2) + pool(9, 1) + route(-4) + pool(13, 1) + route(-1, -3, -5, -6)


def upsampled(filters: int) -> str:
    return conv(filters, 1) + section("upsample", stride=2)


# --- version 2 and 3 ------------------------------------------------------------------------------

def yolov2(input_shape: Shape = (3, 608, 608), *, classes: int = 80,
           weights: str | Path | None = None, backend: str | Backend = "auto",
           dtype: Any = "float32", seed: int = 0) -> Network:
    """YOLOv2: Darknet-19 with a map of twice the resolution, whose blocks of 2x2 pixels become
    channels; 50,962,889 parameters for 80 classes.

    Redmon and Farhadi 2017, section 2.
    """
    expect_integer("yolov2", "classes", classes)
    layers = layers19() + conv(1024, 3) * 2 + route(-9) + conv(64, 1) + section("reorg", stride=2)
    layers += route(-1, -4) + conv(1024, 3) + region(COCO_OF_V2, classes)
    return made("yolov2", input_shape, layers, weights, backend, dtype, seed)


def _tiny() -> str:
    """Convolutions from 16 to 1024 maps: 13 sections."""
    stages = (conv(16 * 2**k, 3) + pool(2, 2 if k < 5 else 1) for k in range(6))
    return "".join(stages) + conv(1024, 3)


def yolov2_tiny(input_shape: Shape = (3, 416, 416), *, classes: int = 80,
                weights: str | Path | None = None, backend: str | Backend = "auto",
                dtype: Any = "float32", seed: int = 0) -> Network:
    """The small YOLOv2 of nine convolutions; 11,232,057 parameters for 80 classes.

    Redmon and Farhadi 2017; the architecture is that of yolov2-tiny.cfg.
    """
    expect_integer("yolov2_tiny", "classes", classes)
    layers = _tiny() + conv(512, 3) + region(COCO_OF_V2, classes)
    return made("yolov2_tiny", input_shape, layers, weights, backend, dtype, seed)


def _three_scales(middle: str, classes: int) -> str:
    """The heads of YOLOv3 at three resolutions; `middle` are the first convolutions of the coarsest
    one."""
    def out(first: int) -> str:
        return yolo(range(first, first + 3), COCO, classes)

    text = middle + out(6)
    for filters, layer, first in ((256, 61, 3), (128, 36, 0)):
        text += route(-4) + upsampled(filters) + route(-1, layer) + pairs(filters, 3) + out(first)
    return text


def yolov3(input_shape: Shape = (3, 416, 416), *, classes: int = 80,
           weights: str | Path | None = None, backend: str | Backend = "auto",
           dtype: Any = "float32", seed: int = 0) -> Network:
    """YOLOv3: Darknet-53 and heads at three resolutions; 61,949,149 parameters for 80 classes.

    Redmon and Farhadi 2018, section 2.
    """
    expect_integer("yolov3", "classes", classes)
    layers = layers53() + _three_scales(pairs(512, 3), classes)
    return made("yolov3", input_shape, layers, weights, backend, dtype, seed)


def yolov3_spp(input_shape: Shape = (3, 608, 608), *, classes: int = 80,
               weights: str | Path | None = None, backend: str | Backend = "auto",
               dtype: Any = "float32", seed: int = 0) -> Network:
    """YOLOv3 with spatial pyramid pooling in front of its coarsest head.

    Redmon and Farhadi 2018; pooling: He et al. 2014.
    """
    expect_integer("yolov3_spp", "classes", classes)
    middle = pairs(512) + conv(512, 1) + pyramid() + pairs(512, 2)
    layers = layers53() + _three_scales(middle, classes)
    return made("yolov3_spp", input_shape, layers, weights, backend, dtype, seed)


def yolov3_tiny(input_shape: Shape = (3, 416, 416), *, classes: int = 80,
                weights: str | Path | None = None, backend: str | Backend = "auto",
                dtype: Any = "float32", seed: int = 0) -> Network:
    """The small YOLOv3 of 13 convolutions and two heads; 8,852,366 parameters for 80 classes.

    Redmon and Farhadi 2018; the architecture is that of yolov3-tiny.cfg.
    """
    expect_integer("yolov3_tiny", "classes", classes)
    layers = _tiny() + pairs(256) + yolo((3, 4, 5), COCO_OF_TINY, classes)
    layers += route(-4) + upsampled(128) + route(-1, 8) + conv(256, 3)
    layers += yolo((0, 1, 2), COCO_OF_TINY, classes)
    return made("yolov3_tiny", input_shape, layers, weights, backend, dtype, seed)


# --- version 4 ------------------------------------------------------------------------------------

def _csp53() -> str:
    """CSPDarknet-53: in each stage one half of the maps goes around the residual blocks (Wang et
    al. 2020); 105 sections."""
    def mish(filters: int, size: int, stride: int = 1) -> str:
        return conv(filters, size, stride, "mish")

    text = mish(32, 3)
    for filters, blocks in ((64, 1), (128, 2), (256, 8), (512, 8), (1024, 4)):
        half = 64 if filters == 64 else filters // 2
        inner = filters // 2
        text += mish(filters, 3, 2) + mish(half, 1) + route(-2) + mish(half, 1)
        text += (mish(inner, 1) + mish(half, 3) + shortcut(-3)) * blocks
        text += mish(half, 1) + route(-1, -(3 * blocks + 4)) + mish(filters, 1)
    return text


def yolov4(input_shape: Shape = (3, 608, 608), *, classes: int = 80,
           weights: str | Path | None = None, backend: str | Backend = "auto",
           dtype: Any = "float32", seed: int = 0) -> Network:
    """YOLOv4: CSPDarknet-53, spatial pyramid pooling, and paths from coarse to fine maps and back;
    64,363,101 parameters for 80 classes.

    Bochkovskiy et al. 2020, section 3.4.
    """
    expect_integer("yolov4", "classes", classes)

    def out(first: int, scale: float) -> str:
        return conv(128 * 2**(first // 3 + 1), 3) + yolo(
            range(first, first + 3), COCO_OF_V4, classes, scale_x_y=scale, iou_thresh=0.213,
            cls_normalizer=1.0, iou_normalizer=0.07, iou_loss="ciou", nms_kind="greedynms",
            beta_nms=0.6, max_delta=5)

    layers = _csp53() + pairs(512) + conv(512, 1) + pyramid() + pairs(512) + conv(512, 1)
    for filters, layer in ((256, 85), (128, 54)):           # to finer maps
        layers += upsampled(filters) + route(layer) + conv(filters, 1) + route(-1, -3)
        layers += pairs(filters, 2) + conv(filters, 1)
    layers += out(0, 1.2)
    for filters, layer, first, scale in ((256, -16, 3, 1.1), (512, -37, 6, 1.05)):  # and back
        layers += route(-4) + conv(filters, 3, 2) + route(-1, layer)
        layers += pairs(filters, 2) + conv(filters, 1) + out(first, scale)
    return made("yolov4", input_shape, layers, weights, backend, dtype, seed)


def yolov4_tiny(input_shape: Shape = (3, 416, 416), *, classes: int = 80,
                weights: str | Path | None = None, backend: str | Backend = "auto",
                dtype: Any = "float32", seed: int = 0) -> Network:
    """The small YOLOv4: three blocks in which half of the maps goes around (Wang et al. 2020), and
    two heads; 6,056,606 parameters for 80 classes.

    Bochkovskiy et al. 2020; the architecture is that of yolov4-tiny.cfg.
    """
    expect_integer("yolov4_tiny", "classes", classes)
    layers = conv(32, 3, 2) + conv(64, 3, 2)
    for filters in (64, 128, 256):
        layers += conv(filters, 3) + route(-1, groups=2, group_id=1)
        layers += conv(filters // 2, 3) * 2 + route(-1, -2) + conv(filters, 1)
        layers += route(-6, -1) + pool()
    layers += conv(512, 3) + pairs(256) + yolo((3, 4, 5), COCO_OF_TINY, classes, scale_x_y=1.05)
    layers += route(-4) + upsampled(128) + route(-1, 23) + conv(256, 3)
    layers += yolo((1, 2, 3), COCO_OF_TINY, classes, scale_x_y=1.05)
    return made("yolov4_tiny", input_shape, layers, weights, backend, dtype, seed)
