"""Pooling and its gradients."""

from __future__ import annotations

from collections.abc import Sequence

from xpnet.backends import Backend, Window
from xpnet.backends.window import Padding, Pair
from xpnet.functional.call import Array, Call, Shape


def max_pool2d(x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0, dilation: Pair = 1,
               ceil_mode: bool = False, layout: str = "NCHW", backend: str | Backend = "auto") -> tuple[Array, Array]:
    """Largest element of each window, and its place in the window, argmax = i KW + j (uint8 up to 255 taps, else int32).

    x (N, C, H, W) -> y and argmax (N, C, OH, OW). The stride is the kernel's size unless told. Of equal values the first wins,
    a NaN wins over everything, padding never wins. `ceil_mode` lets a last, partial window count too.
    """
    call = Call("max_pool2d", layout, backend, {"x": x}, {})
    window, _ = _pooling(call, call.sizes(x), kernel_size, stride, padding, dilation, ceil_mode)
    with call.backend.scope():
        y, argmax = call.backend.max_pool2d(call.inward(x), window)
        return call.outward(y), call.outward(argmax)


def max_pool2d_backward(dy: Array, argmax: Array, x_shape: Sequence[int], kernel_size: Pair, *, stride: Pair | None = None,
                        padding: Padding = 0, dilation: Pair = 1, ceil_mode: bool = False, layout: str = "NCHW",
                        backend: str | Backend = "auto") -> Array:
    """Gradient of max_pool2d: dx[n, c, iy, ix] = sum of the dy[n, c, oy, ox] of the windows in which this element won.

    dy and argmax (N, C, OH, OW), x_shape (N, C, H, W) -> dx (N, C, H, W).
    """
    call = Call("max_pool2d_backward", layout, backend, {"dy": dy}, {"argmax": (argmax, "")})
    shape = call.given(x_shape)
    window, y_shape = _pooling(call, shape, kernel_size, stride, padding, dilation, ceil_mode)
    call.expect("dy", dy, call.outer(y_shape))
    call.expect("argmax", argmax, call.outer(y_shape))
    if argmax.dtype != Backend.argmax_dtype(window):
        raise TypeError(f"{call.who}: expected the argmax that max_pool2d gives, of {Backend.argmax_dtype(window)}. "
                        f"Received: argmax of {argmax.dtype}.")
    with call.backend.scope():
        return call.outward(call.backend.max_pool2d_dx(call.inward(dy), call.inward(argmax), shape, window))


def avg_pool2d(x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0, count_include_pad: bool = True,
               layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Mean of each window: over its KH KW taps, zeros on padding; without `count_include_pad` over its elements inside x.

    x (N, C, H, W) -> (N, C, OH, OW). The stride is the kernel's size unless told.
    """
    call = Call("avg_pool2d", layout, backend, {"x": x}, {})
    window, _ = _pooling(call, call.sizes(x), kernel_size, stride, padding, 1, False)
    with call.backend.scope():
        return call.outward(call.backend.avg_pool2d(call.inward(x), window, count_padding=count_include_pad))


def avg_pool2d_backward(dy: Array, x_shape: Sequence[int], kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
                        count_include_pad: bool = True, layout: str = "NCHW", backend: str | Backend = "auto") -> Array:
    """Gradient of avg_pool2d: dx[n, c, iy, ix] = sum over the windows that contain it of dy[n, c, oy, ox] / number counted.

    dy (N, C, OH, OW), x_shape (N, C, H, W) -> dx (N, C, H, W).
    """
    call = Call("avg_pool2d_backward", layout, backend, {"dy": dy}, {})
    shape = call.given(x_shape)
    window, y_shape = _pooling(call, shape, kernel_size, stride, padding, 1, False)
    call.expect("dy", dy, call.outer(y_shape))
    with call.backend.scope():
        return call.outward(call.backend.avg_pool2d_dx(call.inward(dy), shape, window, count_padding=count_include_pad))


def _pooling(call: Call, x_sizes: Shape, kernel_size: Pair, stride: Pair | None, padding: Padding, dilation: Pair, ceil_mode: bool
            ) -> tuple[Window, Shape]:
    """The window of a pooling, and the sizes (C, OH, OW, N) of what it gives."""
    C, H, width, N = x_sizes
    window = Window.make(kernel_size, kernel_size if stride is None else stride, padding, dilation, empty=False,
                         who=call.who)
    window.output_size(H, width, who=call.who)
    window = window.ceil(H, width) if ceil_mode else window
    window.check_no_empty_window(H, width, who=call.who)
    return window, (C, *window.output_size(H, width), N)
