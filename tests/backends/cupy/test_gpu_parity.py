"""CupyBackend against NumpyBackend on a real GPU: every public method, and a network that learns
the same on both."""

from __future__ import annotations

from typing import Any

import functional_checks
import numpy as np
import pytest
from gpu import gpu_or_skip, skip_module_without_gpu
from parity import Case, agree, distance, normal, run, same_bits, ties
from parity_cases import CASES, missing_methods

import xpnet as xn
from xpnet.backends import Backend, Window
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.plans import CUBLAS
from xpnet.backends.numpy.backend import NumpyBackend
from xpnet.inspect.memory import OutOfMemory, explained

pytestmark = pytest.mark.gpu
skip_module_without_gpu()


@pytest.fixture(scope="module")
def gpu() -> Backend:
    return gpu_or_skip()


def test_the_table_covers_every_public_method(gpu: Backend):
    assert missing_methods() == set()


@pytest.mark.parametrize("case", CASES, ids=str)
def test_every_method_agrees_with_numpy(case: Case, gpu: Backend):
    agree(case, run(case, gpu), run(case, NumpyBackend()))


@pytest.mark.parametrize("N", [1, 2, 4, 8, 33])
def test_halves_are_added_in_float(N: int, gpu: Backend):
    """The table has no float16: base.py adds halves as halves, the kernels in float, rounding
    once."""
    base, window, shape = Backend(), Window.make(3, stride=2, padding=1), (3, 7, 8, N)
    OH, OW = window.output_size(*shape[1:3])
    with gpu.scope():
        x = ties(*shape, dtype=np.float16)
        assert same_bits(gpu.to_numpy(gpu.im2col(gpu.asarray(x), window)), base.im2col(x, window))
        cols = normal(3 * 9, OH * OW * N, dtype=np.float16)
        assert same_bits(gpu.to_numpy(gpu.col2im(gpu.asarray(cols), shape, window)),
                         base.col2im(cols.astype(np.float32), shape, window).astype(np.float16))
        y, argmax = gpu.max_pool2d(gpu.asarray(x), window)
        right, winner = base.max_pool2d(x, window)
        assert same_bits(gpu.to_numpy(y), right) and same_bits(gpu.to_numpy(argmax), winner)
        dy = normal(*right.shape, dtype=np.float16)
        assert same_bits(gpu.to_numpy(gpu.max_pool2d_dx(gpu.asarray(dy), argmax, shape, window)),
                         base.max_pool2d_dx(dy.astype(np.float32), winner, shape,
                                            window).astype(np.float16))


def test_arrays_of_more_than_2_to_the_31_elements(gpu: Backend):
    """Columns of 2.5e9 elements: an address that was computed in 32 bits would be wrong."""
    window, shape = Window.make(3, padding=1), (1, 130, 130, 16384)
    if gpu.xp.cuda.Device(gpu.device).mem_info[0] < 8e9:     # type: ignore[attr-defined]
        pytest.skip("needs 8 GB of free memory on the GPU")
    with gpu.scope():
        x = gpu.zeros(shape, np.float16)
        x[0, -1, -1, -1] = 1
        cols = gpu.im2col(x, window).reshape(3, 3, 130, 130, 16384)
        assert cols.size > 2**31
        assert gpu.to_numpy(cols.reshape(9, -1)[:, -1]).tolist() == [0, 0, 0, 0, 1, 0, 0, 0, 0]
        assert int(gpu.to_numpy(cols[:, :, -2:, -2:].astype(np.float32).sum())) == 4


def test_the_same_launch_gives_the_same_bits(gpu: Backend):
    window, cols = Window.make(5, padding=2), normal(8 * 25, 16 * 16 * 33)
    first, second = (gpu.to_numpy(gpu.col2im(gpu.asarray(cols), (8, 16, 16, 33), window))
                     for _ in range(2))
    assert same_bits(first, second)


@pytest.mark.parametrize("dtype, tolerance",
                         [(np.float16, 1e-3), (np.float32, 2e-6), (np.float64, 1e-14)])
def test_cublas_agrees_with_our_kernel_also_in_a_graph(dtype: Any, tolerance: float, gpu: Any,
                                                       monkeypatch: pytest.MonkeyPatch):
    """CuPy refuses its cuBLAS while a stream is captured; a handle of our own works there, in the
    memory of the graph."""
    if gpu._cublas is None:
        pytest.skip("CuPy has no cuBLAS here")
    with gpu.scope():
        a, b, bias = (gpu.asarray(normal(*shape, dtype=dtype))
                      for shape in ((300, 1000), (200, 1000), (300,)))

    def products() -> tuple[Any, Any]:
        y = gpu.gemm(a, b, trans_b=True, bias=bias, activation="tanh")
        twice = gpu.gemm(a, b, trans_b=True)
        return y, gpu.gemm(a, b, trans_b=True, out=twice, accumulate=True)

    right = [gpu.to_numpy(c) for c in products()]
    monkeypatch.setattr(gpu, "_way", lambda key, usual, others, run: CUBLAS)
    asked, multiply = [], gpu._cublas.multiply
    monkeypatch.setattr(gpu._cublas, "multiply", lambda *args,
                        **named: (asked.append(args[0]), multiply(*args, **named)))
    captured = gpu.capture(products)
    for _ in range(5):
        for results in (captured(), products()):
            assert (all(distance(gpu.to_numpy(c), expected) < tolerance
                        for c, expected in zip(results, right)))
    # a graph asks twice before it is recorded, and then once
    assert captured.failure == "" and len(asked) == 3 * (3 + 5)


def test_functions_of_arrays(gpu: Any):
    full = CupyBackend(gpu.device, tf32="never")
    for N in (1, 5, 8, 33):
        functional_checks.agree(full, N)
    functional_checks.halves(full)


def perceptive(gpu: Backend) -> xn.Sequential:
    return xn.Sequential([
        xn.Conv2d(32, 3, padding="half"), xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2),
        xn.Conv2d(64, 3, padding="half", activation="relu"), xn.Flatten(), xn.Linear(10),
    ], input_shape=(3, 32, 32), backend=gpu, seed=0)


@pytest.mark.parametrize("N", [100, 256, 2000])
def test_a_memory_report_is_what_the_pool_lends(N: int, gpu: Backend):
    net, optimizer, most = perceptive(gpu), xn.SGD(0.05, momentum=0.9), 0
    report, step = (net.memory_report(N, optimizer),
                    xn.TrainStep(net, xn.CrossEntropy(), optimizer, capture=False))
    pool = gpu.xp.cuda.MemoryPool()

    def allocate(size: int) -> Any:
        nonlocal most
        memory = pool.malloc(size)
        most = max(most, pool.used_bytes())
        return memory

    with gpu.scope(), gpu.xp.cuda.using_allocator(allocate):
        x, y = gpu.zeros((3, 32, 32, N), np.float32), gpu.zeros((N,), np.int64)
        for _ in range(2):
            step(x, y)
    assert report.peak - report.fixed == pytest.approx(most, rel=0.1)


def test_a_gpu_without_enough_memory_says_what_would_fit(gpu: Backend):
    net, optimizer, N = perceptive(gpu), xn.SGD(0.05), 2000
    step, pool = xn.TrainStep(net, xn.CrossEntropy(), optimizer,
                              capture=False), gpu.xp.cuda.MemoryPool()
    pool.set_limit(size=64 << 20)
    with gpu.scope(), gpu.xp.cuda.using_allocator(pool.malloc), pytest.raises(
            OutOfMemory) as raised:
        with explained(net, "fit", N, optimizer):
            step(gpu.zeros((3, 32, 32, N), np.float32), gpu.zeros((N,), np.int64))
    # the GPU itself has more than the pool lent
    assert raised.value.fits is not None and 0 < raised.value.fits < N
    assert pool.used_bytes() == 0, "what failed is still there"


def test_a_network_learns_the_same(gpu: Backend):
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((96, 1, 12, 12)).astype(np.float32), rng.integers(0, 5, 96)
    histories, outputs = [], []
    for backend in (gpu, NumpyBackend()):
        with backend.scope():
            net = xn.Sequential([
                xn.Conv2d(8, 3, padding="half"), xn.BatchNorm2d(activation="relu"), xn.MaxPool2d(2),
                xn.Dropout(0.2),
                xn.Conv2d(16, 3, activation="tanh"), xn.Flatten(), xn.Linear(5),
            ], input_shape=(1, 12, 12), backend=backend, seed=0)
            histories.append(net.fit(x, y, loss="cross_entropy",
                                     optimizer=xn.SGD(0.05, momentum=0.9), epochs=2, batch_size=32,
                                     verbose=False))
            outputs.append(net.predict(x))
    np.testing.assert_allclose(histories[0]["loss"], histories[1]["loss"], rtol=1e-4)
    assert distance(*outputs) < 1e-3        # six steps let the differences of 1e-7 grow
