"""The contenders, the networks, and the job that one process of the benchmarks gets."""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np

CONTENDERS = {
    "cpu": ("numpy", "numba", "torch-nchw", "torch-nhwc"),
    "gpu": ("cupy", "cupy-eager", "torch-nchw", "torch-nhwc", "torch-graph"),
}
INPUT_SHAPES = {"numpy_cnn": (1, 28, 28), "bilici": (1, 28, 28), "lenet5": (1, 32, 32),
                "vgg_small": (3, 32, 32), "resnet18": (3, 32, 32), "resnet50": (3, 224, 224)}
CPU_NETS = ("numpy_cnn", "bilici", "lenet5", "vgg_small", "resnet18")
MODES = ("train", "predict")
TF32 = ("never", "convolutions", "always")  # "convolutions" is the default of PyTorch and of xpnet
LEARNING_RATE = 1e-3

Item = TypeVar("Item")


@dataclass(frozen=True)
class Job:
    """What one process measures: one contender on a network, for each batch size and each mode."""

    device: str                     # "cpu" or "gpu"
    contender: str
    threads: int
    net: str = "numpy_cnn"
    batches: tuple[int, ...] = (32,)
    modes: tuple[str, ...] = MODES
    seconds: float = 1.0            # how long to measure each figure
    width: float = 1                # factor on the number of filters of the network
    tf32: str = "never"             # GPUs: one of TF32, the operations that round to TF32
    fused_adam: bool = False        # PyTorch's fused Adam, which is not its default
    cells: tuple[tuple[str, int], ...] = ()     # GPUs: (net, batch) instead of `net` and `batches`
    share: tuple[int, int] = (0, 1)             # GPUs: (k, n): part number k of n of the work
    first: int = 0                  # GPUs: the number of the item of the work to begin with
    data: str = ""                  # folder of the data sets; "": where xpnet looks by default
    started: float = 0.0            # time.time() when the process was started
    limit: float = math.inf         # seconds after which the process begins nothing new

    @property
    def backend(self) -> str:
        """The name of xpnet's backend; "cupy-eager" is "cupy" without captured steps."""
        return self.contender.removesuffix("-eager")

    def late(self) -> bool:
        """Whether the time limit has passed."""
        return time.time() - self.started > self.limit

    def items(self, work: Iterable[Item]) -> Iterator[tuple[dict[str, int], Item]]:
        """({"item": number}, item) of the work from number `first` on, until the time is over.

        The process answers the number before it measures the item: after a failure another process
        goes on with the next one.
        """
        for number, item in enumerate(work):
            if number >= self.first:
                if self.late():
                    return
                yield {"item": number}, item


class Runner(Protocol):
    """A contender with one network and one batch, which is in the memory of its device."""

    def step(self, mode: str) -> Callable[[], Any]:
        """The function to time: a training step, which returns the loss, or a prediction, which
        returns the output."""

    def synchronize(self) -> None:
        """Wait until the device has finished."""

    def finite(self, value: Any) -> bool:
        """Whether everything that a step returned is finite."""

    def about(self) -> dict[str, Any]:
        """{"versions": {name: version}, "kernels": the libraries that compute the products}; on a
        GPU also "device", its name."""


def sample_batch(net: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch of every contender: images (N, C, H, W) of noise, and labels (N,)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *INPUT_SHAPES[net]), np.float32), rng.integers(0, 10, batch)
