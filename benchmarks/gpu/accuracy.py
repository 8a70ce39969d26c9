"""Training until a test accuracy is reached, with the same network and recipe on both sides.

mnist: Bilici's network with AdamW and a one-cycle schedule of three epochs; the seconds count from
the start of the process. cifar: ResNet-18 with SGD, a one-cycle schedule and images that are
cropped and flipped; the seconds count from the first batch, so that decoding the JPEG files is not
measured. Both evaluate the test images after each epoch and stop when the accuracy is reached.
"""

from __future__ import annotations

import io
import os
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.contenders import Job
from benchmarks.gpu.training import (
    CIFAR,
    DECAY,
    EVALUATED,
    MIDDLE,
    MNIST,
    MNIST_DECAY,
    MNIST_RATE,
    MOMENTUM,
    PEAK_RATE,
    WIDTH,
    Goal,
    Trainer,
)
from xpnet.data import Dataset
from xpnet.schedules import OneCycle

# --- MNIST ----------------------------------------------------------------------------------------

def mnist(job: Job) -> Iterator[dict[str, Any]]:
    """Yield {"about": ...} and {"row": ...}: MNIST until 99 %, from the start of the process."""
    from xpnet.data import mnist as read
    yield from train_mnist(job, read(job.data or None), MNIST)


def train_mnist(job: Job, data: Dataset, goal: Goal) -> Iterator[dict[str, Any]]:
    train = _torch_mnist if job.contender.startswith("torch") else _our_mnist
    reached, about = train(job, data, goal)
    seconds = time.time() - job.started
    yield {"about": about}
    yield {"row": {"net": goal.net, "batch": goal.batch, "goal": goal.accuracy,
                   "accuracy": reached[-1], "epochs": len(reached), "seconds": seconds}}


def _our_mnist(job: Job, data: Dataset, goal: Goal) -> tuple[list[float], dict[str, Any]]:
    """The accuracy after each epoch, and the versions."""
    import xpnet as xn
    from benchmarks.xpnet_side import NETS, about, backend_of
    backend = backend_of(job)
    x_train, y_train, x_test, y_test = data.arrays()
    net = NETS[goal.net](data.shape, backend=backend)
    history = net.fit(x_train, y_train, loss="cross_entropy", schedule="one_cycle",
                      epochs=goal.epochs, optimizer=xn.AdamW(MNIST_RATE, weight_decay=MNIST_DECAY),
                      batch_size=goal.batch, verbose=False, validation=(x_test, y_test),
                      until=lambda row: row["val_accuracy"] >= goal.accuracy)
    return history["val_accuracy"], about(backend)


def _torch_mnist(job: Job, data: Dataset, goal: Goal) -> tuple[list[float], dict[str, Any]]:
    """The same. A shorter last batch of an epoch is left out, because a CUDA graph has a fixed
    batch size."""
    from benchmarks.gpu.torch_steps import OneCycleAdamW, TorchEpochs
    layout = "nchw" if job.contender == "torch-graph" else job.contender.removeprefix("torch-")
    x_train, y_train, x_test, y_test = data.arrays()
    epochs = TorchEpochs(job, goal.net, goal.batch, layout, x_train, y_train)
    steps, reached = len(data) // goal.batch, list[float]()

    def until(seconds: float) -> bool:
        reached.append(epochs.accuracy(x_test, y_test))
        return reached[-1] >= goal.accuracy or len(reached) == goal.epochs

    epochs.train(steps, until, OneCycleAdamW(goal.epochs * steps, MNIST_RATE, MNIST_DECAY))
    return reached, epochs.about()


# --- CIFAR-10 -------------------------------------------------------------------------------------

def cifar(job: Job) -> Iterator[dict[str, Any]]:
    """Yield {"about": ...} and {"row": ...}: ResNet-18 on CIFAR-10 until 93 %, from the first
    batch."""
    yield from train_cifar(job, read_cifar(job.data or os.environ.get("XPNET_HOME", "")), CIFAR)


def read_cifar(folder: str) -> Dataset:
    """The images of `cifar10/cifar10-jpeg.npz` in the folder, x (N, 3, 32, 32) uint8.

    `train_jpeg` and `test_jpeg` are concatenated JPEG files; image i is the bytes offsets[i] to
    offsets[i + 1].
    """
    from PIL import Image  # type: ignore[import-not-found,unused-ignore]
    path = Path(folder).expanduser() / "cifar10" / "cifar10-jpeg.npz"
    with np.load(path, allow_pickle=False) as file, ThreadPoolExecutor() as pool:
        def images(part: str) -> np.ndarray:
            content, offsets = file[f"{part}_jpeg"].tobytes(), file[f"{part}_offsets"]

            def decode(i: int) -> np.ndarray:
                with Image.open(io.BytesIO(content[offsets[i]:offsets[i + 1]])) as image:
                    return np.asarray(image.convert("RGB")).transpose(2, 0, 1)
            return np.stack(list(pool.map(decode, range(len(offsets) - 1))))
        classes = file["classes"].tolist()
        test = Dataset(images("test"), file["test_labels"], classes=classes)
        return Dataset(images("train"), file["train_labels"], classes=classes, test=test)


def train_cifar(job: Job, data: Dataset, goal: Goal) -> Iterator[dict[str, Any]]:
    """Train one side. Order and learning rates are the same on both sides; crops and flips have the
    same distribution."""
    trainer: Trainer
    if job.contender.startswith("torch"):
        from benchmarks.gpu.torch_cifar import TorchTrainer
        trainer = TorchTrainer(job, goal, data)
    else:
        trainer = XpnetTrainer(job, goal, data)
    rng, schedule = np.random.default_rng(0), OneCycle(pct_start=0.25)
    steps, reached = len(data) // goal.batch, list[float]()
    start = time.perf_counter()
    for epoch in range(goal.epochs):
        order = rng.permutation(len(data))
        for i in range(steps):
            progress = (epoch * steps + i) / max(goal.epochs * steps - 1, 1)
            rate = PEAK_RATE * schedule.factor(progress)
            trainer.step(order[i * goal.batch:(i + 1) * goal.batch], rng, rate)
        reached.append(trainer.accuracy())
        if reached[-1] >= goal.accuracy:
            break
    seconds = time.perf_counter() - start
    yield {"about": trainer.about()}
    yield {"row": {"net": goal.net, "batch": goal.batch, "goal": goal.accuracy,
                   "accuracy": reached[-1], "epochs": len(reached), "seconds": seconds}}


class XpnetTrainer:
    """`TrainStep` on images that are on the GPU as bytes; a Trainer."""

    def __init__(self, job: Job, goal: Goal, data: Dataset) -> None:
        import xpnet as xn
        from benchmarks.xpnet_side import NETS, backend_of
        self.backend = backend_of(job)
        self.net = NETS[goal.net](data.shape, backend=self.backend)
        optimizer = xn.SGD(PEAK_RATE, MOMENTUM, nesterov=True, weight_decay=DECAY)
        self.train_step = xn.TrainStep(self.net, xn.CrossEntropy(), optimizer)
        assert data.test is not None
        self.x, self.y = map(self.backend.asarray, data[:])
        x_test, self.y_test = data.test[:]
        self.x_test = self.normalised(self.backend.asarray(x_test))

    def normalised(self, images: Any) -> Any:
        return (images.astype(np.float32) - MIDDLE) * (1 / WIDTH)

    def step(self, chosen: np.ndarray, rng: np.random.Generator, rate: float) -> None:
        from xpnet.augment import RandomCrop, RandomFlip, augmented
        backend = self.backend
        with backend.stream():
            index = backend.asarray(chosen)
            x = backend.gather_batch(self.x, index, np.dtype(np.float32))   # (C, H, W, N)
            x = augmented(backend.xp, x, [RandomCrop(4), RandomFlip()],
                          seed=int(rng.integers(2**32)), samples=chosen)
            self.train_step(self.normalised(x), self.y[index], rate)

    def accuracy(self) -> float:
        return self.net.evaluate(self.x_test, self.y_test, loss="cross_entropy",
                                 batch_size=EVALUATED)["accuracy"]

    def about(self) -> dict[str, Any]:
        from benchmarks.xpnet_side import about
        return about(self.backend)
