"""Convolution, its adjoint, windows as columns, and their gradients; a convolution as a matrix."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend, Window
from xpnet.backends.window import Padding, Pair, Transposed
from xpnet.checks import expect_flag, expect_shape, is_integer, real_array, wrong
from xpnet.functional.call import Array, Call, Shape

FILTERS = "F, C/groups, KH, KW"


def conv2d(x: Array, W: Array, bias: Array | None = None, *, stride: Pair = 1, padding: Padding = 0,
           dilation: Pair = 1, groups: int = 1, layout: str = "NCHW",
           backend: str | Backend = "auto") -> Array:
    """Cross-correlation: y[n, f, oy, ox] = bias[f] + sum over c, i, j of W[f, c, i, j] x[n, c, iy,
    ix].

    x (N, C, H, W), W (F, C/groups, KH, KW), bias (F,) -> y (N, F, OH, OW). iy = oy stride - top + i
    dilation, ix likewise; x is zero outside.
    """
    call = Call("conv2d", layout, backend, {"x": x}, {"W": (W, FILTERS)} | optional(bias, "F"))
    return convolution(call, x, W, bias, stride, padding, dilation, groups)


def convolution(call: Call, x: Array, W: Array, bias: Array | None, stride: Any, padding: Any,
                dilation: Any, groups: int) -> Array:
    """conv2d; of signals, conv1d."""
    groups = _groups(call, W, groups)
    window, _ = _convolution(call, call.sizes(x), W, stride, padding, dilation, groups)
    call.expect("bias", bias, W.shape[:1])
    with call.backend.scope():
        return call.outward(call.backend.conv2d(call.inward(x), call.filters(W), window,
                                                groups=groups, bias=call.ready(bias)))


def conv2d_backward(dy: Array, x: Array, W: Array, *, stride: Pair = 1, padding: Padding = 0,
                    dilation: Pair = 1, groups: int = 1, needs_dx: bool = True,
                    layout: str = "NCHW", backend: str | Backend = "auto"
                    ) -> tuple[Array | None, Array, Array]:
    """Gradient of conv2d: the sums of W[f, c, i, j] dy[f, oy, ox], of dy[f, oy, ox] x[c, iy, ix]
    and of dy[f, oy, ox].

    dx[c, iy, ix] sums over f and the taps (i, j) that read this element, dW[f, c, i, j] and db[f]
    over n, oy, ox. dy (N, F, OH, OW), x and W as in conv2d -> dx like x, dW like W, db (F,).

    Args:
        needs_dx: False returns None for dx.
    """
    call = Call("conv2d_backward", layout, backend, {"dy": dy, "x": x}, {"W": (W, FILTERS)})
    return convolution_backward(call, dy, x, W, stride, padding, dilation, groups, needs_dx)


def convolution_backward(call: Call, dy: Array, x: Array, W: Array, stride: Any, padding: Any,
                         dilation: Any, groups: int, needs_dx: bool
                         ) -> tuple[Array | None, Array, Array]:
    """conv2d_backward; of signals, conv1d_backward."""
    needs_dx = expect_flag(call.who, "needs_dx", needs_dx)
    groups, x_shape = _groups(call, W, groups), call.sizes(x)
    window, y_shape = _convolution(call, x_shape, W, stride, padding, dilation, groups)
    call.expect("dy", dy, call.outer(y_shape))
    with call.backend.scope():
        dy = call.inward(dy)
        dW = call.backend.conv2d_dW(call.inward(x), dy, window, groups=groups)
        dx = None
        if needs_dx:
            dx = call.outward(
                call.backend.conv2d_dx(dy, call.filters(W), x_shape, window, groups=groups))
        return dx, dW.reshape(W.shape), call.row_sums(dy)


def conv_transpose2d(x: Array, W: Array, bias: Array | None = None, *, stride: Pair = 1,
                     padding: Padding = 0, output_padding: Pair = 0, dilation: Pair = 1,
                     groups: int = 1, layout: str = "NCHW", backend: str | Backend = "auto"
                     ) -> Array:
    """Transposed convolution, the adjoint of conv2d: y[n, c, iy stride - top + i dilation, ix
    stride - left + j dilation] += W[f, c, i, j] x[n, f, iy, ix]; plus bias[c].

    x (N, F, H, W), W (F, C/groups, KH, KW), bias (C,) -> y (N, C, OH, OW), with OH = (H - 1) stride
    - top - bottom + dilation (KH - 1) + 1 + output_padding.

    Args:
        output_padding: smaller than the stride or than the dilation. Windows fit H times into
            several OH; it chooses one of them.

    Dumoulin and Visin 2016, relationship 14.
    """
    call = Call("conv_transpose2d", layout, backend, {"x": x},
                {"W": (W, FILTERS)} | optional(bias, "C"))
    return transposed_convolution(call, x, W, bias, stride, padding, output_padding, dilation,
                                  groups)


def transposed_convolution(call: Call, x: Array, W: Array, bias: Array | None, stride: Any,
                           padding: Any, output_padding: Any, dilation: Any, groups: int) -> Array:
    """conv_transpose2d; of signals, conv_transpose1d."""
    groups = _groups(call, W, groups)
    transposed, y_shape = _transposed(call, x, W, stride, padding, output_padding, dilation, groups)
    call.expect("bias", bias, y_shape[:1])
    with call.backend.scope():
        read = (y_shape[0], *transposed.read, y_shape[3])
        y = call.backend.conv2d_dx(call.inward(x), call.filters(W), read, transposed.window,
                                   groups=groups)
        y = transposed.grown(call.backend, y)
        if bias is not None:
            y += bias[:, None, None, None]
        return call.outward(y)


def conv_transpose2d_backward(dy: Array, x: Array, W: Array, *, stride: Pair = 1,
                              padding: Padding = 0, output_padding: Pair = 0, dilation: Pair = 1,
                              groups: int = 1, needs_dx: bool = True, layout: str = "NCHW",
                              backend: str | Backend = "auto") -> tuple[Array | None, Array, Array]:
    """Gradient of conv_transpose2d: dx = conv2d(dy, W), dW[f, c, i, j] = sum over n, iy, ix of x[f,
    iy, ix] dy[c, iy stride - top + i dilation, ...], db = sum of dy.

    dy (N, C, OH, OW), x and W as in conv_transpose2d -> dx like x, dW like W, db (C,).

    Args:
        needs_dx: False returns None for dx.
    """
    call = Call("conv_transpose2d_backward", layout, backend, {"dy": dy, "x": x},
                {"W": (W, FILTERS)})
    return transposed_convolution_backward(call, dy, x, W, stride, padding, output_padding,
                                           dilation, groups, needs_dx)


def transposed_convolution_backward(call: Call, dy: Array, x: Array, W: Array, stride: Any,
                                    padding: Any, output_padding: Any, dilation: Any, groups: int,
                                    needs_dx: bool) -> tuple[Array | None, Array, Array]:
    """conv_transpose2d_backward; of signals, conv_transpose1d_backward."""
    needs_dx = expect_flag(call.who, "needs_dx", needs_dx)
    groups = _groups(call, W, groups)
    transposed, y_shape = _transposed(call, x, W, stride, padding, output_padding, dilation, groups)
    call.expect("dy", dy, call.outer(y_shape))
    with call.backend.scope():
        dy = call.inward(dy)
        read = transposed.cut(call.backend, dy)
        dW = call.backend.conv2d_dW(read, call.inward(x), transposed.window, groups=groups)
        dx = None
        if needs_dx:
            dx = call.outward(
                call.backend.conv2d(read, call.filters(W), transposed.window, groups=groups))
        return dx, dW.reshape(W.shape), call.row_sums(dy)


def im2col(x: Array, kernel_size: Pair, *, stride: Pair = 1, padding: Padding = 0,
           dilation: Pair = 1, layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Every window as a column: cols[n, (c, i, j), (oy, ox)] = x[n, c, oy stride - top + i
    dilation, ...], zeros on padding.

    x (N, C, H, W) -> (N, C*KH*KW, OH*OW); with layout="CHWN" (C*KH*KW, OH*OW, N).
    """
    call = Call("im2col", layout, backend, {"x": x}, {})
    window = Window.make(kernel_size, stride, padding, dilation, who=call.who)
    C, H, width, N = call.sizes(x)
    OH, OW = window.output_size(H, width, who=call.who)
    with call.backend.scope():
        cols = call.backend.im2col(call.inward(x), window)
        cols = cols.copy() if window.pointwise else cols        # it would be a view of x
        return call.outward(cols.reshape(C * window.taps, OH * OW, N))


def col2im(cols: Array, x_shape: Sequence[int], kernel_size: Pair, *, stride: Pair = 1,
           padding: Padding = 0, dilation: Pair = 1, layout: str = "NCHW",
           backend: str | Backend = "auto") -> Array:
    """The adjoint of im2col, which is its gradient: each element of x is the sum of the entries of
    the columns that were read from it.

    cols (N, C*KH*KW, OH*OW) and x_shape (N, C, H, W) -> (N, C, H, W).
    """
    call = Call("col2im", layout, backend, {"cols": cols}, {}, axes="C*KH*KW, OH*OW")
    window = Window.make(kernel_size, stride, padding, dilation, who=call.who)
    shape = C, H, width, N = call.given(x_shape)
    OH, OW = window.output_size(H, width, who=call.who)
    call.expect("cols", cols, call.outer((C * window.taps, OH * OW, N)))
    with call.backend.scope():
        cols = call.inward(cols).reshape(C * window.taps, OH * OW * N)
        return call.outward(call.backend.col2im(cols, shape, window))


def _convolution(call: Call, x_sizes: Shape, W: Array, stride: Any, padding: Any, dilation: Any,
                 groups: int) -> tuple[Window, Shape]:
    """The window of a convolution, and the sizes (F, OH, OW, N) of its output."""
    window = call.window(call.kernel_size(W), stride, padding, dilation)
    if x_sizes[0] != W.shape[1] * groups:
        raise ValueError(f"{call.who}: expected {W.shape[1] * groups} channels, those of W times "
                         f"groups={groups}. "
                         f"Received: x with {x_sizes[0]} channels, W of shape {tuple(W.shape)}.")
    return window, (W.shape[0], *window.output_size(*x_sizes[1:3], who=call.who), x_sizes[3])


def _transposed(call: Call, x: Array, W: Array, stride: Any, padding: Any, output_padding: Any,
                dilation: Any, groups: int) -> tuple[Transposed, Shape]:
    """The transposed window, and the sizes (C, OH, OW, N) of y."""
    window = call.window(call.kernel_size(W), stride, padding, dilation)
    F, H, width, N = call.sizes(x)
    if F != W.shape[0]:
        raise ValueError(f"{call.who}: expected as many channels as W has filters, {W.shape[0]}. "
                         f"Received: x with {F}.")
    transposed = window.transposed(H, width, call.extra(output_padding), who=call.who)
    return transposed, (W.shape[1] * groups, *transposed.size, N)


def optional(bias: Array | None, axis: str) -> dict[str, tuple[Array, str]]:
    return {} if bias is None else {"bias": (bias, axis)}


def _groups(call: Call, W: Array, groups: int) -> int:
    if not is_integer(groups, 1) or W.shape[0] % groups:
        raise wrong(call.who, f"groups to be an int that divides the {W.shape[0]} filters of W",
                    "groups", groups)
    return int(groups)


def toeplitz(W: np.ndarray, shape: Sequence[int], *, stride: Pair = 1, padding: Padding = 0,
             dilation: Pair = 1, flip: bool = False) -> np.ndarray:
    """Matrix of a convolution: T[(f, oy, ox), (c, iy, ix)] = W[f, c, i, j] at iy = oy stride - top
    + i dilation, ix likewise.

    Everything else is 0, and T @ x.ravel() = conv2d(x, W).ravel() for one image x of this shape. W
    (KH, KW) and shape (H, W), or W (F, C, KH, KW) and shape (C, H, W) -> (F*OH*OW, C*H*W). For
    stride 1 the matrix of a feature map has a block for each pair of an output row and an input
    row; blocks are equal along diagonals, and so are numbers within a block (doubly block
    Toeplitz). The transpose of T is the matrix of conv_transpose2d. T stores every zero: a tool for
    small images.

    Args:
        flip: flip the kernel first, which gives the matrix of the convolution of mathematics.

    Gray 2006, section 1.
    """
    kernel, flip = real_array(W, "toeplitz: W"), expect_flag("toeplitz", "flip", flip)
    size = expect_shape("toeplitz", "shape (H, W) or (C, H, W), ints of 1 or larger", shape)
    if kernel.ndim == 2 and len(size) == 2:
        kernel, size = kernel[None, None], (1, *size)
    if kernel.ndim != 4 or len(size) != 3 or kernel.shape[1] != size[0]:
        raise ValueError("toeplitz: expected W (KH, KW) and shape (H, W), or W (F, C, KH, KW) and "
                         f"shape (C, H, W). Received: W of shape {np.shape(W)}, shape {size}.")
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
