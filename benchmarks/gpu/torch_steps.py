"""PyTorch's side of the training steps in real epochs: two memory layouts, eager and as CUDA
graphs."""

from __future__ import annotations

import gc
import time
from dataclasses import replace
from typing import Any

import numpy as np
import torch

from benchmarks.contenders import Job
from benchmarks.gpu.training import PEAK_BATCHES, Until, two_epochs
from benchmarks.torch_side import Captured, Eager
from xpnet.schedules import OneCycle


class OneCycleAdamW:
    """AdamW with xpnet's one-cycle schedule. Weight decay does not apply to biases and batch norms,
    as in xpnet."""

    def __init__(self, steps: int, peak: float, decay: float) -> None:
        self.rates = (peak * OneCycle().factor(step / max(steps - 1, 1)) for step in range(steps))
        self.peak, self.decay = peak, decay

    def apply_to(self, runner: Eager) -> None:
        weights = [p for p in runner.model.parameters() if p.ndim > 1]
        others = [p for p in runner.model.parameters() if p.ndim <= 1]
        groups: list[dict[str, Any]] = [{"params": weights, "weight_decay": self.decay},
                                        {"params": others, "weight_decay": 0.0}]
        # A captured step reads the learning rate from the device's memory. It is 0 at first, so
        # that the steps before the capture do not train.
        self.rate = torch.zeros((), device=runner.device) if runner.capturable else None
        runner.optimizer = torch.optim.AdamW(groups, 0.0 if self.rate is None else self.rate,
                                             capturable=runner.capturable)
        self.groups = runner.optimizer.param_groups

    def next_rate(self) -> None:
        rate = next(self.rates)
        if self.rate is not None:
            self.rate.fill_(rate)
            return
        for group in self.groups:
            group["lr"] = rate


class TorchEpochs:
    """Trains on a data set on the device, with its axes in the order of the layout; an Epochs.

    Batches are gathered by `index_select`, for a captured step directly into the array that it
    reads.
    """

    def __init__(self, job: Job, net: str, batch: int, layout: str, images: np.ndarray,
                 labels: np.ndarray) -> None:
        self.job, self.batch, self.layout = replace(job, net=net), batch, layout
        self.captured = job.contender == "torch-graph"
        self.device = torch.device("cuda" if job.device == "gpu" else "cpu")
        ordered = np.ascontiguousarray(images.transpose(0, 2, 3, 1)) if layout == "nhwc" else images
        self.images = torch.tensor(ordered, device=self.device)  # (S, C, H, W) or (S, H, W, C)
        self.labels = torch.tensor(labels, device=self.device)                  # (S,)

    def train(self, batches: int, until: Until, recipe: OneCycleAdamW | None = None) -> float:
        """See Epochs. With a recipe, its optimizer is used instead of Adam."""
        kind = Captured if self.captured else Eager
        runner = self.runner = kind(self.job, self.layout, self.batch)
        if recipe is not None:
            recipe.apply_to(runner)
        batches = min(batches, len(self.images) // self.batch)
        step, count = runner.step("train"), batches * self.batch
        while True:
            start = time.perf_counter()
            order = torch.randperm(count, device=self.device)
            total = torch.zeros((), device=self.device)
            for first in range(0, count, self.batch):
                self.gather(runner, order[first:first + self.batch])
                if recipe is not None:
                    recipe.next_rate()
                total += step().detach()
            loss = total.item() / batches  # waits for the device
            if until(time.perf_counter() - start):
                return loss

    def gather(self, runner: Eager, chosen: torch.Tensor) -> None:
        if self.captured:
            torch.index_select(self.images, 0, chosen, out=self.stored(runner.x))
            torch.index_select(self.labels, 0, chosen, out=runner.labels)
            return
        batch = self.images.index_select(0, chosen)
        runner.x = batch.permute(0, 3, 1, 2) if self.layout == "nhwc" else batch
        runner.labels = self.labels.index_select(0, chosen)

    def stored(self, x: torch.Tensor) -> torch.Tensor:
        """The same array with its axes in the order of the memory."""
        return x.permute(0, 2, 3, 1) if self.layout == "nhwc" else x

    @torch.inference_mode()
    def accuracy(self, images: np.ndarray, labels: np.ndarray) -> float:
        """The share of these images that are classified correctly."""
        model = self.runner.model.eval()
        x, y = torch.tensor(images, device=self.device), torch.tensor(labels, device=self.device)
        layout = torch.channels_last if self.layout == "nhwc" else torch.contiguous_format
        hits = sum((model(part.contiguous(memory_format=layout)).argmax(1) == target).sum()
                   for part, target in zip(x.split(1000), y.split(1000), strict=True))
        model.train()
        return float(hits) / len(images)

    def memory(self) -> dict[str, int | None]:
        """The peaks of a second training; during the first one cuDNN chooses its algorithms, which
        needs more memory."""
        self.train(PEAK_BATCHES, two_epochs())
        if self.device.type == "cpu":
            return {"memory": None, "reserved": None, "predicted": None}
        del self.runner
        gc.collect()
        torch.cuda.synchronize()
        torch.cuda.empty_cache()
        before, reserved = torch.cuda.memory_allocated(), torch.cuda.memory_reserved()
        torch.cuda.reset_peak_memory_stats()
        self.train(PEAK_BATCHES, two_epochs())
        return {"memory": torch.cuda.max_memory_allocated() - before,
                "reserved": torch.cuda.max_memory_reserved() - reserved, "predicted": None}

    def about(self) -> dict[str, Any]:
        return self.runner.about()
