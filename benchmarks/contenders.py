"""Who competes, in what, and what one process of the competition is asked to do."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from typing import Any, Protocol

import numpy as np

CONTENDERS = {
    "cpu": ("numpy", "numba", "torch-nchw", "torch-nhwc"),
    "gpu": ("cupy", "torch-nchw", "torch-nhwc", "torch-graph"),
}
INPUT_SHAPES = {"numpy_cnn": (1, 28, 28), "bilici": (1, 28, 28), "lenet5": (1, 32, 32), "vgg_small": (3, 32, 32),
                "resnet18": (3, 32, 32)}
MODES = ("train", "predict")
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class Job:
    """What one process measures: a contender on a network, with one batch size after the other, in each of the modes."""

    device: str                     # "cpu" or "gpu"
    contender: str
    threads: int
    net: str = "numpy_cnn"
    batches: tuple[int, ...] = (32,)
    modes: tuple[str, ...] = MODES
    seconds: float = 1.0            # time to measure for, in each mode
    width: float = 1                # how many times the filters of the network as it is called
    tf32: bool = False              # GPUs only: round products' operands to 10 bits of mantissa
    fused_adam: bool = False        # PyTorch's Adam in its fused form, which is not its default


class Runner(Protocol):
    """A contender at work on one network and one batch, which lies where the contender computes."""

    def step(self, mode: str) -> Callable[[], Any]:
        """The function to time: a training step that returns the loss, or a prediction that returns the output."""

    def synchronize(self) -> None:
        """Wait until all that was started has ended."""

    def finite(self, value: Any) -> bool:
        """Whether all of what a step returned are numbers."""

    def about(self) -> dict[str, Any]:
        """{"versions": {name: version}, "kernels": who does the products} and on a GPU "device": its name."""


def sample_batch(net: str, batch: int) -> tuple[np.ndarray, np.ndarray]:
    """The batch that every contender gets: images (N, C, H, W) of noise, and labels (N,)."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((batch, *INPUT_SHAPES[net]), np.float32), rng.integers(0, 10, batch)


def missing(job: Job) -> str | None:
    """Why the contender cannot run here, and what to do about it; None where it can."""
    if not job.contender.startswith("torch"):
        from xpnet.backends import BackendError, get_backend
        try:
            get_backend(job.contender)
        except BackendError as error:
            return str(error).removeprefix(f"{job.contender}: ")
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


def runners(job: Job, batch: int) -> list[Runner]:
    """The contender at work on a batch of that size; several where the fastest of them counts."""
    if job.contender == "torch-graph":
        from benchmarks.torch_side import Captured
        return [Captured(job, layout, batch) for layout in ("nchw", "nhwc")]
    if job.contender.startswith("torch"):
        from benchmarks.torch_side import Eager
        return [Eager(job, job.contender.removeprefix("torch-"), batch)]
    from benchmarks.xpnet_side import Xpnet
    return [Xpnet(job, batch)]
