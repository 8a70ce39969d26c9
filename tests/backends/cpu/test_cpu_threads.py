"""Both CPU backends in several threads: arrays in use never change, and training gives the same
bits in any number of threads."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from cpu_cases import digits
from nets import pictures, same, values
from processes import run_script
from tiers import first

import xpnet as xn
from xpnet.backends import Backend, BackendError, get_backend
from xpnet.backends.cpu.memory import MemoryPool
from xpnet.backends.cpu.threads import ThreadPool

QUIET: dict[str, Any] = {"loss": "cross_entropy", "shuffle": False, "verbose": False}


def make(name: str) -> Backend:
    try:
        return get_backend(name)
    except BackendError as error:
        pytest.skip(str(error))


def side_by_side(*tasks: Callable[[], None]) -> None:
    """Run each task in its own thread, and raise the first error here."""
    errors: list[BaseException] = []

    def run(task: Callable[[], None]) -> None:
        try:
            task()
        except BaseException as error:  # of any kind: the test must see it
            errors.append(error)

    crew = [threading.Thread(target=run, args=(task,), daemon=True) for task in tasks]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join(300)
    assert not any(thread.is_alive() for thread in crew)
    if errors:
        raise errors[0]


# --- memory ---------------------------------------------------------------------------------------

class Hoard:
    """Parts of arrays, with copies of their content. Each may be dropped, or passed to another
    thread, at any time."""

    def __init__(self, seed: int) -> None:
        self.rng = np.random.default_rng(seed)
        self.kept: list[tuple[np.ndarray, bytes]] = []

    def add(self, a: np.ndarray) -> None:
        views = (lambda: a, lambda: a.T, lambda: a[1:], lambda: a[..., ::3],
                 lambda: a.reshape(-1)[7:-5], lambda: a[-1:, ..., 0])
        view = views[self.rng.integers(len(views))]()
        self.kept.append((view, view.tobytes()))

    def check(self) -> None:
        for view, held in self.kept:
            # outside of the assertion, or pytest would print long differences
            same = view.tobytes() == held
            assert same

    def drop(self, most: int) -> None:
        """Check and drop some, in random order."""
        while len(self.kept) > most:
            view, held = self.kept.pop(self.rng.integers(len(self.kept)))
            same = view.tobytes() == held
            assert same


class Keep(xn.Layer):
    """The identity; keeps parts of what passes through it in both directions."""

    def __init__(self, hoard: Hoard, *, name: str | None = None) -> None:
        super().__init__(name=name)
        self.hoard = hoard

    def build(self, shape):
        return shape

    def forward(self, x, mode=xn.PREDICT):
        self.hoard.add(x)
        return x

    def backward(self, dy, accumulate=False):
        self.hoard.add(dy)
        return dy


def hoarding_steps(backend: Backend, hoard: Hoard, steps: int) -> Iterator[None]:
    """Train, keep parts of all values and gradients, and drop some after every step."""
    net = digits(backend, between=lambda: [Keep(hoard)])
    step = xn.TrainStep(net, xn.CrossEntropy(), xn.Adam(1e-3))
    for turn in range(steps):
        x, labels = pictures(64 if turn % 3 else 61, (2, 12, 12), 5, seed=turn)
        step(net.batch_last(x), labels)
        hoard.add(net.predict(x))
        hoard.check()
        hoard.drop(40)
        yield


@pytest.mark.parametrize("name", ["numpy", "numba"])
@pytest.mark.parametrize("own", [False, True], ids=["one backend", "a backend each"])
def test_arrays_in_use_never_change(name: str, own: bool):
    """During the training steps of three threads, which pass arrays to each other."""
    shared, lock, hoards = make(name), threading.Lock(), [Hoard(seed) for seed in range(3)]

    def train(me: int) -> None:
        for _ in hoarding_steps(get_backend(name) if own else shared, hoards[me], 25):
            with lock:
                hoards[(me + 1) % 3].kept += hoards[me].kept[:5]
                del hoards[me].kept[:5]

    side_by_side(*(lambda me=me: train(me) for me in range(3)))
    for hoard in hoards:
        assert len(hoard.kept) > 20
        hoard.check()


class Forgetful(MemoryPool):
    """Twelve blocks for each size, used in turn, even if an array on them is still in use."""

    def __init__(self) -> None:
        super().__init__()
        self.blocks: dict[int, Iterator[np.ndarray]] = {}

    def empty(self, shape, dtype):
        size = int(np.prod(shape)) * np.dtype(dtype).itemsize
        if size not in self.blocks:
            self.blocks[size] = cycle([np.empty(size, np.uint8) for _ in range(12)])
        return next(self.blocks[size]).view(dtype).reshape(shape)


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_a_pool_that_reuses_memory_too_early_is_detected(name: str):
    """The test above can fail."""
    backend: Any = make(name)
    backend.memory = Forgetful()
    with pytest.raises(AssertionError):
        list(hoarding_steps(backend, Hoard(0), 5))


# --- company --------------------------------------------------------------------------------------

def trained(backend: Backend, seed: int) -> dict[str, np.ndarray]:
    net = digits(backend, seed=seed)
    net.fit(*pictures(200, (2, 12, 12), 5, seed=seed), **QUIET, optimizer=xn.Adam(1e-3), epochs=2,
            batch_size=64)
    return values(net)


@pytest.mark.parametrize("names", [("numpy", "numpy"), ("numba", "numba"), ("numpy", "numba"),
                                   ("numba", "numpy", "numba")],
                         ids="-".join)
def test_networks_trained_in_threads_have_the_same_bits_as_alone(names: tuple[str, ...]):
    backends = [make(name) for name in names]
    alone = [trained(backend, seed) for seed, backend in enumerate(backends)]
    together: list[Any] = [None] * len(names)

    def train(me: int) -> None:
        together[me] = trained(backends[me], me)

    side_by_side(*(lambda me=me: train(me) for me in range(len(names))))
    assert all(map(same, together, alone))
    assert not same(*alone[:2])


@pytest.mark.parametrize("name", ["numpy", "numba"])
def test_networks_in_threads_may_share_a_backend(name: str):
    backend = make(name)
    alone = [trained(make(name), seed) for seed in range(3)]
    together: list[Any] = [None] * 3

    def train(me: int) -> None:
        together[me] = trained(backend, me)

    side_by_side(*(lambda me=me: train(me) for me in range(3)))
    assert all(map(same, together, alone))


@pytest.mark.parametrize("name", first(["numpy", "numba"], "numba"))
def test_backends_made_in_several_threads(name: str):
    """In a new process, where several threads import and use the backend for the first time, all at
    once."""
    make(name)
    run_script(f"""
import threading
from nets import same
from tests.backends.cpu.test_cpu_threads import side_by_side, trained
from xpnet import get_backend

start, results = threading.Barrier(6), []

def run():
    start.wait(60)
    results.append(trained(get_backend({name!r}), 0))

side_by_side(*[run] * 6)
assert len(results) == 6 and all(same(result, results[0]) for result in results)
""")


@pytest.mark.parametrize("name", first(["numpy", "numba"], "numba"))
def test_training_gives_the_same_bits_with_any_number_of_threads(name: str):
    make(name)
    run_script(f"""
import os
from nets import same
from tests.backends.cpu.test_cpu_threads import trained
from xpnet import get_backend

results = []
for threads in (1, 2, 3, 50):
    os.environ["XPNET_NUM_THREADS"] = str(threads)
    backend = get_backend({name!r})
    assert backend.threads.size == threads
    results.append(trained(backend, 0))
assert all(same(result, results[0]) for result in results)
""", NUMBA_NUM_THREADS="4")


def test_a_kernel_restores_numbas_number_of_threads():
    make("numba")
    run_script("""
import numba, numpy as np
from parity import normal
from xpnet.backends.numba.backend import NumbaBackend

backend = NumbaBackend()
for threads in (1, 3):
    numba.set_num_threads(threads)
    backend.gemm(normal(100, 100), normal(100, 100))
    assert backend.size == 2 and numba.get_num_threads() == threads
""", NUMBA_NUM_THREADS="4", XPNET_NUM_THREADS="2")


def test_numpys_error_settings_apply_in_all_threads():
    """A worker uses the caller's settings, and does not keep them for the next job."""
    pool, together, seen = ThreadPool(3), threading.Barrier(3), []

    def task(index: int) -> None:
        together.wait(60)               # so that each of the three threads has one task
        seen.append((threading.get_ident(), np.geterr()["over"]))

    for wanted in ("raise", "ignore"):
        with np.errstate(over=wanted):
            pool.run(task, 3)
        assert len(dict(seen)) == 3 and {over for _, over in seen} == {wanted}
        seen.clear()
