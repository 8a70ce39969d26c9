"""Errors of a batch that does not fit into memory: they name a batch size that would fit."""

from __future__ import annotations

import gc
import re
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import fake_memory
import numpy as np
import pytest
from gpu_cases import network, pretended, samples
from nets import branches
from skips import CPU
from tiers import first
from watched_pool import Watched

import xpnet as xn
from xpnet.inspect import memory
from xpnet.models import MODELS

# --- on the CPU -----------------------------------------------------------------------------------

@contextmanager
def limited(net: xn.Network, size: int, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The network's memory pool gives out at most `size` bytes, and the system reports that there
    is no more."""
    class Limited(Watched):
        def _take(self, size_asked: int) -> Any:
            if self.lent + size_asked > size:
                raise MemoryError(f"Unable to allocate {size_asked} bytes")
            return super()._take(size_asked)

    with monkeypatch.context() as patch:
        patch.setattr(memory, "_free_memory", lambda backend: size)
        net.backend.memory = Limited()          # type: ignore[attr-defined]
        yield


@pytest.mark.parametrize("backend", CPU)
def test_the_error_names_a_batch_that_fits(backend, monkeypatch):
    net = MODELS["numpy_cnn"](backend=backend)
    x, y = np.zeros((600, 1, 28, 28), np.float32), np.zeros(600, np.int64)
    optimizer = xn.Adam()

    def fit(batch_size: int) -> None:
        net.fit(x, y, loss="cross_entropy", optimizer=optimizer, batch_size=batch_size,
                verbose=False)

    with limited(net, 30 << 20, monkeypatch):
        with pytest.raises(xn.OutOfMemory) as raised:
            fit(500)
        error = raised.value
        assert (isinstance(error, MemoryError) and isinstance(error.__cause__, MemoryError)
                and error.batch_size == 500)
        assert re.fullmatch(
            rf"fit: expected a batch that fits into the 30 MiB that are free on {backend}. "
            rf"Received: batch_size=500, which needs "
            rf"about [\d.]+ MiB beside the network's [\d.]+ MiB. batch_size={error.fits} would "
            rf"fit.", str(error))
        assert error.fits is not None and 100 < error.fits < 500
        fit(error.fits)
        with pytest.raises(xn.OutOfMemory):
            fit(int(error.fits * 1.6))


CALLS: dict[str, Callable[[xn.Network, np.ndarray, np.ndarray], object]] = {
    "predict": lambda net, x, y: net.predict(x, batch_size=600),
    "evaluate": lambda net, x, y: net.evaluate(x, y, loss="cross_entropy", batch_size=600),
    "fit: validation": lambda net, x, y: net.fit(x[:8], y[:8], loss="cross_entropy",
                                                 optimizer=xn.SGD(0.1), batch_size=4,
                                                 validation=(x, y), verbose=False),
    "TrainStep": lambda net, x, y: xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.1))(
        net.batch_last(x), y),
}


@pytest.mark.parametrize("who", CALLS)
def test_every_call_with_batches_names_a_batch_size_that_fits(who: str, monkeypatch):
    net = MODELS["numpy_cnn"](backend="numpy")
    x, y = np.zeros((600, 1, 28, 28), np.float32), np.zeros(600, np.int64)
    tried = 256 if who == "fit: validation" else 600
    said = f"^{who}: .* Received: batch_size={tried}"
    with limited(net, 8 << 20, monkeypatch), pytest.raises(xn.OutOfMemory, match=said) as raised:
        CALLS[who](net, x, y)
    assert raised.value.fits is not None and 1 <= raised.value.fits < tried


def test_other_errors_are_not_replaced():
    net = branches("numpy")
    for error in (ValueError("another one"), memory.OutOfMemory("said already", 3, 2),
                  KeyboardInterrupt()):
        with pytest.raises(type(error)) as raised, memory.explained(net, "fit", 8):
            raise error
        assert raised.value is error


def test_if_the_free_memory_is_unknown_no_batch_size_is_named(monkeypatch):
    net = branches("numpy")
    monkeypatch.setattr(memory, "_free_memory", lambda backend: None)
    with pytest.raises(memory.OutOfMemory) as raised, memory.explained(net, "predict", 8):
        raise MemoryError
    assert (str(raised.value) == "predict: expected a batch that fits into the memory of numpy. "
                                 "Received: batch_size=8.")
    assert raised.value.fits is None

    def broken(*_: Any, **__: Any) -> None:
        raise MemoryError("again")

    monkeypatch.setattr(memory, "_free_memory", lambda backend: 100)
    with pytest.raises(memory.OutOfMemory,
                       match="Not even one sample fits.") as raised, memory.explained(
                           net, "fit", 8):
        raise MemoryError
    assert raised.value.fits == 0
    monkeypatch.setattr(memory, "_trace", broken)
    with pytest.raises(memory.OutOfMemory, match="Received: batch_size=8.$"), memory.explained(
            net, "fit", 8):
        raise MemoryError


def test_the_failed_batch_is_freed_before_free_memory_is_read(monkeypatch):
    """Arrays of the failed batch are referenced by the frames of its traceback, and by layers that
    wait for their backward pass."""
    net = MODELS["numpy_cnn"](backend="numpy")
    pool = net.backend.memory = Watched()       # type: ignore[attr-defined]
    seen: list[int] = []

    def look(backend: xn.Backend) -> int:
        pool._collect()
        seen.append(pool.lent)
        return 1 << 20

    def step() -> None:
        y = net.forward(net.batch_last(np.zeros((100, 1, 28, 28), np.float32)), xn.TRAIN)
        raise MemoryError(y.shape)

    monkeypatch.setattr(memory, "_free_memory", look)
    with pytest.raises(memory.OutOfMemory), memory.explained(net, "fit", 100):
        step()
    assert seen == [0]


def test_the_failed_batch_is_freed_while_the_error_is_handled(monkeypatch):
    """Also if the error passes through a step that explains errors, too."""
    net = MODELS["numpy_cnn"](backend="numpy")
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.SGD(0.1))
    batches = []

    def batch() -> np.ndarray:
        x = np.zeros((1, 28, 28, 100), np.float32)
        batches.append(weakref.ref(x))
        return x

    def fails(self: Any, x: np.ndarray, mode: str = xn.PREDICT) -> np.ndarray:
        raise MemoryError(x.shape)

    monkeypatch.setattr(xn.Linear, "forward", fails)
    with pytest.raises(memory.OutOfMemory), memory.explained(net, "fit", 100):
        step(batch(), np.zeros(100, np.int64))
    try:
        with memory.explained(net, "fit", 100):
            step(batch(), np.zeros(100, np.int64))
    except memory.OutOfMemory as error:
        assert [reference() for reference in batches] == [None, None] and error.batch_size == 100


def test_free_memory_is_that_of_the_system_and_of_the_pool():
    backend = xn.get_backend("numpy")
    if not Path("/proc/meminfo").exists():
        assert memory._free_memory(backend) is None
        return
    backend.empty((100 << 20,), np.uint8)
    free = memory._free_memory(backend)
    assert free is not None and free > 100 << 20


# --- on an emulated GPU ---------------------------------------------------------------------------

@pytest.mark.parametrize("capture", first([False, True], True))
def test_a_gpu_without_enough_memory(capture: bool, folder):
    with pretended(folder, memory=300_000) as (backend, gpus):
        net, optimizer = network(backend), xn.SGD(0.01)
        gpus.without_gaps = True        # between arrays: the forecast does not know them
        before = gpus.used

        x, y = samples(1000)

        def fit(batch_size: int) -> None:
            net.fit(x, y, loss="cross_entropy", optimizer=optimizer, epochs=4,
                    batch_size=batch_size, capture=capture, verbose=False)

        try:
            fit(1000)
        except xn.OutOfMemory as error:
            assert isinstance(error.__cause__, fake_memory.OutOfMemoryError)
            assert "KiB that are free on cupy:0. Received: batch_size=1000" in str(error)
            fits = error.fits
            assert fits and 50 < fits < 400
            fit(fits)  # here, while the error still holds its frames
        else:
            pytest.fail("1,000 samples fitted")
        with pytest.raises(xn.OutOfMemory):
            fit(2 * fits)
        gc.collect()
        assert gpus.used - before < 10_000                  # all of it is freed


class CUDADriverError(RuntimeError):
    """As CuPy's: its name and its base class."""


class CUBLASError(RuntimeError):
    """As CuPy's."""


@pytest.mark.parametrize("kind, about_memory, other", [
    (fake_memory.CUDARuntimeError, "cudaErrorMemoryAllocation: out of memory",
     "cudaErrorIllegalAddress: an illegal memory access"),
    (CUDADriverError, "CUDA_ERROR_OUT_OF_MEMORY: out of memory",
     "CUDA_ERROR_ILLEGAL_ADDRESS: an illegal memory access"),
    (CUBLASError, "CUBLAS_STATUS_ALLOC_FAILED", "CUBLAS_STATUS_EXECUTION_FAILED"),
    (RuntimeError, "cublasCreate_v2: expected CUBLAS_STATUS_SUCCESS. Received: "
                   "CUBLAS_STATUS_ALLOC_FAILED.", "CUDA_ERROR_OUT_OF_MEMORY"),
])
def test_cuda_errors_about_memory_are_out_of_memory_too(kind, about_memory, other):
    net = network("numpy")
    for text, expected in ((about_memory, memory.OutOfMemory), (other, kind)):
        with pytest.raises(expected) as caught, memory.explained(net, "fit", 8):
            raise kind(text)
        assert type(caught.value) is expected
