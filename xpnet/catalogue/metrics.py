"""The catalogue: metrics."""

from __future__ import annotations

from xpnet.catalogue.item import Item
from xpnet.metrics import (
    accuracy,
    confusion_matrix,
    f1_score,
    mean_iou,
    precision,
    psnr,
    recall,
    ssim,
    top_k_accuracy,
)

ITEMS: list[Item] = [
    Item(accuracy, keras="SparseCategoricalAccuracy", numpynet="mean_accuracy_score", common=True),
    Item(top_k_accuracy, keras="SparseTopKCategoricalAccuracy"),
    Item(confusion_matrix),
    Item(precision, keras="Precision"),
    Item(recall, keras="Recall"),
    Item(f1_score, keras="F1Score"),
    Item(mean_iou, keras="MeanIoU", numpynet="mean_iou_score"),
    Item(psnr, keras="ops.psnr"),
    Item(ssim, keras="ops.image.ssim"),
]
