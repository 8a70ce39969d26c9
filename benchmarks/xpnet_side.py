"""xpnet's side of the comparison: its networks, and a training step and a prediction on one of its
backends."""

from __future__ import annotations

import platform
from collections.abc import Callable
from typing import Any

import numpy as np

import xpnet as xn
from benchmarks.contenders import INPUT_SHAPES, LEARNING_RATE, Job, sample_batch
from xpnet import models


def numpy_cnn(input_shape: tuple[int, ...] = (1, 28, 28), *, width: float = 1,
              backend: str | xn.Backend = "auto", dtype: Any = "float32",
              seed: int = 0) -> xn.Sequential:
    """`xpnet.models.numpy_cnn` with `width` times its filters."""
    filters = int(8 * width)
    return xn.Sequential([
        xn.Conv2d(filters, 5, activation="relu"), xn.Conv2d(filters, 5, activation="relu"),
        xn.MaxPool2d(2), xn.Flatten(), xn.Linear(128, activation="relu"), xn.Linear(10),
    ], input_shape=input_shape, backend=backend, dtype=dtype, seed=seed)


def vgg_small(input_shape: tuple[int, ...] = (3, 32, 32), *, width: float = 1,
              backend: str | xn.Backend = "auto", dtype: Any = "float32",
              seed: int = 0) -> xn.Sequential:
    """A small VGG for benchmarks: three times two 3x3 convolutions and a max-pool, then a Linear.

    The convolutions have 64, 128 and 256 times `width` filters, batch norm and ReLU. In the style
    of Simonyan and Zisserman 2015, with the batch norm of Ioffe and Szegedy 2015.
    """
    layers: list[xn.Layer] = []
    for filters in (64, 128, 256):
        for _ in range(2):
            layers += [xn.Conv2d(int(width * filters), 3, padding="half"),
                       xn.BatchNorm2d(activation="relu")]
        layers.append(xn.MaxPool2d(2))
    return xn.Sequential([*layers, xn.Flatten(), xn.Linear(10)], input_shape=input_shape,
                         backend=backend, dtype=dtype, seed=seed)


NETS: dict[str, Callable[..., xn.Network]] = {
    "numpy_cnn": models.numpy_cnn, "bilici": models.bilici, "lenet5": models.lenet5,
    "vgg_small": vgg_small, "resnet18": models.resnet18, "resnet50": models.resnet50,
}
WIDE: dict[str, Callable[..., xn.Network]] = {      # with an argument `width`
    "numpy_cnn": numpy_cnn, "vgg_small": vgg_small,
}


class Xpnet:
    """One of xpnet's backends; a Runner."""

    def __init__(self, job: Job, batch: int) -> None:
        self.backend = xn.get_backend(job.contender)
        shape = INPUT_SHAPES[job.net]
        self.net = (NETS[job.net](shape, backend=self.backend) if job.width == 1 else
                    WIDE[job.net](shape, backend=self.backend, width=job.width))
        images, labels = sample_batch(job.net, batch)
        self.x = self.net.batch_last(images)                            # (C, H, W, N)
        self.labels = self.backend.asarray(labels)                      # (N,)

    def step(self, mode: str) -> Callable[[], Any]:
        if mode == "train":
            train_step = xn.TrainStep(self.net, xn.CrossEntropy(), xn.Adam(LEARNING_RATE))
            return lambda: train_step(self.x, self.labels)[0]
        return lambda: self.net.forward(self.x, xn.PREDICT)

    def synchronize(self) -> None:
        self.backend.synchronize()

    def finite(self, value: Any) -> bool:
        return bool(np.isfinite(self.backend.to_numpy(value)).all())

    def about(self) -> dict[str, Any]:
        return about(self.backend)


def backend_of(job: Job) -> xn.Backend:
    """xpnet's backend for a job on a GPU, with the job's TF32 setting if the backend has one."""
    backend = xn.get_backend(job.backend)
    if hasattr(backend, "tf32"):
        backend.tf32 = job.tf32
    return backend


def about(backend: xn.Backend) -> dict[str, Any]:
    """Versions, the code that computes the products, and on a GPU its name."""
    versions = {"Python": platform.python_version(), "NumPy": np.__version__,
                "xpnet": xn.__version__}
    if backend.name.startswith("cupy"):
        cuda = backend.xp.cuda.runtime
        versions |= {"CuPy": backend.xp.__version__,
                     "CUDA of CuPy": cuda_version(cuda.runtimeGetVersion()),
                     "CUDA of the driver": cuda_version(cuda.driverGetVersion())}
        tf32 = getattr(backend, "tf32", "never")
        device = cuda.getDeviceProperties(cuda.getDevice())["name"].decode()
        return {"versions": versions, "kernels": f"kernels of its own, TF32 {tf32}",
                "device": device}
    if backend.name == "numba":
        import numba
        versions["Numba"] = numba.__version__
        return {"versions": versions, "kernels": f"{compiled_kernels()}; {blas_kernels()}"}
    return {"versions": versions, "kernels": blas_kernels()}


def blas_kernels() -> str:
    """The BLAS that is loaded, and the processor that it chose its kernels for."""
    from threadpoolctl import threadpool_info
    found = [f"{library['internal_api']} {library['version']}, "
             f"{library.get('architecture', 'unknown')} kernels"
             for library in threadpool_info() if library["user_api"] == "blas"]
    return "; ".join(found) or "a BLAS that threadpoolctl does not know"


def compiled_kernels() -> str:
    """The processor that Numba compiles for, and its threading layer."""
    import llvmlite.binding
    import numba
    try:
        layer = f"threads by {numba.threading_layer()}"
    except ValueError:  # before the first parallel loop
        layer = "no threads started"
    return f"kernels compiled for {llvmlite.binding.get_host_cpu_name()}, {layer}"


def cuda_version(number: int) -> str:
    """13020 is 13.2."""
    return f"{number // 1000}.{number % 1000 // 10}"
