"""The number of threads of the CPU backends, also for networks that exist already, and how threads
wait."""

from __future__ import annotations

import sys
import threading
from collections.abc import Iterator

import numpy as np
import pytest
from cpu_cases import digits
from nets import pictures
from processes import run_script
from skips import NO_NUMBA
from tiers import full

import xpnet as xn
from xpnet.backends import get_backend
from xpnet.backends.cpu.threads import thread_count

BACKENDS = ["numpy", pytest.param("numba", marks=NO_NUMBA)]


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    yield
    xn.set_num_threads(None)


def test_the_number_that_was_set_overrides_the_environment(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("XPNET_NUM_THREADS", "3")
    assert xn.get_num_threads() == 3
    old = get_backend("numpy")
    xn.set_num_threads(np.int64(2))
    new = get_backend("numpy")
    assert (xn.get_num_threads(), old.threads.size, new.threads.size) == (2, 2, 2)
    xn.set_num_threads(None)
    assert (xn.get_num_threads(), old.threads.size, new.threads.size) == (3, 3, 3)
    monkeypatch.delenv("XPNET_NUM_THREADS")
    assert xn.get_num_threads() == thread_count() >= 1


@pytest.mark.parametrize("n", [0, -1, 1.0, 2.5, True, "2", [2], np.array([1, 2]), float("nan")],
                         ids=repr)
def test_numbers_of_threads_that_are_refused(n: object):
    xn.set_num_threads(2)
    with pytest.raises(ValueError, match=r"^set_num_threads: expected n to be an int from 1 to "
                                         r"4096, or None\. Received: n="):
        xn.set_num_threads(n)  # type: ignore[arg-type]
    assert xn.get_num_threads() == 2


def test_a_network_that_exists_takes_the_new_number():
    """Threads that are no longer needed wait; missing ones are started."""
    net = digits(get_backend("numpy"))
    x = net.batch_last(pictures(512, (2, 12, 12), 5)[0])
    before = set(threading.enumerate())
    for n, workers in ((1, 0), (3, 2), (2, 2), (4, 3)):
        xn.set_num_threads(n)
        net.forward(x, xn.PREDICT)
        started = {thread for thread in set(threading.enumerate()) - before
                   if thread.name.startswith("xpnet-")}
        assert len(started) == workers, n


@NO_NUMBA
def test_kernels_get_the_number_that_was_set(monkeypatch: pytest.MonkeyPatch):
    from xpnet.backends.numba.kernels import jit

    backend, seen, use = get_backend("numba"), [], jit.use_threads
    a = np.ones((200, 200), np.float32)
    backend.gemm(a, a)
    monkeypatch.setattr(jit, "use_threads", lambda count: seen.append(count) or use(count))
    for n in (1, 2, 1000):
        xn.set_num_threads(n)
        seen.clear()
        backend.gemm(a, a)
        assert seen[0] == min(n, jit.most_threads()) == backend.size


@pytest.mark.parametrize("name", [pytest.param("numpy", marks=full),
                                  pytest.param("numba", marks=NO_NUMBA)])
def test_a_change_while_networks_train_changes_no_bit(name: str):
    run_script(
        f"""
import itertools, threading
import xpnet as xn
from nets import same
from tests.backends.cpu.test_cpu_threads import trained
from xpnet import get_backend

backend, done, results = get_backend({name!r}), threading.Event(), []
expected = trained(backend, 0)

def train():
    results.extend(trained(backend, 0) for _ in range(3))

crew = [threading.Thread(target=train) for _ in range(2)]
for thread in crew:
    thread.start()
for n in itertools.cycle((1, 3, 2, 4)):
    xn.set_num_threads(n)
    crew[0].join(0.005)
    if not any(thread.is_alive() for thread in crew):
        break
assert len(results) == 6 and all(same(result, expected) for result in results)
""", NUMBA_NUM_THREADS="4")


# --- GNU's OpenMP ---------------------------------------------------------------------------------

SPINS = """
import os, numpy as np
from numba import threading_layer
from xpnet.backends.numba.backend import NumbaBackend

before = dict(os.environ)
assert NumbaBackend().activate(np.array([-1, 2], np.float32), "relu").tolist() == [0, 2]
assert dict(os.environ) == before, "a variable stays behind"
assert os.system('test "$GOMP_SPINCOUNT" = "{left}"') == 0
print("layer", threading_layer(), file=__import__("sys").stderr)
"""


@NO_NUMBA
@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere Numba's threads are not GNU's")
@pytest.mark.parametrize("setting, spins, left",
                         [({}, "5000", ""),
                          pytest.param({"GOMP_SPINCOUNT": "77"}, "77", "77", marks=full),
                          pytest.param({"OMP_WAIT_POLICY": "PASSIVE"}, "0", "", marks=full)],
                         ids=str)
def test_threads_spin_briefly_by_default(
        setting: dict[str, str], spins: str, left: str, monkeypatch: pytest.MonkeyPatch):
    """Read from the OpenMP library itself. Child processes do not inherit the setting."""
    for name in ("GOMP_SPINCOUNT", "OMP_WAIT_POLICY"):
        monkeypatch.delenv(name, raising=False)
    said = run_script(SPINS.format(left=left), OMP_DISPLAY_ENV="VERBOSE", **setting)
    if "layer omp" not in said:
        pytest.skip("Numba uses no OpenMP here")
    assert f"GOMP_SPINCOUNT = '{spins}'" in said
