"""Sizes are checked before anything is built: in files, which may come from anyone, and in
constructors."""

from __future__ import annotations

import json
import subprocess
import sys

import numpy as np
import pytest
from nets import small
from processes import SUPPORT

import xpnet as xn
from xpnet.layer import MOST_ROWS
from xpnet.layers.gathered import Sparse
from xpnet.layers.pooling import _largest, spans

HOSTILE = SUPPORT / "hostile.py"


@pytest.fixture(scope="module")
def endings(number) -> list[str]:
    """The output of hostile.py, run with limited memory and processor time."""
    if not sys.platform.startswith("linux"):
        pytest.skip("limits of memory as Linux has them")
    done = subprocess.run([sys.executable, "-W", "error", HOSTILE, str(number(40_000))],
                          capture_output=True, text=True, timeout=500)
    assert done.returncode == 0, (f"{done.returncode}, after "
                                  f"{done.stdout.splitlines()[-1:]}\n{done.stderr[-3000:]}")
    return done.stdout.splitlines()


def test_small_files_take_little_memory_and_time(endings):
    """Every file without its arrays ends with an error that names it, before anything large is
    allocated."""
    refused = [line for line in endings if line.startswith("file") and not line.endswith(" ok")]
    assert len(refused) > 70
    for line in refused:
        assert "ValueError: load: expected" in line and "Received: /" in line, line


def test_every_number_of_every_layer_made_large(endings):
    """Each works, because nothing large is made of it, or raises the library's error."""
    line, = (line for line in endings if line.startswith("numbers"))
    counts = json.loads(line.removeprefix("numbers"))
    assert set(counts) == {"ok", "ValueError"}
    assert counts["ValueError"] > 1000 and counts["ok"] > 500


def test_constructors_refuse_sizes_that_no_memory_holds(endings):
    refused = [line for line in endings if line.startswith("constructor")]
    assert len(refused) > 70
    for line in refused:
        assert "ValueError: " in line or "MemoryError: " in line, line


def test_deep_and_large_networks_are_built(endings):
    assert [line for line in endings if line.endswith(" ok")][-2:] == [
        "file identities ok", "file log softmaxes below dropouts ok"]
    assert sum(line.endswith(" ok") for line in endings) == 11


@pytest.mark.parametrize("make, message", [
    (lambda: xn.AdaptiveAvgPool2d((10**8, 1)),
     "AdaptiveAvgPool2d.*: expected an output of at most 1,048,576 rows and columns"),
    (lambda: xn.ReplicationPad2d((10**7, 0, 0, 0)),
     "ReplicationPad2d.*: expected an output of at most 1,048,576 rows"),
    (lambda: xn.GaussianPool2d(20000, 1.0),
     "GaussianPool2d: expected a window of at most 67,108,864 elements"),
    (lambda: xn.Conv2d(10**12, 3),
     r"Conv2d 'conv1': expected W of at most 2\^40 elements. Received: shape \(10+, 1, 3, 3\)"),
    (lambda: xn.Conv2d(2**70, 3), "Conv2d: expected filters to be an int"),
    (lambda: xn.Upsample2d(1e300),
     "Upsample2d 'upsample1': expected an output of at most 1,048,576 rows and columns"),
    (lambda: xn.Conv2d(1, 1, padding=2**40),
     r"Conv2d 'conv1': expected an output of at most 2\^40 elements"),
])
def test_the_errors_of_constructors(make, message):
    with pytest.raises(ValueError, match=f"^{message}") as caught:
        xn.Sequential([make()], input_shape=(1, 28, 28), backend="numpy")
    assert "\n" not in str(caught.value) and len(str(caught.value)) < 300


def test_too_little_memory_raises_the_librarys_error(monkeypatch):
    """Before the allocation if the machine has too little memory, and if the system refuses it."""
    monkeypatch.setattr("xpnet.buffers._machine_memory", lambda: 4000)
    expected = (r"^Linear 'linear1': expected parameters and state that fit into the memory of "
                r"numpy. Received: 0.0 GiB, 0.0 GiB of them W of shape \(16, 2\).$")
    with pytest.raises(MemoryError, match=expected):
        xn.Sequential([xn.Linear(16), *(xn.BatchNorm1d() for _ in range(9))], input_shape=(2,),
                      backend="numpy")
    monkeypatch.undo()

    class Full(xn.Backend):
        def zeros(self, shape, dtype):
            raise MemoryError("Unable to allocate")
    with pytest.raises(MemoryError, match="^Linear 'linear2': expected parameters and state that "
                                          "fit into the memory of base"):
        xn.Sequential([xn.Linear(16), xn.Linear(16)], input_shape=(2,), backend=Full())
    with pytest.raises(MemoryError,
                       match="^Linear: expected parameters and state that fit|^Linear 'linear'"):
        xn.Linear(3).initialize((4,), backend=Full())


def test_the_longest_window_of_adaptive_pooling():
    for size in range(1, 40):
        for count in range(1, 40):
            assert _largest(size, count) == max(stop - start for start, stop in spans(size, count))


def test_sparse_matrices_are_the_dense_ones():
    rng = np.random.default_rng(0)
    for rows, columns, k in ((1, 1, 1), (5, 7, 1), (7, 5, 3), (6, 6, 2), (40, 3, 4)):
        taken, weight = (rng.integers(0, columns, (rows, k)),
                         rng.integers(-1, 2, (rows, k)).astype(float))
        dense = sum(weight[:, j, None] * np.eye(columns)[taken[:, j]] for j in range(k))
        sparse = Sparse.taking(columns, taken, weight)
        for matrix, expected in ((sparse, dense), (sparse.T, dense.T), (sparse.T.T, dense)):
            index, value = matrix.table("test")
            made = np.zeros(expected.shape)
            for j in range(index.shape[1]):
                made[np.arange(len(index)), index[:, j]] += value[:, j]
            np.testing.assert_array_equal(made, expected)
            assert (index.shape[1] == max((expected != 0).sum(axis=1).max(), 1)
                    and matrix.shape == expected.shape)
    assert (Sparse.taking(4, np.arange(4)[:, None]).identity
            and not Sparse.taking(4, np.array([[0], [1], [2], [2]])).identity)
    assert not Sparse.taking(5, np.arange(4)[:, None]).identity


def test_a_table_that_is_too_large_is_refused_when_it_is_needed():
    layer = xn.ReplicationPad2d((MOST_ROWS // 2, 0, 0, 0)).initialize((1, MOST_ROWS // 2, 1))
    x = np.zeros((1, MOST_ROWS // 2, 1, 1), np.float32)
    layer.forward(x, mode=xn.TRAIN)
    with pytest.raises(ValueError,
                       match="ReplicationPad2d 'pad': expected a table of at most 67,108,864 "
                             "entries. Received: 524,288 rows, one of which is used 524,289 times"):
        layer.backward(np.zeros((1, MOST_ROWS, 1, 1), np.float32))


def test_tables_are_made_when_they_are_used_and_again_on_another_backend():
    net = xn.Sequential([xn.Upsample2d(2, "bilinear"), xn.GaussianPool2d(2, 1.0),
                         xn.AvgPool2d(2, stride=3, ceil_mode=True)],
                        input_shape=(1, 4, 4), backend="numpy")
    names = "forth", "_filters", "_factor"
    assert not any(name in vars(layer) for layer in net.layers for name in names)
    x = np.random.default_rng(0).random((2, 1, 4, 4), np.float32)
    y = net.predict(x)
    assert all(name in vars(layer) for layer, name in zip(net.layers, names, strict=True))
    net.to(xn.Backend())
    assert not any(name in vars(layer) for layer in net.layers for name in names)
    np.testing.assert_allclose(net.predict(x), y, rtol=1e-6)


def test_a_memory_report_does_not_count_tables_as_a_batch():
    net = xn.Sequential([xn.Upsample2d(2, "bicubic"), xn.Flatten(), xn.Linear(2)],
                        input_shape=(1, 9, 9), backend="numpy")
    first = net.memory_report(3)
    assert net.memory_report(3) == first
    assert small().memory_report(3) is not None
