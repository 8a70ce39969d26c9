"""What it means to train for epochs, whoever trains."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

PEAK_BATCHES = 5                # of the epochs in which memory is measured

Until = Callable[[float], bool]


class Epochs(Protocol):
    """A contender that trains on a data set with batches of one size."""

    def train(self, batches: int, until: Until) -> float:
        """Train a new network on the first `batches` of the data, epoch by epoch, until `until`
        says so, which is asked after each epoch with its seconds. The last epoch's mean loss."""

    def memory(self) -> dict[str, int | None]:
        """{"memory", "reserved", "predicted"} of a training in bytes, the data set not counted;
        None where nobody tells."""

    def about(self) -> dict[str, Any]:
        """{"versions": {name: version}, "kernels": who does the products} and on a GPU "device":
        its name."""


def a_second_epoch() -> Until:
    """Until: two epochs."""
    asked = iter((False, True))
    return lambda seconds: next(asked)
