"""What a network finds in an image besides its class: boxes around objects, landmarks, regions.

The functions take and return batch-first NumPy arrays. The losses and the layer of these tasks are
in xpnet itself: YOLOv1, YOLOv2, YOLOv3, BoxIoU, Landmarks, HeatMaps, WeightedCrossEntropy, and
SoftArgmax2d.
"""

from xpnet.vision.anchors import anchor_iou, kmeans_anchors
from xpnet.vision.average_precision import mean_average_precision
from xpnet.vision.boxes import box_area, box_iou, clip_boxes, convert_boxes
from xpnet.vision.detections import (
    Detections,
    detect,
    detect_files,
    detection_targets,
    detections,
    loss_parts,
)
from xpnet.vision.drawing import draw_boxes
from xpnet.vision.landmarks import (
    heatmaps,
    landmark_points,
    landmark_targets,
    normalized_mean_error,
    pck,
)
from xpnet.vision.letterbox import Letterbox, letterbox
from xpnet.vision.segmentation import boundary_weights
from xpnet.vision.suppression import nms, soft_nms

__all__ = [
    "Detections", "Letterbox", "anchor_iou", "boundary_weights", "box_area", "box_iou",
    "clip_boxes", "convert_boxes", "detect", "detect_files", "detection_targets", "detections",
    "draw_boxes", "heatmaps", "kmeans_anchors", "landmark_points", "landmark_targets", "letterbox",
    "loss_parts", "mean_average_precision", "nms", "normalized_mean_error", "pck", "soft_nms",
]
