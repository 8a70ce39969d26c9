"""Matrix products and convolutions in operations per second, ours and those that PyTorch calls
cuBLAS and cuDNN for.

Multiplications count as the direct algorithm has them: 2 M K P for a product, and for a convolution
see convolutions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contenders import Job
from benchmarks.convolutions import DIRECTIONS, Convolution, calls
from benchmarks.gpu.bandwidth import noise
from benchmarks.gpu.timing import Call, Timer, backend_timer
from xpnet.backends import Backend


@dataclass(frozen=True)
class Product:
    """W (M, K) times x (K, P), and the two products of its backward pass: W^T dy (K, P), and dy x^T
    (M, K)."""

    M: int
    K: int
    P: int

    @property
    def name(self) -> str:
        """256x64x200704: M x K x P."""
        return f"{self.M}x{self.K}x{self.P}"

    def operations(self, batch: int = 1) -> int:
        return 2 * self.M * self.K * self.P

    def shapes(self) -> tuple[tuple[int, int], ...]:
        """Of W, x and dy."""
        return (self.M, self.K), (self.K, self.P), (self.M, self.P)


# (what, batch), those of the largest networks first: they run as long as there is time. A product's
# batch is part of P.
SHAPES: tuple[tuple[Product | Convolution, int], ...] = (
    # resnet50
    (Convolution(64, 64, 3, 56, "half"), 64), (Convolution(128, 128, 3, 28, "half"), 64),
    (Convolution(256, 256, 3, 14, "half"), 64), (Convolution(512, 512, 3, 7, "half"), 64),
    (Convolution(128, 128, 3, 56, "half", stride=2), 64),
    (Convolution(3, 64, 7, 224, 3, stride=2), 64),
    (Convolution(64, 256, 1, 56), 64), (Convolution(1024, 256, 1, 14), 64),
    (Convolution(256, 512, 1, 56, stride=2), 64),
    (Product(4096, 4096, 4096), 1), (Product(256, 64, 200704), 1), (Product(512, 2048, 3136), 1),
    (Product(1000, 2048, 64), 1),
    # resnet18
    (Convolution(64, 64, 3, 32, "half"), 512), (Convolution(128, 128, 3, 16, "half"), 512),
    (Convolution(256, 256, 3, 8, "half"), 512), (Convolution(512, 512, 3, 4, "half"), 512),
    (Convolution(64, 128, 3, 32, "half", stride=2), 512),
    # numpy_cnn, bilici, lenet5
    (Convolution(8, 8, 5, 24), 128), (Convolution(8, 32, 5, 14, "half"), 128),
    (Convolution(6, 16, 5, 14), 128), (Convolution(16, 120, 5, 5), 128),
    (Convolution(1, 8, 5, 28), 128),
    (Product(600, 1568, 128), 1), (Product(128, 800, 32), 1),
    # VGG-16
    (Convolution(128, 128, 3, 112, "half"), 64), (Convolution(512, 512, 3, 28, "half"), 64),
)


def our_calls(backend: Backend, what: Product | Convolution,
              batch: int) -> Iterator[tuple[str, Call]]:
    """(direction, call) of each direction, on noise."""
    if isinstance(what, Convolution):
        yield from calls(backend, what, batch, partial(noise, backend))
        return
    W, x, dy = (noise(backend, *shape) for shape in what.shapes())
    yield "forward", lambda: backend.gemm(W, x)
    yield "input", lambda: backend.gemm(W, dy, trans_a=True)
    yield "filters", lambda: backend.gemm(dy, x, trans_b=True)


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """{"about": ...} and {"row": ...} of each shape and direction; of PyTorch the faster layout."""
    if job.contender.startswith("torch"):
        from benchmarks.gpu import torch_products
        torch_products.prepare(job)
        yield {"about": torch_products.about(job)}
        yield from measure_shapes(job, lambda *what: torch_products.torch_calls(job, *what),
                                  torch_products.timer(job))
        return
    from benchmarks.gpu.ours import backend_of
    from benchmarks.xpnet_side import about
    backend = backend_of(job)
    yield {"about": about(backend)}
    yield from measure_shapes(job, lambda *what: our_calls(backend, *what), backend_timer(backend))


def measure_shapes(job: Job,
                   calls_of: Callable[[Product | Convolution, int], Iterator[tuple[str, Call]]],
                   seconds_of: Timer, shapes: Sequence[tuple[Product | Convolution, int]] = SHAPES
                   ) -> Iterator[dict[str, Any]]:
    """A row for each shape and direction, of the call that takes least where there are several."""
    for what, batch in shapes:
        if job.late():
            return
        seconds: dict[str, float] = {}
        for direction, call in calls_of(what, batch):
            seconds[direction] = min(seconds_of(call), seconds.get(direction, np.inf))
        for direction in DIRECTIONS:
            yield {"row": {"product": what.name, "batch": batch, "direction": direction,
                           "operations": what.operations(batch), "seconds": seconds[direction],
                           "flops_per_second": what.operations(batch) / seconds[direction]}}
