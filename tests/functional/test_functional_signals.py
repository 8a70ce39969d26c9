"""Functions of signals: against NumPy's correlation, and the same bits as on maps of one row."""

import numpy as np
import pytest
from oracles import assert_close

from xpnet import functional as F


def normal(*shape, dtype="float32", seed=0):
    return np.random.default_rng(seed).standard_normal(shape).astype(dtype)


def test_conv1d_is_a_sum_of_correlations():
    x, W = normal(2, 3, 9, dtype="float64"), normal(4, 3, 3, dtype="float64", seed=1)
    y = F.conv1d(x, W, np.ones(4), padding=(2, 0), backend="numpy")
    padded = np.pad(x, ((0, 0), (0, 0), (2, 0)))
    assert_close(y, [[1 + sum(np.correlate(padded[n, c], W[f, c]) for c in range(3))
                      for f in range(4)] for n in range(2)])


X, W, B = normal(2, 4, 9), normal(6, 2, 3, seed=1), normal(6, seed=2)
WINDOW = {"stride": 2, "padding": (1, 2), "dilation": 2, "groups": 2}
PLANE = {"stride": (1, 2), "padding": (0, 0, 1, 2), "dilation": (1, 2), "groups": 2}
POOL, PLANE_POOL = ({"stride": 2, "padding": 1, "ceil_mode": True},
                    {"stride": (1, 2), "padding": (0, 1), "ceil_mode": True})
Y = F.conv1d(X, W, **WINDOW, backend="numpy")       # Numba would compile kernels for it
MAX, ARGMAX = F.max_pool1d(X, 3, **POOL, backend="numpy")


def as_maps(value):
    """Signals, filters or a shape of signals with an axis for one row."""
    if isinstance(value, tuple):                            # a shape
        return (*value[:2], 1, value[2])
    return value[:, :, None] if isinstance(value, np.ndarray) and value.ndim == 3 else value


@pytest.mark.parametrize(("name", "given", "options", "of_maps"), [
    ("conv1d", (X, W, B), WINDOW, PLANE),
    ("conv1d_backward", (Y, X, W), WINDOW, PLANE),
    ("conv_transpose1d", (Y, W, B[:4]), WINDOW | {"output_padding": 1},
     PLANE | {"output_padding": (0, 1)}),
    ("conv_transpose1d_backward", (normal(2, 4, 9), Y, W), WINDOW | {"output_padding": 1},
     PLANE | {"output_padding": (0, 1)}),
    ("max_pool1d", (X, 3), POOL, PLANE_POOL),
    ("max_pool1d_backward", (MAX, ARGMAX, X.shape, 3), POOL, PLANE_POOL),
    ("avg_pool1d", (X, 3), POOL, PLANE_POOL),
    ("avg_pool1d_backward", (MAX, X.shape, 3), POOL, PLANE_POOL),
])
def test_the_same_bits_as_on_maps_of_one_row(name, given, options, of_maps):
    """With both layouts: in test_functional_calls."""
    found = getattr(F, name)(*given, **options)
    maps = [(1, a) if isinstance(a, int) else as_maps(a) for a in given]
    right = getattr(F, name.replace("1d", "2d"))(*maps, **of_maps)
    for a, b in zip(*(r if isinstance(r, tuple) else (r,) for r in (found, right)), strict=True):
        np.testing.assert_array_equal(as_maps(a), b)
