"""What both sides train: epochs for the time of a step, and accuracies to reach with one recipe."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

# --- epochs ---------------------------------------------------------------------------------------

PEAK_BATCHES = 5                # of the epochs in which memory is measured

Until = Callable[[float], bool]


class Epochs(Protocol):
    """A contender that trains on a data set with batches of one size."""

    def train(self, batches: int, until: Until) -> float:
        """Train a new network on the first `batches` of the data, and return the last epoch's mean
        loss. After each epoch, `until` gets its seconds; training ends if it returns True."""

    def memory(self) -> dict[str, int | None]:
        """{"memory", "reserved", "predicted"} of a training in bytes, without the data set; None if
        unknown."""

    def about(self) -> dict[str, Any]:
        """{"versions": {name: version}, "kernels": the libraries that compute the products}; on a
        GPU also "device", its name."""


def two_epochs() -> Until:
    """An `Until` that ends training after two epochs."""
    ends = iter((False, True))
    return lambda seconds: next(ends)


# --- accuracies -----------------------------------------------------------------------------------

@dataclass(frozen=True)
class Goal:
    """A network to train until a test accuracy is reached, for at most `epochs` epochs."""

    part: str
    net: str
    batch: int
    accuracy: float
    epochs: int


MNIST = Goal("mnist", "bilici", 128, 0.99, 3)
MNIST_RATE, MNIST_DECAY = 4e-3, 0.1                     # of AdamW
CIFAR = Goal("cifar", "resnet18", 256, 0.93, 24)
PEAK_RATE, MOMENTUM, DECAY = 0.2, 0.9, 5e-4             # of CIFAR's SGD with Nesterov momentum
MIDDLE, WIDTH = 121.0, 64.0     # about CIFAR's mean and deviation: x = (pixel - MIDDLE) / WIDTH
EVALUATED = 500                                         # images in a batch of the evaluation


class Trainer(Protocol):
    """One side of the part "cifar"."""

    def step(self, chosen: np.ndarray, rng: np.random.Generator, rate: float) -> None:
        """Train on the images with these numbers, cropped and flipped, without waiting for the
        GPU."""

    def accuracy(self) -> float:
        """The share of the test images that are classified correctly."""

    def about(self) -> dict[str, Any]:
        """See Epochs."""
