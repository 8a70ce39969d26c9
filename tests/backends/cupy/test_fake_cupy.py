"""The fake CuPy has nothing that CuPy has not: names, parameters, errors.

What is called on it is checked with each call; the calls that no test makes are read from the
source.
"""

from __future__ import annotations

import ast
import gc
import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cupy_api
import fake_cupy
import fake_streams
import numpy as np
import pytest
from fake_cupy import FakeCupy
from fake_memory import CUDARuntimeError, OutOfMemoryError
from processes import ROOT

# Files whose arrays may be CuPy's.
SOURCES = [path for folder in ("backends", "xpnet/layers", "xpnet/losses", "xpnet/optim",
                               "xpnet/training", "xpnet/functional", "xpnet/transform")
           for path in Path(ROOT, folder).rglob("*.py")
           if not {"numba", "cpu", "numpy"} & set(path.parts)]
SOURCES += [Path(ROOT, "xpnet", name) for name in ("graph.py", "layer.py", "buffers.py")]
SOURCES += [path for path in Path(ROOT, "benchmarks/gpu").glob("*.py") if "torch" not in path.name]
# Methods that only arrays have.
METHODS = {"argmax", "astype", "cumsum", "mean", "ravel", "reshape", "squeeze", "std", "sum",
           "swapaxes", "transpose", "var"}

# Classes whose objects the backend makes.
CONSTRUCTED = [("__init__", f"cupy.{name}") for name in (
    "RawModule", "cuda.Device", "cuda.Stream", "cuda.Event", "cuda.MemoryPool", "cuda.MemoryHook")]


# --- the table ------------------------------------------------------------------------------------

def test_the_table_is_that_of_the_installed_cupy():
    cupy = pytest.importorskip("cupy", exc_type=ImportError, reason="CuPy is not installed")
    if cupy.__version__ != cupy_api.table()["version"]:
        pytest.skip(f"the table is of CuPy {cupy_api.table()['version']}, and installed is "
                    f"{cupy.__version__}: python tests/support/cupy_api.py")
    assert cupy_api.read(cupy) == cupy_api.table()


def test_parameters_are_read_from_a_line():
    found = cupy_api.parse("a, b=, /, c=, *, d, e=")
    assert str(found) == "(a, b=None, /, c=None, *, d, e=None)"
    found.bind(1, d=2)
    with pytest.raises(TypeError, match="missing a required"):
        found.bind(1)
    assert str(cupy_api.parse("*args, out=, **rest")) == "(*args, out=None, **rest)"
    assert cupy_api.parse(cupy_api.UNKNOWN) is None


@pytest.mark.parametrize("call", [
    lambda cupy, a: cupy.add(a, a, where=a > 0),
    lambda cupy, a: cupy.take(a, a, mode="clip"),
    lambda cupy, a: cupy.sum(a, initial=0),
    lambda cupy, a: a.sum(where=a > 0),
    lambda cupy, a: cupy.empty((2,), like=a),
    lambda cupy, a: cupy.cuda.Event(blocking=True),
    lambda cupy, a: cupy.cuda.Stream(non_blocking=True).begin_capture(flags=0),
], ids=["ufunc", "take", "sum", "method", "empty", "event", "capture"])
def test_arguments_that_only_numpy_has_raise(call: Any, tmp_path: Path):
    cupy = FakeCupy(tmp_path)
    with pytest.raises(TypeError):
        call(cupy, cupy.arange(3))


@pytest.mark.parametrize("name", ["nested_iters", "matrix", "longdouble", "spacing"])
def test_names_that_only_numpy_has_raise(name: str, tmp_path: Path):
    with pytest.raises(AttributeError, match="CuPy"):
        getattr(FakeCupy(tmp_path), name)


def test_the_classes_of_the_fake_have_nothing_else(tmp_path: Path):
    """What they have for the tests begins with an underscore, or is listed as such."""
    cupy = FakeCupy(tmp_path)
    for owner, cls in fake_cupy.CLASSES.items():
        for name, member in vars(cls).items():
            ours = {"OF_THE_FAKE"} | cls.OF_THE_FAKE
            if name in ours or name.startswith("_") and (name, owner) not in CONSTRUCTED:
                continue
            cupy_api.require(owner, name)
            real = cupy_api.signature(owner, name)
            if inspect.isfunction(member) and real is not None:
                mine = {p.name for p in inspect.signature(member).parameters.values()
                        if p.kind not in (p.VAR_POSITIONAL, p.VAR_KEYWORD)} - {"self"}
                assert mine <= set(real.parameters), f"{owner}.{name}: {mine}, not {real}"
    for owner, there in (("cupy.cuda", cupy.cuda), ("cupy.cuda.runtime", cupy.cuda.runtime)):
        for name in vars(there):
            cupy_api.require(owner, name)
    assert fake_streams.Stream in fake_cupy.CLASSES.values()


# --- what is called -------------------------------------------------------------------------------

def test_every_call_in_the_source_is_one_that_cupy_has():
    wrong, seen = [], 0
    for path in SOURCES:
        for line, owner, name, call in uses(ast.parse(path.read_text(encoding="utf-8"))):
            seen += 1
            try:
                cupy_api.require(owner, name)
                if call is not None and not any(isinstance(a, ast.Starred) for a in call.args):
                    cupy_api.check(owner, name, call.args,
                                   {k.arg: k for k in call.keywords if k.arg})
            except (AttributeError, TypeError) as error:
                wrong.append(f"{path.relative_to(ROOT)}:{line}: {error}")
    assert wrong == [] and seen > 400


def test_calls_are_found_in_source():
    text = """
cuda = self.xp.cuda
a = xp.where(b, c, axis=1)
e = cuda.Event(disable_timing=True)
t = x.sum(axis=0).transpose(1, 0)
"""
    found = [(owner, name, call is not None) for _, owner, name, call in uses(ast.parse(text))]
    assert sorted(found) == sorted([
        ("cupy", "cuda", False), ("cupy", "where", True), ("cupy.cuda", "Event", True),
        ("cupy.ndarray", "sum", True), ("cupy.ndarray", "transpose", True)])


def uses(tree: ast.AST) -> Iterator[tuple[int, str, str, ast.Call | None]]:
    """(line, "cupy.cuda", "Event", the call or None) for each name of CuPy, and each call of a
    method that only arrays have."""
    aliases = {"xp": "cupy"}
    for node in ast.walk(tree):
        if isinstance(node, ast.Assign) and len(node.targets) == 1:
            target, path = node.targets[0], path_of(node.value, aliases)
            if isinstance(target, ast.Name) and path in cupy_api.TABLED:
                aliases[target.id] = path
    calls = {id(node.func): node for node in ast.walk(tree) if isinstance(node, ast.Call)}
    for node in ast.walk(tree):
        if isinstance(node, ast.Attribute):
            owner, call = path_of(node.value, aliases), calls.get(id(node))
            if owner in cupy_api.TABLED and node.attr not in ("xp", "__name__"):
                yield node.lineno, owner, node.attr, call
            elif call is not None and node.attr in METHODS and path_of(node, {"np": "np"}) is None:
                yield node.lineno, "cupy.ndarray", node.attr, call


def path_of(node: ast.AST, aliases: dict[str, str]) -> str | None:
    """"cupy.cuda" for `self.xp.cuda` and for a name that was assigned it."""
    if isinstance(node, ast.Name):
        return aliases.get(node.id)
    if not isinstance(node, ast.Attribute):
        return None
    if node.attr == "xp":
        return "cupy"
    owner = path_of(node.value, aliases)
    return None if owner is None else f"{owner}.{node.attr}"


def test_dtypes_that_no_gpu_has_raise(tmp_path: Path):
    cupy = FakeCupy(tmp_path)
    for dtype in ("longdouble", "U3", "M8[s]", object):
        with pytest.raises((ValueError, TypeError)):
            cupy.asarray(np.zeros(3, dtype))


# --- memory ---------------------------------------------------------------------------------------

def test_memory_is_used_again_and_holds_garbage_until_then(tmp_path: Path):
    cupy = FakeCupy(tmp_path)
    a, b = cupy.zeros(1000, np.float32), cupy.zeros(1000, np.float32)
    place, pool = a.data.ptr, cupy.get_default_memory_pool()
    stale = a._a
    del a
    assert (stale != 0).all() and pool.free_bytes() == 4096 and pool.used_bytes() == 4096
    c, d = (cupy.empty(100, np.float32) for _ in range(2))
    assert c.data.ptr == place and d.data.ptr == place + 512 and (cupy.asnumpy(c) != 0).all()
    del c, d
    pool.free_all_blocks()
    assert pool.total_bytes() == 4096 and b.data.ptr % 512 == 0
    with cupy.cuda.Stream(non_blocking=True):
        assert cupy.empty(1000, np.float32).data.ptr != place, "memory of another stream"


def test_too_little_memory_is_an_error_of_cupy(tmp_path: Path):
    cupy = FakeCupy(tmp_path, memory=10_000)
    cupy.empty(6000, np.uint8)
    a = cupy.empty(9000, np.uint8)          # after what is free was given back to the driver
    with pytest.raises(OutOfMemoryError, match="Out of memory allocating 2,048 bytes"):
        cupy.empty(2000, np.uint8)
    assert a.size == 9000 and cupy.cuda.Device(0).mem_info == (10_000 - 9216, 10_000)


def test_a_graph_whose_memory_the_driver_has_cannot_be_launched(tmp_path: Path):
    cupy = FakeCupy(tmp_path)
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        a = cupy.zeros(8, np.float32)
        stream.begin_capture()
        b = (a + 1) * 2
        graph = stream.end_capture()
        graph.launch()
        assert (cupy.asnumpy(b) == 2).all()
        pool.free_all_blocks()
        with pytest.raises(CUDARuntimeError, match="cudaErrorIllegalAddress"):
            graph.launch()


def test_what_is_written_into_out_is_part_of_a_graph(tmp_path: Path):
    cupy = FakeCupy(tmp_path)
    stream, pool = cupy.cuda.Stream(non_blocking=True), cupy.cuda.MemoryPool()
    with stream, cupy.cuda.using_allocator(pool.malloc):
        a = cupy.zeros(8, np.float32)
        stream.begin_capture()
        b = a + 1
        assert cupy.exp(b, out=b) is b
        graph = stream.end_capture()
        graph.launch()
        np.testing.assert_allclose(cupy.asnumpy(b), np.e, rtol=1e-6)


def test_arrays_that_the_garbage_collector_finds_return_to_their_pool(tmp_path: Path):
    cupy, cycle = FakeCupy(tmp_path), list[Any]()
    cycle += [cycle, cupy.zeros(128, np.float32)]
    place = cycle[1].data.ptr
    del cycle
    gc.collect()
    pool = cupy.get_default_memory_pool()
    assert pool.free_bytes() == pool.total_bytes() == 512 == cupy.gpus.reserved
    a = cupy.zeros(128, np.float32)
    assert a.data.ptr == place and not a._memory.block.freed
    a.reshape(8, 16).fill(1)                # a view, as before
    assert (cupy.asnumpy(a) == 1).all()


def test_pinned_memory_that_is_given_back_holds_garbage(tmp_path: Path):
    cupy = FakeCupy(tmp_path)
    a = np.frombuffer(cupy.cuda.alloc_pinned_memory(8), np.uint8)
    a[...], place = 1, a.ctypes.data
    stale = cupy.gpus.pinned.find(place, 8)
    assert (stale == 1).all()
    del a
    assert (stale != 1).all()
    assert np.frombuffer(cupy.cuda.alloc_pinned_memory(8), np.uint8).ctypes.data == place
