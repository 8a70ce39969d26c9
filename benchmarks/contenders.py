"""Who competes, in what, and what one process of the competition is asked to do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np

CONTENDERS = {
    "cpu": ("numpy", "numba", "torch-nchw", "torch-nhwc"),
    "gpu": ("cupy", "cupy-eager", "torch-nchw", "torch-nhwc", "torch-graph"),
}
INPUT_SHAPES = {"numpy_cnn": (1, 28, 28), "bilici": (1, 28, 28), "lenet5": (1, 32, 32),
                "vgg_small": (3, 32, 32),
                "resnet18": (3, 32, 32), "resnet50": (3, 224, 224)}
CPU_NETS = ("numpy_cnn", "bilici", "lenet5", "vgg_small", "resnet18")
MODES = ("train", "predict")
TF32 = ("never", "convolutions", "always")  # "convolutions" is the default of PyTorch and of xpnet
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Job:
    """What one process measures: a contender on a network, with one batch size after the other, in
    each of the modes."""

    device: str                     # "cpu" or "gpu"
    contender: str
    threads: int
    net: str = "numpy_cnn"
    batches: tuple[int, ...] = (32,)
    modes: tuple[str, ...] = MODES
    seconds: float = 1.0            # time to measure for, in each mode
    width: float = 1                # how many times the filters of the network as it is called
    # GPUs: one of TF32, where float32 operands are rounded to 10 bits of mantissa
    tf32: str = "never"
    fused_adam: bool = False        # PyTorch's Adam in its fused form, which is not its default
    # GPUs: networks with a batch size each, in the place of `net` and `batches`
    cells: tuple[tuple[str, int], ...] = ()
    # GPUs: which part of how many of a work that several processes do together
    share: tuple[int, int] = (0, 1)
    data: str = ""  # the folder of the data sets, "" for where xpnet looks by itself
    started: float = 0.0                        # time.time() when the process was started
    limit: float = math.inf                     # seconds after which the process begins nothing new

    @property
    def backend(self) -> str:
        """The name of our backend: "cupy-eager" is "cupy" that does not capture its steps."""
        return self.contender.removesuffix("-eager")

    def late(self) -> bool:
        """Whether it is time to end."""
        return time.time() - self.started > self.limit


class Runner(Protocol):
    """A contender at work on one network and one batch, which lies where the contender computes."""

    def step(self, mode: str) -> Callable[[], Any]:
        """The function to time: a training step that returns the loss, or a prediction that returns
        the output."""

    def synchronize(self) -> None:
        """Wait until all that was started has ended."""

    def finite(self, value: Any) -> bool:
        """Whether all of what a step returned are numbers."""

    def about(self) -> dict[str, Any]:
        """{"versions": {name: version}, "kernels": who does the products} and on a GPU "device":
        its name."""


def sample_batch(net: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch that every contender gets: images (N, C, H, W) of noise, and labels (N,)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *INPUT_SHAPES[net]), np.float32), rng.integers(0, 10, batch)
