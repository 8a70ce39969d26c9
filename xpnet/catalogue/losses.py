"""The catalogue: losses and metrics."""

from __future__ import annotations

from functools import partial

import numpy as np

from xpnet import losses, metrics, vision
from xpnet.catalogue.item import Item

FIVE = ((5,),)
MAP = ((3, 4, 5),)


def labels(rng: np.random.Generator, N: int) -> np.ndarray:
    """Labels of five classes."""
    return rng.integers(0, 5, N)


def numbers(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five numbers per sample."""
    return rng.standard_normal((N, 5))


def counts(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five counts per sample."""
    return rng.integers(0, 4, (N, 5))


def shares(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five numbers from 0 to 1 per sample."""
    return rng.random((N, 5))


def signs(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five numbers -1 or 1 per sample."""
    return rng.choice([-1.0, 1.0], (N, 5))


def yes_or_no(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five labels per sample, present (1) or absent (0)."""
    return rng.integers(0, 2, (N, 5))


def some_labels(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five labels per sample, present (1), absent (0) or unknown (-1)."""
    return rng.integers(-1, 2, (N, 5))


def map_of_labels(rng: np.random.Generator, N: int) -> np.ndarray:
    """Labels of three classes at each position of a feature map."""
    return rng.integers(0, 3, (N, 4, 5))


def weighted_labels(rng: np.random.Generator, N: int) -> np.ndarray:
    """Labels of three classes at each position of a feature map, and weights."""
    return np.stack([rng.integers(0, 3, (N, 4, 5)), rng.uniform(0, 2, (N, 4, 5))], axis=1)


def distribution(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """Probabilities of five classes, none of them small."""
    y = 0.2 + rng.random((5, N))
    return (y / y.sum(axis=0),)


def map_of_shares(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """Numbers from 0 to 1 for three classes at each position of a feature map."""
    return (rng.random((3, 4, 5, N)),)


def objects(rng: np.random.Generator, N: int) -> np.ndarray:
    """Two objects of three classes: class, x, y, w, h as fractions of the image."""
    return np.concatenate([rng.integers(0, 3, (N, 2, 1)), rng.uniform(0.2, 0.8, (N, 2, 4))], axis=2)


def some_boxes(rng: np.random.Generator, N: int) -> np.ndarray:
    """Boxes x1, y1, x2, y2."""
    low = rng.uniform(0, 2, (N, 2))
    return np.concatenate([low, low + rng.uniform(1, 3, (N, 2))], axis=1)


def guessed_boxes(rng: np.random.Generator, N: int) -> tuple[np.ndarray]:
    """Boxes x1, y1, x2, y2, batch-last."""
    return (some_boxes(rng, N).T.copy(),)


def points(rng: np.random.Generator, N: int) -> np.ndarray:
    """Three points of which some are not known: x, y, and 0 or 1."""
    return np.concatenate([rng.random((N, 3, 2)), rng.integers(0, 2, (N, 3, 1))], axis=2)


LOSSES: list[Item] = [
    Item(partial(losses.CrossEntropy, weight=[0.5, 1, 2, 1, 3], ignore_index=4,
                 label_smoothing=0.1), FIVE, target=labels, pytorch="CrossEntropyLoss",
         keras="CategoricalCrossentropy",
         numpynet="Softmax_layer"),
    Item(losses.WeightedCrossEntropy, MAP, target=weighted_labels),
    Item(losses.NegativeLogLikelihood, FIVE, target=labels, pytorch="NLLLoss"),
    Item(partial(losses.BoundedCrossEntropy, 1.0), FIVE, target=labels),
    Item(losses.BinaryCrossEntropy, FIVE, target=shares, pytorch="BCEWithLogitsLoss, BCELoss",
         keras="BinaryCrossentropy", numpynet="Logistic_layer"),
    Item(partial(losses.MultiLabelCrossEntropy, weight=[0.5, 1, 2, 1, 3],
                 pos_weight=[1, 2, 3, 0.5, 1], ignore_index=-1), FIVE, target=some_labels,
         pytorch="MultiLabelSoftMarginLoss"),
    Item(losses.FocalCrossEntropy, FIVE, target=shares, keras="BinaryFocalCrossentropy"),
    Item(losses.Hinge, FIVE, target=signs, keras="Hinge", numpynet="Cost_layer (hinge)"),
    Item(losses.CrammerSingerHinge, FIVE, target=labels, keras="CategoricalHinge"),
    Item(losses.WestonWatkinsHinge, FIVE, target=labels, pytorch="MultiMarginLoss"),
    Item(losses.MeanSquaredError, FIVE, target=numbers, pytorch="MSELoss",
         keras="MeanSquaredError", numpynet="Cost_layer (mse)", common=True),
    Item(losses.HalfSquaredError, FIVE, target=numbers),
    Item(losses.MeanAbsoluteError, FIVE, target=numbers, pytorch="L1Loss",
         keras="MeanAbsoluteError", numpynet="Cost_layer (mae)"),
    Item(partial(losses.Huber, 0.7), FIVE, target=numbers, pytorch="HuberLoss", keras="Huber"),
    Item(partial(losses.SmoothL1, 0.5), FIVE, target=numbers, pytorch="SmoothL1Loss",
         numpynet="Cost_layer (smooth)"),
    Item(losses.LogCosh, FIVE, target=numbers, keras="LogCosh", numpynet="Cost_layer (logcosh)"),
    Item(losses.PoissonLikelihood, FIVE, target=counts, pytorch="PoissonNLLLoss", keras="Poisson"),
    Item(losses.GaussianLikelihood, ((10,),), target=numbers, pytorch="GaussianNLLLoss"),
    Item(losses.CosineDistance, FIVE, target=numbers, pytorch="CosineEmbeddingLoss",
         keras="CosineSimilarity"),
    Item(losses.HingeEmbedding, FIVE, distribution, signs, pytorch="HingeEmbeddingLoss"),
    Item(losses.MultiLabelMargin, FIVE, target=yes_or_no, pytorch="MultiLabelMarginLoss"),
    Item(losses.KullbackLeibler, FIVE, target=labels, pytorch="KLDivLoss", keras="KLDivergence"),
    Item(losses.Hellinger, FIVE, distribution, labels, numpynet="Cost_layer (hellinger)"),
    Item(losses.WassersteinCritic, FIVE, target=signs, numpynet="Cost_layer (wgan)"),
    Item(losses.Dice, MAP, map_of_shares, map_of_labels, keras="Dice"),
    Item(losses.Jaccard, MAP, map_of_shares, map_of_labels),
    Item(partial(losses.Tversky, 0.3, 0.7), MAP, map_of_shares, map_of_labels, keras="Tversky"),
    Item(partial(losses.BoxIoU, "diou"), ((4,),), guessed_boxes, some_boxes),
    Item(partial(losses.YOLOv1, 3, rescore=False), ((13, 2, 3),), target=objects),
    Item(partial(losses.YOLOv2, [(0.2, 0.3), (0.5, 0.4)], 3, rescore=False), ((16, 2, 3),),
         target=objects),
    Item(partial(losses.YOLOv3, [(0.2, 0.3), (0.5, 0.4)], 3), ((16, 2, 3),), target=objects,
         numpynet="Yolo_layer"),
    Item(losses.Landmarks, ((6,),), target=points),
    Item(losses.HeatMaps, MAP, target=points),
]

METRICS: list[Item] = [
    Item(metrics.accuracy, keras="SparseCategoricalAccuracy", numpynet="mean_accuracy_score",
         common=True),
    Item(metrics.top_k_accuracy, keras="SparseTopKCategoricalAccuracy"),
    Item(metrics.confusion_matrix),
    Item(metrics.precision, keras="Precision"),
    Item(metrics.recall, keras="Recall"),
    Item(metrics.f1_score, keras="F1Score"),
    Item(metrics.mean_iou, keras="MeanIoU", numpynet="mean_iou_score"),
    Item(metrics.psnr, keras="ops.psnr"),
    Item(metrics.ssim, keras="ops.image.ssim"),
    Item(vision.mean_average_precision),
    Item(vision.normalized_mean_error),
    Item(vision.pck),
]
