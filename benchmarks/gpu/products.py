"""Matrix products and convolutions in operations per second: xpnet's kernels, and PyTorch's cuBLAS
and cuDNN.

Counted are the operations of the direct algorithm: 2 M K P for a product, and for a convolution see
benchmarks/convolutions.py.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contenders import Job
from benchmarks.convolutions import DIRECTIONS, Convolution, calls
from benchmarks.gpu.bandwidth import noise
from benchmarks.gpu.shapes import SHAPES, Product
from benchmarks.gpu.timing import Call, Timer, backend_timer
from xpnet.backends import Backend


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
    """Yield {"about": ...}, and for each shape {"item": ...} and a {"row": ...} for each direction;
    for PyTorch, of the faster layout."""
    if job.contender.startswith("torch"):
        from benchmarks.gpu import torch_products
        torch_products.prepare(job)
        yield {"about": torch_products.about(job)}
        yield from measure_shapes(job, lambda *what: torch_products.torch_calls(job, *what),
                                  torch_products.timer(job))
        return
    from benchmarks.xpnet_side import about, backend_of
    backend = backend_of(job)
    yield {"about": about(backend)}
    yield from measure_shapes(job, lambda *what: our_calls(backend, *what), backend_timer(backend))


def measure_shapes(job: Job,
                   calls_of: Callable[[Product | Convolution, int], Iterator[tuple[str, Call]]],
                   seconds_of: Timer,
                   shapes: Sequence[tuple[Product | Convolution, int]] = SHAPES,
                   ) -> Iterator[dict[str, Any]]:
    """The number of each shape, and a row for each direction; of several calls, the fastest."""
    for number, (what, batch) in job.items(shapes):
        yield number
        seconds: dict[str, float] = {}
        for direction, call in calls_of(what, batch):
            seconds[direction] = min(seconds_of(call), seconds.get(direction, np.inf))
        for direction in DIRECTIONS:
            yield {"row": {"product": what.name, "batch": batch, "direction": direction,
                           "operations": what.operations(batch), "seconds": seconds[direction],
                           "flops_per_second": what.operations(batch) / seconds[direction]}}
