"""PyTorch's side of the comparison: eager networks in two memory layouts, and CUDA graphs."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import Any

import torch
from torch import nn

from benchmarks.contenders import LEARNING_RATE, Job, sample_batch
from benchmarks.torch_nets import NETS, WIDE

WARM_UP = 3     # steps before a capture, as PyTorch's notes on CUDA graphs require


def load_all() -> None:
    """Import what PyTorch imports with the first optimizer: about 70 MB that must not count for a
    step."""
    torch.optim.Adam([nn.Parameter(torch.zeros(1))])


class Eager:
    """Eager PyTorch in layout "nchw" or "nhwc" (channels last); a Runner."""

    capturable = False

    def __init__(self, job: Job, layout: str, batch: int) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        self.device = torch.device("cuda" if job.device == "gpu" else "cpu")
        choose_math(job)
        memory_format = {"nchw": torch.contiguous_format, "nhwc": torch.channels_last}[layout]
        images, labels = sample_batch(job.net, batch)
        self.x = torch.tensor(images, device=self.device).contiguous(memory_format=memory_format)
        self.labels = torch.tensor(labels, device=self.device)
        model = NETS[job.net]() if job.width == 1 else WIDE[job.net](job.width)
        self.model = model.to(self.device, memory_format=memory_format)               # type: ignore[call-overload]
        self.loss = nn.CrossEntropyLoss()
        self.optimizer = torch.optim.Adam(self.model.parameters(), LEARNING_RATE,
                                          capturable=self.capturable,
                                          fused=True if job.fused_adam else None)

    def train(self) -> torch.Tensor:
        self.optimizer.zero_grad()
        loss = self.loss(self.model(self.x), self.labels)
        loss.backward()
        self.optimizer.step()
        return loss

    @torch.inference_mode()
    def predict(self) -> torch.Tensor:
        return self.model(self.x)

    def step(self, mode: str) -> Callable[[], torch.Tensor]:
        self.model.train(mode == "train")
        return self.train if mode == "train" else self.predict

    def synchronize(self) -> None:
        if self.device.type == "cuda":
            torch.cuda.synchronize()

    def finite(self, value: torch.Tensor) -> bool:
        return bool(torch.isfinite(value).all())

    def about(self) -> dict[str, Any]:
        return about_pytorch("gpu" if self.device.type == "cuda" else "cpu")


class Captured(Eager):
    """PyTorch with the whole step captured as a CUDA graph and replayed; a Runner."""

    capturable = True                   # Adam must keep its count of steps on the GPU

    def step(self, mode: str) -> Callable[[], torch.Tensor]:
        work = super().step(mode)
        side = torch.cuda.Stream()      # a capture may not follow work on the default stream
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(WARM_UP):
                work()
        torch.cuda.current_stream().wait_stream(side)
        # Backward then allocates the gradients in the graph's own memory.
        self.optimizer.zero_grad(set_to_none=True)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            value = work()

        def replay() -> torch.Tensor:
            graph.replay()
            return value
        return replay


def choose_math(job: Job) -> None:
    """TF32 or not, and the fastest of cuDNN's algorithms for each shape."""
    if job.device == "gpu":
        torch.backends.cuda.matmul.allow_tf32 = job.tf32 == "always"
        torch.backends.cudnn.allow_tf32 = job.tf32 != "never"
        torch.backends.cudnn.benchmark = True


def about_pytorch(device: str) -> dict[str, Any]:
    """Versions, the libraries that compute the products, and on a GPU its name."""
    versions = {"PyTorch": str(torch.__version__)}
    if device == "cpu":
        return {"versions": versions, "kernels": cpu_kernels()}
    versions |= {"CUDA of PyTorch": str(torch.version.cuda),
                 "cuDNN": str(torch.backends.cudnn.version())}
    products, convolutions = torch.backends.cuda.matmul.allow_tf32, torch.backends.cudnn.allow_tf32
    kernels = ("cuBLAS and cuDNN, the fastest algorithms chosen by timing, TF32 "
               f"{onoff(products)} in products, {onoff(convolutions)} in convolutions")
    return {"versions": versions, "kernels": kernels, "device": torch.cuda.get_device_name()}


def cpu_kernels() -> str:
    """The libraries that compute PyTorch's products, and the processor of their kernels."""
    config = torch.__config__.show()
    found = [re.search(r"BLAS_INFO=(\w+)", config), re.search(r"MKL-DNN v([\w.]+)", config)]
    names = [f"{name} {match[1]}" for name, match in zip(("BLAS", "oneDNN"), found) if match]
    return ", ".join([*names, f"{torch.backends.cpu.get_cpu_capability()} kernels"])


def onoff(flag: bool) -> str:
    return "on" if flag else "off"
