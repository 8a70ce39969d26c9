"""toeplitz: the matrix of a convolution, element by element, and its properties."""

import numpy as np
import pytest
from oracles import assert_close, conv2d

from xpnet import TRAIN, TrueConv2d, Window
from xpnet import functional as F

OPTIONS = [{}, {"padding": "full"}, {"stride": (2, 1), "padding": (2, 1, 0, 1)},
           {"dilation": (1, 2), "padding": 1}]


def normal(*shape, dtype="float64"):
    return np.random.default_rng(sum(shape)).standard_normal(shape).astype(dtype)


def of_window(options):
    window = Window.make((3, 2), **options)
    return {"stride": window.stride, "padding": window.padding, "dilation": window.dilation}


@pytest.mark.parametrize("options", OPTIONS, ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_its_product_with_an_image_is_the_convolution(options, dtype):
    x, W = normal(2, 5, 6, dtype=dtype), normal(3, 2, 3, 2, dtype=dtype)
    T = F.toeplitz(W, x.shape, **options)
    y = conv2d(x[..., None], W, np.zeros(3), **of_window(options))
    assert T.dtype == dtype and T.shape == (y.size, x.size)
    assert_close(T @ x.ravel(), y.ravel())
    assert_close(T @ x.ravel(), F.conv2d(x[None], W, backend="numpy", **options).ravel())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_its_columns_are_the_outputs_for_single_pixels(options):
    """The output for each unit vector, computed in loops."""
    W, T = normal(3, 2), F.toeplitz(normal(3, 2), (4, 5), **options)
    for column, pixel in enumerate(np.eye(20)):
        y = conv2d(pixel.reshape(1, 4, 5, 1), W[None, None], np.zeros(1), **of_window(options))
        np.testing.assert_array_equal(T[:, column], y.ravel())


@pytest.mark.parametrize("options", OPTIONS, ids=str)
def test_flipped_it_is_the_true_convolution(options, plain_backend):
    layer = TrueConv2d(3, (3, 2), bias=False, **options).initialize(
        (2, 5, 6), backend=plain_backend, dtype="float64")
    x = normal(2, 5, 6)
    y = plain_backend.to_numpy(layer.forward(plain_backend.asarray(x[..., None]), mode=TRAIN))
    T = F.toeplitz(plain_backend.to_numpy(layer.W.data), (2, 5, 6), flip=True, **options)
    assert_close(T @ x.ravel(), y.ravel())
    dy = normal(*y.shape)
    assert_close(plain_backend.to_numpy(layer.backward(plain_backend.asarray(dy))).ravel(),
                 T.T @ dy.ravel())


def test_flipped_and_with_every_overlap_it_is_a_product_of_polynomials():
    """In one dimension, these are the coefficients of (1 + 2 t + 3 t^2)(4 + 5 t)."""
    T = F.toeplitz(np.array([[4.0, 5.0]]), (1, 3), padding="full", flip=True)
    np.testing.assert_array_equal(T @ [1, 2, 3], [4, 13, 22, 15])
    np.testing.assert_array_equal(T @ [1, 2, 3], np.convolve([1, 2, 3], [4, 5]))


def test_the_transpose_is_the_transposed_convolution():
    y, W = normal(1, 3, 3, 3), normal(3, 2, 3, 2)
    options = {"stride": (2, 1), "padding": (1, 1, 0, 0)}
    x = F.conv_transpose2d(y, W, **options, output_padding=(1, 0), backend="numpy")
    T = F.toeplitz(W, x.shape[1:], **options)
    assert_close(x.ravel(), T.T @ y.ravel())


def test_it_is_doubly_block_toeplitz():
    """At stride 1 the blocks are equal along diagonals of blocks, and numbers along diagonals of a
    block."""
    blocks = F.toeplitz(normal(3, 2), (5, 4), padding=(1, 1, 0, 1)).reshape(5, 4, 5, 4)
    for row, column in np.ndindex(4, 4):
        np.testing.assert_array_equal(blocks[row, :, column, :], blocks[row + 1, :, column + 1, :])
    np.testing.assert_array_equal(blocks[:, :-1, :, :-1], blocks[:, 1:, :, 1:])


@pytest.mark.parametrize("W, shape, text", [
    ((3, 3), (1, 5, 5), r"Received: W of shape \(3, 3\), shape \(1, 5, 5\)"),
    ((2, 3, 3, 3), (2, 5, 5), r"Received: W of shape \(2, 3, 3, 3\), shape \(2, 5, 5\)"),
    ((9,), (5, 5),
     r"expected W \(KH, KW\) and shape \(H, W\), or W \(F, C, KH, KW\) and shape \(C, H, W\)"),
    ((3, 3), (2, 2),
     r"toeplitz: expected an input at least as large as the window, 3x3\. Received: 2x2"),
])
def test_errors(W, shape, text):
    with pytest.raises(ValueError, match=text):
        F.toeplitz(np.ones(W), shape)
