"""Accuracies to be reached, and the recipes that reach them, the same for all."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np


@dataclass(frozen=True)
class Goal:
    """What to train until which accuracy, and for how many epochs at most."""

    part: str
    net: str
    batch: int
    accuracy: float
    epochs: int


MNIST = Goal("mnist", "bilici", 128, 0.99, 3)
MNIST_RATE, MNIST_DECAY = 4e-3, 0.1                     # of AdamW
CIFAR = Goal("cifar", "resnet18", 256, 0.93, 24)
PEAK_RATE, MOMENTUM, DECAY = 0.2, 0.9, 5e-4             # of CIFAR's SGD, Nesterov's kind
MIDDLE, WIDTH = 121.0, 64.0  # of a pixel of CIFAR, about: pictures are (pixel - MIDDLE) / WIDTH
EVALUATED = 500                                         # pictures of a batch that is only predicted


class Trainer(Protocol):
    """One side of the part "cifar"."""

    def step(self, chosen: np.ndarray, rng: np.random.Generator, rate: float) -> None:
        """Train on the pictures of these numbers, cropped and flipped, without waiting for the
        GPU."""

    def accuracy(self) -> float:
        """The part of the test pictures that are classified right."""

    def about(self) -> dict[str, Any]:
        """See Epochs."""
