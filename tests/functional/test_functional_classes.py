"""ReLU, softmax, cross entropy, and poolings with indices, as functions of arrays: against formulas
and plain loops."""

from __future__ import annotations

import numpy as np
import oracles
import pytest
from loss_cases import W5, log_softmax, of_classes
from oracles import assert_close
from skips import CPU

from xpnet import functional as F

backends = pytest.mark.parametrize("backend", CPU)
dtypes = pytest.mark.parametrize("dtype", ["float32", "float64"])


def normal(shape, dtype="float64", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


@backends
@dtypes
@pytest.mark.parametrize("shape", [(7,), (5, 3), (4, 3, 2, 5), (2, 3, 4, 5, 6)], ids=str)
def test_relu(backend, dtype, shape):
    x, dy = normal(shape, dtype), normal(shape, dtype, 1)
    y = F.relu(x, backend=backend)
    np.testing.assert_array_equal(y, np.where(x > 0, x, 0))
    np.testing.assert_array_equal(F.relu_backward(dy, y, backend=backend), np.where(x > 0, dy, 0))


@backends
@dtypes
@pytest.mark.parametrize("shape", [(9, 5), (3, 4, 2, 3)], ids=str)
def test_softmax(backend, dtype, shape):
    z, dy = 30 * normal(shape, dtype), normal(shape, dtype, 1)
    e = np.exp(z.astype(float) - z.max(axis=1, keepdims=True))
    y = e / e.sum(axis=1, keepdims=True)
    assert_close(F.softmax(z, backend=backend), y)
    dz = y * (dy - (dy * y).sum(axis=1, keepdims=True))
    assert_close(F.softmax_backward(dy, y.astype(dtype), backend=backend), dz, scale=10)


@backends
@dtypes
@pytest.mark.parametrize("maps", [(), (3, 2)], ids=["vectors", "maps"])
@pytest.mark.parametrize("kind", ["labels", "shares"])
def test_cross_entropy(backend, dtype, maps, kind):
    z = 2 * normal((6, 5, *maps), dtype)
    labels = np.random.default_rng(1).integers(-1, 5, (6, *maps))
    target = labels if kind == "labels" else abs(normal(z.shape, dtype, 2))
    options = ({"weight": W5, "ignore_index": -1} if kind == "labels"
               else {"weight": W5, "label_smoothing": 0.2})
    right = of_classes(log_softmax, W5, options.get("ignore_index"),
                       options.get("label_smoothing", 0.0))
    loss, dz = F.cross_entropy(z, target, backend=backend, **options)
    converted = np.moveaxis(target, 0, -1)

    def value(at):
        return right(np.moveaxis(at.astype(float), 0, -1), converted)

    assert (loss.shape == () and loss.dtype == dtype
            and float(loss) == pytest.approx(value(z), rel=1e-5))
    direction = normal(z.shape, seed=3)
    slope = (value(z + 1e-6 * direction) - value(z - 1e-6 * direction)) / 2e-6
    assert (dz * direction).sum() == pytest.approx(slope, rel=1e-4)
    alone, same = F.cross_entropy(z, target, reduction="none", backend=backend, **options)
    summed, all_of_them = F.cross_entropy(z, target, reduction="sum", backend=backend, **options)
    assert alone.shape == (6, *maps) and alone.sum() == pytest.approx(float(summed), rel=1e-5)
    assert_close(same, all_of_them, scale=10)
    weights = np.array([0, 1, 2, 0, 3, 1], dtype)
    weighed, by_weight = F.cross_entropy(z, target, weights, reduction="sum", backend=backend,
                                         **options)
    column = weights.reshape(-1, *(1,) * len(maps))
    assert float(weighed) == pytest.approx((alone * column).sum(), rel=1e-5)
    assert_close(by_weight, same * weights.reshape(-1, *(1,) * (z.ndim - 1)), scale=10)


@backends
@dtypes
@pytest.mark.parametrize("include", [True, False])
def test_average_with_ceil_mode(backend, dtype, include):
    """The last window extends beyond the padding. Its elements there never count."""
    x, options = normal((2, 3, 6, 7), dtype), {"stride": (2, 3), "padding": (1, 0, 0, 1),
                                               "ceil_mode": True}
    y = F.avg_pool2d(x, 3, count_include_pad=include, backend=backend, **options)
    assert (y.shape == F.max_pool2d(x, 3, **options)[0].shape
            != F.avg_pool2d(x, 3, **options | {"ceil_mode": False}).shape)
    framed = np.full((2, 3, 20, 20), np.nan)  # elements beyond the padding do not count
    framed[:, :, :7, :8] = 0
    framed[:, :, 1:7, :7] = x
    inside = np.zeros((20, 20), bool)
    inside[1:7, :7] = True
    inside[:7, :8] |= include
    for i, j in np.ndindex(*y.shape[2:]):
        window = (..., slice(2 * i, 2 * i + 3), slice(3 * j, 3 * j + 3))
        counted = framed[window][:, :, inside[window[1:]]]
        np.testing.assert_allclose(y[:, :, i, j], counted.mean(axis=-1), rtol=1e-5)
    dy = normal(y.shape, dtype, 1)
    dx = F.avg_pool2d_backward(dy, x.shape, 3, count_include_pad=include, backend=backend,
                               **options)
    direction = normal(x.shape, dtype, 2)
    moved = F.avg_pool2d(direction, 3, count_include_pad=include, backend=backend, **options)
    assert (dx * direction).sum() == pytest.approx((dy * moved).sum(), rel=1e-4)  # y is linear in x


@backends
@dtypes
@pytest.mark.parametrize("size", [(1, 1), (3, 2), (6, 7)], ids=str)
def test_adaptive_max_pooling_with_indices(backend, dtype, size):
    x = np.random.default_rng(0).integers(-3, 3, (2, 3, 6, 7)).astype(dtype)  # many equal elements
    y, indices = F.adaptive_max_pool2d(x, size, backend=backend)
    assert y.shape == indices.shape == (2, 3, *size) and indices.dtype == np.int64
    for n, c, i, j in np.ndindex(y.shape):
        rows = range(i * 6 // size[0], -(-(i + 1) * 6 // size[0]))
        columns = range(j * 7 // size[1], -(-(j + 1) * 7 // size[1]))
        places = [(x[n, c, r, k], -(r * 7 + k)) for r in rows for k in columns]
        assert (y[n, c, i, j], -indices[n, c, i, j]) == max(places)  # the first of equal ones
    dy = normal(y.shape, dtype, 1)
    expected = np.zeros((2, 3, 42), dtype)
    for n, c, i, j in np.ndindex(y.shape):
        expected[n, c, indices[n, c, i, j]] += dy[n, c, i, j]
    np.testing.assert_array_equal(F.max_unpool2d(dy, indices, (6, 7), backend=backend),
                                  expected.reshape(x.shape))
    np.testing.assert_array_equal(F.max_unpool2d_backward(x, indices, backend=backend), y)


@backends
@pytest.mark.parametrize("options",
                         [{}, {"stride": (1, 2), "padding": (1, 0, 1, 2), "dilation": (2, 1)},
                                     {"stride": 2, "ceil_mode": True}], ids=str)
def test_indices_of_max_pooling(backend, options):
    x = normal((2, 3, 7, 6))
    y, argmax = F.max_pool2d(x, 3, backend=backend, **options)
    indices = F.max_pool_indices(argmax, x.shape, 3, backend=backend, **options)
    np.testing.assert_array_equal(F.max_unpool2d_backward(x, indices, backend=backend), y)
    dy = normal(y.shape, seed=1)
    assert_close(F.max_unpool2d(dy, indices, (7, 6), backend=backend),
                 F.max_pool2d_backward(dy, argmax, x.shape, 3, backend=backend, **options))
    plain = {key: value if isinstance(value, tuple) else (value, value)
             for key, value in options.items() if key != "ceil_mode"}
    plain.setdefault("stride", (3, 3))
    _, winners = oracles.max_pool2d(np.moveaxis(x, 0, -1), (3, 3),
                                    ceil=options.get("ceil_mode", False), **plain)
    for (c, oy, ox, n), (_, row, column, _) in winners.items():
        assert indices[n, c, oy, ox] == row * 6 + column


x4, z2 = normal((2, 3, 4, 4)), normal((2, 3))
zeros = np.zeros((2, 3, 2, 2), int)


@pytest.mark.parametrize("call, error, text", [
    (lambda: F.relu([1.0]), TypeError,
     "relu: expected x to be a NumPy or CuPy array. Received: list"),
    (lambda: F.relu(np.zeros(3, int)), TypeError,
     "relu: expected arrays of one dtype, float32 or float64"),
    (lambda: F.relu_backward(x4, z2), ValueError, r"relu_backward: expected "),
    (lambda: F.softmax(x4[0, 0, 0]), ValueError, r"softmax: expected z of shape \(N, K\)"),
    (lambda: F.softmax_backward(z2, z2[:1]), ValueError,
     r"softmax_backward: expected dy of shape \(1, 3\)"),
    (lambda: F.cross_entropy(z2, np.array([0, 3])), ValueError,
     "expected labels from 0 to 2. Received: labels from 0 to 3"),
    (lambda: F.cross_entropy(z2, -abs(z2)), ValueError,
     "expected class probabilities, 0 or larger"),
    (lambda: F.cross_entropy(z2, np.zeros((2, 4))), ValueError,
     r"expected labels of shape \(2,\) or probabilities \(2, 3\)"),
    (lambda: F.cross_entropy(z2, np.zeros(2)), TypeError,
     "expected integer labels, or probabilities of float64"),
    (lambda: F.cross_entropy(z2, np.zeros(2, int), weight=[1, 2]), ValueError,
     "expected weight to have 3 numbers"),
    (lambda: F.cross_entropy(z2, np.zeros(2, int), np.ones(3)), ValueError,
     r"expected sample_weight of shape \(2,\)"),
    (lambda: F.cross_entropy(z2, np.zeros(2, int), reduction="all"), ValueError,
     "expected reduction to be"),
    (lambda: F.max_unpool2d(x4, zeros, 4), ValueError,
     r"max_unpool2d: expected indices of shape \(2, 3, 4, 4\)"),
    (lambda: F.max_unpool2d(x4[:, :, :2, :2], zeros + 16, 4), ValueError,
     "expected indices from 0 to 15, for 4x4 positions"),
    (lambda: F.max_unpool2d(x4[:, :, :2, :2], zeros * 1.0, 4), TypeError,
     "expected indices of an integer type"),
    (lambda: F.max_unpool2d_backward(x4, zeros[:1]), ValueError,
     "expected indices with the batch and the channels of dy"),
    (lambda: F.max_unpool2d_backward(x4, zeros - 1), ValueError, "expected indices from 0 to 15"),
    (lambda: F.max_pool_indices(zeros, x4.shape, 2), TypeError,
     "expected the argmax that max_pool2d gives, of uint8"),
    (lambda: F.adaptive_max_pool2d(x4, 0), ValueError,
     "adaptive_max_pool2d: expected output_size to be an int or a pair"),
])
def test_refusals(call, error, text):
    with pytest.raises(error, match=text):
        call()
