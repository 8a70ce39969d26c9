"""A convolution as a matrix, to look at."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from xpnet.backends import Window
from xpnet.backends.window import Padding, Pair
from xpnet.checks import expect_flag, expect_shape, real_array


def toeplitz(W: np.ndarray, shape: Sequence[int], *, stride: Pair = 1, padding: Padding = 0,
             dilation: Pair = 1, flip: bool = False) -> np.ndarray:
    """Matrix of a convolution: T[(f, oy, ox), (c, iy, ix)] = W[f, c, i, j] at iy = oy stride - top
    + i dilation, ix likewise.

    All else is 0, and T @ x.ravel() = conv2d(x, W).ravel() for one image x of this shape. W (KH,
    KW) and shape (H, W), or W (F, C, KH, KW) and shape (C, H, W) -> (F*OH*OW, C*H*W). With
    flip=True the kernel is turned round first: the matrix of the convolution that mathematics calls
    so. For stride 1 a map's matrix has a block for each pair of an output row and an input row;
    blocks are equal along diagonals, and so are numbers within a block (doubly block Toeplitz). T's
    transpose is the matrix of conv_transpose2d. T holds every zero: a tool for small images. Gray
    2006, section 1.
    """
    kernel, flip = real_array(W, "toeplitz: W"), expect_flag("toeplitz", "flip", flip)
    size = expect_shape("toeplitz", "shape (H, W) or (C, H, W), ints of 1 or larger", shape)
    if kernel.ndim == 2 and len(size) == 2:
        kernel, size = kernel[None, None], (1, *size)
    if kernel.ndim != 4 or len(size) != 3 or kernel.shape[1] != size[0]:
        raise ValueError("toeplitz: expected W (KH, KW) and shape (H, W), or W (F, C, KH, KW) and "
                         "shape (C, H, W). "
                         f"Received: W of shape {np.shape(W)}, shape {size}.")
    kernel = kernel[:, :, ::-1, ::-1] if flip else kernel
    (F, C, KH, KW), (_, H, width) = kernel.shape, size
    window = Window.make((KH, KW), stride, padding, dilation, who="toeplitz")
    OH, OW = window.output_size(H, width, who="toeplitz")
    inside_rows, inside_columns = window.inside(H, width)
    T = np.zeros((F, OH, OW, C, H, width), kernel.dtype)
    for i, j in np.ndindex(KH, KW):
        oy, ox = np.flatnonzero(inside_rows[:, i])[:, None], np.flatnonzero(inside_columns[:, j])
        iy = oy * window.stride[0] - window.padding[0] + i * window.dilation[0]
        ix = ox * window.stride[1] - window.padding[2] + j * window.dilation[1]
        # all windows in which tap (i, j) falls on the image
        T[:, oy, ox, :, iy, ix] = kernel[:, :, i, j]
    return T.reshape(F * OH * OW, C * H * width)
