"""The memory bandwidth of xpnet's kernels, compared with a copy on the same GPU.

These kernels do little arithmetic, so they can at best reach the bandwidth of a copy. Counted are
the bytes that have to be moved: every input read once, every output written once. Batch norm has to
read its inputs twice, because its output depends on sums over whole channels, and the arrays are
larger than the GPU's caches.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any

import numpy as np

from benchmarks.contenders import Job
from benchmarks.gpu.timing import Call, Timer, backend_timer, copy_on_device
from xpnet.backends import Backend, Window
from xpnet.backends.base import Array

MEGABYTES = (16, 64, 256, 1024)     # of x, in float32
CHANNELS, SIDE, CLASSES = 64, 32, 1000
ROTATED = 256 << 20  # bytes: smaller calls rotate over several arrays, to avoid reads from a cache
CHUNK = 1 << 20         # random numbers; larger arrays repeat them
SPACE = 24              # times x: the memory of im2col and its inputs, with CuPy's unused blocks

Made = tuple[Call, int, tuple[int, ...]]    # a call, the bytes that it has to move, the shape of x
EPS, HALF, KEY = 1e-5, 0.5, (0, 0)
COLUMNS, POOL = Window.make(3, padding="half"), Window.make(2, stride=2)


def noise(b: Backend, *shape: int) -> Array:
    size = math.prod(shape)
    chunk = b.asarray(np.random.default_rng(0).standard_normal(min(size, CHUNK), np.float32))
    return b.xp.tile(chunk, -(-size // chunk.size))[:size].reshape(shape)


def wide(samples: int) -> int:
    """A number of samples near `samples` that fills whole 16-byte accesses, also of bytes."""
    return samples // 16 * 16 or max(1, samples)


def images(numbers: int) -> tuple[int, int, int, int]:
    """(C, H, W, N) with about `numbers` elements."""
    return CHANNELS, SIDE, SIDE, wide(numbers // (CHANNELS * SIDE * SIDE))


def im2col(b: Backend, n: int) -> Made:
    x = noise(b, *images(n))
    return lambda: b.im2col(x, COLUMNS), (1 + COLUMNS.taps) * x.nbytes, x.shape  # (C*KH*KW, H*W*N)


def col2im(b: Backend, n: int) -> Made:
    C, H, W, N = shape = images(n)
    cols = noise(b, C * COLUMNS.taps, H * W * N)
    return lambda: b.col2im(cols, shape, COLUMNS), cols.nbytes + cols.nbytes // COLUMNS.taps, shape


def max_pool2d(b: Backend, n: int) -> Made:
    x = noise(b, *images(n))
    y, argmax = b.max_pool2d(x, POOL)
    return lambda: b.max_pool2d(x, POOL), x.nbytes + y.nbytes + argmax.nbytes, x.shape


def max_pool2d_dx(b: Backend, n: int) -> Made:
    shape = images(n)
    dy, argmax = b.max_pool2d(noise(b, *shape), POOL)
    return (lambda: b.max_pool2d_dx(dy, argmax, shape, POOL),
            dy.nbytes + argmax.nbytes + 4 * math.prod(shape), shape)


def avg_pool2d(b: Backend, n: int) -> Made:
    x = noise(b, *images(n))
    return lambda: b.avg_pool2d(x, POOL), x.nbytes + x.nbytes // POOL.taps, x.shape


def avg_pool2d_dx(b: Backend, n: int) -> Made:
    C, H, W, N = shape = images(n)
    dy = noise(b, C, H // 2, W // 2, N)
    return lambda: b.avg_pool2d_dx(dy, shape, POOL), dy.nbytes + 4 * math.prod(shape), shape


def dropout(b: Backend, n: int) -> Made:
    x, counter = noise(b, *images(n)), b.zeros((2,), np.uint64)
    # The mask has a byte for each element.
    return lambda: b.dropout(x, HALF, KEY, counter), 2 * x.nbytes + x.size, x.shape


def dropout_dx(b: Backend, n: int) -> Made:
    dy = noise(b, *images(n))
    keep = dy > 0
    return lambda: b.dropout_dx(dy, HALF, keep), 2 * dy.nbytes + keep.nbytes, dy.shape


def channels(b: Backend, C: int) -> tuple[Array, Array]:
    """gamma or a variance, and beta or a mean."""
    return b.zeros((C,), np.float32) + np.float32(1), b.zeros((C,), np.float32)


def batch_norm(b: Backend, n: int) -> Made:
    x = noise(b, *images(n))
    gamma, beta = channels(b, CHANNELS)
    return lambda: b.batch_norm(x, gamma, beta, EPS, activation="relu"), 3 * x.nbytes, x.shape


def batch_norm_backward(b: Backend, n: int) -> Made:
    x = noise(b, *images(n))
    gamma, beta = channels(b, CHANNELS)
    y, mean, var = b.batch_norm(x, gamma, beta, EPS, activation="relu")
    dy = y.copy()
    gamma_grad, beta_grad = channels(b, CHANNELS)
    return (lambda: b.batch_norm_backward(dy, x, y, gamma, mean, var, EPS, activation="relu",
                                          gamma_grad=gamma_grad, beta_grad=beta_grad),
            7 * x.nbytes, x.shape)      # dy, x, y twice, and dx


def batch_norm_inference(b: Backend, n: int) -> Made:
    x = noise(b, *images(n))
    gamma, beta = channels(b, CHANNELS)
    var, mean = channels(b, CHANNELS)
    return (lambda: b.batch_norm_inference(x, gamma, beta, mean, var, EPS, activation="relu"),
            2 * x.nbytes, x.shape)


def softmax_cross_entropy(b: Backend, n: int) -> Made:
    N = wide(n // CLASSES)
    z, target = noise(b, CLASSES, N), b.asarray(np.random.default_rng(0).integers(0, CLASSES, N))
    return lambda: b.softmax_cross_entropy(z, target), 2 * z.nbytes + target.nbytes, z.shape


def activate(b: Backend, n: int) -> Made:
    z = noise(b, *images(n))
    return lambda: b.activate(z, "relu"), 2 * z.nbytes, z.shape


def activation_backward(b: Backend, n: int) -> Made:
    dy = noise(b, *images(n))
    y = dy.copy()
    bias_grad = b.zeros((CHANNELS,), np.float32)
    return (lambda: b.activation_backward(dy, y, "relu", bias_grad=bias_grad), 3 * dy.nbytes,
            dy.shape)


def sgd(b: Backend, n: int) -> Made:
    w, g, v = noise(b, n), noise(b, n), b.zeros((n,), np.float32)
    hyper = b.asarray(np.array([1e-3, 0.9, 1e-4]))
    return lambda: b.update("sgd", w, g, [v], hyper, decayed=n), 5 * w.nbytes, w.shape


def adam(b: Backend, n: int) -> Made:
    w, g, m, v = noise(b, n), noise(b, n), b.zeros((n,), np.float32), b.zeros((n,), np.float32)
    hyper = b.asarray(np.array([1e-3, 0.9, 0.999, 1e-8, 1e-4, 0.5, 0.5]))
    return lambda: b.update("adamw", w, g, [m, v], hyper, decayed=n), 7 * w.nbytes, w.shape


def gather_batch(b: Backend, n: int, dtype: type = np.float32) -> Made:
    """Images of 3x32x32 in another order, from batch-first to batch-last."""
    S = wide(n // 3072)
    samples = noise(b, S, 3, 32, 32)
    if dtype is np.uint8:
        samples = (samples > 0).astype(np.uint8)
    index = b.asarray(np.random.default_rng(0).permutation(S))
    return (lambda: b.gather_batch(samples, index, np.dtype(np.float32)),
            samples.nbytes + 4 * samples.size, samples.shape)


def gather_batch_uint8(b: Backend, n: int) -> Made:
    return gather_batch(b, n, np.uint8)


KERNELS: tuple[Callable[[Backend, int], Made], ...] = (
    im2col, col2im, max_pool2d, max_pool2d_dx, avg_pool2d, avg_pool2d_dx, dropout, dropout_dx,
    batch_norm, batch_norm_backward, batch_norm_inference, softmax_cross_entropy, activate,
    activation_backward, sgd, adam, gather_batch, gather_batch_uint8)


def in_turn(make: Callable[[int], Made], n: int) -> Made:
    """A call that rotates over several arrays, so many that a cache cannot hold them."""
    call, moved, shape = make(n)
    calls = itertools.cycle([call, *(make(n)[0] for _ in range(math.ceil(ROTATED / moved) - 1))])
    return lambda: next(calls)(), moved, shape


def measure_kernels(job: Job, backend: Backend, seconds_of: Timer,
                    megabytes: Sequence[float] = MEGABYTES) -> Iterator[dict[str, Any]]:
    """The number and a row for each size and kernel, the largest arrays first."""
    copied: dict[float, float] = {}         # bytes per second of a copy, by size
    for number, (size, kernel) in job.items(
            itertools.product(sorted(megabytes, reverse=True), KERNELS)):
        yield number
        n = int(size * 2**18)
        if size not in copied:
            call, moved, _ = in_turn(lambda n: (copy_on_device(backend, 4 * n), 8 * n, ()), n)
            copied[size] = moved / seconds_of(call)
        call, moved, shape = in_turn(partial(kernel, backend), n)
        seconds = seconds_of(call)
        yield {"row": {"kernel": kernel.__name__, "megabytes": size, "shape": list(shape),
                       "bytes": moved, "seconds": seconds,
                       "bytes_per_second": moved / seconds, "copy_bytes_per_second": copied[size],
                       "of_copy": moved / seconds / copied[size]}}


def measure(job: Job) -> Iterator[dict[str, Any]]:
    """Yield {"about": ...}, and {"item": ...} and {"row": ...} for each kernel and each size that
    fits into the GPU's memory."""
    from benchmarks.xpnet_side import about, backend_of
    backend = backend_of(job)
    yield {"about": about(backend)}
    free = backend.xp.cuda.runtime.memGetInfo()[0] if backend.name.startswith("cupy") else 2**30
    sizes = [size for size in MEGABYTES if size * 2**20 * SPACE < free]
    yield from measure_kernels(job, backend, backend_timer(backend), sizes)
