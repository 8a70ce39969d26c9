"""Convolution and pooling of signals (N, C, T), and their gradients: those of feature maps, on maps
of one row."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.backends import Backend, Window
from xpnet.backends.window import Ends, Pair, along
from xpnet.functional.call import Array, Call, Shape
from xpnet.functional.convolution import (
    convolution,
    convolution_backward,
    optional,
    transposed_convolution,
    transposed_convolution_backward,
)
from xpnet.functional.pooling import avg_pool, avg_pool_backward, max_pool, max_pool_backward
from xpnet.layers.convolution import of_maps
from xpnet.layers.signals import with_row

FILTERS = "F, C/groups, K"


class SignalCall(Call):
    """A call on signals, which are maps of one row in here: sizes are (C, 1, T, N)."""

    def __init__(self, who: str, layout: str, backend: str | Backend, images: dict[str, Array],
                 others: dict[str, tuple[Array, str]]) -> None:
        super().__init__(who, layout, backend, images, others, axes="C, T")

    def inward(self, image: Array) -> Array:
        return with_row(super().inward(image))

    def outward(self, y: Array) -> Array:
        return super().outward(y[:, 0])

    def filters(self, W: Array) -> Array:
        return of_maps(self.backend.asarray(W))

    def kernel_size(self, W: Array) -> int:
        return W.shape[2]

    def window(self, kernel_size: Any, stride: Any, padding: Any, dilation: Any, **options: bool
               ) -> Window:
        return Window.in_row(kernel_size, stride, padding, dilation, who=self.who, **options)

    def extra(self, output_padding: Any) -> Pair:
        return along(output_padding, "output_padding", 0, self.who)

    def sizes(self, image: Array) -> Shape:
        C, T, N = super().sizes(image)
        return C, 1, T, N

    def outer(self, sizes: Shape) -> Shape:
        C, _, T, N = sizes
        return super().outer((C, T, N))

    def given(self, x_shape: Sequence[int]) -> Shape:
        C, T, N = self.inside(self.expect_shape(x_shape, 3, "three"))
        return C, 1, T, N


def conv1d(x: Array, W: Array, bias: Array | None = None, *, stride: int = 1, padding: Ends = 0,
           dilation: int = 1, groups: int = 1, layout: str = "NCHW", backend: str | Backend = "auto"
           ) -> Array:
    """Cross-correlation of signals: y[n, f, o] = bias[f] + sum over c, k of W[f, c, k] x[n, c, t],
    t = o stride - before + k dilation.

    x (N, C, T), W (F, C/groups, K), bias (F,) -> y (N, F, OT). x is zero outside. layout="CHWN"
    means that the batch comes last, (C, T, N).

    Args:
        padding: an int, a pair (before, after), "valid", "half" or "full".
    """
    call = SignalCall("conv1d", layout, backend, {"x": x},
                      {"W": (W, FILTERS)} | optional(bias, "F"))
    return convolution(call, x, W, bias, stride, padding, dilation, groups)


def conv1d_backward(dy: Array, x: Array, W: Array, *, stride: int = 1, padding: Ends = 0,
                    dilation: int = 1, groups: int = 1, needs_dx: bool = True,
                    layout: str = "NCHW", backend: str | Backend = "auto"
                    ) -> tuple[Array | None, Array, Array]:
    """Gradient of conv1d: the sums of W[f, c, k] dy[f, o], of dy[f, o] x[c, t] and of dy[f, o].

    dy (N, F, OT), x and W as in conv1d -> dx like x, dW like W, db (F,).

    Args:
        needs_dx: False returns None for dx.
    """
    call = SignalCall("conv1d_backward", layout, backend, {"dy": dy, "x": x}, {"W": (W, FILTERS)})
    return convolution_backward(call, dy, x, W, stride, padding, dilation, groups, needs_dx)


def conv_transpose1d(x: Array, W: Array, bias: Array | None = None, *, stride: int = 1,
                     padding: Ends = 0, output_padding: int = 0, dilation: int = 1, groups: int = 1,
                     layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Transposed convolution of signals, the adjoint of conv1d: y[n, c, t stride - before + k
    dilation] += W[f, c, k] x[n, f, t]; plus bias[c].

    x (N, F, T), W (F, C/groups, K), bias (C,) -> y (N, C, OT), with OT = (T - 1) stride - before -
    after + dilation (K - 1) + 1 + output_padding.

    Args:
        output_padding: smaller than the stride or than the dilation.
    """
    call = SignalCall("conv_transpose1d", layout, backend, {"x": x},
                      {"W": (W, FILTERS)} | optional(bias, "C"))
    return transposed_convolution(call, x, W, bias, stride, padding, output_padding, dilation,
                                  groups)


def conv_transpose1d_backward(dy: Array, x: Array, W: Array, *, stride: int = 1, padding: Ends = 0,
                              output_padding: int = 0, dilation: int = 1, groups: int = 1,
                              needs_dx: bool = True, layout: str = "NCHW",
                              backend: str | Backend = "auto") -> tuple[Array | None, Array, Array]:
    """Gradient of conv_transpose1d: dx = conv1d(dy, W), dW[f, c, k] = sum over n, t of x[f, t]
    dy[c, t stride - before + k dilation], db = sum of dy.

    dy (N, C, OT), x and W as in conv_transpose1d -> dx like x, dW like W, db (C,).

    Args:
        needs_dx: False returns None for dx.
    """
    call = SignalCall("conv_transpose1d_backward", layout, backend, {"dy": dy, "x": x},
                      {"W": (W, FILTERS)})
    return transposed_convolution_backward(call, dy, x, W, stride, padding, output_padding,
                                           dilation, groups, needs_dx)


def max_pool1d(x: Array, kernel_size: int, *, stride: int | None = None, padding: Ends = 0,
               dilation: int = 1, ceil_mode: bool = False, layout: str = "NCHW",
               backend: str | Backend = "auto") -> tuple[Array, Array]:
    """Largest element of each window of signals, and its position in the window.

    x (N, C, T) -> y and argmax (N, C, OT), argmax of uint8 up to 255 taps, else int32. Of equal
    values the first wins; a NaN wins over everything; padding never wins.

    Args:
        stride: kernel_size by default.
        ceil_mode: also count a last, partial window.
    """
    call = SignalCall("max_pool1d", layout, backend, {"x": x}, {})
    return max_pool(call, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool1d_backward(dy: Array, argmax: Array, x_shape: Sequence[int], kernel_size: int, *,
                        stride: int | None = None, padding: Ends = 0, dilation: int = 1,
                        ceil_mode: bool = False, layout: str = "NCHW",
                        backend: str | Backend = "auto") -> Array:
    """Gradient of max_pool1d: dx[n, c, t] = sum of dy[n, c, o] over the windows in which this
    element won.

    dy and argmax (N, C, OT), x_shape (N, C, T) -> dx (N, C, T).
    """
    call = SignalCall("max_pool1d_backward", layout, backend, {"dy": dy}, {"argmax": (argmax, "")})
    return max_pool_backward(call, dy, argmax, x_shape, kernel_size, stride, padding, dilation,
                             ceil_mode)


def avg_pool1d(x: Array, kernel_size: int, *, stride: int | None = None, padding: Ends = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, layout: str = "NCHW",
               backend: str | Backend = "auto") -> Array:
    """Mean of each window of signals: over its K taps, zeros on padding, or over its elements
    inside x.

    x (N, C, T) -> (N, C, OT).

    Args:
        stride: kernel_size by default.
        ceil_mode: also count a last, partial window; what it has beyond the padding never counts.
        count_include_pad: False divides by the number of elements inside x.
    """
    call = SignalCall("avg_pool1d", layout, backend, {"x": x}, {})
    return avg_pool(call, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool1d_backward(dy: Array, x_shape: Sequence[int], kernel_size: int, *,
                        stride: int | None = None, padding: Ends = 0, ceil_mode: bool = False,
                        count_include_pad: bool = True, layout: str = "NCHW",
                        backend: str | Backend = "auto") -> Array:
    """Gradient of avg_pool1d: dx[n, c, t] = sum over the windows that contain it of dy[n, c, o] /
    number counted.

    dy (N, C, OT), x_shape (N, C, T) -> dx (N, C, T).
    """
    call = SignalCall("avg_pool1d_backward", layout, backend, {"dy": dy}, {})
    return avg_pool_backward(call, dy, x_shape, kernel_size, stride, padding, ceil_mode,
                             count_include_pad)
