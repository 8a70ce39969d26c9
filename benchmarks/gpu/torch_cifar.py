"""PyTorch's side of the part "cifar": ResNet-18, channels last, on images that are on the GPU as
bytes."""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional

from benchmarks.contenders import Job
from benchmarks.gpu.training import DECAY, EVALUATED, MIDDLE, MOMENTUM, PEAK_RATE, WIDTH, Goal
from benchmarks.torch_nets import NETS
from benchmarks.torch_side import about_pytorch, choose_math
from xpnet.data import Dataset

PADDING = 4


class TorchTrainer:
    """A Trainer. Weight decay does not apply to biases and batch norms, as in xpnet."""

    def __init__(self, job: Job, goal: Goal, data: Dataset) -> None:
        torch.set_num_threads(job.threads)
        torch.manual_seed(0)
        choose_math(job)
        self.job, self.device = job, torch.device("cuda" if job.device == "gpu" else "cpu")
        self.model = NETS[goal.net]().to(self.device, memory_format=torch.channels_last)    # type: ignore[call-overload]
        weights = [p for p in self.model.parameters() if p.ndim > 1]
        others = [p for p in self.model.parameters() if p.ndim == 1]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": DECAY},
                                        {"params": others}]
        self.optimizer = torch.optim.SGD(groups, PEAK_RATE, MOMENTUM, nesterov=True)
        self.loss = nn.CrossEntropyLoss()
        assert data.test is not None
        self.x, self.y, self.x_test, self.y_test = (torch.tensor(a, device=self.device)
                                                    for a in (*data[:], *data.test[:]))

    def normalised(self, images: torch.Tensor) -> torch.Tensor:
        return ((images.float() - MIDDLE) / WIDTH).contiguous(memory_format=torch.channels_last)

    def step(self, chosen: np.ndarray, rng: np.random.Generator, rate: float) -> None:
        index = torch.tensor(chosen, device=self.device)
        x = self.flipped(self.cropped(self.x[index], rng), rng)
        for group in self.optimizer.param_groups:
            group["lr"] = rate
        self.model.train()
        self.optimizer.zero_grad()
        self.loss(self.model(self.normalised(x)), self.y[index]).backward()
        self.optimizer.step()

    def cropped(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Images moved by up to PADDING pixels, as xpnet.RandomCrop does."""
        N, C, H, W = x.shape
        padded = functional.pad(x, (PADDING,) * 4)
        top, left = rng.integers(0, 2 * PADDING + 1, (2, N))
        rows = torch.tensor(top[:, None] + np.arange(H), device=self.device)[:, None, :, None]
        columns = torch.tensor(left[:, None] + np.arange(W), device=self.device)[:, None, None, :]
        images, channels = torch.arange(N, device=self.device), torch.arange(C, device=self.device)
        return padded[images[:, None, None, None], channels[:, None, None], rows, columns]

    def flipped(self, x: torch.Tensor, rng: np.random.Generator) -> torch.Tensor:
        """Half of the images mirrored, as xpnet.RandomFlip does."""
        mirrored = torch.tensor(rng.random(len(x)) < 0.5, device=self.device)[:, None, None, None]
        return torch.where(mirrored, x.flip(3), x)

    @torch.inference_mode()
    def accuracy(self) -> float:
        self.model.eval()
        hits = torch.zeros((), dtype=torch.long, device=self.device)
        for x, y in zip(self.x_test.split(EVALUATED), self.y_test.split(EVALUATED), strict=True):
            hits += (self.model(self.normalised(x)).argmax(1) == y).sum()
        return hits.item() / len(self.x_test)

    def about(self) -> dict[str, Any]:
        return about_pytorch(self.job.device)
