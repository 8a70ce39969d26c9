"""Convolution as a matrix product, and the borders of windows, in plain array code."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from xpnet.backends.window import Window

if TYPE_CHECKING:
    from xpnet.backends.base import Array, Backend


def im2col(self: Backend, x: Array, window: Window) -> Array:
    """Every window as a column: x (C, H, W, N) -> cols (C*KH*KW, OH*OW*N).

    Taps on padding give 0. For windows of one element the result may be a view of x.
    """
    C, H, W, N = x.shape
    if window.pointwise:
        return x.reshape(C, H * W * N)
    OH, OW = window.output_size(H, W)
    KH, KW = window.kernel
    padded = self._pad(x, window)
    cols = self.empty((C, KH, KW, OH, OW, N), x.dtype)
    for i in range(KH):
        for j in range(KW):
            rows, columns = window.tap(i, j, (OH, OW))
            cols[:, i, j] = padded[:, rows, columns]
    return cols.reshape(C * KH * KW, OH * OW * N)


def col2im(self: Backend, cols: Array, x_shape: tuple[int, ...], window: Window) -> Array:
    """The adjoint of im2col: cols (C*KH*KW, OH*OW*N) -> (C, H, W, N).

    Each element is the sum, in tap order, of the entries that im2col would read from it.
    """
    C, H, W, N = x_shape
    if window.pointwise:
        return cols.reshape(x_shape).copy()
    OH, OW = window.output_size(H, W)
    KH, KW = window.kernel
    cols = cols.reshape(C, KH, KW, OH, OW, N)
    padded = self._padded_zeros(x_shape, window, cols.dtype)
    for i in range(KH):
        for j in range(KW):
            rows, columns = window.tap(i, j, (OH, OW))
            padded[:, rows, columns] += cols[:, i, j]
    return self._crop(padded, x_shape, window)


def conv2d(self: Backend, x: Array, W: Array, window: Window, *, groups: int = 1,
           bias: Array | None = None, activation: str | None = None) -> Array:
    """Cross-correlation.

    y[f, oy, ox] = g(bias[f] + sum over c, i, j of W[f, c, i, j] x[c, iy, ix])

    x (C, H, W, N), W (F, C/groups, KH, KW), bias (F,) -> y (F, OH, OW, N); iy and ix as in
    Window, g the activation.
    """
    F, K = W.shape[0], W.shape[1] * window.taps
    OH, OW = window.output_size(*x.shape[1:3])
    cols = self.im2col(x, window)  # (C*KH*KW, P)
    if groups == 1:
        y = self.gemm(W.reshape(F, K), cols, bias=bias, activation=activation)  # (F, P)
    else:
        y = self.xp.matmul(W.reshape(groups, F // groups, K),
                           cols.reshape(groups, K, -1)).reshape(F, -1)
        if bias is not None:
            y += bias[:, None]
        y = self.activate(y, activation)
    return y.reshape(F, OH, OW, x.shape[3])


def conv2d_dx(self: Backend, dy: Array, W: Array, x_shape: tuple[int, ...], window: Window, *,
              groups: int = 1) -> Array:
    """The input gradient of conv2d: dcols = W^T dy, dx = col2im(dcols).

    dy (F, OH, OW, N), W (F, C/groups, KH, KW) -> dx (C, H, W, N).
    """
    F, K = W.shape[0], W.shape[1] * window.taps
    dy = dy.reshape(groups, F // groups, -1)  # (G, F/G, P)
    W = W.reshape(groups, F // groups, K)
    dcols = self.xp.matmul(W.transpose(0, 2, 1), dy)  # (G, K, P)
    return self.col2im(dcols.reshape(groups * K, -1), x_shape, window)


def conv2d_dW(self: Backend, x: Array, dy: Array, window: Window, *, groups: int = 1,
              out: Array | None = None, accumulate: bool = False) -> Array:
    """The filter gradient of conv2d: dW = dy im2col(x)^T.

    x (C, H, W, N), dy (F, OH, OW, N) -> dW (F, C/groups, KH, KW); `out` and `accumulate` as in
    gemm.
    """
    F, K = dy.shape[0], x.shape[0] // groups * window.taps
    cols = self.im2col(x, window).reshape(groups, K, -1)  # (G, K, P)
    # (G, F/G, K)
    dW = self.xp.matmul(dy.reshape(groups, F // groups, -1), cols.transpose(0, 2, 1))
    return self.store(dW.reshape(F, x.shape[0] // groups, *window.kernel), out, accumulate)


# --- borders --------------------------------------------------------------------------------------

def padded_zeros(self: Backend, x_shape: tuple[int, ...], window: Window, dtype: Any) -> Array:
    C, H, W, N = x_shape
    top, bottom, left, right = window.padding
    return self.zeros((C, H + top + bottom, W + left + right, N), dtype)


def pad(self: Backend, x: Array, window: Window, value: float = 0.0) -> Array:
    """x (C, H, W, N) with a border of `value`; x itself if the window has no padding."""
    if not window.padded:
        return x
    padded = self._padded_zeros(x.shape, window, x.dtype)
    if value != 0:
        padded.fill(value)
    top, _, left, _ = window.padding
    padded[:, top:top + x.shape[1], left:left + x.shape[2]] = x
    return padded


def crop(self: Backend, padded: Array, x_shape: tuple[int, ...], window: Window) -> Array:
    top, _, left, _ = window.padding
    return self.xp.ascontiguousarray(padded[:, top:top + x_shape[1], left:left + x_shape[2]])
