"""A rehearsal on a GPU: Python runs this file first in each process that has its folder in
PYTHONPATH.

`import cupy` then gives the emulation, with the kernels that g++ compiled. PyTorch is missing, and
the benchmarks have tiny sizes. Everything else is what runs on a GPU.
"""

from __future__ import annotations

import sys
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

ROOT = Path(__file__).parents[3]
sys.path[:0] = [str(ROOT), str(ROOT / "tests" / "support")]

import fake_cupy  # noqa: E402 - sys.path comes first
import numpy as np  # noqa: E402

from benchmarks import contenders  # noqa: E402
from benchmarks.convolutions import Convolution  # noqa: E402
from benchmarks.gpu import accuracy, bandwidth, products, steps, timing  # noqa: E402
from benchmarks.gpu.shapes import Product  # noqa: E402
from xpnet import data, models  # noqa: E402

MEMORY = 1 << 30                    # bytes of the emulated GPU


class NoTorch:
    """An importer that says that PyTorch is not installed."""

    @staticmethod
    def find_spec(name: str, *_: Any) -> None:
        if name == "torch":
            raise ModuleNotFoundError("No module named 'torch'", name="torch")


def images(samples: int) -> data.Dataset:
    """Noise instead of MNIST, in the size of the networks below, with labels."""
    rng = np.random.default_rng(samples)
    return data.Dataset(rng.integers(0, 256, (samples, 1, 10, 10)).astype(np.uint8),
                        rng.integers(0, 10, samples), classes=list("0123456789"), scale=255)


def mnist(folder: Any = None) -> data.Dataset:
    train, test = images(16), images(8)
    return data.Dataset(*train[:], classes=train.classes, scale=255, test=test)


sys.meta_path.insert(0, NoTorch)
sys.modules["cupy"] = fake_cupy.FakeCupy(ROOT / "build" / "emulated_kernels", memory=MEMORY)

contenders.INPUT_SHAPES |= {"numpy_cnn": (1, 10, 10), "lenet5": (1, 32, 32), "bilici": (1, 12, 12),
                            "resnet18": (3, 8, 8)}
steps.BATCHES, steps.FEW = 4, {"resnet18": 4}
bandwidth.MEGABYTES, bandwidth.ROTATED = (0.05,), 1 << 18
timing.HOLD, timing.MOST_HOLDS = 1 << 16, 2          # the emulated GPU is never late
timing.WARM_UP, timing.SAMPLES, timing.FEWEST_SAMPLES, timing.REPEATS = 1, 2, 1, 2
products.measure_shapes.__defaults__ = ((
    (Convolution(4, 8, 3, 6, "half"), 4), (Convolution(4, 8, 3, 6, "half", 2, 2), 4),
    (Product(8, 12, 16), 1)),)
accuracy.MNIST = replace(accuracy.MNIST, batch=4, epochs=1)
accuracy.CIFAR = replace(accuracy.CIFAR, batch=4, epochs=1)
data.mnist = mnist

# benchmarks.gpu.small_run, as a program, takes its networks from here.
small = partial(models.numpy_cnn, (1, 10, 10))
models.bilici = models.lenet5 = models.resnet18 = lambda *_, backend: small(backend=backend)
