"""The thread pool of the CPU backends, and the limit on the threads of BLAS."""

from __future__ import annotations

import gc
import os
import sys
import threading
import time

import pytest
from processes import run_script
from threadpoolctl import threadpool_info

from xpnet.backends.cpu.threads import ThreadPool, single_threaded_blas, thread_count


def wait_until(condition, what):
    deadline = time.monotonic() + 60  # generous: it only ends a test that has failed already
    while not condition():
        assert time.monotonic() < deadline, f"timed out waiting until {what}"
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


def test_tasks_run_in_parallel():
    meeting = threading.Barrier(3)
    # the barrier opens when three threads have arrived
    ThreadPool(3).run(lambda k: meeting.wait(60), 3)


def test_workers_start_at_the_first_parallel_call():
    before = set(threading.enumerate())  # workers of other pools, some about to end
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


def test_an_error_in_a_task_is_raised_by_the_caller_and_the_pool_still_works():
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
    """Each call can end only while the other is running, so the second must not wait for the
    workers of the first."""
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


def test_a_finished_job_keeps_no_references():
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
    with pytest.raises(ValueError,
                       match=rf"XPNET_NUM_THREADS: expected a whole number.*Received: '{text}'"):
        thread_count()


# --- BLAS -----------------------------------------------------------------------------------------

def blas_threads():
    """The number of threads of NumPy's own BLAS. The BLAS of another package may have been loaded
    after the limiter looked for libraries."""
    return [library["num_threads"] for library in threadpool_info()
            if library["user_api"] == "blas" and "numpy" in library["filepath"]]


def test_blas_is_limited_inside_and_restored_outside():
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
    """Even if another thread was the first to call threadpoolctl."""
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
