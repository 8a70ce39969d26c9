"""Matrix products and convolutions in operations per second, ours and those that PyTorch calls
cuBLAS and cuDNN for.

Multiplications count as the direct algorithm has them: 2 M K P for a product, and for a convolution
see convolutions.py.
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
