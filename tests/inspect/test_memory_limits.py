"""Memory under limits: of the process (ulimit), and of its control groups (containers)."""

from __future__ import annotations

import gc
import json
import sys
import tracemalloc
import weakref
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from nets import branches
from processes import run_script
from skips import CPU
from tiers import first

import xpnet as xn
from xpnet.inspect import counting, memory
from xpnet.inspect.counting import free_memory

MIB = 1 << 20

# Trains once, so that kernels are compiled and buffers exist, then with too large a batch, then
# with one that should fit.
PROGRAM = """
import json, resource, sys
import numpy as np
import xpnet as xn

backend, name = ARGUMENTS
limit, used = getattr(resource, name), {"RLIMIT_AS": "VmSize:", "RLIMIT_DATA": "VmData:"}[name]
net = xn.Sequential([xn.Conv2d(16, 3, activation="relu"), xn.MaxPool2d(2), xn.Flatten(),
                     xn.Linear(10)],
                    input_shape=(1, 20, 20), backend=backend)
x, y = np.zeros((4000, 1, 20, 20), np.float32), np.zeros(4000, np.int64)

def fit(batch_size):
    net.fit(x[:2 * batch_size], y[:2 * batch_size], loss="cross_entropy",
            optimizer=xn.SGD(0.1), batch_size=batch_size,
            verbose=False)

fit(64)
net.backend.memory.drop_idle()
with open("/proc/self/status") as lines:
    most = next(1024 * int(line.split()[1]) for line in lines if line.startswith(used)) + (60 << 20)
resource.setrlimit(limit, (most, most))
try:
    fit(4000)
except xn.OutOfMemory as error:
    message, fits = str(error), error.fits
fit(fits)
print(json.dumps([message, fits]), file=sys.stderr)
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the limits and /proc of Linux")
@pytest.mark.parametrize("limit", first(["RLIMIT_AS", "RLIMIT_DATA"], "RLIMIT_AS"))
@pytest.mark.parametrize("kind", CPU)
def test_a_limit_of_the_process_is_respected(kind: str, limit: str):
    # One thread, because OpenBLAS ends the process if it has no memory for the buffer of another
    # thread.
    written = run_script(PROGRAM.replace("ARGUMENTS", repr((kind, limit))), XPNET_NUM_THREADS="1",
                         OPENBLAS_NUM_THREADS="1")
    message, fits = json.loads(written.splitlines()[-1])
    assert f"MiB that are free on {kind}. Received: batch_size=4000, which needs about" in message
    assert f"batch_size={fits} would fit." in message and 100 < fits < 2000


def files(root: Path, texts: dict[str, str]) -> None:
    for name, text in texts.items():
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).write_text(text)


MEMINFO = {"proc/meminfo": "MemTotal:  9000000 kB\nMemAvailable:  4000000 kB\n"}
SECOND = {      # version 2 of control groups: the group above has the stricter limit
    "proc/self/cgroup": "0::/outer/inner\n",
    "groups/outer/memory.max": "1000000000\n", "groups/outer/memory.current": "700000000\n",
    "groups/outer/memory.stat": "anon 5\ninactive_file 50000000\n",
    "groups/outer/inner/memory.max": "900000000\n", "groups/outer/inner/memory.current": "100\n",
}
FIRST = {
    "proc/self/cgroup": "9:name=systemd:/\n4:cpu,memory:/job\n0::/\n",
    "groups/memory/job/memory.limit_in_bytes": "800000000\n",
    "groups/memory/job/memory.usage_in_bytes": "600000000\n",
    "groups/memory/job/memory.stat": "inactive_file 1\ntotal_inactive_file 10000000\n",
    "groups/memory/memory.limit_in_bytes": "9223372036854771712\n",
    "groups/memory/memory.usage_in_bytes": "1\n",
}
CONTAINER = {"proc/self/cgroup": "0::/somewhere/outside\n", "groups/memory.max": "500\n",
             "groups/memory.current": "900\n"}
NONE = {"proc/self/cgroup": "0::/outer\n", "groups/outer/memory.max": "max\n",
        "groups/outer/memory.current": "1\n"}


@pytest.mark.parametrize("texts, expected", [
    ({}, None), (MEMINFO, 4096000000), (MEMINFO | SECOND, 350000000), (MEMINFO | FIRST, 210000000),
    (MEMINFO | CONTAINER, 0),
    (MEMINFO | NONE, 4096000000), (SECOND, 350000000)],
                         ids=["nothing", "system", "second", "first", "container", "max", "alone"])
def test_free_memory_under_control_groups(texts, expected, tmp_path):
    files(tmp_path, texts)
    assert free_memory(tmp_path / "proc", tmp_path / "groups") == expected


@pytest.mark.parametrize("name, used", [("RLIMIT_AS", "VmSize"), ("RLIMIT_DATA", "VmData")])
def test_free_memory_under_ulimit(name, used, tmp_path, monkeypatch):
    resource = pytest.importorskip("resource", reason="no limits of processes here")
    files(tmp_path, MEMINFO | {"proc/self/status": f"Name: python\n{used}:\t  3000 kB\n"})

    def limits(which: int) -> tuple[int, int]:
        return ((10 * MIB if which == getattr(resource, name) else resource.RLIM_INFINITY),
                resource.RLIM_INFINITY)

    monkeypatch.setattr(resource, "getrlimit", limits)
    assert free_memory(tmp_path / "proc", tmp_path / "groups") == 10 * MIB - 3000 * 1024


def test_a_report_leaves_no_memory_behind(monkeypatch):
    """Its arrays are deleted when it ends, not at the next garbage collection."""
    made: list[Any] = []

    class Seen(counting.HostCount):
        def add(self, a: np.ndarray) -> None:
            super().add(a)
            made.append(weakref.ref(a))

    net = branches("numpy")
    own = {id(a) for a in (net.parameters, net.counters)}
    monkeypatch.setattr(counting, "HostCount", Seen)
    gc.collect()
    gc.disable()
    try:
        net.memory_report(10000, xn.SGD(0.1))
        assert len(made) > 50 and {id(a()) for a in made if a() is not None} <= own
        assert not tracemalloc.is_tracing()
    finally:
        gc.enable()


def test_a_report_leaves_tracemalloc_on():
    tracemalloc.start()
    try:
        branches("numpy").memory_report(10)
        assert tracemalloc.is_tracing()
    finally:
        tracemalloc.stop()


def test_a_forecast_that_needs_too_much_memory_uses_fewer_samples(monkeypatch):
    net, tried = branches("numpy"), []
    trace = memory._trace

    def limited(net: xn.Network, N: int, mode: str) -> Any:
        tried.append(N)
        if N > 8:
            raise MemoryError
        return trace(net, N, mode)

    monkeypatch.setattr(memory, "_trace", limited)
    monkeypatch.setattr(memory, "free_memory", lambda: 100 * MIB)
    with pytest.raises(xn.OutOfMemory) as raised, memory.explained(net, "fit", 10**6):
        raise MemoryError
    assert raised.value.fits and 1 < raised.value.fits < 10**6
    assert tried[0] > 8 and max(tried[-2:]) <= 8
