"""Every building block of the library, by family: what `xpnet verify` checks and the page
docs/catalogue.md shows."""

from __future__ import annotations

from xpnet.catalogue import (
    activations,
    convolution,
    losses,
    metrics,
    normalization,
    optimizers,
    pooling,
    regularization,
    shapes,
    sparse_coding,
)
from xpnet.catalogue.item import Item

__all__ = ["FAMILIES", "Item"]

FAMILIES: dict[str, list[Item]] = {
    "Activations": activations.ITEMS,
    "Convolution and its relatives": convolution.ITEMS,
    "Sparse coding": sparse_coding.ITEMS,
    "Pooling": pooling.ITEMS,
    "Normalisation": normalization.ITEMS,
    "Regularisation": regularization.ITEMS,
    "Shapes and merging": shapes.ITEMS,
    "Losses": losses.ITEMS,
    "Metrics": metrics.ITEMS,
    "Optimizers and schedules": optimizers.ITEMS,
}
