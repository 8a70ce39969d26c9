"""Which way serves a shape: the usual one, the table's, the clock's; and what is kept of the
clock's choices."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cupy import FakeCupy, installed
from parity import distance, normal
from tiers import first

import xpnet as xn
from xpnet.backends import Window
from xpnet.backends.cupy import plans as cuda_plans
from xpnet.backends.cupy import tuning as cuda_tuning
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.numpy.backend import NumpyBackend

SHAPE = 70, 200, 90                                     # M, K, N
KEY = "Fma<float> ALONG_K ACROSS_K 1x70x90x200"
WINDOW, X, FILTERS = Window.make(3, padding=1), (2, 6, 6, 4), 5


@pytest.fixture
def clock(folder: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
          ) -> Iterator[SimpleNamespace]:
    """A pretended GPU whose clock is ours: `seconds` are what the next measurements give, `timed`
    how many there were."""
    told = SimpleNamespace(seconds=iter(()), timed=0)

    def elapsed(start: Any, stop: Any) -> float:
        told.timed += 1
        return next(told.seconds, 1.0)

    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    with installed(FakeCupy(folder)) as cupy:
        cupy.cuda.get_elapsed_time = elapsed
        cupy.cuda.runtime.getDeviceProperties = lambda device: {"name": b"Pretended GPU 3000"}
        yield told


def ran(backend: CupyBackend) -> list[str]:
    """The kernels that a product of SHAPE launches; its result is right whichever they are."""
    M, K, N = SHAPE
    a, b = normal(M, K), normal(K, N, seed=1)
    launched: list[str] = []
    launch = backend._launch
    backend._launch = lambda family, kernel, *rest, **more: (launched.append(kernel),       # type: ignore[method-assign]
                                                             launch(family, kernel, *rest, **more))
    try:
        result = backend.to_numpy(backend.gemm(backend.asarray(a), backend.asarray(b)))
    finally:
        del backend._launch  # type: ignore[method-assign]
    assert distance(result, a @ b) < 1e-5
    return [name for name in launched if "_" not in name.split("<")[0]]


def slowest_first(ways: int) -> Iterator[float]:
    """Times of so many ways, in rounds: the last one is the fastest."""
    return iter([ways - way for way in range(ways) for _ in range(cuda_tuning.ROUNDS)])


def product(tile: str) -> list[str]:
    return [f"product<Fma<float>, {tile}, ALONG_K, ACROSS_K, false>"]


def test_nothing_is_timed_unless_it_is_asked_for(clock: SimpleNamespace):
    backend = CupyBackend()
    assert ran(backend) == product("64, 64") and clock.timed == 0
    assert backend.tuning == {}


def test_the_fastest_way_is_taken_and_remembered(clock: SimpleNamespace, tmp_path: Path):
    math = cuda_plans.SIMPLE[np.dtype(np.float32)]
    usual, others = cuda_plans.plan(math, 70, 90, 200, 1).way, cuda_plans.other_plans(math, 200)
    first = CupyBackend(autotune=True)
    # The last of the other tiled plans is the fastest; whatever else is offered after them takes
    # longer.
    tiled = [way for way in others if way != usual]
    clock.seconds = (iter([2.0] * cuda_tuning.ROUNDS * len(tiled) + [1.0] * cuda_tuning.ROUNDS
                          + [3.0] * 30))
    assert ran(first)[-1:] == product("{}, {}".format(*tiled[-1]))
    assert first.tuning[KEY] == tiled[-1]
    timed = clock.timed
    assert timed >= cuda_tuning.ROUNDS * (1 + len(tiled))
    ran(first)
    assert clock.timed == timed, "a known shape was measured again"

    second = CupyBackend(autotune=True)                 # another process would find the file too
    ran(second)
    assert clock.timed == timed and second.tuning == first.tuning
    file, = (tmp_path / "xpnet" / "plans").iterdir()
    assert (file.name.startswith("Pretended-GPU-3000-") and json.loads(file.read_text())
            == first.tuning)


def test_what_others_measured_is_not_used_without_being_asked_for(clock: SimpleNamespace):
    first = CupyBackend(autotune=True)
    ran(first)
    assert first.tuning
    assert CupyBackend().tuning == {}


def test_ways_that_were_kept_with_a_run_are_used_again(clock: SimpleNamespace):
    backend = CupyBackend()
    backend.tuning |= {KEY: [128, 128, 2]}
    assert ran(backend) == product("128, 128") and clock.timed == 0
    assert backend.tuning == {KEY: [128, 128, 2]}


def test_the_committed_table_comes_before_the_rules(clock: SimpleNamespace, tmp_path: Path,
                                                    monkeypatch: pytest.MonkeyPatch):
    table = tmp_path / "table.json"
    table.write_text(json.dumps({"sm_90": {KEY: [128, 128, 1]}, "sm_80": {KEY: [64, 64, 1]}}))
    monkeypatch.setattr(cuda_tuning, "TABLE", table)
    assert ran(CupyBackend()) == product("128, 128")


@pytest.mark.parametrize("way", first(
    [[1, 2, 3], [64, 64, 0], [64, 64], "fast", None, 5, [64, 64, "1"], {}, {"a": 1}, [[64], 64, 1],
     [64, 64, [1]], [64, 64, 1e300], True], [1, 2, 3], [64, 64, 0], "fast", None, [64, 64, [1]]))
def test_a_way_that_is_none_gives_the_usual_one(way: Any, clock: SimpleNamespace):
    backend = CupyBackend()
    backend.tuning |= {KEY: way}
    assert ran(backend) == product("64, 64")


DAMAGED = {
    "empty": "", "half": "{", "list": "[1, 2]", "zero": "\x00", "null": "null",
    "digits": "9" * 5000,
    "deep lists": "[" * 100_000, "deep tables": '{"a": ' * 100_000,
    "huge": f'{{"{"a" * cuda_tuning.MOST}": 1}}', "link": f'{{"{KEY}": [64, 64, 1]}}'}


@pytest.mark.parametrize("kind", first(DAMAGED, "half", "link"))
def test_a_damaged_cache_is_measured_anew(kind: str, clock: SimpleNamespace, tmp_path: Path):
    backend = CupyBackend(autotune=True)
    folder, name = backend._memory_file()
    folder.check()
    file = folder.path / name
    file.write_text(DAMAGED[kind])
    if kind == "link":
        file.rename(tmp_path / "elsewhere")
        file.symlink_to(tmp_path / "elsewhere")
    assert CupyBackend(autotune=True).tuning == {}
    ran(backend)
    assert KEY in json.loads(file.read_text()) and not file.is_symlink()


def test_nothing_is_timed_while_a_graph_is_recorded(clock: SimpleNamespace):
    backend = CupyBackend(autotune=True)
    a, b = (backend.asarray(normal(*shape)) for shape in ((70, 200), (200, 90)))
    stream = backend.xp.cuda.Stream(non_blocking=True)
    with stream:
        stream.begin_capture()
        backend.gemm(a, b)
        stream.end_capture()
    assert clock.timed == 0 and backend.tuning == {}


@pytest.mark.parametrize("method", ["conv2d", "conv2d_dx", "conv2d_dW"])
def test_columns_are_written_where_that_is_faster(method: str, clock: SimpleNamespace):
    x, W, dy = normal(*X), normal(FILTERS, X[0], 3, 3), normal(FILTERS, *X[1:])
    calls: dict[str, Any] = {"conv2d": (x, W, WINDOW), "conv2d_dx": (dy, W, X, WINDOW),
                             "conv2d_dW": (x, dy, WINDOW)}
    backend, usual = CupyBackend(tf32="never"), CupyBackend(tf32="never")
    arguments = [backend.asarray(a) if isinstance(a, np.ndarray) else a for a in calls[method]]
    right = getattr(usual, method)(*arguments)
    key = f"{method} Fma<float> 2x6x6x4 F5 k(3,3) s(1,1) p(1,1,1,1) d(1,1) g1"
    timed = CupyBackend(tf32="never", autotune=True)
    getattr(timed, method)(*arguments)
    assert key in timed.tuning
    backend.tuning |= {key: "columns"}
    columns = []
    launch = backend._launch
    backend._launch = lambda family, *rest, **more: (       # type: ignore[method-assign]
        columns.append(family), launch(family, *rest, **more))
    result = getattr(backend, method)(*arguments)
    assert "im2col" in columns
    assert distance(backend.to_numpy(result), usual.to_numpy(right)) < 1e-5


def test_files_keep_what_the_clock_chose(tmp_path: Path):
    """A backend made for the network gets the ways that the file has; one that others use stays as
    it is."""
    backend, file = NumpyBackend(), tmp_path / "net.safetensors"
    net = xn.Sequential([xn.Linear(2)], input_shape=(3,), backend=backend)
    net.save(file)
    plain = file.read_bytes()
    backend.tuning = {KEY: [128, 128, 2], "conv2d ..": "columns"}
    net.save(file)
    assert xn.load(file, backend="numpy").backend.tuning == backend.tuning
    other = NumpyBackend()
    assert xn.load(file, backend=other).backend is other and other.tuning == {}
    backend.tuning = {}
    net.save(file)
    assert file.read_bytes() == plain


def test_tuning_that_is_no_table_is_refused(tmp_path: Path):
    backend, file = NumpyBackend(), tmp_path / "net.safetensors"
    backend.tuning = ["conv2d"]             # type: ignore[assignment]
    xn.Sequential([xn.Linear(2)], input_shape=(3,), backend=backend).save(file)
    with pytest.raises(ValueError, match="load: expected tuning to be a dict"):
        xn.load(file, backend="numpy")
