"""The ways of the CuPy backend's products and windows, on the pretended GPU, against base.py.

The tables have cases on both sides of each condition, with the kernels that each launches; the
arithmetic of the kernels is what test_cuda_kernels.py checks.
"""

from __future__ import annotations

from collections.abc import Iterator
from itertools import product
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fake_cupy import DeviceArray, FakeCupy, installed
from fast_paths import Trace, Ways, larger_windows, ways_of, windows
from kernel_setting import other_limits
from parity import distance, normal, same_bits, special
from product_checks import columns_by

from xpnet.backends import Backend, Window
from xpnet.backends.cells import CELLS, cell_of
from xpnet.backends.cupy import conv as cupy_conv
from xpnet.backends.cupy import launch as cuda_launch
from xpnet.backends.cupy import plans
from xpnet.backends.cupy.backend import CupyBackend
from xpnet.backends.cupy.plans import ACROSS_K, ALONG_K, PRODUCT
from xpnet.backends.cupy.product import ONE_SPLIT, Operand, Result, _struct

BASE = Backend()


class Unwritten(FakeCupy):
    """New memory is full of NaNs: reading it before anything is written spoils a result."""

    def empty(self, shape: Any, dtype: Any = float) -> DeviceArray:
        a = super().empty(shape, dtype)
        if a.dtype.kind == "f":
            a.fill(np.nan)
        return a


@pytest.fixture(scope="module")
def backend(folder: Path) -> Iterator[CupyBackend]:
    with installed(Unwritten(folder)):
        yield CupyBackend(tf32="never")


def launched(_: None, backend: CupyBackend, family: str, kernel: str, launch: Any, *args: Any,
             **options: Any) -> str:
    """The kernel and its width; of a product what it reads, in 16 bytes at once, and its splits."""
    name, _, types = kernel.partition("<")
    if name != "product":
        return name + (f" {types[-2]}" if types[-2].isdigit() else "")
    p = next(a for a in args if getattr(a, "dtype", None) == PRODUCT)
    wide = "".join(letter for letter in "abc" if p[f"wide_{letter}"])
    image, splits = " of image" * types.endswith("true>"), " in splits" * bool(p["splits"] > 1)
    return f"product{image}{splits}{f' {wide}' if wide else ''}"


@pytest.fixture
def trace(monkeypatch) -> Trace:
    trace = Trace(monkeypatch)
    trace.watch(CupyBackend, "_launch", launched)
    return trace


# --- convolution ----------------------------------------------------------------------------------

U = Window((3, 2), padding=(1, 0, 0, 1))                # unequal in everything
POINTS = Window((1, 1))
IMAGE = ("product of image bc", "turn_filters, product of image bc", "product of image ab")
DEPTHWISE = "depthwise", "depthwise", "depthwise_dW 4, add_parts"
STRIDED = ("product of image bc", "product bc, col2im 4", "product of image ab")
CASES: dict[str, tuple[tuple[int, int, int, int], Window, int, int, Ways]] = {
    # name: x, window, filters, groups, ways
    "batch of 4": ((3, 7, 9, 4), U, 5, 1, IMAGE),
    "batch of 6": ((3, 7, 9, 6), U, 5, 1, (
        "product of image c", "turn_filters, product of image",
        "product of image in splits a, add_splits")),
    "padding as large as the window": ((3, 5, 6, 4), Window((3, 2), padding=(3, 0, 0, 2)), 5, 1,
                                       IMAGE),
    "stride 1x2": ((3, 7, 9, 4), Window((3, 2), (1, 2), (1, 0, 0, 1)), 5, 1, STRIDED),
    "stride 2x1": ((3, 7, 9, 4), Window((3, 2), (2, 1), (1, 0, 0, 1)), 5, 1, STRIDED),
    "dilated rows": ((3, 9, 9, 4), Window((3, 2), (1, 1), (1, 0, 0, 1), (2, 1)), 5, 1, IMAGE),
    "dilated columns": ((3, 9, 9, 4), Window((3, 2), (1, 1), (1, 0, 0, 1), (1, 3)), 5, 1, IMAGE),
    "groups": ((6, 7, 9, 4), U, 9, 3, (
        "product of image abc", "turn_filters, product of image bc", "product of image abc")),
    "depthwise": ((6, 7, 9, 4), U, 6, 6, DEPTHWISE),
    "depthwise points": ((6, 7, 9, 4), POINTS, 6, 6, DEPTHWISE),
    "depthwise, batch of 6": ((3, 7, 9, 6), U, 3, 3, (
        "depthwise", "depthwise", "depthwise_dW 1, add_parts")),
    "depthwise, stride 1x2": ((6, 7, 9, 4), Window((3, 2), (1, 2), (1, 0, 0, 1)), 6, 6, (
        "depthwise", "depthwise_dx 4", "depthwise_dW 4, add_parts")),
    "depthwise, stride 2x1": ((6, 7, 9, 4), Window((3, 2), (2, 1), (1, 0, 0, 1)), 6, 6, (
        "depthwise", "depthwise_dx 4", "depthwise_dW 4, add_parts")),
    "four filters for each channel": ((2, 7, 9, 4), U, 8, 2, DEPTHWISE),
    "five filters for each channel": ((2, 7, 9, 4), U, 10, 2, IMAGE),
    "two channels for each filter": ((6, 7, 9, 4), U, 3, 3, (
        "product of image abc", "turn_filters, product of image bc", "product of image abc")),
    "one channel": ((1, 7, 9, 4), U, 1, 1, IMAGE),
    # Points are a product of x itself, without a window.
    "points": ((4, 7, 9, 4), POINTS, 8, 1, (
        "product abc", "product abc", "product in splits abc, add_splits")),
    "points, batch of 3": ((4, 7, 9, 3), POINTS, 8, 1, ("product a", "product a", "product c")),
    "points in groups": ((8, 7, 9, 4), POINTS, 16, 2, (
        "product abc", "product abc", "product in splits abc, add_splits")),
    "points with a stride": ((4, 7, 9, 4), Window((1, 1), (1, 2)), 8, 1, (
        "product of image abc", "product abc, col2im 4", "product of image abc")),
    "points with padding": ((4, 7, 9, 4), Window((1, 1), padding=(0, 0, 1, 0)), 8, 1, (
        "product of image abc", "turn_filters, product of image abc",
        "product of image in splits abc, add_splits")),
}


@pytest.mark.parametrize("name", CASES)
def test_the_way_of_a_convolution(name, backend, trace):
    shape, window, F, groups, ways = CASES[name]
    assert ways_of(backend, shape, window, F, groups, np.float32, trace) == ways


# x, filters, groups, bytes at a time -> number of products of the output and the filters' gradient,
# which are cut by rows, and of the input gradient, which is cut by channels or by groups.
PARTS = [((5, 7, 9, 4), 3, 1, 1, 6, 5), ((5, 7, 9, 4), 3, 1, 8639, 6, 5),
         ((5, 7, 9, 4), 3, 1, 8640, 3, 5), ((5, 7, 9, 4), 3, 1, 10367, 3, 5),
         ((5, 7, 9, 4), 3, 1, 10368, 3, 3), ((5, 7, 9, 4), 3, 1, 10**9, 1, 1),
         ((6, 7, 9, 4), 9, 3, 1, 6, 3), ((6, 7, 9, 4), 9, 3, 21000, 2, 2),
         ((6, 7, 9, 4), 9, 3, 10**9, 1, 1)]


@pytest.mark.parametrize("shape, F, groups, at_a_time, by_rows, by_channels", PARTS)
def test_columns_in_parts(shape, F, groups, at_a_time, by_rows, by_channels, backend, trace):
    counts: list[int] = []
    trace.watch(CupyBackend, "_product", lambda *_, **__: counts.append(1) or "")
    with columns_by(backend, cupy_conv.COLUMNS, at_a_time):
        ways = ways_of(backend, shape, U, F, groups, np.float32, trace)
    assert "im2col 4" in ways[0] and "col2im 4" in ways[1] and "im2col 4" in ways[2]
    assert len(counts) == 2 * by_rows + by_channels


@pytest.mark.parametrize("way", [cupy_conv.IMAGE, cupy_conv.COLUMNS])
def test_convolutions_of_many_windows(way, backend, trace):
    small = [case for case in larger_windows() if np.prod(case[0]) < 3000]
    with columns_by(backend, way, 6000):
        for shape, window, F, groups in small[::3]:
            ways_of(backend, shape, window, F, groups, np.float32, trace)


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("way", [cupy_conv.IMAGE, cupy_conv.COLUMNS])
@pytest.mark.parametrize("where", ["its own memory", "x", "dy", "every second element"])
def test_where_a_filter_gradient_is_written(where, way, accumulate, backend):
    """As if x and dy were read before anything is written."""
    x, dy = backend.asarray(normal(4, 8, 9, 4)), backend.asarray(normal(6, 7, 9, 4, seed=1))
    host = backend.to_numpy(x).astype(np.float64), backend.to_numpy(dy).astype(np.float64)
    out = {"its own memory": lambda: backend.asarray(normal(6, 4, 3, 2, seed=2)),
           "x": lambda: x.reshape(-1)[7:151].reshape(6, 4, 3, 2),
           "dy": lambda: dy.reshape(-1)[:144].reshape(6, 4, 3, 2),
           "every second element": lambda: backend.asarray(normal(6, 4, 3, 4))[..., ::2]}[where]()
    expected = BASE.conv2d_dW(*host, U) + accumulate * backend.to_numpy(out).astype(np.float64)
    with columns_by(backend, way, 6000):
        assert backend.conv2d_dW(x, dy, U, out=out, accumulate=accumulate) is out
    assert distance(backend.to_numpy(out), expected) < 1e-5


# --- products -------------------------------------------------------------------------------------

PRODUCTS = [    # M, K, N, which operands are transposed -> the kernels
    (8, 12, 20, "", "product abc"), (8, 12, 21, "", "product a"), (8, 13, 20, "", "product bc"),
    (8, 12, 20, "a", "product abc"), (9, 12, 20, "a", "product bc"), (8, 12, 21, "b", "product ab"),
    (8, 13, 20, "b", "product c"), (8, 128, 20, "", "product abc"),
    (8, 256, 20, "", "product in splits abc, add_splits"),
]


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("M, K, N, turned, way", PRODUCTS)
def test_the_way_of_a_product(M, K, N, turned, way, accumulate, backend, trace):
    a, b, before, bias = normal(M, K), normal(K, N, seed=1), normal(M, N, seed=2), normal(M, seed=3)
    expected = BASE.gemm(a.astype(np.float64), b.astype(np.float64), bias=bias, activation="relu")
    a = np.ascontiguousarray(a.T) if "a" in turned else a
    b = np.ascontiguousarray(b.T) if "b" in turned else b
    out = backend.asarray(before.copy())
    backend.gemm(backend.asarray(a), backend.asarray(b), trans_a="a" in turned,
                 trans_b="b" in turned, bias=backend.asarray(bias), activation="relu", out=out,
                 accumulate=accumulate)
    assert trace.take() == way
    assert distance(backend.to_numpy(out), expected + accumulate * before) < 1e-5


@pytest.mark.parametrize("G, M, K, N, turned, way", [
    (3, 8, 12, 20, "", "product abc"), (3, 8, 12, 20, "a", "product abc"),
    (3, 8, 12, 20, "b", "product abc"), (5, 7, 5, 3, "", "product"), (3, 8, 0, 20, "", ""),
    (6, 2, 3, 2, "", "")])
def test_the_way_of_products_in_groups(G, M, K, N, turned, way, backend, trace, monkeypatch):
    """With empty matrices, or more groups than blocks along an axis of a grid, plain array code."""
    monkeypatch.setattr(plans, "LARGEST_GRID", 5)
    a, b = normal(G, M, K), normal(G, K, N, seed=1)
    expected = np.stack([one @ other for one, other in zip(a.astype(np.float64), b)])
    a = np.ascontiguousarray(a.transpose(0, 2, 1)) if "a" in turned else a
    b = np.ascontiguousarray(b.transpose(0, 2, 1)) if "b" in turned else b
    y = backend.products(backend.asarray(a), backend.asarray(b), trans_a="a" in turned,
                         trans_b="b" in turned)
    assert trace.take() == way
    assert y.shape == (G, M, N) and distance(backend.to_numpy(y), expected) < 1e-5


@pytest.mark.parametrize("itemsize", [2, 4, 8])
def test_16_bytes_at_once_are_aligned_everywhere(itemsize):
    """In every line and every group, from the first element to the last."""
    answers = set()
    for along, line, group, at in product((8, 12, 14), (16, 20, 18), (64, 72, 68, 66), (0, 8, 16)):
        array: Any = SimpleNamespace(data=SimpleNamespace(ptr=at), itemsize=itemsize)
        starts = [at + itemsize * (g * group + k * line) for g in range(2) for k in range(3)]
        aligned = along * itemsize % 16 == 0 and all(start % 16 == 0 for start in starts)
        for order, sizes in ((ALONG_K, (3, along)), (ACROSS_K, (along, 3))):
            assert Operand(array, order, line, group).wide(*sizes) == aligned
        answers.add(aligned)
    assert answers == {True, False}


def test_results_are_written_16_bytes_at_once_where_all_rows_are_aligned():
    answers = set()
    for N, line, group, at in product((8, 6), (12, 10), (40, 42), (0, 8)):
        array: Any = SimpleNamespace(data=SimpleNamespace(ptr=at), itemsize=4)
        a, b = Operand(array, ALONG_K, 8), Operand(array, ACROSS_K, 8)
        p = _struct(ONE_SPLIT, (2, 3, N, 8), a, b, Result(array, line, group, None, None, False))
        starts = [at + 4 * (g * group + k * line) for g in range(2) for k in range(3)]
        aligned = 4 * N % 16 == 0 and all(start % 16 == 0 for start in starts)
        assert bool(p["wide_c"]) == aligned
        answers.add(aligned)
    assert answers == {True, False}


@pytest.mark.parametrize("accumulate", [False, True])
@pytest.mark.parametrize("where", ["a", "b", "bias"])
def test_a_product_that_lies_in_its_operands(where, accumulate, backend):
    memory, n = backend.asarray(normal(300, 100)), 100                  # four tiles
    a, b, bias = (backend.asarray(normal(*size, seed=1)) for size in ((n, n), (n, n), (n,)))
    a, b = memory[:n] if where == "a" else a, memory[130:130 + n] if where == "b" else b
    bias, out = memory[180] if where == "bias" else bias, memory[90:90 + n]
    host = [backend.to_numpy(array).astype(np.float64) for array in (a, b, bias, out)]
    backend.gemm(a, b, bias=bias, out=out, accumulate=accumulate)
    expected = BASE.gemm(host[0], host[1], bias=host[2]) + accumulate * host[3]
    assert distance(backend.to_numpy(out), expected) < 1e-5


# --- pooling and columns --------------------------------------------------------------------------

POOLS = {
    "side by side": (Window((2, 3), (2, 3)), "_of_cells"),
    "apart": (Window((2, 3), (3, 3), (1, 0, 0, 2)), "_of_cells"),
    "rows overlap": (Window((2, 3), (1, 3)), ""),
    "columns overlap": (Window((2, 3), (2, 2)), ""),
    "dilated rows": (Window((2, 3), (3, 3), dilation=(2, 1)), ""),
    "dilated columns": (Window((2, 2), (2, 3), dilation=(1, 2)), ""),
}


@pytest.mark.parametrize("N, width", [(8, 4), (6, 2), (5, 1)])
@pytest.mark.parametrize("name", POOLS)
def test_the_way_of_pooling(name, N, width, backend, trace):
    window, kind = POOLS[name]
    x = normal(2, 7, 8, N)
    y, argmax = BASE.max_pool2d(x, window)
    dy, there = normal(*y.shape, seed=1), backend.asarray(x)
    results = [*backend.max_pool2d(there, window),
               backend.max_pool2d_dx(backend.asarray(dy), backend.asarray(argmax), x.shape, window)]
    assert trace.take() == f"max_pool {width}, max_pool_dx{kind} {width}"
    right = [y, argmax, BASE.max_pool2d_dx(dy, argmax, x.shape, window)]
    assert all(same_bits(backend.to_numpy(a), b) for a, b in zip(results, right, strict=True))
    for count in (True, False):
        dx = backend.avg_pool2d_dx(backend.asarray(dy), x.shape, window, count_padding=count)
        assert trace.take() == f"avg_pool_dx{kind} {width}"
        right_dx = BASE.avg_pool2d_dx(dy, x.shape, window, count_padding=count)
        assert distance(backend.to_numpy(dx), right_dx) < 1e-6


def test_many_windows(backend):
    for shape, window in windows()[::3]:
        x = special(*shape)
        y, argmax = BASE.max_pool2d(x, window)
        cols, dy = BASE.im2col(x, window), normal(*y.shape, seed=1)
        dcols = normal(*cols.shape)
        there, taken = backend.asarray(x), backend.asarray(argmax)
        results = [*backend.max_pool2d(there, window), backend.im2col(there, window),
                   backend.max_pool2d_dx(backend.asarray(dy), taken, shape, window),
                   backend.col2im(backend.asarray(dcols), shape, window)]
        right = [y, argmax, cols, BASE.max_pool2d_dx(dy, argmax, shape, window),
                 BASE.col2im(dcols, shape, window)]
        for a, b in zip(results, right, strict=True):
            assert same_bits(backend.to_numpy(a), b), (shape, window)
        for count in (True, False):
            dx = backend.avg_pool2d_dx(backend.asarray(dy), shape, window, count_padding=count)
            right_dx = BASE.avg_pool2d_dx(dy, shape, window, count_padding=count)
            assert distance(backend.to_numpy(dx), right_dx) < 1e-6, (shape, window)


# --- sums of a batch ------------------------------------------------------------------------------

@pytest.mark.parametrize("N, expected", [(1, "tally"), (1024, "tally"), (1025, "tally, add_hits")])
def test_the_launches_of_a_tally(N, expected, backend, trace):
    """Of labels and of class probabilities; without a target nothing is counted."""
    y, loss = backend.asarray(normal(3, N)), backend.asarray(np.array(0.5, np.float32))
    labels = np.random.default_rng(N).integers(0, 3, N)
    hits = (normal(3, N).argmax(axis=0) == labels).sum()
    for target in (labels, np.eye(3, dtype=np.float32)[labels].T.copy(), None):
        sums = backend.zeros((3,), np.float64)
        trace.words.clear()
        backend.tally(sums, loss, y, None if target is None else backend.asarray(target))
        kernels = [word.split()[0] for word in trace.words]
        assert ", ".join(kernels) == ("tally" if target is None else expected)
        assert backend.to_numpy(sums).tolist() == [0.5 * N, 0 if target is None else hits, N]


@pytest.mark.parametrize("N, launches", [(4096, 1), (4097, 2)])
def test_the_launches_of_a_mean_loss(N, launches, backend, trace):
    z, labels = normal(2, N), np.random.default_rng(N).integers(0, 2, N)
    trace.words.clear()
    loss, _ = backend.softmax_cross_entropy(backend.asarray(z), backend.asarray(labels))
    assert ", ".join(trace.words).count("mean_of_losses") == launches
    right, _ = BASE.softmax_cross_entropy(z.astype(np.float64), labels)
    assert backend.to_numpy(loss) == pytest.approx(right, rel=1e-6)


def test_the_mean_loss_of_a_map_does_not_depend_on_the_launch(backend):
    z = backend.asarray(normal(2, 9000))
    labels = backend.asarray(np.random.default_rng(0).integers(0, 2, 9000))
    bits = []
    for most in (cuda_launch.MAX_GRID, (2, 2)):
        with other_limits(MAX_GRID=most):
            bits.append(backend.to_numpy(backend.softmax_cross_entropy(z, labels)[0]).tobytes())
    assert bits[0] == bits[1]


# --- recurrent layers -----------------------------------------------------------------------------

@pytest.mark.parametrize("masks", [False, True], ids=["", "masks"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_a_step_of_a_recurrent_layer_is_a_product_and_a_kernel(cell, masks, backend, trace):
    """In both directions, and no step allocates an array."""
    rules, H, N, allocated = cell_of(cell), 6, 5, []
    known = {"lengths": backend.asarray(normal(1, N))} if masks else {}
    kernel = cell if cell != "tanh" else "simple"
    U, states = normal(rules.gates * H, H), [normal(H, N)] * rules.states
    for T in (1, 4):
        a, dy = normal(rules.gates * H, T * N), normal(H, T * N)
        a, U_, dy, *first = (backend.asarray(array) for array in (a, U, dy, *states))
        trace.words.clear()
        before = backend.xp.gpus.allocations
        _, last, kept = backend.scan(cell, a, U_, first, [N] * T, **known)
        assert [word.split()[0] for word in trace.words] == ["product", kernel] * T
        trace.words.clear()
        backend.scan_backward(cell, dy, last, U_, kept, [N] * T, **known)
        assert [word.split()[0] for word in trace.words] == [f"{kernel}_backward", "product"] * T
        allocated.append(backend.xp.gpus.allocations - before)
    assert allocated[0] == allocated[1]


@pytest.mark.parametrize("cell, dtype, ends, launches", [
    ("lstm", np.float32, np.float32, True), ("gru", np.float16, np.float16, True),
    ("scaled_tanh", np.float64, np.float64, True), ("softplus", np.float32, np.float32, False),
    ("lstm", np.float32, np.int64, False)])
def test_which_scans_have_kernels(cell, dtype, ends, launches, backend, trace):
    """The others run as in base.py, with the same results."""
    rules, H, N, T = cell_of(cell), 3, 4, 2
    arrays = [normal(rules.gates * H, T * N), normal(rules.gates * H, H)]
    states, lengths = [normal(H, N)] * rules.states, np.array([[1, 2, 2, 0]])
    results = []
    for on, kind in ((backend, dtype), (BASE, np.float64)):
        a, U, *first = (on.asarray(array.astype(kind)) for array in (*arrays, *states))
        with on.scope():
            y, last, _ = on.scan(cell, a, U, first, [N] * T, lengths=on.asarray(
                lengths.astype(ends)))
        results.append([on.to_numpy(array) for array in (y, *last)])
    tolerance = 1e-2 if dtype == np.float16 else 1e-5
    assert all(distance(*pair) < tolerance for pair in zip(*results, strict=True))
    kernel = cell if cell in CELLS else "simple"
    assert (trace.words.count(kernel) == T) == launches


@pytest.mark.parametrize("on_gpu", [False, True], ids=["base", "kernels"])
@pytest.mark.parametrize("cell", ["lstm", "gru", "tanh"])
def test_numbers_behind_the_end_of_a_sample_have_no_effect(cell, on_gpu, backend):
    """Not even NaNs: neither on h, nor on states and gradients."""
    on = backend if on_gpu else BASE
    rules, H, N, T = cell_of(cell), 3, 4, 3
    ends, rows = np.array([3, 1, 2, 1]), rules.gates * H
    behind = np.repeat(np.arange(T), N) >= np.tile(ends, T)
    a = np.where(behind, np.nan, normal(rows, T * N))
    dy = np.where(behind, np.float32(0), normal(H, T * N))
    a, dy, U, lengths, *first = (on.asarray(array) for array in (
        a.astype(np.float32), dy, normal(rows, H), ends[None].astype(np.float32),
        *[normal(H, N)] * rules.states))
    with on.scope():
        h, last, kept = on.scan(cell, a, U, first, [N] * T, lengths=lengths)
        da, ds, dfirst = on.scan_backward(cell, dy, last, U, kept, [N] * T, lengths=lengths)
    assert all(np.isfinite(on.to_numpy(array)).all() for array in (*last, *dfirst))
    for array in map(on.to_numpy, (h, da, ds)):
        assert not array[:, behind].any() and array[:, ~behind].all()
