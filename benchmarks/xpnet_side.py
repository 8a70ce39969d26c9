"""xpnet's side of the competition: its networks, and a training step and a prediction on one of its backends."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np

import xpnet as xn
from benchmarks.contenders import INPUT_SHAPES, LEARNING_RATE, Job, sample_batch
from xpnet import models


def vgg_small(input_shape: tuple[int, ...] = (3, 32, 32), *, classes: int = 10, backend: str | xn.Backend = "auto",
              dtype: Any = "float32", seed: int = 0) -> xn.Sequential:
    """Two 3x3 convolutions with batch norm and ReLU, then a max-pool, at 64, 128 and 256 filters; a dense layer.

    In the manner of Simonyan and Zisserman 2015, with the batch norm of Ioffe and Szegedy 2015; a network to measure.
    """
    layers: list[xn.Layer] = []
    for filters in (64, 128, 256):
        for _ in range(2):
            layers += [xn.Conv2d(filters, 3, padding="half"), xn.BatchNorm2d(activation="relu")]
        layers.append(xn.MaxPool2d(2))
    return xn.Sequential([*layers, xn.Flatten(), xn.Linear(classes)], input_shape=input_shape, backend=backend,
                         dtype=dtype, seed=seed)


NETS: dict[str, Callable[..., xn.Network]] = {
    "numpy_cnn": models.numpy_cnn, "bilici": models.bilici, "vgg_small": vgg_small, "resnet18": models.resnet18,
}


class Xpnet:
    """One of our backends; a Runner."""

    def __init__(self, job: Job) -> None:
        self.backend = xn.get_backend(job.contender)
        self.net = NETS[job.net](INPUT_SHAPES[job.net], backend=self.backend)
        images, labels = sample_batch(job.net, job.batch)
        self.x = self.net.batch_last(images)                            # (C, H, W, N)
        self.labels = self.backend.asarray(labels)                      # (N,)
        self.train_step = xn.TrainStep(self.net, xn.CrossEntropy(), xn.Adam(LEARNING_RATE))

    def step(self, mode: str) -> Callable[[], Any]:
        if mode == "train":
            return lambda: self.train_step(self.x, self.labels)[0]
        return lambda: self.net.forward(self.x, xn.PREDICT)

    def synchronize(self) -> None:
        self.backend.synchronize()

    def finite(self, value: Any) -> bool:
        return bool(np.isfinite(self.backend.to_numpy(value)).all())

    def about(self) -> dict[str, Any]:
        versions = {"Python": platform.python_version(), "NumPy": np.__version__, "xpnet": xn.__version__}
        if not self.backend.name.startswith("cupy"):
            return {"versions": versions, "kernels": blas_kernels()}
        cuda = self.backend.xp.cuda.runtime
        versions |= {"CuPy": self.backend.xp.__version__, "CUDA of CuPy": cuda_version(cuda.runtimeGetVersion()),
                     "CUDA of the driver": cuda_version(cuda.driverGetVersion())}
        device = cuda.getDeviceProperties(cuda.getDevice())["name"].decode()
        return {"versions": versions, "kernels": "RawKernels and cuBLAS", "device": device}


def blas_kernels() -> str:
    """Which BLAS is loaded, and for which processor it chose its kernels."""
    from threadpoolctl import threadpool_info
    found = [f"{library['internal_api']} {library['version']}, {library.get('architecture', 'unknown')} kernels"
             for library in threadpool_info() if library["user_api"] == "blas"]
    return "; ".join(found) or "a BLAS that threadpoolctl does not know"


def cuda_version(number: int) -> str:
    """13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"
