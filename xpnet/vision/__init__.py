"""What images are for beside classes: boxes around objects, landmarks, regions.

The functions take and return batch-first NumPy arrays. Losses and layers for these tasks are in
xpnet itself: xn.YOLOv1, xn.YOLOv2, xn.YOLOv3, xn.BoxIoU.
"""

from xpnet.vision.anchors import anchor_iou, kmeans_anchors
from xpnet.vision.average_precision import mean_average_precision
from xpnet.vision.boxes import box_area, box_iou, clip_boxes, convert_boxes
from xpnet.vision.letterbox import Letterbox, letterbox
from xpnet.vision.suppression import nms, soft_nms

__all__ = ["Letterbox", "anchor_iou", "box_area", "box_iou", "clip_boxes", "convert_boxes",
           "kmeans_anchors", "letterbox", "mean_average_precision", "nms", "soft_nms"]
