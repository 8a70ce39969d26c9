"""Arguments and results of the functions of xpnet.functional: memory, layouts, backends, errors."""

from __future__ import annotations

import itertools
import re
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from skips import CPU, NUMBA_MISSING

import xpnet as xn
from xpnet import functional as F
from xpnet.functional import call


def normal(*shape: int) -> np.ndarray:
    """Read-only, so that a function that writes into its input fails."""
    a = np.random.default_rng(sum(shape)).standard_normal(shape).astype(np.float32)
    a.flags.writeable = False
    return a


def last(a: np.ndarray) -> np.ndarray:
    """Batch last and contiguous."""
    return np.ascontiguousarray(np.moveaxis(a, 0, -1))


def first(a: np.ndarray) -> np.ndarray:
    return np.ascontiguousarray(np.moveaxis(a, -1, 0))


x4, W4, b1, x3 = normal(2, 3, 4, 4), normal(5, 3, 3, 3), normal(3), normal(2, 3, 5)
# windows of one element, for which an input could be returned by mistake
ONE = {"kernel_size": 1, "stride": 1}
CALLS: dict[str, tuple[Callable[..., Any], list[Any]]] = {
    "conv2d": (lambda x, W, **o: F.conv2d(x, W, **o), [x4, normal(3, 3, 1, 1)]),
    "conv2d 3x3": (lambda x, W, **o: F.conv2d(x, W, padding=1, **o), [x4, W4]),
    "conv2d_backward": (F.conv2d_backward, [x4, x4, normal(3, 3, 1, 1)]),
    "conv_transpose2d": (F.conv_transpose2d, [x4, normal(3, 3, 1, 1), b1]),
    "conv_transpose2d_backward": (F.conv_transpose2d_backward, [x4, x4, normal(3, 3, 1, 1)]),
    "im2col": (lambda x, **o: F.im2col(x, 1, **o), [x4]),
    "im2col 3x3": (lambda x, **o: F.im2col(x, 3, **o), [x4]),
    "col2im": (lambda cols, **o: F.col2im(cols, (cols.shape[0], 3, 4, 4) if o["layout"] == "NCHW"
                                          else (3, 4, 4, cols.shape[-1]), 1, **o),
               [x4.reshape(2, 3, 16)]),
    "max_pool2d": (lambda x, **o: F.max_pool2d(x, **ONE, **o), [x4]),
    "max_pool2d_backward": (lambda x, a, **o: F.max_pool2d_backward(x, a, x.shape, **ONE, **o),
                            [x4, np.zeros(x4.shape, np.uint8)]),
    "avg_pool2d": (lambda x, **o: F.avg_pool2d(x, **ONE, **o), [x4]),
    "avg_pool2d_backward": (lambda x, **o: F.avg_pool2d_backward(x, x.shape, **ONE, **o), [x4]),
    "conv1d": (lambda x, W, **o: F.conv1d(x, W, **o), [x3, normal(3, 3, 1)]),
    "conv1d_backward": (F.conv1d_backward, [x3, x3, normal(3, 3, 1)]),
    "conv_transpose1d": (F.conv_transpose1d, [x3, normal(3, 3, 1), b1]),
    "conv_transpose1d_backward": (F.conv_transpose1d_backward, [x3, x3, normal(3, 3, 1)]),
    "max_pool1d": (lambda x, **o: F.max_pool1d(x, **ONE, **o), [x3]),
    "max_pool1d_backward": (lambda x, a, **o: F.max_pool1d_backward(x, a, x.shape, **ONE, **o),
                            [x3, np.zeros(x3.shape, np.uint8)]),
    "avg_pool1d": (lambda x, **o: F.avg_pool1d(x, **ONE, **o), [x3]),
    "avg_pool1d_backward": (lambda x, **o: F.avg_pool1d_backward(x, x.shape, **ONE, **o), [x3]),
    "triplet_margin": (F.triplet_margin, [normal(2, 3), normal(2, 3) + 1, normal(2, 3) - 1]),
    "contrastive": (lambda a, b, **o: F.contrastive(
        a, b, np.ones(a.shape[0 if o["layout"] == "NCHW" else -1]), **o),
                    [normal(2, 3), normal(2, 3) + 1]),
    "cosine_embedding": (lambda a, b, **o: F.cosine_embedding(
        a, b, np.ones(a.shape[0 if o["layout"] == "NCHW" else -1]), **o),
                         [normal(2, 3), normal(2, 3) + 1]),
    "margin_ranking": (lambda a, b, **o: F.margin_ranking(a, b, np.ones(len(a)), **o),
                       [normal(2), normal(2) + 1]),
    "relu": (F.relu, [abs(x4)]),
    "relu_backward": (F.relu_backward, [x4, abs(x4) + 1]),
    "softmax": (F.softmax, [normal(2, 1)]),
    "softmax_backward": (F.softmax_backward, [normal(2, 3), normal(2, 3)]),
    "softmax_backward maps": (F.softmax_backward, [x4, normal(2, 3, 4, 4)]),
    "cross_entropy": (F.cross_entropy, [normal(2, 3), np.abs(normal(2, 3))]),
    "adaptive_max_pool2d": (lambda x, **o: F.adaptive_max_pool2d(x, 4, **o), [x4]),
    "max_pool_indices": (lambda a, **o: F.max_pool_indices(a, a.shape, **ONE, **o),
                         [np.zeros(x4.shape, np.uint8)]),
    "max_unpool2d": (lambda x, i, **o: F.max_unpool2d(x, i, 4, **o),
                     [x4, np.broadcast_to(np.arange(16).reshape(4, 4), x4.shape)]),
    "max_unpool2d_backward": (F.max_unpool2d_backward, [x4, np.zeros(x4.shape, int)]),
    "batch_norm": (F.batch_norm, [x4, b1, b1]),
    "batch_norm_inference": (F.batch_norm_inference, [x4, b1, b1, b1, b1 * b1]),
    "batch_norm_backward": (F.batch_norm_backward, [x4, x4, b1, b1, b1 * b1]),
}


def run(name: str, layout: str, samples: int, backend: Any = "auto",
        change: Callable[[np.ndarray], np.ndarray] = np.array):
    """Inputs and results of a call; `change` is applied to the inputs, after their images were
    converted to the layout."""
    function, arrays = CALLS[name]
    images = [len(a) == 2 for a in arrays]
    values = [(last if layout == "CHWN" else np.ascontiguousarray)(a[:samples]) if image else a
              for a, image in zip(arrays, images)]
    inputs = [change(a) for a in values]
    results = function(*inputs, layout=layout, backend=backend)
    return inputs, list(results) if isinstance(results, tuple) else [results]


def strided(a: np.ndarray) -> np.ndarray:
    """The same values, read-only and not contiguous."""
    wide = np.zeros((*a.shape[:-1], 2 * a.shape[-1]), a.dtype)
    wide[..., ::2] = a
    wide.flags.writeable = False
    return wide[..., ::2]


def test_every_function_is_in_the_table():
    assert {name.split()[0] for name in CALLS} == set(F.__all__) - {"toeplitz"}    # for NumPy only


@pytest.mark.parametrize("samples", [1, 2])
@pytest.mark.parametrize("layout", ["NCHW", "CHWN"])
@pytest.mark.parametrize("name", CALLS)
def test_results_are_new_contiguous_arrays(name, layout, samples):
    for backend in CPU:
        inputs, results = run(name, layout, samples, backend)
        for result in results:
            assert (type(result) is np.ndarray and result.flags.c_contiguous
                    and result.flags.writeable)
            assert result.dtype == np.float32 or "max_pool" in name
            assert not any(np.shares_memory(result, a) for a in inputs)
        for a, b in itertools.combinations(results, 2):
            assert not np.shares_memory(a, b)


@pytest.mark.parametrize("layout", ["NCHW", "CHWN"])
@pytest.mark.parametrize("name", CALLS)
def test_inputs_need_not_be_contiguous_nor_writable(name, layout):
    _, plain = run(name, layout, 2)
    _, results = run(name, layout, 2, change=strided)
    for a, b in zip(plain, results):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("name", CALLS)
def test_both_layouts_give_the_same_bits(name):
    for a, b in zip(run(name, "NCHW", 2)[1], run(name, "CHWN", 2)[1]):
        assert a.tobytes() == (first(b) if b.ndim > 1 and b.shape[-1] == 2 else b).tobytes()


@pytest.mark.parametrize("name", CALLS)
def test_batch_last_is_not_converted(name):
    class Refusing(xn.Backend):
        def gather_batch(self, samples, index, dtype):
            raise AssertionError("an array was converted")

        def asarray(self, a, dtype=None):
            result = super().asarray(a, dtype)
            assert result is a or a.ndim < 4 or a.shape == W4.shape, "an image was copied"
            return result

    run(name, "CHWN", 2, Refusing(), change=lambda a: a)


# --- which backend --------------------------------------------------------------------------------

def test_the_fastest_backend_of_the_cpu_is_made_once():
    chosen = call._shared("cpu")
    assert chosen is call._shared("cpu")
    assert chosen.name == ("numpy" if NUMBA_MISSING else "numba")


def test_a_backend_can_be_named():
    named, mine = (F.conv2d(x4, W4, backend="numpy"),
                   F.conv2d(x4, W4, backend=xn.get_backend("numpy")))
    np.testing.assert_array_equal(named, mine)
    with pytest.raises(ValueError, match="get_backend: expected"):
        F.conv2d(x4, W4, backend="fast")


# --- errors ---------------------------------------------------------------------------------------

@pytest.mark.parametrize("function,message", [
    (lambda: F.conv2d(x4.tolist(), W4),
     "conv2d: expected x to be a NumPy or CuPy array. Received: list."),
    (lambda: F.conv2d(x4, None),
     "conv2d: expected W to be a NumPy or CuPy array. Received: NoneType."),
    (lambda: F.conv2d(x4[0], W4),
     "conv2d: expected x of shape (N, C, H, W), none of them 0. Received: (3, 4, 4)."),
    (lambda: F.conv2d(x4[0], W4, layout="CHWN"),
     "conv2d: expected x of shape (C, H, W, N), none of them 0. Received: (3, 4, 4)."),
    (lambda: F.conv2d(x4[:0], W4), "Received: (0, 3, 4, 4)."),
    (lambda: F.conv2d(x4, W4[0]),
     "conv2d: expected W of shape (F, C/groups, KH, KW), none of them 0. Received: (3, 3, 3)."),
    (lambda: F.conv2d(x4, W4, layout="NHWC"),
     "conv2d: expected layout to be 'NCHW' or 'CHWN'. Received: layout='NHWC'."),
    (lambda: F.conv2d(x4, W4.astype(float)),
     "expected arrays of one dtype, float32 or float64. Received: x of float32, W of float64."),
    (lambda: F.conv2d(x4.astype(int), W4.astype(int)), "Received: x of int64, W of int64."),
    (lambda: F.conv2d(x4.astype("f2"), W4.astype("f2")),
     "conv2d: expected arrays of one dtype, float32 or float64. Received: x of float16"),
    (lambda: F.max_pool2d(x4.astype("f2"), 2),
     "max_pool2d: expected arrays of one dtype, float32 or float64. Received: x of float16."),
    (lambda: F.conv1d(x4, W4[0]),
     "conv1d: expected x of shape (N, C, T), none of them 0. Received: (2, 3, 4, 4)."),
    (lambda: F.conv1d(x3, W4),
     "conv1d: expected W of shape (F, C/groups, K), none of them 0. Received: (5, 3, 3, 3)."),
    (lambda: F.avg_pool1d(x3, (1, 2)),
     "avg_pool1d: expected kernel_size to be an int, 1 or larger. Received: kernel_size=(1, 2)."),
    (lambda: F.avg_pool1d_backward(x3, x4.shape, 1),
     "avg_pool1d_backward: expected x_shape to be three ints, 1 or larger. Received: "),
    (lambda: F.conv2d(x4[:, :2], W4),
     "conv2d: expected 3 channels, those of W times groups=1. Received: x with 2 channels"),
    (lambda: F.conv2d(x4, W4, groups=2),
     "conv2d: expected groups to be an int that divides the 5 filters of W. Received: groups=2."),
    (lambda: F.conv2d(x4, W4, groups=True), "Received: groups=True."),
    (lambda: F.conv2d(x4, W4, b1), "conv2d: expected bias of shape (5,). Received: (3,)."),
    (lambda: F.conv2d(x4[:, :, :2], W4),
     "conv2d: expected an input at least as large as the window, 3x3. Received: 2x4"),
    (lambda: F.conv2d(x4, W4, stride=0),
     "conv2d: expected stride to be an int or a pair of ints, 1 or larger."),
    (lambda: F.conv2d_backward(normal(2, 5, 2, 3), x4, W4),
     "conv2d_backward: expected dy of shape (2, 5, 2, 2). Received: (2, 5, 2, 3)."),
    (lambda: F.conv2d_backward(last(normal(3, 5, 2, 2)), last(x4), W4, layout="CHWN"),
     "expected dy of shape (5, 2, 2, 2). Received: (5, 2, 2, 3)."),
    (lambda: F.conv_transpose2d(x4, W4),
     "conv_transpose2d: expected as many channels as W has filters, 5. Received: x with 3."),
    (lambda: F.conv_transpose2d(x4, W4[:3], output_padding=1),
     "smaller than the stride or the dilation. Received: output_padding=1, stride=(1, 1), "
     "dilation=(1, 1)."),
    (lambda: F.conv_transpose2d(x4[:, :, :1, :1], W4[:3], padding=2),
     "expected an output of 1x1 at least. Received: 1x1 with padding (2, 2, 2, 2), "
     "which leaves -1x-1."),
    (lambda: F.conv_transpose2d(x4, W4[:3], b1[:2]),
     "conv_transpose2d: expected bias of shape (3,). Received: (2,)."),
    (lambda: F.conv_transpose2d_backward(x4, x4, W4[:3]),
     "expected dy of shape (2, 3, 6, 6). Received: (2, 3, 4, 4)."),
    (lambda: F.col2im(x4[..., 0], x4.shape, 3),
     "col2im: expected cols of shape (2, 27, 4). Received: (2, 3, 4)."),
    (lambda: F.col2im(x4, x4.shape, 3),
     "col2im: expected cols of shape (N, C*KH*KW, OH*OW), none of them 0. Received: (2, 3, 4, 4)."),
    (lambda: F.col2im(x4[..., 0], 7, 3),
     "col2im: expected x_shape to be four ints, 1 or larger. Received: x_shape=7."),
    (lambda: F.max_pool2d(x4, 2, padding=2),
     "max_pool2d: expected padding smaller than the 2 rows"),
    (lambda: F.max_pool2d(x4[:, :, :2], 2, padding=3, dilation=5),
     "expected every window to contain at least one element"),
    (lambda: F.max_pool2d_backward(x4, x4, x4.shape, 1),
     "max_pool2d_backward: expected the argmax that max_pool2d gives, of uint8. Received: argmax "
     "of float32."),
    (lambda: F.max_pool2d_backward(x4, x4[:1], x4.shape, 1),
     "expected argmax of shape (2, 3, 4, 4). Received: (1, 3, 4, 4)."),
    (lambda: F.max_pool2d_backward(x4, x4, x4.shape, 2),
     "expected dy of shape (2, 3, 2, 2). Received: (2, 3, 4, 4)."),
    (lambda: F.avg_pool2d_backward(x4, (2, 3, 4), 2),
     "expected x_shape to be four ints, 1 or larger. Received: x_shape=(2, 3, 4)."),
    (lambda: F.avg_pool2d_backward(x4, x4.shape, 2),
     "avg_pool2d_backward: expected dy of shape (2, 3, 2, 2)."),
    (lambda: F.batch_norm(x4, b1[:2], b1),
     "batch_norm: expected gamma of shape (3,). Received: (2,)."),
    (lambda: F.batch_norm(x4, b1[:, None], b1),
     "batch_norm: expected gamma of shape (C), none of them 0. Received: (3, 1)."),
    (lambda: F.batch_norm(x4[:1, :, :1, :1], b1, b1),
     "batch_norm: expected more than one element per channel"),
    (lambda: F.batch_norm_inference(x4, b1, b1, b1, b1[:1]),
     "batch_norm_inference: expected var of shape (3,). Received: (1,)."),
    (lambda: F.batch_norm_backward(x4[:1], x4, b1, b1, b1),
     "batch_norm_backward: expected dy of shape (2, 3, 4, 4). Received: (1, 3, 4, 4)."),
])
def test_errors_name_the_function_and_the_received_values(function, message):
    with pytest.raises((TypeError, ValueError), match=re.escape(message)):
        function()
