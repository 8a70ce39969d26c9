"""How fast our kernels move memory, against a plain copy of as many bytes on the same GPU.

These kernels do next to no arithmetic, so the bandwidth of a copy is the best they can reach. The bytes counted are
those that have to move: every input read once, every output written once.
"""

from __future__ import annotations

import statistics
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from xpnet.backends import Backend, Window

Call = Callable[[], object]
Timer = Callable[[Call], float]         # seconds that a call takes on the device

SIZES = ((8, 28, 28, 128), (64, 32, 32, 128), (64, 56, 56, 256))    # (C, H, W, N): 3, 34 and 206 MB of float32
WARM_UP, SAMPLES, REPEATS = 3, 9, 20


def kernels(backend: Backend, shape: tuple[int, ...]) -> Iterator[tuple[str, Call, int]]:
    """(name, call, bytes moved) of each kernel on an x of `shape`: 3x3 columns with padding, 2x2 pooling, half dropped."""
    x = backend.asarray(np.random.default_rng(0).standard_normal(shape, np.float32))
    columns, pool = Window.make(3, padding="half"), Window.make(2, stride=2)

    cols = backend.im2col(x, columns)                                   # (C*KH*KW, OH*OW*N)
    yield "im2col", lambda: backend.im2col(x, columns), x.nbytes + cols.nbytes
    yield "col2im", lambda: backend.col2im(cols, shape, columns), cols.nbytes + x.nbytes

    y, argmax = backend.max_pool2d(x, pool)                             # (C, OH, OW, N)
    pooled = y.nbytes + argmax.nbytes
    yield "max_pool2d", lambda: backend.max_pool2d(x, pool), x.nbytes + pooled
    yield "max_pool2d_dx", lambda: backend.max_pool2d_dx(y, argmax, shape, pool), pooled + x.nbytes

    counter = backend.zeros((2,), np.uint64)
    keep = backend.dropout(x, 0.5, (0, 0), counter)[1]
    yield "dropout", lambda: backend.dropout(x, 0.5, (0, 0), counter), x.nbytes + x.nbytes + keep.nbytes


def measure_kernels(backend: Backend, seconds_of: Timer, copy: Callable[[Backend, int], Call],
                    sizes: tuple[tuple[int, ...], ...] = SIZES) -> list[dict[str, Any]]:
    """A row for each kernel and size; `copy(backend, n)` makes a call that copies n bytes, which moves 2 n."""
    rows = []
    for shape in sizes:
        for name, call, moved in kernels(backend, shape):
            seconds = seconds_of(call)
            rate, copy_rate = moved / seconds, moved / seconds_of(copy(backend, moved // 2))
            rows.append({"kernel": name, "shape": list(shape), "bytes": moved, "seconds": seconds,
                         "bytes_per_second": rate, "copy_bytes_per_second": copy_rate, "of_copy": rate / copy_rate})
    return rows


def event_timer(backend: Backend) -> Timer:
    """Seconds on the GPU by CUDA events: the median over samples of several calls in a row."""
    cuda = backend.xp.cuda

    def seconds_of(call: Call) -> float:
        for _ in range(WARM_UP):
            call()
        times = []
        for _ in range(SAMPLES):
            start, stop = cuda.Event(), cuda.Event()
            start.record()
            for _ in range(REPEATS):
                call()
            stop.record()
            stop.synchronize()
            times.append(cuda.get_elapsed_time(start, stop) / 1000 / REPEATS)
        return statistics.median(times)
    return seconds_of


def copy_on_device(backend: Backend, size: int) -> Call:
    """A call that copies `size` bytes from one place of the GPU's memory to another."""
    source, target = backend.zeros((size,), np.uint8), backend.zeros((size,), np.uint8)
    return lambda: target.data.copy_from_device_async(source.data, size)
