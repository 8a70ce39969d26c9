"""Every building block of the library, by family.

`xpnet verify` checks them, the page docs/catalogue.md shows them, and `explain` finds the name here
of what another library calls otherwise.
"""

from __future__ import annotations

from collections.abc import Sequence

from xpnet.catalogue import activations, layers, losses, optimizers
from xpnet.catalogue.item import Item
from xpnet.checks import nearest

__all__ = ["FAMILIES", "Item", "explain"]

FAMILIES: dict[str, list[Item]] = {
    "Activations": activations.ITEMS,
    "Convolution and its relatives": layers.CONVOLUTION,
    "Sequences": layers.SEQUENCES,
    "Sparse coding": layers.SPARSE_CODING,
    "Pooling": layers.POOLING,
    "Normalisation": layers.NORMALIZATION,
    "Regularisation": layers.REGULARIZATION,
    "Shapes and merging": layers.SHAPES,
    "Losses": losses.LOSSES,
    "Metrics": losses.METRICS,
    "Optimizers and schedules": optimizers.ITEMS,
}

# Names in other libraries of what is no building block, and ours.
OTHERS: dict[str, list[str]] = {
    "Module": ["Layer", "Network"], "Model": ["Network"], "nn": ["xpnet.layers"],
    "DataLoader": ["xpnet.data.Dataset"], "TensorDataset": ["xpnet.data.Dataset"],
    "ImageFolder": ["xpnet.data.image_folder"],
    "image_dataset_from_directory": ["xpnet.data.image_folder"],
    "RandomHorizontalFlip": ["RandomFlip"], "RandomErasing": ["CutOut"],
    "RandomZoom": ["RandomScale"], "RandomTranslation": ["RandomShift"],
    "ElasticTransform": ["Elastic"], "RandomGrayscale": ["RandomGrey"],
    "ModelCheckpoint": ["Checkpoint"], "CSVLogger": ["CSVLog"], "SummaryWriter": ["TensorBoard"],
    "TerminateOnNaN": ["StopOnNaN"], "LearningRateFinder": ["xpnet.training.rates.find_lr"],
    "LearningRateScheduler": ["Schedule"], "LRScheduler": ["Schedule"],
    "AveragedModel": ["ExponentialMovingAverage"], "EMA": ["ExponentialMovingAverage"],
    "MLPClassifier": ["xpnet.sklearn.Classifier"], "Classifier": ["xpnet.sklearn.Classifier"],
    "KerasClassifier": ["xpnet.sklearn.Classifier"], "MLPRegressor": ["xpnet.sklearn.Regressor"],
    "Regressor": ["xpnet.sklearn.Regressor"], "KerasRegressor": ["xpnet.sklearn.Regressor"],
    "BaggingClassifier": ["Ensemble"], "BaggingRegressor": ["Ensemble"],
    "VotingClassifier": ["Ensemble"],
    "batched_nms": ["xpnet.vision.nms"], "NonMaxSuppression": ["xpnet.vision.nms"],
    "generalized_box_iou_loss": ["BoxIoU"], "distance_box_iou_loss": ["BoxIoU"],
    "complete_box_iou_loss": ["BoxIoU"], "YOLO": ["YOLOv1", "YOLOv2", "YOLOv3"],
    "SpatialSoftmax": ["SoftArgmax2d"],
}


def explain(name: str, public: Sequence[str]) -> str:
    """The message of the AttributeError for `xpnet.name`, with its name here if it has one.

    Args:
        public: the public names of xpnet.
    """
    message = f"xpnet has no {name}"
    known = _known(public)
    if name.lower() in known:
        return f"{message}; its name here is {' or '.join(known[name.lower()])}"
    near = nearest(name, known)
    if near is not None:
        return f"{message}; perhaps {' or '.join(known[near])} is meant"
    return f"{message}; docs/catalogue.md lists what there is"


def _known(public: Sequence[str]) -> dict[str, list[str]]:
    """xpnet's names by lower-case names: its own, and other libraries' in the catalogue."""
    known = {name.lower(): [*names] for name, names in OTHERS.items()}
    known |= {name.lower(): [name] for name in public}
    for item in (item for items in FAMILIES.values() for item in items):
        ours = item.name if item.name in public else f"{item.what.__module__}.{item.name}"
        for other in f"{item.name}, {item.pytorch}, {item.keras}, {item.numpynet}".split(","):
            name = other.strip().rpartition(".")[2].lower()
            # Conv2d(groups=C) is not a name
            if name and "(" not in name and ours not in known.setdefault(name, []):
                known[name].append(ours)
    return known
