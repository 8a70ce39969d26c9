"""Pooling, unpooling and their gradients."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from xpnet.backends import Backend, Window
from xpnet.backends.window import Padding, Pair, pair
from xpnet.checks import expect_choice, expect_flag
from xpnet.functional.call import LAYOUTS, Array, Call, Shape
from xpnet.layers.pooling import partial_factor, spans


def max_pool2d(x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               dilation: Pair = 1, ceil_mode: bool = False, layout: str = "NCHW",
               backend: str | Backend = "auto") -> tuple[Array, Array]:
    """Largest element of each window, and its position in the window, argmax = i KW + j.

    x (N, C, H, W) -> y and argmax (N, C, OH, OW), argmax of uint8 up to 255 taps, else int32. Of
    equal values the first wins; a NaN wins over everything; padding never wins.

    Args:
        stride: kernel_size by default.
        ceil_mode: also count a last, partial window.
    """
    call = Call("max_pool2d", layout, backend, {"x": x}, {})
    return max_pool(call, x, kernel_size, stride, padding, dilation, ceil_mode)


def max_pool(call: Call, x: Array, kernel_size: Any, stride: Any, padding: Any, dilation: Any,
             ceil_mode: bool) -> tuple[Array, Array]:
    """max_pool2d; of signals, max_pool1d."""
    window, _ = pooling_window(call, call.sizes(x), kernel_size, stride, padding, dilation,
                               ceil_mode)
    with call.backend.scope():
        y, argmax = call.backend.max_pool2d(call.inward(x), window)
        return call.outward(y), call.outward(argmax)


def max_pool2d_backward(dy: Array, argmax: Array, x_shape: Sequence[int], kernel_size: Pair, *,
                        stride: Pair | None = None, padding: Padding = 0, dilation: Pair = 1,
                        ceil_mode: bool = False, layout: str = "NCHW",
                        backend: str | Backend = "auto") -> Array:
    """Gradient of max_pool2d: dx[n, c, iy, ix] = sum of dy[n, c, oy, ox] over the windows in which
    this element won.

    dy and argmax (N, C, OH, OW), x_shape (N, C, H, W) -> dx (N, C, H, W).
    """
    call = Call("max_pool2d_backward", layout, backend, {"dy": dy}, {"argmax": (argmax, "")})
    return max_pool_backward(call, dy, argmax, x_shape, kernel_size, stride, padding, dilation,
                             ceil_mode)


def max_pool_backward(call: Call, dy: Array, argmax: Array, x_shape: Sequence[int],
                      kernel_size: Any, stride: Any, padding: Any, dilation: Any, ceil_mode: bool
                      ) -> Array:
    """max_pool2d_backward; of signals, max_pool1d_backward."""
    shape = call.given(x_shape)
    window, y_shape = pooling_window(call, shape, kernel_size, stride, padding, dilation, ceil_mode)
    call.expect("dy", dy, call.outer(y_shape))
    call.expect("argmax", argmax, call.outer(y_shape))
    call.expect_argmax(argmax, window)
    with call.backend.scope():
        return call.outward(
            call.backend.max_pool2d_dx(call.inward(dy), call.inward(argmax), shape, window))


def avg_pool2d(x: Array, kernel_size: Pair, *, stride: Pair | None = None, padding: Padding = 0,
               ceil_mode: bool = False, count_include_pad: bool = True, layout: str = "NCHW",
               backend: str | Backend = "auto") -> Array:
    """Mean of each window: over its KH KW taps, zeros on padding, or over its elements inside x.

    x (N, C, H, W) -> (N, C, OH, OW).

    Args:
        stride: kernel_size by default.
        ceil_mode: also count a last, partial window; what it has beyond the padding never counts.
        count_include_pad: False divides by the number of elements inside x.
    """
    call = Call("avg_pool2d", layout, backend, {"x": x}, {})
    return avg_pool(call, x, kernel_size, stride, padding, ceil_mode, count_include_pad)


def avg_pool(call: Call, x: Array, kernel_size: Any, stride: Any, padding: Any, ceil_mode: bool,
             count_include_pad: bool) -> Array:
    """avg_pool2d; of signals, avg_pool1d."""
    count_include_pad = expect_flag(call.who, "count_include_pad", count_include_pad)
    window, _ = pooling_window(call, call.sizes(x), kernel_size, stride, padding, 1, ceil_mode)
    factor = _factor(call, call.sizes(x), x.dtype, window, kernel_size, stride, padding,
                     count_include_pad)
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
    call = Call("avg_pool2d_backward", layout, backend, {"dy": dy}, {})
    return avg_pool_backward(call, dy, x_shape, kernel_size, stride, padding, ceil_mode,
                             count_include_pad)


def avg_pool_backward(call: Call, dy: Array, x_shape: Sequence[int], kernel_size: Any, stride: Any,
                      padding: Any, ceil_mode: bool, count_include_pad: bool) -> Array:
    """avg_pool2d_backward; of signals, avg_pool1d_backward."""
    count_include_pad = expect_flag(call.who, "count_include_pad", count_include_pad)
    shape = call.given(x_shape)
    window, y_shape = pooling_window(call, shape, kernel_size, stride, padding, 1, ceil_mode)
    call.expect("dy", dy, call.outer(y_shape))
    factor = _factor(call, shape, dy.dtype, window, kernel_size, stride, padding,
                     count_include_pad)
    with call.backend.scope():
        dy = call.inward(dy)
        dy = dy if factor is None else dy * factor
        return call.outward(
            call.backend.avg_pool2d_dx(dy, shape, window, count_padding=count_include_pad))


def _factor(call: Call, x_sizes: Shape, dtype: Any, window: Window, kernel_size: Any, stride: Any,
            padding: Any, count_include_pad: bool) -> Array | None:
    """Factor for the means of `window`, which ceil_mode may have grown: (OH, OW, 1), or None."""
    given = call.window(kernel_size, kernel_size if stride is None else stride, padding, 1)
    factor = partial_factor(given, window, *x_sizes[1:3]) if count_include_pad else None
    with call.backend.scope():
        return None if factor is None else call.backend.asarray(factor, dtype)[:, :, None]


def pooling_window(call: Call, x_sizes: Shape, kernel_size: Any, stride: Any, padding: Any,
                   dilation: Any, ceil_mode: bool) -> tuple[Window, Shape]:
    """The window of a pooling, and the sizes (C, OH, OW, N) of its output."""
    C, H, width, N = x_sizes
    ceil_mode = expect_flag(call.who, "ceil_mode", ceil_mode)
    window = call.window(kernel_size, kernel_size if stride is None else stride, padding, dilation,
                         empty=False)
    window.output_size(H, width, who=call.who)
    window = window.ceil(H, width) if ceil_mode else window
    window.check_no_empty_window(H, width, who=call.who)
    return window, (C, *window.output_size(H, width), N)


def adaptive_max_pool2d(x: Array, output_size: Pair, *, layout: str = "NCHW",
                        backend: str | Backend = "auto"
                        ) -> tuple[Array, Array]:
    """Adaptive max pooling: y[n, c, i, j] = max of x[n, c] over rows i and columns j of a grid (He
    et al. 2015).

    x (N, C, H, W) -> y and indices (N, C, OH, OW), (OH, OW) = output_size. Row i of the grid goes
    from floor(i H / OH) to ceil((i + 1) H / OH). indices (int64) are iy W + ix of the element that
    won, the first of equal ones; a NaN wins over everything. The gradient is dx = max_unpool2d(dy,
    indices, (H, W)).
    """
    call = Call("adaptive_max_pool2d", layout, backend, {"x": x}, {})
    OH, OW = pair(output_size, "output_size", 1, call.who)
    C, H, W, N = call.sizes(x)
    with call.backend.scope():
        x = call.inward(x)
        y, indices = (call.backend.empty((C, OH, OW, N), dtype) for dtype in (x.dtype, np.int64))
        for i, (top, bottom) in enumerate(spans(H, OH)):
            for j, (left, right) in enumerate(spans(W, OW)):
                window = x[:, top:bottom, left:right].reshape(C, -1, N)  # (C, elements, N)
                y[:, i, j], won = window.max(axis=1), call.backend.argmax(window, 1)
                row, column = top + won // (right - left), left + won % (right - left)
                indices[:, i, j] = row * W + column
        return call.outward(y), call.outward(indices)


def max_pool_indices(argmax: Array, x_shape: Sequence[int], kernel_size: Pair, *,
                     stride: Pair | None = None, padding: Padding = 0, dilation: Pair = 1,
                     ceil_mode: bool = False, layout: str = "NCHW", backend: str | Backend = "auto"
                     ) -> Array:
    """Positions of max_pool2d's winners in the feature map, iy W + ix (int64), from their positions
    in the windows, i KW + j.

    argmax (N, C, OH, OW) from max_pool2d for x_shape (N, C, H, W) and these options -> indices like
    argmax. iy = oy stride - top + i dilation, ix likewise.
    """
    call = Call("max_pool_indices", layout, backend, {}, {"argmax": (argmax, "")})
    C, H, W, N = call.given(x_shape)
    window, y_shape = pooling_window(call, (C, H, W, N), kernel_size, stride, padding, dilation,
                                     ceil_mode)
    call.expect("argmax", argmax, call.outer(y_shape))
    call.expect_argmax(argmax, window)
    (_, OH, OW, _), (sh, sw), (dh, dw) = y_shape, window.stride, window.dilation
    xp = call.backend.xp
    with call.backend.scope():
        # (OH, 1) and (1, OW), with one more axis if the batch comes last
        last = () if call.batch_first else (1,)
        rows = xp.arange(OH).reshape(OH, 1, *last) * sh - window.padding[0]
        columns = xp.arange(OW).reshape(1, OW, *last) * sw - window.padding[2]
        taps = argmax.astype(np.int64)
        return (rows + taps // window.kernel[1] * dh) * W + columns + taps % window.kernel[1] * dw


def max_unpool2d(x: Array, indices: Array, output_size: Pair, *, layout: str = "NCHW",
                 backend: str | Backend = "auto") -> Array:
    """Max unpooling: y[n, c, position] = sum of the x[n, c, oy, ox] with indices[n, c, oy, ox] =
    position, and 0 elsewhere.

    x and indices (N, C, OH, OW) -> y (N, C, H, W), (H, W) = output_size. Values of one position are
    added in the order of (oy, ox); PyTorch keeps one of them.

    Args:
        indices: of an integer type, iy W + ix, from adaptive_max_pool2d or max_pool_indices.

    Raises:
        ValueError: an index is outside the feature map; on a GPU they are not checked.

    Zeiler and Fergus 2014, section 2.1.
    """
    call, (H, W) = _indexed("max_unpool2d", "x", x, indices, output_size, layout, backend)
    xp = call.backend.xp
    with call.backend.scope():
        C, OH, OW, N = call.sizes(x)
        x = call.inward(x).reshape(C, OH * OW, N)
        positions = call.inward(indices).reshape(C, OH * OW, N)
        y = call.backend.zeros((C, H * W, N), x.dtype)
        channel, sample = xp.arange(C)[:, None], xp.arange(N)
        # positions of one output are in different channels or samples: no atomic additions
        for o in range(OH * OW):
            y[channel, positions[:, o], sample] += x[:, o]
        return call.outward(y.reshape(C, H, W, N))


def max_unpool2d_backward(dy: Array, indices: Array, *, layout: str = "NCHW",
                          backend: str | Backend = "auto") -> Array:
    """Gradient of max_unpool2d: dx[n, c, oy, ox] = dy[n, c, indices[n, c, oy, ox]].

    dy (N, C, H, W), indices (N, C, OH, OW) -> dx like indices.
    """
    layout = expect_choice("max_unpool2d_backward", "layout", layout, LAYOUTS)
    H, W = _map_size(dy, layout)
    call, _ = _indexed("max_unpool2d_backward", "dy", dy, indices, (H, W), layout, backend,
                       same=False)
    with call.backend.scope():
        C, OH, OW, N = call.sizes(indices)
        dy = call.inward(dy).reshape(C, H * W, N)
        positions = call.inward(indices).reshape(C, OH * OW, N)
        dx = call.backend.xp.take_along_axis(dy, positions, axis=1)
        return call.outward(dx.reshape(C, OH, OW, N))


def _map_size(dy: Array, layout: str) -> tuple[int, int]:
    """(H, W) of an image; (1, 1) of anything else, which Call refuses."""
    if getattr(dy, "ndim", 0) != 4:
        return 1, 1
    return (dy.shape[2], dy.shape[3]) if layout == "NCHW" else (dy.shape[1], dy.shape[2])


def _indexed(who: str, name: str, image: Array, indices: Array, size: Pair, layout: str,
             backend: str | Backend, same: bool = True) -> tuple[Call, tuple[int, int]]:
    """The call, and the size (H, W) of the feature map that the indices point into."""
    call = Call(who, layout, backend, {name: image}, {"indices": (indices, "")})
    H, W = pair(size, "output_size", 1, who)
    C, _, _, N = call.sizes(image)
    if same:
        call.expect("indices", indices, image.shape)
    elif (indices.ndim != 4 or (call.sizes(indices)[0], call.sizes(indices)[3]) != (C, N)
          or 0 in indices.shape):
        raise ValueError(f"{who}: expected indices with the batch and the channels of {name}. "
                         f"Received: {name} {tuple(image.shape)}, indices {tuple(indices.shape)}.")
    if indices.dtype.kind not in "iu":
        raise TypeError(f"{who}: expected indices of an integer type. "
                        f"Received: indices of {indices.dtype}.")
    if call.backend.xp is np and not (indices.min() >= 0 and indices.max() < H * W):
        raise ValueError(f"{who}: expected indices from 0 to {H * W - 1}, for {H}x{W} positions. "
                         f"Received: indices from {indices.min()} to {indices.max()}.")
    return call, (H, W)
