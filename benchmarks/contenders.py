"""Who competes, in what, and what one process of the competition is asked to do."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
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


def missing(job: Job) -> str | None:
    """Why the contender cannot run here, and what to do about it; None where it can."""
    if not job.contender.startswith("torch"):
        from xpnet.backends import BackendError, get_backend
        try:
            get_backend(job.backend)
        except BackendError as error:
            return str(error).removeprefix(f"{job.backend}: ")
        except ValueError as error:
            return f"this version of xpnet cannot make it ({error})"
        return None
    try:
        import torch
    except ImportError as error:
        return f'PyTorch cannot be imported ({error}); to install it: pip install "xpnet[bench]"'
    if job.device == "gpu" and not torch.cuda.is_available():
        return f"PyTorch {torch.__version__} finds no GPU that it can use"
    return None


def load(job: Job) -> None:
    """Import what the contender needs, and start nothing: neither threads nor a GPU."""
    if job.contender.startswith("torch"):
        from benchmarks.torch_side import load_all
        load_all()
        return
    import_module("benchmarks.xpnet_side")
    if job.contender == "numba":
        import_module("numba")


def runner(job: Job, batch: int) -> Runner:
    """The contender at work on a batch of that size."""
    if job.contender.startswith("torch"):
        from benchmarks.torch_side import Eager
        return Eager(job, job.contender.removeprefix("torch-"), batch)
    from benchmarks.xpnet_side import Xpnet
    return Xpnet(job, batch)
