"""Processes forked after kernels ran compute the same bits as their parent, and do not crash or
hang."""

from __future__ import annotations

import os

import pytest
from processes import run_script
from skips import NO_NUMBA
from tiers import first, full

pytestmark = pytest.mark.skipif(not hasattr(os, "fork"), reason="this system has no fork")

BACKENDS = [pytest.param("numpy", marks=full), pytest.param("numba", marks=NO_NUMBA)]

# An alarm ends a process that hangs. Python 3.12 warns of every fork while other threads run, which
# is tested here.
BEGINNING = """
import multiprocessing, os, signal, sys, threading, warnings
from concurrent.futures import ProcessPoolExecutor
import numpy as np
import xpnet as xn
from cpu_cases import digits
from nets import pictures, values

warnings.simplefilter("ignore", DeprecationWarning)
signal.alarm(280)
fork = multiprocessing.get_context("fork")
backend = xn.get_backend(os.environ["BACKEND"])
x, labels = pictures(64, (2, 12, 12), 5)

def trained(seed):
    # The bytes of the predictions and of the trained parameters.
    net = digits(backend, seed=seed)
    net.fit(x, labels, loss="cross_entropy", optimizer=xn.Adam(1e-3), batch_size=32, verbose=False)
    return [a.tobytes() for a in (net.predict(x), *values(net).values())]

def in_child(function, *arguments):
    # What the function returns in a child made by os.fork.
    receive, send = fork.Pipe(duplex=False)
    child = os.fork()
    if child == 0:
        signal.alarm(120)
        try:
            send.send(function(*arguments))
        finally:
            os._exit(0)
    send.close()
    try:
        return receive.recv()
    except EOFError:
        return "no answer: the child ended with", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
"""


@pytest.mark.parametrize("threads", first(["1", "3"], "3"))
@pytest.mark.parametrize("backend", BACKENDS)
def test_children_learn_what_their_parent_learns(backend: str, threads: str):
    run_script(BEGINNING + """
net = digits(backend, seed=7)
expected, predictions = [trained(seed) for seed in (0, 1)], net.predict(x)
assert in_child(trained, 0) == expected[0]
assert in_child(in_child, trained, 1) == expected[1]
assert np.array_equal(in_child(net.predict, x), predictions)        # a network of the parent's
with fork.Pool(2) as pool:
    assert pool.map(trained, (0, 1)) == expected
with ProcessPoolExecutor(2, mp_context=fork) as pool:
    assert list(pool.map(trained, (0, 1))) == expected
process = fork.Process(target=trained, args=(0,))
process.start()
process.join()
assert process.exitcode == 0
answers = []
thread = threading.Thread(target=lambda: answers.append(in_child(trained, 1)))
thread.start()
thread.join()
assert answers == [expected[1]]
assert [trained(seed) for seed in (0, 1)] == expected               # the parent still works
""", BACKEND=backend, XPNET_NUM_THREADS=threads, NUMBA_NUM_THREADS="3")


@pytest.mark.parametrize("backend", BACKENDS)
def test_children_made_while_other_threads_train(backend: str):
    """A fork at any moment of their steps: the child's locks are free."""
    run_script(BEGINNING + """
expected, done = trained(0), threading.Event()

def train():
    while not done.is_set():
        trained(1)

crew = [threading.Thread(target=train) for _ in range(2)]
for thread in crew:
    thread.start()
try:
    for _ in range(12):
        assert in_child(trained, 0) == expected
finally:
    done.set()
    for thread in crew:
        thread.join()
""", BACKEND=backend, XPNET_NUM_THREADS="2")


@pytest.mark.parametrize("part", ["memory", "limit"])
def test_locks_that_another_thread_holds_are_free_in_the_child(part: str):
    run_script(BEGINNING + f"""
from xpnet.backends.cpu.threads import single_threaded_blas
lock = backend.memory._lock if {part!r} == "memory" else single_threaded_blas()._lock
entered, leave = threading.Event(), threading.Event()

def hold():
    with lock:
        entered.set()
        leave.wait(60)

expected = trained(0)
kept = backend.empty((100_000,), np.float32)
thread = threading.Thread(target=hold)
thread.start()
entered.wait(60)

def use():
    global kept
    backend.memory.drop_idle()
    assert backend.memory.idle_bytes() == 0
    kept = None
    assert backend.memory.idle_bytes() >= 400_000           # the parent's array comes back here
    return trained(0)

assert in_child(use) == expected
leave.set()
thread.join()
""", BACKEND="numpy")


@NO_NUMBA
def test_a_child_runs_kernels_that_its_parent_never_ran():
    run_script(BEGINNING + """
a = np.random.default_rng(0).standard_normal((70, 70), np.float32)
backend.gemm(a, a)                                                  # starts the threads
first = in_child(trained, 0)
assert first == trained(0)
""", BACKEND="numba")


@full
@NO_NUMBA
def test_after_a_fork_before_the_first_kernel_the_child_uses_threads():
    run_script(BEGINNING + """
from xpnet.backends.numba.kernels.layer import allowed_threads

assert in_child(allowed_threads, 2) == 2
expected = trained(0)
assert allowed_threads(2) == 2 and in_child(allowed_threads, 2) == 1
""", BACKEND="numba")


@full
@NO_NUMBA
def test_a_fork_after_kernels_of_other_code():
    """Numba's threads belong to the whole process, whatever code started them."""
    run_script(BEGINNING + """
import numba

@numba.njit(parallel=True)
def count(x):
    for i in numba.prange(x.size):
        x[i] = i

count(np.zeros(100))
first = in_child(trained, 0)
assert first == trained(0)
assert numba.get_num_threads() == 2
""", BACKEND="numba", NUMBA_NUM_THREADS="2")


@full
@NO_NUMBA
def test_a_numba_that_cannot_run_without_threads_raises():
    """A later version could be like this, if the function of its threading layer had another
    name."""
    run_script(BEGINNING + """
from llvmlite import binding
binding.address_of_symbol = lambda name: None

def refused():
    try:
        trained(0)
    except xn.BackendError as error:
        return str(error)

trained(0)
message = in_child(refused)
assert message.startswith("numba: this process was forked from one that had run kernels"), message
assert "spawn" in message
""", BACKEND="numba")
