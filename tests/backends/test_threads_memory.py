"""The thread pool, the limit on BLAS's own threads, and the memory that is used again."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

import numpy as np
import pytest
from processes import run_script
from threadpoolctl import threadpool_info

from xpnet.backends.cpu import memory
from xpnet.backends.cpu.memory import MemoryPool
from xpnet.backends.cpu.threads import ThreadPool, single_threaded_blas, thread_count


def wait_until(condition, what):
    deadline = time.monotonic() + 60  # generous: it only ends a test that has failed already
    while not condition():
        assert time.monotonic() < deadline, f"waited in vain until {what}"
        time.sleep(0.001)


# --- threads --------------------------------------------------------------------------------------

@pytest.mark.parametrize("size", [1, 2, 5])
@pytest.mark.parametrize("count", [0, 1, 2, 3, 1000])
def test_every_task_runs_once(size, count):
    done = [0] * count

    def task(k):
        done[k] += 1

    ThreadPool(size).run(task, count)
    assert done == [1] * count


def test_tasks_run_side_by_side():
    meeting = threading.Barrier(3)
    ThreadPool(3).run(lambda k: meeting.wait(60), 3)  # nobody passes before three threads have come


def test_workers_start_at_the_first_parallel_call_only():
    before = set(threading.enumerate())                     # of other pools, some about to end
    pool = ThreadPool(3)
    pool.run(lambda k: None, 1)
    assert set(threading.enumerate()) <= before
    for _ in range(2):
        pool.run(lambda k: None, 3)
        assert len(set(threading.enumerate()) - before) == 2


def test_workers_end_with_their_pool():
    before = set(threading.enumerate())
    pool = ThreadPool(4)
    pool.run(lambda k: None, 4)
    workers = set(threading.enumerate()) - before
    assert len(workers) == 3 and all(worker.daemon for worker in workers)
    del pool
    gc.collect()
    wait_until(lambda: not any(worker.is_alive() for worker in workers), "the workers end")


def test_an_error_in_any_task_reaches_the_caller_and_the_pool_goes_on():
    pool = ThreadPool(2)
    for bad in range(4):
        def task(k, bad=bad):
            if k == bad:
                raise ValueError(f"task {k}")

        with pytest.raises(ValueError, match=f"task {bad}"):
            pool.run(task, 4)
    done = []
    pool.run(done.append, 4)
    assert sorted(done) == [0, 1, 2, 3]


def test_an_error_keeps_later_tasks_from_running():
    done = []

    def task(k):
        done.append(k)
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        ThreadPool(2).run(task, 1000)
    assert len(done) <= 2                                   # one for each thread


def test_a_task_may_use_the_pool_itself():
    pool, done = ThreadPool(2), []
    pool.run(lambda k: pool.run(lambda i: done.append((k, i)), 3), 3)
    assert sorted(done) == [(k, i) for k in range(3) for i in range(3)]


def test_two_threads_use_one_pool_at_once():
    """Each call can only end while the other is under way: the second does not wait for the first
    one's workers."""
    pool, meeting, done = ThreadPool(2), threading.Barrier(2), []

    def caller(me):
        for turn in range(50):
            pool.run(lambda k, turn=turn: meeting.wait(60) if k == 0
                     else done.append((me, turn, k)), 4)

    callers = [threading.Thread(target=caller, args=(me,), daemon=True) for me in (0, 1)]
    for thread in callers:
        thread.start()
    for thread in callers:
        thread.join(120)
    assert sorted(done) == [(me, turn, k) for me in (0, 1) for turn in range(50) for k in (1, 2, 3)]


def test_nothing_of_a_job_is_kept():
    class Big:
        pass

    big = Big()
    alive = [sys.getrefcount(big)]
    pool = ThreadPool(2)
    pool.run(lambda k, big=big: None, 8)
    gc.collect()
    wait_until(lambda: sys.getrefcount(big) == alive[0], "the job is forgotten")


@pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")
def test_a_forked_process_starts_its_own_workers():
    script = """
import os, sys, threading, warnings
import numpy as np
from xpnet.backends.numpy.backend import NumpyBackend
# Python 3.12 warns of fork beside threads: that is the test.
warnings.simplefilter("ignore", DeprecationWarning)
backend = NumpyBackend()
a = np.ones((512, 512), np.float32)
expected = backend.gemm(a, a)
assert threading.active_count() == 3
child = os.fork()
if child == 0:
    same = threading.active_count() == 1 and np.array_equal(backend.gemm(a, a), expected)
    os._exit(0 if same and threading.active_count() == 3 else 1)
sys.exit(os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]))
"""
    run_script(script, XPNET_NUM_THREADS="3")


def test_the_number_of_threads(monkeypatch):
    monkeypatch.setenv("XPNET_NUM_THREADS", "3")
    assert thread_count() == 3
    monkeypatch.delenv("XPNET_NUM_THREADS")
    assert thread_count() == (len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity")
                              else os.cpu_count())


@pytest.mark.parametrize("text", ["0", "-1", "two", "1.5"])
def test_a_wrong_number_of_threads(monkeypatch, text):
    monkeypatch.setenv("XPNET_NUM_THREADS", text)
    with pytest.raises(ValueError, match=rf"XPNET_NUM_THREADS: expected a whole number.*Received: "
                                         rf"'{text}'"):
        thread_count()


# --- BLAS -----------------------------------------------------------------------------------------

def blas_threads():
    """Of NumPy's own BLAS: another package's may have been loaded after the limiter looked for
    libraries."""
    return [library["num_threads"] for library in threadpool_info()
            if library["user_api"] == "blas" and "numpy" in library["filepath"]]


def test_blas_is_limited_inside_and_as_before_outside():
    before = blas_threads()
    if not before:
        pytest.skip("threadpoolctl knows no BLAS that is loaded here")
    with single_threaded_blas():
        assert set(blas_threads()) == {1}
        with single_threaded_blas():
            assert set(blas_threads()) == {1}
        assert set(blas_threads()) == {1}
    assert blas_threads() == before
    with pytest.raises(ZeroDivisionError), single_threaded_blas():
        raise ZeroDivisionError
    assert blas_threads() == before


def test_blas_stays_limited_until_the_last_thread_has_left():
    before = blas_threads()
    entered, leave = threading.Event(), threading.Event()

    def other():
        with single_threaded_blas():
            entered.set()
            leave.wait(60)

    thread = threading.Thread(target=other)
    with single_threaded_blas():
        thread.start()
        assert entered.wait(60)
    try:
        assert set(blas_threads()) <= {1}
    finally:
        leave.set()
        thread.join()
    assert blas_threads() == before


def test_blas_is_limited_in_every_thread():
    """Also where another thread was the first to ask threadpoolctl."""
    with single_threaded_blas():
        pass
    seen = []

    def other():
        with single_threaded_blas():
            seen.extend(blas_threads())

    thread = threading.Thread(target=other)
    thread.start()
    thread.join()
    assert set(seen) == {1}


def test_importing_the_backend_imports_neither_threadpoolctl_nor_starts_threads():
    run_script("import sys, threading, xpnet.backends.numpy.backend as n; n.NumpyBackend()\n"
               "assert 'threadpoolctl' not in sys.modules and threading.active_count() == 1")


# --- memory ---------------------------------------------------------------------------------------

LARGE = (memory.SMALL // 4,)  # float32: the smallest array that is recycled


def test_memory_is_used_again_when_the_last_view_has_died():
    pool = MemoryPool()
    a = pool.empty(LARGE, np.float32)
    address, view = a.ctypes.data, a[10:20].reshape(2, 5)
    view[...] = 7
    del a
    b = pool.empty(LARGE, np.float32)
    assert b.ctypes.data != address and pool.idle_bytes() == 0
    b.fill(3)
    assert (view == 7).all()
    del view
    assert pool.idle_bytes() >= b.nbytes
    assert pool.empty(LARGE, np.float32).ctypes.data == address


@pytest.mark.parametrize("keep", [
    lambda a: a.T, lambda a: a[::2], lambda a: memoryview(a), lambda a: a.view(np.uint8),
    lambda a: np.lib.stride_tricks.as_strided(a, (3,), (4,)),
    lambda a: np.ndarray((5,), np.float32, a), lambda a: iter(a),
    lambda a: np.broadcast_to(a, (2, *a.shape)), lambda a: a.base,
], ids=["transpose", "slice", "memoryview", "view", "as_strided", "buffer", "iterator", "broadcast",
        "base"])
def test_anything_that_can_still_reach_the_memory_keeps_it(keep):
    pool = MemoryPool()
    kept = keep(pool.empty(LARGE, np.float32))
    assert pool.idle_bytes() == 0
    del kept
    assert pool.idle_bytes() > 0


@pytest.mark.parametrize("dtype", [np.float16, np.float32, np.float64, np.complex128, np.uint8,
                                   np.int32, np.uint64, bool])
@pytest.mark.parametrize("shape", [(), (0,), (7,), (3, 0, 5), (100_003,), (17, 3, 41, 53),
                                   [400, 300], np.int64(200_000)])
def test_arrays_are_as_numpy_makes_them(shape, dtype):
    shape = (tuple(shape) if isinstance(shape, list) else (shape,) if isinstance(shape, np.integer)
             else shape)
    a, b = MemoryPool().empty(shape, dtype), np.empty(shape, dtype)
    assert (a.shape, a.dtype, a.strides, type(a)) == (b.shape, b.dtype, b.strides, np.ndarray)
    assert a.flags.c_contiguous and a.flags.writeable and a.flags.aligned
    if a.nbytes >= memory.SMALL:
        assert a.ctypes.data % 64 == 0
    a.fill(1)
    assert (a == 1).all()


def test_other_types_and_small_arrays_are_plain_arrays():
    pool = MemoryPool()
    assert pool.empty((100_000,), object)[99_999] is None
    assert pool.empty((50_000,), np.dtype([("a", "f4"), ("b", "i8")])).dtype.names == ("a", "b")
    pool.empty((10,), np.float32)                           # dies at once
    assert pool.idle_bytes() == 0


def test_free_neighbours_grow_together_and_are_cut_again():
    pool, n = MemoryPool(), 1 << 20
    address = pool.empty((n,), np.float32).ctypes.data      # dies at once
    parts = [pool.empty((n // 4,), np.float32) for _ in range(4)]
    assert (sorted(part.ctypes.data for part in parts) == [address + k * n for k in range(4)]
            and pool.idle_bytes() == 0)
    for k in (2, 0, 1, 3):  # neighbours on either side, on both, on none
        parts[k] = None
    assert pool.empty((n,), np.float32).ctypes.data == address


def test_a_small_array_does_not_take_the_place_of_a_large_one():
    pool, n = MemoryPool(), memory.SPARING * LARGE[0]
    address = pool.empty((n,), np.float32).ctypes.data
    small = pool.empty(LARGE, np.float32)
    assert pool.empty((n,), np.float32).ctypes.data == address != small.ctypes.data


def test_what_a_pool_holds_is_hardly_more_than_what_is_in_use(monkeypatch):
    """The pattern of a training step: large arrays, then ever smaller ones, all kept; then freed
    from the last, each while two of its size are made."""
    held = [0, 0]                                           # bytes now, and at most

    class Counted(memory._Chunk):
        def __init__(self, size):
            super().__init__(size)
            held[0] += size
            held[1] = max(held)

        def __del__(self):
            held[0] -= self.size

    monkeypatch.setattr(memory, "_Chunk", Counted)
    pool, sizes = MemoryPool(), [n for n in (4_000_000, 2_000_000, 1_000_000, 500_000)
                                 for _ in range(4)]
    live = 4 * (sum(sizes) + 2 * max(sizes))                # more than is ever in use
    for _ in range(5):
        kept = [pool.empty((n,), np.float32) for n in sizes]
        while kept:
            gradients = [pool.empty((len(kept[-1]),), np.float32) for _ in range(2)]
            kept.pop()
            del gradients
    assert live / 2 < held[1] < 1.1 * live
    steady = held[0]
    kept = [pool.empty((n,), np.float32) for n in sizes]
    assert held[0] == steady                                # nothing new is asked for any longer


def test_blocks_that_nobody_asks_for_are_given_back():
    pool = MemoryPool()
    pool.empty((1 << 20,), np.float32)                      # dies at once
    assert pool.idle_bytes() >= 1 << 22
    for _ in range(2 * memory.PATIENCE):
        pool.empty(LARGE, np.float32)
    assert 0 < pool.idle_bytes() < 1 << 20                  # the small one is in use all the time
    pool.drop_idle()
    assert pool.idle_bytes() == 0


def test_arrays_outlive_their_pool():
    a = MemoryPool().empty(LARGE, np.float32)
    gc.collect()
    a.fill(5)
    assert (a == 5).all()


def test_what_was_handed_out_never_changes():
    """Threads make arrays, cut views out of them, hand them to each other and let them go, in
    random order."""
    pool, shared, lock, errors = MemoryPool(), [], threading.Lock(), []

    def check(view, value):
        if not (view == value).all():
            errors.append(f"expected {value}, found {view.ravel()[:5]}")

    def worker(seed):
        rng, mine = np.random.default_rng(seed), []
        for step in range(1500):
            n = int(rng.choice([16_384, 16_500, 20_000, 70_000]))
            a, value = pool.empty((n // 4, 4), np.float32), np.float32(seed * 10_000 + step)
            a.fill(value)
            view = (a, a[5:-5], a.T[1], a[::3, 1:3], a.reshape(-1)[7:])[rng.integers(5)]
            mine.append((view, value))
            if rng.random() < 0.5:
                with lock:
                    shared.append(mine.pop())
                    if len(shared) > 20:
                        mine.append(shared.pop(int(rng.integers(len(shared)))))
            while len(mine) > 8:
                check(*mine.pop(int(rng.integers(len(mine)))))
        for view, value in mine:
            check(view, value)

    crew = [threading.Thread(target=worker, args=(seed,)) for seed in range(4)]
    for thread in crew:
        thread.start()
    for thread in crew:
        thread.join()
    for view, value in shared:
        check(view, value)
    assert not errors
    del view
    shared.clear()
    assert pool.idle_bytes() < 50_000_000  # of 6000 arrays, 700 MB: memory was used again
