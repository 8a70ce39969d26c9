"""Training steps in real epochs, over a data set that is on the GPU, in a new order each epoch.

The time of a step is that of an epoch, from drawing the order to the mean loss on the host, divided
by the number of batches.
"""

from __future__ import annotations

import gc
import statistics
import warnings
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contenders import INPUT_SHAPES, LEARNING_RATE, Job
from benchmarks.gpu.training import PEAK_BATCHES, Epochs, Until, two_epochs
from xpnet import Network

# The batch sizes of each network, and the number of batches in an epoch if it is not BATCHES.
CELLS = {"numpy_cnn": (32, 128), "bilici": (32, 128), "lenet5": (32, 128), "resnet18": (128, 512),
         "resnet50": (64,)}
BATCHES, FEW = 100, {"resnet18": 16, "resnet50": 8}
WARM_UP, FEWEST = 2, 3      # epochs to leave out (they capture steps), and to count at least


class Times:
    """An `Until` that collects the seconds of epochs until they sum to `seconds`, without the first
    ones."""

    def __init__(self, seconds: float) -> None:
        self.enough, self.epochs = seconds, list[float]()

    def __call__(self, seconds: float) -> bool:
        self.epochs.append(seconds)
        counted = self.epochs[WARM_UP:]
        return len(counted) >= FEWEST and sum(counted) >= self.enough

    def median(self) -> float:
        return statistics.median(self.epochs[WARM_UP:])


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """Yield {"item": ...}, {"about": ...} and {"row": ...} for each network and batch size of the
    job, of the contender's fastest variant."""
    for number, (net, batch) in job.items(job.cells):
        yield number
        count = batches_of(net)
        images, labels = samples(net, batch * count)
        rows: list[dict[str, Any]] = []
        for make in contestants(job, net, batch):
            epochs = make(images, labels)
            needed = epochs.memory()
            times = Times(job.seconds)
            with warnings.catch_warnings(record=True) as caught:
                warnings.simplefilter("always")
                loss = epochs.train(count, times)
            if not np.isfinite(loss):
                raise RuntimeError(f"{job.contender}: expected {net} to train. Received: a loss of "
                                   f"{loss}.")
            # xpnet warns if a step cannot be captured.
            said = "; ".join(dict.fromkeys(str(warning.message) for warning in caught))
            rows.append({"net": net, "batch": batch, "seconds": times.median() / count,
                         "warning": said or None} | needed)
            yield {"about": epochs.about()}
            del epochs
            gc.collect()
        yield {"row": min(rows, key=lambda row: row["seconds"])}


def batches_of(net: str) -> int:
    return FEW.get(net, BATCHES)


def samples(net: str, count: int) -> tuple[np.ndarray, np.ndarray]:
    """Images (N, C, H, W) of noise and labels (N,), the same for every contender."""
    rng = np.random.default_rng(0)
    return rng.standard_normal((count, *INPUT_SHAPES[net]), np.float32), rng.integers(0, 10, count)


def contestants(job: Job, net: str, batch: int) -> list[Callable[[np.ndarray, np.ndarray], Epochs]]:
    """Constructors of the contender's variants, the fastest of which counts."""
    if not job.contender.startswith("torch"):
        return [partial(XpnetEpochs, job, net, batch)]
    from benchmarks.gpu.torch_steps import TorchEpochs
    layouts = (("nchw", "nhwc") if job.contender == "torch-graph"
               else (job.contender.removeprefix("torch-"),))
    return [partial(TorchEpochs, job, net, batch, layout) for layout in layouts]


class XpnetEpochs:
    """`fit`, with captured steps if the backend can capture, except for a contender "...-eager"; an
    Epochs."""

    def __init__(self, job: Job, net: str, batch: int, images: np.ndarray,
                 labels: np.ndarray) -> None:
        from benchmarks.xpnet_side import backend_of
        self.backend = backend_of(job)
        self.job, self.name, self.batch = job, net, batch
        self.images, self.labels = self.backend.asarray(images), labels

    def network(self) -> Network:
        from benchmarks.xpnet_side import NETS
        return NETS[self.name](INPUT_SHAPES[self.name], backend=self.backend)

    def train(self, batches: int, until: Until) -> float:
        import xpnet as xn
        net, chosen = self.network(), slice(batches * self.batch)
        eager = self.job.contender.endswith("-eager")
        options: dict[str, Any] = {"capture": False} if eager else {}
        history = net.fit(self.images[chosen], self.labels[chosen], loss="cross_entropy",
                          optimizer=xn.Adam(LEARNING_RATE), epochs=10**6, batch_size=self.batch,
                          until=lambda row: until(row["seconds"]), verbose=False, **options)
        return history["loss"][-1]

    def memory(self) -> dict[str, int | None]:
        """The peaks of a second training: the first one loads the kernels."""
        self.train(PEAK_BATCHES, two_epochs())
        from benchmarks.gpu.peak_memory import peak_of
        peak = peak_of(self.backend, lambda: self.train(PEAK_BATCHES, two_epochs()))
        return peak | {"predicted": self.predicted()}

    def predicted(self) -> int | None:
        """The peak memory of a step that xpnet predicts."""
        import xpnet as xn
        if self.job.contender != "cupy":
            return None
        return self.network().memory_report(self.batch, xn.Adam(LEARNING_RATE)).peak

    def about(self) -> dict[str, Any]:
        from benchmarks.xpnet_side import about
        return about(self.backend)
