"""Losses, one file per family, and their names."""

from __future__ import annotations

from xpnet.checks import expect_named
from xpnet.losses.anchors import YOLOv2, YOLOv3
from xpnet.losses.base import Loss
from xpnet.losses.binary import BinaryCrossEntropy, FocalCrossEntropy, MultiLabelCrossEntropy
from xpnet.losses.boxes import BoxIoU
from xpnet.losses.classification import (
    BoundedCrossEntropy,
    CrossEntropy,
    Hellinger,
    KullbackLeibler,
    NegativeLogLikelihood,
    WeightedCrossEntropy,
)
from xpnet.losses.detection import YOLOv1
from xpnet.losses.landmarks import HeatMaps, Landmarks
from xpnet.losses.margin import (
    CrammerSingerHinge,
    Hinge,
    HingeEmbedding,
    MultiLabelMargin,
    WassersteinCritic,
    WestonWatkinsHinge,
)
from xpnet.losses.regression import (
    CosineDistance,
    GaussianLikelihood,
    HalfSquaredError,
    Huber,
    LogCosh,
    MeanAbsoluteError,
    MeanSquaredError,
    PoissonLikelihood,
    SmoothL1,
)
from xpnet.losses.segmentation import Dice, Jaccard, Tversky

__all__ = [
    "BinaryCrossEntropy", "BoundedCrossEntropy", "BoxIoU", "CosineDistance", "CrammerSingerHinge",
    "CrossEntropy", "Dice", "FocalCrossEntropy", "GaussianLikelihood", "HalfSquaredError",
    "HeatMaps", "Hellinger", "Hinge", "HingeEmbedding", "Huber", "Jaccard", "KullbackLeibler",
    "Landmarks", "LogCosh", "Loss", "MeanAbsoluteError", "MeanSquaredError",
    "MultiLabelCrossEntropy", "MultiLabelMargin", "NegativeLogLikelihood", "PoissonLikelihood",
    "SmoothL1", "Tversky", "WassersteinCritic", "WeightedCrossEntropy", "WestonWatkinsHinge",
    "YOLOv1", "YOLOv2", "YOLOv3",
]

LOSSES: dict[str, type[Loss]] = {
    "cross_entropy": CrossEntropy, "mean_squared_error": MeanSquaredError,
    "half_squared_error": HalfSquaredError,
    "mean_absolute_error": MeanAbsoluteError, "huber": Huber, "smooth_l1": SmoothL1,
    "log_cosh": LogCosh,
    "binary_cross_entropy": BinaryCrossEntropy, "multi_label_cross_entropy": MultiLabelCrossEntropy,
    "negative_log_likelihood": NegativeLogLikelihood, "hinge": Hinge, "dice": Dice,
    "jaccard": Jaccard,
}


def get_loss(loss: str | Loss) -> Loss:
    """The loss with this name in LOSSES; a Loss is returned as it is."""
    found: Loss = expect_named("get_loss", "a Loss", loss, Loss, LOSSES)
    return found
