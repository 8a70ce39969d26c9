"""Pooling and its gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from xpnet.backends import Backend, Window
from xpnet.backends.window import Padding, Pair
from xpnet.checks import expect_flag
from xpnet.functional.call import Array, Call, Shape
from xpnet.layers.pooling import partial_factor


def max_pool2d(x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               dilation: Pair = 1, ceil_mode: bool = False, layout: str = "NCHW",
               backend: str | Backend = "auto") -> tuple[Array, Array]:
    """Largest element of each window, and its place in the window, argmax = i KW + j (uint8 up to
    255 taps, else int32).

    x (N, C, H, W) -> y and argmax (N, C, OH, OW). The stride is the kernel's size unless told. Of
    equal values the first wins, a NaN wins over everything, padding never wins. `ceil_mode` lets a
    last, partial window count too.
    """
    call = Call("max_pool2d", layout, backend, {"x": x}, {})
    window, _ = pooling_window(call, call.sizes(x), kernel_size, stride, padding, dilation,
                               ceil_mode)
    with call.backend.scope():
        y, argmax = call.backend.max_pool2d(call.inward(x), window)
        return call.outward(y), call.outward(argmax)


def max_pool2d_backward(dy: Array, argmax: Array, x_shape: Sequence[int], kernel_size: Pair, *,
                        stride: Pair | None = None, padding: Padding = 0, dilation: Pair = 1,
                        ceil_mode: bool = False, layout: str = "NCHW",
                        backend: str | Backend = "auto") -> Array:
    """Gradient of max_pool2d: dx[n, c, iy, ix] = sum of the dy[n, c, oy, ox] of the windows in
    which this element won.

    dy and argmax (N, C, OH, OW), x_shape (N, C, H, W) -> dx (N, C, H, W).
    """
    call = Call("max_pool2d_backward", layout, backend, {"dy": dy}, {"argmax": (argmax, "")})
    shape = call.given(x_shape)
    window, y_shape = pooling_window(call, shape, kernel_size, stride, padding, dilation, ceil_mode)
    call.expect("dy", dy, call.outer(y_shape))
    call.expect("argmax", argmax, call.outer(y_shape))
    call.expect_argmax(argmax, window)
    with call.backend.scope():
        return (call.outward(call.backend.max_pool2d_dx(call.inward(dy), call.inward(argmax), shape,
                                                        window)))


def avg_pool2d(x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, layout: str = "NCHW",
               backend: str | Backend = "auto") -> Array:
    """Mean of each window: over its KH KW taps, zeros on padding; without `count_include_pad` over
    its elements inside x.

    x (N, C, H, W) -> (N, C, OH, OW). The stride is the size of the kernel by default. `ceil_mode`
    lets a last, partial window count too; what it has beyond the padding is never counted.
    """
    count_include_pad = expect_flag("avg_pool2d", "count_include_pad", count_include_pad)
    call = Call("avg_pool2d", layout, backend, {"x": x}, {})
    window, _ = pooling_window(call, call.sizes(x), kernel_size, stride, padding, 1, ceil_mode)
    factor = _factor(call, call.sizes(x), x.dtype, window, stride, padding, count_include_pad)
    with call.backend.scope():
        y = call.backend.avg_pool2d(call.inward(x), window, count_padding=count_include_pad)
        return call.outward(y if factor is None else y * factor)


def avg_pool2d_backward(dy: Array, x_shape: Sequence[int], kernel_size: Pair, *,
                        stride: Pair | None = None, padding: Padding = 0, ceil_mode: bool = False,
                        count_include_pad: bool = True, layout: str = "NCHW",
                        backend: str | Backend = "auto") -> Array:
    """Gradient of avg_pool2d: dx[n, c, iy, ix] = sum over the windows that contain it of dy[n, c,
    oy, ox] / number counted.

    dy (N, C, OH, OW), x_shape (N, C, H, W) -> dx (N, C, H, W).
    """
    count_include_pad = expect_flag("avg_pool2d_backward", "count_include_pad", count_include_pad)
    call = Call("avg_pool2d_backward", layout, backend, {"dy": dy}, {})
    shape = call.given(x_shape)
    window, y_shape = pooling_window(call, shape, kernel_size, stride, padding, 1, ceil_mode)
    call.expect("dy", dy, call.outer(y_shape))
    factor = _factor(call, shape, dy.dtype, window, stride, padding, count_include_pad)
    with call.backend.scope():
        dy = call.inward(dy)
        dy = dy if factor is None else dy * factor
        return (call.outward(call.backend.avg_pool2d_dx(dy, shape, window,
                                                        count_padding=count_include_pad)))


def _factor(call: Call, x_sizes: Shape, dtype: Any, window: Window, stride: Pair | None,
            padding: Padding, count_include_pad: bool) -> Array | None:
    """What the means of `window`, which ceil_mode may have grown, are multiplied with: (OH, OW, 1),
    or None."""
    kernel = window.kernel
    given = Window.make(kernel, kernel if stride is None else stride, padding, who=call.who)
    factor = partial_factor(given, window, *x_sizes[1:3]) if count_include_pad else None
    with call.backend.scope():
        return None if factor is None else call.backend.asarray(factor, dtype)[:, :, None]


def pooling_window(call: Call, x_sizes: Shape, kernel_size: Pair, stride: Pair | None,
                   padding: Padding, dilation: Pair, ceil_mode: bool) -> tuple[Window, Shape]:
    """The window of a pooling, and the sizes (C, OH, OW, N) of what it gives."""
    C, H, width, N = x_sizes
    ceil_mode = expect_flag(call.who, "ceil_mode", ceil_mode)
    window = Window.make(kernel_size, kernel_size if stride is None else stride, padding, dilation,
                         empty=False, who=call.who)
    window.output_size(H, width, who=call.who)
    window = window.ceil(H, width) if ceil_mode else window
    window.check_no_empty_window(H, width, who=call.who)
    return window, (C, *window.output_size(H, width), N)
