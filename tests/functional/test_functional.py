"""xpnet.functional: every function against loops, its gradient against finite differences, in both
layouts, on every backend."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import oracles
import pytest
from oracles import assert_close

import xpnet as xn
from xpnet import functional as F

WINDOWS: list[dict[str, Any]] = [      # of kernels of 3x2
    {}, {"stride": (2, 3), "padding": (2, 1, 0, 1)}, {"padding": 1, "dilation": (2, 1)},
    {"stride": 2, "padding": "half"}]


def normal(*shape: int, dtype: Any = "float64") -> np.ndarray:
    """Read-only, so that a function that writes into its input fails."""
    a = np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)
    a.flags.writeable = False
    return a


def distinct(*shape: int) -> np.ndarray:
    """Random values of which no two are nearly equal, so that finite differences of a maximum stay
    away from its kinks."""
    return np.random.default_rng(1).permutation(np.prod(shape)).reshape(shape) / 10.0


def last(a: Any) -> Any:
    """Batch last and contiguous."""
    return np.ascontiguousarray(np.moveaxis(a, 0, -1))


def first(a: Any) -> Any:
    return np.ascontiguousarray(np.moveaxis(a, -1, 0))


def padding_of(kernel, *, stride=1, padding=0, dilation=1):
    """Pairs and four paddings, for loops."""
    window = xn.Window.make(kernel, stride, padding, dilation)
    return window.stride, window.padding, window.dilation


@dataclass
class On:
    """Calls functions with NumPy arrays, on one backend and in one layout; arguments and results
    are batch-first."""

    backend: xn.Backend
    layout: str

    def __call__(self, function: Callable[..., Any], images: tuple, *others: Any,
                 shapes: tuple = (), **options: Any) -> Any:
        turn, back = (last, first) if self.layout == "CHWN" else (np.array, np.array)
        sent = [self.backend.asarray(turn(a)) for a in images]
        sent += [(*shape[1:], shape[0]) if self.layout == "CHWN" else shape for shape in shapes]
        sent += [self.backend.asarray(a) if isinstance(a, np.ndarray) else a for a in others]
        # for "auto", a GPU rounds the operands of float32 convolutions to TF32
        rounded = images[0].dtype == np.float32
        given = self.backend if self.backend.xp is np or rounded else "auto"
        results = function(*sent, **options, layout=self.layout, backend=given)
        filters = others[0].shape if others and isinstance(others[0], np.ndarray) else None
        host = [self.backend.to_numpy(r)
                for r in (results if isinstance(results, tuple) else (results,))]
        # dW is not an image
        host = [back(r) if r.ndim > 2 and r.shape != filters else r for r in host]
        return tuple(host) if isinstance(results, tuple) else host[0]


@pytest.fixture(params=["NCHW", "CHWN"])
def on(request, backend) -> On:
    return On(backend, request.param)


def check_gradient(f: Callable[..., np.ndarray], values: list[np.ndarray],
                   gradients: Callable[[np.ndarray], Any]) -> None:
    """Finite differences of L = sum of R f(values) along a random direction, against
    gradients(R)."""
    weight = normal(*f(*values).shape)
    directions = [np.random.default_rng(k).standard_normal(v.shape) for k, v in enumerate(values)]
    h = 1e-6
    plus, minus = (float((f(*(v + s * h * d for v, d in zip(values, directions))) * weight).sum())
                   for s in (1, -1))
    found = gradients(weight)
    assert [g.shape for g in found] == [v.shape for v in values]
    expected = (plus - minus) / (2 * h)
    assert (sum(float((g * d).sum()) for g, d in zip(found, directions))
            == pytest.approx(expected, rel=1e-6))


# --- values and gradients -------------------------------------------------------------------------

@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_conv2d(options, groups, dtype, on):
    x, W, b = normal(3, 4, 6, 7, dtype=dtype), normal(6, 4 // groups, 3, 2, dtype=dtype), normal(
        6, dtype=dtype)
    y = on(F.conv2d, (x,), W, b, groups=groups, **options)
    assert y.dtype == x.dtype
    assert_close(y,
                 first(oracles.conv2d(last(x), W, b, *padding_of((3, 2), **options),
                                      groups=groups)))
    assert_close(on(F.conv2d, (x,), W, groups=groups, **options),
                 first(oracles.conv2d(last(x), W, 0 * b, *padding_of((3, 2), **options),
                                      groups=groups)))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_conv2d_backward(options, groups, on):
    x, W, b = normal(3, 4, 6, 7), normal(6, 4 // groups, 3, 2), normal(6)
    check_gradient(lambda x, W, b: on(F.conv2d, (x,), W, b, groups=groups, **options), [x, W, b],
                   lambda dy: on(F.conv2d_backward, (dy, x), W, groups=groups, **options))


TRANSPOSED = [*WINDOWS, {"stride": (2, 3), "output_padding": (1, 2)},
              {"dilation": (2, 3), "stride": (1, 2), "padding": (0, 2, 1, 0),
               "output_padding": (1, 2)}]


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_conv_transpose2d(options, groups, dtype, on):
    x, W, b = (normal(2, 4, 4, 5, dtype=dtype), normal(4, 3, 3, 2, dtype=dtype),
               normal(3 * groups, dtype=dtype))
    window = {name: value for name, value in options.items() if name != "output_padding"}
    stride, padding, dilation = padding_of((3, 2), **window)
    extra = options.get("output_padding", (0, 0))
    size = tuple((n - 1) * s - p + d * (k - 1) + 1 + e for n, s, p, d, k, e in
                 zip((4, 5), stride, (sum(padding[:2]), sum(padding[2:])), dilation, (3, 2), extra))
    y = on(F.conv_transpose2d, (x,), W, b, groups=groups, **options)
    assert y.dtype == x.dtype
    assert_close(y,
                 first(oracles.conv_transpose2d(last(x), W, b, size, stride, padding, dilation,
                                                groups)))


@pytest.mark.parametrize("groups", [1, 2])
@pytest.mark.parametrize("options", TRANSPOSED, ids=str)
def test_conv_transpose2d_backward(options, groups, on):
    x, W, b = normal(2, 4, 4, 5), normal(4, 3, 3, 2), normal(3 * groups)
    check_gradient(lambda x, W, b: on(F.conv_transpose2d, (x,), W, b, groups=groups, **options),
                   [x, W, b], lambda dy: on(F.conv_transpose2d_backward, (dy, x), W, groups=groups,
                                            **options))


def test_the_input_gradient_is_not_computed_if_it_is_not_needed(backend):
    x, W, dy = normal(2, 4, 6, 6), normal(4, 4, 3, 3), normal(2, 4, 6, 6)
    on_device = [backend.asarray(a) for a in (dy, x, W)]
    given = "auto" if backend.xp is not np else backend
    for function in (F.conv2d_backward, F.conv_transpose2d_backward):
        dx, dW, db = function(*on_device, padding=1, backend=given)
        none, same_dW, same_db = function(*on_device, padding=1, needs_dx=False, backend=given)
        assert dx is not None and none is None
        for a, b in ((dW, same_dW), (db, same_db)):
            np.testing.assert_array_equal(backend.to_numpy(a), backend.to_numpy(b))


@pytest.mark.parametrize("options", WINDOWS, ids=str)
def test_im2col_and_its_adjoint(options, on):
    x = normal(3, 2, 6, 7)
    cols = on(F.im2col, (x,), (3, 2), **options)
    W = np.eye(12).reshape(12, 2, 3, 2)                    # one filter for each row of the columns
    y = first(oracles.conv2d(last(x), W, np.zeros(12), *padding_of((3, 2), **options)))
    np.testing.assert_array_equal(cols, y.reshape(3, 12, -1))
    dcols = normal(*cols.shape)
    dx = on(F.col2im, (dcols,), (3, 2), shapes=(x.shape,), **options)
    assert float((dx * x).sum()) == pytest.approx(float((dcols * cols).sum()), rel=1e-12)
    assert dx.shape == x.shape


POOLS = [({}, (2, 2)), ({"stride": 1, "padding": 1}, (3, 2)),
         ({"stride": 2, "ceil_mode": True}, (3, 3)),
         ({"dilation": 2}, (2, 3))]


@pytest.mark.parametrize("options,kernel", POOLS, ids=str)
def test_max_pool2d(options, kernel, on):
    x = np.round(normal(2, 3, 7, 6))                        # many equal elements
    window = {name: value for name, value in options.items() if name != "ceil_mode"}
    stride, padding, dilation = padding_of(kernel, **{"stride": kernel} | window)
    right, winners = oracles.max_pool2d(last(x), kernel, stride, padding, dilation,
                                        options.get("ceil_mode", False))
    y, argmax = on(F.max_pool2d, (x,), kernel, **options)
    np.testing.assert_array_equal(y, first(right))
    dy = normal(*y.shape)
    expected = np.zeros(x.shape)
    for (c, oy, ox, n), (_, row, column, _) in winners.items():
        expected[n, c, row, column] += dy[n, c, oy, ox]
        i, j = divmod(int(argmax[n, c, oy, ox]), kernel[1])
        assert (oy * stride[0] - padding[0] + i * dilation[0],
                ox * stride[1] - padding[2] + j * dilation[1]) == (row, column)
    assert_close(on(F.max_pool2d_backward, (dy, argmax), kernel, shapes=(x.shape,), **options),
                 expected)


def test_max_pool2d_of_large_windows_and_nans(on):
    x = normal(1, 1, 20, 20).copy()
    x[0, 0, 3, 4] = np.nan
    y, argmax = on(F.max_pool2d, (x,), 17, stride=1)
    assert argmax.dtype == np.int32 and argmax[0, 0, 0, 0] == 3 * 17 + 4 and np.isnan(y[0, 0, 0, 0])
    dx = on(F.max_pool2d_backward, (np.ones_like(y), argmax), 17, shapes=(x.shape,), stride=1)
    assert dx.sum() == y.size


@pytest.mark.parametrize("inside", [False, True])
@pytest.mark.parametrize("options", [{}, {"stride": 2, "padding": (1, 0, 1, 1)}], ids=str)
def test_avg_pool2d(options, inside, on):
    x = normal(2, 3, 7, 6)
    stride, padding, _ = padding_of((3, 2), **{"stride": (3, 2)} | options)
    y = on(F.avg_pool2d, (x,), (3, 2), count_include_pad=not inside, **options)
    assert_close(y, first(oracles.avg_pool2d(last(x), (3, 2), stride, padding, not inside)))
    check_gradient(lambda x: on(F.avg_pool2d, (x,), (3, 2), count_include_pad=not inside,
                                **options), [x],
                   lambda dy: [on(F.avg_pool2d_backward, (dy,), (3, 2), shapes=(x.shape,),
                                  count_include_pad=not inside, **options)])


def test_max_pool2d_backward_is_the_gradient(on):
    x = distinct(2, 3, 7, 6)
    _, argmax = on(F.max_pool2d, (x,), 3, stride=2)
    check_gradient(lambda x: on(F.max_pool2d, (x,), 3, stride=2)[0], [x],
                   lambda dy: [on(F.max_pool2d_backward, (dy, argmax), 3, shapes=(x.shape,),
                                  stride=2)])


def test_batch_norm(on):
    x, gamma, beta = 3 + 2 * normal(4, 3, 5, 6), normal(3), normal(3)
    mean, var = oracles.channel_statistics(np.moveaxis(x, 1, 0))
    y, *statistics = on(F.batch_norm, (x,), gamma, beta, eps=1e-3)
    expected = first(oracles.batch_norm(last(x), gamma, beta, mean, var, 1e-3))
    assert_close(y, expected)
    for found, right in zip(statistics, (mean, var)):
        assert_close(found, right)
    assert_close(on(F.batch_norm_inference, (x,), gamma, beta, *statistics, eps=1e-3), expected)
    check_gradient(lambda x, gamma, beta: on(F.batch_norm, (x,), gamma, beta, eps=1e-3)[0],
                   [x, gamma, beta],
                   lambda dy: on(F.batch_norm_backward, (dy, x), gamma, *statistics, eps=1e-3))
