"""The catalogue: losses."""

from __future__ import annotations

import numpy as np

from xpnet.catalogue.item import Item
from xpnet.losses import CrossEntropy, HalfSquaredError, MeanSquaredError


def labels(rng: np.random.Generator, N: int) -> np.ndarray:
    """Labels of five classes."""
    return rng.integers(0, 5, N)


def numbers(rng: np.random.Generator, N: int) -> np.ndarray:
    """Five numbers a sample."""
    return rng.standard_normal((N, 5))


FIVE = ((5,),)

ITEMS: list[Item] = [
    Item(CrossEntropy, CrossEntropy, FIVE, target=labels,
         pytorch="CrossEntropyLoss", keras="CategoricalCrossentropy"),
    Item(MeanSquaredError, MeanSquaredError, FIVE, target=numbers, pytorch="MSELoss", keras="MeanSquaredError",
         common=True),
    Item(HalfSquaredError, HalfSquaredError, FIVE, target=numbers),
]
